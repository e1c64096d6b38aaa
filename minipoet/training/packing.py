"""From texts to batches: whole poems packed into rows of one length, instead of padding.

A row holds several texts; `segments` says which token belongs to which, and the model lets no token look into another
text. A batch is a pure function of (texts, settings, seed, step, rank, world): a resumed run sees what an undisturbed
one would have seen. `cut` divides texts that are longer than a row, `pack` fills rows, `Batches` makes the tensors.

Chapter: docs/training.md
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from torch import nn

from minipoet.checks import as_ids, is_whole, shown
from minipoet.training.batch import IGNORED, Batch, as_text, check_starts, check_vocabulary, filled


def cut(ids: Sequence[int], length: int, breaks: Iterable[int] = ()) -> list[np.ndarray]:
    """Pieces of at most `length` tokens, each beginning with the last token of the one before: every token is a target
    once, but the first of the text.

    A piece ends at the last token of its second half that is in `breaks` (line ends), where there is one. A text of
    fewer than two tokens gives no piece: there is nothing to predict. Raises ValueError for a length of less than 2.
    """
    if not is_whole(length, 2):
        raise ValueError(
            f"A piece needs at least 2 tokens, one to read and one to predict; got length {shown(length)}."
        )
    array = as_text(ids, in_place=True)
    ends = np.flatnonzero(np.isin(array, list(breaks)))
    pieces, start = [], 0
    while len(array) - start > length:
        stop = start + length
        k = int(np.searchsorted(ends, stop - 1, side="right")) - 1
        if k >= 0 and ends[k] > start + length // 2:
            stop = int(ends[k]) + 1
        pieces.append(array[start:stop])
        start = stop - 1
    pieces.append(array[start:])
    return [piece for piece in pieces if len(piece) > 1]


def pack(lengths: Sequence[int], room: int, order: Sequence[int], open_rows: int = 64) -> list[list[int]]:
    """Rows of indices whose lengths sum to at most room: the texts in order, each into the fullest row that it fits in.

    At most `open_rows` rows stay open (the fullest is given up first), so it takes linear time, and the texts of a row
    are near each other in the order. Raises ValueError for a text longer than room.
    """
    rows: list[list[int]] = []
    space: list[tuple[int, int]] = []  # (room left, row), sorted
    for index in order:
        length = lengths[index]
        if length > room:
            raise ValueError(f"Text {index} takes {length} places, but a row has {room}: cut it first (training.cut).")
        k = bisect_left(space, (length, -1))
        if k < len(space):
            left, row = space.pop(k)
        else:
            left, row = room, len(rows)
            rows.append([])
        rows[row].append(index)
        if left > length:
            insort(space, (left - length, row))
            if len(space) > open_rows:
                space.pop(0)  # the fullest: the least likely to be of use
    return rows


class Batches:
    """Batches of `rows` rows of `length` tokens, without end: epoch after epoch, each in an order of its own.

    texts: token ids, each with its start and end tokens. Longer ones are cut at `breaks`.
    prompts: how many tokens each text begins with that are read but not learnt, where a text is a request and its
    answer; such texts are not cut.
    sources: the ids of what each text is written about, for a model that reads a source; such texts are not cut either,
    and `length` is the longest row of both sides.
    Raises ValueError if there is nothing to learn from, or for sizes that make no sense.
    """

    def __init__(
        self,
        texts: Iterable[Sequence[int]],
        length: int,
        rows: int,
        seed: int = 0,
        breaks: Iterable[int] = (),
        prompts: Sequence[int] | None = None,
        sources: Iterable[Sequence[int]] | None = None,
    ):
        if not (is_whole(length, 1) and is_whole(rows, 1) and is_whole(seed)):
            came = f"{shown(length)}, {shown(rows)} and {shown(seed)}"
            raise ValueError(f"Batches need length ≥ 1, rows ≥ 1 and seed ≥ 0, got {came}.")
        if isinstance(texts, str) or not isinstance(texts, Iterable):
            raise ValueError(f"Batches need texts as lists of token ids (encode_texts), got {shown(texts)}.")
        breaks = as_ids(breaks, "breaks")
        if prompts is None and sources is None:
            self.texts = [piece for ids in texts for piece in cut(ids, length + 1, breaks)]
        else:
            self.texts = [as_text(ids, in_place=True) for ids in texts]
            if prompts is not None:
                _check_prompts(self.texts, prompts, length)
        self.prompts = prompts
        self.sources = None if sources is None else [as_text(ids, in_place=True) for ids in sources]
        if not self.texts:
            raise ValueError("There is no text of two tokens or more to make batches of.")
        self.length, self.rows, self.seed = length, rows, seed
        self.lengths = [len(text) - 1 for text in self.texts]  # the last token is only a target
        self._rooms = self.lengths  # what a text takes of a row; of the longer side, so that both sides fit
        if self.sources is not None:
            _check_sources(self.texts, self.sources, length)
            self._rooms = [max(pair) for pair in zip(self.lengths, map(len, self.sources), strict=True)]
        self._plan = lru_cache(maxsize=2)(self._make_plan)
        self._starts: dict[int, list[int]] = {}  # world -> the first step of each epoch, as far as they were asked for

    def check(self, model: nn.Module) -> None:
        """Raise ValueError if a text is too long for the model, or has ids that the model has not."""
        context = getattr(model, "context", None)
        if context is not None and max(self.lengths) > context:
            raise ValueError(
                f"A text is {max(self.lengths)} tokens long, but this model reads at most {context}: "
                f"make the batches with length={context} or less."
            )
        reads_source = getattr(model, "reads_source", False)
        if reads_source != (self.sources is not None):
            needs = "writes about a source: give Batches its sources" if reads_source else "reads no sources"
            raise ValueError(f"This model {needs}.")
        check_starts((int(text[0]) for text in self.texts), model)
        check_vocabulary([*self.texts, *(self.sources or ())], model)

    def epoch_tokens(self) -> int:
        """Targets in one pass over all texts."""
        return sum(self.lengths) - sum(prompt - 1 for prompt in self.prompts or ())

    def steps_per_epoch(self, epoch: int = 0, world: int = 1) -> int:
        """Batches (over all ranks together) that epoch takes; it differs by a row or so from epoch to epoch."""
        if not (is_whole(epoch) and is_whole(world, 1)):
            raise ValueError(f"There is no epoch {shown(epoch)} for {shown(world)} processes.")
        return -(-len(self._plan(epoch)) // (self.rows * world))

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """The batch of a step, counted from 0 over all epochs, for one of `world` processes.

        The last step of an epoch has what is left: fewer rows, and for some ranks none (a batch without a target). The
        first call for a late step packs all epochs before it, to know where they end; later calls remember that.
        """
        if not (is_whole(step) and is_whole(world, 1) and is_whole(rank, 0, world)):
            raise ValueError(f"There is no batch of step {step} for rank {rank} of {world}.")
        starts = self._starts.setdefault(world, [0])
        while starts[-1] <= step:
            starts.append(starts[-1] + self.steps_per_epoch(len(starts) - 1, world))
        epoch = bisect_right(starts, step) - 1
        first = ((step - starts[epoch]) * world + rank) * self.rows
        return self._tensors(self._plan(epoch)[first : first + self.rows])

    def once(self) -> Iterable[Batch]:
        """All texts once, for measuring: longest rows first, in a fixed order."""
        order = sorted(range(len(self.texts)), key=lambda i: (-self._rooms[i], i))
        rows = pack(self._rooms, self.length, order)
        for first in range(0, len(rows), self.rows):
            yield self._tensors(rows[first : first + self.rows])

    def _make_plan(self, epoch: int) -> list[list[int]]:
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.texts)).tolist()
        rows = pack(self._rooms, self.length, order)
        return [rows[i] for i in np.random.default_rng((self.seed, epoch, 1)).permutation(len(rows))]

    def _tensors(self, rows: list[list[int]]) -> Batch:
        ids, segments = filled([[self.texts[index][:-1] for index in row] for row in rows])
        targets, _ = filled([[self._targets(index) for index in row] for row in rows], IGNORED)
        if self.sources is None:
            return Batch(ids, segments, targets)
        return Batch(ids, segments, targets, *filled([[self.sources[index] for index in row] for row in rows]))

    def _targets(self, index: int) -> np.ndarray:
        """The token after each of a text; the last one of a prompt predicts the first of the answer."""
        targets = self.texts[index][1:]
        if self.prompts is not None:
            targets = targets.astype(np.int64)
            targets[: self.prompts[index] - 1] = IGNORED
        return targets


def _check_prompts(texts: Sequence[np.ndarray], prompts: Sequence[int], length: int) -> None:
    """Raise ValueError for texts that cannot be learnt from behind such prompts, with the first of each kind."""
    if len(prompts) != len(texts):
        raise ValueError(f"There are {len(texts)} texts and the prompts of {len(prompts)}: each text needs one.")
    for number, (text, prompt) in enumerate(zip(texts, prompts, strict=True)):
        if not is_whole(prompt, 1, len(text)):
            raise ValueError(
                f"Text {number} has {len(text)} tokens, of which {shown(prompt)} are its prompt: expected 1 to "
                f"{len(text) - 1}, so that there is something to learn."
            )
        if len(text) > length + 1:
            raise ValueError(
                f"Text {number} has {len(text)} tokens with its prompt, but a row of length {length} holds "
                f"{length + 1}: divide it first (text.excerpts), or take longer rows."
            )


def _check_sources(texts: Sequence[np.ndarray], sources: Sequence[np.ndarray], length: int) -> None:
    """Raise ValueError for sources that cannot be read beside these texts, with the first of each kind."""
    if len(sources) != len(texts):
        raise ValueError(f"There are {len(texts)} texts and {len(sources)} sources: each text needs one.")
    for number, (text, source) in enumerate(zip(texts, sources, strict=True)):
        if not 2 <= len(text) <= length + 1:
            raise ValueError(
                f"Text {number} has {len(text)} tokens, but beside a source it has 2 (one to read, one to predict) to "
                f"{length + 1}: shorten it, or take longer rows."
            )
        if not 1 <= len(source) <= length:
            raise ValueError(f"Source {number} has {len(source)} tokens, but a row holds 1 to {length}: shorten it.")
