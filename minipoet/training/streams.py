"""Batches for models that carry a state: windows that follow one another, so that a step goes on where the last ended.

    lane 1:   |<s> М о р о з   и   с|о л н ц е … </s> <s> П|р о щ а й …        a window a step,
    lane 2:   |<s> В ы х о ж у   о д|и н   я   н а   д о р |о г у …            a lane a row

All texts of an epoch, in an order of its own, are laid into `rows` lanes of equal length, and step k gives window k of
each. The gradient goes back to the beginning of the window, the state comes from the beginning of the text: truncated
backpropagation through time (Williams & Peng 1990). `Batches` packs whole texts instead, for models that need no state.

Chapter: docs/letters.md
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import nn

from minipoet.checks import is_whole, shown
from minipoet.training.batch import IGNORED, Batch, as_text, check_vocabulary


class Streams:
    """Windows of `length` tokens from `rows` lanes, without end: epoch after epoch, each in an order of its own.

    texts: token ids, each with its start and end tokens. `batch(step).goes_on` says whether it continues the batch of
    the step before, as all do but the first of an epoch; the training loop then keeps the state.
    Raises ValueError if there is nothing to learn from, for sizes that make no sense, and for a window longer than a
    lane.
    """

    def __init__(self, texts: Iterable[Sequence[int]], length: int, rows: int, seed: int = 0):
        if not (is_whole(length, 1) and is_whole(rows, 1) and is_whole(seed)):
            came = f"{shown(length)}, {shown(rows)} and {shown(seed)}"
            raise ValueError(f"Streams need length ≥ 1, rows ≥ 1 and seed ≥ 0, got {came}.")
        if isinstance(texts, str) or not isinstance(texts, Iterable):
            raise ValueError(f"Streams need texts as lists of token ids (encode_texts), got {shown(texts)}.")
        self.texts = [text for text in map(as_text, texts) if len(text) > 1]
        self.length, self.rows, self.seed = length, rows, seed
        self.tokens = sum(len(text) - 1 for text in self.texts)  # the last token of a text is only a target
        if not self.tokens:
            raise ValueError("There is no text of two tokens or more to make batches of.")
        if self.tokens < rows * length:
            raise ValueError(
                f"The texts have {self.tokens} tokens to learn from, but a step reads {rows} rows of {length}: "
                f"take windows of at most {self.tokens // rows} tokens, fewer rows, or more text."
            )
        self._lanes = lru_cache(maxsize=2)(self._make_lanes)

    def check(self, model: nn.Module) -> None:
        """Raise ValueError for a model that carries no state, or one that has not all of these ids."""
        if not hasattr(model.new_cache(1), "detach"):  # type: ignore[operator]
            raise ValueError(
                f"Streams are for models that carry a state (RNN, GRU, LSTM), and {type(model).__name__} carries none: "
                f"use Batches."
            )
        check_vocabulary(self.texts, model)

    def epoch_tokens(self) -> int:
        """Targets in one pass over all texts."""
        return self.tokens

    def steps_per_epoch(self) -> int:
        """Batches in one pass over all texts."""
        return -(-self.tokens // (self.rows * self.length))

    def batch(self, step: int) -> Batch:
        """The batch of a step, counted from 0 over all epochs. The last one of an epoch may be narrower."""
        if not is_whole(step):
            raise ValueError(f"There is no batch of step {shown(step)}.")
        epoch, number = divmod(step, self.steps_per_epoch())
        window = slice(number * self.length, (number + 1) * self.length)
        ids, segments, targets = (torch.from_numpy(lane[:, window]) for lane in self._lanes(epoch))
        return Batch(ids, segments, targets, goes_on=number > 0)

    def _make_lanes(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """ids, segments, targets: (rows, width) each. What the end of a lane cuts off a text begins the next lane."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.texts))
        texts = [self.texts[index] for index in order]
        width = -(-self.tokens // self.rows)
        lanes = [np.concatenate(parts) for parts in (
            [text[:-1] for text in texts],
            [np.full(len(text) - 1, number) for number, text in enumerate(texts, start=1)],
            [text[1:] for text in texts],
        )]  # fmt: skip
        room = width * self.rows - self.tokens
        return tuple(  # type: ignore[return-value]
            np.pad(lane, (0, room), constant_values=fill).astype(np.int64).reshape(self.rows, width)
            for lane, fill in zip(lanes, (0, 0, IGNORED), strict=True)
        )
