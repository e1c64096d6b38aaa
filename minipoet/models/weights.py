"""The tensors of a checkpoint's folder, one at a time, whatever form they come in.

safetensors, whole or in shards, is memory-mapped: a tensor's bytes are read when it is used. An old `pytorch_model.bin`
goes through PyTorch's safe unpickler, which makes tensors and nothing else, so a file from elsewhere runs no code.

    read_tensors      of a folder, by the two below
    read_file         of one file of either form
    as_safetensors    a .bin's copy as safetensors, kept in minipoet's cache: what cannot be mapped is read once

Format: https://huggingface.co/docs/safetensors. Chapter: docs/checkpoints.md
"""

from __future__ import annotations

import hashlib
import json
import pickle
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from minipoet.files import cache_folder, read_json, write_tensors_atomic

WHOLE = ("model.safetensors", "pytorch_model.bin")
SOURCE, SAME = "minipoet.source", "minipoet.same"  # in the header of a copy: of what it is one; names for one tensor


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
        f"{folder} holds no weights: expected {' or '.join(names)} (or their index.json with shards), found "
        f"{', '.join(found) or 'nothing'}."
    )


def shard_names(index: Path) -> list[str]:
    """The files that an index.json spreads the tensors over. Raises CheckpointError for names outside its folder."""
    names = sorted(set(read_index(index).values()))
    bad = [name for name in names if Path(name).name != name]
    if bad:
        raise CheckpointError(f"{index} names shards outside its own folder: {bad}.")
    return names


def read_index(index: Path) -> dict[str, str]:
    """Tensor -> shard, as an index.json says. Raises CheckpointError for a file that says something else."""
    content = read_json(index)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(f, str) for f in weight_map.values()):
        raise CheckpointError(f"{index} has no weight_map of tensor names to shards: fetch the file again.")
    return weight_map


def index_of(folder: Path, names: Sequence[str] = WHOLE) -> dict[str, str]:
    """Tensor -> shard of a checkpoint's folder; {} if its weights are one file."""
    for name in names:
        index = folder / f"{name}.index.json"
        if (folder / name).exists() or index.exists():
            return {} if (folder / name).exists() else read_index(index)
    return {}


def _shards(index: Path) -> list[Path]:
    """Raises CheckpointError if there are more or fewer than the index names."""
    folder, names = index.parent, shard_names(index)
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise CheckpointError(
            f"{folder}: {len(missing)} of {len(names)} shards are missing: {', '.join(missing)}. Fetch them."
        )
    stem, _, kind = index.name.removesuffix(".index.json").rpartition(".")
    strange = sorted({path.name for path in folder.glob(f"{stem}-*-of-*.{kind}")} - set(names))
    if strange:
        raise CheckpointError(
            f"{folder} has {', '.join(strange)}, which {index.name} does not name: remove what is of another version "
            f"of the model, or fetch the index that belongs to all shards."
        )
    return [folder / name for name in names]


def read_tensors(folder: Path, keep: bool = True, names: Sequence[str] = WHOLE) -> Iterator[tuple[str, Tensor]]:
    """(published name, tensor) for every tensor of the folder. Raises CheckpointError for a broken file or index.

    keep: a .bin from before PyTorch 1.6 cannot be mapped, so it is read once and its copy mapped from then on. A newer
    one, a zip, is mapped as it is unless it has a copy already.
    """
    index, elsewhere = index_of(folder, names), []
    for path in weight_files(folder, names):
        shard = path.name
        if path.suffix == ".bin" and keep and (has_copy(path) or not zipfile.is_zipfile(path)):
            path = as_safetensors(path) or path
        for name, tensor in read_file(path):
            if index.get(name, shard) != shard:
                elsewhere.append(f"{name} in {index[name]}, but {shard} has it")
            yield name, tensor
    if elsewhere:
        more = f" (and {len(elsewhere) - 4} more)" if len(elsewhere) > 4 else ""
        raise CheckpointError(
            f"{folder}: index and shards are not of one version: the index puts {'; '.join(elsewhere[:4])}{more}. "
            f"Fetch the folder again."
        )


def read_file(path: Path) -> Iterator[tuple[str, Tensor]]:
    """(published name, tensor) for every tensor of one file, mapped: to look at shapes and types reads no numbers."""
    yield from _read_safetensors(path) if path.suffix == ".safetensors" else read_bin(path).items()


def _read_safetensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Each tensor through a mapping of its own: when it has been copied and is let go, its pages go with it."""
    try:
        with safe_open(path, framework="pt") as file:
            names, same = list(file.keys()), json.loads((file.metadata() or {}).get(SAME, "{}"))
        for name in names:
            with safe_open(path, framework="pt") as file:
                tensor = file.get_tensor(name)
            yield name, tensor
            yield from ((other, tensor) for other, kept in same.items() if kept == name)
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


def as_safetensors(path: Path) -> Path | None:
    """The copy of a .bin as safetensors in minipoet's cache; made, with a line that says so, if it is not there yet.

    The copy carries the path, size and times of its source, and is made anew when these change. Where it cannot be
    written: None, and a warning. Raises CheckpointError for anything but tensors in the .bin.
    """
    copy, source = _copy_of(path), _state(path)
    if has_copy(path):
        return copy
    content = read_bin(path)
    try:
        tensors, same = unshared(content)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if sys.stderr is not None:
        print(f"writing {path.name} once as safetensors, to {copy}", file=sys.stderr, flush=True)
    try:
        write_tensors_atomic(copy, tensors, {"format": "pt", SOURCE: source, SAME: json.dumps(same)})
    except OSError as error:
        warnings.warn(f"{error} {path} is read as it is; MINIPOET_CACHE names another folder.", stacklevel=2)
        return None
    return copy


def has_copy(path: Path) -> bool:
    """Whether a .bin has a whole copy of what it is now."""
    try:
        with safe_open(_copy_of(path), framework="pt") as file:
            return (file.metadata() or {}).get(SOURCE) == _state(path)
    except (SafetensorError, OSError):
        return False


def _copy_of(path: Path) -> Path:
    """One place a path, so that a new copy takes the place of the old."""
    key = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    return cache_folder() / "converted" / f"{path.stem}-{key}.safetensors"


def _state(path: Path) -> str:
    """What changes when a file does. (In the hub's cache the path alone would do: it is named by its content.)"""
    state = path.stat()
    return f"{path.resolve()} {state.st_size} {state.st_mtime_ns} {state.st_ctime_ns}"


def unshared(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors that share no memory, as safetensors needs them; name -> the earlier name of the very same tensor).

    A tensor that shares a part of its memory with an earlier one is copied. Raises ValueError for one that has no
    plain form.
    """
    odd = [f"{name} is not a plain tensor ({t.layout})" for name, t in tensors.items() if not _is_plain(t)]
    if odd:
        raise ValueError(f"{'; '.join(odd[:8])}.")
    own: dict[str, Tensor] = {}
    same: dict[str, str] = {}
    first: dict[object, str] = {}
    used: set[int] = set()
    for name, tensor in tensors.items():
        memory = tensor.untyped_storage().data_ptr()
        view = (memory, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)
        if first.setdefault(view, name) != name:
            same[name] = first[view]
        else:
            own[name] = tensor.clone() if memory in used else tensor.detach()
        used.add(memory)
    return own, same


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_quantized
