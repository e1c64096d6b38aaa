"""The report on generated reviews: each figure by hand, and beside it what real reviews have."""

import math

import pytest

from minipoet.evaluation.ratings import RatingJudge
from minipoet.evaluation.reviews import WINDOW, GeneratedReview, _as_long, _likes, review_report
from minipoet.evaluation.samples import wilson
from minipoet.text.reviews import Review


def real(text: str, rating: int) -> Review:
    return Review(text, rating, ("Кафе",))


@pytest.fixture(scope="module")
def judge():
    """He knows three words: плохо is 1, средне is 3, вкусно is 5."""
    return RatingJudge.fit(["плохо", "средне", "вкусно"] * 4, [1, 3, 5] * 4, l2=0.1)


# He finds the ones, half of the threes and three quarters of the fives.
HELD_OUT = [
    *(real(f"плохо было {word}", 1) for word in ("тут", "там")),
    real("средне на вкус", 3),
    real("вкусно и средне цены вкусно плохо", 3),
    *(real(f"вкусно {word}", 5) for word in ("очень", "тоже", "всегда")),
    real("плохо, а думали, понравится", 5),
]
TRAINING = ["вкусно готовят суп и пекут хлеб", "плохо моют пол"]


def review(text, rating, *keywords):
    return GeneratedReview(text, rating, keywords)


def test_rating_control_by_hand(judge):
    written = [review("вкусно", 5), review("вкусно!", 5), review("средне", 5), review("плохо", 1), review("", 1)]
    found = review_report(written, judge, HELD_OUT, TRAINING)
    assert found.control.counts[5] == {0: 0, 1: 0, 2: 0, 3: 1, 4: 0, 5: 2}
    assert found.control.counts[1] == {0: 1, 1: 1, 2: 0, 3: 0, 4: 0, 5: 0}
    assert found.control.accuracy == (3 / 5, *wilson(3, 5))
    assert found.generated.empty == 1 / 5
    assert found.real.empty == 0


def test_ceiling_is_the_judge_on_as_many_of_each_rating_as_were_asked_for(judge):
    found = review_report([review("средне", 3), review("средне", 3), review("вкусно", 5)], judge, HELD_OUT, TRAINING)
    assert {rating: share.value for rating, share in found.judge.by_rating.items()} == {1: 1, 3: 0.5, 5: 0.75}
    assert found.ceiling == pytest.approx((2 * 0.5 + 0.75) / 3)
    assert found.judge.accuracy.value == 6 / 8  # which is another figure
    assert "| rating as asked for | 1.000 [0.439, 1.000] | 0.583 |" in found.table()


def test_keywords_are_found_in_any_form_and_chance_is_the_next_review(judge):
    written = [
        review("вкусный суп и хлебом не корми", 5, "суп", "хлеб"),  # 2 of 2
        review("суп остыл", 1, "суп", "официант"),  # 1 of 2
        review("обедали супом", 3),  # nothing was asked for
    ]
    found = review_report(written, judge, HELD_OUT, TRAINING)
    assert found.coverage.value == 3 / 4
    assert found.complete == (1 / 2, *wilson(1, 2))
    assert found.by_chance == 2 / 4  # суп in «суп остыл», and in «обедали супом»
    assert found.coverage.low <= 3 / 4 <= found.coverage.high


def test_without_keywords_nothing_is_said_of_them(judge):
    found = review_report([review("вкусно", 5), review("плохо", 1)], judge, HELD_OUT, TRAINING)
    assert (found.coverage, found.by_chance, found.complete) == (None, None, None)
    assert "keyword" not in found.table()


def test_lengths_copies_and_circles_by_hand(judge):
    written = [review("Вкусно готовят суп и пекут, пекут, пекут", 5), review("плохо моют", 1)]
    found = review_report(written, judge, HELD_OUT, iter(TRAINING))
    assert found.generated.words.value == (7 + 2) / 2
    assert found.generated.copied.value == (5 + 2) / 2
    assert found.generated.recited.value == 1 / 2
    assert found.generated.loops == 1 / 2
    assert found.generated.distinct.value == (5 / 6 + 1) / 2
    assert math.isnan(found.generated.repeated)  # both are shorter than the window
    assert found.real.recited.value == 0


def test_repeated_pairs_are_those_of_the_first_words(judge):
    text = " ".join(f"слово{n}" for n in range(WINDOW)) + " слово1 слово2" * 9
    found = review_report([review(text, 5), review("плохо", 1)], judge, HELD_OUT, TRAINING)
    assert found.generated.repeated == 0


def test_each_generated_review_stands_beside_a_real_one_of_its_rating():
    written = [review("", rating) for rating in (5, 1, 5, 5, 5, 5)]
    likes = _likes(written, HELD_OUT, seed=0)
    by_text = {one.text: one.rating for one in HELD_OUT}
    assert [by_text[text] for text in likes] == [5, 1, 5, 5, 5, 5]
    assert len({likes[n] for n in (0, 2, 3, 4)}) == 4 and likes[5] == likes[0]  # all of a rating, then from the start
    assert _likes(written, HELD_OUT, seed=0) == likes


def test_real_reviews_are_cut_to_the_length_of_the_generated_before_runs_are_compared():
    assert _as_long(["Раз, два: три четыре", "раз"], ["а б", "а б"]) == ["раз два", "раз"]


def test_tables_are_markdown(judge):
    found = review_report([review("вкусно", 5, "суп"), review("плохо", 1, "чай")], judge, HELD_OUT, TRAINING)
    table, ratings = found.table().split("\n"), found.ratings_table().split("\n")
    assert table[:2] == ["| | generated | real |", "|---|---:|---:|"]
    assert all(line.count("|") == 4 for line in table)
    assert ratings[2] == "| 1 | 1 | 1.00 | 0.21 to 1.00 | 1.00 [0.34, 1.00] |"
    assert len(ratings) == 4


# What a careless caller is told


def test_rating_that_nobody_knows_is_told(judge):
    with pytest.raises(ValueError, match="Reviews of rating 2, 4 were asked for, but the judge or the held-out"):
        review_report([review("а", 2), review("б", 4), review("в", 5)], judge, HELD_OUT, TRAINING)


@pytest.mark.parametrize("rating", [0, 6, "5", 4.5, True, None])
def test_rating_asked_for_is_one_of_five(rating):
    with pytest.raises(ValueError, match="must be a whole number from 1 to 5, got"):
        GeneratedReview("вкусно", rating)


def test_keywords_are_a_list():
    with pytest.raises(ValueError, match="put it into a list"):
        GeneratedReview("вкусно", 5, "суп")
    assert GeneratedReview("вкусно", 5, ["суп"]) == GeneratedReview("вкусно", 5, ("суп",))


def test_wrong_things_are_named(judge):
    two = [review("вкусно", 5), review("плохо", 1)]
    for given, message in [
        ((two[:1], judge, HELD_OUT, TRAINING), "two generated reviews or more, got 1"),
        ((["вкусно"], judge, HELD_OUT, TRAINING), "number 0 of it is 'вкусно'"),
        ((two, None, HELD_OUT, TRAINING), "RatingJudge.fit"),
        ((two, judge, ["вкусно"], TRAINING), "The held-out reviews must be a list of Review"),
        ((two, judge, HELD_OUT, []), "no word in the training"),
    ]:
        with pytest.raises(ValueError, match=message):
            review_report(*given)
