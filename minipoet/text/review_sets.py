"""Sets of reviews: divided without leaks, each rating alike; and what to do about ratings that are rare.

Nearly four of five public reviews have five stars. Two things follow. A random tenth of them may hold hardly any twos,
so that each rating is divided by itself (a stratified split). And a model that sees fives in four of five batches
learns to praise: either a row of a rare rating is shown more often (`resample`), or it counts more (`class_weights`).

    split_reviews   sides by shares; texts that are nearly the same are never on two sides
    resample        which rows to train on, so that a rating that has n of them has a share like n^power
    class_weights   the same as factors of the loss
    apportion       a whole number divided by shares: largest remainders first (Hamilton's method)

Chapter: docs/reviews.md.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from minipoet.checks import each, expect, expect_whole, is_number, shown
from minipoet.text.dedup import word_key
from minipoet.text.reviews import RATINGS, Review

LONG = 8  # words of a sentence that two people hardly write alike by chance
_SENTENCE_END = re.compile(r"[.!?…\n]+")

K = TypeVar("K", bound=Hashable)


def split_reviews(reviews: Sequence[Review], shares: Mapping[str, float], seed: int = 0) -> dict[str, list[Review]]:
    """The reviews of each side, in the order of the input: {"train": 0.9, "validation": 0.1}, or more sides.

    Each rating is divided by itself. Reviews stay together that have the same words, the same first or last `LONG`
    words, or a sentence of as many words in common (case, ё and punctuation do not count), also through others. Who
    goes where depends on the words and the seed, not on the order.

    Raises:
        ValueError: shares that are no positive numbers adding up to 1, or a side that would be empty.
    """
    reviews = list(each(reviews, Review, "The reviews", "Review(text, rating, rubrics)"))
    keys = [word_key(review.text) or review.text for review in reviews]
    marks = (_marks(review.text, key) for review, key in zip(reviews, keys, strict=True))
    sides = deal(keys, [(review.rating,) for review in reviews], marks, shares, seed)
    return {side: [reviews[place] for place in places] for side, places in sides.items()}


def _marks(text: str, key: str) -> set[int]:
    """What a review must not have in common with one on another side, as numbers: only equality matters."""
    words = key.split()
    sentences = (word_key(sentence) for sentence in _SENTENCE_END.split(text))
    long = {hash(sentence) for sentence in sentences if sentence.count(" ") >= LONG - 1}
    return long | {hash(" ".join(words[:LONG])), hash(" ".join(words[-LONG:]))}


def deal(
    names: Sequence[str],
    strata: Sequence[tuple],
    marks: Iterable[Iterable[Hashable]],
    shares: Mapping[str, float],
    seed: int,
) -> dict[str, list[int]]:
    """The numbers of the rows on each side; rows that have a mark in common, also through others, are on one.

    Within the first of a row's strata (its rating) the groups are dealt out like cards: the largest first, those of
    one size by the other strata and then by the hash of seed and name; each goes to the side that is furthest behind
    its share of what was dealt so far. So no side is ever off by more than the last group, and singles level the rest.
    """
    _check_shares(shares)
    expect_whole(0, seed=seed)
    places = [hashlib.sha256(f"{seed} {name}".encode()).digest() for name in names]
    groups = _groups(marks)
    kinds = {kind: hashlib.sha256(f"{seed} {kind}".encode()).digest() for kind in set(strata)}

    def order(group: list[int]) -> tuple:
        first = min(group, key=places.__getitem__)
        return -len(group), kinds[strata[first]], places[first]

    dealt: defaultdict[Hashable, Counter[str]] = defaultdict(Counter)
    sides: dict[str, list[int]] = {side: [] for side in shares}
    for group in sorted(groups, key=order):
        ratings = Counter(strata[row][0] for row in group)
        rating = max(ratings, key=lambda rating: (ratings[rating], -rating))
        soon = dealt[rating].total() + len(group)
        side = max(shares, key=lambda side: shares[side] * soon - dealt[rating][side])  # the first among equals
        sides[side] += group
        for other, count in ratings.items():
            dealt[other][side] += count
    empty = [side for side, rows in sides.items() if not rows]
    if empty:
        raise ValueError(
            f"Cannot divide {len(names):,} reviews, which make {len(groups):,} groups that belong together, by the "
            f"shares {dict(shares)}: nothing is left for {', '.join(empty)}; bring more, or ask for larger shares."
        )
    return {side: sorted(rows) for side, rows in sides.items()}


def _check_shares(shares: Mapping[str, float]) -> None:
    expect(shares, Mapping, "The shares", 'a dictionary like {"train": 0.9, "validation": 0.1}')
    good = all(isinstance(side, str) and is_number(share) and share > 0 for side, share in shares.items())
    if not shares or not good or abs(sum(shares.values()) - 1) > 1e-9:
        raise ValueError(f"The shares must be positive numbers that add up to 1, by name; got {dict(shares)}.")


def _groups(marks: Iterable[Iterable[Hashable]]) -> list[list[int]]:
    """The rows that hang together by their marks (union–find; a row without a mark stands alone)."""
    parent: list[int] = []
    first: dict[Hashable, int] = {}

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = row = parent[parent[row]]
        return row

    for row, its_marks in enumerate(marks):
        parent.append(row)
        for mark in its_marks:
            parent[root(row)] = root(first.setdefault(mark, row))
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for row in range(len(parent)):
        groups[root(row)].append(row)
    return list(groups.values())


def apportion(number: int, shares: Mapping[K, float]) -> dict[K, int]:
    """`number` things divided in proportion to the shares, exactly: first the whole parts of number · share / sum,
    then one more each for the largest remainders (the first among equals)."""
    total = sum(shares.values())
    exact = {key: number * share / total for key, share in shares.items()}
    parts = {key: int(part) for key, part in exact.items()}
    left = number - sum(parts.values())
    for key in sorted(exact, key=lambda key: parts[key] - exact[key])[:left]:
        parts[key] += 1
    return parts


def resample(ratings: Sequence[int], power: float, seed: int = 0) -> list[int]:
    """The numbers of rows to train on, as many as there are, in ascending order; some repeated, some left out.

    Of a rating with n rows there are in proportion to n^power: with 1 every row once, with 0 of each rating equally
    many, with 0.5 between. Where more are wanted than there are, each is taken equally often, the rest by lot.

    Raises:
        ValueError: no ratings, ratings that are none of 1 to 5, or a power outside of 0 to 1.
    """
    rows = _rows(ratings, power)
    expect_whole(0, seed=seed)
    source, chosen = random.Random(seed), list[int]()
    for rating, count in apportion(len(ratings), {rating: len(of) ** power for rating, of in rows.items()}).items():
        rounds, rest = divmod(count, len(rows[rating]))
        chosen += rows[rating] * rounds + source.sample(rows[rating], rest)
    return sorted(chosen)


def class_weights(ratings: Sequence[int], power: float = 0.0) -> dict[int, float]:
    """A factor for each rating that makes its rows count like n^power together; the mean over all rows is 1.

    Raises:
        ValueError: as `resample`.
    """
    rows = _rows(ratings, power)
    weights = {rating: len(of) ** (power - 1) for rating, of in rows.items()}
    mean = sum(len(rows[rating]) * weight for rating, weight in weights.items()) / len(ratings)
    return {rating: weight / mean for rating, weight in weights.items()}


def _rows(ratings: Sequence[int], power: float) -> dict[int, list[int]]:
    """The rows of each rating, lowest first."""
    rows: defaultdict[int, list[int]] = defaultdict(list)
    for row, rating in enumerate(each(ratings, int, "The ratings", "whole numbers from 1 to 5")):
        rows[rating].append(row)
    if not rows or not rows.keys() <= set(RATINGS):
        raise ValueError(f"The ratings must be numbers from 1 to 5, got {sorted(rows) or 'none'}.")
    if not is_number(power) or not 0 <= power <= 1:
        raise ValueError(f"power must be from 0 (all ratings alike) to 1 (as they are), got {shown(power)}.")
    return dict(sorted(rows.items()))
