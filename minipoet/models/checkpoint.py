"""A model from a folder, and back: what its publishers ship is read as it is, and what we write others can read.

The model is built on the meta device (shapes without memory); then each tensor of the file takes its place, one at a
time. Loading is strict: every tensor is used or known to be ignored, every parameter is filled or tied, and all that
is wrong is told in one error.

Chapter: docs/checkpoints.md
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minipoet.checks import as_device, as_dtype, as_path, expect_model
from minipoet.files import make_folder, read_json, remove, write_json_atomic, write_tensors_atomic
from minipoet.models.base import LanguageModel
from minipoet.models.families import family, make_config
from minipoet.models.memory import available_memory
from minipoet.models.names import apply
from minipoet.models.packed import PACKED, is_packed
from minipoet.models.weights import CheckpointError, index_of, read_tensors

QUANTISED = ("gptq_model*", "quantize_config.json")  # what quantization/checkpoint.py reads besides
SHARD = 2 * 1024**3  # bytes in a file we write
ROOM = 0.9  # of the free memory may be filled by weights; what reads a text needs some too


def load_model(
    folder: str | Path,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    check_memory: bool = True,
) -> LanguageModel:
    """The model of a folder with a config.json and weights, in evaluation mode.

    dtype None: the file's own; but fp16 on a CPU becomes fp32 (a CPU multiplies halves slowly or not at all), or bf16
    where fp32 does not fit in memory, with a warning. Raises CheckpointError, also for weights that do not fit in
    memory: before any is read, unless check_memory is False (a system may give more than it says).
    """
    folder, dtype, device = as_path(folder, "The folder of a model"), as_dtype(dtype), as_device(device)
    cls, config = read_config(folder)
    tensors = dict(read_tensors(folder, keep=device.type != "meta"))  # mapped, not read
    if any(name.endswith(".qweight") for name in tensors):
        raise CheckpointError(
            f"{folder} holds weights packed in few bits (.qweight): minipoet.load reads them if config.json, or a "
            f"quantize_config.json beside it, says how (bits, group_size, sym, desc_act)."
        )
    with torch.device("meta"):
        model = cls(cls.settled(config, tensors))
    if dtype is None:
        dtype = dtype_for(folder, tensors, device)
    if check_memory and device.type != "meta":
        expect_room(model, folder, tensors, dtype, device)
    fill_model(model, folder, tensors, dtype, device)
    model.tie()
    model.origin = str(folder)
    return model.eval()


def read_config(folder: Path) -> tuple[Any, Any]:
    """(class of the family, its config) of a model's folder. Raises CheckpointError for a config that is not ours."""
    config_file = folder / "config.json"
    if not config_file.exists():
        raise CheckpointError(f"{folder} is not a model's folder: it has no config.json.")
    values = read_json(config_file)
    if not isinstance(values, dict):
        raise CheckpointError(f"{config_file} should hold a JSON object, but holds a {type(values).__name__}.")
    try:
        cls = family(values)
        return cls, make_config(cls, values)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error


def fill_model(
    model: LanguageModel,
    folder: Path,
    tensors: dict[str, Tensor],
    dtype: torch.dtype | None,
    device: torch.device,
    problems: Sequence[str] = (),
) -> None:
    """Give each parameter of the model its tensor. `tensors` is emptied on the way: none is held in two forms.

    problems: what is wrong besides, to be told in the same error.
    """
    names = model.name_table()
    expected = {name: p.shape for name, p in model.named_parameters(remove_duplicate=False)}
    tied = set(expected) - {name for name, _ in model.named_parameters()}
    filled: dict[str, Tensor] = {}
    copies: dict[str, Tensor] = {}  # of tied tensors, which old files hold twice
    seen, left_over, wrong = set(), [], list(problems)
    while tensors:
        published, tensor = tensors.popitem()
        if any(re.fullmatch(pattern, published) for pattern in model.ignored):
            continue
        found = names.ours(published) or names.ours(model.prefix + published)
        if found is None or found[0] not in expected:
            left_over.append(published)
            continue
        ours, transform = found
        seen.add(ours)
        tensor = apply(transform, tensor)
        if tensor.shape != expected[ours]:
            wrong.append(f"{published} is {tuple(tensor.shape)}, the config asks for {tuple(expected[ours])}")
        elif ours in tied:
            copies[ours] = tensor
        else:
            keep = tensor.dtype if dtype is None or not tensor.is_floating_point() else dtype
            tensor = tensor.to(device, keep)
            filled[ours] = tensor if _may_lie(tensor) else tensor.contiguous()
    missing = [names.published(name)[0] for name in expected if name not in seen | tied]  # type: ignore[index]
    for name, tensor in (copies if device.type != "meta" else {}).items():  # meta has no numbers to compare
        shared = model.get_parameter(name)
        source = next((other for other in filled if model.get_parameter(other) is shared), None)
        if source is not None and not torch.equal(filled[source].cpu(), tensor.to(filled[source].dtype)):
            wrong.append(f"{name} differs from {source}, but the config ties them (set tie_word_embeddings to false)")
    if missing or left_over or wrong:
        raise CheckpointError(_disagreement(folder, missing, left_over, wrong))
    for name, tensor in filled.items():
        path, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(path), leaf, nn.Parameter(tensor, requires_grad=tensor.is_floating_point()))


def _may_lie(tensor: Tensor) -> bool:
    """A transposed matrix is multiplied as fast as it lies in fp32 on a CPU, or faster: it need not be turned."""
    return tensor.dtype is torch.float32 and tensor.device.type == "cpu"


def _disagreement(folder: Path, missing: list[str], left_over: list[str], wrong: list[str]) -> str:
    index = index_of(folder)
    missing = [f"{name} (not in {index[name]}, where the index puts it)" if name in index else name for name in missing]
    lines = [f"The weights in {folder} do not fit its config.json:"]
    for title, names in (("missing", missing), ("left over", left_over), ("wrong", wrong)):
        if names:
            shown = names if len(names) <= 20 else [*names[:20], f"… and {len(names) - 20} more"]
            lines.append(f"  {title} ({len(names)}): " + "; ".join(shown))
    return "\n".join([*lines, "Is it the right config.json? Fetch the folder again if a download was cut short."])


def dtype_for(folder: Path, tensors: dict[str, Tensor], device: torch.device) -> torch.dtype | None:
    """None keeps each tensor's own type."""
    if device.type != "cpu" or not any(tensor.dtype == torch.float16 for tensor in tensors.values()):
        return None
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if 2 * size < ROOM * available_memory():
        return torch.float32
    warnings.warn(
        f"{folder}: {2 * size / 1e9:.1f} GB in fp32 do not fit in memory; loaded in bf16 instead of its own fp16. "
        f"Give dtype=torch.float32 to force it.",
        stacklevel=3,
    )
    return torch.bfloat16


def expect_room(
    model: LanguageModel,
    folder: Path,
    tensors: dict[str, Tensor],
    dtype: torch.dtype | None,
    device: torch.device,
    besides: int = 0,
) -> None:
    """Raise CheckpointError if the weights do not fit; warn if they will be read from the disk again and again.

    besides: bytes that are needed for what is no parameter.
    """
    free, need = available_memory(device), besides + _copied(model, tensors, dtype, device)
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    if need <= ROOM * free:
        if device.type == "cpu" and not need and size > free:
            warnings.warn(
                f"{folder}: the weights, {size / 1e9:.1f} GB, are mapped from the disk, but only {free / 1e9:.1f} GB "
                f"of memory are available: they will be read again and again. Take a smaller model of the family.",
                stacklevel=3,
            )
        return
    own = max(tensors.values(), key=Tensor.numel).dtype
    ways = []
    for smaller in dict.fromkeys((own, torch.bfloat16)):
        less = besides + _copied(model, tensors, smaller, device)
        if less < need and less <= ROOM * free:
            why = "as the file has it: mapped, not copied" if not less else f"{less / 1e9:.1f} GB"
            ways.append(f"give dtype={smaller} ({why})")
    ways = [*ways, "take a smaller model of the family", "or let check_memory=False try nevertheless"]
    raise CheckpointError(
        f"{folder} does not fit in memory: its weights take {need / 1e9:.1f} GB in {dtype or own}, and "
        f"{free / 1e9:.1f} GB are available{'' if device.type == 'cpu' else f' on {device}'}: {', '.join(ways)}."
    )


def _copied(model: LanguageModel, tensors: dict[str, Tensor], dtype: torch.dtype | None, device: torch.device) -> int:
    """Bytes that `fill_model` will take for these tensors: what stays as in its file is mapped, and takes none."""
    total, names = 0, model.name_table()
    once = {name for name, _ in model.named_parameters()}  # a tied tensor is needed once
    for published, tensor in tensors.items():
        ours, transform = names.ours(published) or names.ours(model.prefix + published) or ("", None)
        kind = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        mapped = device.type == "cpu" and kind is tensor.dtype and (transform is None or _may_lie(tensor))
        total += 0 if mapped or ours not in once else tensor.numel() * kind.itemsize
    return total


def save_model(
    model: LanguageModel,
    folder: str | Path,
    extra: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Tensor] | None = None,
) -> None:
    """Write config.json and safetensors (in shards above 2 GB) that transformers reads. `extra` goes to config.json.

    parameters, by our names, are written instead of the model's own (which may carry adapters between them).
    Each file is whole or not there; the config comes last, so that a folder without one is an unfinished one.
    Raises ValueError for a model with packed weights.
    """
    expect_model(model)
    if is_packed(model):
        raise ValueError(PACKED)
    folder = make_folder(as_path(folder, "The folder to save to"))
    write_model(model, folder, as_published(model, parameters), extra)


def as_published(
    model: LanguageModel, parameters: Mapping[str, Tensor] | None = None
) -> dict[str, tuple[Tensor, str | None]]:
    """Published name -> (tensor, transform) of these parameters, by our names, or of the model's own."""
    names = model.name_table()
    published = {}
    for name, parameter in (parameters or dict(model.named_parameters())).items():  # a tied tensor comes once
        found = names.published(name)
        assert found is not None, f"{name} is not in the family's table of names"
        published[found[0]] = (parameter.detach(), found[1])
    return published


def write_model(
    model: LanguageModel,
    folder: Path,
    published: Mapping[str, tuple[Tensor, str | None]],
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write tensors, (ours, transform) by their published names, and the model's config.json."""
    remove(folder / "config.json")
    shards = _divide({name: t.numel() * t.element_size() for name, (t, _) in published.items()})
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {name: apply(published[name][1], published[name][0]).contiguous() for name in shard}
        write_tensors_atomic(folder / file, tensors, {"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
    _remove_old(folder, set(weight_map.values()))
    if len(shards) > 1:
        size = sum(t.numel() * t.element_size() for t, _ in published.values())
        index = {"metadata": {"total_size": size}, "weight_map": weight_map}
        write_json_atomic(folder / "model.safetensors.index.json", index)
    dtype = str(next(iter(published.values()))[0].dtype).removeprefix("torch.")
    config = {
        "model_type": model.model_type,
        "architectures": [model.architecture],
        "dtype": dtype,
        **asdict(model.config),
    }
    write_json_atomic(folder / "config.json", config | dict(extra or {}))


def _divide(sizes: dict[str, int]) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    room = SHARD
    for name, size in sizes.items():
        if size > room and shards[-1]:
            shards.append([])
            room = SHARD
        shards[-1].append(name)
        room -= size
    return shards


def _remove_old(folder: Path, written: set[str]) -> None:
    """Weights that an earlier save left here would be read before or beside the new ones."""
    for pattern in ("model*.safetensors", "model.safetensors.index.json", "pytorch_model*", *QUANTISED):
        for path in folder.glob(pattern):
            if path.name not in written:
                remove(path)
