"""Reviews that a model wrote on request: does the rating come out, do the keywords, and is the review its own?

    GeneratedReview    a text, and what was asked for
    review_report      all figures of many of them, each beside that of real reviews
    ReviewFigures      the figures; table() and ratings_table() show them

A figure alone says little, so each has its measure beside it, made of real reviews that neither the model nor the judge
has learnt from: for each generated review one of the same rating. Of rating control the measure is the judge himself,
asked about as many ones, twos, … as were requested: no model can be found right more often, if it writes like people.
Of keyword coverage it is chance: the keywords of one request looked for in the review of the next one.
Chapter: docs/proportions.md
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle
from statistics import fmean
from typing import NamedTuple

from minipoet.checks import each, expect, is_whole, shown
from minipoet.evaluation.confusion import Confusion
from minipoet.evaluation.copied import copied_words
from minipoet.evaluation.copying import LONG
from minipoet.evaluation.distinct import distinct
from minipoet.evaluation.ratings import RatingJudge
from minipoet.evaluation.repetition import repetition
from minipoet.evaluation.samples import Interval, mean_of, ratio_of, wilson
from minipoet.text.dedup import word_key
from minipoet.text.keywords import covers
from minipoet.text.reviews import Review

WINDOW = 30  # words: reviews are short


@dataclass(frozen=True, slots=True)
class GeneratedReview:
    """A review, and what was asked for: the rating from 1 to 5, keywords, the request as the model read it.

    model: who wrote it, where several are compared. Raises ValueError for a rating that is none.
    """

    text: str
    rating: int
    keywords: tuple[str, ...] = ()
    request: str = ""
    model: str = ""

    def __post_init__(self):
        for name in ("text", "request", "model"):
            expect(getattr(self, name), str, f"The {name} of a review", "a string")
        if not is_whole(self.rating, 1, 6):
            raise ValueError(f"The rating asked for must be a whole number from 1 to 5, got {shown(self.rating)}.")
        object.__setattr__(self, "keywords", tuple(each(self.keywords, str, "The keywords", "strings")))


class Manner(NamedTuple):
    """How reviews are written, whatever they say; an Interval is of a mean or share over the reviews."""

    words: Interval  # in a review
    distinct: Interval  # different pairs of words / all
    repeated: float  # of pairs in the first words of a review, the share that stood there before; NaN: all are shorter
    loops: float  # of these reviews, the share that goes in circles
    empty: float  # the share without a word
    copied: Interval  # words in the longest run shared with a training review
    recited: Interval  # the share of reviews with a shared run of `LONG` words or more


@dataclass(frozen=True)
class ReviewFigures:
    """What `review_report` found. Of `control` and `ceiling`: rating asked for, and what the judge took it for."""

    control: Confusion  # of the generated reviews
    judge: Confusion  # of the real ones, all that were held out
    coverage: Interval | None  # the share of the keywords asked for that are in the text; None: none were asked for
    by_chance: float | None  # the same in the review of another request
    complete: Interval | None  # the share of reviews with all of their keywords
    generated: Manner
    real: Manner

    @property
    def ceiling(self) -> float:
        """How often the judge would be right on real reviews, as many of each rating as were requested."""
        shares, asked = self.judge.by_rating, self.control.texts
        return sum(shares[rating].value * n for rating, n in asked.items()) / sum(asked.values())

    def table(self) -> str:
        """All figures as a table of Markdown, 95 % intervals in brackets."""
        ours, real, nothing = self.generated, self.real, "–"
        rows = [
            ("rating as asked for", _of(self.control.accuracy), f"{self.ceiling:.3f}"),
            ("at most a star off", _of(self.control.within(1)), f"{self._ceiling_within():.3f}"),
        ]
        if self.coverage is not None and self.complete is not None:
            rows += [
                ("keywords found", _of(self.coverage), f"{self.by_chance:.3f} by chance"),
                ("all keywords found", _of(self.complete), nothing),
            ]
        rows += [
            ("words in a review", _of(ours.words, 1), _of(real.words, 1)),
            ("distinct pairs of words", _of(ours.distinct), _of(real.distinct)),
            (f"pairs repeated in the first {WINDOW} words", f"{ours.repeated:.3f}", f"{real.repeated:.3f}"),
            ("reviews that go in circles", f"{ours.loops:.3f}", f"{real.loops:.3f}"),
            ("reviews without a word", f"{ours.empty:.3f}", f"{real.empty:.3f}"),
            ("longest run shared with training, words", _of(ours.copied, 2), _of(real.copied, 2)),
            (f"reviews with a shared run of {LONG} words", _of(ours.recited), _of(real.recited)),
        ]
        lines = ["| | generated | real |", "|---|---:|---:|"]
        return "\n".join(lines + [f"| {name} | {one} | {other} |" for name, one, other in rows])

    def ratings_table(self) -> str:
        """A row a rating: how often it came out, and how often the judge finds it in real reviews."""
        lines = ["| rating | asked for | came out | 95 % | the judge, real reviews |", "|---|---:|---:|---:|---:|"]
        for rating, (value, low, high) in self.control.by_rating.items():
            n, found = self.control.texts[rating], self.judge.by_rating[rating]
            lines.append(f"| {rating} | {n} | {value:.2f} | {low:.2f} to {high:.2f} | {_of(found, 2)} |")
        return "\n".join(lines)

    def _ceiling_within(self) -> float:
        near = {
            rating: sum(n for named, n in row.items() if named and abs(rating - named) <= 1) / sum(row.values())
            for rating, row in self.judge.counts.items()
        }
        asked = self.control.texts
        return sum(near[rating] * n for rating, n in asked.items()) / sum(asked.values())


def review_report(
    generated: Iterable[GeneratedReview],
    judge: RatingJudge,
    held_out: Iterable[Review],
    training: Iterable[str],
    seed: int = 0,
) -> ReviewFigures:
    """All figures of what a model wrote.

    held_out: real reviews that neither the model nor the judge has learnt from; some of each rating asked for.
    training: the reviews that the model learnt from; they are read once, so a stream will do.
    The judge must not have learnt from `training`: he would reward what is copied.
    Raises ValueError for fewer than two reviews, and for ratings that the judge or `held_out` does not have.
    """
    expect(judge, RatingJudge, "The judge", "a RatingJudge", "RatingJudge.fit(texts, ratings) makes one")
    written = list(each(generated, GeneratedReview, "The generated reviews", "GeneratedReview(text, rating)"))
    real = list(each(held_out, Review, "The held-out reviews", "Review"))
    if len(written) < 2:
        raise ValueError(f"A report wants two generated reviews or more, got {len(written)}.")
    asked = sorted({review.rating for review in written})
    there = set(judge.ratings) & {review.rating for review in real}
    if missing := [str(rating) for rating in asked if rating not in there]:
        raise ValueError(
            f"Reviews of rating {', '.join(missing)} were asked for, but the judge or the held-out reviews have none "
            "of it: give both some of each rating."
        )
    texts = [review.text for review in written]
    ours = [[covers(word, review.text) for word in review.keywords] for review in written]
    others = [[covers(word, text) for word in own.keywords] for own, text in zip(written, _next(written), strict=True)]
    with_keywords = [found for found in ours if found]
    likes = _likes(written, real, seed)
    runs = copied_words(texts + _as_long(likes, texts), training)
    return ReviewFigures(
        control=Confusion.of([review.rating for review in written], judge.rate(texts)),
        judge=judge.confusion([review.text for review in real], [review.rating for review in real]),
        coverage=_share_of_all(with_keywords),
        by_chance=_mean([word for found in others for word in found]),
        complete=_share([all(found) for found in with_keywords]) if with_keywords else None,
        generated=_manner(texts, runs[: len(texts)]),
        real=_manner(likes, runs[len(texts) :]),
    )


def _next(written: Sequence[GeneratedReview]) -> list[str]:
    """For each review that of the next request with other keywords; its own where all have the same."""
    first = {review.keywords: review.text for review in reversed(written)}
    requests = list(first)
    after = dict(zip(requests, [*requests[1:], requests[0]], strict=True))
    return [first[after[review.keywords]] for review in written]


def _likes(written: Sequence[GeneratedReview], real: Sequence[Review], seed: int) -> list[str]:
    """A real review of the same rating for each generated one; all of that rating before one comes again."""
    by_rating = defaultdict(list)
    for one in random.Random(seed).sample(real, len(real)):
        by_rating[one.rating].append(one.text)
    turns = {rating: cycle(texts) for rating, texts in by_rating.items()}
    return [next(turns[review.rating]) for review in written]


def _as_long(texts: Sequence[str], others: Sequence[str]) -> list[str]:
    """Each text cut to the number of words of its other: a longer text has longer runs."""
    return [
        " ".join(word_key(text).split()[: len(word_key(other).split())])
        for text, other in zip(texts, others, strict=True)
    ]


def _manner(texts: Sequence[str], runs: Sequence[int]) -> Manner:
    words = [len(word_key(text).split()) for text in texts]
    repeats = repetition(texts, WINDOW) if max(words) >= WINDOW else None
    return Manner(
        words=mean_of(words).interval(),
        distinct=distinct(texts).interval(),
        repeated=repeats.ngrams(2) if repeats else float("nan"),
        loops=repetition(texts, None).looping,
        empty=sum(not n for n in words) / len(words),
        copied=mean_of(runs).interval(),
        recited=_share([run >= LONG for run in runs]),
    )


def _share_of_all(found: Sequence[Sequence[bool]]) -> Interval | None:
    """Of all words, with a bootstrap over the reviews: keywords of one review are not independent."""
    if not found:
        return None
    share = ratio_of([sum(words) for words in found], [len(words) for words in found])
    return share.interval() if len(found) > 1 else Interval(share.value, 0.0, 1.0)


def _mean(values: Sequence[bool]) -> float | None:
    return fmean(values) if values else None


def _share(hits: Sequence[bool]) -> Interval:
    return Interval(sum(hits) / len(hits), *wilson(sum(hits), len(hits)))


def _of(interval: Interval, digits: int = 3) -> str:
    """0.870 [0.790, 0.922]"""
    value, low, high = interval
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
