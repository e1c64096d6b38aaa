"""The tensors of a checkpoint's folder, one at a time, whatever form they come in.

safetensors, whole or in shards, is memory-mapped: a tensor's bytes are read when it is used. An old `pytorch_model.bin`
goes through PyTorch's safe unpickler, which makes tensors and nothing else, so a file from elsewhere runs no code.

Format: https://huggingface.co/docs/safetensors. Chapter: docs/checkpoints.md
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from minipoet.files import read_json

WHOLE = ("model.safetensors", "pytorch_model.bin")


class CheckpointError(ValueError):
    """A folder that cannot be loaded: the message says which file, what was expected, and what to do."""


def weight_files(folder: Path, names: Sequence[str] = WHOLE) -> list[Path]:
    """The files that hold the weights of a checkpoint's folder: safetensors before .bin, whole before shards.

    Raises CheckpointError if there are none, or if a shard that the index names is missing.
    """
    for name in names:
        if (folder / name).exists():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.exists():
            return _shards(index)
    found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    raise CheckpointError(
        f"{folder} holds no weights: expected model.safetensors or pytorch_model.bin (or their index.json with "
        f"shards), found {', '.join(found) or 'nothing'}."
    )


def _shards(index: Path) -> list[Path]:
    content = read_json(index)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map of tensor names to shards: fetch the file again.")
    names = sorted(set(weight_map.values()))
    bad = [name for name in names if not isinstance(name, str) or Path(name).name != name]
    if bad:
        raise CheckpointError(f"{index} names shards outside its own folder: {bad}.")
    missing = [name for name in names if not (index.parent / name).exists()]
    if missing:
        raise CheckpointError(
            f"{index.parent}: {len(missing)} of {len(names)} shards are missing: {', '.join(missing)}."
        )
    return [index.parent / name for name in names]


def read_tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """(published name, tensor) for every tensor of the folder. Raises CheckpointError for a broken file."""
    for path in weight_files(folder):
        yield from read_file(path)


def read_file(path: Path) -> Iterator[tuple[str, Tensor]]:
    """(published name, tensor) for every tensor of one file, mapped: to look at shapes and types reads no numbers."""
    yield from _read_safetensors(path) if path.suffix == ".safetensors" else read_bin(path).items()


def _read_safetensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Each tensor through a mapping of its own: when it has been copied and is let go, its pages go with it."""
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
        for name in names:
            with safe_open(path, framework="pt") as file:
                yield name, file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is broken or cut short ({error}): fetch it again.") from error


def read_bin(path: Path) -> dict[str, Tensor]:
    """The tensors of a file that torch.save wrote. Raises CheckpointError for anything but tensors in it."""
    try:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # the format before PyTorch 1.6 cannot be mapped
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read as plain tensors ({type(error).__name__}): it is cut short, or it holds code, "
            f"which is never run. Fetch it again, or get the model as safetensors."
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{path} is not a table of named tensors, as a model's weights are.")
    return content
