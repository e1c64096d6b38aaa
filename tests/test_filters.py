"""The filter of verse: each bound by hand, neighbours' languages, and that our own verse passes."""

from collections import Counter

import pytest

from minipoet.text import CorpusError, VerseFilter, read_corpus
from minipoet.text.filters import VERSE, is_russian

LINE = "Над полем тихий снег летит"  # 26 characters
POEM = "\n".join([LINE] * 4)
RUSSIAN = "Над полем тихий снег летит, и мы опять идём домой, а эхо вторит нам вдали, и был бы вечер голубой"
NEIGHBOURS = {
    "Ukrainian": "Над тихим полем сніг летить, і ми йдемо з тобою знов, а вітер в гаї шелестить про любов",
    "Belarusian": "Над ціхім полем снег ляціць, і мы ідзём з табой дамоў, а вецер ў гаі шапаціць зноў",
    "Bulgarian": "Над тихото поле пак вали снегът, и ние вървим по белия път, и вятърът шепне за стария дъб",
    "Serbian": "Над тихим пољем пада снијег, и ми идемо кући сад, а вјетар шапће преко брег",
    "Kazakh": "Даланың үстінде қар жауып тұр, біз үйге қайтып келеміз, ал жел әндетіп кешкі түнде өзен бойында жүр",
    "Russian before 1918": "Надъ тихимъ полемъ снѣгъ летитъ, и мы идемъ съ тобой домой",
    "English": "The quiet snow is falling down and we are walking home again while winds are calling from the town",
}


def test_russian_is_russian():
    assert is_russian(RUSSIAN)
    assert all(is_russian(poem.text) for poem in read_corpus("embedded"))


@pytest.mark.parametrize("language", NEIGHBOURS)
def test_neighbours_that_share_most_letters_are_not(language):
    assert not is_russian(NEIGHBOURS[language])


def test_a_foreign_word_or_name_does_not_make_a_poem_foreign():
    assert is_russian(f"{RUSSIAN}, и Їжак с ней")
    assert is_russian(f"{RUSSIAN}, oh my love")
    assert is_russian(f"{RUSSIAN}: подъезд и съезд")


def test_text_without_letters_is_not_russian():
    assert not is_russian("* * *\n123")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (POEM, ""),
        ("\n\n".join([POEM] * 3), ""),
        ("Снег\n" * 4, "too short"),
        ("\n".join([LINE] * 160), "too long"),
        (POEM.replace("и", "i"), "not Russian"),
        ("\n".join([LINE] * 3), "too few lines"),
        ("\n".join(["тихий снег"] * 151), "too many lines"),
        ("\n".join([LINE] * 8 + [" ".join([LINE] * 5)]), "lines of prose"),
        ("\n".join([" ".join([LINE] * 3)] * 4), "lines of prose"),
        ("\n".join(["снег"] * 20), "lines of a word"),
        ("\n\n".join([LINE] * 8), "too many blank lines"),
        ("\n\n".join([f"{LINE}\n{LINE}"] * 8), ""),
    ],
)
def test_first_bound_that_a_text_breaks_is_named(text, reason):
    assert VERSE.reason(text) == reason


@pytest.mark.parametrize(
    ("bounds", "text", "reason"),
    [
        ({"min_characters": 107}, POEM, ""),  # 4 · 26 and three ends of line
        ({"min_characters": 108}, POEM, "too short"),
        ({"max_characters": 107}, POEM, ""),
        ({"max_characters": 106}, POEM, "too long"),
        ({"min_lines": 5}, POEM, "too few lines"),
        ({"max_lines": 4}, POEM, ""),
        ({"min_lines": 2, "max_lines": 3}, POEM, "too many lines"),
        ({"longest_line": 26}, POEM, ""),
        ({"longest_line": 25}, POEM, "lines of prose"),
        ({"median_line": (26, 26)}, POEM, ""),
        ({"median_line": (27, 30)}, POEM, "lines of a word"),
        ({"blank_lines": 0}, POEM, ""),
        ({"blank_lines": 1 / 3}, "\n\n".join([POEM, POEM[:53], POEM[:53]]), ""),  # 2 of 10
        ({"blank_lines": 0.19}, "\n\n".join([POEM, POEM[:53], POEM[:53]]), "too many blank lines"),
        ({"russian": 0}, NEIGHBOURS["English"].replace(" a", "\na") + "\nand\nso on", ""),
    ],
)
def test_each_bound_can_be_moved_and_is_inclusive(bounds, text, reason):
    assert VerseFilter(**bounds).reason(text) == reason


def test_our_own_verse_passes():
    assert Counter(VERSE.reason(poem.text) for poem in read_corpus("embedded")) == {"": 112}


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"min_lines": 9, "max_lines": 3, "median_line": (5, 2)}, "lines from 9 to 3, median_line from 5 to 2"),
        ({"min_characters": -1}, "min_characters=-1"),
        ({"median_line": 30}, "two of them for median_line"),
        ({"russian": "90%"}, "russian='90%'"),
        ({"russian": 90}, "shares are from 0 to 1, got russian=90"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(bounds, message):
    with pytest.raises(CorpusError) as error:
        VerseFilter(**bounds)
    assert message in str(error.value)


def test_what_is_no_text_is_refused():
    with pytest.raises(ValueError, match="The text must be a string, got Poem: of a Poem give its text"):
        VERSE.reason(read_corpus("embedded")[0])  # type: ignore[arg-type]
