"""Counting: Witten–Bell by hand, against its definition, and what makes it a distribution."""

import math
import random
from fractions import Fraction

import numpy as np
import pytest

from minipoet.models.ngram import NGram

TEXT = [0, 1, 2, 1, 1]  # 0 is the start; after it: 1 three times, 2 once


def learnt(order, *texts, vocab_size=3):
    model = NGram(order, vocab_size)
    model.learn(texts)
    return model


@pytest.mark.parametrize(
    ("order", "context", "eighteenths"),
    [
        (1, [0], (2, 11, 5)),  # c = 4, T = 2: (0 + 2/3) / 6, (3 + 2/3) / 6, (1 + 2/3) / 6
        (2, [], (2, 11, 5)),
        (2, [0], (1, 14.5, 2.5)),  # 1 came, once, c = T = 1: half of 1, and half of the line above
        (2, [0, 1], (1, 10, 7)),  # 1 and 2 came, once each, c = T = 2
        (3, [0, 1], (0.5, 5, 12.5)),  # 2 came, once
        (3, [1, 1], (1, 10, 7)),  # never seen: as after 1
        (9, [2, 2, 2, 0], (1, 14.5, 2.5)),  # as after the start
    ],
)
def test_probabilities_by_hand(order, context, eighteenths):
    np.testing.assert_allclose(learnt(order, TEXT).distribution(context), np.array(eighteenths) / 18, atol=1e-15)


def test_nll_by_hand():
    p = Fraction(29, 36) * Fraction(7, 18) * Fraction(29, 36) * Fraction(5, 9)
    assert learnt(2, TEXT).nll(TEXT) == pytest.approx(-math.log(p), abs=1e-12)


def test_what_has_learnt_nothing_chooses_uniformly():
    assert NGram(3, 5).nll([0, 1, 2]) == pytest.approx(2 * math.log(5))
    assert learnt(3, [], [0]).distribution([0]).tolist() == [1 / 3] * 3


def test_first_id_is_only_read():
    model = learnt(2, TEXT)
    assert model.nll([2]) == model.nll([]) == 0
    assert model.nll([1, 1]) == pytest.approx(-math.log(5 / 9))


def test_contexts_do_not_reach_over_the_beginning_of_a_text():
    apart, joined = learnt(3, [0, 1], [0, 2]), learnt(3, [0, 1, 0, 2])
    assert apart.distribution([1, 0]).tolist() == apart.distribution([0]).tolist()
    assert joined.distribution([1, 0]).tolist() != joined.distribution([0]).tolist()


def test_learning_goes_on_where_it_stopped():
    model = learnt(3, TEXT)
    model.learn(iter([[0, 2, 2]]))
    assert model.nll([0, 2, 1]) == learnt(3, TEXT, [0, 2, 2]).nll([0, 2, 1])


def by_definition(texts, order, vocab_size, context, token):
    """p(w | h) as the formula has it, by looking through all texts for h."""
    shorter = by_definition(texts, order, vocab_size, context[1:], token) if context else Fraction(1, vocab_size)
    n = len(context)
    if n >= order:
        return shorter
    after = [text[i] for text in texts for i in range(max(n, 1), len(text)) if text[i - n : i] == context]
    kinds = len(set(after))
    return (after.count(token) + kinds * shorter) / Fraction(len(after) + kinds) if after else shorter


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_are_those_of_the_definition_and_add_up_to_one(order):
    draw = random.Random(order)
    texts = [[0, *draw.choices([1, 2, 3, 4], [8, 4, 2, 1], k=20)] for _ in range(4)]
    model = learnt(order, *texts, vocab_size=6)
    for length in range(8):
        context = draw.choices(range(6), [3, 8, 4, 2, 1, 1], k=length)
        expected = [by_definition(texts, order, 6, context, token) for token in range(6)]
        found = model.distribution(context)
        np.testing.assert_allclose(found, [float(p) for p in expected], rtol=1e-13)
        assert found.sum() == pytest.approx(1, abs=1e-13) and found.min() > 0


def test_nll_is_that_of_the_distributions():
    draw = random.Random(0)
    model = learnt(4, *([0, *draw.choices([1, 2, 3], k=30)] for _ in range(5)), vocab_size=5)
    text = [0, *draw.choices(range(5), k=40)]
    singly = [model.distribution(text[:i])[text[i]] for i in range(1, len(text))]
    assert model.nll(text) == pytest.approx(-sum(map(math.log, singly)), abs=1e-10)


def test_longer_contexts_help_where_they_tell_something():
    text = [0, *[1, 1, 2] * 30]  # two tokens back it is certain, one token back it is not
    assert learnt(3, text).nll(text) < 0.3 * learnt(2, text).nll(text)


def test_writing_draws_by_the_distribution_and_ends_at_the_stop():
    model = learnt(1, TEXT)
    shares = np.bincount(model.write([0], 3000, seed=1)) / 3000
    np.testing.assert_allclose(shares, np.array([2, 11, 5]) / 18, atol=0.03)
    model = learnt(6, *[[0, 1, 1, 1, 1, 2]] * 1000)  # how many 1 there were, only the whole context tells
    assert model.write([0], 9, seed=3, stop=2) == [1, 1, 1, 1, 2]
    assert model.write([0], 2, seed=3, stop=2) == [1, 1]
    assert len(model.write([0, 1, 1, 2], 1, stop=2)) == 1  # an end in the context ends nothing
    assert model.write([0, 2], 0) == []


def test_the_same_seed_writes_the_same():
    model = learnt(2, TEXT)
    assert model.write([0], 30, seed=4) == model.write([0], 30, seed=4) != model.write([0], 30, seed=5)


def test_a_text_of_another_vocabulary_is_refused_and_nothing_is_learnt():
    model = NGram(2, 3)
    with pytest.raises(ValueError, match=r"Text 1 has ids that the model lacks \(-1, 3\): expected 0 to 2"):
        model.learn([[0, 1], [0, 3, -1]])
    assert model.distribution([0]).tolist() == [1 / 3] * 3
    with pytest.raises(ValueError, match="The text has ids"):
        model.nll([0, 3])
