"""The comparison as plain text: columns where there is room, no line too wide, nothing that commands a terminal."""

import re
import unicodedata

import pytest
from page_support import QUATRAINS, comparison, pair

from minipoet.plots.comparison import Pair, Sample
from minipoet.plots.terminal import compare_in_terminal, padded, places, wrap


def one(base: str, adapted: str, **changes):
    """A comparison of one pair and nothing else."""
    pairs = {"Пушкин": [Pair("осень", Sample(base), Sample(adapted))]}
    rest = dict(title="Т", metrics=(), style=(), figures=(), notes=(), poems=pairs)
    return comparison(("Пушкин",), ("осень",), **{**rest, **changes})


def test_two_columns_where_there_is_room():
    assert compare_in_terminal(one("раз\n\nдва", "три"), width=80).splitlines() == [
        "Т", "base model: poet-chat", "", "осень", "=====", "", "Пушкин", "------", "",
        "[base]" + 36 * " " + "[adapted]", "раз" + 39 * " " + "три", "", "два",
    ]  # fmt: skip


def test_one_under_the_other_where_there_is_none():
    assert compare_in_terminal(one("раз\n\nдва", "три"), width=79).splitlines()[9:] == [
        "[base]", "раз", "", "два", "", "[adapted]", "три",
    ]  # fmt: skip


@pytest.mark.parametrize("width", [20, 37, 79, 80, 100, 133])
def test_no_line_is_wider_than_asked_and_nothing_is_lost(width):
    text = compare_in_terminal(comparison(), width)
    assert max(map(places, text.splitlines())) <= width
    kept = re.sub(r"\s", "", text)
    for word in ("взлом", "украдено", "14,966,784", "0.70(0.48–0.86)", "anemptytext", "cut:nomorefits"):
        assert word in kept
    assert kept.count("без") >= 200 if width < 80 else "конца" in kept


def test_a_terminal_is_not_commanded():
    text = compare_in_terminal(comparison(), 100)
    assert {char for char in text if unicodedata.category(char) in ("Cc", "Cs")} == {"\n"}
    assert "␛[31m" in text and "\u202e" not in text


def test_wide_signs_take_two_places_and_accents_none():
    assert [places(text) for text in ("осень", "秋天", "а\u0301", "e\u0301\u200d", "🍂")] == [5, 4, 1, 1, 2]
    assert padded("秋", 4) == "秋  "
    lines = compare_in_terminal(one("秋天来了", "три"), 80).splitlines()
    assert lines[10] == "秋天来了" + 34 * " " + "три"


def test_lines_part_at_spaces_and_the_rest_hangs():
    assert list(wrap("раз два три четыре", 11)) == ["раз два три", "    четыре"]
    assert list(wrap("раз два три", 11)) == ["раз два три"]
    assert list(wrap("раздватричетыре", 8)) == ["раздватр", "    ичет", "    ыре"]
    assert list(wrap("\tраз", 11)) == ["    раз"]
    assert list(wrap("раз        ", 5)) == ["раз"]
    assert list(wrap("", 5)) == [""]


def test_a_table_that_fits_has_columns_and_one_that_does_not_is_a_list():
    rows = [{"author": "Пушкин", "loss": 2.5, "tokens": 1200}, {"author": "Фет", "loss": 12.5, "tokens": 7}]
    both = {"metrics": rows}
    assert compare_in_terminal(one("а", "б", **both), 80).splitlines()[-3:] == [
        "author    loss  tokens", "Пушкин   2.500   1,200", "Фет     12.500       7",
    ]  # fmt: skip
    assert compare_in_terminal(one("а", "б", **both), 21).splitlines()[-6:] == [
        "Пушкин", "  loss: 2.500", "  tokens: 1,200", "Фет", "  loss: 12.500", "  tokens: 7",
    ]  # fmt: skip


def test_the_terminal_tells_its_width(monkeypatch):
    monkeypatch.setenv("COLUMNS", "96")
    assert compare_in_terminal(comparison()) == compare_in_terminal(comparison(), 96)
    monkeypatch.setenv("COLUMNS", "3")
    assert compare_in_terminal(comparison()) == compare_in_terminal(comparison(), 20)


def test_several_samples_and_no_partner():
    pairs = {"Пушкин": [Pair("осень", [Sample("раз"), Sample("два", seed=2)], [])]}
    text = compare_in_terminal(one("", "", poems=pairs), 80)
    assert text.splitlines()[9:] == ["[base]", "раз", "", "[base]", "два", "(seed 2)"]


def test_a_width_without_room_is_refused():
    with pytest.raises(ValueError, match="at least 20, got width=19"):
        compare_in_terminal(comparison(), 19)
    with pytest.raises(ValueError, match="must be a Comparison, got Pair"):
        compare_in_terminal(pair())


def test_verse_stays_line_for_line():
    text = compare_in_terminal(one(QUATRAINS, "а"), 60)
    assert f"[base]\n{QUATRAINS}\n" in text
