"""The judge of ratings: by hand on two words, against the slope of its loss, and on reviews whose truth is known."""

import math
import random

import pytest
import torch

from minipoet.evaluation import ratings
from minipoet.evaluation.confusion import Confusion
from minipoet.evaluation.ratings import RatingJudge
from minipoet.evaluation.samples import wilson

BAD, GOOD = ["плохо", "холодно", "грязно", "долго", "скучно"], ["вкусно", "тепло", "чисто", "быстро", "весело"]
OTHERS = [f"слово{number}" for number in range(40)]


def review(rating: int, draw: random.Random) -> str:
    """Twelve words, some of them good or bad ones, the more so the further the rating is from the middle."""
    says = GOOD if draw.random() < (rating - 1) / 4 else BAD
    return " ".join(draw.choice(says if draw.random() < 0.35 else OTHERS) for _ in range(12))


def reviews(number: int, seed: int, weights=(1, 1, 1, 1, 1)):
    draw = random.Random(seed)
    given = draw.choices((1, 2, 3, 4, 5), weights, k=number)
    return [review(rating, draw) for rating in given], given


@pytest.fixture(scope="module")
def judge():
    return RatingJudge.fit(*reviews(600, 0), bits=12)


# What he reads


def test_signs_are_stems_with_the_negation_before_them():
    assert ratings.signs("Десертами доволен, суп — не вкусный!") == [
        "десерт", "доволен", "суп", "не", "не вкусн",
    ]  # fmt: skip
    assert ratings.signs("👍 …") == []


def test_places_are_the_different_signs_of_each_text():
    places, sizes = ratings._places(["не вкусно", "", "вкусно, не вкусно! Не вкусно", "не"], bits=18)
    assert sizes.tolist() == [2, 0, 3, 1]  # не, «не вкусно»; and «вкусно»
    assert set(places[:2].tolist()) < set(places[2:5].tolist())
    assert places.min() >= 0 and places.max() < 2**18


def test_print_of_a_text_tells_nothing(judge):
    assert judge.scores("плохо, долго") == judge.scores("ПЛОХО —\nдолго!!!")


def test_reading_in_portions_changes_nothing(monkeypatch, judge):
    texts = reviews(25, 3)[0]
    whole = judge.probabilities(texts)
    monkeypatch.setattr(ratings, "AT_ONCE", 4)
    assert (judge.probabilities(texts) == whole).all()


# What he learns


def test_two_words_by_hand():
    # x is 1 for «да» in one text, for «нет» in the other; by symmetry b = 0 and W = ±w with
    # w · l2 = 1 - p, p = 1 / (1 + exp(-2w)): for l2 = 1 the root of w = 1 / (1 + exp(2w)) is 0.3374
    w = 0.5
    for _ in range(200):
        w = (w + 1 / (1 + math.exp(2 * w))) / 2
    judge = RatingJudge.fit(["да", "нет"], [5, 1], l2=1.0)
    assert judge.ratings == (1, 5)
    assert judge.bias.tolist() == pytest.approx([0, 0], abs=1e-4)
    assert judge.weights.abs().sum().item() == pytest.approx(4 * w, abs=1e-3)
    assert judge.scores("да")[5] == pytest.approx(1 / (1 + math.exp(-2 * w)), abs=1e-4)


def test_slope_at_the_found_point_is_zero_by_autograd():
    texts, given = reviews(80, 5, weights=(1, 1, 2, 3, 9))
    judge = RatingJudge.fit(texts, given, l2=0.7, power=0.5, bits=10)
    counts = {rating: given.count(rating) for rating in judge.ratings}
    weights, bias = judge.weights.clone().requires_grad_(), judge.bias.clone().requires_grad_()
    loss, total = 0.35 * weights.square().sum(), 0.0
    for text, rating in zip(texts, given, strict=True):
        places = torch.from_numpy(ratings._places([text], 10)[0]).long()
        logits = weights[places].sum(0) / len(places) ** 0.5 + bias
        heavy = counts[rating] ** -0.5 * len(texts) / sum(n**0.5 for n in counts.values())  # 1 in the mean
        loss, total = loss - heavy * logits.log_softmax(0)[judge.ratings.index(rating)], total + heavy
    (loss / total).backward()
    assert weights.grad.abs().max() < 1e-4 and bias.grad.abs().max() < 1e-4
    assert weights.abs().max() > 0.1  # it did go somewhere


def test_equal_reviews_make_equal_judges(judge):
    again = RatingJudge.fit(*reviews(600, 0), bits=12)
    assert torch.equal(again.weights, judge.weights) and torch.equal(again.bias, judge.bias)


def test_he_finds_ratings_of_reviews_that_he_has_not_read(judge):
    found = judge.confusion(*reviews(400, 1))
    assert found.accuracy.low > 0.2  # guessing
    assert found.error < 1.5  # guessing: 1.6
    assert judge.rating("плохо, холодно, грязно") < 3 < judge.rating("вкусно и чисто, быстро")


def test_rare_rating_is_found_by_the_balanced_judge_and_hardly_by_the_plain_one():
    texts, given = reviews(800, 2, weights=(0, 0, 4, 0, 96))
    unread = reviews(800, 4, weights=(0, 0, 4, 0, 96))
    plain, balanced = (RatingJudge.fit(texts, given, power=power, bits=12).confusion(*unread) for power in (1, 0))
    assert plain.by_rating[3].value < 0.2 and balanced.by_rating[3].value > 0.4
    assert balanced.balanced > plain.balanced


def test_many_at_once_are_judged_as_one_by_one(judge):
    texts = [*reviews(6, 8)[0], "", "?!"]
    assert judge.rate(texts) == [judge.rating(text) for text in texts]
    for row, text in zip(judge.probabilities(texts[:6]), texts, strict=False):
        assert row.tolist() == pytest.approx(list(judge.scores(text).values()), abs=1e-6)
        assert sum(row) == pytest.approx(1)


def test_text_without_a_word_has_no_rating(judge):
    assert judge.rating("") == judge.rating("👍 !!!") == 0
    with pytest.raises(ValueError, match="The judge reads words, and there are none in the text '👍'"):
        judge.scores("👍")


def test_texts_without_a_word_teach_nothing():
    texts, given = reviews(60, 6)
    one = RatingJudge.fit(texts, given, bits=8)
    other = RatingJudge.fit([*texts, "", "!!!"], [*given, 1, 1], bits=8)
    assert torch.allclose(one.weights, other.weights, atol=1e-3) and torch.allclose(one.bias, other.bias, atol=1e-3)


# What his mistakes come to


def test_figures_of_a_confusion_by_hand():
    # of four fives one is taken for 4, one for 1; the only one is found; a three has no word
    found = Confusion.of([5, 5, 5, 5, 1, 3], [5, 5, 4, 1, 1, 0])
    assert found.counts[5] == {0: 0, 1: 1, 2: 0, 3: 0, 4: 1, 5: 2}
    assert found.texts == {1: 1, 3: 1, 5: 4}
    assert found.accuracy == (3 / 6, *wilson(3, 6))
    assert found.by_rating == {1: (1, *wilson(1, 1)), 3: (0, *wilson(0, 1)), 5: (0.5, *wilson(2, 4))}
    assert found.balanced == pytest.approx((1 + 0 + 0.5) / 3)
    assert found.majority == 4 / 6
    assert found.within(1).value == 4 / 6
    assert found.error == (0 + 0 + 1 + 4 + 0) / 5


def test_majority_stands_beside_the_accuracy():
    always_five = Confusion.of([5] * 78 + [1] * 22, [5] * 100)
    assert always_five.balanced == 0.5
    assert always_five.summary().startswith(
        "right 0.780 (0.689 to 0.850), always the most frequent 0.780; balanced 0.500"
    )


def test_table_has_a_row_a_rating():
    assert Confusion.of([5, 5, 1], [5, 4, 1]).table().split("\n") == [
        "| rating | 1 | 2 | 3 | 4 | 5 | right | 95 % |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
        "| 1 | 1 | 0 | 0 | 0 | 0 | 1.00 | 0.21 to 1.00 |",
        "| 5 | 0 | 0 | 0 | 1 | 1 | 0.50 | 0.09 to 0.91 |",
    ]
    assert "| rating | no word | 1 |" in Confusion.of([5], [0]).table()


def test_accuracy_is_that_of_the_confusion(judge):
    texts, given = reviews(50, 9)
    assert judge.accuracy(texts, given) == judge.confusion(texts, given).accuracy


# What a careless caller is told


@pytest.mark.parametrize(
    ("texts", "given", "message"),
    [
        (["а", "б"], [5], "2 texts and 1 ratings"),
        (["а", "б", "в"], [0, 6, 5], "a whole number from 1 to 5, but text 0 has 0, text 1 has 6: leave"),
        (["а"] * 9, [0] * 9, "text 4 has 0, and 4 more"),
        (["а", "б"], ["5", 4.0], "text 0 has '5', text 1 has 4.0"),
        (["а", "б"], [5, 5], "takes two or more, got 5"),
        (["а", "!"], [5, 1], "takes two or more, got 5"),
        ([], [], "got none"),
        ("ааа", [1, 2, 3], "put it into a list"),
    ],
)
def test_reviews_to_learn_from_are_checked(texts, given, message):
    with pytest.raises(ValueError, match=message):
        RatingJudge.fit(texts, given)


@pytest.mark.parametrize("options", [{"l2": 0}, {"l2": "x"}, {"power": 2}, {"bits": 0}, {"bits": 30}])
def test_settings_are_checked(options):
    with pytest.raises(ValueError, match="must be (above 0, and bits|from 0)"):
        RatingJudge.fit(["а", "б"], [1, 5], **options)


def test_one_text_and_many_are_not_mixed_up(judge):
    with pytest.raises(ValueError, match="rate reads a list of them"):
        judge.rating(["а"])
    with pytest.raises(ValueError, match="put it into a list"):
        judge.rate("а")
    with pytest.raises(ValueError, match="no review to judge"):
        judge.confusion([], [])
