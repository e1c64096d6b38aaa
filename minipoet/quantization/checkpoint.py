"""GPTQ's files: a folder with packed weights into a model, and back.

A packed layer of the published name p is four tensors, p.qweight, p.qzeros, p.scales and p.g_idx, and perhaps p.bias
(`GPTQLinear` says what is in them); all else is as in any checkpoint. The settings are in quantize_config.json, in
config.json's quantization_config, or in both.

    is_quantized, quantization_of     what a folder says of itself
    load_quantized                    the tensors stay mapped, or go to the GPU, one at a time: packed, as they are
    save_quantized                    so that AutoGPTQ, GPTQModel and transformers read it

Format: AutoGPTQ (https://github.com/AutoGPTQ/AutoGPTQ), GPTQModel (https://github.com/ModelCloud/GPTQModel).
Chapter: docs/int4.md
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from minipoet.checks import as_device, as_dtype, as_path, expect_model
from minipoet.files import make_folder, read_json, write_json_atomic
from minipoet.models.base import LanguageModel
from minipoet.models.checkpoint import as_published, dtype_for, expect_room, fill_model, read_config, write_model
from minipoet.models.weights import CheckpointError, read_tensors
from minipoet.quantization.grid import QuantConfig
from minipoet.quantization.layer import GPTQLinear
from minipoet.quantization.whole import few_bit_layers
from minipoet.quantization.words import WORD

SETTINGS = "quantize_config.json"
PARTS = ("qweight", "qzeros", "scales", "g_idx")
FORMS = {"gptq": 1, "gptq_v2": 0}  # checkpoint_format: what has to be added to a stored zero
SHAPING = ("bits", "group_size", "sym", "checkpoint_format")  # on these the two places have to agree


class Published(NamedTuple):
    """What a folder says of its packed weights."""

    config: QuantConfig
    form: str  # one of FORMS
    files: tuple[str, ...]  # names that the weights may have, the likeliest first


def is_quantized(folder: str | Path) -> bool:
    """Does the folder say that its weights are quantised, in whatever way?"""
    return bool(_settings(as_path(folder, "The folder of a model")))


def quantization_of(folder: str | Path) -> Published:
    """How the weights of a folder are packed. Raises CheckpointError, with all reasons, for a way that is not read."""
    folder = as_path(folder, "The folder of a model")
    values = _settings(folder)
    form = "marlin" if values.get("is_marlin_format") else values.get("checkpoint_format", "gptq")
    strange = [*values.get("problems", []), *_not_read(values, form)]
    try:
        known = {name: values[name] for name in QuantConfig.__dataclass_fields__ if values.get(name) is not None}
        config = QuantConfig(**{"group_size": -1} | known)
    except ValueError as error:
        strange.append(str(error).removeprefix("Quantisation: ").rstrip("."))
    if strange:
        raise CheckpointError(
            f"{folder} holds quantised weights that minipoet cannot read: {'; '.join(strange)}. It reads GPTQ's plain "
            f"layout in 2, 3, 4 or 8 bits; or take the model unquantised, and minipoet.quantize it."
        )
    stems = ["model", f"gptq_model-{config.bits}bit-{config.group_size}g", "pytorch_model"]
    if own := values.get("model_file_base_name"):
        stems = [Path(str(own)).name, *(stem for stem in stems if stem != own)]
    return Published(config, form, tuple(f"{stem}.{kind}" for kind in ("safetensors", "bin") for stem in stems))


def _settings(folder: Path) -> dict[str, Any]:
    """The two places as one; what they disagree on is listed under "problems". {} if there is neither."""
    found = []
    if (folder / "config.json").exists():
        values = read_json(folder / "config.json")
        found.append(values.get("quantization_config") if isinstance(values, dict) else None)
    if (folder / SETTINGS).exists():
        found.append(read_json(folder / SETTINGS))
    odd = [type(values).__name__ for values in found if values is not None and not isinstance(values, dict)]
    if odd:
        raise CheckpointError(f"{folder}: the settings of its quantisation should be a JSON object, not a {odd[0]}.")
    known = [{"checkpoint_format": v["format"], **v} if "format" in v else v for v in found if v]
    if not known:
        return {}
    inside, beside = known[0], known[-1]
    return {**beside, **inside} | {
        "problems": [
            f"config.json has {name} {inside[name]!r}, {SETTINGS} {beside[name]!r}"
            for name in SHAPING
            if name in inside and name in beside and inside[name] != beside[name]
        ]
    }


def _not_read(values: Mapping[str, Any], form: Any) -> list[str]:
    """What in these settings is another layout than ours, by name."""
    method = values.get("quant_method", "gptq")
    if values.get("load_in_4bit") or values.get("load_in_8bit"):
        method = "bitsandbytes"
    if method != "gptq":
        return [f"quant_method {method!r}"]
    strange = []
    if form not in FORMS:
        strange.append(f"checkpoint_format {form!r}")
    if values.get("bits") is None:
        strange.append("bits are not given")
    if values.get("pack_dtype", "int32") not in ("int32", None):
        strange.append(f"words of {values['pack_dtype']} (pack_dtype)")
    if values.get("dynamic"):
        strange.append("settings of their own for some layers (dynamic)")
    return strange


def load_quantized(
    folder: str | Path,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    check_memory: bool = True,
) -> LanguageModel:
    """The model of a folder with packed weights, in evaluation mode; nothing of it trains until it gets an adapter.

    dtype is that of what is not packed (embeddings, norms, biases), as in `load_model`; packed layers compute in the
    type of what they read. On a CPU the words stay mapped from their file. Raises CheckpointError that tells all that
    is wrong with the files at once.
    """
    folder, dtype, device = as_path(folder, "The folder of a model"), as_dtype(dtype), as_device(device)
    published = quantization_of(folder)
    cls, config = read_config(folder)
    tensors = dict(read_tensors(folder, device.type != "meta", published.files))  # mapped, not read
    with torch.device("meta"):
        model = cls(cls.settled(config, tensors))
    layers = _take_packed(model, tensors)
    if dtype is None:
        dtype = dtype_for(folder, tensors, device)
    if check_memory and device.type != "meta":
        size = sum(t.numel() * t.element_size() for layer in layers.values() for t in layer.values())
        expect_room(model, folder, tensors, dtype, device, besides=size)
    problems = [] if layers else ["no packed layers (.qweight), though the config says that the weights are quantised"]
    if "head" in layers and getattr(config, "tie_word_embeddings", False):
        problems.append(
            "the head is packed, but the config ties it to the embedding (set tie_word_embeddings to false)"
        )
    offset = _zero_offset(folder, published, layers)
    for ours in list(layers):
        parts, plain = layers.pop(ours), model.get_submodule(ours)
        wrong = _misfits(_published(model, ours), plain, parts, published.config)
        problems += wrong
        if isinstance(plain, nn.Linear):  # in a wrong one's place comes nothing, lest its weight be told as missing
            packed = nn.Module() if wrong else _layer(parts, published.config, dtype, device, offset)
            model.set_submodule(ours, packed)
    fill_model(model, folder, tensors, dtype, device, problems)
    model.tie()
    model.origin = str(folder)
    return model.requires_grad_(False).eval()


def _take_packed(model: LanguageModel, tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Our module -> {part: tensor}, taken out of the published tensors. What is of no layer of the model stays."""
    table, modules = model.name_table(), dict(model.named_modules())
    layers = {}
    for stem in dict.fromkeys(name.rpartition(".")[0] for name in tensors if name.rpartition(".")[2] in PARTS):
        ours = table.our_module(stem) or table.our_module(model.prefix + stem)
        if ours is not None and ours in modules:
            layers[ours] = {p: tensors.pop(f"{stem}.{p}") for p in (*PARTS, "bias") if f"{stem}.{p}" in tensors}
    return layers


def _zero_offset(folder: Path, published: Published, layers: Mapping[str, dict[str, Tensor]]) -> int:
    """What has to be added to a stored zero. A symmetric grid's zero is its middle, so there the words tell it too."""
    offset, mask = FORMS[published.form], 2**published.config.bits - 1
    words = next((parts["qzeros"] for parts in layers.values() if "qzeros" in parts), None)
    if not published.config.sym or words is None or published.config.bits == 3 or words.numel() == 0:
        return offset
    middle = 2 ** (published.config.bits - 1)
    stored = int(words.flatten()[0]) & mask
    if (stored + offset) & mask != middle and (stored + 1 - offset) & mask == middle:
        other = next(form for form, its in FORMS.items() if its != offset)
        warnings.warn(
            f"{folder} says that its zeros are stored as {published.form!r} has them, but they are those of {other!r}: "
            f"read so. Set checkpoint_format in its config to be sure.",
            stacklevel=3,
        )
        return 1 - offset
    return offset


def _misfits(name: str, plain: nn.Module, parts: Mapping[str, Tensor], config: QuantConfig) -> list[str]:
    """What is wrong with the parts of one packed layer."""
    if not isinstance(plain, nn.Linear):
        return [f"{name} is packed, but only linear layers can be, and it is a {type(plain).__name__}"]
    n_in, n_out = plain.in_features, plain.out_features
    groups = -(-n_in // config.group(n_in))
    expected: dict[str, tuple[float, ...]] = {
        "qweight": (n_in * config.bits / WORD, n_out),
        "qzeros": (groups, n_out * config.bits / WORD),
        "scales": (groups, n_out),
    }
    if "g_idx" in parts:
        expected["g_idx"] = (n_in,)
    if plain.bias is not None or "bias" in parts:
        expected["bias"] = (n_out,)
    wrong = []
    for part, shape in expected.items():
        tensor = parts.get(part)
        words = part in ("qweight", "qzeros")
        if tensor is None:
            wrong.append(f"{name}.{part} is missing")
        elif tuple(tensor.shape) != shape:
            asked = ", ".join(f"{size:g}" for size in shape)
            wrong.append(
                f"{name}.{part} is {tuple(tensor.shape)}, but {n_in} inputs and {n_out} outputs in {config.bits} bits "
                f"and groups of {config.group(n_in)} take ({asked})"
            )
        elif tensor.is_floating_point() == (words or part == "g_idx") or (words and tensor.dtype is not torch.int32):
            wrong.append(f"{name}.{part} holds {tensor.dtype}")
        elif part == "g_idx" and not 0 <= int(tensor.min()) <= int(tensor.max()) < groups:
            wrong.append(f"{name}.g_idx names groups {int(tensor.min())} to {int(tensor.max())}, there are {groups}")
    return wrong


def _layer(
    parts: dict[str, Tensor], config: QuantConfig, dtype: torch.dtype | None, device: torch.device, offset: int
) -> GPTQLinear:
    """The layer of these parts, on the device. A very old file does not say an input's group: they are in order."""
    qweight, qzeros, scales = (parts[part].to(device) for part in ("qweight", "qzeros", "scales"))
    n_in = qweight.shape[0] * WORD // config.bits
    g_idx = parts.get("g_idx", torch.arange(n_in) // config.group(n_in)).to(device, torch.int32)
    bias = parts["bias"].to(device, dtype) if "bias" in parts else None
    return GPTQLinear(config.bits, qweight, qzeros, scales, g_idx, bias, offset)


def save_quantized(model: LanguageModel, folder: str | Path, extra: Mapping[str, Any] | None = None) -> None:
    """Write a model with packed layers: config.json, quantize_config.json, safetensors (in shards above 2 GB).

    Read back it gives the same logits. `extra` goes to config.json. Raises ValueError for a model with adapters, and
    for layers that one file of this form cannot hold together.
    """
    expect_model(model)
    if model.adapters:
        raise ValueError(
            "The model carries adapters, which packed weights cannot hold: write them with minipoet.save_adapter("
            "model, folder), take them off with minipoet.remove_lora(model), and save the rest."
        )
    layers = {name: _as_filed(name, layer) for name, layer in few_bit_layers(model)}
    settings = _settings_of(layers)
    folder = make_folder(as_path(folder, "The folder to save to"))
    published = as_published(model)
    for name, layer in layers.items():
        stem = _published(model, name)
        published |= {f"{stem}.{part}": (tensor, None) for part, tensor in layer.named_buffers()}
    write_model(model, folder, published, {**(extra or {}), "quantization_config": settings})
    write_json_atomic(folder / SETTINGS, settings | {"model_file_base_name": "model"})


def _published(model: LanguageModel, ours: str) -> str:
    """The published name of a layer."""
    found = model.name_table().published_module(ours)
    assert found is not None, f"{ours} is not in the family's table of names"
    return found[0]


def _as_filed(name: str, layer: Any) -> GPTQLinear:
    """The layer in the form "gptq" of the files. Raises ValueError for one that has no such form."""
    if isinstance(layer, GPTQLinear) and layer.zero_offset == FORMS["gptq"]:
        return layer
    try:
        return GPTQLinear.of(layer.codes(), layer.bias)
    except ValueError as error:
        raise ValueError(f"{name} cannot be written as GPTQ's files are: {error}") from error


def _settings_of(layers: Mapping[str, GPTQLinear]) -> dict[str, Any]:
    """What the layers have in common. Raises ValueError for several numbers of bits or group sizes."""
    assert layers, "a model without packed layers is saved by save_model"
    bits = sorted({layer.bits for layer in layers.values()})
    sizes = {name: int(layer.g_idx.bincount().max()) for name, layer in layers.items()}
    several = {sizes[name] for name, layer in layers.items() if len(layer.scales) > 1}
    group = max(several, default=-1)
    whole = [sizes[name] for name, layer in layers.items() if len(layer.scales) == 1]
    if len(bits) > 1 or len(several) > 1 or (several and max(whole, default=0) > group):
        found = ", ".join(map(str, sorted({*several, *whole})))
        raise ValueError(
            f"One file holds layers of one number of bits and one group size, these have {', '.join(map(str, bits))} "
            f"bits and groups of {found}: quantise them alike to save them."
        )
    in_order = all(
        torch.equal(layer.g_idx.long(), torch.arange(layer.in_features, device=layer.device) // sizes[name])
        for name, layer in layers.items()
    )
    middle = 2 ** (bits[0] - 1)
    return {
        "quant_method": "gptq",
        "bits": bits[0],
        "group_size": group,
        "sym": all(bool((layer.zeros() == middle).all()) for layer in layers.values()),
        "desc_act": not in_order,
        "checkpoint_format": "gptq",
        "lm_head": "head" in layers,
    }
