"""The search: what is drawn, what is tried and noted, what a failure, an interruption and another file do to it."""

import json
import math
import threading
from collections import Counter

import numpy as np
import pytest

from minipoet.training import TrainingDiverged
from minipoet.training.folder import alone
from minipoet.training.search import Trial, explained, rank_correlation, ranked, search
from minipoet.training.space import Choice, Given, LogUniform, draw, grid

SPACE = {
    "layer": Choice("RNN", "LSTM"),
    "optimizer": Choice("adamw", "sgd"),
    "lr": Given("optimizer", {"adamw": LogUniform(1e-4, 1e-2), "sgd": LogUniform(1e-2, 1.0)}),
}
ABOUT = {"corpus": "abc", "space": {"lr": "LogUniform(1, 2)"}}
ONE_TO_FOUR = [{"n": n} for n in (1, 2, 3, 4)]


# What is drawn


def test_candidates_of_a_seed_are_those_that_they_were_when_they_were_recorded():
    assert [draw(SPACE, 0, number) for number in range(3)] == [
        {"layer": "LSTM", "optimizer": "sgd", "lr": 0.0346},
        {"layer": "LSTM", "optimizer": "sgd", "lr": 0.13},
        {"layer": "LSTM", "optimizer": "adamw", "lr": 0.000638},
    ]
    assert draw(SPACE, 1, 0) != draw(SPACE, 0, 0)


def test_values_come_as_often_as_they_should():
    drawn = [draw(SPACE, 7, number) for number in range(2000)]
    assert 900 < Counter(one["layer"] for one in drawn)["RNN"] < 1100
    rates = {name: [one["lr"] for one in drawn if one["optimizer"] == name] for name in ("adamw", "sgd")}
    assert all(1e-4 <= lr <= 1e-2 for lr in rates["adamw"]) and all(1e-2 <= lr <= 1 for lr in rates["sgd"])
    below = sum(lr < 1e-3 for lr in rates["adamw"])  # the middle of two decades
    assert 0.45 < below / len(rates["adamw"]) < 0.55
    assert all(lr == float(f"{lr:.3g}") for lr in rates["adamw"])


def test_grid_has_every_combination_with_the_last_axis_fastest():
    assert grid({"n": [1, 2], "optimizer": ("adamw", "sgd")}) == [
        {"n": 1, "optimizer": "adamw"}, {"n": 1, "optimizer": "sgd"},
        {"n": 2, "optimizer": "adamw"}, {"n": 2, "optimizer": "sgd"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Choice(), "at least one value"),
        (lambda: LogUniform(0, 1), "0 < low ≤ high, got 0 and 1"),
        (lambda: LogUniform(2, 1), "got 2 and 1"),
        (lambda: LogUniform("1", math.nan), "got '1' and nan"),
        (lambda: Given("optimizer", [1]), "by values of 'optimizer', got list"),
        (lambda: draw({"lr": SPACE["lr"]}, 0, 0), "there is no optimizer before it"),
        (lambda: draw({"optimizer": Choice("muon"), "lr": SPACE["lr"]}, 0, 0), "there is optimizer = 'muon'"),
        (lambda: draw({"lr": 1e-3}, 0, 0), "space['lr'] must be a Choice, a LogUniform or a Given, got 0.001"),
        (lambda: draw([1], 0, 0), "The space must be"),
        (lambda: draw(SPACE, -1, 0), "whole numbers from 0, got -1 and 0"),
        (lambda: draw(SPACE, 0, 1.5), "got 0 and 1.5"),
        (lambda: grid({"n": []}), "The axis 'n' of a grid must be a list of values, got list"),
        (lambda: grid({"n": "12"}), "got '12'"),
        (lambda: grid([1]), "The grid must be"),
    ],
)
def test_what_cannot_be_drawn_from_is_told(call, message):
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)


# What is tried


def halves(candidate):
    return {"score": candidate["n"] / 2, "curve": [1.5, candidate["n"]]}


def failing(error):
    """Tries 1 and 3 as `halves` does, and fails at 2."""

    def evaluate(candidate):
        if candidate["n"] == 2:
            raise error
        return halves(candidate)

    return evaluate


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_each_candidate_is_a_line_behind_what_the_search_is_about(tmp_path):
    told = []
    trials = search(ONE_TO_FOUR[:2], halves, tmp_path / "s.jsonl", ABOUT, told.append)
    assert trials == told == [Trial(one, "done", halves(one)) for one in ONE_TO_FOUR[:2]]
    assert lines(tmp_path / "s.jsonl") == [
        {"search": ABOUT},
        {"candidate": {"n": 1}, "status": "done", "found": {"score": 0.5, "curve": [1.5, 1]}, "reason": ""},
        {"candidate": {"n": 2}, "status": "done", "found": {"score": 1.0, "curve": [1.5, 2]}, "reason": ""},
    ]


def test_what_is_there_is_not_tried_again_and_the_longer_search_goes_on(tmp_path):
    tried = []

    def evaluate(candidate):
        tried.append(candidate["n"])
        return halves(candidate)

    first = search(ONE_TO_FOUR[:2], evaluate, tmp_path / "s.jsonl", ABOUT)
    longer = search(ONE_TO_FOUR, evaluate, tmp_path / "s.jsonl", ABOUT)
    assert longer[:2] == first
    assert search(ONE_TO_FOUR[:1], evaluate, tmp_path / "s.jsonl", ABOUT) == first[:1]
    assert tried == [1, 2, 3, 4]


def test_the_same_candidate_twice_is_tried_once(tmp_path):
    trials = search([{"n": 1, "m": 2}, {"m": 2, "n": 1}], halves, tmp_path / "s.jsonl", ABOUT)
    assert trials[0] is trials[1]
    assert len(lines(tmp_path / "s.jsonl")) == 2


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ValueError("the window is too long"), "failed", "the window is too long"),
        (TrainingDiverged("the loss is nan"), "diverged", "the loss is nan"),
        (OverflowError(), "diverged", "OverflowError"),
        (MemoryError(), "failed", "out of memory: MemoryError"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory\ntrace"), "failed",
         "out of memory: DefaultCPUAllocator: can't allocate memory"),
    ],
)  # fmt: skip
def test_a_candidate_without_a_result_is_noted_and_the_search_goes_on(tmp_path, error, status, reason):
    trials = search(ONE_TO_FOUR, failing(error), tmp_path / "s.jsonl", ABOUT)
    assert (trials[1].status, trials[1].reason, trials[1].found) == (status, reason, {})
    assert [trial.status for trial in trials] == ["done", status, "done", "done"]
    assert search(ONE_TO_FOUR, failing(error), tmp_path / "s.jsonl", ABOUT) == trials  # as the file has it
    assert [trial.candidate["n"] for trial in ranked(trials)] == [1, 3, 4]


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_a_divergence(tmp_path, score):
    (trial,) = search([{"n": 1}], lambda _: {"score": score}, tmp_path / "s.jsonl", ABOUT)
    assert (trial.status, trial.reason, trial.score) == ("diverged", f"the score is {score}", math.inf)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("the disk is full"), RuntimeError("a bug of ours")])
def test_what_is_not_the_candidates_fault_ends_the_search_and_loses_only_that_candidate(tmp_path, error):
    with pytest.raises(type(error)):
        search(ONE_TO_FOUR, failing(error), tmp_path / "s.jsonl", ABOUT)
    assert [line["candidate"]["n"] for line in lines(tmp_path / "s.jsonl")[1:]] == [1]
    assert [trial.score for trial in search(ONE_TO_FOUR, halves, tmp_path / "s.jsonl", ABOUT)] == [0.5, 1, 1.5, 2]


@pytest.mark.parametrize("torn", ['{"candidate": {"n": 2}, "sta', '{"candidate": {"n": "ё'])
def test_a_line_cut_short_by_a_kill_is_taken_off(tmp_path, torn):
    path = tmp_path / "s.jsonl"
    search(ONE_TO_FOUR[:1], halves, path, ABOUT)
    path.write_bytes(path.read_bytes() + torn.encode()[:-1])
    search(ONE_TO_FOUR[:2], halves, path, ABOUT)
    assert [line["candidate"]["n"] for line in lines(path)[1:]] == [1, 2]


def test_a_file_about_something_else_is_refused_and_all_that_differs_is_told(tmp_path):
    path = tmp_path / "s.jsonl"
    search(ONE_TO_FOUR[:1], halves, path, ABOUT)
    before = path.read_bytes()
    with pytest.raises(ValueError) as error:
        search(ONE_TO_FOUR, halves, path, {"corpus": "xyz", "space": {"lr": "Choice(1)"}, "epochs": 3})
    for told in ("corpus was abc, is xyz", "space.lr was LogUniform(1, 2), is Choice(1)", "epochs was not set, is 3"):
        assert told in str(error.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("my notes", "is not the file of a search"),
        ("my notes\n", "line 1: not JSON"),
        ("[1]\n", "is not the file of a search"),
        ('{"search": {}}\n{"step": 3}\n', "line 2: not a trial"),
        ('{"search": {}}\n{"candidate": {}, "status": "done"}\n', "line 2: not a trial"),
        ('{"search": {}}\n{"candidate": {}, "status": "well"}\n', "line 2: not a trial"),
        ('{"search": {}}\n{"candidate": 5, "status": "failed"}\n', "line 2: not a trial"),
        ('{"search": {}}\n7\n', "line 2: not a trial"),
    ],
)
def test_another_kind_of_file_is_refused_and_left_as_it_was(tmp_path, content, message):
    path = tmp_path / "s.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError) as error:
        search(ONE_TO_FOUR, halves, path, {})
    assert message in str(error.value)
    assert path.read_text() == content


def test_two_searches_do_not_write_to_one_folder(tmp_path):
    def elsewhere():
        with alone(tmp_path):
            began.set()
            ended.wait(10)

    began, ended = threading.Event(), threading.Event()
    other = threading.Thread(target=elsewhere)
    other.start()
    began.wait(10)
    try:
        with pytest.raises(ValueError, match="Another run is writing"):
            search(ONE_TO_FOUR, halves, tmp_path / "s.jsonl", ABOUT)
    finally:
        ended.set()
        other.join()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda path: search([1], halves, path, ABOUT),
            "settings by name, {name: value}, but number 0 of it is 1",
        ),
        (lambda path: search([{"n": np.int64(1)}], halves, path, ABOUT), "plain values"),
        (lambda path: search([{"n": 1}], halves, path, {"a": object()}), "plain values"),
        (lambda path: search([{"n": 1}], None, path, ABOUT), "evaluate must be a function"),
        (lambda path: search([{"n": 1}], lambda _: 5, path, ABOUT), 'must be a dictionary with a "score", got 5'),
        (lambda path: search([{"n": 1}], lambda _: {}, path, ABOUT), "got score = None"),
        (lambda path: search([{"n": 1}], lambda _: {"score": 1, "at": {1}}, path, ABOUT), "plain values"),
        (lambda path: search([{"n": 1}], halves, None, ABOUT), "must be a path"),
        (lambda path: search([{"n": 1}], halves, path, 5), "about must be"),
        (lambda path: search(5, halves, path, ABOUT), "The candidates must be a list"),
    ],
)
def test_a_callers_mistake_is_no_failure_of_a_candidate(tmp_path, call, message):
    with pytest.raises(ValueError) as error:
        call(tmp_path / "s.jsonl")
    assert message in str(error.value)


# What it comes to


def test_rank_correlation_by_hand():
    assert rank_correlation([1, 2, 3, 4], [10, 30, 20, 99]) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert rank_correlation([1, 2, 3], [-1, -2, -3]) == pytest.approx(-1)
    # places 0.5, 0.5, 2 and 0, 1, 2: 1.5 / √(1.5 · 2)
    assert rank_correlation([1, 1, 5], [1, 2, 3]) == pytest.approx(math.sqrt(3) / 2)


def test_explained_by_hand():
    # places 0, 1 | 2, 3: means ∓1 about 1.5, so 4 of 5 between the groups; one group explains nothing
    assert explained(["a", "a", "b", "b"], [1, 2, 30, 40]) == pytest.approx(4 / 5)
    assert explained([1, 2, 2, 1], [1, 2, 30, 40]) == pytest.approx(0)
    assert explained([7, 7, 7], [3, 1, 2]) == pytest.approx(0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rank_correlation([1, 2], [1]), "got 2 and 1 scores"),
        (lambda: rank_correlation([1], [1]), "two or more"),
        (lambda: rank_correlation([1, 1], [1, 2]), "all equal"),
        (lambda: explained([1], [1, 2]), "1 groups and 2 scores"),
        (lambda: explained([1, 2], [3, 3]), "all equal"),
    ],
)
def test_what_makes_no_ranking_is_told(call, message):
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
