"""Several corpora in one run, in phases: prose teaches the language, verse the form, and the verse comes last.

Chapter: docs/training.md
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from minipoet.training.packing import Batch, Batches


class Mixture:
    """Batches drawn from several sources. phases: (batch at which the phase ends, shares by source name), in order.

    A step of the loop takes `accumulation` batches. Within a phase the sources take turns by a fixed pattern, so that
    at any time each has had its share to about one batch: no chance, and nothing to save for a resumed run.
    Raises ValueError, with all that is wrong at once, for phases that make no sense.
    """

    def __init__(self, sources: Mapping[str, Batches], phases: Sequence[tuple[int, Mapping[str, float]]]):
        if wrong := _what_is_wrong(sources, phases):
            raise ValueError(f"Mixture: {'; '.join(wrong)}.")
        self.sources = sources
        self._turns: list[tuple[str, int]] = []  # step -> (source, which of its batches)
        taken = dict.fromkeys(sources, 0)
        for end, shares in phases:
            owed = dict.fromkeys(shares, 0.0)
            total = sum(shares.values())
            while len(self._turns) < end:
                for name, share in shares.items():
                    owed[name] += share / total
                name = max(owed, key=lambda n: owed[n])
                owed[name] -= 1
                self._turns.append((name, taken[name]))
                taken[name] += 1

    def taken(self) -> dict[str, int]:
        """Batches that each source gives in the whole run."""
        counts = dict.fromkeys(self.sources, 0)
        for name, _ in self._turns:
            counts[name] += 1
        return counts

    def batch(self, step: int) -> Batch:
        """The batch of a step. Raises ValueError past the last phase."""
        if step >= len(self._turns):
            raise ValueError(f"The mixture has {len(self._turns)} batches; there is no batch {step}.")
        name, number = self._turns[step]
        return self.sources[name].batch(number)


def _what_is_wrong(sources: Mapping[str, Batches], phases: Sequence[tuple[int, Mapping[str, float]]]) -> list[str]:
    wrong = [] if phases else ["there is no phase"]
    before = 0
    for end, shares in phases:
        if end <= before:
            wrong.append(f"a phase must end later than the one before ({before}), got {end}")
        if unknown := sorted(set(shares) - set(sources)):
            wrong.append(f"unknown sources {unknown}, known are {sorted(sources)}")
        if not all(0 <= share < math.inf for share in shares.values()) or not sum(shares.values()) > 0:
            wrong.append(f"shares must not be negative, nor all zero, got {dict(shares)}")
        before = end
    return wrong
