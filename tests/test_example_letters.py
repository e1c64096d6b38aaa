"""The letters' example and the comparison of models, run as a user runs them; what they say to mistakes."""

import json
import math
import runpy
from pathlib import Path

import pytest
import torch
from test_examples import run_example

import minipoet
from minipoet.evaluation import fair_bits, likelihood
from minipoet.text import drop_duplicates, read_poems, split_by_work
from minipoet.tokenization import CharTokenizer, encode_texts
from minipoet.training import read_history

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
LETTERS, COMPARE = EXAMPLES / "char_rnn_yesenin.py", EXAMPLES / "compare_models.py"
TINY = ("--hidden", 16, "--rows", 4, "--evaluate-every", 5)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Twenty poems of a few words, always in the same order: something to learn."""
    folder = tmp_path_factory.mktemp("poems")
    for number in range(20):
        lines = [f"дом и сад {number}", "сад и лес", "лес и дом"] * 3
        (folder / f"poem{number:02}.txt").write_text("\n".join(lines), "utf-8")
    return folder


def held_out(corpus):
    split = split_by_work(drop_duplicates(read_poems(corpus))[0], 0.1, 0)
    return [poem.text for poem in split.validation]


@pytest.fixture(scope="module")
def letters(corpus, tmp_path_factory):
    """A finished run of the letters' example."""
    out = tmp_path_factory.mktemp("run")
    sampling = ("--prompt", "сад и", "--letters", 12, "--samples", 3, "--length", 16)
    run_example("--corpus", corpus, "--out", out, *TINY, *sampling, "--steps", 60, "--lr", 0.02, example=LETTERS)
    return out


def test_the_letters_example_learns_and_its_model_measures_as_it_says(corpus, letters):
    figures = json.loads((letters / "results.json").read_text("utf-8"))
    _, values = read_history(letters / "history.jsonl").curve("validation")
    assert values[-1] < values[0] - 2
    assert figures["bits_per_character"] == min(values)
    model, tokenizer = minipoet.load(letters / "model")
    texts = held_out(corpus)
    ids = encode_texts(tokenizer, texts)
    found = likelihood(model, ids, sum(map(len, texts)), 1024, breaks=tokenizer.encode("\n"))
    assert fair_bits(found, tokenizer, texts) == pytest.approx(min(values), abs=1e-6)


def test_poems_of_all_temperatures_begin_with_the_prompt(letters):
    text = (letters / "samples.md").read_text("utf-8")
    assert [line for line in text.split("\n") if line.startswith("##")] == [
        f"## temperature {t}" for t in ("0.3", "0.5", "0.8", "1")
    ]
    assert text.count("> сад и") >= 12  # three poems at each of four temperatures; a line may repeat it
    assert {path.name for path in letters.iterdir()} >= {"model", "history.jsonl", "loss.png", "results.json"}


def test_a_prompt_with_unseen_letters_is_refused_before_anything_is_trained(corpus, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_example("--corpus", corpus, "--prompt", "дом q Q", "--out", tmp_path / "out", example=LETTERS)
    assert "letters that the corpus lacks: Q q" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_window_longer_than_the_text_is_answered(corpus, tmp_path, capsys):
    arguments = ("--corpus", corpus, "--length", 10_000, "--prompt", "дом", "--out", tmp_path / "out")
    with pytest.raises(SystemExit):
        run_example(*arguments, example=LETTERS)
    assert "take windows of at most" in capsys.readouterr().err


def test_the_share_of_known_words_is_counted_by_hand():
    known_words = runpy.run_path(str(LETTERS))["known_words"]
    assert known_words(["Дом, ёлка\nлес", "дым"], {"дом", "елка", "лес"}) == 3 / 4
    assert known_words([""], {"дом"}) == 0


@pytest.fixture(scope="module")
def table(corpus, letters, tmp_path_factory):
    """A finished comparison: a word and a BPE model trained, the letters' one loaded."""
    out = tmp_path_factory.mktemp("table")
    sizes = ("--steps", 10, "--bpe", 300, "--orders", 1, 2, "--models", "words-gru", "bpe-lstm")
    run_example("--corpus", corpus, "--out", out, *TINY, *sizes, "--load", f"ours={letters / 'model'}", example=COMPARE)
    return out


def rows_of(out):
    return {row["model"]: row for row in json.loads((out / "results.json").read_text("utf-8"))["rows"]}


def test_the_table_has_each_model_once_and_measures_a_loaded_one_as_its_own_run_did(letters, table):
    rows = rows_of(table)
    assert set(rows) == {"letters, 1-gram", "letters, 2-gram", "ours", "words-gru", "bpe-lstm", "poet-tiny"}
    figures = json.loads((letters / "results.json").read_text("utf-8"))
    assert rows["ours"]["bits"] == pytest.approx(figures["bits_per_character"], abs=1e-6)
    lines = (table / "table.md").read_text("utf-8").strip().split("\n")
    assert len(lines) == 2 + len(rows)
    bits = [float(line.split("|")[6]) for line in lines[2:]]
    assert bits == sorted(bits, reverse=True)


def test_a_unigram_costs_what_counting_says(corpus, table):
    texts = [poem.text for poem in split_by_work(drop_duplicates(read_poems(corpus))[0], 0.1, 0).train]
    tokenizer = CharTokenizer.from_texts(texts, unk=True)
    counts = torch.bincount(torch.tensor([i for ids in encode_texts(tokenizer, texts) for i in ids[1:]]),
                            minlength=tokenizer.vocab_size)  # fmt: skip
    seen = int((counts > 0).sum())
    p = (counts + seen / tokenizer.vocab_size) / (counts.sum() + seen)  # Witten-Bell, down to the uniform 1/V
    measured = [i for ids in encode_texts(tokenizer, held_out(corpus)) for i in ids[1:]]
    bits = -sum(math.log2(p[i]) for i in measured) / len(measured)
    assert rows_of(table)["letters, 1-gram"]["bits"] == pytest.approx(bits, abs=1e-4)


def test_a_second_comparison_trains_nothing_again(corpus, table, capsys):
    before = {path: path.stat().st_mtime_ns for path in table.rglob("*.safetensors")}
    sizes = ("--steps", 10, "--bpe", 300, "--orders", 1, "--models", "words-gru", "bpe-lstm")
    rows = rows_of(table)
    run_example("--corpus", corpus, "--out", table, *TINY, *sizes, example=COMPARE)
    assert "words-gru: as it is in" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in table.rglob("*.safetensors")} == before
    assert rows_of(table)["words-gru"]["bits"] == pytest.approx(rows["words-gru"]["bits"], abs=1e-9)


def test_load_without_a_folder_is_answered(capsys):
    with pytest.raises(SystemExit):
        run_example("--load", "letters-lstm", example=COMPARE)
    assert "--load takes NAME=FOLDER" in capsys.readouterr().err
