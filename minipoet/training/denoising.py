"""Span corruption: what T5 learns from plain text, with nobody to ask it anything.

    text      Мороз и солнце; день чудесный!
    source    Мороз <0> день <1>
    target    <0> и солнце; <1> чудесный!

A share of the tokens is taken out in short runs, a sentinel stands in each one's place, and the decoder writes the
runs, each behind its sentinel. So the decoder has to write little, and the encoder learns to read with both eyes. A
batch is a pure function of (texts, settings, seed, step); each epoch takes out other tokens.

    noise_runs   which tokens of a text are taken out
    corrupt      text -> source and target
    Denoising    the batches

Paper: Raffel et al. 2020, https://arxiv.org/abs/1910.10683, sections 3.1.4 and 3.3. Chapter: docs/denoising.md
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from torch import nn

from minipoet.checks import as_ids, is_number, is_whole, shown
from minipoet.training.batch import IGNORED, Batch, as_text, check_starts, check_vocabulary, filled

SHORTEST = 8  # tokens: of less nothing can be taken out that the rest would tell


def noise_runs(length: int, density: float, run: float, generator: np.random.Generator) -> list[tuple[int, int]]:
    """[start, end) of the runs that are taken out of so many tokens: `density` of them, in runs of `run` on average.

    How many runs and tokens there are is fixed by the length; where is drawn, all divisions alike. The text begins with
    what stays, ends with a run, and between two runs something stays.
    """
    noise = min(max(1, round(length * density)), length - 1)
    number = min(max(1, round(noise / run)), length - noise)
    stays, goes = _divided(length - noise, number, generator), _divided(noise, number, generator)
    ends = np.cumsum(stays + goes)
    return list(zip((ends - goes).tolist(), ends.tolist(), strict=True))


def _divided(total: int, parts: int, generator: np.random.Generator) -> np.ndarray:
    """A whole number as a sum of so many, each at least 1."""
    cuts = np.sort(generator.choice(total - 1, parts - 1, replace=False)) + 1
    return np.diff(cuts, prepend=0, append=total)


def corrupt(text: np.ndarray, runs: Sequence[tuple[int, int]], sentinels: Sequence[int]) -> tuple[list[int], list[int]]:
    """(source, target): the text with a sentinel for each run, and the runs, each behind its sentinel."""
    source, target, at = [], [], 0
    for (start, end), sentinel in zip(runs, sentinels, strict=False):
        source += [*text[at:start].tolist(), sentinel]
        target += [sentinel, *text[start:end].tolist()]
        at = end
    return [*source, *text[at:].tolist()], target


class Denoising:
    """Batches of `rows` pieces of at most `length` tokens, corrupted, without end.

    texts: token ids without start or end; longer ones are cut. sentinels: the ids that stand for the runs, in order.
    start, end: what the decoder begins with, and what both sides end with.
    Raises ValueError if there is nothing to learn from, for sizes that make no sense, and for too few sentinels.
    """

    def __init__(
        self,
        texts: Iterable[Sequence[int]],
        length: int,
        rows: int,
        sentinels: Sequence[int],
        start: int,
        end: int,
        seed: int = 0,
        density: float = 0.15,
        run: float = 3.0,
    ):
        if not (is_whole(length, SHORTEST) and is_whole(rows, 1) and is_whole(seed)):
            came = f"{shown(length)}, {shown(rows)} and {shown(seed)}"
            raise ValueError(f"Denoising needs length ≥ {SHORTEST}, rows ≥ 1 and seed ≥ 0, got {came}.")
        if not (is_number(density) and 0 < density < 1 and is_number(run) and run >= 1):
            raise ValueError(f"Expected a density between 0 and 1 and runs of 1 or more, got {density!r} and {run!r}.")
        if isinstance(texts, str) or not isinstance(texts, Iterable):
            raise ValueError(f"Denoising needs texts as lists of token ids (encode_batch), got {shown(texts)}.")
        self.sentinels = as_ids(sentinels, "The sentinels")
        if twice := [id for id in self.sentinels if self.sentinels.count(id) > 1]:
            raise ValueError(f"The sentinels have the id {twice[0]} twice: each stands for another run.")
        needed = len(noise_runs(length, density, run, np.random.default_rng(0)))
        if len(self.sentinels) < needed:
            raise ValueError(
                f"{length} tokens are corrupted in {needed} places, and there are {len(self.sentinels)} sentinels: "
                "take shorter pieces, or longer runs."
            )
        whole = [as_text(ids, in_place=True) for ids in texts]
        pieces = [text[at : at + length] for text in whole for at in range(0, len(text), length)]
        self.pieces = [piece for piece in pieces if len(piece) >= SHORTEST]
        if not self.pieces:
            raise ValueError(f"There is no text of {SHORTEST} tokens or more to take any out of.")
        for piece in self.pieces:
            if (strangers := piece[np.isin(piece, self.sentinels)]).size:
                raise ValueError(
                    f"A text holds the id {strangers[0]}, which is a sentinel: nobody could tell it from a run's place."
                )
        self.length, self.rows, self.seed = length, rows, seed
        self.start, self.end = as_ids([start, end], "The start and the end")
        self.density, self.run = density, run

    def check(self, model: nn.Module) -> None:
        """Raise ValueError for a model that reads no source, and for one that has not all ids."""
        if not getattr(model, "reads_source", False):
            raise ValueError("Span corruption is for models that read a source and write about it, as T5 does.")
        check_starts([self.start], model)
        check_vocabulary([*self.pieces, np.array([*self.sentinels, self.start, self.end])], model)

    def steps_per_epoch(self) -> int:
        """Batches in one pass over all texts."""
        return -(-len(self.pieces) // self.rows)

    def batch(self, step: int) -> Batch:
        """The batch of a step, counted from 0 over all epochs."""
        if not is_whole(step):
            raise ValueError(f"There is no batch of step {shown(step)}.")
        epoch, number = divmod(step, self.steps_per_epoch())
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.pieces))
        return self._tensors(order[number * self.rows : (number + 1) * self.rows], (self.seed, 1, step))

    def once(self) -> Iterator[Batch]:
        """All texts once, for measuring: always the same tokens are missing."""
        for first in range(0, len(self.pieces), self.rows):
            yield self._tensors(np.arange(first, min(first + self.rows, len(self.pieces))), (0, 2, first))

    def _tensors(self, which: np.ndarray, seed: tuple[int, ...]) -> Batch:
        generator = np.random.default_rng(seed)
        sources, inputs, targets = [], [], []
        for index in which:
            piece = self.pieces[index]
            runs = noise_runs(len(piece), self.density, self.run, generator)
            source, target = corrupt(piece, runs, self.sentinels)
            sources.append([np.array([*source, self.end])])
            inputs.append([np.array([self.start, *target])])
            targets.append([np.array([*target, self.end])])
        (ids, segments), (wanted, _) = filled(inputs), filled(targets, IGNORED)
        return Batch(ids, segments, wanted, *filled(sources))
