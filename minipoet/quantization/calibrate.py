"""A whole model in few bits, block by block: what a block reads has gone through the rounded blocks before it.

    quantize     model, calibration text -> the same model, its blocks' linear layers rounded

Only the activations of one block are in memory: the text has gone through the blocks before, and not yet through those
behind. Inside a block the layers that read the same input (q, k and v, say) are rounded together, in the order in which
the block calls them, and each set reads what the sets before it, rounded already, give (true_sequential). Which layers
those are is seen by running the block: no family is known here. Embedding and head stay as they are.

Chapter: docs/gptq.md
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import gcd
from typing import TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from minipoet.checks import each, expect, expect_model, expect_whole, shown
from minipoet.models.base import LanguageModel
from minipoet.models.decoder import Decoder
from minipoet.quantization.gptq import gptq
from minipoet.quantization.grid import QuantConfig, round_to_nearest
from minipoet.quantization.layer import FewBitLinear, GPTQLinear
from minipoet.quantization.nf4 import NF4Linear, quantize_nf4
from minipoet.quantization.readings import Readings, evaluating, first_readings, hessians, layers_by_input, rows_of
from minipoet.quantization.words import WORD

Model = TypeVar("Model", bound=LanguageModel)
Told = Callable[[str, float], None]

METHODS = ("gptq", "rtn", "nf4", "int8")
INT8 = QuantConfig(bits=8, group_size=-1)  # a scale for each output


@torch.no_grad()
def quantize(
    model: Model,
    texts: Iterable[Sequence[int]] | None = None,
    config: QuantConfig | None = None,
    method: str = "gptq",
    skip: Sequence[str] = (),
    length: int = 512,
    told: Told | None = None,
    quiet: bool = False,
) -> Model:
    """Round the linear layers of the model's blocks, in place. Returns the model, frozen: only adapters train on it.

    texts: token ids of texts like those that it will read, for "gptq", which needs them; the other methods read none.
    They are joined and read in rows of `length` tokens (or the model's context); no token sees another text.
    config: bits, group size and so on, for "gptq" and "rtn"; None means four bits in groups of 128.
    method: "gptq"; "rtn", round to nearest; "nf4"; "int8", to nearest with a scale for each output.
    skip: ends of names of layers that stay as they are, such as "mlp.down".
    told: called with the name of each layer and its relative error, Σ ‖(W − Ŵ) x‖² / Σ ‖W x‖² for "gptq", else
    ‖W − Ŵ‖² / ‖W‖².
    Raises ValueError, before anything is changed, for a model that has no blocks, or adapters, or few bits already, and
    for arguments that make no sense. Too few tokens are told in a warning.
    """
    layers = _check(model, texts, config, method, skip)
    expect_whole(1, length=length)
    config = config or QuantConfig()
    if told is None:
        told = _tell_nobody
    with tqdm(total=len(layers), desc=method, unit="layer", dynamic_ncols=True, disable=quiet or None) as bar:
        if method != "gptq":
            for name in list(layers):
                layer = layers.pop(name)  # let go when its place is taken, like those below
                rounded = _without_text(layer, config, method)
                told(name, _relative(layer.weight, rounded))
                model.set_submodule(name, rounded)
                bar.update()
            return model.requires_grad_(False)
        rows = rows_of(texts, min(length, model.context))
        _check_tokens(sum(ids.numel() for ids, _ in rows), layers)
        with evaluating(model):
            assert isinstance(model, Decoder)
            blocks = list(model.blocks)
            readings = first_readings(model, blocks[0], rows)
            together: dict[tuple[str, ...], list[list[str]]] = {}  # of blocks with these layers: all are of one kind
            for number, block in enumerate(blocks):
                prefix = f"blocks.{number}."
                names = [name for name in layers if name.startswith(prefix)]
                own = {name.removeprefix(prefix): layers.pop(name) for name in names}
                if own and tuple(own) not in together:
                    together[tuple(own)] = layers_by_input(block, own, readings[0])
                for name, error in _round_block(block, own, together.get(tuple(own), []), readings, config):
                    told(prefix + name, error)
                    bar.update()
                if number + 1 < len(blocks):  # what the last one gives is not asked for
                    for batch, (x, more) in enumerate(readings):
                        readings[batch] = block(x, *more)[0], more
    return model.requires_grad_(False)


def _round_block(
    block: nn.Module,
    layers: dict[str, nn.Linear],
    together: list[list[str]],
    readings: Readings,
    config: QuantConfig,
) -> Iterator[tuple[str, float]]:
    """Round the layers of a block by what it reads. Yields the name and the relative error of each."""
    for sets in [[names] for names in together] if config.true_sequential else [together]:
        found = hessians(block, {names[0]: layers[names[0]] for names in sets}, readings)
        for names in sets:
            hessian = found[names[0]]
            for name in names:
                layer = layers.pop(name)
                rounded = GPTQLinear.of(gptq(layer.weight, hessian, config).codes, layer.bias)
                yield name, hessian.heard(layer.weight - rounded.dense()) / max(hessian.heard(layer.weight), 1e-30)
                block.set_submodule(name, rounded)
            del found[names[0]], hessian


def _check_tokens(tokens: int, layers: Mapping[str, nn.Linear]) -> None:
    """Warn of fewer tokens than a layer has inputs: what it read then leaves directions that it has never seen."""
    name, widest = max(layers.items(), key=lambda item: item[1].in_features)
    if tokens < widest.in_features:
        warnings.warn(
            f"{tokens:,} tokens are too little text to calibrate on: {name} alone has {widest.in_features:,} inputs, "
            f"and what the text does not exercise is rounded blindly (H is singular, and only damping makes it "
            f"regular). Give ten times as many tokens as inputs, or more.",
            stacklevel=3,
        )


def _check(
    model: LanguageModel, texts: object, config: QuantConfig | None, method: str, skip: Sequence[str]
) -> dict[str, nn.Linear]:
    """The layers to round, by name. Raises ValueError for what cannot be."""
    expect_model(model)
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {shown(method)}.")
    if method != "gptq" and texts is not None:
        raise ValueError(f'method="{method}" reads no text: leave texts out, or use "gptq".')
    if config is not None:
        expect(config, QuantConfig, "config", "a QuantConfig(bits=4, group_size=128, ...)")
        if method in ("nf4", "int8"):
            raise ValueError(f'method="{method}" has no settings: leave config out, or use "rtn" or "gptq".')
    if not isinstance(model, Decoder):
        kind = type(model).__name__
        raise ValueError(f"A {kind} cannot be quantised: only decoders of blocks, such as GPT-2 and Qwen, can.")
    if model.adapters or model.prefixes is not None:
        raise ValueError(
            "The model carries adapters: merge or remove them first (minipoet.merge_lora, remove_lora, remove_prefix), "
            "then quantise it; LoRA can be added afterwards."
        )
    if any(isinstance(module, FewBitLinear) for module in model.modules()):
        raise ValueError("The model is in few bits already: minipoet.dequantize(model) makes it plain again.")
    linear = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    skip = list(each(skip, str, "skip", "ends of layers' names"))
    unknown = [end for end in skip if not any(_ends(name, end) for name in linear)]
    if unknown:
        raise ValueError(
            f"skip names layers that are not there: {', '.join(unknown)}; there are {', '.join(_kinds(linear))}."
        )
    layers = {
        name: layer
        for name, layer in linear.items()
        if name.startswith("blocks.") and not any(_ends(name, end) for end in skip)
    }
    if not layers:
        raise ValueError("There is no layer left to round: skip fewer.")
    if method != "nf4":
        _check_sides(layers, INT8.bits if method == "int8" else (config or QuantConfig()).bits)
    return layers


def _check_sides(layers: Mapping[str, nn.Linear], bits: int) -> None:
    """Raise ValueError that names the layers whose codes would not fill whole words."""
    per = WORD // gcd(bits, WORD)
    wrong = [
        f"{name} ({layer.in_features} inputs, {layer.out_features} outputs)"
        for name, layer in layers.items()
        if layer.in_features % per or layer.out_features % per
    ]
    if wrong:
        raise ValueError(
            f"Words of {bits}-bit codes are filled by {per} inputs or outputs at a time, so these cannot be packed: "
            f"{', '.join(wrong[:4])}{', …' if len(wrong) > 4 else ''}. Skip them, or take other bits."
        )


def _ends(name: str, end: str) -> bool:
    """Is it the name, or its end at a dot?"""
    return f".{name}".endswith(f".{end}")


def _kinds(names: Iterable[str]) -> list[str]:
    """Names without their blocks, each once."""
    return list(dict.fromkeys(name.split(".", 2)[-1] for name in names))


def _without_text(layer: nn.Linear, config: QuantConfig, method: str) -> FewBitLinear:
    """The layer in few bits, each number to its nearest."""
    if method == "nf4":
        return NF4Linear.of(quantize_nf4(layer.weight), layer.bias)
    return GPTQLinear.of(round_to_nearest(layer.weight, INT8 if method == "int8" else config), layer.bias)


def _relative(weight: Tensor, rounded: FewBitLinear) -> float:
    """‖W − Ŵ‖² / ‖W‖²."""
    return float((weight - rounded.dense()).square().sum() / weight.float().square().sum().clamp_min(1e-30))


def _tell_nobody(name: str, error: float) -> None:
    pass
