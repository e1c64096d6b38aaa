"""The grid: which real numbers 2^bits codes stand for, and the nearest code of a weight.

    w ≈ scale · (q - zero)        q = round(w / scale) + zero, kept within 0 … 2^bits - 1

A group of neighbouring inputs of one output (128, say) has a scale and a zero of its own. Symmetric: the grid reaches
as far down as up, and zero is the middle code. Asymmetric: it reaches from the smallest weight to the largest, and zero
is whichever code lies at 0. Scales are rounded to fp16, as files hold them, before any code is chosen: what is measured
is what is written.

    QuantConfig            how many bits, how large a group, …: the fields of quantize_config.json
    fit                    scale and zero of each row of weights
    to_codes, from_codes   the formula above, and back
    Codes                  a whole matrix in this form
    round_to_nearest       the baseline: each weight to its nearest code, no data asked

Frantar et al. 2022, "GPTQ", https://arxiv.org/abs/2210.17323, for the grid of its code. Chapter: docs/int4.md
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from minipoet.checks import is_number, is_whole, shown
from minipoet.quantization.words import BITS

SHRINKS, NORM = 80, 2.4  # of the search for a better range, mse: as in GPTQ's code
LEAST = 2.0**-24  # the smallest fp16 above zero: a scale of 0 would divide by zero


@dataclass(frozen=True)
class QuantConfig:
    """How a model is quantised. group_size -1: one group is a whole column, all the inputs of an output."""

    bits: int = 4
    group_size: int = 128
    sym: bool = True
    desc_act: bool = False  # act-order: columns in descending order of their inputs' squares
    static_groups: bool = False  # a group's grid is fitted before anything is moved
    true_sequential: bool = True  # inside a block too, later layers see what earlier quantised ones give
    damp_percent: float = 0.01  # added to the Hessian's diagonal, as a share of its mean
    mse: bool = False  # shrink each group's range where that loses less

    def __post_init__(self):
        wrong = []
        if not is_whole(self.bits) or self.bits not in BITS:
            wrong.append(f"bits must be one of {', '.join(map(str, BITS))}, got {shown(self.bits)}")
        if not is_whole(self.group_size, -1) or self.group_size == 0:
            wrong.append(f"group_size must be a whole number of at least 1, or -1, got {shown(self.group_size)}")
        for name in ("sym", "desc_act", "static_groups", "true_sequential", "mse"):
            if not isinstance(getattr(self, name), bool):
                wrong.append(f"{name} must be True or False, got {shown(getattr(self, name))}")
        if not is_number(self.damp_percent) or not 0 < self.damp_percent < 1:
            wrong.append(f"damp_percent must be a number between 0 and 1, got {shown(self.damp_percent)}")
        if wrong:
            raise ValueError(f"Quantisation: {'; '.join(wrong)}.")

    def group(self, n_in: int) -> int:
        """Inputs in a group of a layer with n_in of them; the last group may have fewer."""
        return n_in if self.group_size == -1 else min(self.group_size, n_in)


def fit(rows: Tensor, bits: int, sym: bool = True, mse: bool = False) -> tuple[Tensor, Tensor]:
    """(scale, zero) of each row of weights: (out, n) -> (out,), (out,), both fp32; scale is a number that fp16 has.

    mse: of 80 ranges, each a hundredth smaller than the one before, that with the least Σ |error|^2.4.
    """
    rows = rows.float()
    low, high = rows.amin(1).clamp(max=0), rows.amax(1).clamp(min=0)  # 0 is always on the grid
    if sym:
        high = torch.maximum(-low, high)
        low = -high
    scale, zero = _grid(low, high, bits, sym)
    if not mse:
        return scale, zero
    least = _error(rows, scale, zero, bits)
    for step in range(1, SHRINKS):
        share = 1 - step / 100
        other, its_zero = _grid(share * low, share * high, bits, sym)
        error = _error(rows, other, its_zero, bits)
        better = error < least
        least = torch.where(better, error, least)
        scale, zero = torch.where(better, other, scale), torch.where(better, its_zero, zero)
    return scale, zero


def _grid(low: Tensor, high: Tensor, bits: int, sym: bool) -> tuple[Tensor, Tensor]:
    """Scale and zero of the grid from low to high; all zeros get the finest there is."""
    scale = ((high - low) / (2**bits - 1)).half().float().clamp(LEAST, torch.finfo(torch.float16).max)
    middle = torch.full_like(scale, 2 ** (bits - 1))
    return scale, middle if sym else torch.round(-low / scale).clamp(0, 2**bits - 1)


def _error(rows: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    scale, zero = scale[:, None], zero[:, None]
    return (from_codes(to_codes(rows, scale, zero, bits), scale, zero) - rows).abs().pow(NORM).sum(1)


def to_codes(x: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    """The nearest code of each number, uint8; scale and zero of any shape that broadcasts."""
    return (torch.round(x / scale) + zero).clamp(0, 2**bits - 1).to(torch.uint8)


def from_codes(q: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """What the codes stand for, fp32, exactly: a difference of 9 bits times a scale of 11 fits into its 24."""
    return (q.float() - zero.float()) * scale.float()


@dataclass(frozen=True, eq=False)
class Codes:
    """A quantised matrix (out, in) of G groups: weight[o, i] = scales[g, o] · (q[o, i] - zeros[g, o]), g = g_idx[i]."""

    q: Tensor  # (out, in) uint8
    scales: Tensor  # (G, out) fp16, or fp32 that fp16 has too
    zeros: Tensor  # (G, out) uint8
    g_idx: Tensor  # (in,) int32
    bits: int

    def dense(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The matrix that the codes stand for, (out, in)."""
        groups = self.g_idx.long()
        return from_codes(self.q.t(), self.scales[groups], self.zeros[groups]).to(dtype).t()


def round_to_nearest(weight: Tensor, config: QuantConfig) -> Codes:
    """(out, in) -> codes: each group's grid from its own weights, each weight to the nearest point of it."""
    n_in = weight.shape[1]
    group = config.group(n_in)
    parts = weight.detach().float().split(group, 1)
    grids = [fit(part, config.bits, config.sym, config.mse) for part in parts]
    q = [to_codes(part, s[:, None], z[:, None], config.bits) for part, (s, z) in zip(parts, grids, strict=True)]
    scales, zeros = torch.stack([s for s, _ in grids]), torch.stack([z for _, z in grids])
    g_idx = torch.arange(n_in, device=weight.device, dtype=torch.int32) // group
    return Codes(torch.cat(q, 1), scales.half(), zeros.to(torch.uint8), g_idx, config.bits)
