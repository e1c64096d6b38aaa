"""Distinct-n, counted by hand."""

import pytest

from minipoet.evaluation import distinct, repetition


@pytest.mark.parametrize(
    ("text", "n", "share"),
    [
        ("и вот, и вот", 2, 2 / 3),  # и-вот, вот-и, и-вот
        ("И вот,\nи вот", 1, 2 / 4),
        ("один два три", 2, 1),
        ("а а а а", 2, 1 / 3),
        ("а а а а", 4, 1),
        ("слово", 2, 0),  # no pair, so none that is different
        ("", 1, 0),
    ],
)
def test_distinct_by_hand(text, n, share):
    assert distinct([text], n).value == pytest.approx(share)


def test_mean_over_texts_has_an_interval_and_each_text_its_own_share():
    found = distinct(["и вот, и вот", "один два три", "слово"])
    assert list(found.by_text) == pytest.approx([2 / 3, 1, 0])
    assert found.value == pytest.approx(5 / 9)
    assert found.interval().low < 5 / 9 < found.interval().high


def test_distinct_and_repeated_make_one():
    text = "снег идёт и снег идёт и снег лежит"
    for n in (1, 2, 3, 4):
        assert distinct([text], n).value + repetition([text], None).ngrams(n) == pytest.approx(1)


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (lambda: distinct([]), "no text"),
        (lambda: distinct("и вот"), "got one string"),
        (lambda: distinct(["и вот"], 5), "n of 1 to 4, got 5"),
    ],
)
def test_what_cannot_be_counted_is_refused(mistake, words):
    with pytest.raises(ValueError, match=words):
        mistake()
