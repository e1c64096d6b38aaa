"""Reviews for t5_reviews.py and study_t5_lora.py: four sides that share nothing, and what a model is asked for each.

read      the sides: to learn from, to measure on while learning, for the judge of ratings, and to test both
ask       (requests, texts) of reviews: "категория: Кафе; рейтинг: 5; слова: кофе, десерт", and the review
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minipoet.text import Keywords, Review, read_reviews, resample, review_request, split_reviews
from minipoet.text.reviews import RATINGS
from minipoet.text.variations import read_written, split_written, vary

SHARES = {"train": 0.5, "validation": 0.1, "judge": 0.25, "test": 0.15}
EMBEDDED = "embedded-reviews"
KEYWORDS = 4  # asked for, at most


@dataclass(frozen=True)
class Sides:
    """Reviews by what they are for."""

    train: list[Review]
    validation: list[Review]
    judge: list[Review]
    test: list[Review]
    report: str  # what became of the file's lines


def read(name: str, number: int | None, seed: int) -> Sides:
    """The sides of the embedded reviews, of a file or of "geo-reviews"; number: of all together, None: all there are.

    The embedded ones are divided as they were written, and each side varied by itself: so no sentence is on two sides.
    What is learnt from has as many fives as the public file; who judges, and is tested, sees all ratings alike.
    """
    if name == EMBEDDED:
        number = number or 10_000
        written = split_written(read_written(), SHARES, seed)
        alike = {"judge": dict.fromkeys(RATINGS, 1), "test": dict.fromkeys(RATINGS, 1)}
        sides = {
            side: vary(those, round(number * SHARES[side]), seed, alike.get(side)) for side, those in written.items()
        }
        told = ", ".join(f"{len(those)} for {side}" for side, those in written.items())
        return Sides(**sides, report=f"{EMBEDDED}: {told} were written, and varied to {number:,}.")
    reviews, report = read_reviews(name, number)
    return Sides(**split_reviews(reviews, SHARES, seed), report=str(report))


def balanced(reviews: Sequence[Review], power: float, seed: int) -> list[Review]:
    """As many, of each rating in proportion to n^power: 1 as they are, 0 all alike (`text.resample`)."""
    return [reviews[row] for row in resample([review.rating for review in reviews], power, seed)]


def ask(reviews: Sequence[Review], keywords: Keywords) -> tuple[list[str], list[str]]:
    """What is asked for each review (its own kind of place, rating and keywords), and the reviews."""
    requests = [review_request(r.rubrics, r.rating, keywords.extract(r.text, KEYWORDS)) for r in reviews]
    return requests, [review.text for review in reviews]


def evenly(reviews: Sequence[Review], of_each: int) -> list[Review]:
    """So many of each rating, the first ones; fewer where there are no more."""
    ratings = sorted({review.rating for review in reviews})
    return [review for rating in ratings for review in [r for r in reviews if r.rating == rating][:of_each]]
