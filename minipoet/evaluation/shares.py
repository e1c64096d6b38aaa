"""What yes and no come to: shares with Wilson's intervals, and the difference of two of them.

    Share, share_difference    87 of 100 -> 0.79 to 0.92
    LabelSummary, summarize    how often a person said yes: in all, by the rating asked for, by model

Chapter: docs/proportions.md
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from minipoet.checks import expect
from minipoet.evaluation.labels import Labels
from minipoet.evaluation.samples import Interval, wilson


class Share(NamedTuple):
    """So many hits of n."""

    hits: int
    n: int

    @property
    def interval(self) -> Interval:
        """The share, with Wilson's 95 % interval."""
        return Interval(self.hits / self.n, *wilson(self.hits, self.n))

    def __str__(self) -> str:
        """87 of 100 -> 0.79 to 0.92"""
        return f"{self.hits} of {self.n} -> {self.interval.low:.2f} to {self.interval.high:.2f}"


@dataclass(frozen=True)
class LabelSummary:
    """How often yes was said: in all, by the rating asked for, by model. Only those of which any was judged."""

    all: Share
    by_rating: dict[int, Share]
    by_model: dict[str, Share]
    samples: int  # judged or not


def summarize(labels: Labels) -> LabelSummary:
    """The shares of yes among what was judged. Raises ValueError if nothing was."""
    expect(labels, Labels, "The labels", "Labels", "read_labels(path, samples) reads them")
    if not labels.given:
        raise ValueError(f"Nothing is judged yet in {labels.path}.")
    said = [(labels.samples.by_id[id], yes) for id, yes in labels.given.items()]
    ratings = sorted({sample.rating for sample, _ in said if sample.rating is not None})
    models = sorted({sample.model for sample, _ in said if sample.model})
    return LabelSummary(
        _share([yes for _, yes in said]),
        {rating: _share([yes for sample, yes in said if sample.rating == rating]) for rating in ratings},
        {model: _share([yes for sample, yes in said if sample.model == model]) for model in models},
        len(labels.samples.by_id),
    )


def share_difference(hits: int, n: int, other_hits: int, other_n: int, confidence: float = 0.95) -> Interval:
    """hits / n less other_hits / other_n, with the interval of the difference of two shares of different things.

    From Wilson's bounds, each end as far off as the two ends that make it: Newcombe 1998, "Interval Estimation for the
    Difference Between Independent Proportions", method 10. Raises ValueError as `wilson`.
    """
    (low, high), (other_low, other_high) = wilson(hits, n, confidence), wilson(other_hits, other_n, confidence)
    share, other = hits / n, other_hits / other_n
    down, up = math.hypot(share - low, other_high - other), math.hypot(high - share, other - other_low)
    return Interval(share - other, share - other - down, share - other + up)


def _share(said: Sequence[bool]) -> Share:
    return Share(sum(said), len(said))
