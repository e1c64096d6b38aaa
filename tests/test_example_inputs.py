"""The comparison of inputs, run as a user runs it on a tiny corpus; and what a mistake is told."""

import json
from pathlib import Path

import pytest
import torch
from test_example_vocabulary import load_example
from test_example_words import verse  # noqa: F401  (a fixture)
from test_examples import run_example

from minipoet.tokenization import WordTokenizer

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "compare_inputs.py"

PROSE = "Абзац, который ни одной строки стихов не приводит и притом длиннее всякой строки: его не тронут."


@pytest.fixture(scope="module")
def inputs():
    return load_example(EXAMPLE)


def compare(verse, out, *options):  # noqa: F811
    run_example("--corpus", verse, "--out", out, "--width", 8, "--hidden", 12, "--rows", 2, "--length", 8,
                "--steps", 20, "--evaluations", 2, "--seeds", 0, "--words", "ночь", "--lr", 0.02,
                "--device", "cpu", *options, example=EXAMPLE)  # fmt: skip


def test_the_example_compares_all_inputs_and_goes_on_where_it_was(verse, inputs, tmp_path, capsys):  # noqa: F811
    compare(verse, tmp_path, "--vectors-corpus", "embedded")
    printed = capsys.readouterr().out
    assert "word2vec also reads" in printed
    assert "A batch of ids is 16 numbers, one of vectors as wide as the vocabulary 208 (0.0 MB)" in printed
    found = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert list(found["runs"]) == list(inputs.KINDS)
    V, H, C = found["vocabulary"], 12, 8
    shared = 4 * H * H + 2 * 4 * H + H * V + V  # what comes back, biases, head
    sizes = {name: (runs[0]["parameters"], runs[0]["trainable"]) for name, runs in found["runs"].items()}
    embedded = shared + V * C + 4 * H * C
    assert sizes == {
        "label": (shared + 4 * H,) * 2, "one-hot": (shared + 4 * H * V,) * 2, "bag": (shared + 4 * H * V,) * 2,
        "embedding": (embedded,) * 2, "word2vec, frozen": (embedded, embedded - V * C),
        "word2vec, trained further": (embedded,) * 2,
    }  # fmt: skip
    for (run,) in found["runs"].values():
        steps, values = run["curve"]
        assert steps == [0, 10, 20]
        assert min(values) == pytest.approx(run["loss"]) and values[0] > 2.3 > run["loss"]
    stages = ["embedding", "word2vec, before", "word2vec, trained further"]
    assert list(found["neighbours"]["ночь"]) == stages
    assert all("ночь" not in dict(near) for near in found["neighbours"]["ночь"].values())
    assert (tmp_path / "report.md").read_text("utf-8") in printed
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")

    before = (tmp_path / "bag-0" / "history.jsonl").read_bytes()
    compare(verse, tmp_path, "--vectors-corpus", "embedded", "--resume", "--words", "снег", "Хлодвиг")
    assert (tmp_path / "bag-0" / "history.jsonl").read_bytes() == before
    assert "note: no neighbours of Хлодвиг: seen fewer than 10 times" in capsys.readouterr().out
    again = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert list(again["neighbours"]) == ["снег"]
    assert all(again["runs"][name][0]["loss"] == found["runs"][name][0]["loss"] for name in sizes)


def test_inputs_without_vectors_need_no_word2vec(verse, tmp_path, capsys):  # noqa: F811
    compare(verse, tmp_path, "--inputs", "label", "bag", "--quick")
    assert list(json.loads((tmp_path / "results.json").read_text("utf-8"))["runs"]) == ["label", "bag"]
    assert "word2vec" not in capsys.readouterr().out


def test_prose_that_quotes_held_out_verse_is_left_out(inputs, tmp_path):
    (tmp_path / "prose.txt").write_text("Он сказал: ночь и день и снег.\n" + PROSE, "utf-8")
    (text,) = inputs.prose_for_vectors(str(tmp_path / "prose.txt"), ["ночь и день\nночь и день и снег"])
    assert text.strip() == PROSE


def test_neighbours_are_those_that_point_the_same_way(inputs):
    tokenizer = WordTokenizer(["ночь", "сон", "дом", ","])
    table = torch.zeros(10, 2)
    for token, row in (("ночь", (1, 0)), ("сон", (3, 4)), ("дом", (0, 1)), (",", (1, 0))):
        table[tokenizer.vocab[token]] = torch.tensor(row)
    often = [tokenizer.vocab[word] for word in ("ночь", "сон", "дом")]
    text, found = inputs.neighbours({"before": table}, ["ночь"], tokenizer, often)
    assert [word for word, _ in found["ночь"]["before"]] == ["сон", "дом"]
    assert text.splitlines()[-1] == "| ночь | сон 0.60, дом 0.00 |"


def test_only_words_that_come_often_are_neighbours(inputs):
    texts = ["ночь, " * 10, "сон " * 9, "дом " * 11]
    tokenizer = WordTokenizer.from_texts(texts)
    assert inputs.frequent_words(tokenizer, texts) == [tokenizer.vocab["дом"], tokenizer.vocab["ночь"]]


def test_spread_is_of_several_seeds(inputs):
    assert inputs.spread([1.0, 3.0], 2) == "2.00 ± 1.41"
    assert inputs.spread([1.0], 3) == "1.000"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--corpus", "nowhere"], "nowhere: neither a file or folder nor"),
        (["--vectors-corpus", "nowhere"], "nowhere: neither a file or folder nor the name of a corpus of prose"),
        (["--min-count", "1", "--steps", "0"], "--steps must be at least 1, got 0; --min-count must be at least 2"),
        (["--min-count", "1000"], "The vocabulary would be empty"),
        (["--length", "1000"], "take windows of at most"),
        (["--bag", "0", "--inputs", "bag"], "window = 0 must be"),
        (["--seeds", "-1", "--inputs", "label"], "seed"),
    ],
)
def test_a_mistake_gets_one_sentence_and_exit_code_2(verse, tmp_path, capsys, options, message):  # noqa: F811
    with pytest.raises(SystemExit) as stop:
        compare(verse, tmp_path / "out", *options)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_finished_runs_of_other_settings_are_not_taken_for_these(verse, tmp_path, capsys):  # noqa: F811
    compare(verse, tmp_path, "--inputs", "label", "--steps", 2)
    with pytest.raises(SystemExit):
        compare(verse, tmp_path, "--inputs", "label", "--steps", 3, "--resume")
    assert "steps" in capsys.readouterr().err
