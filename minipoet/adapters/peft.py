"""PEFT's folder of one adapter: adapter_config.json and adapter_model.safetensors.

What is in it is in lora_files.py and prefix_files.py; here is what all kinds share. Whatever is in a config and would
change the result, but is not supported, is refused by name.

Format: https://huggingface.co/docs/peft/developer_guides/checkpoint. Chapter: docs/lora.md
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from minipoet.files import read_json, remove, write_json_atomic, write_tensors_atomic
from minipoet.models.weights import read_bin

CONFIG, WEIGHTS, OLD_WEIGHTS = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
MLP = "prefix_mlp.safetensors"  # not of PEFT: see prefix_files.py

OWN_PREFIX = "MINIPOET_PREFIX_TUNING"  # nor is this kind of prefix

# By kind: settings that change the result; anything but these values is refused.
_PLAIN: dict[str, dict[str, tuple[Any, ...]]] = {
    "LORA": {
        "use_dora": (False,),
        "bias": ("none",),
        "modules_to_save": (None, []),
        "trainable_token_indices": (None, {}, []),
        "target_parameters": (None, []),
        "lora_bias": (False,),
        "use_qalora": (False,),
        "use_bdlora": (None, False),
        "layer_replication": (None, []),
        "alora_invocation_tokens": (None, []),
        "arrow_config": (None,),
        "kasa_config": (None,),
        "monteclora_config": (None,),
        "velora_config": (None,),
    },
    "PREFIX_TUNING": {"modules_to_save": (None, []), "num_transformer_submodules": (1, 2, None)},
    OWN_PREFIX: {},
}
# LoRA's starts that leave the base's weights as they are.
_PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva")


class AdapterError(ValueError):
    """An adapter's folder that cannot be loaded on this model: the message says why, and what to do."""


def write_adapter(folder: Path, values: Mapping[str, Any], files: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write the tensors by file, and the config last, so that a folder without one is an unfinished one.

    The folder is there, and the config of the adapter that it held is gone already; its other files go now.
    """
    for file, tensors in files.items():
        write_tensors_atomic(folder / file, tensors, {"format": "pt"})
    clear(folder, keep=files)
    write_json_atomic(folder / CONFIG, values, sort_keys=True)


def clear(folder: Path, keep: Collection[str] = ()) -> None:
    """Remove the files of an adapter, but for those to keep."""
    for file in (CONFIG, WEIGHTS, OLD_WEIGHTS, MLP):
        if file not in keep:
            remove(folder / file)


def read_config(folder: Path) -> dict[str, Any]:
    """The settings in an adapter's folder. Raises AdapterError for a kind, or a setting, that cannot be loaded."""
    path = folder / CONFIG
    if not path.exists():
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "does not exist"
            raise AdapterError(f"{folder} {what}: expected an adapter's folder, with {CONFIG} in it.")
        found = ", ".join(sorted(p.name for p in folder.iterdir())) or "nothing"
        raise AdapterError(
            f"{folder} has no {CONFIG} (found {found}): it is not an adapter's folder, or saving it was cut short."
        )
    values = read_json(path)
    if not isinstance(values, dict) or "peft_type" not in values:
        raise AdapterError(f"{path} is not a PEFT config: it has no peft_type.")
    known = _PLAIN.get(str(values["peft_type"]))
    if known is None:
        kinds = " and ".join(_PLAIN)
        raise AdapterError(f"{path} is an adapter of the kind {values['peft_type']}; only {kinds} can be loaded.")
    odd = [
        f"{key} = {json.dumps(values[key])}" for key, plain in known.items() if values.get(key, plain[0]) not in plain
    ]
    start = values.get("init_lora_weights", True)
    if start not in _PLAIN_STARTS and not (isinstance(start, str) and start.startswith("eva")):
        odd.append(f"init_lora_weights = {start!r} (it changes the base's weights)")
    if odd:
        raise AdapterError(f"{path} uses what minipoet does not support: {', '.join(odd)}.")
    return values


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of an adapter. Raises AdapterError if they are missing or broken."""
    path = folder / WEIGHTS
    if not path.exists() and (folder / OLD_WEIGHTS).exists():
        return read_bin(folder / OLD_WEIGHTS)
    if not path.exists():
        raise AdapterError(f"{folder} has a config but no {WEIGHTS}: saving it was cut short; save it again.")
    return read_tensors(path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises AdapterError if it is broken."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"{path} is broken or cut short ({error}): fetch or save it again.") from error


def misfit(folder: Path, problems: Sequence[str], values: Mapping[str, Any]) -> AdapterError:
    """The error for an adapter of another model: what does not fit, and which base it was made for."""
    listed = "; ".join(problems[:12])
    more = f" (and {len(problems) - 12} more)" if len(problems) > 12 else ""
    base = values.get("base_model_name_or_path")
    return AdapterError(
        f"The adapter in {folder} does not fit this model: {listed}{more}. "
        + (f"It was made for {base}: load that base first." if base else "Load the base that it was made for.")
    )
