"""What a careless user of T5 and of reviews is told: one sentence of ours, and nothing from inside."""

from pathlib import Path

import pytest
import torch
from training_support import tiny_batches, tiny_gpt2

import minipoet
from minipoet.evaluation import GeneratedReview, RatingJudge, read_samples, review_report, write_samples
from minipoet.generation import SamplingSettings, generate_ids
from minipoet.models.t5 import MT5, T5, GatedT5, T5Config
from minipoet.plots import plot_ratings, plot_shares, rating_line
from minipoet.text import (
    Keywords,
    Review,
    count_ratings,
    parse_review_request,
    read_reviews,
    resample,
    review_request,
    split_reviews,
)
from minipoet.text.variations import read_written, split_written, vary
from minipoet.tokenization import train_unigram
from minipoet.training import Batches, Denoising, TrainSettings, completion_metrics, encode_pairs, epoch_ends, train

PACKAGE = Path(minipoet.__file__).parent


def t5(**options):
    sizes = {"vocab_size": 50, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    return T5(T5Config(**(sizes | options)))


def noise(texts=(tuple(range(3, 40)),), **options):
    sizes = {"length": 16, "rows": 2, "sentinels": [40, 41, 42], "start": 0, "end": 1}
    return Denoising(texts, **(sizes | options))


ONE = torch.ones(1, 3, dtype=torch.long)
MISTAKES = [
    (lambda: t5(d_model=0), "d_model = 0 must be a whole number of at least 1"),
    (lambda: t5(relative_attention_num_buckets=6), "relative_attention_num_buckets = 6 must be a multiple of 4"),
    (lambda: t5(relative_attention_max_distance=9), "must be a whole number of at least 17"),
    (lambda: t5(decoder_start_token_id=50), "must be an id, 0 to 49"),
    (lambda: t5(feed_forward_proj="swoosh"), "Unknown activation 'swoosh'"),
    (lambda: t5(feed_forward_proj="gated-gelu"), "A T5 cannot have feed_forward_proj = 'gated-gelu'"),
    (lambda: GatedT5(T5Config()), "A GatedT5 cannot have feed_forward_proj = 'relu'"),
    (lambda: MT5({"vocab_size": 5}), "config must be a T5Config"),
    (lambda: t5()(ONE), "let it read that first, cache = model.new_cache(source_ids)"),
    (lambda: t5().new_cache(2), "new_cache(source_ids), (B, S) ids, got 2"),
    (lambda: t5().new_cache(ONE.float()), "A model reads whole numbers in two dimensions"),
    (lambda: t5()(ONE.repeat(2, 1), t5().new_cache(ONE)), "has read the sources of 1 texts, and here are 2"),
    (lambda: t5()(ONE + 60, t5().new_cache(ONE)), "The ids go from 61 to 61"),
    (lambda: minipoet.add_prefix(t5(), 2, parts=("start",)), "no place for a prefix called 'start'"),
    (lambda: minipoet.add_prefix(t5(), 2, parts="cross"), "parts must be a list of names"),
    (lambda: minipoet.add_prefix(tiny_gpt2(), 2, parts=("cross",)), "it reads no source"),
    (lambda: minipoet.add_prefix(t5(), 3, init=[3, 4, 5]), "a prefix cannot be what a text leaves"),
    (lambda: minipoet.add_lora(t5(), targets=("c_attn",)), "'c_attn' matches no layer"),
    (lambda: Batches([[0, 3, 1]], 8, 1, sources=[]), "There are 1 texts and 0 sources"),
    (lambda: Batches([[0, 3, 1]], 8, 1, sources=[[]]), "Source 0 has 0 tokens, but a row holds 1 to 8"),
    (lambda: completion_metrics(t5(), tiny_batches()), "writes about a source: give Batches its sources"),
    (lambda: completion_metrics(tiny_gpt2(), Batches([[0, 3, 1]], 8, 1, sources=[[4]])), "This model reads no sources"),
    (lambda: noise(length=4), "Denoising needs length"),
    (lambda: noise(density=1.5), "Expected a density between 0 and 1"),
    (lambda: noise(sentinels=[]), "there are 0 sentinels"),
    (lambda: noise([[3, 4]]), "There is no text of 8 tokens or more"),
    (lambda: noise().check(tiny_gpt2()), "Span corruption is for models that read a source"),
    (lambda: encode_pairs(t5(), None, ["a"], ["b"], 8), "tokenizer"),
    (lambda: epoch_ends(noise(), 0), "got epochs=0"),
    (lambda: train(t5(), tiny_batches(), TrainSettings(steps=1), "nowhere"), "give Batches its sources"),
    (lambda: generate_ids(t5(), [[3]], SamplingSettings(beams=2)), "temperature"),
    (lambda: train_unigram([], 500), "train_unigram has no text to learn from"),
    (lambda: train_unigram(["чай"], "500"), "got vocab_size='500'"),
    (lambda: review_request((), 5), "the rubrics must be one name or more"),
    (lambda: review_request(("Кафе",), 6), "the rating must be a whole number from 1 to 5, got 6"),
    (lambda: review_request(("Кафе",), 5, ["чай; кофе"]), "a keyword must be a word or some"),
    (lambda: parse_review_request("хочу отзыв"), "Expected «категория: Кафе; рейтинг: 5"),
    (lambda: parse_review_request("категория: Кафе; рейтинг: 7"), "a whole number from 1 to 5"),
    (lambda: read_reviews("nowhere.tskv"), "neither a file nor the name of a collection"),
    (lambda: read_reviews("embedded-reviews", 0), "limit must be a whole number of reviews"),
    (lambda: Keywords.of([]), "there is none"),
    (lambda: count_ratings(["5"]), "Review(text, rating, rubrics)"),
    (lambda: resample([1, 7], 0.5), "The ratings must be numbers from 1 to 5"),
    (lambda: resample([1, 5], 2), "power must be from 0"),
    (lambda: split_reviews([Review("а", 5, ("Кафе",))], {"train": 0.5}), "add"),
    (lambda: split_written(read_written(), {"train": 2.0}), "add"),
    (lambda: vary(read_written(), 0), "got number=0"),
    (lambda: vary(read_written(), 10**9), "Cannot make 1,000,000,000 different reviews"),
    (lambda: RatingJudge.fit(["хорошо"], [5]), "To tell ratings apart takes two or more"),
    (lambda: RatingJudge.fit(["хорошо", "плохо"], [5, 9]), "9"),
    (lambda: GeneratedReview("хорошо", 0), "from 1 to 5, got 0"),
    (lambda: review_report([], None, [], []), "The judge must be a RatingJudge"),
    (lambda: write_samples("nowhere.jsonl", [GeneratedReview("а", 5)], 3), "3 samples were asked for"),
    (lambda: read_samples("nowhere.jsonl"), "nowhere.jsonl"),
    (lambda: rating_line([]), "rating"),
    (lambda: plot_ratings([7], "nowhere.png"), "from 1 to 5"),
    (lambda: plot_shares({}, "nowhere.png"), "shares"),
]


@pytest.mark.parametrize(("mistake", "words"), MISTAKES, ids=[words for _, words in MISTAKES])
def test_a_mistake_is_told_in_one_sentence(mistake, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, OSError)) as caught:
        mistake()
    assert words in str(caught.value)
    assert PACKAGE in Path(caught.traceback[-1].path).parents
    assert not list(tmp_path.iterdir())  # nothing is left behind
