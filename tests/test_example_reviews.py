"""The example that teaches a T5 to write reviews, run as a user runs it on a tiny base; its sides, and its mistakes."""

import json
from pathlib import Path

import pytest
import torch
from test_examples import run_example

import minipoet
from minipoet.evaluation import read_samples
from minipoet.models.t5 import GatedT5, T5Config
from minipoet.text import Keywords, Review, parse_review_request, read_reviews
from minipoet.tokenization import train_unigram

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "t5_reviews.py"
SHORT = ("--epochs", 1, "--requests", 2, "--tokens", 6, "--reviews", 400, "--rows", 8)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny untrained T5."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = train_unigram([review.text for review in read_reviews("embedded-reviews", 200)[0]], 500)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2, "feed_forward_proj": "gated-gelu"}
    torch.manual_seed(0)
    minipoet.save(GatedT5(T5Config(vocab_size=tokenizer.vocab_size, **sizes)), tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def done(base, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    run_example("--base", base, *SHORT, "--lr", 0.02, "--out", out, example=EXAMPLE)
    return out


def test_all_three_trainings_learn_and_leave_what_they_promise(done):
    methods = json.loads((done / "results.json").read_text("utf-8"))["methods"]
    assert set(methods) == {"full", "lora", "low"}
    assert all(of["best"] < of["before"] for of in methods.values())
    assert methods["full"]["trainable"] == methods["full"]["parameters"] > methods["low"]["trainable"]
    assert {path.name for path in done.iterdir()} >= {"report.md", "ratings.png", "control.png", "full.png", "low.png"}
    report = (done / "report.md").read_text("utf-8")
    assert "The judge of ratings, on reviews new to him" in report
    assert "**lora** · категория:" in report


def test_what_was_taught_can_be_loaded_again(base, done):
    model, tokenizer = minipoet.load(done / "full" / "model")
    assert minipoet.generate(model, tokenizer, "категория: Кафе; рейтинг: 5", max_new_tokens=4) is not None
    adapted = minipoet.load_adapter(minipoet.load(base)[0], done / "low")
    assert adapted.adapters["default"]["lora"].rank == 16


def test_the_low_study_asks_for_low_ratings_only(done):
    low = json.loads((done / "results.json").read_text("utf-8"))["methods"]["low"]
    history = minipoet.training.read_history(done / "low" / "history.jsonl")
    assert low["epochs"] == 1
    assert history.curve("validation 3")[0]
    assert not history.curve("validation 4")[0]


def test_the_samples_are_for_minipoet_label(done):
    samples = read_samples(done / "samples.jsonl")
    assert {sample.rating for sample in samples.by_id.values()} <= {1, 2, 3, 4, 5}
    assert all(parse_review_request(sample.request)[1] == sample.rating for sample in samples.by_id.values())


@pytest.fixture
def data(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    import review_data

    return review_data


def test_no_sentence_is_on_two_sides(data):
    sides = data.read("embedded-reviews", 800, seed=0)
    sentences = {
        name: {
            s.strip()
            for review in getattr(sides, name)
            for s in review.text.replace("\n", ".").split(".")
            if len(s) > 30
        }
        for name in ("train", "validation", "judge", "test")
    }
    assert sum(map(len, sentences.values())) == len(set.union(*sentences.values()))


def test_requests_name_what_the_review_has(data):
    review = Review("Кофе горячий, десерт вкусный. Кофе ещё раз!", 4, ("Кафе",))
    keywords = Keywords.of([review.text, "Чай остыл.", "Десерт хвалю."])
    (request,), (text,) = data.ask([review], keywords)
    rubrics, rating, words = parse_review_request(request)
    assert (rubrics, rating, text) == (("Кафе",), 4, review.text)
    assert "кофе" in words


def test_evenly_takes_so_many_of_each_rating(data):
    reviews = [Review(f"Отзыв {n}", rating, ("Кафе",)) for n, rating in enumerate([5, 5, 5, 1, 3, 5, 1])]
    assert [review.text for review in data.evenly(reviews, 2)] == [
        "Отзыв 3",
        "Отзыв 6",
        "Отзыв 4",
        "Отзыв 0",
        "Отзыв 1",
    ]


def test_a_decoder_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_example("--base", "poet-tiny", *SHORT, "--out", tmp_path, example=EXAMPLE)
    assert "A GPT2 reads no source" in capsys.readouterr().err
