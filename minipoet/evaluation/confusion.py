"""Which rating was taken for which: the figures of a judge of ratings, and of a generator that was asked for them.

    Confusion    how many of each rating were taken for which; accuracy, recall and the other figures of it

Of real reviews 78 in a hundred have five stars, so that who always says "five" is right in 78, and knows nothing. No
figure of this file stands alone for that reason: beside the accuracy there is what "always the most frequent" would
have had (`majority`), and the *balanced* accuracy, the mean over the ratings. Chapter: docs/proportions.md
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from minipoet.evaluation.samples import Interval, wilson
from minipoet.text.reviews import RATINGS

NONE = 0  # what a text without a word is taken for, as in the file of geo-reviews


@dataclass(frozen=True)
class Confusion:
    """counts: {rating: {taken for: how many texts}}; 0 is a text without a word."""

    counts: dict[int, dict[int, int]]

    @classmethod
    def of(cls, ratings: Iterable[int], taken: Iterable[int]) -> Confusion:
        """Of the ratings of texts, and of what each was taken for. Raises ValueError for none."""
        pairs = list(zip(ratings, taken, strict=True))
        if not pairs:
            raise ValueError("There is no review to judge.")
        counts = Counter(pairs)
        columns = [named for named in (NONE, *RATINGS) if named or any(named == taken for _, taken in counts)]
        return cls({true: {named: counts[true, named] for named in columns} for true in sorted({t for t, _ in counts})})

    @property
    def texts(self) -> dict[int, int]:
        """How many texts there are of each rating."""
        return {rating: sum(row.values()) for rating, row in self.counts.items()}

    @property
    def by_rating(self) -> dict[int, Interval]:
        """The share of each rating's texts that were taken for it (its recall), with Wilson's interval."""
        return {rating: _share(self.counts[rating].get(rating, 0), n) for rating, n in self.texts.items()}

    @property
    def accuracy(self) -> Interval:
        """The share of all texts that were taken for what they are, with Wilson's interval. See `majority`."""
        return self.within(0)

    @property
    def majority(self) -> float:
        """The accuracy of who always names the most frequent rating."""
        return max(self.texts.values()) / sum(self.texts.values())

    @property
    def balanced(self) -> float:
        """The mean of `by_rating`: whoever guesses, or always says the same, has 1 / ratings."""
        return sum(share.value for share in self.by_rating.values()) / len(self.counts)

    @property
    def error(self) -> float:
        """By how many stars the judge is off, the mean over the texts that have a word; NaN if none has."""
        off = [(abs(true - named), n) for true, named, n in self._cells() if named != NONE]
        total = sum(n for _, n in off)
        return sum(stars * n for stars, n in off) / total if total else float("nan")

    def within(self, stars: int) -> Interval:
        """The share of texts that were taken for a rating at most so many stars off; those without a word were not."""
        hits = sum(n for true, named, n in self._cells() if named != NONE and abs(true - named) <= stars)
        return _share(hits, sum(self.texts.values()))

    def summary(self) -> str:
        """The figures in a line."""
        value, low, high = self.accuracy
        return (
            f"right {value:.3f} ({low:.3f} to {high:.3f}), always the most frequent {self.majority:.3f}; "
            f"balanced {self.balanced:.3f}, at most a star off {self.within(1).value:.3f}, mean error {self.error:.2f}"
        )

    def table(self) -> str:
        """The counts and shares as a table of Markdown, a row a rating."""
        columns = list(next(iter(self.counts.values())))
        names = ["no word" if named == NONE else str(named) for named in columns]
        lines = [f"| rating | {' | '.join(names)} | right | 95 % |", f"|---|{'---:|' * (len(names) + 2)}"]
        for rating, (value, low, high) in self.by_rating.items():
            cells = " | ".join(str(self.counts[rating][named]) for named in columns)
            lines.append(f"| {rating} | {cells} | {value:.2f} | {low:.2f} to {high:.2f} |")
        return "\n".join(lines)

    def _cells(self) -> list[tuple[int, int, int]]:
        return [(true, named, n) for true, row in self.counts.items() for named, n in row.items()]


def _share(hits: int, n: int) -> Interval:
    return Interval(hits / n, *wilson(hits, n))
