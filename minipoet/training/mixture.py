"""Several corpora in one run, in phases: prose teaches the language, verse the form, and the verse comes last.

Chapter: docs/training.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from minipoet.checks import is_number, is_whole, shown
from minipoet.training.batch import Batch, BatchSource, check_batches
from minipoet.training.streams import Streams


class Mixture:
    """Batches drawn from several sources. phases: (batch at which the phase ends, shares by source name), in order.

    A step of the loop takes `accumulation` batches. Within a phase the sources take turns by a fixed pattern, so that
    at any time each has had its share to about one batch: no chance, and nothing to save for a resumed run.
    Raises ValueError, with all that is wrong at once, for phases that make no sense.
    """

    def __init__(self, sources: Mapping[str, BatchSource], phases: Sequence[tuple[int, Mapping[str, float]]]):
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

    def check(self, model: nn.Module) -> None:
        """Raise ValueError for texts that are not for this model; see `Batches.check`."""
        for batches in self.sources.values():
            check_batches(batches, model)

    def taken(self) -> dict[str, int]:
        """Batches that each source gives in the whole run."""
        counts = dict.fromkeys(self.sources, 0)
        for name, _ in self._turns:
            counts[name] += 1
        return counts

    def batch(self, step: int) -> Batch:
        """The batch of a step. Raises ValueError past the last phase."""
        if not is_whole(step, 0, len(self._turns)):
            raise ValueError(f"The mixture has {len(self._turns)} batches; there is no batch {step}.")
        name, number = self._turns[step]
        return self.sources[name].batch(number)


def _what_is_wrong(sources: Mapping[str, BatchSource], phases: Sequence[tuple[int, Mapping[str, float]]]) -> list[str]:
    if not isinstance(sources, Mapping) or not all(hasattr(s, "batch") for s in sources.values()):
        return [f"sources must be Batches by name, got {shown(sources)}"]
    if any(isinstance(source, Streams) for source in sources.values()):
        return ["Streams carry a state from batch to batch, and the sources take turns: use Batches"]
    if not isinstance(phases, Sequence):
        return [f"phases must be a list of (batch at which it ends, shares by name), got {shown(phases)}"]
    wrong = [] if phases else ["there is no phase"]
    before = 0
    for phase in phases:
        if not isinstance(phase, Sequence) or len(phase) != 2 or not isinstance(phase[1], Mapping):
            return [f"a phase must be (batch at which it ends, shares by name), got {phase!r}"]
        end, shares = phase
        if not is_whole(end):
            return [f"a phase must end at a whole number of batches, got {shown(end)}"]
        if end <= before:
            wrong.append(f"a phase must end later than the one before ({before}), got {end}")
        if unknown := sorted(set(shares) - set(sources)):
            wrong.append(f"unknown sources {unknown}, known are {sorted(sources)}")
        if not all(is_number(share) and share >= 0 for share in shares.values()) or not sum(shares.values()) > 0:
            wrong.append(f"shares must not be negative, nor all zero, got {dict(shares)}")
        before = end
    return wrong
