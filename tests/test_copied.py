"""Copied runs beside a training verse that is read once: by hand, and equal to those of the index."""

import random

import pytest

from minipoet.evaluation import CopyIndex, copied_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Снег идёт,\nи вот", 3),
        ("Снег, снег идёт!", 2),
        ("тихо снег", 1),
        ("тихо", 0),
        ("", 0),
        ("лежит снег идёт и снег лежит", 5),  # never across two training texts
    ],
)
def test_longest_run_by_hand(text, words):
    assert copied_words([text], ["снег идет и снег лежит", "", "и лежит снег"]) == [words]


def test_texts_do_not_continue_one_another():
    assert copied_words(["снег идёт", "и снег лежит"], ["снег идет и снег лежит"]) == [2, 3]


def test_runs_are_those_of_the_index():
    rng = random.Random(0)
    texts, training = ([" ".join(rng.choices("абвгд", k=rng.randrange(30))) for _ in range(40)] for _ in range(2))
    assert copied_words(texts, iter(training)) == [run.words for run in CopyIndex(training).copying(texts).runs]


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (lambda: copied_words(["а"], []), "no word in the training verse"),
        (lambda: copied_words(["а"], ["...", ""]), "no word in the training verse"),
        (lambda: copied_words("а", ["а"]), "got one string"),
        (lambda: copied_words(["а"], "а"), "got one string"),
    ],
)
def test_what_cannot_be_looked_for_is_refused(mistake, words):
    with pytest.raises(ValueError, match=words):
        mistake()
