"""The main example, run as a user runs it, on a tiny base; and what it says to a user's mistakes."""

import argparse
import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from reference_data import reference
from test_gpt2 import tiny

import minipoet

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "lora_pushkin.py"


def run_example(*arguments, example=EXAMPLE):
    """As `python examples/….py …` runs it: modules are looked for in the folder of the example first."""
    argv, path = sys.argv, sys.path
    sys.argv, sys.path = [str(example), *map(str, arguments)], [str(example.parent), *path]
    try:
        runpy.run_path(str(example), run_name="__main__")
    finally:
        sys.argv, sys.path = argv, path


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny untrained model with the recorded tokenizer."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = minipoet.load_tokenizer(reference("tokenizer"))
    minipoet.save(tiny(vocab_size=tokenizer.vocab_size + 7, n_positions=96), tokenizer, folder)
    return folder


@pytest.fixture
def corpus(tmp_path):
    """Twelve poems of nonsense in a folder."""
    folder = tmp_path / "poems"
    folder.mkdir()
    for number in range(12):
        words = [f"слово{number}{letter}" for letter in "абвгдежз"]
        (folder / f"poem{number}.txt").write_text("\n".join(f"{a} {b}" for a in words for b in words[:2]), "utf-8")
    return folder


def test_the_main_example_teaches_and_leaves_what_it_promises(base, corpus, tmp_path, capsys):
    out = tmp_path / "run"
    arguments = ("--base", base, "--corpus", corpus, "--out", out, "--length", 64, "--tokens", 10, "--rows", 2)
    run_example(*arguments, "--steps", 8, "--lr", 0.02, "--prompts", "слово", "слово1а слово1б\nслово1в")
    figures = json.loads((out / "results.json").read_text())
    assert figures["after"]["bits_per_character"] < figures["before"]["bits_per_character"]
    printed = capsys.readouterr().out
    assert f"{figures['after']['perplexity']:.3f}" in printed
    assert "with LoRA" in printed
    assert {p.name for p in out.iterdir()} >= {"adapter_config.json", "history.jsonl", "loss.png", "samples.md"}
    model = minipoet.load_adapter(minipoet.load(base)[0], out)
    torch.manual_seed(0)
    assert not torch.equal(model(torch.arange(8)[None]), minipoet.load(base)[0](torch.arange(8)[None]))


def test_quick_runs_on_the_embedded_base_and_corpus(tmp_path):
    run_example("--quick", "--steps", 2, "--rows", 2, "--tokens", 5, "--out", tmp_path)
    assert (tmp_path / "adapter_model.safetensors").exists()


def test_full_fine_tuning_trains_all_and_saves_a_whole_model(base, corpus, tmp_path):
    out = tmp_path / "run"
    run_example("--base", base, "--corpus", corpus, "--out", out, "--length", 64, "--tokens", 5, "--rows", 2,
                "--full", "--steps", 6, "--lr", 0.02, "--evaluate-every", 3, "--poems", 4)  # fmt: skip
    figures = json.loads((out / "results.json").read_text("utf-8"))
    assert figures["trainable"] == figures["parameters"] == minipoet.count_parameters(minipoet.load(base)[0]).all
    assert (figures["train_poems"], figures["steps"], figures["settings"]["full"]) == (4, 6, True)
    events = [json.loads(line) for line in (out / "history.jsonl").read_text("utf-8").splitlines()]
    validation = {event["step"]: event["validation"] for event in events if "validation" in event}
    assert list(validation) == [0, 3, 6]
    assert validation[figures["best_step"]] == min(validation.values())
    assert not (out / "adapter_config.json").exists()
    ids = torch.arange(8)[None]
    assert not torch.equal(minipoet.load(out / "model")[0](ids), minipoet.load(base)[0](ids))


def test_a_prefix_instead_of_lora(base, corpus, tmp_path):
    run_example("--base", base, "--corpus", corpus, "--out", tmp_path, "--length", 64, "--tokens", 5, "--rows", 2,
                "--prefix", 4, "--projection", "--hidden", 8, "--steps", 4, "--lr", 0.02)  # fmt: skip
    figures = json.loads((tmp_path / "results.json").read_text("utf-8"))
    model = minipoet.load_adapter(minipoet.load(base)[0], tmp_path)
    assert minipoet.count_parameters(model).trainable == figures["trainable"]
    assert model.adapters["default"]["prefix"].hidden == 8


def test_seeds_draw_other_poems_to_learn_from(corpus):
    example = runpy.run_path(str(EXAMPLE))
    drawn = []
    for seed in (0, 0, 1):
        options = {"corpus": str(corpus), "author": None, "validation": 0.2, "split_seed": 0, "poems": 4, "seed": seed}
        drawn.append([poem.title for poem in example["read"](argparse.Namespace(**options))[0]])
    assert drawn[0] == drawn[1] != drawn[2]
    assert [len(set(titles)) for titles in drawn] == [4, 4, 4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--corpus", "nowhere"], "nowhere"),
        (["--base", "nowhere"], "no folder 'nowhere'"),
        (["--targets", "q_proj"], "'q_proj' matches no layer"),
        (["--temperature", "-1"], "temperature"),
        (["--rank", "0"], "rank"),
        (["--lr", "-1"], "lr"),
        (["--prompts", ""], "prompt"),
        (["--prompts", "слово " * 200], "at most 96"),
        (["--validation", "2"], "validation"),
        (["--full", "--rank", "4", "--targets", "attn.qkv"], "--rank, --targets would do nothing"),
        (["--full", "--prefix", "4"], "give one of them"),
        (["--prefix", "4", "--rank", "4"], "--rank would do nothing with --prefix"),
        (["--init", "zero"], "--init would do nothing with LoRA"),
        (["--prefix", "96"], "leaves no room"),
        (["--prefix", "0"], "at least 1"),
        (["--poems", "0"], "from 1 to"),
        (["--poems", "13"], "from 1 to"),
    ],
)
def test_a_mistake_gets_one_sentence_and_exit_code_2(base, corpus, tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        run_example("--base", base, "--corpus", corpus, "--length", 64, "--steps", 2, "--tokens", 5,
                    "--out", tmp_path / "out", *arguments)  # fmt: skip
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "error: " in error
    assert message in error
    assert "Traceback" not in error
