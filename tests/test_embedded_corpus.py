"""The verse that comes with the package, in three manners: enough of it, in form, and nothing twice."""

import re

import pytest

from minipoet.text import drop_duplicates, read_corpus
from minipoet.text.excerpts import quatrains

VOWELS = "аеёиоуыэюя"
CORPORA = {name: read_corpus(name) for name in ("embedded", "embedded-lermontov", "embedded-esenin")}
OTHERS = ("embedded-lermontov", "embedded-esenin")


def lines(corpus):
    return [(poem.title, line) for poem in CORPORA[corpus] for line in poem.text.split("\n") if line]


def syllables(line):
    return sum(letter in VOWELS for letter in line.lower())


@pytest.mark.parametrize(("corpus", "least", "longest"), [("embedded", 100, 20), *((name, 60, 24) for name in OTHERS)])
def test_there_are_enough_titled_poems_of_a_page_or_less(corpus, least, longest):
    poems = CORPORA[corpus]
    assert len(poems) >= least
    assert all(poem.title for poem in poems)
    assert len({poem.title for poem in poems}) == len(poems)
    assert all(8 <= len([line for line in poem.text.split("\n") if line]) <= longest for poem in poems)


def test_every_line_in_pushkins_manner_has_the_syllables_of_iambic_tetrameter_or_pentameter():
    assert not [(title, line) for title, line in lines("embedded") if syllables(line) not in (8, 9, 10, 11)]


def test_most_poems_in_pushkins_manner_are_tetrameter_throughout():
    poems = CORPORA["embedded"]
    tetrameter = [p for p in poems if all(syllables(line) in (8, 9) for line in p.text.split("\n") if line)]
    assert len(tetrameter) >= 0.8 * len(poems)


@pytest.mark.parametrize("corpus", OTHERS)
def test_most_poems_in_the_other_manners_are_quatrains(corpus):
    assert sum(quatrains(poem.text) is not None for poem in CORPORA[corpus]) >= 0.75 * len(CORPORA[corpus])
    assert all(4 <= syllables(line) <= 16 for _, line in lines(corpus))


def test_no_poem_and_no_line_stands_twice_in_all_three():
    poems = [poem for corpus in CORPORA.values() for poem in corpus]
    assert not drop_duplicates(poems)[1]
    words = [re.sub("[^а-яё ]", "", line.lower()).strip() for corpus in CORPORA for _, line in lines(corpus)]
    assert len(words) == len(set(words))


@pytest.mark.parametrize("corpus", CORPORA)
def test_only_russian_letters_and_plain_signs_are_used(corpus):
    odd = set("".join(line for _, line in lines(corpus))) - set(
        "абвгдеёжзийклмнопрстуфхцчшщъыьэюя" + "абвгдеёжзийклмнопрстуфхцчшщъыьэюя".upper()
    )
    assert odd <= set(" ,.!?:;—-«»'()…\"")
