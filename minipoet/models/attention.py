"""Attention: who sees whom, and what is taken from whom.

`Visibility` turns segments (packing, padding, a prefix) into one additive mask and into positions; `attend` is
softmax(q kᵀ · scale + mask) v.

Paper: Vaswani et al. 2017, "Attention Is All You Need", https://arxiv.org/abs/1706.03762
Chapter: docs/gpt2.md
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

PADDING = 0  # nobody sees it, and it sees only itself
PREFIX = -1  # slots that every real token sees: a learned prefix (adapters/prefix.py)
SHORT = 768  # keys; see _is_short_bf16


class Visibility(NamedTuple):
    """What new tokens are told: positions, (B, T) or (1, T), and a bool mask (B, 1, T, S), None for plain causal."""

    positions: Tensor
    mask: Tensor | None


def visibility(new: Tensor | None, past: Tensor | None, shape: tuple[int, int], past_length: int, device) -> Visibility:
    """What each of T new tokens sees of the S = past + T tokens there are then.

    new: (B, T) segments of the new tokens, or None: one text a row, no padding.
    past: (B, past_length) segments of the tokens read before, or None: all seen by each row's one text (a prefix too).
    A token sees the earlier tokens of its own segment, itself, and the prefix. Its position is the number of tokens
    that it sees before itself: so positions start anew with each segment, after the prefix, and skip the padding.
    """
    B, T = shape
    if new is None and past is None:
        positions = torch.arange(past_length, past_length + T, device=device)[None]
        if past_length == 0 or T == 1:
            return Visibility(positions, None)
        # Made once for all layers; "causal" to a fused kernel means that the first query stands at the first key.
        causal = torch.ones(T, past_length + T, dtype=torch.bool, device=device).tril(past_length)
        return Visibility(positions, causal[None, None])
    new = torch.ones(B, T, dtype=torch.long, device=device) if new is None else new
    past = torch.ones(B, past_length, dtype=torch.long, device=device) if past is None else past
    every = torch.cat([past, new], dim=1)  # (B, S)
    sees = every[:, None, :] == new[:, :, None]  # (B, T, S), large: so changed in place
    sees |= (every == PREFIX)[:, None, :]
    sees &= (every != PADDING)[:, None, :]
    sees &= (new != PADDING)[:, :, None]
    sees.tril_(past_length)
    positions = (sees.sum(-1, dtype=torch.int32).long() - 1).clamp(min=0)  # (B, T); the sum copies all in its type
    # Padding sees itself: a row of the softmax with nothing to see would be 0/0.
    sees.diagonal(past_length, dim1=1, dim2=2).fill_(True)
    return Visibility(positions, sees[:, None])


def additive(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """The bool mask as numbers to add to the scores: 0 where seen, the least finite number of the type elsewhere.

    Made once a forward pass and shared by all layers. −inf or −1e9 would do harm in half precision.
    """
    if mask is None:
        return None
    return torch.full(mask.shape, torch.finfo(dtype).min, dtype=dtype, device=mask.device).masked_fill_(mask, 0)


def scores_type(x: Tensor) -> torch.dtype:
    """The type in which the scores of a layer that reads x will be computed."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    scale: float,
    dropout: float = 0.0,
    large_scores: bool = False,
) -> Tensor:
    """(B, H, T, D), 2 × (B, G, S, D) -> (B, H, T, D): for each query the mean of the values by softmax(q kᵀ · scale).

    mask None means plain causal, as `visibility` says it: T = S, or one query that sees all. G < H: H/G query heads
    share a key/value head (grouped-query attention, https://arxiv.org/abs/2305.13245). PyTorch's fused kernel computes
    it without keeping the T × S scores, but where they are few `attend_plainly` is faster. That keeps them in q's own
    type: large_scores says that they may outgrow it (Qwen2's do in bf16), so that the kernel, in fp32, is asked. A mask
    that is learnt (T5's distances) needs the scores kept; on a CPU PyTorch's own form of that takes twice the time.
    """
    T, S = q.shape[2], k.shape[2]
    grouped = k.shape[1] != q.shape[1]
    if not grouped and mask is not None and mask.requires_grad and q.device.type == "cpu":
        return attend_plainly(q, k, v, mask, scale, dropout)
    causal = mask is None and T > 1
    assert not causal or T == S, "what T < S new tokens see of the past must be given as a mask"
    if not grouped and not large_scores and _is_short_bf16(q, S):
        if causal:
            mask = additive(torch.ones(T, T, dtype=torch.bool, device=q.device).tril(), q.dtype)
        return attend_plainly(q, k, v, mask, scale, dropout)
    return F.scaled_dot_product_attention(q, k, v, mask, dropout, causal, scale=scale, enable_gqa=grouped)


def attend_plainly(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, dropout: float = 0.0) -> Tensor:
    """The formula as it is written: (B, H, T, D), 2 × (B, H, S, D), additive mask -> (B, H, T, D)."""
    scores = (q * scale) @ k.transpose(-1, -2)  # (B, H, T, S)
    weights = (scores if mask is None else scores + mask).softmax(-1)
    return F.dropout(weights, dropout) @ v


def _is_short_bf16(q: Tensor, S: int) -> bool:
    """On a CPU the fused kernel multiplies bf16 slowly: up to SHORT tokens the plain formula takes half its time."""
    return q.device.type == "cpu" and q.dtype is torch.bfloat16 and max(q.shape[2], S) <= SHORT
