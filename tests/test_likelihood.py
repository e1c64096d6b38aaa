"""Likelihood: worked by hand on a model that knows nothing, and equal to token by token on one that does."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from training_support import random_texts, tiny_gpt2

from minipoet.evaluation import Likelihood, likelihood


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
