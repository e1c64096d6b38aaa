"""The cache of an encoder–decoder: what the decoder has written so far, and what the encoder made of the source.

The source is read once. Each layer of the decoder looks at it through keys and values of its own, which never change
while a text is written; only what is written grows.

Chapter: docs/t5.md
"""

from __future__ import annotations

import torch
from torch import Tensor

from minipoet.models.attention import PADDING, PREFIX
from minipoet.models.cache import KVCache


class SourceCache(KVCache):
    """`length` counts what the decoder has read, its prefix included.

    cross: the source's keys and values, 2 × (B, H, S, D) a layer of the decoder, a prefix in front of them included.
    source_segments: (B, S), which text's source each of them is of; PADDING is seen by none, PREFIX by all.
    beginning: the prefix of the decoder's own attention, as in KVCache.
    """

    def __init__(self, cross: list[tuple[Tensor, Tensor]], source_segments: Tensor, beginning: Tensor | None = None):
        super().__init__(len(cross), len(source_segments), beginning)
        self.cross = cross
        self.source_segments = source_segments
        self._sources = torch.arange(len(source_segments), device=source_segments.device)  # which one has each row?

    def source_visible(self, segments: Tensor | None) -> Tensor:
        """(B, 1, T or 1, S) bool: a token sees the source of its own text, (B, T) `segments`, and the prefix."""
        own = self.source_segments.new_ones(1, 1) if segments is None else segments
        sees = self.source_segments[:, None, :] == own[:, :, None]
        sees = (sees & (own[:, :, None] != PADDING)) | (self.source_segments == PREFIX)[:, None, :]
        return sees[:, None]

    def reorder(self, rows: Tensor) -> None:
        """Row i becomes what row rows[i] was. Beams of one source only change places: its keys stay where they are."""
        super().reorder(rows)
        sources = self._sources.index_select(0, rows)
        if not torch.equal(sources, self._sources):
            self.cross = [(k.index_select(0, rows), v.index_select(0, rows)) for k, v in self.cross]
            self.source_segments = self.source_segments.index_select(0, rows)
            self._sources = sources

    def repeat(self, n: int) -> None:
        """Each row n times, one after another."""
        rows = torch.arange(self.batch_size, device=self._sources.device)
        self.reorder(rows.repeat_interleave(n))
