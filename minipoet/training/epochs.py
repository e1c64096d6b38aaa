"""Epochs: a run counts steps, a person counts how often all texts were read.

    ends = epoch_ends(batches, 10)
    settings = TrainSettings(steps=ends[-1], evaluate_every=ends)      ten epochs, measured at the end of each
    best_epoch(history, ends)                                          the one that measured best

The number of steps differs by one or so from epoch to epoch, as the texts fall into rows in another order each time.

Chapter: docs/training.md
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Protocol

from minipoet.checks import as_ids, expect, expect_whole, shown
from minipoet.training.history import History


class EpochSource(Protocol):
    """Batches that know how many make an epoch, as `Batches` does."""

    def steps_per_epoch(self, epoch: int) -> int:
        """How many batches this epoch takes, counted from 0."""
        ...


def epoch_ends(batches: EpochSource, epochs: int, accumulation: int = 1) -> tuple[int, ...]:
    """The step with which each epoch ends, (epochs,): the last of them is how many steps so many epochs take.

    A step that takes its batches from two epochs ends the first of them. Raises ValueError for batches without epochs,
    and where a step takes more batches than an epoch has.
    """
    if not hasattr(batches, "steps_per_epoch"):
        raise ValueError(f"batches must have epochs, as Batches(texts, length, rows) does, got {shown(batches)}.")
    expect_whole(epochs=epochs, accumulation=accumulation)
    counts = [batches.steps_per_epoch(epoch) for epoch in range(epochs)]
    if min(counts) < accumulation:
        raise ValueError(
            f"An epoch has {min(counts)} batches, but a step takes {accumulation}: take fewer rows, or accumulate less."
        )
    return tuple(-(-batches_read // accumulation) for batches_read in accumulate(counts))


def best_epoch(history: History, ends: Sequence[int]) -> int:
    """The epoch, counted from 1, at whose end the validation was least (the first of equals); 0 is before training.

    ends: the last step of each epoch (`epoch_ends`). Raises ValueError for a history that was not measured there.
    """
    expect(history, History, "history", "a History", "of a file read_history gives it")
    values = dict(zip(*history.curve("validation"), strict=True))
    ends = [0, *as_ids(ends, "The ends of epochs")]
    measured = [(values[step], number) for number, step in enumerate(ends) if step in values]
    if not measured:
        raise ValueError("The history was not measured at the end of an epoch: evaluate_every=epoch_ends(…) does it.")
    return min(measured)[1]


def as_epochs(steps: Sequence[int], ends: Sequence[int]) -> list[float]:
    """Rising steps as epochs: 3.5 is the middle of the fourth one. Steps after the last end go on at its pace.

    Raises ValueError for ends that do not rise.
    """
    ends = as_ids(ends, "The ends of epochs")
    starts = [0, *ends]
    if not ends or any(first >= last for first, last in pairwise(starts)):
        raise ValueError(f"The ends of epochs must be rising steps, as epoch_ends gives them, got {ends}.")
    number, epochs = 0, []
    for step in steps:
        while number < len(ends) - 1 and step > ends[number]:
            number += 1
        epochs.append(number + (step - starts[number]) / (ends[number] - starts[number]))
    return epochs
