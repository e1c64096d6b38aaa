"""What all transformers that only go on from a text have in common: the way through the blocks, cached or not.

    ids, positions -> enter -> n × block over (x, past, mask, …) -> norm -> states

A family brings its blocks, `enter` (what goes into the first block, and what each block is told besides) and the sizes
of its cache; here is who sees whom, the prefix, gradient checkpointing, and what is stored.

Chapters: docs/gpt2.md, docs/prefix.md
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from minipoet.models.attention import additive, scores_type, visibility
from minipoet.models.base import LanguageModel
from minipoet.models.cache import KVCache
from minipoet.models.layers import check_ids, context_error, no_room_error


class Decoder(LanguageModel):
    """`logits = model(ids, cache, segments)`, (B, T) -> (B, T, V), over a cache of keys and values."""

    blocks: Iterable[nn.Module]  # block(x, past, mask, *more) -> (x, (keys, values))
    norm: nn.Module

    @property
    def places(self) -> int:
        """How many positions there are, a prefix's included."""
        raise NotImplementedError

    @property
    def cache_sizes(self) -> tuple[int, int, int]:
        """(layers, G, D): layers, key/value heads, numbers in each."""
        raise NotImplementedError

    def enter(self, ids: Tensor, positions: Tensor) -> tuple[Tensor, tuple[Any, ...]]:
        """What goes into the first block, (B, T, C), and what every block is told besides the past and the mask."""
        raise NotImplementedError

    @property
    def context(self) -> int:
        """The longest text, in tokens: a prefix takes the first positions."""
        return self.places - self.prefix_length

    def beginning_shape(self, num_virtual_tokens: int) -> tuple[int, int, int, int]:
        """(P, 2·layers, G, D). Raises ValueError if so many leave no room for a text."""
        if num_virtual_tokens >= self.places:
            raise no_room_error(num_virtual_tokens, self.places)
        layers, G, D = self.cache_sizes
        return num_virtual_tokens, 2 * layers, G, D

    def as_beginning(self, cache: KVCache) -> Tensor:
        """The keys and values of the one text in a cache, as (P, 2·layers, G, D)."""
        return cache.as_beginning()

    def new_cache(self, batch_size: int) -> KVCache:
        """A cache for batch_size texts, empty but for the prefix in use."""
        return KVCache(self.cache_sizes[0], batch_size, self.beginning())

    def states(self, ids: Tensor, cache: KVCache | None = None, segments: Tensor | None = None) -> Tensor:
        """(B, T) -> (B, T, C): what `head` turns into logits. A cache is read on from, and brought up to date.

        Raises ValueError for a text longer than `context`, and for what is no (B, T) ids.
        """
        check_ids(ids)
        B, T = ids.shape
        past = self.new_cache(B) if cache is None else cache
        before = past.segments(segments is not None, ids.device)
        positions, sees = visibility(segments, before, (B, T), past.length, ids.device)
        if past.length + T > self.places and int(positions.max()) >= self.places:
            raise context_error(int(positions.max()) + 1 - past.prefix, self.places - past.prefix)
        x, more = self.enter(ids, positions)
        mask = additive(sees, scores_type(x))
        for block, layer in zip(self.blocks, past.layers, strict=True):
            if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
                x, kv = checkpoint(block, x, layer.frozen(), mask, *more, use_reentrant=False)
            else:
                x, kv = block(x, layer, mask, *more)
            if cache is not None:
                layer.store(*kv)
        if cache is not None:
            cache.advance(T, segments, ids.device)
        return self.norm(x)
