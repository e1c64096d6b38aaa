"""Does the model write, or does it recite? The longest run of words that a text shares with the training verse.

A run is consecutive words that stand in the same order in one training text; case, ё, punctuation and line breaks do
not count, and a run never goes on from one training text into the next. Runs of two or three words are the language;
a long one is a copy. What is long, the poet tells himself: measure verse of his that was held out by the same rule,
cut to the same length (a longer text has longer runs), and what the model wrote before it learnt. Give continuations
without their prompts: a prompt may be a quotation, and the model did not write it. A split that keeps poems with
shared lines together (`minipoet.text.split_by_work`) lowers the poet's own figure a little.

    CopyIndex     the training verse, by its pairs of words
    SharedRun     the longest run of one text, and where it comes from
    Copying       the runs of several texts, and their summary

The search is the table of the longest common substring (Gusfield, "Algorithms on Strings, Trees, and Sequences", 1997),
of which only the cells are visited where two words in a row agree. Chapter: docs/lora.md
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from minipoet.checks import each, expect
from minipoet.text.dedup import word_key

LONG = 5  # words in a row from which on a run is counted as copied


class SharedRun(NamedTuple):
    """So many consecutive words, as `word_key` spells them, stand in the training text number `source` (None: none)."""

    words: int
    text: str
    source: int | None


@dataclass(frozen=True)
class Copying:
    """The longest shared run of each text."""

    runs: tuple[SharedRun, ...]

    def __post_init__(self):
        if not self.runs:
            raise ValueError("There is no text to look for copies in.")

    @property
    def mean(self) -> float:
        """Words in the longest run, the mean over the texts."""
        return fmean(run.words for run in self.runs)

    @property
    def longest(self) -> SharedRun:
        """The longest run of all; the first of equal ones."""
        return max(self.runs, key=lambda run: run.words)

    def share(self, least: int = LONG) -> float:
        """Share of the texts with a run of at least so many words."""
        return sum(run.words >= least for run in self.runs) / len(self.runs)


class CopyIndex:
    """The training verse: for each pair of neighbouring words, where it ends. Raises ValueError if there is no word."""

    def __init__(self, training: Iterable[str]):
        self._starts: list[int] = []  # of each text, counted in words over all texts
        self._first: dict[str, int] = {}  # word -> where it stands first
        self._ends: dict[tuple[str, str], list[int]] = {}
        place = 0
        for text in each(training, str, "The training verse", "texts"):
            self._starts.append(place)
            words = word_key(text).split()
            for number, word in enumerate(words):
                self._first.setdefault(word, place + number)
                if number:
                    self._ends.setdefault((words[number - 1], word), []).append(place + number)
            place += len(words)
        if not place:
            raise ValueError("There is no word in the training verse to look for.")

    def longest_run(self, text: str) -> SharedRun:
        """The longest run that the text shares with the training verse; of equal ones the first, in both."""
        expect(text, str, "The text", "a string")
        words = word_key(text).split()
        best, stop, end = 0, 0, 0  # the run is words[stop - best : stop], and ends at this place of the training verse
        lengths: dict[int, int] = {}  # the run that ends at a place of the training verse and at the word before
        for number in range(1, len(words)):
            ends = self._ends.get((words[number - 1], words[number]), ())
            lengths = {place: lengths.get(place - 1, 1) + 1 for place in ends}
            for place, length in lengths.items():
                if length > best:
                    best, stop, end = length, number + 1, place
        if not best:  # no pair: a single word, perhaps
            known = next((number for number, word in enumerate(words) if word in self._first), None)
            if known is None:
                return SharedRun(0, "", None)
            best, stop, end = 1, known + 1, self._first[words[known]]
        return SharedRun(best, " ".join(words[stop - best : stop]), bisect_right(self._starts, end) - 1)

    def copying(self, texts: Sequence[str]) -> Copying:
        """The longest run of each text. Raises ValueError for no texts."""
        return Copying(tuple(map(self.longest_run, each(texts, str, "The texts", "strings"))))
