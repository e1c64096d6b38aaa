"""Spelling unknown words: what letters cost, by hand, and that all words together have no more than the whole."""

import math
from itertools import product

import pytest

from minipoet.evaluation import Spelling, unseen_letters
from minipoet.evaluation.spelling import CODE_POINTS


def test_letters_and_the_end_by_hand():
    # Learnt: "а", end. c = T = 2, three signs with the one for letters never seen: 5/12, 5/12 and 1/6.
    spelling = Spelling(["а"], order=1)
    assert spelling.nll("а") == pytest.approx(-math.log(5 / 12 * 5 / 12))
    assert spelling.nll("аа") == pytest.approx(-math.log((5 / 12) ** 3))
    assert spelling.nll("б") == pytest.approx(-math.log(1 / 6 / CODE_POINTS * 5 / 12))


def test_unseen_letters_are_a_choice_among_all_code_points():
    assert unseen_letters("ъ") == pytest.approx(math.log(0x10FFFF + 1))
    assert unseen_letters(["ъ", "ы", "ъ"]) == unseen_letters("ъыъ") == 3 * unseen_letters("ъ")
    assert unseen_letters([]) == 0


@pytest.mark.parametrize("order", [1, 2, 6])
def test_all_words_together_have_less_than_the_whole_and_come_near_it(order):
    spelling = Spelling(["аб", "ба", "аба", "аб"], order)
    others = CODE_POINTS - 2  # each costs what "в" costs
    so_far, sums = 0.0, []
    for length in range(9):
        so_far += sum(
            others ** word.count("в") * math.exp(-spelling.nll("".join(word))) for word in product("абв", repeat=length)
        )
        sums.append(so_far)
    assert sums == sorted(set(sums))
    assert 0.95 < sums[-1] < 1


def test_a_word_is_not_the_beginning_of_a_longer_one():
    spelling = Spelling(["вода"] * 9)
    assert spelling.nll("вода") < 1 < 3 < spelling.nll("вод")  # the letters are expected, the end is not


def test_words_count_as_often_as_they_come():
    assert Spelling(["аб", "аб", "ба"]).nll("аб") < Spelling(["аб", "ба"]).nll("аб")


def test_everything_can_be_spelt():
    spelling = Spelling(["вода"])
    for word in ("", "Qwerty", "🌲", "\U0010ffff", "о" * 500):
        assert 0 < spelling.nll(word) < math.inf


@pytest.mark.parametrize("words", [[], [""]])
def test_no_words_are_refused(words):
    with pytest.raises(ValueError, match="there is none: leave rare words out"):
        Spelling(words)
