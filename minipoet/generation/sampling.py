"""From logits to the next token: what may be drawn, and the draw.

    penalise_repetition, scale_temperature, keep_top_k, keep_top_p, keep_min_p    (B, V) -> (B, V), pure
    filter_logits    all of them, in the order of transformers
    poem_seed, uniform_numbers, draw    one random number a poem and step, turned into a token

A token that is removed gets the logit −inf. The filters do what transformers' do, ties included, but for one thing that
is left open there: of equal logits at the edge of top-p the lower ids stay, whatever the device and the sort.

Papers: Holtzman et al. 2019, https://arxiv.org/abs/1904.09751 (top-p); Nguyen et al. 2024,
https://arxiv.org/abs/2407.01082 (min-p); Keskar et al. 2019, https://arxiv.org/abs/1909.05858 (the penalty)
Chapter: docs/generation.md
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from minipoet.generation.settings import SEEDS, SamplingSettings

NEVER = float("-inf")
HEADS = (512, 8192)  # how many of the likeliest tokens top-p looks at before it sorts them all
GOLDEN = 0x9E3779B9  # 2**32 divided by the golden ratio, as in Knuth's multiplicative hashing


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


def poem_seed(seed: int, prompt: int = 0, sample: int = 0) -> int:
    """The seed of one poem among many: of the prompt with this number, the sample with this number, counted from 0.

    The first poem's is `seed` itself. Pairs are numbered after Cantor, (0, 0), (1, 0), (0, 1), (2, 0), …, and each
    number is a golden step further, modulo 2**32: no two poems of a seed have the same, and small seeds stay apart.
    """
    number = (prompt + sample) * (prompt + sample + 1) // 2 + sample
    return (int(seed) + GOLDEN * number) % SEEDS


def uniform_numbers(seeds: Sequence[int], steps: int, device: torch.device | str = "cpu") -> Tensor:
    """(B, steps) random numbers from (0, 1], on this device, float64 where the device has it.

    Each row comes from its own torch.Generator: a poem's luck hangs on its seed, not on its neighbours. The generators
    run on the CPU, so that a seed means the same everywhere. Fewer steps are the beginning of more.
    """
    rows = [torch.rand(steps, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    device = torch.device(device)
    return (1 - torch.stack(rows)).to(device, torch.float32 if device.type == "mps" else torch.float64)


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """The first id up to which the probabilities sum to `uniform` or more: (B, V), (B,) -> (B,).

    If uniform is spread evenly over (0, 1], each id comes as often as its probability says. The sum is made in
    uniform's type: in fp32 rare tokens would get lost in it. −1 where the logits are not numbers, or none is finite.
    """
    probabilities = logits.softmax(-1)
    cumulative = probabilities.cumsum(-1, dtype=uniform.dtype)
    target = uniform[:, None] * cumulative[:, -1:]
    ids = torch.searchsorted(cumulative, target).clamp(max=logits.shape[-1] - 1)  # (B, 1)
    return torch.where(probabilities.gather(-1, ids) > 0, ids, -1)[:, 0]


def likeliest(logits: Tensor) -> Tensor:
    """The id of the largest logit, the lowest such: (B, V) -> (B,). −1 as for `draw`."""
    values, ids = logits.max(-1)
    return torch.where(values.isfinite(), ids, -1)
