"""A writer as a judge: the request under which it finds a text least surprising."""

import pytest
import torch
from training_support import tiny_gpt2

from minipoet.evaluation import likeliest_sources, texts_likelihood
from minipoet.models.t5 import T5, T5Config
from minipoet.tokenization import train_unigram
from minipoet.training import Batches, TrainSettings, encode_pairs, train

TEXTS = ["чай и хлеб", "мёд и хлеб"]
REQUESTS = ["чай", "мёд"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_unigram([*TEXTS, *REQUESTS] * 4, 40, sentinels=2, alphabet="")


@pytest.fixture(scope="module")
def model(tokenizer, tmp_path_factory):
    """It has learnt to answer two requests."""
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "dropout_rate": 0.0}
    torch.manual_seed(0)
    model = T5(T5Config(vocab_size=tokenizer.vocab_size, **sizes))
    pairs = encode_pairs(model, tokenizer, REQUESTS, TEXTS, 16)
    settings = TrainSettings(steps=60, lr=0.02, warmup=5, optimizer="adamw", evaluate_every=0)
    train(model, Batches(pairs.targets, 16, 2, sources=pairs.sources), settings, tmp_path_factory.mktemp("run"))
    return model


def test_each_text_is_the_likeliest_about_its_own_request(model, tokenizer):
    assert likeliest_sources(model, tokenizer, TEXTS, [REQUESTS] * 2, 16) == [0, 1]
    assert likeliest_sources(model, tokenizer, TEXTS, [REQUESTS[::-1]] * 2, 16) == [1, 0]
    assert likeliest_sources(model, tokenizer, [TEXTS[1]] * 3, [REQUESTS] * 3, 16, rows=2) == [1, 1, 1]


def test_it_is_the_least_of_the_surprises(model, tokenizer):
    choices = ["хлеб", "чай мёд", "и"]
    pairs = encode_pairs(model, tokenizer, choices, [TEXTS[0]] * 3, 16)
    nll = [of.nll for of in texts_likelihood(model, pairs.targets, [10] * 3, 16, sources=pairs.sources)]
    assert likeliest_sources(model, tokenizer, TEXTS[:1], [choices], 16) == [nll.index(min(nll))]


def test_of_equals_the_first(model, tokenizer):
    assert likeliest_sources(model, tokenizer, TEXTS, [["чай"] * 3] * 2, 16) == [0, 0]


@pytest.mark.parametrize(
    ("texts", "choices", "message"),
    [
        (TEXTS, [REQUESTS], "Each of the 2 texts needs as many sources to choose from"),
        (TEXTS, [REQUESTS, REQUESTS[:1]], r"got lists of \[1, 2\] for 2 texts"),
        (TEXTS, [[], []], r"got lists of \[0\]"),
        ([], [], r"got lists of \[\] for 0 texts"),
        ("чай", [REQUESTS], "must be a list of strings, got one string"),
    ],
)
def test_what_is_no_choice_is_told(model, tokenizer, texts, choices, message):
    with pytest.raises(ValueError, match=message):
        likeliest_sources(model, tokenizer, texts, choices, 16)


def test_a_model_without_a_source_is_told(tokenizer):
    with pytest.raises(ValueError, match="reads no source"):
        likeliest_sources(tiny_gpt2(), tokenizer, TEXTS, [REQUESTS] * 2, 16)
