"""Many reviews out of a few hundred written ones: a grammar of alternatives and exchanges.

A few hundred written reviews (`minipoet.text.written`) are too few to teach a model anything. So each sentence has
places where one of several words may stand, and may give way to the sentence about the same aspect from another review
of the same kind and rating. The texts of one kind, rating and sequence of aspects are then

    texts = product over the aspects of (sum over their sentences of (product over its braces of the alternatives))

    vary            so many different reviews, their ratings as unequal as those of the public file
    how_many        how many there could be
    split_written   sides that have no sentence in common, whatever is then made of them

Chapter: docs/reviews.md.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import prod

from minipoet.checks import each, expect, expect_whole, is_whole
from minipoet.text.review_sets import apportion, deal
from minipoet.text.reviews import RATINGS, Review
from minipoet.text.written import Sentence, WrittenReview, joined, read_written

__all__ = ["EXCHANGE", "PUBLIC", "WrittenReview", "how_many", "read_written", "split_written", "vary"]

PUBLIC = {1: 34_351, 2: 12_088, 3: 21_686, 4: 41_160, 5: 390_515}  # reviews of each rating in geo-reviews-dataset-2023
EXCHANGE = 0.5  # the probability that a sentence gives way to one of another review
_TRIES = 1000  # texts drawn in vain before the rest is believed not to be there


def vary(
    written: Sequence[WrittenReview], number: int, seed: int = 0, ratings: Mapping[int, int] | None = None
) -> list[Review]:
    """So many reviews, no two with equal texts, in an order drawn by the seed.

    Of each rating there are as many as its share of `ratings` (`PUBLIC`: 78 % of them fives) makes of the number, to
    the nearest whole (`apportion`). A text is a written review of its rating in which each sentence, with the
    probability `EXCHANGE`, gives way to the one of the same aspect from another review of that kind and rating; then
    alternatives are chosen. It keeps the rubric and the name of the review that it began as.

    Raises:
        ValueError: no written review of a rating, or fewer possible texts than are asked for.
    """
    written = _checked(written)
    expect_whole(number=number)
    expect_whole(0, seed=seed)
    ratings = PUBLIC if ratings is None else ratings
    expect(ratings, Mapping, "The ratings", "a dictionary like {1: 20, 5: 80}, or None")
    if not ratings.keys() <= set(RATINGS) or not all(map(is_whole, ratings.values())) or not any(ratings.values()):
        raise ValueError(f"The ratings must say how many there are of each from 1 to 5, got {dict(ratings)}.")
    wanted = apportion(number, ratings)
    of_rating: defaultdict[int, list[WrittenReview]] = defaultdict(list)
    for one in written:
        of_rating[one.rating].append(one)
    possible = {rating: how_many(of_rating[rating]) for rating in wanted}
    lacking = [
        f"{count:,} of rating {rating}, of which {len(of_rating[rating])} written reviews make {possible[rating]:,}"
        for rating, count in wanted.items()
        if count > possible[rating]
    ]
    if lacking:
        raise ValueError(
            f"Cannot make {number:,} different reviews ({'; '.join(lacking)}): ask for fewer, or write more."
        )
    source, pool, texts = random.Random(seed), _pool(written), set[str]()
    reviews = []
    for rating, count in wanted.items():
        tries = 0
        while count:
            review = _varied(of_rating[rating][source.randrange(len(of_rating[rating]))], pool, source)
            if review.text in texts:
                tries += 1
                if tries > _TRIES:
                    raise ValueError(
                        f"Of rating {rating} only {wanted[rating] - count:,} different reviews were found where "
                        f"{wanted[rating]:,} of {possible[rating]:,} were asked for: ask for fewer, or write more."
                    )
                continue
            texts.add(review.text)
            reviews.append(review)
            count, tries = count - 1, 0
    source.shuffle(reviews)
    return reviews


def _checked(written: Iterable[WrittenReview]) -> list[WrittenReview]:
    return list(each(written, WrittenReview, "The written reviews", "WrittenReview, as read_written gives them"))


_Pool = dict[tuple[str, int, str], list[Sentence]]


def _pool(written: Iterable[WrittenReview]) -> _Pool:
    """The different sentences of each rubric, rating and aspect, in the order in which they come."""
    pool: defaultdict[tuple[str, int, str], dict[Sentence, None]] = defaultdict(dict)
    for one in written:
        for sentence in one.sentences:
            pool[one.rubric, one.rating, sentence.aspect][sentence] = None
    return {place: list(sentences) for place, sentences in pool.items()}


def _varied(one: WrittenReview, pool: _Pool, source: random.Random) -> Review:
    """A review that the written one may become."""
    said = []
    for sentence in one.sentences:
        others = pool[one.rubric, one.rating, sentence.aspect]
        if len(others) > 1 and source.random() < EXCHANGE:
            place = source.randrange(len(others) - 1)
            sentence = others[place + (place >= others.index(sentence))]  # any but itself
        said.append(sentence.text(source))
    return Review(joined(said), one.rating, (one.rubric,), one.name)


def how_many(written: Sequence[WrittenReview]) -> int:
    """How many different texts `vary` could make of them.

    Reviews of one kind and rating with the same sequence of aspects can become the same texts, and count once. (Two
    sentences that agree in one of their forms would be counted twice there; it is a number of choices.)
    """
    written = _checked(written)
    pool = _pool(written)
    sequences = {(one.rubric, one.rating, tuple(sentence.aspect for sentence in one.sentences)) for one in written}
    return sum(
        prod(sum(sentence.forms() for sentence in pool[rubric, rating, aspect]) for aspect in aspects)
        for rubric, rating, aspects in sequences
    )


def split_written(
    written: Sequence[WrittenReview], shares: Mapping[str, float], seed: int = 0
) -> dict[str, list[WrittenReview]]:
    """The written reviews divided by these shares, each rating and each kind as evenly as can be.

    Divide these and vary each side, not the other way round: a sentence that is exchanged must find its partner on its
    own side. Reviews that share a sentence, be it word for word, stay together.

    Raises:
        ValueError: shares that are no positive numbers adding up to 1, or a side that would be empty.
    """
    written = _checked(written)
    marks = [[sentence.stretches for sentence in one.sentences] for one in written]
    strata = [(one.rating, one.rubric) for one in written]
    names = [f"{one.rubric}\n{one.rating}\n{one.text()}" for one in written]
    sides = deal(names, strata, marks, shares, seed)
    return {side: [written[place] for place in places] for side, places in sides.items()}
