"""The example of three poets, run as a user runs it, on a tiny chat model; and what it says to mistakes."""

import json
from pathlib import Path

import pytest
import torch
from test_examples import run_example

import minipoet
from minipoet.adapters import load_adapter
from minipoet.generation.answers import chat_many
from minipoet.models.qwen2 import Qwen2, Qwen2Config
from minipoet.text.requests import request
from minipoet.tokenization import train_bpe
from minipoet.tokenization.chat import PLAIN

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "qwen_lora_poets.py"
WORDS = {"Пушкин": "роза муза лира нега", "Фет": "трель тень соловей ночь", "Блок": "вьюга звон дым маска"}
SHORT = ("--steps", 4, "--rows", 2, "--length", 160, "--tokens", 12, "--samples", 2, "--rank", 2, "--no-open")


def poem(name: str, number: int) -> str:
    """Two quatrains of the poet's own words, no line twice."""
    words = WORDS[name].split()
    lines = [f"{words[i % 4]} {words[(i + number) % 4]} {number}{i}".capitalize() for i in range(8)]
    return "\n".join([*lines[:4], "", *lines[4:]])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny untrained model of Qwen2's shape that knows the markers of a conversation."""
    folder = tmp_path_factory.mktemp("base")
    texts = [poem(name, number) for name in WORDS for number in range(8)] + [
        "user\n",
        request(4, "осень", "Пушкина"),
    ] * 5
    tokenizer = train_bpe(texts, 420, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    tokenizer.chat = PLAIN
    config = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config |= {"num_key_value_heads": 2, "max_position_embeddings": 192, "tie_word_embeddings": True}
    torch.manual_seed(0)
    minipoet.save(Qwen2(Qwen2Config(vocab_size=tokenizer.vocab_size, **config)), tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """Two poets in one file of records, and a third in a folder."""
    folder = tmp_path_factory.mktemp("poems")
    records = [
        {"author": name, "title": f"Песнь о {WORDS[name].split()[0]} {number}", "text": poem(name, number)}
        for name in ("Пушкин", "Фет")
        for number in range(24)
    ]
    lines = (json.dumps(record, ensure_ascii=False) for record in records)
    (folder / "poems.jsonl").write_text("\n".join(lines), "utf-8")
    (folder / "third").mkdir()
    for number in range(24):
        (folder / "third" / f"{number}.txt").write_text(poem("Блок", number), "utf-8")
    return folder


@pytest.fixture
def poets(corpora):
    return (
        "--poets",
        f"Пушкин={corpora / 'poems.jsonl'}",
        f"Фет={corpora / 'poems.jsonl'}",
        f"Блок={corpora / 'third'}",
    )


def test_it_teaches_an_adapter_a_poet_and_leaves_the_page(base, poets, tmp_path, capsys):
    run_example("--base", base, *poets, *SHORT, "--lr", 0.03, "--out", tmp_path, example=EXAMPLE)
    figures = json.loads((tmp_path / "results.json").read_text("utf-8"))
    for name in WORDS:
        assert figures["measured"][name]["after"]["loss"] < figures["measured"][name]["before"]["loss"]
        assert set(figures["logged"][name][-1]) >= {"loss", "grad_norm", "entropy", "num_tokens", "mean_token_accuracy"}
        assert (tmp_path / name / "adapter_model.safetensors").exists()
    page = (tmp_path / "page.html").read_text("utf-8")
    assert all(name in page for name in WORDS) and "вдохновение" in page
    shown = capsys.readouterr().out
    assert "24" not in shown.split("\n")[0]  # what is learnt from is not all there is
    assert "Блок" in shown and "осень" in shown

    # The adapters on disk write the poems that the results hold.
    model, tokenizer = minipoet.load(base)
    load_adapter(model, tmp_path / "Фет", name="Фет")
    found = figures["poems"]["Фет"][0]
    settings = {"max_new_tokens": 12, "temperature": 0.8, "top_p": 0.95, "seed": 0}
    asked = [pair["request"] for name in WORDS for pair in figures["poems"][name]]
    again = chat_many(model, tokenizer, asked, samples=2, adapters=["Фет"] * len(asked), **settings)
    assert again[asked.index(found["request"])][0].continuation == found["adapted"][0]["text"]


def test_base_and_adapted_are_asked_the_same_with_the_same_seed(base, poets, tmp_path):
    run_example("--base", base, *poets, *SHORT, "--themes", "снег", "--out", tmp_path, example=EXAMPLE)
    pairs = json.loads((tmp_path / "results.json").read_text("utf-8"))["poems"]
    (pair,) = pairs["Пушкин"]
    assert pair["request"] == "Напиши стихотворение из 4 четверостиший на тему 'снег' в стиле поэта Пушкина"
    assert [sample["seed"] for sample in pair["base"]] == [sample["seed"] for sample in pair["adapted"]]


def test_an_interrupted_run_is_gone_on_with(base, poets, tmp_path):
    arguments = ("--base", base, *poets, *SHORT, "--themes", "снег")
    run_example(*arguments, "--out", tmp_path / "whole", example=EXAMPLE)
    run_example(*arguments, "--out", tmp_path / "again", example=EXAMPLE)
    run_example(*arguments, "--out", tmp_path / "again", "--resume", example=EXAMPLE)  # all is finished already
    whole, again = (json.loads((tmp_path / name / "results.json").read_text("utf-8")) for name in ("whole", "again"))
    assert whole["measured"] == again["measured"] and whole["poems"] == again["poems"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--poets", "Пушкин"], "--poets takes NAME=CORPUS, as in Пушкин=embedded"),
        (["--poets", "Пушкин=embedded", "Пушкин=embedded"], "--poets names Пушкин twice"),
        (["--poets", "Пушкин=embedded", "Фет=nowhere"], "nowhere: neither a file or folder nor the name of a corpus"),
        (["--poets", "Poe=embedded"], "The poet must be a surname of Cyrillic letters, got 'Poe'"),
        (["--base", "poet-tiny"], "This model has no chat form"),
    ],
)
def test_mistakes_are_told_in_a_sentence(arguments, said, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_example("--out", tmp_path / "run", *arguments, example=EXAMPLE)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error
    assert not (tmp_path / "run").exists()


def test_an_author_with_too_few_poems_is_told_with_the_number(corpora, base, tmp_path, capsys):
    few = tmp_path / "few.txt"
    few.write_text("\n***\n".join(poem("Фет", number) for number in range(3)), "utf-8")
    with pytest.raises(SystemExit):
        run_example("--base", base, "--poets", f"Фет={few}", "--out", tmp_path / "run", example=EXAMPLE)
    assert "Фет has 3 poems, but 20 are needed at least" in capsys.readouterr().err


def test_one_poet_is_told_that_the_judge_needs_two(base, corpora, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_example("--base", base, "--poets", f"Блок={corpora / 'third'}", "--out", tmp_path / "run", example=EXAMPLE)
    assert "two poets" in capsys.readouterr().err
