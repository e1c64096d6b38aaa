"""Adapters on disk: PEFT's folder, one for each kind.

An adapter that is a LoRA or a prefix is written flat, as PEFT does it: adapter_config.json and
adapter_model.safetensors. One that is both is two such folders in one, `lora/` and `prefix/`; PEFT reads each of them.

Chapters: docs/lora.md, docs/prefix.md
"""

from __future__ import annotations

from pathlib import Path

from minipoet.adapters.lora_files import read_lora, save_lora
from minipoet.adapters.peft import CONFIG, OLD_WEIGHTS, WEIGHTS, read_config
from minipoet.adapters.prefix_files import MLP, read_prefix, save_prefix
from minipoet.adapters.switch import Model, active_adapter, adapter_names, check_new, refuse_merged
from minipoet.checks import as_path, expect_model
from minipoet.files import remove
from minipoet.models.base import LanguageModel

_SAVE = {"lora": save_lora, "prefix": save_prefix}
_KINDS = {"LORA": ("lora", read_lora), "PREFIX_TUNING": ("prefix", read_prefix)}  # by PEFT's word


def save_adapter(model: LanguageModel, folder: str | Path, name: str | None = None) -> None:
    """Write one adapter (the active one unless named) so that PEFT's `PeftModel.from_pretrained` reads it.

    Raises ValueError if there is no such adapter.
    """
    name = name or active_adapter(model) or next(iter(adapter_names(model)), None)
    if name is None or name not in adapter_names(model):
        raise ValueError(f"There is no adapter {name or ''!r} to save; the model has {adapter_names(model) or 'none'}.")
    folder = as_path(folder, "The folder to save to")
    kinds = list(model.adapters[name])
    places = {kind: folder / kind if len(kinds) > 1 else folder for kind in kinds}
    for place in {folder, *(folder / kind for kind in _SAVE)} - {*places.values()}:  # what an earlier save left
        for file in (CONFIG, WEIGHTS, OLD_WEIGHTS, MLP):
            remove(place / file)
    for kind, place in places.items():
        _SAVE[kind](model, place, name)


def load_adapter(model: Model, folder: str | Path, name: str = "default") -> Model:
    """Put a saved adapter on the model under this name, and make it active. Returns the model, changed in place.

    Raises AdapterError for a folder that is not an adapter, a kind of adapter that is not supported, or one of another
    model; the model is then as it was.
    """
    expect_model(model)
    parts = []
    for place in adapter_folders(as_path(folder, "The folder of an adapter")):
        values = read_config(place)
        kind, read = _KINDS[values["peft_type"]]
        check_new(model, name, kind, seed=0)
        refuse_merged(model)
        parts.append(read(model, place, values))
    for put in parts:
        put(name)
    return model


def adapter_folders(folder: Path) -> list[Path]:
    """Where the parts of an adapter lie: the folder itself, or its lora/ and prefix/."""
    inner = [] if (folder / CONFIG).exists() else [folder / kind for kind in _SAVE if (folder / kind / CONFIG).exists()]
    return inner or [folder]
