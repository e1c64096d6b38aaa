"""Repetition: shares of repeated n-grams, loops and lines, worked by hand."""

import pytest

from minipoet.evaluation import Repeats, Repetition, repetition


def one(text):
    return repetition([text], None).texts[0]


@pytest.mark.parametrize(
    ("text", "ngrams"),
    [
        ("а б а б а б а и конец", (5 / 9, 4 / 8, 3 / 7, 2 / 6)),
        ("Снег, снег\nСНЕГ — елка, ёлка!", (3 / 5, 1 / 4, 0, 0)),  # снег ×3, елка ×2; снег снег ×2
        ("один два три", (0, 0, 0, 0)),
        ("…", (0, 0, 0, 0)),
        ("", (0, 0, 0, 0)),
    ],
)
def test_repeated_ngrams_by_hand(text, ngrams):
    assert one(text).ngrams == pytest.approx(ngrams)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("о пашни пашни пашни мои", 3),
        ("о пашни пашни мои", 0),  # twice is a figure of speech
        ("а б а б а б", 6),
        ("а б а б а б а и", 7),  # the last round is cut short
        ("а б а б а", 0),
        ("а б и а б и а б", 0),
        ("и вот,\nи вот,\nи вот идет идет идет", 9),  # over the ends of lines; two loops
        ("а а а б а а а б а а а б", 12),  # loops within a loop
        (" ".join([*map(str, range(12))] * 3), 36),
        (" ".join([*map(str, range(13))] * 3), 0),  # three stanzas with a refrain, not a loop
    ],
)
def test_words_in_loops_by_hand(text, words):
    assert one(text).loops == pytest.approx(words / len(text.split()))


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("Вечер тих.\nВечер, тих!\n\n* * *\nночь", 1 / 3),  # no line without a word
        ("а\nа\nа\nб", 2 / 4),
        ("а б\nа", 0),
        ("", 0),
    ],
)
def test_repeated_lines_by_hand(text, share):
    assert one(text).lines == pytest.approx(share)


def test_window_is_the_first_words_and_shorter_texts_are_not_measured():
    found = repetition(["а б в г а а а", "а б в", "а а а а"], window=4)
    assert (len(found.texts), found.short, found.window) == (2, 1, 4)
    assert [text.ngrams[0] for text in found.texts] == [0, 3 / 4]
    assert [text.loops for text in found.texts] == [0, 1]


def test_line_that_the_window_cuts_is_none():
    assert repetition(["а б\nа б\nа б"], window=4).lines == 1 / 2
    assert repetition(["а б\nа б\nа б"], window=5).lines == 1 / 2
    assert repetition(["а б\nа б\nа б"], window=6).lines == pytest.approx(2 / 3)


def test_summary_by_hand():
    found = Repetition((Repeats((0.5, 0.25, 0, 0), 0.5, 0), Repeats((0.25, 0, 0, 0), 0, 1)), None)
    assert [found.ngrams(n) for n in (1, 2, 3, 4)] == [0.375, 0.125, 0, 0]
    assert (found.loops, found.looping, found.lines) == (0.25, 0.5, 0.5)


def test_ngrams_do_not_join_texts():
    assert repetition(["а б в г"] * 5, 4).ngrams(1) == 0


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (lambda: repetition([]), "no text to look for repetition"),
        (lambda: repetition([], None), "no text to look for repetition"),
        (lambda: repetition(["а б в", "а"]), "None of the 2 text.* has 50 words, the longest has 3"),
        (lambda: repetition(["а"], window=3), "at least 4, got window=3"),
        (lambda: repetition(["а б в г"], 4).ngrams(5), "n of 1 to 4, got 5"),
    ],
)
def test_what_cannot_be_measured_is_refused(mistake, words):
    with pytest.raises(ValueError, match=words):
        mistake()
