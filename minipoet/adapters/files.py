"""LoRA adapters on disk, in the format of PEFT: adapter_config.json and adapter_model.safetensors.

What PEFT saved is read here and gives the same logits, and the other way round. The published names of the layers come
from the model's own table. Whatever is in a file and would change the result, but is not supported, is refused by name.

Format: https://huggingface.co/docs/peft/developer_guides/checkpoint. Chapter: docs/lora.md
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from minipoet.adapters.lora import LoRAConfig, Model, active_adapter, adapter_names, attach, lora_layers
from minipoet.checks import as_path, expect_model
from minipoet.files import make_folder, read_json, remove, write_json_atomic, write_tensors_atomic
from minipoet.models.base import LanguageModel
from minipoet.models.weights import read_bin

CONFIG, WEIGHTS, OLD_WEIGHTS = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
PREFIX = "base_model.model."

# Settings that change the result; anything but these values is refused.
_PLAIN: dict[str, tuple[Any, ...]] = {
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
}
_PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva")  # starts that leave the base's weights as they are


class AdapterError(ValueError):
    """An adapter's folder that cannot be loaded on this model: the message says why, and what to do."""


def save_adapter(model: LanguageModel, folder: str | Path, name: str | None = None) -> None:
    """Write one adapter (the active one unless named) so that PEFT's `PeftModel.from_pretrained` reads it.

    Raises ValueError if there is no such adapter.
    """
    name = name or active_adapter(model) or next(iter(adapter_names(model)), None)
    if name is None or name not in adapter_names(model):
        raise ValueError(f"There is no adapter {name or ''!r} to save; the model has {adapter_names(model) or 'none'}.")
    config: LoRAConfig = model.adapters[name]
    table = model.name_table()
    tensors: dict[str, Tensor] = {}
    sizes: dict[str, tuple[int, float]] = {}  # (rank, alpha) by published name
    transposed = False
    for ours, layer in lora_layers(model):
        if name not in layer.deltas:
            continue
        found = table.published_module(ours)
        assert found is not None, f"{ours} is not in the family's table of names"
        published, transform = found
        transposed |= transform == "transpose"
        sizes[published] = config.of(ours, published)
        for matrix in ("A", "B"):
            tensors[f"{PREFIX}{published}.lora_{matrix}.weight"] = getattr(layer.delta(name), matrix)
    values = {
        "peft_type": "LORA",
        "task_type": model.task_type,
        "base_model_name_or_path": model.origin or None,
        "inference_mode": True,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "use_rslora": config.rslora,
        "target_modules": list(sizes),
        "rank_pattern": {re.escape(n): rank for n, (rank, _) in sizes.items() if rank != config.rank},
        "alpha_pattern": {re.escape(n): alpha for n, (_, alpha) in sizes.items() if alpha != config.alpha},
        "fan_in_fan_out": transposed,
        "bias": "none",
        "init_lora_weights": True,
        "modules_to_save": None,
        "use_dora": False,
    }
    folder = make_folder(as_path(folder, "The folder to save to"))
    remove(folder / CONFIG)  # a folder without a config is an unfinished one
    write_tensors_atomic(folder / WEIGHTS, tensors, {"format": "pt"})
    write_json_atomic(folder / CONFIG, values, sort_keys=True)


def load_adapter(model: Model, folder: str | Path, name: str = "default") -> Model:
    """Put a saved LoRA adapter on the model under this name, and make it active. Returns the model, changed in place.

    Raises AdapterError for a folder that is not an adapter, a kind of adapter that is not supported, or one of another
    model; the model is then as it was.
    """
    expect_model(model)
    folder = as_path(folder, "The folder of an adapter")
    values = read_config(folder)
    weights = _read_weights(folder)
    table = model.name_table()
    modules: dict[str, dict[str, Tensor]] = {}
    problems = []
    for key, tensor in weights.items():
        published, _, kind = key.removeprefix(PREFIX).removesuffix(".weight").rpartition(".lora_")
        ours = table.our_module(published) or table.our_module(getattr(model, "prefix", "") + published)
        if kind not in ("A", "B") or not key.endswith(".weight"):
            problems.append(f"{key} is not a LoRA matrix of a linear layer")
        elif ours is None or not _has(model, ours):
            problems.append(f"{published}: this model has no such layer")
        else:
            modules.setdefault(ours, {})[kind] = tensor
    for ours, pair in modules.items():
        n_out, n_in = model.get_submodule(ours).weight.shape  # type: ignore[misc]
        shapes = {kind: tuple(t.shape) for kind, t in pair.items()}
        if set(pair) != {"A", "B"} or shapes["A"][1:] != (n_in,) or shapes["B"] != (n_out, shapes["A"][0]):
            problems.append(f"{ours} is ({n_out}, {n_in}), but the adapter brings {shapes}")
    if problems or not modules:
        listed = "; ".join(problems[:12]) or "no LoRA matrices in it"
        more = f" (and {len(problems) - 12} more)" if len(problems) > 12 else ""
        base = values.get("base_model_name_or_path")
        raise AdapterError(
            f"The adapter in {folder} does not fit this model: {listed}{more}. "
            + (f"It was made for {base}: load that base first." if base else "Load the base that it was made for.")
        )
    config = _settings(values, {ours: _published(model, ours) for ours in modules})
    for ours, pair in modules.items():
        rank, _ = config.of(_published(model, ours))
        if pair["A"].shape[0] != rank:
            problems.append(f"{ours}: rank {pair['A'].shape[0]}, but {rank} by the config")
    if problems:
        raise AdapterError(f"{folder}: its files disagree ({'; '.join(problems[:12])}): fetch the folder again.")
    attach(model, config, name)
    layers = dict(lora_layers(model))
    with torch.no_grad():
        for ours, pair in modules.items():
            delta = layers[ours].delta(name)
            delta.A.copy_(pair["A"])
            delta.B.copy_(pair["B"])
    return model


def _settings(values: dict[str, Any], modules: dict[str, str]) -> LoRAConfig:
    """The adapter's settings, for modules (our name: published name). The file's patterns speak of published names."""
    try:
        theirs = LoRAConfig(
            rank=values.get("r", 8),
            alpha=values.get("lora_alpha", 8),
            dropout=values.get("lora_dropout", 0.0),
            rslora=values.get("use_rslora", False),
            rank_pattern=values.get("rank_pattern") or {},
            alpha_pattern=values.get("alpha_pattern") or {},
        )
        sizes = {re.escape(published): theirs.of(published) for published in modules.values()}
    except (TypeError, ValueError, AttributeError, re.error) as error:
        raise AdapterError(f"{CONFIG} holds a setting that cannot be used: {error}") from error
    return replace(
        theirs,
        targets=tuple(modules),
        rank_pattern={name: rank for name, (rank, _) in sizes.items() if rank != theirs.rank},
        alpha_pattern={name: alpha for name, (_, alpha) in sizes.items() if alpha != theirs.alpha},
    )


def _published(model: LanguageModel, ours: str) -> str:
    found = model.name_table().published_module(ours)
    assert found is not None, f"{ours} is not in the family's table of names"
    return found[0]


def _has(model: nn.Module, name: str) -> bool:
    try:
        return hasattr(model.get_submodule(name), "weight")
    except AttributeError:
        return False


def read_config(folder: Path) -> dict[str, Any]:
    """The settings in an adapter's folder. Raises AdapterError for a kind, or a setting, that cannot be loaded."""
    path = folder / CONFIG
    if not path.exists():
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "does not exist"
            raise AdapterError(f"{folder} {what}: expected an adapter's folder, with {CONFIG} in it.")
        found = sorted(p.name for p in folder.iterdir())
        raise AdapterError(
            f"{folder} is not an adapter's folder: no {CONFIG} in it (found {', '.join(found) or 'nothing'})."
        )
    values = read_json(path)
    if not isinstance(values, dict) or "peft_type" not in values:
        raise AdapterError(f"{path} is not a PEFT config: it has no peft_type.")
    if values["peft_type"] != "LORA":
        raise AdapterError(f"{path} is an adapter of the kind {values['peft_type']}; only LORA can be loaded.")
    odd = [
        f"{key} = {json.dumps(values[key])}" for key, plain in _PLAIN.items() if values.get(key, plain[0]) not in plain
    ]
    start = values.get("init_lora_weights", True)
    if start not in _PLAIN_STARTS and not (isinstance(start, str) and start.startswith("eva")):
        odd.append(f"init_lora_weights = {start!r} (it changes the base's weights)")
    if odd:
        raise AdapterError(f"{path} uses what minipoet does not support: {', '.join(odd)}.")
    return values


def _read_weights(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    if not path.exists() and (folder / OLD_WEIGHTS).exists():
        return read_bin(folder / OLD_WEIGHTS)
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise AdapterError(
            f"{folder} has a config but no {WEIGHTS}: saving it was cut short; save it again."
        ) from error
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"{path} is broken or cut short ({error}): fetch or save it again.") from error
