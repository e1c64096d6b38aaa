"""The word model's example, run as a user runs it on a tiny corpus; its measures by hand; what a mistake is told."""

import json
from pathlib import Path

import pytest
import torch
from test_example_vocabulary import load_example
from test_examples import run_example

import minipoet
from minipoet.evaluation import Likelihood, Spelling
from minipoet.models.rnn import LSTM, RNNConfig
from minipoet.tokenization import WordTokenizer

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "word_lstm_pushkin.py"


@pytest.fixture(scope="module")
def words():
    return load_example(EXAMPLE)


@pytest.fixture
def verse(tmp_path):
    """Ten poems; a word of each line stands nowhere else, the others everywhere."""
    folder = tmp_path / "verse"
    folder.mkdir()
    letters = "бвгджзклмн"
    for i, letter in enumerate(letters):
        lines = [f"ночь {letters[k]}а{letter * 2}{letters[k]}о и {('день', 'сон', 'снег')[(i + k) % 3]},"
                 for k in range(6)]  # fmt: skip
        (folder / f"poem{i}.txt").write_text("\n".join(lines), "utf-8")
    return folder


def teach(verse, out, *options):
    run_example("--corpus", verse, "--out", out, "--width", 16, "--rows", 2, "--length", 8, "--epochs", 4, "--texts", 3,
                "--window", 8, "--prompts", "ночь и сон", "--device", "cpu", "--lr", 0.02, *options,
                example=EXAMPLE)  # fmt: skip


def test_the_example_teaches_and_leaves_what_it_promises(verse, tmp_path, capsys):
    out = tmp_path / "run"
    teach(verse, out, "--prompts", "ночь и сон", "день Хлодвига\n")
    printed = capsys.readouterr().out
    assert "note: «день Хлодвига»: the model reads Хлодвига as <unk>" in printed
    promised = {"model", "history.jsonl", "loss.png", "samples.md", "repetition.md", "repetition.png", "results.json"}
    assert {path.name for path in out.iterdir()} >= promised
    found = json.loads((out / "results.json").read_text("utf-8"))
    assert found["vocabulary"] == 4 + 2 + 7  # ночь и , \n день сон снег
    assert found["unknown_share"] == pytest.approx(6 / 35)  # of a poem: 6 lines of 5 tokens, and 5 line breaks
    told = found["held_out"]
    assert told["perplexity"] < 4 < 13  # four tokens of five follow from the last one
    assert told["fair_bits_per_character"] == pytest.approx(told["bits_of_tokens"] + told["bits_of_unknown_letters"])
    assert f"{told['fair_bits_per_character']:.3f}" in printed
    assert (out / "repetition.md").read_text("utf-8") in printed
    assert set(found["repetition"]) == {"the poet", *load_example(EXAMPLE).SAMPLINGS}

    model, tokenizer = minipoet.load(out / "model")
    assert isinstance(model, LSTM) and isinstance(tokenizer, WordTokenizer)
    assert model.head.weight is model.embed.weight
    assert minipoet.generate(model, tokenizer, "ночь", max_new_tokens=3, seed=1).startswith("ночь")


def test_an_interrupted_run_goes_on_to_the_same_end(verse, tmp_path, monkeypatch):
    figures = []
    for name in ("whole", "parts"):
        if name == "parts":
            with monkeypatch.context() as patch:
                patch.setattr(torch.optim.AdamW, "step", killed_after(30, torch.optim.AdamW.step))
                with pytest.raises(SystemExit):
                    teach(verse, tmp_path / name, "--vectors", "word2vec")
        teach(verse, tmp_path / name, "--vectors", "word2vec", "--resume")
        figures.append(json.loads((tmp_path / name / "results.json").read_text("utf-8")))
    assert figures[0]["held_out"] == figures[1]["held_out"]
    assert figures[0]["steps"] == figures[1]["steps"] > 30


def killed_after(number, step):
    """step, until it was called so often; then Ctrl-C."""
    calls = iter(range(number))

    def counted(*args, **kwargs):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return step(*args, **kwargs)

    return counted


def test_frozen_vectors_stay_as_word2vec_made_them(verse, tmp_path):
    teach(verse, tmp_path, "--vectors", "word2vec", "--freeze", "--cell", "gru", "--quick")
    found = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert found["parameters"] - found["trainable"] == 13 * 16
    model, tokenizer = minipoet.load(tmp_path / "model")
    words = [tokenizer.vocab[word] for word in ("ночь", "и", "день", "сон", "снег")]
    assert model.embed.weight[words].norm(dim=1).mean().item() == pytest.approx(1, rel=1e-5)


def test_start_vectors_are_one_long_in_the_mean_and_signs_keep_theirs(words):
    model = LSTM(RNNConfig(vocab_size=3, n_embd=2, n_hidden=2, n_layer=1))
    before = model.embed.weight.detach().clone()
    words.start_from(model, torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 15.0]]), freeze=True)
    assert torch.equal(model.embed.weight[0], before[0])
    assert torch.allclose(model.embed.weight[1:], torch.tensor([[0.3, 0.4], [0.0, 1.5]]))
    assert not model.embed.weight.requires_grad


def test_word2vec_learns_words_and_no_signs(words):
    tokenizer = WordTokenizer.from_texts(["ночь, день,\nночь"], min_count=1)
    vectors = words.word_vectors(tokenizer, tokenizer.encode_batch(["ночь, день, ночь Хлодвиг"] * 9), 4, seed=0)
    assert [token for token, id in tokenizer.vocab.items() if vectors[id].any()] == ["ночь", "день"]


def test_figures_by_hand(words):
    tokenizer = WordTokenizer.from_texts(["дом дом"], min_count=1)
    spelling = Spelling(["а"], order=1)  # а and the end: 5/12 each
    told = words.figures(Likelihood(3.0, 3, 6), tokenizer, ["дом а"], spelling)
    letters = words.Likelihood(1.0, 1, 6).bits_per_character * 2 * 0.8754687
    assert told["perplexity"] == pytest.approx(2.7182818)
    assert told["bits_of_unknown_letters"] == pytest.approx(letters)
    assert told["bits_of_tokens"] == pytest.approx(3 / 6 / 0.6931472)


def test_openings_are_of_poems_that_are_long_enough(words):
    texts = ["а\nб в", "г\nд е ж\nз и", "к"]
    assert words.openings(texts, 3, 2) == (["а\n", "г\n", "а\n"], ["б в", "д е ж\nз и"])
    assert words.openings(texts, 3, 4) == (["г\n"] * 3, ["д е ж\nз и"])
    with pytest.raises(ValueError, match="None of the 3 held-out poems goes on for 6 words"):
        words.openings(texts, 3, 6)


def test_repetition_row_by_hand(words):
    row = words.repetition_row(["а б а б а б", "а б в г д е", "а"], 6)
    assert (row["texts"], row["short"]) == (2, 1)
    assert row["2-grams"] == pytest.approx((100 * 3 / 5 / 2, 100 * 3 / 5 / 2))  # 3 of 5, and none: sd / √2 is the mean
    assert row["words in loops"] == pytest.approx((50, 50))
    assert row["texts with a loop"] == (50, 0)
    assert words.repetition_row([",,,", "а"], 6) == {"texts": 0, "short": 2}
    table = words.repetition_table({"the poet": row, "greedy": {"texts": 0, "short": 2}}, 6)
    assert "| the poet | 33.3 | 30.0 | 25.0 | 16.7 | 0.0 | 50.0 | 50.0 | 2 (1) |" in table
    assert "| greedy | – | – | – | – | – | – | – | 0 (2) |" in table


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--corpus", "nowhere"], "nowhere: neither a file or folder nor"),
        (["--min-count", "1", "--epochs", "0"], "--min-count must be at least 2, or no unknown word would be met in"),
        (["--min-count", "1", "--epochs", "0"], "--epochs must be above 0, got 0"),
        (["--min-count", "1000"], "The vocabulary would be empty"),
        (["--prompts", "Хлодвиг", "ночь", " "], "knows no word of 2 of the prompts: «Хлодвиг»; «»"),
        (["--length", "1000"], "take windows of at most"),
        (["--window", "99"], "held-out poems goes on for 99 words"),
        (["--window", "3"], "--window must be at least 4, got 3"),
        (["--freeze"], "--freeze would keep random vectors"),
        (["--width", "0"], "n_hidden = 0"),
        (["--lr", "-1"], "lr must be"),
        (["--device", "nowhere"], "The device 'nowhere' cannot be used"),
    ],
)
def test_a_mistake_gets_one_sentence_and_exit_code_2(verse, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as stop:
        teach(verse, tmp_path / "out", *options)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()
