"""Quantise, measure, show, teach, measure: the whole example on a tiny model and corpus, and on a quantised base."""

import json
from pathlib import Path

import pytest
import torch
from test_compare_bits import base  # noqa: F401  (a fixture)
from test_examples import corpus, run_example  # noqa: F401  (a fixture)

import minipoet
from minipoet.quantization import few_bit_layers

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "gptq_lora.py"
SHORT = ("--steps", 6, "--tokens", 3, "--rows", 2, "--length", 64, "--shots", 1, "--lr", 0.01, "--group-size", 16)


@pytest.fixture(scope="module")
def made(base, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("gptq")
    poems = folder / "poems"
    poems.mkdir()
    for number in range(12):  # none like another, or copies would be dropped
        words = [f"{letter}{'оаиеу'[number % 5]}{'нтлр'[number % 4]}{'ь' * (number % 3)}" for letter in "бвгджзкмпс"]
        text = "\n".join(
            " ".join(words[k % 10] for k in range(line * number, line * number + 4)) for line in range(1, 7)
        )
        (poems / f"{number}.txt").write_text(text + "\n", "utf-8")
    run_example("--base", base, "--corpus", poems, "--out", folder / "run", *SHORT, example=EXAMPLE)
    return folder


def found(folder):
    return json.loads((folder / "results.json").read_text("utf-8"))


def test_both_bases_learn_and_what_is_promised_is_there(made):
    run = made / "run"
    bases = found(run)["bases"]
    assert list(bases) == ["full precision", "quantised"]
    assert all(of["after"]["loss"] < of["before"]["loss"] for of in bases.values())
    errors = found(run)["errors"]
    assert errors and all(0 < error < 0.1 for error in errors.values())
    assert {path.name for path in run.iterdir()} >= {"report.md", "poems.md", "loss.png", "model", "quantised"}
    assert "# Shown 1 poems, not taught" in (run / "poems.md").read_text("utf-8")


def test_the_quantised_model_and_its_adapter_load_again(made):
    run = made / "run"
    model, tokenizer = minipoet.load(run / "model")
    layers = dict(few_bit_layers(model))
    assert len(layers) == 4 * len(model.blocks)
    ids = torch.tensor([tokenizer.encode("река")])
    before = model(ids)
    minipoet.load_adapter(model, run / "quantised")
    assert not torch.equal(model(ids), before)


def test_a_quantised_base_is_taken_as_it_is(made, tmp_path, capsys):
    arguments = ("--base", made / "run" / "model", "--corpus", made / "poems", "--out", tmp_path, *SHORT)
    run_example(*arguments, example=EXAMPLE)
    bases = found(tmp_path)["bases"]
    assert list(bases) == ["quantised"]
    assert bases["quantised"]["before"]["loss"] == found(made / "run")["bases"]["quantised"]["before"]["loss"]
    assert not (tmp_path / "model").exists()
    assert found(tmp_path)["errors"] == {}


def test_no_text_is_needed_to_round_to_nearest(made, base, tmp_path):  # noqa: F811
    arguments = ("--base", base, "--corpus", made / "poems", "--out", tmp_path, *SHORT, "--method", "nf4")
    run_example(*arguments, "--no-compare", example=EXAMPLE)
    assert list(found(tmp_path)["bases"]) == ["quantised"]
    assert not (tmp_path / "model").exists()  # files of GPTQ have no place for NF4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--group-size", 0), "group_size"), (("--rank", 0), "rank"), (("--corpus", "nowhere"), "nowhere")],
)
def test_a_mistake_is_one_sentence(base, tmp_path, capsys, arguments, message):  # noqa: F811
    with pytest.raises(SystemExit):
        run_example("--base", base, "--out", tmp_path, "--no-compare", *arguments, example=EXAMPLE)
    assert message in capsys.readouterr().err
