"""Choosing a vocabulary: the examples, run as a user runs them, on a tiny base; and what a mistake is told."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from test_examples import base, corpus, run_example  # noqa: F401  (two fixtures)

import minipoet
from minipoet.generation import Continuation, SamplingSettings
from minipoet.tokenization import train_bpe

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "choose_vocabulary.py"
WRITE = EXAMPLE.with_name("write_corpus.py")


def load_example(path):
    sys.path.insert(0, str(path.parent))
    try:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


@pytest.fixture(scope="module")
def choose():
    return load_example(EXAMPLE)


@pytest.fixture(scope="module")
def write():
    return load_example(WRITE)


def choose_size(base, corpus, out, *options):  # noqa: F811
    run_example("--base", base, "--corpus", corpus, "--out", out, "--generated-bytes", 2000, "--device", "cpu",
                *options, example=EXAMPLE)  # fmt: skip


def test_the_example_leaves_what_it_promises_and_does_not_write_again(base, corpus, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "run"
    choose_size(base, corpus, out, "--n", 9)
    printed = capsys.readouterr().out
    names = ["generated.json", "ranks.png", "rare.png", "report.md", "results.json", "rising.png", "vocabularies.png"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in names if name.endswith("png"))
    found = json.loads((out / "results.json").read_text("utf-8"))
    rows = found["vocabularies"]
    assert (rows[0]["vocabulary"], rows[-1]["vocabulary"]) == ("letters", "words")
    chosen = next(row for row in rows if (row["vocabulary"], row["size"]) == ("BPE", found["chosen"]))
    assert chosen["9 times or more, %"] >= 95
    assert f"Chosen: {found['chosen']:,} tokens" in printed
    assert (out / "report.md").read_text("utf-8") in printed

    written = (out / "generated.json").read_bytes()
    assert sum(len(text.encode()) for text in json.loads(written)["texts"]) >= 2000
    choose_size(base, corpus, out, "--n", 5)
    assert "of an earlier run with the same model and settings" in capsys.readouterr().out
    assert (out / "generated.json").read_bytes() == written
    choose_size(base, corpus, out, "--temperature", 0.5)
    assert "of an earlier run" not in capsys.readouterr().out
    assert (out / "generated.json").read_bytes() != written


def test_quick_runs_on_the_embedded_base_and_corpus(tmp_path, capsys):
    run_example("--quick", "--generated-bytes", 1000, "--sizes", 300, 400, "--out", tmp_path, example=EXAMPLE)
    assert "Chosen: " in capsys.readouterr().out


def test_a_larger_corpus_is_a_smaller_one_and_more(base, tmp_path):  # noqa: F811
    told = []
    for number in (500, 20_000):
        run_example("--base", base, "--bytes", number, "--out", tmp_path / str(number), example=WRITE)
        told.append(json.loads((tmp_path / str(number) / "generated.json").read_text("utf-8"))["texts"])
    assert len(told[0]) < len(told[1])
    assert told[1][: len(told[0])] == told[0]
    assert len(set(told[1])) == len(told[1]) > 32  # the second batch writes others
    sizes = [len(text.encode()) for text in told[0]]
    assert sum(sizes[:-1]) < 500 <= sum(sizes)


def test_an_adapter_writes_another_corpus(base, tmp_path):  # noqa: F811
    model = minipoet.add_lora(minipoet.load(base)[0], 4, 8, ["all-linear"])
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(generator=generator)
    minipoet.save_adapter(model, tmp_path / "adapter")
    written = []
    for options in ((), ("--adapter", tmp_path / "adapter")):
        run_example("--base", base, "--bytes", 500, "--out", tmp_path / "out", *options, example=WRITE)
        written.append(json.loads((tmp_path / "out" / "generated.json").read_text("utf-8")))
    assert written[0]["settings"]["model_sha256"] != written[1]["settings"]["model_sha256"]
    assert written[0]["texts"] != written[1]["texts"]


def test_a_model_that_only_ends_poems_is_told(write, base, monkeypatch):  # noqa: F811
    monkeypatch.setattr(write, "generate_ids", lambda *_, **__: [Continuation((), "end")] * 32)
    with pytest.raises(ValueError, match="32 empty poems in a row"):
        next(write.poems(*minipoet.load(base), SamplingSettings()))


def test_chosen_size_is_the_largest_that_passes_by_hand(choose):
    texts = ["ab"] * 12 + ["abc"] * 6 + ["bcd"] * 5 + ["ef"] * 4
    largest = train_bpe(texts, 300)
    assert [largest.decode([id]) for id in range(259, 264)] == ["ab", "abc", "bc", "bcd", "ef"]
    # 260: ab 18; 261: ab 12, abc 6; 262: and bc 5; 263: bc 0, bcd 5; 264: and ef 4
    assert choose.choose(largest, texts, [1, 5, 6, 13, 19], 1.0) == {1: 262, 5: 262, 6: 261, 13: 260, 19: None}
    assert choose.choose(largest, texts, [4, 5, 7], 0.75) == {4: 264, 5: 263, 7: 260}


def test_row_of_letters_by_hand(choose):
    train, held_out = ["ааб", "аа"], ["абв", "а"]
    row = choose.vocabulary_row(choose.end("letters", list, train, held_out), train, held_out, n=2, enough=0.5)
    assert row == {
        "vocabulary": "letters", "size": 2, "tokens a text": 2.5, "characters a token": 1,
        "seen once or never, %": 50, "fewer than 10 times, %": 100, "2 times or more, %": 50, "50 % reach": 4,
        "held out: tokens a text": 2, "held out: characters a token": 1,
        "held out: 2 times or more, %": 50,  # 2 · 4 / 5 is 1.6
        "held out: text of known tokens, %": 50, "held out: text without a token, %": 25,
    }  # fmt: skip


def test_row_of_bpe_counts_bytes_in_the_text_and_not_among_what_is_learnt(choose):
    train, held_out = ["ab"] * 4 + ["c"], ["abc"]
    largest = train_bpe(train, 300)
    (vocabulary,) = choose.bpe_vocabularies(largest, [260], train, held_out)
    row = choose.vocabulary_row(vocabulary, train, held_out, n=4, enough=1.0)
    assert (row["size"], row["tokens a text"], row["characters a token"]) == (260, 1, 9 / 5)
    assert (row["4 times or more, %"], row["100 % reach"]) == (100, 4)
    assert (row["held out: tokens a text"], row["held out: text of known tokens, %"]) == (2, 50)


def test_words_are_compared_at_equal_numbers_and_a_corpus_drawn_whole_has_no_spread(choose):
    poet = [f"снег {letter} лёд" for letter in "абвгдежзиклмнопрст"]  # 54 words
    model = ["Снег, снег"] * 11  # 22
    told, curves = choose.compare_words({"the poet": poet, "the model": [*model, "а б в г д е ж з и к л"]}, seed=0)
    assert told["running_words"] == 33
    assert {found.tokens for found in curves.values()} == {33}
    assert told["the model"]["types"] == (12, 0)
    assert told["the poet"]["types"][0] == 13  # 11 poems: 2 words that all have, and 11 of their own
    assert choose.unknown_words(["Снег"], ["снег и лёд", "снег"]) == 50


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--corpus", "nowhere"], "nowhere: neither a file or folder nor the name of a corpus"),
        (["--adapter", "nowhere"], "nowhere"),
        (["--generated-bytes", "0", "--n", "0"], "--generated-bytes, --n must be at least 1"),
        (["--enough", "95"], "--enough is a share, above 0 and at most 1, got 95"),
        (["--sizes", "259", "400"], "--sizes must be above 259"),
        (["--sizes", "300", "9000"], "--sizes asks for 9000, but this corpus gives"),
        (["--generated-bytes", "1"], "too few to compare"),
        (["--temperature", "-1"], "temperature"),
    ],
)
def test_a_mistake_gets_one_sentence_and_exit_code_2(base, corpus, tmp_path, capsys, options, message):  # noqa: F811
    with pytest.raises(SystemExit) as stop:
        choose_size(base, corpus, tmp_path / "out", *options)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
    assert "Traceback" not in error


def test_a_model_is_asked_for_a_byte_at_least(base, tmp_path, capsys):  # noqa: F811
    with pytest.raises(SystemExit):
        run_example("--base", base, "--bytes", 0, "--out", tmp_path, example=WRITE)
    assert "1 byte at least, got 0" in capsys.readouterr().err
