"""Prefixes on disk, in PEFT's form: one tensor, `prompt_embeddings`, (P, rows·G·D), as `Prefix` holds it.

For a model that reads a source PEFT takes 2·L rows and, by a quirk, gives layer l the rows 4l and 4l + 1 (mod 2·L):
with an even L half of them are never used. Such a prefix is read as PEFT uses it. Ours have two rows for each layer,
which PEFT could not tell from its own: so they are of a kind that it does not know.

PEFT keeps only the numbers that an MLP made, and so does adapter_model.safetensors here. The MLP itself lies beside it
in a file of our own, which PEFT does not look at: with it training goes on where it was.

Chapter: docs/prefix.md
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minipoet.adapters.peft import (
    CONFIG,
    MLP,
    OWN_PREFIX,
    WEIGHTS,
    AdapterError,
    misfit,
    read_tensors,
    read_weights,
    write_adapter,
)
from minipoet.adapters.prefix import Prefix, PrefixConfig, ProjectedPrefix, Shape, make_prefix, put
from minipoet.models.base import LanguageModel

TENSOR = "prompt_embeddings"
CLOSE = 1e-5  # the numbers of an MLP are made anew at each loading, and another processor adds in another order


def save_prefix(model: LanguageModel, folder: Path, name: str) -> None:
    """Write the prefix of this name so that PEFT's `PeftModel.from_pretrained` reads it."""
    assert model.prefixes is not None
    prefix = model.prefixes.parts()[name]  # type: ignore[operator]
    values = {
        "peft_type": OWN_PREFIX if model.reads_source else "PREFIX_TUNING",
        "task_type": model.task_type,
        "base_model_name_or_path": model.origin or None,
        "revision": model.revision or None,
        "inference_mode": True,
        "num_virtual_tokens": prefix.shape[0],
        "num_transformer_submodules": 1,
        "prefix_projection": False,  # of what is in the file: it is plain numbers
        **_sizes(model, prefix.shape),
    }
    if model.reads_source:
        values["parts"] = list(prefix.parts)
    values["encoder_hidden_size"] = values["token_dim"]
    files = {MLP: prefix.state_dict()} if isinstance(prefix, ProjectedPrefix) else {}
    write_adapter(folder, values, files | {WEIGHTS: {TENSOR: _made(prefix)}})


def _sizes(model: LanguageModel, shape: Shape) -> dict[str, Any]:
    """What the config says of the model, in PEFT's words."""
    _, rows, G, D = shape
    family = {"base_model_class": model.architecture, "parent_library": "minipoet"}
    return {"auto_mapping": family, "num_layers": rows // 2, "num_attention_heads": G, "token_dim": G * D}


@torch.no_grad()
def _made(prefix: nn.Module) -> Tensor:
    """The numbers, (P, rows·G·D) in fp32; made in fp64, as some processors multiply fp32 with fewer digits (TF32)."""
    return deepcopy(prefix).cpu().double()().flatten(1).float()


def read_prefix(model: LanguageModel, folder: Path, values: dict[str, Any]) -> Callable[[str], None]:
    """What puts the prefix of a folder, with these settings in its config, on the model under a name.

    Raises AdapterError for one of another model, and for files that disagree; nothing is changed before the call.
    """
    weights = read_weights(folder)
    if weights.keys() != {TENSOR}:
        held = ", ".join(sorted(weights)[:4]) or "nothing"
        raise misfit(folder, [f"a prefix is the tensor {TENSOR} alone, here are {held}"], values)
    own, parts = values["peft_type"] == OWN_PREFIX, _parts(folder, values)
    problems = [f"this model has no place for a prefix called {p!r}" for p in parts if p not in model.prefix_parts]
    if (own or values.get("num_transformer_submodules") == 2) != model.reads_source:
        kind = "goes on from a text" if model.reads_source else "reads a source"
        problems.insert(0, f"it is a prefix for a model that {kind}")
    if problems:
        raise misfit(folder, problems, values)
    numbers, wanted = weights[TENSOR], values.get("num_virtual_tokens")
    if numbers.ndim != 2 or len(numbers) != wanted or not numbers.numel():
        came = f"{TENSOR} is {tuple(numbers.shape)}, num_virtual_tokens is {wanted}"
        raise AdapterError(f"{folder}: its files disagree ({came}): fetch the folder again.")
    shape = _shape_for(model, folder, values, numbers, parts)
    if model.reads_source and not own:
        numbers = _as_peft_uses_it(numbers, shape)
    saved = _resumed(folder, shape, numbers) if (folder / MLP).exists() else _plain(shape, numbers)
    hidden = saved.up.weight.shape[0] if isinstance(saved, ProjectedPrefix) else None
    config = PrefixConfig(len(numbers), hidden is not None, hidden, parts)

    @torch.no_grad()
    def put_it(name: str) -> None:
        prefix = make_prefix(model, config, name)
        for ours, theirs in zip(prefix.parameters(), saved.parameters(), strict=True):
            ours.copy_(theirs)
        put(model, prefix, config, name)

    return put_it


def _parts(folder: Path, values: dict[str, Any]) -> tuple[str, ...]:
    parts = values.get("parts") or []
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts) or len({*parts}) < len(parts):
        raise AdapterError(f"{folder / CONFIG}: parts should be a list of names, each once, is {parts!r}.")
    return tuple(parts)


def _as_peft_uses_it(numbers: Tensor, shape: Shape) -> Tensor:
    """(P, 2·L·H·D), with the rows of layer l at 2l and 2l + 1."""
    _, rows, H, D = shape
    used = [row % rows for layer in range(rows // 2) for row in (4 * layer, 4 * layer + 1)]
    return numbers.view(-1, rows, H * D)[:, used].flatten(1)


def _shape_for(
    model: LanguageModel, folder: Path, values: dict[str, Any], numbers: Tensor, parts: tuple[str, ...]
) -> Shape:
    """(P, rows, G, D) of these numbers on this model. Raises AdapterError if they were made for another one.

    Their width alone does not tell: two layers of 64 take as many as four of 32.
    """
    made_for = values.get("auto_mapping")
    if isinstance(made_for, dict) and made_for.get("parent_library") == "minipoet":
        theirs = made_for.get("base_model_class")
        if theirs != model.architecture:
            raise misfit(folder, [f"it is a prefix for a {theirs}, this is a {model.architecture}"], values)
    try:
        shape = model.beginning_shape(len(numbers), **({"parts": parts} if parts else {}))
    except ValueError as error:
        raise misfit(folder, [str(error).rstrip(".")], values) from error
    _, rows, G, D = shape
    sizes = {key: size for key, size in _sizes(model, shape).items() if isinstance(size, int)}
    problems = [
        f"{key} is {values[key]}, here {size}" for key, size in sizes.items() if values.get(key) not in (None, size)
    ]
    if not problems and numbers.shape[1] != rows * G * D:
        here = f"{rows * G * D} ({rows} rows of {G} · {D})"
        problems = [f"{TENSOR} has {numbers.shape[1]} numbers a token, this model takes {here}"]
    if problems:
        raise misfit(folder, problems, values)
    return shape


def _plain(shape: Shape, numbers: Tensor) -> Prefix:
    prefix = Prefix(shape)
    prefix.begin(numbers.view(shape))
    return prefix


def _resumed(folder: Path, shape: Shape, numbers: Tensor) -> ProjectedPrefix:
    """The MLP that made the numbers. Raises AdapterError if the two files are not of one prefix."""
    tensors = read_tensors(folder / MLP)
    bias = tensors.get("up.bias")
    prefix = ProjectedPrefix(shape, None if bias is None else bias.numel())
    expected = {name: tensor.shape for name, tensor in prefix.state_dict().items()}
    fits = expected == {name: tensor.shape for name, tensor in tensors.items()}
    if fits:
        prefix.load_state_dict(tensors)
        fits = torch.allclose(_made(prefix), numbers.float(), rtol=CLOSE, atol=CLOSE * float(numbers.abs().max()))
    if not fits:
        raise AdapterError(
            f"{folder}: {MLP} does not make the numbers of the prefix beside it (has another program saved that?): "
            f"delete {MLP}, and the prefix is read as plain numbers."
        )
    return prefix
