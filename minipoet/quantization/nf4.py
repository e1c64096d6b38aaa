"""NF4: sixteen points that lie where the numbers of a matrix lie, and need no text to be found.

Weights are spread about 0 like a bell. A grid of equal steps spends points on its thin ends; NF4's points are quantiles
of the normal distribution, so each is used about as often. Blocks of 64 numbers, row after row, are divided by their
largest size (absmax), and each takes the nearest point. The absmax's can be rounded too, to eight bits, by 256 at a
time about their mean (double quantisation): 4.127 bits a number instead of 4.5.

    NF4_POINTS               the sixteen points
    quantize_nf4             matrix -> NF4Codes
    NF4Codes.dense           and back
    NF4Linear                the layer

Paper: Dettmers et al. 2023, https://arxiv.org/abs/2305.14314
Chapter: docs/gptq.md
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from minipoet.quantization.layer import FewBitLinear

BLOCK = 64  # numbers that share an absmax
SHARED = 256  # absmax's that share a scale, with double quantisation

# The paper's table (its appendix E): quantiles of N(0, 1), 7 below 0 and 8 above, divided so that they reach −1 and 1.
NF4_POINTS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


@dataclass(frozen=True)
class NF4Codes:
    """A matrix of `shape` in NF4, its numbers row after row, the last block filled up with zeros.

    q: two codes a byte, the earlier in the low half. absmax: (blocks,) fp32; or int8 of `steps` (fp32, a step for each
    256 blocks) from `mean` (fp32, one number), with double quantisation.
    """

    q: Tensor
    absmax: Tensor
    shape: tuple[int, int]
    steps: Tensor | None = None
    mean: Tensor | None = None

    def dense(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The matrix that the codes stand for, (out, in)."""
        codes = torch.stack([self.q & 15, self.q >> 4], dim=-1).view(-1, BLOCK)
        points = torch.tensor(NF4_POINTS, device=self.q.device)
        n_out, n_in = self.shape
        numbers = points[codes.int()] * self.scales()[:, None]
        return numbers.view(-1)[: n_out * n_in].view(n_out, n_in).to(dtype)

    def scales(self) -> Tensor:
        """What each block was divided by, (blocks,)."""
        if self.steps is None or self.mean is None:
            return self.absmax
        return self.absmax.float() * self.steps.repeat_interleave(SHARED)[: len(self.absmax)] + self.mean


@torch.no_grad()
def quantize_nf4(weight: Tensor, double: bool = False) -> NF4Codes:
    """The NF4 codes of a matrix, (out, in). double: eight bits for an absmax instead of 32."""
    blocks = _blocks(weight.detach().float(), BLOCK)
    absmax = blocks.abs().amax(dim=1)
    steps = mean = None
    if double:
        mean = absmax.mean()
        by_step = _blocks(absmax - mean, SHARED)
        steps = by_step.abs().amax(dim=1) / 127
        whole = (by_step / steps.clamp_min(torch.finfo(torch.float32).tiny)[:, None]).round()
        absmax = whole.view(-1)[: len(absmax)].to(torch.int8)
    found = NF4Codes(blocks, absmax, (weight.shape[0], weight.shape[1]), steps, mean)
    scales = found.scales().clamp_min(torch.finfo(torch.float32).tiny)  # as the file has them; a block of zeros is 0
    points = torch.tensor(NF4_POINTS, device=weight.device)
    borders = (points[1:] + points[:-1]) / 2
    q = torch.bucketize(blocks / scales[:, None], borders).to(torch.uint8).view(-1, 2)
    return NF4Codes(q[:, 0] | q[:, 1] << 4, absmax, found.shape, steps, mean)


class NF4Linear(FewBitLinear):
    """A linear layer, (..., in) -> (..., out), whose matrix is in NF4."""

    q: Tensor
    absmax: Tensor
    steps: Tensor | None
    mean: Tensor | None

    @classmethod
    def of(cls, codes: NF4Codes, bias: Tensor | None = None) -> NF4Linear:
        """The layer with these codes."""
        layer = cls(codes.shape[1], codes.shape[0], bias)
        for name in ("q", "absmax", "steps", "mean"):
            layer.register_buffer(name, getattr(codes, name))
        return layer

    def nf4(self) -> NF4Codes:
        """What the layer holds."""
        return NF4Codes(self.q, self.absmax, (self.out_features, self.in_features), self.steps, self.mean)

    def dense(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """(out, in)."""
        return self.nf4().dense(dtype)


def _blocks(numbers: Tensor, size: int) -> Tensor:
    """The numbers, row after row, in blocks of `size`, (blocks, size); zeros fill up the last one."""
    flat = numbers.reshape(-1)
    return torch.nn.functional.pad(flat, (0, -len(flat) % size)).view(-1, size)
