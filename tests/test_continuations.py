"""Openings of poems, and the report of what was written after them: all by hand."""

import math

import pytest

from minipoet.evaluation import BETTER, Likelihood, Opening, chrf, compare, first_lines, openings, report
from minipoet.text import read_corpus

POEM = "раз\nдва\n\nтри\n* * *\nчетыре\nпять"


@pytest.mark.parametrize(
    ("text", "length", "whole", "lines"),
    [
        (POEM, 2, True, "раз\nдва\n"),
        (POEM, 3, True, "раз\nдва\n\nтри\n"),
        (POEM, 4, True, "раз\nдва\n\nтри\n* * *\nчетыре\n"),
        (POEM, 5, True, POEM + "\n"),
        (POEM, 9, True, POEM + "\n"),
        (POEM, 9, False, POEM),  # its last line was cut off
        (POEM + "\n", 9, False, POEM + "\n"),
        ("\n\nраз\nдва", 1, False, "\n\nраз\n"),
        ("раз", 1, False, "раз"),
        ("раз\u2028два\nтри", 1, True, "раз\u2028два\n"),
        ("", 1, True, "\n"),
        ("", 1, False, ""),
    ],
)
def test_first_lines_by_hand(text, length, whole, lines):
    assert first_lines(text, length, whole) == lines


def test_openings_by_hand():
    found = openings([POEM, "раз\nдва\nтри", "1\n2\n3\n4"], lines=2, length=2)
    assert found == [Opening("раз\nдва\n", "\nтри\n* * *\nчетыре\n"), Opening("1\n2\n", "3\n4\n")]
    assert len(openings([POEM, "раз\nдва\nтри"], shortest=1)) == 2


def test_prompt_and_truth_are_the_beginning_of_the_poem():
    poems = [poem.text for poem in read_corpus("embedded")]
    for (prompt, truth), poem in zip(openings(poems), poems, strict=True):  # none of these is too short
        assert (poem + "\n").startswith(prompt + truth)
        assert len(prompt.split("\n")) == 3
        assert len([line for line in truth.split("\n") if line]) <= 6


def example_report(written):
    pairs = [Opening("а\nб\n", "снег идёт\nи снег лежит\n"), Opening("а\nб\n", "и вот\nи вот\n")]
    likelihoods = [Likelihood(2 * math.log(8), 2, 3), Likelihood(math.log(8), 1, 6)]
    return report(written, pairs, ["тихо снег идёт и"], likelihoods)


def test_figures_of_a_report_by_hand():
    written = ["Снег идёт, и снег.\nСнег идёт, и снег.\n", "и вот\nи во"]
    found = {name: figure.value for name, figure in example_report(written).items()}
    assert list(found) == list(BETTER)
    assert found["perplexity"] == pytest.approx(8)
    assert found["bits_per_character"] == pytest.approx(1)  # three tokens of 3 bits, nine characters
    assert found["verse"] == 1 / 2  # the second has one whole line
    assert found["lines"] == 3 / 2
    assert found["distinct_2"] == pytest.approx((4 / 7 + 1) / 2)  # of 7 pairs снег-идет, идет-и, и-снег, снег-снег
    assert found["repeated_lines"] == (1 / 2 + 0) / 2
    assert found["copied_words"] == (3 + 1) / 2  # снег идет и; и
    assert found["chrF"] == pytest.approx(chrf(written, ["снег идёт\nи снег лежит", "и вот\nи вот"]))
    assert found["chrF++"] == pytest.approx(chrf(written, ["снег идёт\nи снег лежит", "и вот\nи вот"], word_order=2))


def test_truth_itself_has_a_chrf_of_100_and_differs_from_others():
    truth = example_report(["снег идёт\nи снег лежит\n", "и вот\nи вот\n"])
    other = example_report(["рек\nрек\n", "рек\nрек\n"])
    assert (truth["chrF"].value, truth["chrF++"].value) == (pytest.approx(100), pytest.approx(100))
    for name in BETTER:
        assert math.isfinite(compare(truth[name], other[name], resamples=10).value)
    assert compare(truth["chrF"], other["chrF"], resamples=10).value > 90


def test_model_that_writes_nothing_is_measured_too():
    found = {name: figure.value for name, figure in example_report(["", ""]).items()}
    assert (found["chrF"], found["verse"], found["lines"], found["distinct_2"], found["copied_words"]) == (
        0,
        0,
        0,
        0,
        0,
    )


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (lambda: openings(["раз\nдва\nтри"]), r"None of the 1 text\(s\) has 2 line\(s\) and 2 more"),
        (lambda: openings([]), "None of the 0 text"),
        (lambda: openings([POEM], lines=0), "at least 1, got lines=0"),
        (lambda: openings(POEM), "got one string"),
        (lambda: example_report(["а"]), "but there are 1 and 2"),
        (lambda: report([], [], ["а"], [Likelihood(1, 1, 1)]), "no text"),
        (lambda: report(["а"], [("а", "б")], ["а"], []), "number 0 of it is tuple"),
        (lambda: report(["а"], [Opening("а", "б")], "а", [Likelihood(1, 1, 1)]), "got one string"),
        (lambda: report(["а"], [Opening("а", "б")], ["а"], []), "no likelihood to report"),
        (lambda: report(["а"], [Opening("а", "б")], ["а"], [1.5]), "must be a list of Likelihood"),
    ],
)
def test_what_cannot_be_measured_is_refused(mistake, words):
    with pytest.raises(ValueError, match=words):
        mistake()
