"""Where the rooms are joined: a model with its tokenizer, from a name or a folder, and back to a folder.

    model, tokenizer = minipoet.load("poet-tiny")

Only `minipoet/__init__.py`, `command/` and the examples import this module; no room does.
"""

from __future__ import annotations

from importlib import resources
from os import PathLike
from pathlib import Path

import torch

from minipoet.adapters import adapter_names, merged_adapter
from minipoet.adapters.files import adapter_folders
from minipoet.checks import as_device, as_dtype, as_path, expect, expect_model, expect_tokenizer
from minipoet.hub import commit_of, fetch_from_hub, is_hub_id
from minipoet.models import CheckpointError, LanguageModel, load_model, save_model
from minipoet.models.checkpoint import read_config
from minipoet.quantization import few_bit_layers, is_quantized, load_quantized, quantization_of, save_quantized
from minipoet.tokenization import Tokenizer, load_tokenizer

EMBEDDED = {  # name: folder in minipoet/assets
    "poet-tiny": "poet_tiny",
    "poet-chat": "poet_chat",
    "reviewer-tiny": "reviewer_tiny",
}


def load(
    name: str | Path,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    check_memory: bool = True,
) -> tuple[LanguageModel, Tokenizer]:
    """A model, in evaluation mode, and its tokenizer.

    name: "poet-tiny", "poet-chat" or "reviewer-tiny" (they come with the package), a folder, or a model's id on the hub
    ("owner/model", or "owner/model@revision"), which is fetched once and read from the cache afterwards.
    dtype: None keeps the file's own, but fp16 becomes fp32 on a CPU, and the embedded models are fp32 everywhere.
    check_memory: weights that do not fit in memory are told before they are read; False tries nevertheless.
    Raises ValueError or OSError, with what to do, for a name, a folder or a file that cannot be used.
    """
    expect(name, (str, PathLike), "The model's name", f"a path, an id on the hub, or one of {', '.join(EMBEDDED)}")
    dtype, device = as_dtype(dtype), as_device(device)  # before anything is fetched
    if str(name) in EMBEDDED:
        with resources.as_file(resources.files("minipoet.assets") / EMBEDDED[str(name)]) as folder:
            model, tokenizer = load_folder(folder, dtype or torch.float32, device)
        model.origin = str(name)
        return model, tokenizer
    folder = Path(name)
    if folder.is_file():
        raise CheckpointError(f"{folder} is a file: give the folder of the model that it belongs to.")
    if str(name) and folder.is_dir():
        model, tokenizer = load_folder(folder, dtype, device, check_memory)
        model.origin = str(name)
        return model, tokenizer
    if not is_hub_id(str(name)):
        raise ValueError(
            f"There is no folder {str(name)!r}, and it is not the id of a model on the hub (owner/model) nor one that "
            f"comes with the package ({', '.join(EMBEDDED)})."
        )
    folder = fetch_from_hub(str(name))
    model, tokenizer = load_folder(folder, dtype, device, check_memory)
    model.origin, model.revision = str(name).partition("@")[0], commit_of(folder)
    return model, tokenizer


def load_folder(
    folder: Path, dtype: torch.dtype | None, device: str | torch.device, check_memory: bool = True
) -> tuple[LanguageModel, Tokenizer]:
    """Model and tokenizer of one folder; raises ValueError if they do not belong together.

    The largest file is read last: what is wrong with the others is told before.
    """
    adapter = any((place / "adapter_config.json").exists() for place in adapter_folders(folder))
    if adapter and not (folder / "config.json").exists():
        raise CheckpointError(
            f"{folder} holds an adapter, not a model: load its base, then "
            f"minipoet.load_adapter(model, {str(folder)!r})."
        )
    read_config(folder)
    packed = is_quantized(folder)
    if packed:
        quantization_of(folder)
    tokenizer = load_tokenizer(folder)
    model = (load_quantized if packed else load_model)(folder, dtype, device, check_memory)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise CheckpointError(
            f"{folder}: the tokenizer knows {tokenizer.vocab_size} ids, but the model has embeddings for "
            f"{model.config.vocab_size} only: they are of different models."
        )
    return model, tokenizer


def save(model: LanguageModel, tokenizer: Tokenizer, folder: str | Path) -> None:
    """Write model and tokenizer to a folder that `load` and transformers read.

    A merged adapter is in the weights that are written, and a quantised model stays so. Raises ValueError for a model
    with an adapter that is not merged, or with a prefix, which cannot be: save that with `save_adapter`, and merge or
    remove it first.
    """
    expect_model(model)
    expect_tokenizer(tokenizer)
    folder = as_path(folder, "The folder to save to")
    if model.prefixes is not None:
        raise ValueError(
            "The model carries a prefix, and no weights can hold that: write it with "
            "minipoet.save_adapter(model, folder), take it off with minipoet.remove_prefix(model), and save the rest."
        )
    if adapter_names(model) and merged_adapter(model) is None:
        raise ValueError(
            f"The model carries adapters ({', '.join(adapter_names(model))}) that are not merged: write them with "
            f"minipoet.save_adapter(model, folder), or merge first with minipoet.merge_lora(model)."
        )
    parameters = {name.replace(".base.", "."): p for name, p in model.named_parameters() if ".deltas." not in name}
    ends = tokenizer.eos_ids if len(tokenizer.eos_ids) > 1 else tokenizer.eos_id
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": ends, "pad_token_id": tokenizer.pad_id}
    if any(few_bit_layers(model)):
        save_quantized(model, folder, extra=ids)  # first: it may refuse
        tokenizer.save(folder)
        return
    tokenizer.save(folder)
    save_model(model, folder, extra=ids, parameters=parameters)
