"""The cache of a transformer: the keys and values of the tokens read so far, so that none is computed twice.

Without it a poem of n tokens costs n passes over up to n tokens; with it each pass reads the new tokens only.
A block takes the past of its layer, *returns* past and new together (`LayerPast.extend`), and the model's loop stores
them (`LayerPast.store`): `extend` does not change what counts as past. Where gradients flow, tensors are concatenated;
elsewhere they are written into a buffer that doubles. A learnt prefix (adapters/prefix.py) is what a cache begins with.

Chapters: docs/gpt2.md, docs/prefix.md
"""

from __future__ import annotations

import torch
from torch import Tensor

from minipoet.models.attention import PREFIX


class LayerPast:
    """One layer's keys and values, (B, G, S, D) each."""

    def __init__(self, keys: Tensor | None = None, values: Tensor | None = None):
        self.buffers = None if keys is None or values is None else (keys, values)
        self.length = 0 if keys is None else keys.shape[2]

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The past with (B, G, T, D) new keys and values behind it: 2 × (B, G, S, D)."""
        if self.buffers is None:
            return k, v
        # A prefix is fp32 over any base: it takes the type of what is read after it.
        past = tuple(buffer[:, :, : self.length].to(k.dtype) for buffer in self.buffers)
        if torch.is_grad_enabled() and any(t.requires_grad for t in (*past, k, v)):
            return torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        end = self.length + k.shape[2]
        full = end > self.buffers[0].shape[2]
        if full or self.buffers[0].requires_grad or self.buffers[0].dtype != k.dtype:
            self.buffers = (_roomier(past[0].detach(), 2 * end), _roomier(past[1].detach(), 2 * end))
        for buffer, new in zip(self.buffers, (k, v), strict=True):
            buffer[:, :, self.length : end] = new
        return self.buffers[0][:, :, :end], self.buffers[1][:, :, :end]

    def store(self, keys: Tensor, values: Tensor) -> None:
        """Make what `extend` returned the past of the next call; a view of the buffer is not copied."""
        if self.buffers is None or keys.data_ptr() != self.buffers[0].data_ptr():
            self.buffers = (keys, values)
        self.length = keys.shape[2]

    def frozen(self) -> LayerPast:
        """The past as it is now: gradient checkpointing reads it again after the cache has gone on."""
        past = LayerPast()
        past.buffers, past.length = self.buffers, self.length
        return past

    def select(self, rows: Tensor) -> None:
        """Keep these rows of the batch, in this order (a row may come several times)."""
        if self.buffers is not None:
            keys, values = (_chosen(buffer, self.length, rows) for buffer in self.buffers)
            self.buffers = (keys, values)


class KVCache:
    """The past of all layers. `length` is S, the slots there are; the first `prefix` of them hold no token.

    beginning: None, or a prefix (P, 2·L, G, D): keys of layer l in row 2l, its values in row 2l + 1, for every text.
    """

    def __init__(self, n_layers: int, batch_size: int, beginning: Tensor | None = None):
        self.layers = pasts(n_layers, batch_size, beginning)
        self.batch_size = batch_size
        self.length = self.prefix = 0
        self._segments: Tensor | None = None
        if beginning is not None:
            self.length = self.prefix = len(beginning)

    def segments(self, wanted: bool, device: torch.device) -> Tensor | None:
        """(B, S), which text each slot belongs to; None if all is one text's, unless it is `wanted` nevertheless."""
        if self._segments is None and wanted:
            ones = torch.ones(self.batch_size, self.length, dtype=torch.long, device=device)
            ones[:, : self.prefix] = PREFIX
            return ones
        return self._segments

    def advance(self, T: int, segments: Tensor | None, device: torch.device) -> None:
        """Count T tokens of these segments (None: all of text 1) as read; the layers are stored already."""
        past = self.segments(segments is not None, device)
        if past is not None:
            new = torch.ones(self.batch_size, T, dtype=torch.long, device=device) if segments is None else segments
            self._segments = torch.cat([past, new.long()], dim=1)
        self.length += T

    def as_beginning(self) -> Tensor:
        """What one text left here, (P, 2·L, G, D), without its gradient: the prefix that says what the text said."""
        if self.batch_size != 1 or self._segments is not None or not self.length:
            raise ValueError("A prefix is taken from a cache that has read one text, alone and without padding.")
        parts = [t[0, :, : self.length] for layer in self.layers for t in layer.buffers or ()]  # 2·L × (G, P, D)
        return torch.stack(parts).permute(2, 0, 1, 3).detach()

    def reorder(self, rows: Tensor) -> None:
        """Row i becomes what row rows[i] was: (B',) integers. Beams move so, and finished texts leave so."""
        for layer in self.layers:
            layer.select(rows)
        if self._segments is not None:
            self._segments = self._segments.index_select(0, rows)
        self.batch_size = len(rows)

    def repeat(self, n: int) -> None:
        """Each row n times, one after another: a prompt is read once and continued n times."""
        device = self.layers[0].buffers[0].device if self.layers[0].buffers is not None else None
        self.reorder(torch.arange(self.batch_size, device=device).repeat_interleave(n))


def pasts(n_layers: int, batch_size: int, beginning: Tensor | None) -> list[LayerPast]:
    """What each layer begins with: its rows of a prefix (P, 2·L, G, D) for each text, or nothing."""
    if beginning is None:
        return [LayerPast() for _ in range(n_layers)]
    rows = beginning.permute(1, 2, 0, 3)[:, None].expand(-1, batch_size, -1, -1, -1)  # (2·L, B, G, P, D)
    return [LayerPast(rows[2 * layer], rows[2 * layer + 1]) for layer in range(n_layers)]


def _roomier(t: Tensor, capacity: int) -> Tensor:
    B, G, S, D = t.shape
    buffer = t.new_empty(B, G, capacity, D)
    buffer[:, :, :S] = t
    return buffer


def _chosen(t: Tensor, length: int, rows: Tensor) -> Tensor:
    """These rows of a buffer, its free end kept: beams move at every step, and would be copied twice."""
    if t.requires_grad:
        return t[:, :, :length].index_select(0, rows)
    buffer = t.new_empty(len(rows), *t.shape[1:])
    torch.index_select(t[:, :, :length], 0, rows, out=buffer[:, :, :length])
    return buffer
