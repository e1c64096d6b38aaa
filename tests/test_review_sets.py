"""Sets of reviews: splits by hand and without leaks, resampling and weights by hand."""

import random
from collections import Counter
from itertools import combinations

import pytest

from minipoet.text.review_sets import apportion, class_weights, resample, split_reviews
from minipoet.text.reviews import Review, count_ratings

WORDS = ["стол", "стул", "чай", "сыр", "лес", "дом", "сад", "мост", "река", "снег", "пирог", "окно", "море"]


def invented(ratings: dict[int, int], seed: int = 0) -> list[Review]:
    """Reviews of twelve words by chance."""
    source = random.Random(seed)
    return [
        Review(" ".join(source.choices(WORDS, k=12)), rating, ("Кафе",))
        for rating, count in ratings.items()
        for _ in range(count)
    ]


def counts(sides: dict[str, list[Review]]) -> dict[str, dict[int, int]]:
    return {side: {r: n for r, n in count_ratings(reviews).items() if n} for side, reviews in sides.items()}


def test_remainders_go_to_the_largest():
    assert apportion(10, {"a": 0.8, "b": 0.1, "c": 0.1}) == {"a": 8, "b": 1, "c": 1}
    assert apportion(7, {"a": 0.8, "b": 0.1, "c": 0.1}) == {"a": 5, "b": 1, "c": 1}  # 5.6, 0.7, 0.7
    assert apportion(5, {1: 1, 2: 1, 3: 1}) == {1: 2, 2: 2, 3: 1}  # 1.67 each: the first among equals
    assert apportion(0, {1: 1}) == {1: 0}


def test_each_rating_is_divided_by_its_shares():
    sides = split_reviews(invented({5: 10, 4: 7, 1: 20}), {"train": 0.8, "validation": 0.1, "test": 0.1})
    assert counts(sides) == {
        "train": {5: 8, 4: 5, 1: 16}, "validation": {5: 1, 4: 1, 1: 2}, "test": {5: 1, 4: 1, 1: 2},
    }  # fmt: skip


def test_no_rating_is_off_by_a_whole_review():
    source = random.Random(1)
    for round_ in range(40):
        weights = [source.random() + 0.05 for _ in range(source.randint(2, 4))]
        shares = {f"side {n}": weight / sum(weights) for n, weight in enumerate(weights)}
        ratings = {rating: source.randint(20, 60) for rating in (1, 3, 5)}
        divided = counts(split_reviews(invented(ratings, round_), shares))
        for side, share in shares.items():
            assert all(abs(divided[side].get(r, 0) - share * n) < 1 for r, n in ratings.items())


def test_every_review_is_on_one_side_in_its_order():
    reviews = invented({5: 50, 1: 50})
    sides = split_reviews(reviews, {"train": 0.7, "validation": 0.3})
    assert sorted(map(reviews.index, sides["train"] + sides["validation"])) == list(range(100))
    assert sides["train"] == sorted(sides["train"], key=reviews.index)


def test_split_depends_on_words_and_seed_and_not_on_the_order():
    reviews, shares = invented({5: 60, 2: 40}), {"train": 0.8, "validation": 0.2}
    sides = split_reviews(reviews, shares)
    again = split_reviews(reviews[::-1], shares)
    assert {side: set(of) for side, of in sides.items()} == {side: set(of) for side, of in again.items()}
    assert split_reviews(reviews, shares, seed=1) != sides


SENTENCE = "Заказали пирог с капустой, чай и сыр вчера"  # eight words
NEAR = [
    f"{SENTENCE}. Понравилось.",
    f"Были вечером! {SENTENCE.upper().replace(',', '')}! Вот так.",  # the same sentence in another print
    f"{SENTENCE.replace(',', ':')}, на троих",  # its eight words at the beginning
    "Утром пирожок с капустой, чай и сыр вчера, на троих",  # the last eight of that one
]
NEAR_REVIEWS = [Review(text, rating, ("Кафе",)) for text, rating in zip(NEAR, (5, 4, 5, 5), strict=True)]


def test_reviews_that_share_eight_words_in_a_row_where_one_begins_or_ends_stay_together():
    for seed in range(20):
        sides = split_reviews([*NEAR_REVIEWS, *invented({5: 40})], {"train": 0.5, "validation": 0.5}, seed)
        together = [side for side, reviews in sides.items() for review in reviews if review in NEAR_REVIEWS]
        assert len(together) == 4 and len(set(together)) == 1


def test_reviews_that_share_seven_words_may_be_parted():
    seven = [Review(f"{' '.join(WORDS[:7])}, {word}.", 5, ("Кафе",)) for word in ("соль", "мёд")]
    sides = [split_reviews([*seven, *invented({5: 8})], {"a": 0.5, "b": 0.5}, seed) for seed in range(20)]
    assert any(len(set(side["a"]) & set(seven)) == 1 for side in sides)


def test_side_that_would_be_empty_is_told():
    with pytest.raises(ValueError, match=r"2 reviews, which make 2 groups .* nothing is left for validation"):
        split_reviews(invented({5: 2}), {"train": 0.9, "validation": 0.1})
    with pytest.raises(ValueError, match="nothing is left for train"):
        split_reviews([], {"train": 1.0})


@pytest.mark.parametrize("shares", [{}, {"a": 0.5}, {"a": 1.5, "b": -0.5}, {"a": float("nan"), "b": 1}, {1: 1.0}])
def test_shares_must_add_up_to_one(shares):
    with pytest.raises(ValueError, match="positive numbers that add up to 1"):
        split_reviews(invented({5: 10}), shares)


# 1 + 4 + 16 = 21 rows. Power ½: in proportion to 1, 2, 4, that is 3, 6 and 12. Power 0: 7 each.
RATINGS = [1, *[3] * 4, *[5] * 16]


@pytest.mark.parametrize(
    ("power", "expected"), [(1, {1: 1, 3: 4, 5: 16}), (0.5, {1: 3, 3: 6, 5: 12}), (0, {1: 7, 3: 7, 5: 7})]
)
def test_resampled_ratings_are_like_a_power_of_their_counts(power, expected):
    rows = resample(RATINGS, power)
    assert Counter(RATINGS[row] for row in rows) == expected
    assert rows == sorted(rows)


def test_rows_are_repeated_evenly_and_left_out_by_lot():
    assert resample(RATINGS, 1) == list(range(21))
    often = Counter(resample(RATINGS, 0))
    assert [often[row] for row in range(1, 5)] != [7, 0, 0, 0] and {often[row] for row in range(1, 5)} == {1, 2}
    assert max(often[row] for row in range(5, 21)) == 1
    assert resample(RATINGS, 0, seed=0) == resample(RATINGS, 0, seed=0) != resample(RATINGS, 0, seed=1)


def test_class_weights_make_ratings_count_alike():
    # power 0: a row of n counts 21 / (3 n); power ½: 1/√n, over the mean (1 + 2 + 4) / 21 = 1/3
    assert class_weights(RATINGS) == pytest.approx({1: 7, 3: 1.75, 5: 0.4375})
    assert class_weights(RATINGS, 0.5) == pytest.approx({1: 3, 3: 1.5, 5: 0.75})
    assert class_weights(RATINGS, 1) == pytest.approx({1: 1, 3: 1, 5: 1})


@pytest.mark.parametrize(("ratings", "power"), [([], 0), ([0, 1], 0), ([6], 0), ([5], 2), ([5], -0.1), ([5.0], 0)])
def test_wrong_ratings_and_powers_are_refused(ratings, power):
    for function in (resample, class_weights):
        with pytest.raises(ValueError, match="must be"):
            function(ratings, power)


def test_invented_texts_share_no_eight_words():
    texts = [review.text.split() for review in invented({5: 60})]
    assert not any(a[:8] == b[:8] or a[-8:] == b[-8:] for a, b in combinations(texts, 2))
