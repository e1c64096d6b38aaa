"""Adapters on disk: PEFT's folder, one for each kind.

An adapter that is a LoRA or a prefix is written flat, as PEFT does it: adapter_config.json and
adapter_model.safetensors. One that is both is two such folders in one, `lora/` and `prefix/`; PEFT reads each of them.

Chapters: docs/lora.md, docs/prefix.md
"""

from __future__ import annotations

from pathlib import Path

from minipoet.adapters.lora_files import read_lora, save_lora
from minipoet.adapters.peft import CONFIG, OWN_PREFIX, AdapterError, clear, read_config
from minipoet.adapters.prefix_files import read_prefix, save_prefix
from minipoet.adapters.switch import Model, active_adapter, adapter_names, check_new, refuse_merged
from minipoet.checks import as_path, expect_model
from minipoet.files import make_folder, remove
from minipoet.models.base import LanguageModel

_SAVE = {"lora": save_lora, "prefix": save_prefix}
_KINDS = {  # by PEFT's word
    "LORA": ("lora", read_lora),
    "PREFIX_TUNING": ("prefix", read_prefix),
    OWN_PREFIX: ("prefix", read_prefix),
}


def save_adapter(model: LanguageModel, folder: str | Path, name: str | None = None) -> None:
    """Write one adapter (the active one unless named) so that PEFT's `PeftModel.from_pretrained` reads it.

    Raises ValueError if there is no such adapter, and for a model that is on the meta device.
    """
    name = name or active_adapter(model) or next(iter(adapter_names(model)), None)
    if name is None or name not in adapter_names(model):
        raise ValueError(f"There is no adapter {name or ''!r} to save; the model has {adapter_names(model) or 'none'}.")
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ValueError("The model is on the meta device, which has shapes and no numbers: there is nothing to save.")
    folder = as_path(folder, "The folder to save to")
    kinds = list(model.adapters[name])
    places = {kind: folder / kind if len(kinds) > 1 else folder for kind in kinds}
    for place in places.values():
        make_folder(place)
    for place in (folder, *places.values()):
        remove(place / CONFIG)  # until all is written, it is an unfinished adapter
    for kind, place in places.items():
        _SAVE[kind](model, place, name)
    if folder not in places.values():
        clear(folder)  # of what lay flat here before


def load_adapter(model: Model, folder: str | Path, name: str = "default") -> Model:
    """Put a saved adapter on the model under this name, and make it active. Returns the model, changed in place.

    Raises AdapterError for a folder that is not an adapter, a kind of adapter that is not supported, or one of another
    model; the model is then as it was.
    """
    expect_model(model)
    folder = as_path(folder, "The folder of an adapter")
    parts = {}
    for place in adapter_folders(folder):
        values = read_config(place)
        kind, read = _KINDS[values["peft_type"]]
        if kind in parts:
            raise AdapterError(f"{folder} holds a {kind} twice, in {' and '.join(_SAVE)}: load the folder of one.")
        check_new(model, name, kind, seed=0)
        refuse_merged(model)
        parts[kind] = read(model, place, values)
    for put in parts.values():
        put(name)
    return model


def adapter_folders(folder: Path) -> list[Path]:
    """Where the parts of an adapter lie: the folder itself, or its lora/ and prefix/, finished or not."""
    inner = [folder / kind for kind in _SAVE if (folder / kind).is_dir()]
    flat = (folder / CONFIG).exists() or not any((place / CONFIG).exists() for place in inner)
    return [folder] if flat else inner
