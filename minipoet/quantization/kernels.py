"""Layers that multiply the packed numbers themselves: nothing is written out, and a token costs a read of few bits.

To write a token every weight is read once, and a processor waits for its memory meanwhile: a matrix of a quarter of the
bytes takes little more than a quarter of the time. PyTorch brings two such kernels for the CPU. They read bfloat16 and
round scales to it; whatever they do not take (fp32, many rows, other processors, gradients) goes the plain way of every
`FewBitLinear`, from the same numbers.

    pack_for_speed    a model's packed layers into the form that the processor's kernels read
    FastInt4          4 bits or fewer, in groups of 32, 64, 96, …; in any order of the inputs (act-order)
    FastInt8          8 bits, symmetric, one scale for each output

The new form takes the old one's place, layer by layer, and `codes` brings the whole numbers back exactly: such a model
is saved and dequantised like any other.

Chapter: docs/int4-speed.md
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from minipoet.checks import expect_model
from minipoet.models.base import LanguageModel
from minipoet.quantization.grid import Codes, from_codes
from minipoet.quantization.layer import FewBitLinear
from minipoet.quantization.whole import few_bit_layers

Model = TypeVar("Model", bound=LanguageModel)

GROUPS = (256, 128, 64, 32)  # that the int4 kernel knows; larger groups are several of these with one scale
BLOCK = 64  # outputs: a multiple of them fills the int4 kernel's own blocks of 16, 32 or 64
SLAB = 128  # outputs whose codes are spread out at a time; a multiple of BLOCK
MOST_ROWS = {4: 256, 8: 32}  # of x, by bits: with more of them writing the matrix out once is faster; measured

# No public names. None: not in this PyTorch.
_int4_pack: Any = getattr(torch, "_convert_weight_to_int4pack_for_cpu", None)
_int4_product: Any = getattr(torch, "_weight_int4pack_mm_for_cpu", None)
_int8_product: Any = getattr(torch, "_weight_int8pack_mm", None)


def has_kernels() -> bool:
    """Has this PyTorch the kernels, and in a form that is fast on this processor? Else they are there, and slow."""
    found = _int4_pack is not None and _int4_product is not None and _int8_product is not None
    return found and sys.platform != "win32" and torch.backends.cpu.get_cpu_capability().startswith("AVX")


@torch.no_grad()
def pack_for_speed(model: Model) -> Model:
    """Bring the packed layers of a bfloat16 model on a CPU into the form of its kernels. Returns the model.

    What stays on the plain path, which is many times slower, is told in a warning, with the reason.
    """
    expect_model(model)
    layers = [(name, type(layer)) for name, layer in few_bit_layers(model)]
    weight = next(model.embed.parameters())
    if not layers or weight.device.type != "cpu":
        return model
    if not has_kernels():
        return _told(model, "this PyTorch has none that are fast on this processor", [name for name, _ in layers])
    if weight.dtype is not torch.bfloat16:
        kind = str(weight.dtype).removeprefix("torch.")
        reason = f"they compute in bfloat16, and this model in {kind}; model.bfloat16() changes it"
        return _told(model, reason, [name for name, _ in layers])
    slow: dict[str, list[str]] = {}
    for name in [name for name, kind in layers if not issubclass(kind, _Fast)]:
        layer = cast(FewBitLinear, model.get_submodule(name))
        try:
            model.set_submodule(name, fast_layer(layer).train(layer.training))
        except ValueError as error:
            slow.setdefault(str(error).rstrip("."), []).append(name)
        del layer  # the form that it had is let go before the next one is packed
    for reason, names in slow.items():
        _told(model, reason, names)
    return model


def fast_layer(layer: FewBitLinear) -> FewBitLinear:
    """The same layer by a kernel. Raises ValueError with the reason if there is none for it."""
    codes = layer.codes()
    return (FastInt8 if codes.bits == 8 else FastInt4).of(codes, layer.bias)


def _told(model: Model, reason: str, names: list[str]) -> Model:
    few = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    warnings.warn(
        f"{len(names)} packed layers ({few}) stay on the plain path, for which whole matrices are written out: "
        f"the fast kernels do not take them, because {reason}.",
        stacklevel=3,
    )
    return model


class _Fast(FewBitLinear):
    """What both have in common: when the kernel is called."""

    bits: int

    def product(self, x: Tensor) -> Tensor:
        """x Wᵀ + b, (..., in) -> (..., out), by the kernel if it takes x and is the faster way."""
        rows = x.numel() // self.in_features
        if not (x.dtype is torch.bfloat16 and x.device.type == "cpu" and 0 < rows <= MOST_ROWS[self._kernel_bits]):
            return self._plain(x)
        y = self._multiply(x.reshape(rows, self.in_features)).view(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    @property
    def _kernel_bits(self) -> int:
        return 8 if self.bits == 8 else 4

    def _multiply(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def extra_repr(self) -> str:
        """For print(model)."""
        return f"{super().extra_repr()}, bits={self.bits}"


class FastInt4(_Fast):
    """A matrix in the order of PyTorch's int4 kernel, and beside it all that its exact codes are made of again.

    The kernel computes (q - 8) · scale + shift, so shift = scale · (8 - zero); and the inputs of a group stand together
    in it, so act-order's inputs are sorted by group, and x with them. Codes of two or three bits are lifted into the
    middle of four, about 8: so a symmetric grid needs no shift, and none is rounded.
    """

    group: int  # inputs with one scale, for the kernel: one of GROUPS
    packed: Tensor  # (out, in / 2) uint8, in the kernel's own order: `_read`
    scales_shifts: Tensor  # (in / group, out, 2) bfloat16
    scales: Tensor  # (G, out) fp16, as they were
    zeros: Tensor  # (G, out) uint8
    g_idx: Tensor  # (in,) int32
    order: Tensor | None  # (in,) which input stands at each place; None: they are in order

    @classmethod
    def of(cls, codes: Codes, bias: Tensor | None = None) -> FastInt4:
        """The layer of these codes. Raises ValueError for a shape or groups that the kernel does not take."""
        n_out, n_in = codes.q.shape
        if n_out % BLOCK:
            raise ValueError(f"they take a multiple of {BLOCK} outputs.")
        groups = codes.g_idx.long()
        order = None if bool((groups.diff() >= 0).all()) else torch.argsort(groups, stable=True)
        in_order = groups if order is None else groups[order]
        group = next((size for size in GROUPS if n_in % size == 0 and _are_alike(in_order.view(-1, size))), None)
        if group is None:
            raise ValueError(f"they take groups of {GROUPS[-1]} inputs or a multiple of it.")
        layer = cls(n_in, n_out, bias)
        layer.bits, layer.group = codes.bits, group
        scales = codes.scales[in_order[::group]].float()  # (in / group, out)
        shifts = scales * (8 - layer._lift - codes.zeros[in_order[::group]].float())
        slabs = (codes.q[first : first + SLAB].int() + layer._lift for first in range(0, n_out, SLAB))
        slabs = (slab if order is None else slab[:, order] for slab in slabs)
        layer.register_buffer("packed", torch.cat([_int4_pack(slab.contiguous(), 1) for slab in slabs]))
        layer.register_buffer("scales_shifts", torch.stack([scales, shifts], dim=-1).bfloat16())
        layer.register_buffer("scales", codes.scales.half())
        layer.register_buffer("zeros", codes.zeros.contiguous())
        layer.register_buffer("g_idx", codes.g_idx)
        layer.register_buffer("order", order)
        return layer

    @property
    def _lift(self) -> int:
        """What is added to each code, so that the middle of the grid is 8."""
        return 8 - 2 ** (self.bits - 1)

    def _multiply(self, x: Tensor) -> Tensor:
        x = x.contiguous() if self.order is None else x[:, self.order]
        return _int4_product(x, self.packed, self.group, self.scales_shifts)

    def codes(self) -> Codes:
        """The whole numbers, as they were before."""
        q = torch.empty(self.in_features, self.out_features, dtype=torch.uint8, device=self.device)
        for part, codes in self._read():
            q[self._rows, part] = codes
        return Codes(q.t(), self.scales, self.zeros, self.g_idx, self.bits)

    def dense(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """(out, in), as a view of (in, out); by the scales as they were. A slab of outputs at a time."""
        weight = torch.empty(self.in_features, self.out_features, dtype=dtype, device=self.device)
        groups = self.g_idx.long()[self._rows][:: self.group]
        scales, zeros = self.scales[groups][:, None], self.zeros[groups][:, None]  # (in / group, 1, out)
        for part, codes in self._read():
            numbers = from_codes(codes.view(len(groups), self.group, -1), scales[..., part], zeros[..., part])
            weight[self._rows, part] = numbers.view(self.in_features, -1).to(dtype)
        return weight.t()

    @property
    def _rows(self) -> Tensor | slice:
        """Which input is at each place."""
        return slice(None) if self.order is None else self.order

    def _read(self) -> Iterator[tuple[slice, Tensor]]:
        """The codes of some outputs at a time, and which these are: (in, n), the inputs in the kernel's order."""
        width, backwards = len(_places()), torch.argsort(_places()).to(self.device)
        for packed, first in zip(self.packed.split(SLAB), range(0, self.out_features, SLAB), strict=True):
            codes = _halves(packed).view(-1, self.in_features, width).index_select(2, backwards) - self._lift
            yield slice(first, first + SLAB), codes.transpose(0, 1).reshape(self.in_features, -1)


class FastInt8(_Fast):
    """A matrix of signed bytes, with a scale for each output: nothing but a shift by 128 from a symmetric grid."""

    q: Tensor  # (out, in) int8
    scales: Tensor  # (out,) fp16
    bits = 8

    @classmethod
    def of(cls, codes: Codes, bias: Tensor | None = None) -> FastInt8:
        """The layer of these codes. Raises ValueError for another grid than the kernel's."""
        if len(codes.scales) != 1 or bool((codes.zeros != 128).any()):
            raise ValueError("of 8 bits they take a symmetric grid with one scale for each output (group_size=-1).")
        layer = cls(codes.q.shape[1], codes.q.shape[0], bias)
        layer.register_buffer("q", (codes.q ^ 128).contiguous().view(torch.int8))  # q - 128, in the bits of a byte
        layer.register_buffer("scales", codes.scales[0].half())
        return layer

    def _multiply(self, x: Tensor) -> Tensor:
        return _int8_product(x.contiguous(), self.q, self.scales.to(x.dtype))

    def codes(self) -> Codes:
        """The whole numbers, as they were before."""
        zeros = torch.full((1, self.out_features), 128, dtype=torch.uint8, device=self.device)
        g_idx = torch.zeros(self.in_features, dtype=torch.int32, device=self.device)
        return Codes(self.q.view(torch.uint8) ^ 128, self.scales[None], zeros, g_idx, self.bits)

    def dense(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """(out, in). A slab of outputs at a time."""
        weight = torch.empty(self.out_features, self.in_features, dtype=dtype, device=self.device)
        for first in range(0, self.out_features, SLAB):
            part = slice(first, first + SLAB)
            weight[part] = self.q[part].float() * self.scales[part, None].float()
        return weight


def _are_alike(rows: Tensor) -> bool:
    """Is each row one number again and again?"""
    return bool((rows == rows[:, :1]).all())


def _halves(packed: Tensor) -> Tensor:
    """The two numbers of each byte, in the order of memory, the low half first."""
    return torch.stack([packed & 15, packed >> 4], dim=-1).view(-1)


@lru_cache(maxsize=1)
def _places() -> Tensor:
    """Which output of a block stands at each place of the packed form, (W,).

    The kernel's order is a matter of the processor: a block of W outputs, 16, 32 or 64, input after input, the outputs
    shuffled so that they come apart with few instructions. It is asked for by packing numbers that tell where they are.
    """
    second = _halves(_int4_pack(torch.tensor([[0, 1]], dtype=torch.int32).repeat(BLOCK, 1), 1))
    width = int(second.argmax())  # the place at which the second input begins
    outputs = torch.arange(BLOCK, dtype=torch.int32)[:, None].repeat(1, 2)
    low, high = (_halves(_int4_pack(part.contiguous(), 1))[:width].long() for part in (outputs & 15, outputs >> 4))
    return low + 16 * high
