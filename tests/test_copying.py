"""Copying: the longest run of words that a text shares with the training verse, worked by hand."""

import random
import time

import pytest

from minipoet.evaluation import CopyIndex, Copying, SharedRun

VERSE = ["Над рекой стоит туман,\nНад рекой горит заря.", "Горит заря, и спит река;\nЕщё темно, ещё темно."]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Вдали стоит туман, и тихо", (2, "стоит туман", 0)),
        ("стоит туман над рекой горит", (5, "стоит туман над рекой горит", 0)),  # over the line break
        ("Опять НАД — рекой!\nгорит…", (3, "над рекой горит", 0)),  # the second «над рекой», not the first
        ("еще темно", (2, "еще темно", 1)),
        ("и спит ещё, и спит река", (3, "и спит река", 1)),
        ("горит заря горит заря и спит", (4, "горит заря и спит", 1)),  # the first poem ends with «горит заря»
        ("заря, туман, река", (1, "заря", 0)),
        ("снег", (0, "", None)),
        ("…", (0, "", None)),
    ],
)
def test_longest_run_by_hand(text, expected):
    assert CopyIndex(VERSE).longest_run(text) == expected


def test_run_does_not_go_on_in_the_next_poem():
    assert CopyIndex(["а б в", "г д е"]).longest_run("б в г д") == (2, "б в", 0)
    assert CopyIndex(["а б в", "", "г д"]).longest_run("г д") == (2, "г д", 2)
    assert CopyIndex(["а б в", "г д"]).longest_run("г") == (1, "г", 1)


def test_summary_by_hand():
    found = Copying(tuple(SharedRun(n, f"слов {n}", 0) for n in (2, 7, 5, 4)))
    assert (found.mean, found.share(), found.share(4), found.longest.words) == (4.5, 0.5, 0.75, 7)


def test_what_is_copied_whole_is_found_whole():
    found = CopyIndex(VERSE).copying([VERSE[1], "снег"])
    assert found.runs == ((9, "горит заря и спит река еще темно еще темно", 1), (0, "", None))


def test_runs_are_those_that_comparing_every_word_with_every_word_finds():
    draw = random.Random(0)
    poems = [[draw.choice("абвг") for _ in range(40)] for _ in range(6)]
    index = CopyIndex(" ".join(poem) for poem in poems)
    for _ in range(50):
        words = [draw.choice("абвг") for _ in range(12)]
        inside = [f" {' '.join(poem)} " for poem in poems]
        spans = [(j - i, " ".join(words[i:j])) for i in range(12) for j in range(i + 1, 13)]
        longest = max(length for length, span in spans if any(f" {span} " in poem for poem in inside))
        run = index.longest_run(" ".join(words))
        assert run.words == longest == len(run.text.split())
        assert f" {run.text} " in inside[run.source]


def test_a_megabyte_of_verse_and_a_thousand_poems_take_seconds():
    draw = random.Random(0)
    words = [f"слово{n}" for n in range(20_000)]
    weights = [1 / (n + 1) for n in range(20_000)]  # as words are in a language
    verse = draw.choices(words, weights, k=150_000)
    poems = [draw.choices(words, weights, k=50) for _ in range(1000)]
    started = time.process_time()
    CopyIndex(" ".join(verse[i : i + 200]) for i in range(0, 150_000, 200)).copying([" ".join(poem) for poem in poems])
    assert time.process_time() - started < 15


def test_nothing_to_compare_is_refused():
    with pytest.raises(ValueError, match="no word"):
        CopyIndex(["…", ""])
    with pytest.raises(ValueError, match="no text"):
        CopyIndex(VERSE).copying([])
