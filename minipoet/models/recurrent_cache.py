"""The cache of a model that carries a state: a few numbers a text, however long it was.

A transformer keeps the keys and values of every token; a recurrent model has put what it read into vectors of a fixed
size, and a windowed one remembers its last few tokens. Both are tensors with a row a text (`StateCache.tensors`).

    StateCache    what was read so far
    marks         what the segments of new tokens say to a model that reads in order: `follow`, after a cache
    follow        which tokens begin a text anew, which are real, and which text each row ends in

Chapter: docs/cells.md
"""

from __future__ import annotations

import torch
from torch import Tensor


class StateCache:
    """Tensors of (B, ...) by name. `length` is how many tokens were read; `segment` (B,) the text that each row is in.

    A text that was left for another one begins anew when it is taken up again: the state of one text is kept a row.
    """

    def __init__(self, batch_size: int):
        self.batch_size = batch_size
        self.length = 0
        self.segment: Tensor | None = None  # None: all in text 1, or nothing was read; 0: nothing but padding yet
        self.tensors: dict[str, Tensor] = {}

    def advance(self, T: int, segment: Tensor | None) -> None:
        """Count T tokens as read, after which each row is in the text `segment` (B,), as `marks` gives it."""
        self.length += T
        self.segment = segment

    def reorder(self, rows: Tensor) -> None:
        """Row i becomes what row rows[i] was: (B',) integers. Finished texts leave so."""
        self.tensors = {name: tensor.index_select(0, rows) for name, tensor in self.tensors.items()}
        if self.segment is not None:
            self.segment = self.segment.index_select(0, rows)
        self.batch_size = len(rows)

    def repeat(self, n: int) -> None:
        """Each row n times, one after another: a prompt is read once and continued n times."""
        device = None if self.segment is None else self.segment.device
        self.reorder(torch.arange(self.batch_size, device=device).repeat_interleave(n))

    def detach(self) -> None:
        """Cut the gradient here: the state goes on, but nothing before it is learnt from any more."""
        self.tensors = {name: tensor.detach() for name, tensor in self.tensors.items()}


def marks(
    ids: Tensor, cache: StateCache | None, segments: Tensor | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """(new, real, last), as `follow` gives them, of (B, T) ids; all None where every row just goes on with its text.

    Raises ValueError for a cache of another number of texts, and segments of another shape.
    """
    if cache is not None and cache.batch_size != len(ids):
        rows = f"{len(ids)} rows were given to read: model.new_cache({len(ids)})"
        raise ValueError(f"The cache is that of {cache.batch_size} texts, but {rows}.")
    if segments is not None and segments.shape != ids.shape:
        came = f"{tuple(segments.shape)} beside ids of {tuple(ids.shape)}"
        raise ValueError(f"Segments say of each id which text it is of, so they have the same shape; got {came}.")
    before = None if cache is None else cache.segment
    if segments is None and before is None:
        return None, None, None
    if before is None and cache is not None and cache.length:
        before = ids.new_ones(len(ids))
    return follow(torch.ones_like(ids) if segments is None else segments, before)


def follow(segments: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """(new, real, last) of (B, T) segments, after rows that are in the texts `before` (B,), or None.

    new (B, T): this token begins another text than the real token before it. real (B, T): it is no padding.
    last (B,): the text that each row is in at the end. Padding changes nothing.
    """
    B, T = segments.shape
    before = segments.new_zeros(B) if before is None else before.to(segments.dtype)
    real = segments != 0
    # The place of the last real token up to each place, 0 for the one that stands for what was before.
    places = torch.arange(1, T + 1, device=segments.device).where(real, 0).cummax(1).values
    texts = torch.cat([before[:, None], segments], 1)
    so_far = texts.gather(1, torch.cat([places.new_zeros(B, 1), places], 1))  # (B, T + 1)
    return real & (segments != so_far[:, :-1]), real, so_far[:, -1]
