"""Duplicates: the same poem twice, or two printings of one poem, found without comparing every pair.

Collections overlap: one poem comes from two books with another comma, a stanza less, ё or е, or its lines divided
otherwise. A copy counts twice in training, and a copy on the other side of a split is a leak: the test then measures
memory.

The idea: forget case, ё, punctuation and spaces; note for each *mark* of a text (a long line, or six words in a row,
whatever the lines) which poems have it: an inverted index, as in a search engine. Only poems that meet there are
compared, so the work grows with the number of words, not with the square of the number of poems.

    line_keys        the normalised lines of a text
    word_runs        all runs of six words
    Marks            the same of many texts as numbers: strings of a hundred thousand poems would take 2 GB
    Shelf            texts, and which of them is a variant of another
    drop_duplicates  a corpus without copies, and which poem was dropped for which
    find_leaks       the copies in one corpus of poems of another

Runs of words are the shingles of Broder, "On the resemblance and containment of documents", 1997.
Chapter: docs/text.md.
"""

import re
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np

from minipoet.checks import each
from minipoet.text.poems import Poem

LONG = 4  # words in a line that is unlikely to be written twice by chance
RUN = 6  # words in a row that are unlikely to be: more, since they may begin anywhere
COMMON = 8  # what stands in more poems than this is a formula ("не по дням, а по часам"), no sign of a copy by itself
SAME = 0.5  # share of the shorter poem from which on two poems are variants of one
ALMOST = 0.8  # the same where they meet in formulae only: a poem that was reposted many times is no formula
AT_LEAST = 2  # shared lines, since half of a couplet is one line: that may be a quotation

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Duplicate:
    """`dropped` was left out for `kept`, which has the share `share` of its lines or word runs; 1 is a copy."""

    dropped: Poem
    kept: Poem
    share: float


def word_key(text: str) -> str:
    """The words of a text, lower case, ё as е, one space between: equal for texts that differ in print only."""
    return " ".join(_WORD.findall(_fold(text)))


def _fold(text: str) -> str:
    return text.casefold().replace("ё", "е")


def line_keys(text: str) -> set[str]:
    """The different lines of a text as `word_key` sees them; lines without a word (stars, dots) are not lines."""
    return {key for line in text.split("\n") if (key := word_key(line))}


def word_runs(text: str) -> set[str]:
    """All runs of `RUN` words of a text, across the ends of lines."""
    words = word_key(text).split()
    return {" ".join(words[start : start + RUN]) for start in range(len(words) - RUN + 1)}


class NumberSets:
    """Many sets of numbers in one array, 8 bytes a number."""

    def __init__(self) -> None:
        self.flat, self.ends = array("q"), array("q", [0])

    def append(self, numbers: Iterable[int]) -> None:
        self.flat.extend(numbers)
        self.ends.append(len(self.flat))

    def __getitem__(self, index: int) -> np.ndarray:
        return np.frombuffer(self.flat, np.int64)[self.ends[index] : self.ends[index + 1]]


class Marks:
    """The lines, the word runs and the marks of texts, each as its 64-bit hash, since only equality matters here.

    A mark is a line of `LONG` words or more, or a run of `RUN`. Among ten million hashes two different lines meet by
    chance once in 400,000 corpora.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.lines, self.runs, self.marks = NumberSets(), NumberSets(), NumberSets()
        for text in texts:
            lines = [tuple(_WORD.findall(line)) for line in _fold(text).split("\n")]
            words = list(chain.from_iterable(lines))
            runs = set(map(hash, zip(*(words[start:] for start in range(RUN)), strict=False)))
            self.lines.append({hash(line) for line in lines if line})
            self.runs.append(runs)
            self.marks.append(runs | {hash(line) for line in lines if len(line) >= LONG})

    def groups(self) -> tuple[list[list[int]], list[int]]:
        """The marks that several texts have, numbered: for each text those that it has, for each mark how many have it.

        Equal hashes stand together when all are sorted: no dictionary of ten million entries.
        """
        flat, ends = np.array(self.marks.flat, np.int64), self.marks.ends
        order = np.argsort(flat, kind="stable")
        flat = flat[order]
        kinds = np.zeros(len(flat), np.int32)  # of the sorted marks: 0 0 0 1 2 2 …
        np.cumsum(flat[1:] != flat[:-1], dtype=np.int32, out=kinds[1:])
        sizes = np.bincount(kinds)
        several = sizes >= 2
        numbers = np.where(several, np.cumsum(several) - 1, -1).astype(np.int32)
        of_marks = np.empty(len(flat), np.int32)
        of_marks[order] = numbers[kinds]
        texts = (of_marks[start:end] for start, end in pairwise(ends))
        return [text[text >= 0].tolist() for text in texts], sizes[several].tolist()

    def share(self, one: int, other: int) -> float:
        """The share of the lines, or of the word runs if that is more, that the shorter text has in the other."""
        lines, runs = (
            (len(np.intersect1d(a, b, assume_unique=True)), max(1, min(len(a), len(b))))
            for a, b in ((kind[one], kind[other]) for kind in (self.lines, self.runs))
        )
        return max(lines[0] / lines[1] if lines[0] >= AT_LEAST else 0.0, runs[0] / runs[1])


class Shelf:
    """Some of many texts, put here one by one, and the one among them that is a variant of another.

    Only texts that have a mark in common are compared. A formula leads to the `COMMON` texts that were put here first.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.marks = Marks(texts)
        self.groups, self.sizes = self.marks.groups()
        self.holders: list[list[int]] = [[] for _ in self.sizes]  # of each mark, the texts here
        self.places: dict[int, int] = {}

    def put(self, number: int) -> None:
        """Put the text of that number here."""
        self.places[number] = len(self.places)
        for group in self.groups[number]:
            if len(self.holders[group]) < COMMON:
                self.holders[group].append(number)

    def variant_of(self, number: int) -> tuple[int | None, float]:
        """The number of the text here that shares most with a text, and the share; (None, 0) if that is no variant."""
        rare: set[int] = set()
        formulae: set[int] = set()
        for group in self.groups[number]:
            (rare if self.sizes[group] <= COMMON else formulae).update(self.holders[group])
        shares = {other: self.marks.share(number, other) for other in rare | formulae}
        shares = {other: share for other, share in shares.items() if share >= (SAME if other in rare else ALMOST)}
        nearest = max(shares, key=lambda other: (shares[other], -self.places[other]), default=None)
        return nearest, 0.0 if nearest is None else shares[nearest]


def drop_duplicates(poems: Sequence[Poem]) -> tuple[list[Poem], list[Duplicate]]:
    """The poems without copies and variants (in the given order), and the list of what was dropped for what.

    Two poems are variants if they have the same words, or if they have a mark in common and at least half of the
    lines, or of the word runs, of the shorter (`ALMOST` all of them, where only formulae lead from one to the other).
    The longer of them is kept. Poems are considered from the longest to the shortest (equals: titled first, then in the
    order of their text), and each is compared with the kept ones only: the result does not depend on the order of the
    input, and nothing is dropped for a poem that was itself dropped.
    """
    poems = list(each(poems, Poem, "The poems", "Poem(text)"))
    keys = [word_key(poem.text) for poem in poems]
    shelf = Shelf(poem.text for poem in poems)
    by_key: dict[str, int] = {}
    dropped = []
    for number in sorted(range(len(poems)), key=lambda number: _rank(poems[number], keys[number])):
        original, share = by_key.get(keys[number]), 1.0
        if original is None:
            original, share = shelf.variant_of(number)
        if original is None:
            by_key[keys[number]] = number
            shelf.put(number)
        else:
            dropped.append(Duplicate(poems[number], poems[original], share))
    return [poems[number] for number in sorted(shelf.places)], dropped


def _rank(poem: Poem, key: str) -> tuple[int, bool, str, str, str, str, str, str]:
    """The order in which poems are considered: longest first, the rest so that no two different poems are equal."""
    return -len(key), not poem.title, key, poem.text, poem.title, poem.author, poem.work, poem.source


def find_leaks(train: Sequence[Poem], held_out: Sequence[Poem]) -> list[Duplicate]:
    """The held-out poems that are variants of a training poem: `dropped`, the nearest one as `kept`, and the share."""
    poems = [*train, *held_out]
    shelf = Shelf(poem.text for poem in poems)
    for number in range(len(train)):
        shelf.put(number)
    by_key = {word_key(poem.text): number for number, poem in reversed(list(enumerate(train)))}
    leaks = []
    for number, poem in enumerate(held_out, start=len(train)):
        original, share = by_key.get(word_key(poem.text)), 1.0
        if original is None:
            original, share = shelf.variant_of(number)
        if original is not None:
            leaks.append(Duplicate(poem, poems[original], share))
    return leaks
