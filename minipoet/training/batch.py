"""What goes into a step: a batch, who makes batches, and whether they are for this model.

A row of a batch holds several texts, and beside them their sources for a model that reads such; segments say which
token belongs to which.

    Batch, BatchSource                               one step's tensors, and whatever has a batch for each step
    filled                                           rows of texts -> a tensor, and its segments
    as_text                                          the ids of a text as an array
    check_batches, check_starts, check_vocabulary    is it for this model?

Chapter: docs/training.md
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from minipoet.checks import shown

IGNORED = -100  # a target that costs nothing: PyTorch's own convention


class Batch(NamedTuple):
    """ids, segments, targets: (B, T) each; targets[b, t] is the token after ids[b, t] in its text, or −100.

    source and source_segments, (B, S), are what an encoder reads; None for a model that only goes on from a text.
    goes_on: True if the model reads on from the state that the batch before left, False if it begins with a new one,
    None if there is no such order among batches (`training.streams` has the first two).
    """

    ids: Tensor
    segments: Tensor
    targets: Tensor
    source: Tensor | None = None
    source_segments: Tensor | None = None
    goes_on: bool | None = None

    def tensors(self) -> list[Tensor]:
        """Those that it has, in order."""
        return [value for value in self if isinstance(value, Tensor)]

    def tokens(self) -> int:
        """How many tokens the loss is averaged over."""
        return int((self.targets != IGNORED).sum())

    def to(self, device) -> Batch:
        """The same batch on another device."""
        return Batch._make(t.to(device, non_blocking=True) if isinstance(t, Tensor) else t for t in self)


class BatchSource(Protocol):
    """What the loop reads from: `Batches`, a mixture of several, or anything else that has the batch of a step."""

    def batch(self, step: int) -> Batch:
        """The batch of a step, counted from 0: always the same one."""
        ...


def filled(rows: Sequence[Sequence[np.ndarray]], empty: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of texts, one after another, and their segments: 2 × (B, T), as wide as the longest row.

    No rows (a rank with nothing left) give one token of padding.
    """
    shape = (max(len(rows), 1), max((sum(map(len, row)) for row in rows), default=1))
    ids, segments = np.full(shape, empty, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for r, row in enumerate(rows):
        start = 0
        for number, text in enumerate(row, start=1):
            end = start + len(text)
            ids[r, start:end], segments[r, start:end] = text, number
            start = end
    return torch.from_numpy(ids), torch.from_numpy(segments)


def as_text(ids: Sequence[int], in_place: bool = False) -> np.ndarray:
    """The ids of one text as an array of int32. Raises ValueError for anything else.

    in_place: an array that nobody can write to, as the texts of a `TokenStore` are, is left as it is.
    """
    try:
        array = np.asarray(ids)
    except (ValueError, TypeError):  # lists of different lengths in it, or a tensor that is elsewhere
        array = np.array(None)
    if array.ndim != 1 or (array.size and (array.dtype.kind not in "iu" or array.min() < 0 or array.max() >= 2**31)):
        raise ValueError(f"A text must be a list of token ids, as encode_texts gives them, got {shown(ids)}.")
    return array if in_place and array.dtype.kind in "iu" and not array.flags.writeable else array.astype(np.int32)


def check_batches(batches: BatchSource, model: nn.Module) -> None:
    """Let a source that can do so look whether it is for this model, once: a step need not ask.

    Raises ValueError for what is no source of batches, and for texts that are too long or of another vocabulary.
    """
    if not hasattr(batches, "batch"):
        raise ValueError(f"batches must be Batches(texts, length, rows) or a Mixture of them, got {shown(batches)}.")
    check = getattr(batches, "check", None)
    if check is not None:
        check(model)


def check_starts(starts: Iterable[int], model: nn.Module) -> None:
    """Raise ValueError if what a model writes about a source would be learnt behind another token than it will be."""
    wanted = getattr(model, "start_id", None)
    for start in starts:
        if wanted is not None and start != wanted:
            raise ValueError(
                f"A text begins with the id {start}, but all that this model writes begins with {wanted}: give each as "
                "[model.start_id, *ids, tokenizer.eos_id]."
            )


def check_vocabulary(texts: Sequence[np.ndarray], model: nn.Module) -> None:
    """Raise ValueError if the texts have ids that the model has not."""
    rows = getattr(getattr(model, "config", None), "vocab_size", None)
    largest = max(int(text.max()) for text in texts)
    if rows is not None and largest >= rows:
        raise ValueError(
            f"The texts have the id {largest}, but this model has 0 to {rows - 1}: encode with its own tokenizer."
        )
