"""The cache of a transformer: the keys and values of the tokens read so far, so that none is computed twice.

Without it a poem of n tokens costs n passes over up to n tokens; with it each pass reads the new tokens only.
A block takes the past of its layer, *returns* past and new together (`LayerPast.extend`), and the model's loop stores
them (`KVCache.store`): `extend` does not change what counts as past, so a block that gradient checkpointing runs twice
does no harm. Where gradients flow, tensors are concatenated; elsewhere they are written into a buffer that doubles.

Chapter: docs/gpt2.md
"""

from __future__ import annotations

import torch
from torch import Tensor


class LayerPast:
    """One layer's keys and values, (B, G, S, D) each."""

    def __init__(self, keys: Tensor | None = None, values: Tensor | None = None):
        self.buffers = None if keys is None or values is None else (keys, values)
        self.length = 0 if keys is None else keys.shape[2]

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The past with (B, G, T, D) new keys and values behind it: 2 × (B, G, S, D)."""
        if self.buffers is None:
            return k, v
        past = tuple(buffer[:, :, : self.length] for buffer in self.buffers)
        if torch.is_grad_enabled() and any(t.requires_grad for t in (*past, k, v)):
            return torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        end = self.length + k.shape[2]
        if end > self.buffers[0].shape[2] or self.buffers[0].requires_grad:
            self.buffers = (_roomier(past[0].detach(), 2 * end), _roomier(past[1].detach(), 2 * end))
        for buffer, new in zip(self.buffers, (k, v), strict=True):
            buffer[:, :, self.length : end] = new
        return self.buffers[0][:, :, :end], self.buffers[1][:, :, :end]

    def store(self, keys: Tensor, values: Tensor) -> None:
        """Make what `extend` returned the past of the next call; a view of the buffer is not copied."""
        if self.buffers is None or keys.data_ptr() != self.buffers[0].data_ptr():
            self.buffers = (keys, values)
        self.length = keys.shape[2]

    def select(self, rows: Tensor) -> None:
        """Keep these rows of the batch, in this order (a row may come several times)."""
        if self.buffers is not None:
            keys, values = (buffer[:, :, : self.length].index_select(0, rows) for buffer in self.buffers)
            self.buffers = (keys, values)


class KVCache:
    """The past of all layers. `length` is S; `segments` (B, S) or None says which text each slot belongs to."""

    def __init__(self, n_layers: int, batch_size: int):
        self.layers = [LayerPast() for _ in range(n_layers)]
        self.batch_size = batch_size
        self.length = 0
        self.segments: Tensor | None = None

    def advance(self, T: int, segments: Tensor | None) -> None:
        """Count T tokens of these segments (None: all of text 1) as read; the layers are stored already."""
        if segments is not None or self.segments is not None:
            device = segments.device if segments is not None else self.segments.device  # type: ignore[union-attr]
            ones = torch.ones(self.batch_size, max(T, self.length), dtype=torch.long, device=device)
            past = ones[:, : self.length] if self.segments is None else self.segments
            self.segments = torch.cat([past, ones[:, :T] if segments is None else segments.long()], dim=1)
        self.length += T

    def reorder(self, rows: Tensor) -> None:
        """Row i becomes what row rows[i] was: (B',) integers. Beams move so, and finished texts leave so."""
        for layer in self.layers:
            layer.select(rows)
        if self.segments is not None:
            self.segments = self.segments.index_select(0, rows)
        self.batch_size = len(rows)

    def repeat(self, n: int) -> None:
        """Each row n times, one after another: a prompt is read once and continued n times."""
        device = self.layers[0].buffers[0].device if self.layers[0].buffers is not None else None
        self.reorder(torch.arange(self.batch_size, device=device).repeat_interleave(n))


def _roomier(t: Tensor, capacity: int) -> Tensor:
    B, G, S, D = t.shape
    buffer = t.new_empty(B, G, capacity, D)
    buffer[:, :, :S] = t
    return buffer
