"""A poem that is too long for the room it is given, divided where a reader would pause.

    quatrains   how many stanzas of four lines a text has, if it is made of nothing else
    excerpts    the parts of a poem, each short enough: ends of stanzas first, then ends of lines

Among all ways to divide, the best is searched for as TeX breaks a paragraph into lines: an excerpt costs the square of
the share of the room that it leaves empty, so that the parts come out alike and no tiny rest is left, and something
more if it ends inside a stanza. Knuth and Plass, "Breaking Paragraphs into Lines", 1981. Chapter: docs/instruction.md
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

from minipoet.checks import expect, expect_whole
from minipoet.text.poems import Poem
from minipoet.text.works import work_of

INSIDE = 0.4  # what it costs to end inside a stanza, beside 1 for an excerpt that is all empty

_LINE = re.compile(r"[^\n]*\S[^\n]*\n?(?:[ \t]*\n)*")  # with the blank line behind the last one of a stanza

Measure = Callable[[Sequence[str]], Sequence[int]]


class Excerpts(NamedTuple):
    """The parts of a poem in order; how many of its lines were too long for the room and were cut between words."""

    poems: list[Poem]
    cut_lines: int


def quatrains(text: str) -> int | None:
    """How many stanzas a text has, if all of them have four lines; None for any other text.

    Stanzas are what blank lines divide. Eight lines without a blank one are no two quatrains here: who does not mark
    stanzas may have written couplets, or none (an unmarked text of four lines is one quatrain).
    """
    expect(text, str, "The text", "a string")
    sizes = [len(stanza.split("\n")) for stanza in re.split(r"\n(?:[ \t]*\n)+", text.strip())]
    return len(sizes) if set(sizes) == {4} else None


def excerpts(poem: Poem, measure: Measure, room: int) -> Excerpts:
    """The poem itself if it fits, else its parts, none longer than `room`.

    Args:
        poem: its parts keep its title and author; they are given its work, or its title or first line for one, so that
            a split by work keeps them on one side.
        measure: the lengths of some strings, in whatever unit: `lambda texts: [len(text) for text in texts]`, or the
            numbers of their tokens. Asked once for all lines (each with the line end behind it), and once for the words
            of lines that are too long. The length of a part is taken to be the sum of those of its lines.
        room: the greatest length of a part.

    Raises:
        ValueError: a word is longer than the room.
    """
    expect(poem, Poem, "The poem", "a Poem(text)")
    expect_whole(room=room)
    lines = _LINE.findall(poem.text)
    lengths = list(measure(lines))
    if sum(lengths) <= room:
        return Excerpts([poem], 0)
    pieces, sizes = [], []
    cut_lines = 0
    for line, length in zip(lines, lengths, strict=True):
        parts = [(line, length)] if length <= room else _cut_line(line, measure, room)
        cut_lines += len(parts) > 1
        pieces += [part for part, _ in parts]
        sizes += [size for _, size in parts]
    ends = [piece.count("\n") > 1 for piece in pieces]
    work = poem.work or work_of(poem) or poem.title or poem.text.lstrip("\n").partition("\n")[0]
    texts = ["".join(pieces[start:stop]).strip("\n") for start, stop in _divide(sizes, ends, room)]
    return Excerpts([replace(poem, text=text, work=work) for text in texts], cut_lines)


def _cut_line(line: str, measure: Measure, room: int) -> list[tuple[str, int]]:
    """Parts of one line, of whole words, as full as they can be; and their lengths."""
    words = re.findall(r"\s*\S+\s*$|\s*\S+", line)
    parts = [("", 0)]
    for word, length in zip(words, measure(words), strict=True):
        if length > room:
            raise ValueError(
                f"The word {word.strip()[:40]!r} alone takes {length}, but there is room for {room}: give more."
            )
        text, size = parts[-1]
        if text and size + length > room:
            parts.append((word.lstrip(" "), length))
        else:
            parts[-1] = (text + word, size + length)
    return parts


def _divide(sizes: Sequence[int], stanza_ends: Sequence[bool], room: int) -> list[tuple[int, int]]:
    """The cheapest division of a row of pieces into parts [start, stop) of at most `room`.

    best[stop] is the cost of the pieces before stop: that of the last part, and best[start] where it begins.
    """
    best, begins = [0.0], [0]
    for stop in range(1, len(sizes) + 1):
        inside = 0 if stop == len(sizes) or stanza_ends[stop - 1] else INSIDE
        cost, begin, used = float("inf"), stop - 1, 0
        for start in range(stop - 1, -1, -1):
            used += sizes[start]
            if used > room:
                break
            this = best[start] + (1 - used / room) ** 2 + inside
            if this < cost:
                cost, begin = this, start
        best.append(cost)
        begins.append(begin)
    stops = [len(sizes)]
    while stops[-1]:
        stops.append(begins[stops[-1]])
    return list(pairwise(reversed(stops)))
