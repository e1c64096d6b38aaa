"""The example of full fine-tuning, run as a user runs it, on a tiny base; when it warns; what it says to mistakes."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from reference_data import reference
from test_gpt2 import tiny

import minipoet
import minipoet.training
from minipoet.evaluation import likelihood
from minipoet.text import hold_out, read_prose
from minipoet.tokenization import encode_texts
from minipoet.training import Batches, History

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "finetune_prose.py"
INSIDE = runpy.run_path(str(EXAMPLE))
FILES = {"history.jsonl", "loss.png", "samples.md", "results.json", "model"}


def run_example(*arguments):
    old, sys.argv = sys.argv, [str(EXAMPLE), *map(str, arguments)]
    try:
        runpy.run_path(str(EXAMPLE), run_name="__main__")
    finally:
        sys.argv = old


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny untrained model with the recorded tokenizer."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = minipoet.load_tokenizer(reference("tokenizer"))
    minipoet.save(tiny(vocab_size=tokenizer.vocab_size + 7, n_positions=64), tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Six works of nonsense, eleven paragraphs each, in a folder."""
    folder = tmp_path_factory.mktemp("works")
    for number in range(6):
        lines = [" ".join(f"{letter}{number}{word}" for word in "абв") for letter in "клмнопрстуф"]
        (folder / f"Повесть {number}.txt").write_text("\n\n".join(lines), "utf-8")
    return folder


@pytest.fixture
def short(base, corpus):
    """Arguments of a run of a second."""
    return ("--base", base, "--corpus", corpus, "--length", 64, "--rows", 2, "--tokens", 10, "--opening", "к0а к0б")


def figures_of(out):
    return json.loads((out / "results.json").read_text("utf-8"))


def test_it_teaches_all_parameters_and_the_saved_model_measures_as_it_says(base, corpus, short, tmp_path, capsys):
    run_example(*short, "--out", tmp_path, "--epochs", 0.7, "--lr", 0.02)
    figures = figures_of(tmp_path)
    assert figures["prose"]["after"]["loss"] < figures["prose"]["before"]["loss"] - 0.5
    assert figures["turned"] is None
    assert {path.name for path in tmp_path.iterdir()} >= FILES
    model, tokenizer = minipoet.load(tmp_path / "model")
    held_out = hold_out(read_prose(corpus))[0].validation
    ids, characters = encode_texts(tokenizer, [w.text for w in held_out]), sum(len(w.text) for w in held_out)
    found = likelihood(model, ids, characters, 64)
    assert found.loss == pytest.approx(figures["prose"]["after"]["loss"], rel=1e-5)
    assert found.bits_per_character == pytest.approx(figures["prose"]["after"]["bits_per_character"], rel=1e-5)
    before = dict(minipoet.load(base)[0].named_parameters())
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert figures["parameters"] == sum(p.numel() for p in model.parameters())
    printed = capsys.readouterr().out
    assert f"{figures['verse']['after']['bits_per_character']:.3f}" in printed
    assert "did not turn" in printed and "WARNING" not in printed


def test_with_a_rate_of_zero_before_and_after_are_equal_continuations_too(short, tmp_path):
    run_example(*short, "--out", tmp_path, "--lr", 0, "--opening", "к0а", "м1б м1в")
    figures = figures_of(tmp_path)
    assert figures["prose"]["before"] == figures["prose"]["after"]
    assert figures["verse"]["before"] == figures["verse"]["after"]
    sides = (tmp_path / "samples.md").read_text("utf-8").replace("**before**", "**after**").split("**after**\n")
    assert len(sides) == 5
    assert sides[1].strip() == sides[2].partition("## ")[0].strip()
    assert sides[3].strip() == sides[4].strip()


def test_a_run_that_is_too_long_warns_and_keeps_the_best_weights(short, tmp_path, capsys):
    run_example(*short, "--out", tmp_path, "--epochs", 12, "--lr", 0.05, "--schedule", "constant")
    figures, printed = figures_of(tmp_path), capsys.readouterr().out
    turned = figures["turned"]
    assert 0 < turned["step"] == figures["kept_step"] < figures["steps"]
    assert turned["last"] > turned["least"] + 0.01
    assert figures["prose"]["after"]["loss"] == pytest.approx(turned["least"], abs=0.02)  # bf16 on some machines
    assert f"WARNING: the validation loss turned at step {turned['step']} " in printed
    assert f"Kept: the weights of step {turned['step']}." in printed
    assert f"--epochs {turned['step'] / figures['steps_an_epoch']:.2g}" in printed


def test_the_warning_says_so_when_the_base_itself_was_best():
    text = INSIDE["warning"](INSIDE["Turn"](0, 4.0, 4.5), 10)
    assert "those of the base" in text and "much smaller --lr" in text and "--epochs" not in text


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([5.0, 4.0, 3.5, 3.4], None),
        ([5.0, 4.0, 3.5, 3.505], None),  # a rise of 0.005 is no turn
        ([5.0, 4.2, 3.5, 4.0, 3.9], (20, 3.5, 3.9)),
        ([5.0, 5.2, 4.0], None),  # it rose and fell again
        ([5.0, 5.1], (0, 5.0, 5.1)),
    ],
)
def test_the_loss_turned_if_it_ended_above_its_least(values, expected):
    history = History()
    for number, value in enumerate(values):
        history.add(step=10 * number, validation=value)
    assert INSIDE["turn"](history) == expected


def test_epochs_are_counted_in_batches():
    batches = Batches([[1, 2, 3, 4, 5]] * 10, length=4, rows=2)  # ten rows, five batches an epoch
    assert [INSIDE["steps_of"](batches, epochs) for epochs in (1, 3, 0.4, 2.55, 0.01)] == [5, 15, 2, 13, 1]


def test_a_resumed_run_is_the_undisturbed_one(short, tmp_path, monkeypatch, capsys):
    arguments = (*short, "--lr", 0.02, "--precision", "fp32")
    run_example(*arguments, "--out", tmp_path / "whole")
    plain = minipoet.training.train
    monkeypatch.setattr(minipoet.training, "train", lambda *a, **k: plain(*a, **k, stop_after=3))
    run_example(*arguments, "--out", tmp_path / "halves")
    monkeypatch.setattr(minipoet.training, "train", plain)
    with pytest.raises(SystemExit):
        run_example(*arguments, "--out", tmp_path / "halves")
    assert "unfinished run (step 3 of" in capsys.readouterr().err
    run_example(*arguments, "--out", tmp_path / "halves", "--resume")
    for name in ("prose", "verse", "turned", "kept_step", "steps"):
        assert figures_of(tmp_path / "halves")[name] == figures_of(tmp_path / "whole")[name]


def test_works_are_held_out_by_name(short, tmp_path, capsys):
    run_example(*short, "--out", tmp_path, "--hold-out", "повесть 2", "Повесть 5", "--gradient-checkpointing")
    assert "6 works, 524 characters to learn from, 262 held out" in capsys.readouterr().out


def test_quick_runs_on_the_embedded_base_and_prose(tmp_path):
    run_example("--quick", "--rows", 2, "--tokens", 5, "--out", tmp_path)
    assert figures_of(tmp_path)["steps"] == 6
    assert minipoet.load(tmp_path / "model")[0].context == 256


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--corpus", "pushkin"], "the names are embedded and pushkin-prose"),
        (["--corpus", "embedded", "--author", "Гоголь"], "--author chooses among the works of a .jsonl"),
        (["--hold-out", "Повесть 9"], "no work is called «Повесть 9»; there are «Повесть 0»"),
        (["--hold-out", "Повесть 2", "--validation", "0.2"], "--validation would do nothing"),
        (["--validation", "2"], "0 < share < 1"),
        (["--epochs", "0"], "--epochs must be above 0"),
        (["--epochs", "inf"], "--epochs must be above 0"),
        (["--warmup", "1"], "--warmup in [0, 1)"),
        (["--lr", "-1"], "lr must be"),
        (["--rows", "0"], "rows ≥ 1"),
        (["--patience", "-1"], "patience"),
        (["--base", "nowhere"], "no folder 'nowhere'"),
        (["--opening", ""], "prompt"),
        (["--opening", "слово " * 200], "at most 64"),
        (["--temperature", "-1"], "temperature"),
    ],
)
def test_a_mistake_gets_one_sentence_and_exit_code_2(short, tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        run_example(*short, "--out", tmp_path / "out", *arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "error: " in error and message in error and "Traceback" not in error
    assert not (tmp_path / "out" / "model").exists()
