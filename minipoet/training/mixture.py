"""Several corpora in one run, in phases: prose teaches the language, verse the form, and the verse comes last.

Chapter: docs/training.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from minipoet.training.packing import Batch, Batches


class Mixture:
    """Batches drawn from several sources. phases: (step at which the phase ends, shares by source name), in order.

    Within a phase the sources take turns by a fixed pattern, so that after any number of steps each has had its share
    to within one batch: no chance, and nothing to save for a resumed run. Raises ValueError for a share of nothing.
    """

    def __init__(self, sources: Mapping[str, Batches], phases: Sequence[tuple[int, Mapping[str, float]]]):
        unknown = {name for _, shares in phases for name in shares} - set(sources)
        if unknown or not phases or any(sum(shares.values()) <= 0 for _, shares in phases):
            raise ValueError(f"A mixture needs phases with positive shares of {sorted(sources)}; unknown: {sorted(unknown)}.")
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
