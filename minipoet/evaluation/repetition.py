"""Does the model go on, or round in circles? How much of a text is repetition.

    repetition      measure texts, each by its first words
    Repeats         of one text: repeated n-grams, loops, repeated lines
    Repetition      of several texts: the means

A repeated n-gram is one that stood in the same text before: their share is 1 − different / all. It grows with length
(a language has only so many words), so texts are compared by a *window*, their first words, and a text that is shorter
is not measured. Shares do not tell a refrain from a model that is caught: `loops` does. It is the share of words in
stretches where one block of words comes three times or more with nothing between ("и вот, и вот, и вот"). What is
normal, the poet tells: measure held-out verse by the same window. Of 50 words of Pushkin or Yesenin, about 12 in a
hundred stood before, of pairs about one, and one poem in two hundred has a loop ("О пашни, пашни, пашни").

Words are those of `word_key`: case, ё and punctuation do not count. Shares of different n-grams as a measure: Li et al.
2016, "A Diversity-Promoting Objective Function"; loops: Holtzman et al. 2020, "The Curious Case of Neural Text
Degeneration". Chapter: docs/words.md
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from minipoet.checks import each, expect_whole, is_whole, shown
from minipoet.text.dedup import word_key

LENGTHS = (1, 2, 3, 4)  # words in an n-gram
BLOCK = 12  # words in a block that may loop: two lines of verse
TIMES = 3  # a block that comes as often in a row is a loop; twice is a figure of speech


class Repeats(NamedTuple):
    """Shares from 0 to 1 of one text: of n-grams repeated, for n of 1 to 4, of words in loops, of lines repeated."""

    ngrams: tuple[float, ...]
    loops: float
    lines: float


@dataclass(frozen=True)
class Repetition:
    """The repeats of each text that is as long as the window; the others are only counted, as `short`."""

    texts: tuple[Repeats, ...]
    window: int | None
    short: int = 0

    def __post_init__(self):
        if not self.texts:
            raise ValueError("There is no text to look for repetition in.")

    def ngrams(self, n: int) -> float:
        """Share of the n-grams (n of 1 to 4) that stood in their text before, the mean over the texts."""
        if not is_whole(n, 1, len(LENGTHS) + 1):
            raise ValueError(f"Repeated n-grams are measured for n of 1 to {len(LENGTHS)}, got {shown(n)}.")
        return fmean(text.ngrams[n - 1] for text in self.texts)

    @property
    def loops(self) -> float:
        """Share of the words that stand in a loop, the mean over the texts."""
        return fmean(text.loops for text in self.texts)

    @property
    def looping(self) -> float:
        """Share of the texts that have a loop anywhere."""
        return sum(text.loops > 0 for text in self.texts) / len(self.texts)

    @property
    def lines(self) -> float:
        """Share of the lines that stood in their text before, the mean over the texts."""
        return fmean(text.lines for text in self.texts)


def repetition(texts: Iterable[str], window: int | None = 50) -> Repetition:
    """How much the texts repeat themselves, each by its first `window` words; None takes each as long as it is.

    Raises ValueError for no texts, and if none has as many words.
    """
    if window is not None:
        expect_whole(len(LENGTHS), window=window)
    found = [[word_key(line).split() for line in text.split("\n")] for text in each(texts, str, "The texts", "strings")]
    sizes = [sum(map(len, lines)) for lines in found]
    if window is not None and sizes and max(sizes) < window:
        raise ValueError(
            f"None of the {len(sizes)} text(s) has {window} words, the longest has {max(sizes)}: take a smaller window."
        )
    measured = [_repeats(lines, window) for lines, size in zip(found, sizes, strict=True) if size >= (window or 0)]
    return Repetition(tuple(measured), window, len(found) - len(measured))


def _repeats(lines: list[list[str]], window: int | None) -> Repeats:
    """The repeats of a text, given as the words of its lines; a line that the window cuts is none."""
    words = [word for line in lines for word in line][:window]
    whole, end = [], 0
    for line in lines:
        end += len(line)
        if line and end <= len(words):
            whole.append(tuple(line))
    ngrams = tuple(_repeated(list(zip(*(words[k:] for k in range(n)), strict=False))) for n in LENGTHS)
    return Repeats(ngrams, _looped(words) / max(1, len(words)), _repeated(whole))


def _repeated(items: Sequence[tuple[str, ...]]) -> float:
    """1 − different / all; 0 of nothing."""
    return 1 - len(set(items)) / len(items) if items else 0.0


def _looped(words: list[str]) -> int:
    """How many words stand in a block of at most `BLOCK` words that comes `TIMES` times or more in a row."""
    inside: set[int] = set()
    for size in range(1, BLOCK + 1):
        stretch = TIMES * size
        for start in range(len(words) - stretch + 1):
            if words[start : start + stretch - size] == words[start + size : start + stretch]:  # each like the next
                inside.update(range(start, start + stretch))
    return len(inside)
