"""The form of verse: counted by hand, and told from prose by what the lines are."""

import re

import pytest

from minipoet.evaluation import Form, verse_form
from minipoet.text import read_corpus
from minipoet.text.corpora import read_prose_corpus

QUATRAIN = (
    "Над речкой тихо гаснет свет,\nИ в поле никого уж нет,\nЛишь месяц смотрит из-за туч\nИ прячет свой холодный луч."
)


def of_lines(*syllables, marks=None):
    marks = [True] * len(syllables) if marks is None else marks
    return Form(letters=(9,) * len(syllables), syllables=syllables, marks=tuple(marks), stanzas=(len(syllables),))


def test_letters_syllables_and_stanzas_by_hand():
    form = verse_form("Ёж и уж — друзья!\n\n* * *\n\nв 7 часов\n  и ночь, \n")
    assert form.letters == (11, 6, 5)
    assert form.syllables == (5, 2, 2)  # ё, и, у, у, я; а, о; и, о
    assert form.marks == (True, False, True)  # a capital and a mark; neither; a comma
    assert form.stanzas == (1, 2)  # a row of stars is no line, and parts stanzas as a blank line does
    assert form.lines == 3


@pytest.mark.parametrize(
    ("line", "marked"),
    [("ночь", False), ("Ночь", True), ("«Ночь", True), ("— Ночь", True),
     ("ночь,", True), ("ночь»", True), ("ночь —", True)],
)  # fmt: skip
def test_line_is_marked_by_a_capital_or_by_what_it_ends_with(line, marked):
    assert verse_form(line).marks == (marked,)


def test_unevenness_and_marked_share_by_hand():
    form = of_lines(6, 10, marks=[True, False])
    assert form.unevenness == pytest.approx(2 / 8)
    assert form.marked == 1 / 2
    assert of_lines(8, 8, 8).unevenness == 0
    assert verse_form("").unevenness == verse_form("").marked == verse_form("").lines == 0
    assert verse_form("стр\nмгл").unevenness == 0  # no vowel: nothing to divide by


@pytest.mark.parametrize(
    ("form", "verse"),
    [
        (of_lines(8, 8), True),
        (of_lines(8), False),
        (of_lines(3, 3, 3), True),
        (of_lines(2, 2, 3), False),
        (of_lines(17, 17, 17), True),
        (of_lines(18, 18, 17), False),
        (of_lines(14, 14, 20), True),
        (of_lines(14, 14, 21), False),
        (of_lines(4, 12), True),  # deviation 4, mean 8
        (of_lines(3, 13), False),
        (of_lines(8, 8, 8, 8, marks=[True, True, True, False]), True),
        (of_lines(8, 8, 8, marks=[True, True, False]), False),
    ],
)
def test_each_bound_of_the_verdict(form, verse):
    assert form.is_verse is verse


def test_line_that_was_cut_off_is_none():
    assert verse_form("Над речкой\nтихо", cut=True).lines == 1
    assert verse_form("Над речкой\nтихо\n", cut=True).lines == 2
    assert verse_form("Над речкой\nтихо").lines == 2
    assert verse_form("один абзац прозы, который не кончен", cut=True) == verse_form("")


def test_verse_is_told_from_the_same_words_as_a_paragraph_and_as_a_narrow_column():
    assert verse_form(QUATRAIN).is_verse
    prose = QUATRAIN.replace("\n", " ").lower().replace(",", "").replace(".", "")
    assert not verse_form(prose).is_verse
    assert not verse_form("\n".join(re.findall(r"\S.{0,24}(?=\s|$)", prose))).is_verse


def test_poems_of_the_package_are_verse_and_its_prose_is_not():
    poems, works = read_corpus("embedded"), read_prose_corpus("embedded")
    assert sum(verse_form(poem.text).is_verse for poem in poems) >= 0.99 * len(poems)
    assert not any(verse_form(work.text).is_verse for work in works)


def test_what_is_no_text_is_refused():
    with pytest.raises(ValueError, match="must be a string, got list"):
        verse_form([QUATRAIN])
