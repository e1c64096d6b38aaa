"""The verse that comes with the package: enough of it, in form, and nothing twice."""

import re

from minipoet.text import drop_duplicates, read_corpus

VOWELS = "аеёиоуыэюя"
POEMS = read_corpus("embedded")


def lines():
    return [(poem.title, line) for poem in POEMS for line in poem.text.split("\n") if line]


def syllables(line):
    return sum(letter in VOWELS for letter in line.lower())


def test_there_are_at_least_a_hundred_titled_poems_of_8_to_20_lines():
    assert len(POEMS) >= 100
    assert all(poem.title for poem in POEMS)
    assert len({poem.title for poem in POEMS}) == len(POEMS)
    assert all(8 <= len([line for line in poem.text.split("\n") if line]) <= 20 for poem in POEMS)


def test_every_line_has_the_syllables_of_iambic_tetrameter_or_pentameter():
    wrong = [(title, line) for title, line in lines() if syllables(line) not in (8, 9, 10, 11)]
    assert not wrong


def test_most_poems_are_tetrameter_throughout():
    tetrameter = [p for p in POEMS if all(syllables(line) in (8, 9) for line in p.text.split("\n") if line)]
    assert len(tetrameter) >= 0.8 * len(POEMS)


def test_no_poem_and_no_line_stands_twice():
    _, dropped = drop_duplicates(POEMS)
    assert not dropped
    words = [re.sub("[^а-яё ]", "", line.lower()).strip() for _, line in lines()]
    assert len(words) == len(set(words))


def test_only_russian_letters_and_plain_signs_are_used():
    odd = set("".join(line for _, line in lines())) - set(
        "абвгдеёжзийклмнопрстуфхцчшщъыьэюя" + "абвгдеёжзийклмнопрстуфхцчшщъыьэюя".upper()
    )
    assert odd <= set(" ,.!?:;—-«»'()…\"")
