"""Duplicates: the same poem twice, or two printings of one poem, found without comparing every pair.

Collections overlap: one poem comes from two books with another comma, a stanza less, ё or е, or its lines divided
otherwise. A copy counts twice in training, and a copy on the other side of a split is a leak: the test then measures
memory.

The idea: forget case, ё, punctuation and spaces; note for each *mark* of a text (a long line, or six words in a row,
whatever the lines) which poems have it: an inverted index, as in a search engine. Only poems that meet there are
compared, so the work grows with the number of words, not with the square of the number of poems.

    line_keys        the normalised lines of a text
    word_runs        all runs of six words
    marks            its long lines and its word runs, as numbers
    index_marks      mark -> the texts that have it
    drop_duplicates  a corpus without copies, and which poem was dropped for which

Runs of words are the shingles of Broder, "On the resemblance and containment of documents", 1997.
Chapter: docs/text.md.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from minipoet.checks import each
from minipoet.text.poems import Poem

LONG = 4  # words in a line that is unlikely to be written twice by chance
RUN = 6  # words in a row that are unlikely to be: more, since they may begin anywhere
COMMON = 8  # what stands in more poems than this is a formula ("не по дням, а по часам"), no sign of a copy
SAME = 0.5  # share of the shorter poem from which on two poems are variants of one
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
    return " ".join(_WORD.findall(text.casefold().replace("ё", "е")))


def line_keys(text: str) -> set[str]:
    """The different lines of a text as `word_key` sees them; lines without a word (stars, dots) are not lines."""
    return {key for line in text.split("\n") if (key := word_key(line))}


def word_runs(text: str) -> set[str]:
    """All runs of `RUN` words of a text, across the ends of lines."""
    words = word_key(text).split()
    return {" ".join(words[start : start + RUN]) for start in range(len(words) - RUN + 1)}


def marks(lines: Iterable[str], runs: Iterable[str]) -> set[int]:
    """Lines of `LONG` words or more and word runs, as numbers: `hash` saves memory, and only equality matters here."""
    return {hash(line) for line in lines if line.count(" ") >= LONG - 1} | {hash(run) for run in runs}


def index_marks(texts: Sequence[set[int]]) -> dict[int, list[int]]:
    """Mark -> the numbers of the texts that have it, for the marks of at least two and at most `COMMON` texts."""
    first: dict[int, int] = {}
    index: dict[int, list[int]] = {}
    for number, text_marks in enumerate(texts):
        for mark in text_marks:
            earlier = first.setdefault(mark, number)
            if earlier != number:
                index.setdefault(mark, [earlier]).append(number)
    return {mark: numbers for mark, numbers in index.items() if len(numbers) <= COMMON}


def drop_duplicates(poems: Sequence[Poem]) -> tuple[list[Poem], list[Duplicate]]:
    """The poems without copies and variants (in the given order), and the list of what was dropped for what.

    Two poems are variants if they have the same words, or if they have a mark in common and at least half of the
    lines, or of the word runs, of the shorter. The longer of them is kept. Poems are considered from the longest to
    the shortest (equals: titled first, then in the order of their text), and each is compared with the kept ones only:
    the result does not depend on the order of the input, and nothing is dropped for a poem that was itself dropped.
    """
    poems = list(each(poems, Poem, "The poems", "Poem(text)"))
    keys = [word_key(poem.text) for poem in poems]
    lines = [line_keys(poem.text) for poem in poems]
    runs = [word_runs(poem.text) for poem in poems]
    texts = [marks(*both) for both in zip(lines, runs, strict=True)]
    index = index_marks(texts)

    by_key: dict[str, int] = {}
    kept: dict[int, int] = {}  # number of a kept poem -> its place in the order of consideration
    dropped = []
    for number in sorted(range(len(poems)), key=lambda number: _rank(poems[number], keys[number])):
        share, original = 1.0, by_key.get(keys[number])
        if original is None:
            meeting = {other for mark in texts[number] for other in index.get(mark, ()) if other in kept}
            shares = {other: _share(lines, runs, number, other) for other in meeting}
            original = max(meeting, key=lambda other: (shares[other], -kept[other]), default=None)
            share = shares[original] if original is not None else 0.0
        if original is None or share < SAME:
            by_key[keys[number]] = number
            kept[number] = len(kept)
        else:
            dropped.append(Duplicate(poems[number], poems[original], share))
    return [poems[number] for number in sorted(kept)], dropped


def _rank(poem: Poem, key: str) -> tuple[int, bool, str, str, str, str, str, str]:
    """The order in which poems are considered: longest first, the rest so that no two different poems are equal."""
    return -len(key), not poem.title, key, poem.text, poem.title, poem.author, poem.work, poem.source


def _share(lines: list[set[str]], runs: list[set[str]], one: int, other: int) -> float:
    """The share of the lines, or of the word runs if that is more, that the shorter of two poems has in the other."""
    shared = len(lines[one] & lines[other])
    by_lines = shared / min(len(lines[one]), len(lines[other])) if shared >= AT_LEAST else 0.0
    by_runs = len(runs[one] & runs[other]) / max(1, min(len(runs[one]), len(runs[other])))
    return max(by_lines, by_runs)
