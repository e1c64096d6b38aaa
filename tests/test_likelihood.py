"""Likelihood: worked by hand on a model that knows nothing, and equal to token by token on one that does."""

import math
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from training_support import random_texts, tiny_gpt2

from minipoet.evaluation import Likelihood, likelihood, texts_likelihood


class Clueless(nn.Module):
    """Follows the contract and gives each of `vocabulary` tokens the same probability."""

    def __init__(self, vocabulary: int):
        super().__init__()
        self.head = nn.Linear(4, vocabulary)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.modes: list[bool] = []

    def states(self, ids, cache=None, segments=None):
        self.modes.append(self.training)
        return torch.ones(*ids.shape, 4)


def test_uniform_model_costs_log2_of_the_vocabulary_a_token():
    texts = [[0, 1, 2, 3], [0, 1]]  # 3 + 1 predicted tokens
    found = likelihood(Clueless(8), texts, characters=6, context=10)
    assert found.tokens == 4
    assert found.bits_per_character == pytest.approx(4 * 3 / 6)
    assert found.loss == pytest.approx(math.log(8))
    assert found.perplexity == pytest.approx(8)


def test_perplexity_of_a_hopeless_model_does_not_overflow():
    assert math.isfinite(Likelihood(nll=1e6, tokens=1, characters=1).perplexity)


def test_likelihood_equals_the_texts_one_by_one():
    model, texts = tiny_gpt2().eval(), random_texts(30)
    expected = 0.0
    with torch.no_grad():
        for text in texts:
            ids = torch.tensor(text)
            expected += F.cross_entropy(model(ids[None, :-1])[0], ids[1:], reduction="sum").item()
    found = likelihood(model, texts, characters=100, context=16, rows=3)
    assert found.nll == pytest.approx(expected, rel=1e-5)
    assert found.tokens == sum(len(text) - 1 for text in texts)


def test_a_prompt_is_read_and_not_measured():
    model, text = tiny_gpt2(), [3, 1, 4, 1, 5, 9]
    whole = likelihood(model, [text], 10, context=8)
    start = likelihood(model, [text[:3]], 10, context=8)
    answer = likelihood(model, [text], 10, context=8, prompts=[3])
    assert answer.tokens == 3
    assert answer.nll == pytest.approx(whole.nll - start.nll, rel=1e-5)


def test_number_of_rows_does_not_matter():
    model, texts = tiny_gpt2(dropout=0.5), random_texts(30)
    one, many = (likelihood(model, texts, 100, 16, rows).nll for rows in (1, 7))
    assert one == pytest.approx(many, rel=1e-5)


def test_long_texts_are_cut_and_every_token_but_the_first_counts():
    texts = random_texts(3, 50, 60)
    assert likelihood(tiny_gpt2(), texts, 100, 16, breaks=[1, 2]).tokens == sum(len(text) - 1 for text in texts)


@pytest.mark.parametrize("training", [True, False])
def test_model_is_measured_in_evaluation_mode_and_put_back(training):
    model = Clueless(8).train(training)
    likelihood(model, [[1, 2]], 1, 4)
    assert model.modes == [False]
    assert model.training is training


def test_model_is_put_back_also_after_an_error():
    model = tiny_gpt2().train()
    with pytest.raises(ValueError, match="at most 16"):
        likelihood(model, random_texts(1, 40, 40), 10, context=32)
    assert model.training


def test_measuring_leaves_no_gradient():
    model = tiny_gpt2()
    likelihood(model, random_texts(5), 10, 16)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("texts", [[], [[]], [[1], [2]]])
def test_nothing_to_measure_on_is_refused(texts):
    with pytest.raises(ValueError, match="no text of two tokens"):
        likelihood(Clueless(8), texts, 5, 4)


@pytest.mark.parametrize("characters", [0, -1])
def test_no_characters_are_refused(characters):
    with pytest.raises(ValueError, match="one character or more"):
        likelihood(Clueless(8), [[1, 2]], characters, 4)


def test_each_text_by_hand():
    found = texts_likelihood(Clueless(8), [[0, 1, 2, 3], [0, 1]], [6, 1], context=10)
    assert [(one.tokens, one.characters) for one in found] == [(3, 6), (1, 1)]
    assert [one.bits_per_character for one in found] == pytest.approx([3 * 3 / 6, 3])


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_each_text_costs_what_it_costs_alone_in_the_order_given(rows):
    model, texts = tiny_gpt2(dropout=0.5).eval(), random_texts(30)
    alone = []
    with torch.no_grad():
        for text in texts:
            ids = torch.tensor(text)
            alone.append(F.cross_entropy(model(ids[None, :-1])[0], ids[1:], reduction="sum").item())
    model.train()
    found = texts_likelihood(model, texts, [9] * 30, context=16, rows=rows)
    assert [one.nll for one in found] == pytest.approx(alone, rel=1e-5)
    assert model.training


def test_texts_together_cost_what_likelihood_says():
    model, texts = tiny_gpt2(), random_texts(9, 2, 60)  # most are cut
    found = texts_likelihood(model, texts, range(1, 10), context=16, rows=4, breaks=[1, 2, 3])
    whole = likelihood(model, texts, sum(range(1, 10)), context=16, breaks=[1, 2, 3])
    assert sum(one.nll for one in found) == pytest.approx(whole.nll, rel=1e-5)
    assert [one.tokens for one in found] == [len(text) - 1 for text in texts]
    assert sum(one.characters for one in found) == whole.characters


def test_head_is_never_given_more_than_a_chunk_of_tokens(monkeypatch):
    model, texts, sizes = tiny_gpt2(), random_texts(20), []
    expected = [one.nll for one in texts_likelihood(model, texts, [1] * 20, 16)]
    monkeypatch.setattr(sys.modules["minipoet.evaluation.likelihood"], "chunk_for", lambda model: 5)
    model.head.register_forward_hook(lambda head, inputs, output: sizes.append(output.shape[0]))
    assert [one.nll for one in texts_likelihood(model, texts, [1] * 20, 16)] == pytest.approx(expected, rel=1e-5)
    assert max(sizes) == 5


@pytest.mark.parametrize(
    ("texts", "characters", "context", "words"),
    [
        ([], [], 4, "no text of two tokens"),
        ([[1, 2], [1]], [5, 5], 4, "Text number 1 has fewer than two tokens"),
        ([[1, 2]], [5, 5], 4, "2 numbers for 1 texts"),
        ([[1, 2]], [0], 4, "one or more; got 0 among them"),
        ([[1, 2]], [1.5], 4, "got 1.5 among them"),
        ([[1, 2]], [5], 0, "at least 1, got context=0"),
        ([[1, 50]], [5], 16, "have the id 50"),
        ([[1] * 40], [5], 32, "reads at most 16"),
    ],
)
def test_texts_that_cannot_be_measured_are_refused(texts, characters, context, words):
    model = tiny_gpt2().train()
    with pytest.raises(ValueError, match=words):
        texts_likelihood(model, texts, characters, context)
    assert model.training


# Texts about a source

SOURCES = [[5, 6, 1], [7, 1], [8, 9, 3, 2, 4, 1]]
ABOUT = [[0, 3, 1], [0, 4, 5, 6, 1], [0, 2, 1]]


def alone(model, source, text) -> float:
    """Σ −ln p of the text by one call of the model, without padding."""
    with torch.no_grad():
        logits = model(torch.tensor([text[:-1]]), model.new_cache(torch.tensor([source])))
    return F.cross_entropy(logits[0], torch.tensor(text[1:]), reduction="sum").item()


@pytest.mark.parametrize("rows", [1, 2, 8])
def test_what_is_written_about_sources_is_measured_and_the_sources_are_not(rows):
    from test_t5 import tiny

    model = tiny()
    expected = [alone(model, source, text) for source, text in zip(SOURCES, ABOUT, strict=True)]
    whole = likelihood(model, ABOUT, characters=20, context=8, rows=rows, sources=SOURCES)
    assert whole.nll == pytest.approx(sum(expected), rel=1e-5)
    assert (whole.tokens, whole.characters) == (8, 20)
    each = texts_likelihood(model, ABOUT, [3, 8, 9], context=8, rows=rows, sources=SOURCES)
    assert [one.nll for one in each] == pytest.approx(expected, rel=1e-5)
    assert [(one.tokens, one.characters) for one in each] == [(2, 3), (4, 8), (2, 9)]
    assert abs(alone(model, SOURCES[1], ABOUT[0]) - expected[0]) > 0.01  # it matters which


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sources": None}, "This model writes about a source: give Batches its sources"),
        ({"sources": SOURCES[:2]}, "There are 3 texts and 2 sources"),
        ({"context": 5}, "Source 2 has 6 tokens, but a row holds 1 to 5"),
        ({"texts": [[0, 1], [0], [0, 1]]}, "Text 1 has 1 tokens, but beside a source"),
        ({"sources": [*SOURCES[:2], [90]]}, "The texts have the id 90"),
    ],
)
def test_sources_that_do_not_fit_the_texts_are_told(change, said):
    from test_t5 import tiny

    options = {"texts": ABOUT, "context": 8, "sources": SOURCES} | change
    with pytest.raises(ValueError, match=said):
        likelihood(tiny(), characters=20, **options)
    with pytest.raises(ValueError, match=said):
        texts_likelihood(tiny(), characters=[1, 2, 3], **options)


def test_sources_are_refused_by_a_model_that_goes_on_from_a_text():
    for measure, characters in ((likelihood, 3), (texts_likelihood, [3])):
        with pytest.raises(ValueError, match="This model reads no sources"):
            measure(tiny_gpt2(), [[0, 1, 2]], characters, 8, sources=[[3]])
