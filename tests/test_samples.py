"""Intervals and comparisons: worked by hand, by trying all swaps, and on samples whose truth is known."""

from itertools import product

import numpy as np
import pytest

from minipoet.evaluation import Sampled, compare, mean_of, ratio_of, samples, wilson


def normal(seed: int, size: int, mean: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, size=size)


def test_means_shares_and_ratios_by_hand():
    assert mean_of([1, 2, 6]).value == 3
    assert mean_of([True, False, False, True]).value == 0.5
    assert ratio_of([1, 5], [2, 1]).value == 2  # of the sums: the mean of 1/2 and 5 would be 2.75
    assert ratio_of([1, 5], [2, 1]).by_text.tolist() == [0.5, 5]
    nll, tokens, characters = [4.0, 8.0], [2, 4], [6, 10]
    assert ratio_of(nll, tokens, np.exp).value == pytest.approx(np.exp(2))
    assert ratio_of(nll, np.log(2) * np.array(characters)).value == pytest.approx(12 / 16 / np.log(2))


def test_interval_of_two_texts_by_hand():
    # two texts drawn from 0 and 1: the mean is 0 in a quarter of the draws, 1/2 in a half, 1 in a quarter
    coin = mean_of([0, 1])
    assert coin.interval(0.95) == (0.5, 0, 1)
    assert coin.interval(0.4) == (0.5, 0.5, 0.5)


def test_interval_of_a_mean_is_that_of_the_normal_distribution():
    values = np.random.default_rng(0).exponential(size=1000)
    for confidence, z in ((0.95, 1.96), (0.68, 0.994)):
        value, low, high = mean_of(values).interval(confidence, resamples=5000)
        error = z * values.std() / np.sqrt(len(values))
        assert (low, high) == pytest.approx((value - error, value + error), abs=0.06 * error)


@pytest.mark.parametrize("draw", ["normal", "exponential"])
def test_interval_holds_the_truth_about_as_often_as_it_says(draw):
    random, held, runs = np.random.default_rng(0), 0, 600
    for seed in range(runs):
        sample = getattr(random, draw)(size=60)
        _, low, high = mean_of(sample).interval(resamples=300, seed=seed)
        held += low <= (draw == "exponential") <= high
    assert 0.91 <= held / runs <= 0.97  # 95 % of large samples; of 60 a little less


def test_interval_of_the_difference_holds_the_truth_about_as_often_as_it_says():
    held, runs = 0, 400
    for seed in range(runs):
        texts, noise = normal(seed, 60), normal(seed + runs, 60, mean=0.3)
        found = compare(mean_of(texts + noise), mean_of(texts), resamples=300, seed=seed)
        held += found.low <= 0.3 <= found.high
    assert 0.91 <= held / runs <= 0.975


def test_p_of_three_texts_by_hand():
    # of the eight ways to swap, only all and none make a difference as large as 1
    assert compare(mean_of([1, 1, 1]), mean_of([0, 0, 0]), resamples=20_000).p == pytest.approx(2 / 8, abs=0.01)
    # so here too, though with all swapped the difference is -1.1333333333333333, and with none 1.1333333333333335
    ours, theirs = mean_of([1.3, 1.8, 1.3]), mean_of([0.5, 0.1, 0.4])
    assert compare(ours, theirs, resamples=20_000).p == pytest.approx(2 / 8, abs=0.01)


def test_p_is_the_share_of_all_swaps_that_do_as_much():
    ours = np.array([[5, 9], [2, 4], [7, 7], [1, 8], [6, 9], [3, 5]])
    theirs = np.array([[4, 9], [2, 6], [3, 7], [2, 8], [5, 9], [1, 5]])
    formula = ratio_of([1], [1], np.sqrt).formula
    real = abs(formula(ours.sum(axis=0)) - formula(theirs.sum(axis=0)))
    hits = 0
    for swaps in product([False, True], repeat=len(ours)):
        swapped = np.array(swaps)[:, None]
        one, other = (np.where(swap, theirs, ours).sum(axis=0) for swap in (swapped, ~swapped))
        hits += abs(formula(one) - formula(other)) >= real - 1e-12
    exact = hits / 2 ** len(ours)
    assert 0.05 < exact < 0.95  # or this would show little
    found = compare(Sampled(ours, formula), Sampled(theirs, formula), resamples=20_000)
    assert found.p == pytest.approx(exact, abs=0.012)


def test_p_is_evenly_spread_where_there_is_no_difference_and_small_where_there_is_one():
    none, some = [], []
    for seed in range(300):
        texts = normal(seed, 50)
        for found, shift in ((none, 0.0), (some, 0.8)):
            ours = mean_of(texts + normal(seed + 600, 50, mean=shift))
            found.append(compare(ours, mean_of(texts + normal(seed + 300, 50)), resamples=199, seed=seed).p)
    assert np.mean(np.array(none) <= 0.05) == pytest.approx(0.05, abs=0.03)
    assert np.mean(np.array(none) <= 0.5) == pytest.approx(0.5, abs=0.07)
    assert np.mean(np.array(some) <= 0.05) > 0.9


def test_what_makes_texts_hard_for_both_models_cancels_out():
    hard = 10 * normal(0, 200)
    ours, theirs = mean_of(hard + normal(1, 200, mean=0.5)), mean_of(hard + normal(2, 200))
    alone, together = ours.interval(), compare(ours, theirs)
    assert together.high - together.low < 0.3 * (alone.high - alone.low)
    assert together.low < together.value < together.high and together.p < 0.01


def test_a_model_does_not_differ_from_itself():
    sums = ratio_of(normal(0, 30, mean=9), np.full(30, 0.1), np.exp)
    assert compare(sums, sums) == (0, 0, 0, 1)


def test_sides_may_change_places():
    ours, theirs = mean_of(normal(0, 40, mean=0.3)), mean_of(normal(1, 40))
    one, other = compare(ours, theirs), compare(theirs, ours)
    assert (other.value, other.low, other.high, other.p) == pytest.approx((-one.value, -one.high, -one.low, one.p))


def test_interval_holds_the_value_and_grows_with_confidence():
    ratios = ratio_of(np.abs(normal(0, 80)), np.abs(normal(1, 80)), np.exp)
    value, low, high = ratios.interval(0.95)
    assert low < value < high
    _, lower, higher = ratios.interval(0.99)
    assert lower < low and high < higher


def test_the_seed_decides_and_nothing_else(monkeypatch):
    ours, theirs = mean_of(normal(0, 50, mean=0.2)), mean_of(normal(1, 50))
    before = ours.interval(seed=1), compare(ours, theirs, seed=1)
    assert (ours.interval(seed=1), compare(ours, theirs, seed=1)) == before
    assert ours.interval(seed=2) != before[0] and compare(ours, theirs, seed=2) != before[1]
    for cells in (50 * 7, 1):  # seven resamples at a time, and one at a time
        monkeypatch.setattr(samples, "CELLS", cells)
        assert ours.interval(seed=1) == pytest.approx(before[0])
        assert compare(ours, theirs, seed=1) == pytest.approx(before[1])


def test_texts_without_anything_to_divide_by_are_no_figure_but_do_not_spoil_the_sum():
    found = ratio_of([0, 1, 1, 2], [0, 2, 2, 2])
    assert np.isnan(found.by_text[0]) and found.by_text[1:].tolist() == [0.5, 0.5, 1]
    assert np.isfinite(found.interval()).all() and np.isfinite(compare(found, found)).all()


@pytest.mark.parametrize(
    ("hits", "n", "expected"),
    [
        (87, 100, (0.7902, 0.9224)),
        (0, 10, (0, 0.2775)),
        (10, 10, (0.7225, 1)),
        (99, 100, (0.9455, 0.9982)),
        (1, 1, (0.2065, 1)),
    ],
)
def test_wilson_by_known_numbers(hits, n, expected):
    low, high = wilson(hits, n)
    assert (low, high) == pytest.approx(expected, abs=5e-5)
    assert 0 <= low <= hits / n <= high <= 1
    assert wilson(n - hits, n) == pytest.approx((1 - high, 1 - low))


def test_wilson_bounds_are_the_shares_that_would_just_be_surprised():
    # at a bound the share seen lies z standard errors *of that bound* away: how the interval is defined
    for bound in wilson(7, 30, confidence=0.9):
        assert abs(7 / 30 - bound) / np.sqrt(bound * (1 - bound) / 30) == pytest.approx(1.644854, abs=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_of([]), "values must be one number a text, of one text at least"),
        (lambda: mean_of("строка"), "values must be numbers, got 'строка'"),
        (lambda: mean_of(3), "values must be one number a text"),
        (lambda: mean_of([[1], [2]]), "values must be one number a text"),
        (lambda: mean_of([1, float("nan")]), "values must be finite: number 1 is not"),
        (lambda: ratio_of([1, 2], [1]), "a numerator and a denominator, got 2 and 1"),
        (lambda: ratio_of([1, 2], [0, 0]), "not all of them 0"),
        (lambda: ratio_of([1, 2], [3, -1]), "must be 0 or more"),
        (lambda: Sampled([1, 2], np.sum), "rows must be one row of numbers a text"),
        (lambda: mean_of([1]).interval(), "One text tells nothing"),
        (lambda: mean_of([1, 2]).interval(95), "confidence must be between 0 and 1, as 0.95 is, got 95"),
        (lambda: mean_of([1, 2]).interval(resamples=0), "resamples=0"),
        (lambda: mean_of([1, 2]).interval(seed=-1), "seed must be a whole number"),
        (lambda: compare(mean_of([1, 2]), 2), "must be a Sampled, got 2"),
        (lambda: compare(mean_of([1]), mean_of([2])), "One text tells nothing"),
        (lambda: compare(mean_of([1, 2]), mean_of([1, 2, 3])), "the same texts, but there are 2 and 3"),
        (lambda: compare(mean_of([1, 2]), ratio_of([1, 2], [1, 1], np.exp)), "the same figure, but there are two"),
        (lambda: compare(Sampled([[1, 2]] * 2, np.sum), Sampled([[1]] * 2, np.sum)), "the same figure"),
        (lambda: wilson(11, 10), "hits of 0 to n; got 11 of 10"),
        (lambda: wilson(0, 0), "one at least"),
        (lambda: wilson(0.87, 100), "got 0.87 of 100"),
        (lambda: wilson(87, 100, 95), "confidence must be between 0 and 1"),
    ],
)
def test_wrong_arguments_are_told(call, message):
    with pytest.raises(ValueError, match=message):
        call()
