"""The architecture search, run as a user runs it, on nonsense; and what a mistake is told."""

import argparse
import json
import math
import random
import sys
from pathlib import Path

import pytest
import torch
from test_example_vocabulary import load_example
from test_examples import run_example

from minipoet import plots
from minipoet.command import run
from minipoet.models.rnn import LSTM
from minipoet.models.window import WindowMLP
from minipoet.training.search import Trial, rank_correlation
from minipoet.training.space import Choice, Given

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "search_architectures.py"


@pytest.fixture(scope="module")
def example():
    """The example, but with smaller models and batches."""
    module = load_example(EXAMPLE)
    small = {"n_hidden": Choice(6, 8), "n_embd": Choice(4, 6), "rows": Choice(2, 4, 8)}
    module.SPACE |= small | {
        "window": Given("layer", {"Linear": Choice(2, 4), **dict.fromkeys(module.RECURRENT, Choice(32))})
    }
    module.REST |= {"n_hidden": 8, "n_embd": 4}
    return module


@pytest.fixture(autouse=True)
def one_thread():
    """As small models like it, and so that equal runs are equal to the bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Twelve poems of nonsense in a folder, ten lines each, all of the same letters; no two have a word in common."""
    folder, generator = tmp_path_factory.mktemp("poems"), random.Random(0)
    for number in range(12):
        words = ["".join(generator.choices("авгдежз", k=6)) for _ in range(30)]
        lines = [" ".join(words[first : first + 3]) for first in range(0, 30, 3)]
        (folder / f"poem{number}.txt").write_text("\n".join(lines), "utf-8")
    return folder


@pytest.fixture
def run_search(example, corpus, monkeypatch):
    """The example as a command."""

    def run_it(out, *options):
        given = ("--corpus", corpus, "--out", out, "--validation", 0.5, "--poems", 4, "--epochs", 2, *options)
        monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *map(str, given)])
        run(example.main)

    return run_it


def trials(path):
    return [Trial(**json.loads(line)) for line in path.read_text("utf-8").splitlines()[1:]]


def without_times(path):
    return [(t.candidate, t.status, {n: v for n, v in t.found.items() if n != "seconds"}) for t in trials(path)]


def test_the_search_leaves_what_it_promises_and_goes_on_where_it_was(run_search, tmp_path, capsys):
    out = tmp_path / "run"
    run_search(out, "--candidates", 3)
    first = (out / "search.jsonl").read_bytes()
    printed = capsys.readouterr().out
    assert (out / "report.md").read_text("utf-8") in printed
    curves = {f"curves-{layer}.png" for layer in ("Linear", "RNN", "GRU")}
    names = {"search.jsonl", "report.md", "results.json", "rates.png"} | curves
    assert {path.name for path in out.iterdir()} == names
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in names if name.endswith("png"))

    run_search(out, "--candidates", 4)
    assert (out / "search.jsonl").read_bytes().startswith(first)
    tried = [line for line in capsys.readouterr().out.splitlines() if "bits per character, " in line]
    assert [line[:2] for line in tried] == ["3:"]
    run_search(tmp_path / "anew", "--candidates", 4)
    assert without_times(tmp_path / "anew" / "search.jsonl") == without_times(out / "search.jsonl")


def test_ranking_and_curves_are_in_the_results(run_search, tmp_path):
    run_search(tmp_path, "--candidates", 4, "--epochs", 3)
    found = json.loads((tmp_path / "results.json").read_text("utf-8"))
    scores = [one["score"] for one in found["ranking"]]
    assert scores == sorted(scores) and len(scores) >= 2
    for trial in trials(tmp_path / "search.jsonl"):
        if trial.status == "done":
            curve = trial.found["curve"]
            assert curve["step"] == [epoch * trial.found["epoch"] for epoch in range(4)]
            assert trial.score == min(curve["bits_per_character"])
            best = curve["step"].index(trial.found["best_step"])
            assert trial.found["perplexity"] == curve["perplexity"][best] == min(curve["perplexity"])
            # letters, none unknown: as many tokens as characters, the end of each poem included
            assert 2**trial.score == pytest.approx(trial.found["perplexity"])


def test_a_window_longer_than_the_text_is_noted_and_not_fatal(run_search, tmp_path, capsys):
    run_search(tmp_path, "--candidates", 12, "--epochs", 1, "--poems", 1)
    bad = [trial for trial in trials(tmp_path / "search.jsonl") if trial.status == "failed"]
    assert bad and all("take windows of at most" in trial.reason for trial in bad)
    printed = capsys.readouterr().out
    assert all(f"- candidate {trial.candidate['number']} " in printed for trial in bad)


def test_grid_has_all_combinations_of_one_type(run_search, tmp_path, example):
    run_search(tmp_path, "--grid", "Linear", "--epochs", 1)
    found = [trial.candidate for trial in trials(tmp_path / "search.jsonl")]
    assert {one["layer"] for one in found} == {"Linear"}
    points = {tuple(one[name] for name in example.GRID) for one in found}
    assert len(points) == len(found) == math.prod(len(values) for values in example.GRID.values())


def test_words_pay_for_what_the_vocabulary_lacks(run_search, corpus, tmp_path, example):
    args = argparse.Namespace(corpus=str(corpus), author=None, unit="words", poems=3, validation=0.5, test=0.5,
                              split_seed=0, seed=0)  # fmt: skip
    data = example.read(args)
    assert any(3 in ids for ids in data.validation.ids)  # <unk>
    letters = example.read(argparse.Namespace(**vars(args) | {"unit": "letters"}))
    assert data.validation.characters == letters.validation.characters
    assert data.validation.spelt > 0
    run_search(tmp_path, "--candidates", 1, "--unit", "words")
    (trial,) = trials(tmp_path / "search.jsonl")
    tokens = sum(len(ids) - 1 for ids in data.validation.ids)
    own = tokens * math.log2(trial.found["perplexity"]) / data.validation.characters
    assert trial.score == pytest.approx(own + data.validation.spelt / math.log(2) / data.validation.characters)


def test_no_poem_is_in_two_parts(corpus, example):
    args = argparse.Namespace(corpus=str(corpus), author=None, unit="letters", poems=3, validation=0.5, test=0.5,
                              split_seed=0, seed=0)  # fmt: skip
    data = example.read(args)
    sides = [{tuple(ids) for ids in side} for side in (data.all, data.validation.ids, data.test.ids)]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 12
    assert {tuple(ids) for ids in data.part} < sides[0] and len(data.part) == 3


def test_candidates_are_models_of_their_settings(example):
    settings = {"layer": "LSTM", "n_layer": 2, "n_hidden": 12, "n_embd": 5, "window": 7, "dropout": 0.25, "seed": 3}
    lstm, again = example.build(settings, 50), example.build(settings, 50)
    assert isinstance(lstm, LSTM) and (lstm.config.n_hidden, lstm.config.n_embd, len(lstm.blocks)) == (12, 5, 2)
    assert lstm.config.dropout == 0.25
    assert torch.equal(lstm.head.weight, again.head.weight)
    assert not torch.equal(lstm.head.weight, example.build(settings | {"seed": 4}, 50).head.weight)
    linear = example.build(settings | {"layer": "Linear"}, 50)
    assert isinstance(linear, WindowMLP) and linear.config.window == 7


def test_a_longer_search_begins_with_the_shorter_and_each_type_has_its_share(example):
    def drawn(number, seed=0):
        return example.candidates_of(argparse.Namespace(grid=None, candidates=number, seed=seed))

    assert drawn(12)[:5] == drawn(5)
    assert [one["layer"] for one in drawn(5)] == ["Linear", "RNN", "GRU", "LSTM", "Linear"]
    assert drawn(5, seed=1) != drawn(5)


def test_tokens_are_a_budget_instead_of_epochs(run_search, tmp_path):
    run_search(tmp_path, "--candidates", 1, "--tokens", 4000)
    (trial,) = trials(tmp_path / "search.jsonl")
    assert 3500 < trial.found["tokens"] < 4500  # 836 an epoch: nearly five, not the two of --epochs


# --confirm


def test_confirming_runs_the_best_on_all_the_verse_and_is_not_run_twice(run_search, tmp_path, capsys):
    options = ("--candidates", 4, "--confirm", 1, "--others", 1, "--times", 1.5)
    run_search(tmp_path, *options)
    report, lines = (tmp_path / "report.md").read_text("utf-8"), (tmp_path / "confirm.jsonl").read_bytes()
    small = [trial for trial in trials(tmp_path / "search.jsonl") if trial.status == "done"]
    confirmed = trials(tmp_path / "confirm.jsonl")
    on_all = [trial for trial in confirmed if trial.candidate["on"] == "all"]
    assert {trial.candidate["number"] for trial in on_all} == {trial.candidate["number"] for trial in small}
    layers = len({trial.candidate["layer"] for trial in small})
    assert len(confirmed) - len(on_all) == 4 * layers  # two other seeds, two other learning rates
    done = [trial for trial in on_all if trial.status == "done"]
    before = {trial.candidate["number"]: trial for trial in small}
    assert all(t.found["steps"] == round(1.5 * before[t.candidate["number"]].found["steps"]) for t in done)
    scores = [[before[t.candidate["number"]].score for t in done], [t.found["test"] for t in done]]
    assert f"with the test: {rank_correlation(*scores):.2f}" in report
    capsys.readouterr()
    run_search(tmp_path, *options)
    assert "seconds" not in capsys.readouterr().out.split("# The search")[0]
    assert (tmp_path / "confirm.jsonl").read_bytes() == lines
    assert (tmp_path / "report.md").read_text("utf-8") == report


def scored(number, layer, score, **found):
    candidate = {"number": number, "layer": layer, "lr": 0.01, "seed": 0, "on": "part", "times": 1}
    return Trial(candidate, "done", {"score": score, **found})


def test_best_of_each_type_and_others_from_the_whole_ranking_are_chosen(example):
    ranking = [scored(number, ("RNN", "LSTM")[number % 2], number) for number in range(10)]
    args = argparse.Namespace(confirm=1, others=2, times=3, seed=0)
    wanted = example.to_confirm([*ranking, Trial({"layer": "GRU"}, "failed")], args)
    assert [one["number"] for one in wanted["all"]] == [0, 1, 4, 8]
    assert all((one["on"], one["times"]) == ("all", 3) for one in wanted["all"])
    assert [(one["number"], one["seed"]) for one in wanted["seeds"]] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert [(one["number"], one["lr"]) for one in wanted["rates"]] == [(0, 0.00333), (0, 0.03), (1, 0.00333), (1, 0.03)]


# What is told


def test_seeds_and_rates_by_hand(example):
    """The best of a type scored 3.0 at 0.01; other seeds 3.2 and 3.1; other rates 3.5 and 2.9."""
    report = sys.modules["search_report"]
    best = scored(7, "GRU", 3.0)
    seeds = [scored(7, "GRU", score) for score in (3.2, 3.1)]
    rates = [Trial(best.candidate | {"lr": lr}, "done", {"score": score}) for lr, score in ((0.03, 2.9), (0.003, 3.5))]
    row = report.seeds_and_rates(best, seeds, rates)
    assert (row["layer"], row["candidate"], row["mean"], row["range"]) == ("GRU", 7, "3.100", "0.200")
    assert row["bits by learning rate"] == "0.003: 3.500, 0.01: 3.000, 0.03: 2.900"
    assert row["range "] == "0.600"


def test_learning_rates_are_compared_within_an_optimiser(example):
    tried = [("sgd", 0.5), ("adamw", 0.001), ("sgd", 0.1), ("adamw", 0.003), ("sgd", 0.9), ("adamw", 0.002)]
    found = [Trial({"optimizer": name, "lr": lr}, "done", {"score": 1.0}) for name, lr in tried]
    assert sys.modules["search_report"].thirds(found) == [1, 0, 0, 2, 2, 1]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    figures = []
    for module in ("figure", "runs"):
        monkeypatch.setattr(f"minipoet.plots.{module}.save_figure", lambda figure, path: figures.append(figure))
    return figures


def test_the_best_curves_have_colours_and_names_and_lie_on_top(drawn):
    plots.plot_trials({name: [(0, 9.0), (1, 2.0)] for name in "abcd"}, "p.png", "Title", named=2)
    (axes,) = drawn[0].axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]
    assert len({line.get_color() for line in axes.lines}) == 3
    heights = [line.get_zorder() for line in axes.lines]
    assert heights == sorted(heights, reverse=True)


def test_points_of_a_label_are_drawn_together(drawn):
    plots.plot_points({"RNN": [(1, 2.0), (10, 3.0)], "GRU": [(5, 4.0)]}, "p.png", log="x")
    (axes,) = drawn[0].axes
    assert [list(line.get_xydata()[0]) for line in axes.lines] == [[1, 2], [5, 4]]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")


@pytest.mark.parametrize(
    ("points", "message"),
    [([1], "points by label"), ({}, "no points"), ({"a": []}, "got list in 'a'"), ({"a": [1]}, "(x, y), got 1 in 'a'")],
)
@pytest.mark.parametrize("plot", [plots.plot_trials, plots.plot_points])
def test_what_are_no_points_is_told(plot, points, message):
    with pytest.raises(ValueError) as error:
        plot(points, "p.png")
    assert message in str(error.value)


# Mistakes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--corpus", "nowhere"], "nowhere"),
        (["--poems", "99"], "--poems must be at most"),
        (
            ["--candidates", "0", "--epochs", "-1"],
            "--candidates must be at least 1, got 0; --epochs must be at least 1",
        ),
        (["--tokens", "0"], "--tokens must be at least 1, got 0"),
        (["--times", "nan"], "--times must be a number above 0, got nan"),
        (["--test", "2"], "--test is a share of the held-out verse, above 0 and below 1, got 2"),
        (["--validation", "2"], "expected 0 < share < 1, got 2.0"),
        (["--device", "gpu"], "The device 'gpu' cannot be used here"),
    ],
)
def test_a_mistake_gets_one_sentence_and_exit_code_2(run_search, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as stop:
        run_search(tmp_path / "out", *options)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_another_search_in_the_folder_is_refused(run_search, tmp_path, capsys):
    run_search(tmp_path, "--candidates", 1)
    before = (tmp_path / "search.jsonl").read_bytes()
    for options, message in (
        (["--seed", 1], "seed was 0, is 1"),
        (["--grid", "RNN"], "space.grid was not set, is 'RNN'"),
    ):
        with pytest.raises(SystemExit):
            run_search(tmp_path, "--candidates", 1, *options)
        assert message in capsys.readouterr().err
    assert (tmp_path / "search.jsonl").read_bytes() == before


def test_a_search_in_which_all_fail_says_why(run_search, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_search(tmp_path, "--grid", "LSTM", "--poems", 1)
    assert "None of the 8 candidates has a result; the first: The texts have" in capsys.readouterr().err


def test_quick_runs_on_the_embedded_corpus(tmp_path, capsys):
    run_example("--quick", "--candidates", 2, "--out", tmp_path, example=EXAMPLE)
    assert "poems to learn from" in capsys.readouterr().out
    assert len(trials(tmp_path / "search.jsonl")) == 2
