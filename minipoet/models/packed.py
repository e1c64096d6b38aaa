"""Weights laid out for the processor: a model that only writes, in bfloat16 on a CPU, by a third faster.

To write a token every weight is read once, and a matrix as it is stored, row after row, is not in the order in which a
processor multiplies bfloat16: it is brought into that order at every token. `pack_weights` does it once. The packed
form takes the place of the plain one, matrix by matrix, so the model needs no more memory than before (but for a head
that shares its matrix with the embedding: that one is kept twice). Other types gain nothing, and stay.

Chapter: docs/gpt2.md
"""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar, cast

import torch
from torch import Tensor, nn

from minipoet.checks import expect
from minipoet.models.base import LanguageModel
from minipoet.models.linear import onednn_linear

Model = TypeVar("Model", bound=LanguageModel)

PACKED = "The model's weights are packed (pack_weights): it can only write. Load it again to train, merge or save it."

_reorder: Any = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None) if onednn_linear is not None else None


class PackedLinear(nn.Module):
    """A linear layer, (..., in) -> (..., out), whose matrix is in oneDNN's own order. It cannot be trained or saved."""

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.packed = _reorder(layer.weight.detach(), 1)  # 1: the rows of x that it is best for
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return onednn_linear(x, self.packed, self.bias, "none", [], "")

    @property
    def weight(self) -> NoReturn:
        """Raises ValueError: whoever asks for it wants to merge, save or train."""
        raise ValueError(PACKED)


def can_pack() -> bool:
    """Has this PyTorch oneDNN, which packs?"""
    return _reorder is not None


def is_packed(model: nn.Module) -> bool:
    """Has the model packed weights, and so can only write?"""
    return any(isinstance(module, PackedLinear) for module in model.modules())


@torch.no_grad()
def pack_weights(model: Model) -> Model:
    """Pack the model's bfloat16 linear layers on a CPU, for writing only; a merged adapter is packed with them.

    Where there is nothing to gain (fp32, a GPU, a PyTorch without oneDNN) the model stays as it is. Returns the model.
    """
    expect(model, nn.Module, "The model", "a model, as the first of what minipoet.load gives")
    if not can_pack():
        return model
    for name in [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]:
        layer = cast(nn.Linear, model.get_submodule(name))
        if layer.weight.dtype is torch.bfloat16 and layer.weight.device.type == "cpu":
            model.set_submodule(name, PackedLinear(layer))
        del layer  # the plain form is let go before the next one is packed
    return model
