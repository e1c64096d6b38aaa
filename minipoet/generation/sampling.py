"""From logits to the next token: what may be drawn, and the draw.

    penalise_repetition, scale_temperature, keep_top_k, keep_top_p, keep_min_p    (B, V) -> (B, V), pure
    filter_logits    all of them, in the order of transformers
    draw             the largest logit, or a fair draw: the largest sum of logit and luck (noise.py)

A token that is removed gets the logit −inf. The filters do what transformers' do, ties included, but for one thing that
is left open there: of equal logits at the edge of top-p the lower ids stay, whatever the device and the sort.

Papers: Holtzman et al. 2019, https://arxiv.org/abs/1904.09751 (top-p); Nguyen et al. 2024,
https://arxiv.org/abs/2407.01082 (min-p); Keskar et al. 2019, https://arxiv.org/abs/1909.05858 (the penalty);
Maddison et al. 2014, https://arxiv.org/abs/1411.0030 (Gumbel-max)
Chapter: docs/generation.md
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from minipoet.generation.noise import gumbel_noise
from minipoet.generation.settings import SamplingSettings

NEVER = float("-inf")
HEADS = (512, 8192)  # how many of the likeliest tokens top-p looks at before it sorts them all


def seen_ids(ids: Tensor, segments: Tensor | None, vocab_size: int) -> Tensor:
    """Which ids does each row have? (B, T) -> (B, V) bool. Padding, where segments are 0, does not count."""
    real = torch.ones_like(ids) if segments is None else (segments != 0).long()
    counts = ids.new_zeros(len(ids), vocab_size)
    return counts.scatter_add_(1, ids, real) > 0


def penalise_repetition(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Logits (B, V) of seen ids (B, V) bool, once each: a positive one divided, a negative one multiplied."""
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def scale_temperature(logits: Tensor, temperature: float) -> Tensor:
    """logits / T: T below 1 sharpens the distribution, above 1 flattens it. T > 0."""
    return logits / temperature


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """The k largest logits of each row, and all that equal the k-th."""
    if k >= logits.shape[-1]:
        return logits
    least = logits.topk(k).values[:, -1:]
    return logits.masked_fill(logits < least, NEVER)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """The fewest tokens of each row whose probabilities sum to p or more: the one that crosses p stays.

    Sorting a whole vocabulary costs more than all else here, so the likeliest tokens are tried first: as soon as they
    reach p in every row the rest cannot matter, and the result is exact.
    """
    V = logits.shape[-1]
    total = logits.logsumexp(-1, keepdim=True)
    # Asking whether the head is enough would make a GPU wait; there the sort is cheap.
    heads = [size for size in HEADS if size < V and logits.device.type == "cpu"]
    for size in (*heads, V):
        top = logits.topk(size).values if size < V else logits.sort(dim=-1, descending=True).values
        cumulative = (top - total).exp().cumsum(-1)
        if size == V or bool((cumulative[:, -1] >= p).all()):
            break
    count = ((cumulative < p).sum(-1, keepdim=True) + 1).clamp(max=V)  # (B, 1)
    least = top.gather(-1, count - 1)
    above, equal = logits > least, logits == least
    keep = above | (equal & (equal.cumsum(-1) <= count - above.sum(-1, keepdim=True)))
    return logits.masked_fill(~keep, NEVER)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Tokens with at least p times the probability of the likeliest one. p > 0."""
    # A ratio of probabilities is a difference of logits.
    least = logits.amax(-1, keepdim=True) + math.log(p)
    return logits.masked_fill(logits < least, NEVER)


def filter_logits(logits: Tensor, settings: SamplingSettings, seen: Tensor | None = None) -> Tensor:
    """Logits (B, V) of what may be drawn. seen (B, V) bool is needed for a repetition penalty only.

    The order is that of transformers: top-p acts on what temperature and top-k have left, made to sum to 1 again.
    """
    if settings.repetition_penalty != 1:
        assert seen is not None
        logits = penalise_repetition(logits, seen, settings.repetition_penalty)
    if settings.greedy:
        return logits
    if settings.temperature != 1:
        logits = scale_temperature(logits, settings.temperature)
    if settings.top_k > 0:
        logits = keep_top_k(logits, settings.top_k)
    if settings.top_p < 1:
        logits = keep_top_p(logits, settings.top_p)
    if settings.min_p > 0:
        logits = keep_min_p(logits, settings.min_p)
    return logits


def draw(logits: Tensor, keys: Tensor | None = None) -> Tensor:
    """The next id of each row: (B, V) logits, (B,) int64 keys of this step -> (B,). Without keys the likeliest.

    Gumbel-max: if each logit gets its own Gumbel noise, the largest sum is at id i with probability softmax(logits)[i].
    A token keeps its luck whatever the others do, so rounding changes a draw only where two sums nearly tie; one random
    number looked up in the cumulative probabilities would be off at each of V borders. −1 where the logits are not
    numbers, or none is finite.
    """
    good = logits.amax(-1).isfinite()
    if keys is not None:
        logits = add_noise(logits, keys)
    return torch.where(good, logits.argmax(-1), -1)


def add_noise(logits: Tensor, keys: Tensor) -> Tensor:
    """Logits (B, V) with the luck of each token added: keys (B,) int64, one a row."""
    if logits.device.type != "cpu":
        return logits + gumbel_noise(keys[:, None], torch.arange(logits.shape[-1], device=logits.device))
    rows, ids = (logits > NEVER).nonzero(as_tuple=True)  # on a CPU the noise costs more than to find who needs it
    return logits.index_put((rows, ids), logits[rows, ids] + gumbel_noise(keys[rows], ids))
