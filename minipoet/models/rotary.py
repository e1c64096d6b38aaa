"""Rotary positions: a token's place is an angle, by which its queries and keys are turned.

The head's D numbers are D/2 pairs, (j, j + D/2), each a point of a plane; at position p pair j is turned by
p · θ^(−2j/D). A score q·k of two turned vectors depends on the difference of their positions only: near tokens meet as
they are, far ones turned against each other, each pair at its own pace. Nothing is learnt, and nothing is added to x.

    rotary    positions -> cosines and sines
    rotate    turns queries or keys

Paper: Su et al. 2021, "RoFormer", https://arxiv.org/abs/2104.09864. Chapter: docs/qwen2.md
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotary(positions: Tensor, head_size: int, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(B, T) or (1, T) positions -> cos and sin, (B, 1, T, D) each, computed in fp32 and given in dtype."""
    pairs = torch.arange(0, head_size, 2, dtype=torch.float32, device=positions.device)  # 2j
    paces = 1 / theta ** (pairs / head_size)  # in this order, which rounds as the one that the weights were learnt with
    angles = positions[..., None].float() * paces  # (B, T, D/2)
    both = torch.cat([angles, angles], dim=-1)[:, None]
    return both.cos().to(dtype), both.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(B, H, T, D) -> (B, H, T, D): (a, b) becomes (a cos − b sin, b cos + a sin)."""
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-b, a], dim=-1) * sin
