"""Of a whole model: which of its layers are packed in few bits, what they weigh, and plain weights again.

Chapter: docs/int4.md
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar, cast

import torch
from torch import nn

from minipoet.checks import as_dtype, expect_model
from minipoet.models.base import LanguageModel
from minipoet.models.linear import Linear
from minipoet.models.memory import available_memory
from minipoet.quantization.layer import FewBitLinear

Model = TypeVar("Model", bound=LanguageModel)


def few_bit_layers(model: nn.Module) -> Iterator[tuple[str, FewBitLinear]]:
    """(our name, layer) of every packed layer; one that carries adapters is named as it lies below them, ….base."""
    for name, module in model.named_modules():
        if isinstance(module, FewBitLinear):
            yield name, module


def packed_bytes(model: nn.Module) -> int:
    """What the packed layers take in memory: words, scales, zeros, groups, biases."""
    return sum(b.numel() * b.element_size() for _, layer in few_bit_layers(model) for b in layer.buffers())


@torch.no_grad()
def dequantize(model: Model, dtype: torch.dtype | None = None, check_memory: bool = True) -> Model:
    """Plain weights in the place of all packed ones, of the type of the embedding unless asked. Returns the model.

    They stand for the same numbers, rounded to the type: what rounding to few bits has cost does not come back. Then
    an adapter can be merged; a model without adapters can be trained whole.
    Raises ValueError, before anything is changed, for weights that do not fit in memory, unless check_memory is False.
    """
    expect_model(model)
    dtype = as_dtype(dtype) or next(model.embed.parameters()).dtype
    layers = dict(few_bit_layers(model))
    if not layers:
        return model
    device = next(iter(layers.values())).device
    need = dtype.itemsize * sum(layer.in_features * layer.out_features for layer in layers.values())
    free = available_memory(device) + packed_bytes(model)
    if check_memory and device.type != "meta" and need > free:
        raise ValueError(
            f"The plain weights would take {need / 1e9:.1f} GB in {dtype}, and {free / 1e9:.1f} GB can be had: give a "
            f"smaller dtype, keep the model packed, or let check_memory=False try nevertheless."
        )
    for name in list(layers):
        layer = layers.pop(name)
        plain = Linear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        plain.weight = nn.Parameter(layer.dense(dtype).contiguous(), requires_grad=False)
        if layer.bias is not None:
            plain.bias = nn.Parameter(layer.bias.to(dtype), requires_grad=False)
        model.set_submodule(name, plain.train(model.training))
        del layer  # the packed form is let go before the next layer is written out
    if not model.adapters:
        model.requires_grad_(True)
    return cast(Model, model)
