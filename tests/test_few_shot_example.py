"""Examples in the prompt, compared: the example, run as a user runs it, on tiny models; what it says to mistakes."""

import json
from pathlib import Path

import pytest
import torch
from test_examples import run_example

import minipoet
from minipoet.models.gpt2 import GPT2, GPT2Config
from minipoet.models.qwen2 import Qwen2, Qwen2Config
from minipoet.text.requests import request
from minipoet.tokenization import train_bpe
from minipoet.tokenization.chat import PLAIN

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "few_shot_poems.py"
WORDS = ["снег", "лес", "луна", "роса", "волна", "тропа", "звезда", "река", "гроза", "заря", "туман", "весна"]
SHORT = ("--lines", 2, "--tokens", 16, "--validation", 0.3, "--held-out", 3, "--device", "cpu")


def poem(number: int) -> str:
    """Four lines about one thing, no line twice."""
    word = WORDS[number]
    return "\n".join(f"{word.capitalize()} и {line}{number}" for line in ("ночь", "день", "дом", "сад"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("poems")
    for number, word in enumerate(WORDS):
        (folder / f"{word}.txt").write_text(poem(number), "utf-8")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two tiny untrained models: one that goes on with a text, and one that is asked."""
    texts = [f"Тема: {word}\n{poem(number)}" for number, word in enumerate(WORDS)] + [request(1, "снег", None)]
    folders = []
    for talks in (False, True):
        tokenizer = train_bpe(texts * 3, 420, ("<|endoftext|>", "<|im_start|>", "<|im_end|>")[: 3 if talks else 1])
        torch.manual_seed(0)
        if talks:
            tokenizer.chat = PLAIN
            shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
            shape |= {"num_key_value_heads": 1, "max_position_embeddings": 192, "tie_word_embeddings": True}
            model = Qwen2(Qwen2Config(vocab_size=tokenizer.vocab_size, **shape))
        else:
            model = GPT2(GPT2Config(vocab_size=tokenizer.vocab_size, n_positions=80, n_embd=32, n_layer=1, n_head=2))
        folders.append(tmp_path_factory.mktemp("chat" if talks else "base"))
        minipoet.save(model, tokenizer, folders[-1])
    return folders


def run(*arguments):
    run_example(*arguments, example=EXAMPLE)


def test_each_way_is_measured_on_the_same_poems_and_written_down(models, corpus, tmp_path, capsys):
    run("--model", *models, "--corpus", corpus, "--out", tmp_path, "--shots", 2, 1, *SHORT)
    report, printed = (tmp_path / "report.md").read_text("utf-8"), capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    base, chat = (results["models"][str(folder)] for folder in models)
    assert [(row["shots"], row["by"]) for row in base] == [
        (None, "likeness"), (0, "likeness"), (1, "chance"), (1, "likeness"), (2, "chance"), (2, "likeness"),
    ]  # fmt: skip
    assert [row["shots"] for row in chat] == [0, 1, 1, 2, 2]
    for rows in (base[1:], chat):
        for row in rows:
            assert len(row["written"]) == len(row["fitted"]) == 3
            assert set(row["figures"]) >= {"bits", "chrF", "theme", "syllables off", "ended"}
            assert ("copied" in row["figures"]) == (row["shots"] > 0)
    assert [row["fitted"] for row in chat] == [[0] * 3, [1] * 3, [1] * 3, [2] * 3, [2] * 3]
    assert all(tokens <= 80 - 16 + 1 for row in base for tokens in row["tokens"])
    for line in report.split("\n")[1:]:  # all but the headline
        assert line in printed
    assert report.count("| 2, alike | 2.0 |") >= 1 and "3 held-out poems (0 longer than 16 tokens left out)" in report
    assert report.count("2, alike: bits/char less than with as many of any kind: ") == 2
    poems = (tmp_path / "poems.md").read_text("utf-8")
    assert poems.count("2, alike (") == 6 and "на тему '" in poems


def test_form_is_chosen_and_an_adapter_is_a_second_model(models, corpus, tmp_path):
    model, _ = minipoet.load(models[1])
    minipoet.add_lora(model, rank=2, alpha=64, targets="all-linear", seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    minipoet.save_adapter(model, tmp_path / "adapter")
    run("--model", models[1], "--adapter", tmp_path / "adapter", "--form", "plain", "--corpus", corpus,
        "--out", tmp_path / "out", "--shots", 1, *SHORT)  # fmt: skip
    results = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))["models"]
    base, adapted = results.values()
    assert [row["shots"] for row in base] == [None, 0, 1, 1]  # the plain form has a row without a request
    for one, other in zip(base, adapted, strict=True):
        assert one["tokens"] == other["tokens"]
        assert one["figures"]["bits"]["value"] != other["figures"]["bits"]["value"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lines", 0, "--held-out", 1], "--lines must be at least 1, got 0; --held-out must be at least 2, got 1"),
        (["--shots", 0], "--shots are 1 or more"),
        (["--adapter", "runs/x"], "--adapter belongs to one model: name it by --model"),
        (["--shots", 99], "examples to choose from: 0 to so many, got 99"),
        (["--tokens", 3], "poems have at most 3 tokens"),
        (["--tokens", 79], "ask for fewer new tokens"),
        (["--temperature", -1], "temperature must be"),
        (["--form", "chat"], "has no chat form"),
        (["--corpus", "no/such/folder"], "neither a file or folder nor the name of a corpus"),
    ],
)  # fmt: skip
def test_mistakes_end_in_one_sentence(models, corpus, tmp_path, capsys, arguments, message):
    model = [] if "--adapter" in arguments else ["--model", models[0]]
    with pytest.raises(SystemExit) as end:
        run(*model, "--corpus", corpus, "--out", tmp_path / "out", *SHORT, *arguments)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and "Traceback" not in error
    assert not (tmp_path / "out" / "report.md").exists()
