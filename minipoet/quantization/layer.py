"""Linear layers whose matrix lies packed in a few bits: y = x Wᵀ + b, with W written out only while it multiplies.

The plain path writes the whole matrix out in the type of x, multiplies, and lets it go; kernels that multiply the
packed numbers themselves take its place where there are any (kernels.py). Either way no full matrix stays.

A gradient can flow *through* such a layer, ∂x = ∂y W, but none can reach its weights: codes are whole numbers. Left to
itself, autograd would keep the written-out W of every layer until the backward pass, and so the whole model in 16 or
32 bits. The function below keeps nothing of it, and writes W out a second time when the gradient comes.

    FewBitLinear    what every such layer is: `dense`, `product`, and the way of the gradient
    GPTQLinear      the layout of GPTQ's files: words, packed zeros, scales, the group of each input

Chapter: docs/int4.md
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from minipoet.models.linear import linear
from minipoet.quantization.grid import Codes, from_codes
from minipoet.quantization.words import WORD, pack, unpack

SLAB = 256  # inputs whose weights are written out at a time; words of every number of bits end there
PACKED = (
    "These weights are packed in few bits, so they cannot be trained or changed: teach the model by an adapter "
    "(minipoet.add_lora), or make plain weights of them first (minipoet.dequantize), which take the memory of such."
)


class FewBitLinear(nn.Module):
    """A linear layer (..., in) -> (..., out) with nothing to train: its numbers are buffers, the bias too.

    A subclass brings `dense`; `product` if it multiplies without that; `codes` if its weights lie on a grid.
    """

    bias: Tensor | None

    def __init__(self, in_features: int, out_features: int, bias: Tensor | None = None):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.register_buffer("bias", None if bias is None else bias.detach())

    def dense(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The matrix written out, (out, in)."""
        raise NotImplementedError

    def codes(self) -> Codes:
        """The matrix as whole numbers on a grid. Raises ValueError for weights that are none."""
        raise ValueError(f"The weights of a {type(self).__name__} are not on a grid of equal steps.")

    def product(self, x: Tensor) -> Tensor:
        """x Wᵀ + b where no gradient is asked for."""
        return self._plain(x)

    def _plain(self, x: Tensor) -> Tensor:
        return linear(x, self.dense(x.dtype), None if self.bias is None else self.bias.to(x.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), in the type of x, or in autocast's."""
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        if torch.is_grad_enabled() and x.requires_grad:
            return _Through.apply(x, self)
        return self.product(x)

    @property
    def device(self) -> torch.device:
        """Where its numbers are."""
        return next(self.buffers()).device

    @property
    def packed_numbers(self) -> int:
        """How many weights it stands for, the bias included."""
        return self.in_features * self.out_features + (0 if self.bias is None else self.out_features)

    @property
    def weight(self) -> NoReturn:
        """Raises ValueError: whoever asks for it wants to train, merge or save it."""
        raise ValueError(PACKED)

    def requires_grad_(self, requires_grad: bool = True) -> FewBitLinear:
        """Raises ValueError if asked for gradients."""
        if requires_grad:
            raise ValueError(PACKED)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FewBitLinear:
        """Moves with the model, but scales keep their type: rounding them would be another quantisation."""
        scales = {name: t for name, t in self._buffers.items() if t is not None and name != "bias"}
        super()._apply(fn, recurse)
        for name, before in scales.items():
            now = self.get_buffer(name)
            if now.dtype is not before.dtype:
                setattr(self, name, before.to(now.device))
        return self

    def extra_repr(self) -> str:
        """For print(model)."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class _Through(torch.autograd.Function):
    """y = x Wᵀ + b; ∂x = ∂y W. What is kept for it: the layer, which is there anyway."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: FewBitLinear) -> Tensor:
        ctx.layer = layer
        return layer._plain(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return linear(grad, ctx.layer.dense(grad.dtype).t()), None


class GPTQLinear(FewBitLinear):
    """A matrix as GPTQ's files hold it, (in, out): W[i, o] = scales[g, o] · (q[i, o] - z[g, o]), g = g_idx[i].

    qweight (in · bits / 32, out): neighbouring inputs share a word; qzeros (G, out · bits / 32): neighbouring outputs.
    zero_offset: what has to be added to a stored zero, modulo 2^bits: 1 in files of form "gptq", 0 in "gptq_v2".
    """

    qweight: Tensor
    qzeros: Tensor
    scales: Tensor
    g_idx: Tensor

    def __init__(
        self,
        bits: int,
        qweight: Tensor,
        qzeros: Tensor,
        scales: Tensor,
        g_idx: Tensor,
        bias: Tensor | None = None,
        zero_offset: int = 1,
    ):
        super().__init__(len(g_idx), scales.shape[1], bias)
        self.bits, self.zero_offset = bits, zero_offset
        self.register_buffer("qweight", qweight)
        self.register_buffer("qzeros", qzeros)
        self.register_buffer("scales", scales)
        self.register_buffer("g_idx", g_idx)

    @classmethod
    def of(cls, codes: Codes, bias: Tensor | None = None) -> GPTQLinear:
        """The layer of these codes. Raises ValueError for a matrix whose sides do not fill whole words."""
        n_out, n_in = codes.q.shape
        per = WORD if codes.bits == 3 else WORD // codes.bits
        if n_in % per or n_out % per:
            raise ValueError(
                f"A matrix of {n_in} inputs and {n_out} outputs cannot be packed in {codes.bits} bits: both have to be "
                f"multiples of {per}. Leave the layer as it is (skip), or take other bits."
            )
        stored = (codes.zeros.to(torch.int32) - 1) & (2**codes.bits - 1)
        qweight, qzeros = pack(codes.q.t(), codes.bits), pack(stored.t(), codes.bits).t().contiguous()
        return cls(codes.bits, qweight, qzeros, codes.scales.half(), codes.g_idx.to(torch.int32), bias)

    def zeros(self) -> Tensor:
        """The codes that stand for 0, (G, out) uint8."""
        stored = unpack(self.qzeros.t().contiguous(), self.bits).t()
        return (stored + self.zero_offset) & (2**self.bits - 1)  # a zero of 0 was stored as the highest code

    def codes(self) -> Codes:
        """The matrix as whole numbers, as they were before they were packed."""
        return Codes(unpack(self.qweight, self.bits).t(), self.scales, self.zeros(), self.g_idx, self.bits)

    def dense(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """(out, in), as a view of (in, out). A slab at a time: nothing but the result is as large as the matrix."""
        weight = torch.empty(self.in_features, self.out_features, dtype=dtype, device=self.device)
        zeros, groups = self.zeros(), self.g_idx.long()
        for start in range(0, self.in_features, SLAB):
            g = groups[start : start + SLAB]
            words = self.qweight[start * self.bits // WORD : (start + SLAB) * self.bits // WORD]
            weight[start : start + SLAB] = from_codes(unpack(words, self.bits), self.scales[g], zeros[g])
        return weight.t()

    def extra_repr(self) -> str:
        """For print(model)."""
        return f"{super().extra_repr()}, bits={self.bits}, groups={len(self.scales)}"
