"""Relative positions, as T5 learns them: not where a token stands, but how far it stands from the one that looks.

To each score of the attention a learnt number is added that depends on the distance alone, key − query, and on the
head. Near distances have a number each; the farther, the more of them share one (a bucket), and from `max_distance` on
all share the last: so a text may be longer than any that was learnt from. One table serves all layers of a stack.

    buckets      distances -> numbers of buckets
    Distances    places of queries and keys -> what is added to the scores

Paper: Raffel et al. 2020, "Exploring the Limits of Transfer Learning", https://arxiv.org/abs/1910.10683, section 2.1
Chapter: docs/distances.md
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def buckets(distances: Tensor, number: int, max_distance: int, both_ways: bool) -> Tensor:
    """The bucket, 0 to number − 1, of each distance key − query.

    both_ways: half of the buckets are for keys behind the query, distance > 0; else those count as distance 0. Half of
    what a direction has are for single distances; the other half grow as the logarithm does, up to max_distance.
    """
    if both_ways:
        number //= 2
        side = (distances > 0) * number
        far = distances.abs()
    else:
        side = torch.zeros_like(distances)
        far = (-distances).clamp(min=0)
    exact = number // 2
    # In fp32 and in this order, as the published models computed it: at a border the last digit decides.
    growth = torch.log(far.float() / exact) / math.log(max_distance / exact)
    shared = exact + (growth * (number - exact)).clamp(min=0).long()
    return side + torch.where(far < exact, far, shared.clamp(max=number - 1))


class Distances(nn.Module):
    """The learnt table, one number a bucket and head: (B, T), (B, S) places -> (B, H, T, S), added to the scores."""

    def __init__(self, number: int, heads: int, max_distance: int, both_ways: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(number, heads))
        self.max_distance, self.both_ways = max_distance, both_ways

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        between = keys[:, None, :] - queries[:, :, None]  # (B, T, S)
        number, H = self.weight.shape
        found = buckets(between, number, self.max_distance, self.both_ways)[:, None].expand(-1, H, -1, -1)
        B, _, T, _ = found.shape
        # Not weight[found]: its gradient takes twice the time, and its numbers lie with the heads last.
        return self.weight.T[None, :, None].expand(B, H, T, number).gather(3, found)
