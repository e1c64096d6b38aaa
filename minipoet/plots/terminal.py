"""The comparison in a terminal: two columns where there is room for them, else one poem under the other. Plain text,
no colours: it can be piped, saved, and read aloud.

    print(compare_in_terminal(comparison))
"""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from minipoet.checks import expect, expect_whole
from minipoet.plots.comparison import CAPTIONS, Comparison, Pair, Row, Sample, cell, columns, visible

WIDE = 80  # from here on two columns
GAP = 4  # spaces between columns
HANG = "    "  # before what goes on from the line above
TAB = 4


def compare_in_terminal(comparison: Comparison, width: int | None = None) -> str:
    """The text of the comparison, its lines at most `width` places wide; None: as wide as the terminal.

    A place is the breadth of a Latin letter: Chinese signs and most emoji take two, an accent above a letter none.
    Pictures are left out. Raises ValueError for fewer than 20 places.
    """
    expect(comparison, Comparison, "comparison", "a Comparison")
    width = max(20, shutil.get_terminal_size().columns) if width is None else width
    expect_whole(20, width=width)
    return "\n".join(line.rstrip() for line in _lines(comparison, width)) + "\n"


def _lines(comparison: Comparison, width: int) -> Iterator[str]:
    yield from wrap(visible(comparison.title), width)
    yield from wrap(f"base model: {visible(comparison.base)}", width)
    for number, prompt in enumerate(comparison.prompts):
        yield from ("", *_ruled(prompt, "=", width))
        for poet in comparison.poets:
            pair = comparison.poems[poet][number]
            yield from ("", *_ruled(poet, "-", width))
            if pair.request != prompt:
                yield from wrap(visible(pair.request), width)
            yield from _pair(pair, width)
    for name, caption in CAPTIONS.items():
        if rows := getattr(comparison, name):
            yield from ("", *_ruled(caption, "=", width), *_table(rows, width))
    if comparison.notes:
        yield ""
    for note in comparison.notes:
        yield from wrap(f"- {visible(note)}", width, "  ")


def _ruled(title: str, rule: str, width: int) -> Iterator[str]:
    lines = list(wrap(visible(title), width))
    yield from lines
    yield rule * max(map(places, lines), default=0)


def _pair(pair: Pair, width: int) -> Iterator[str]:
    """The samples, side by side or one under the other."""
    half = (width - GAP) // 2
    for base, adapted in pair.samples:
        yield ""
        if width < WIDE:
            for number, (side, sample) in enumerate((("base", base), ("adapted", adapted))):
                if sample is not None:
                    yield from ([""] if number and base is not None else [])
                    yield from _poem(sample, side, width)
            continue
        sides = [list(_poem(s, side, half)) if s else [] for s, side in ((base, "base"), (adapted, "adapted"))]
        for left, right in zip_longest(*sides, fillvalue=""):
            yield f"{padded(left, half)}{' ' * GAP}{right}"


def _poem(sample: Sample, side: str, width: int) -> Iterator[str]:
    yield f"[{side}]"
    for line in sample.lines or ["(an empty text)"]:
        yield from wrap(line, width)
    if sample.note:
        yield from wrap(f"({sample.note})", width)


def _table(rows: Sequence[Row], width: int) -> Iterator[str]:
    """Columns under their names; where they do not fit, "name: value" lines under the head of each row."""
    names = columns(rows)
    cells = [[visible(name) for name in names], *([cell(row.get(name)) for name in names] for row in rows)]
    widths = [max(map(places, column)) for column in zip(*cells, strict=True)]
    if sum(widths) + 2 * (len(names) - 1) <= width:
        for line in cells:
            head, *others = (
                padded(value, w, left=not n) for n, (value, w) in enumerate(zip(line, widths, strict=True))
            )
            yield "  ".join((head, *others))
        return
    for line in cells[1:]:
        yield from wrap(line[0], width)
        for name, value in zip(cells[0][1:], line[1:], strict=True):
            yield from wrap(f"  {name}: {value}", width)


def places(text: str) -> int:
    """How many places of a terminal the text takes."""
    return sum(map(_places, text))


def _places(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def padded(text: str, width: int, left: bool = True) -> str:
    """The text with spaces up to the width, after it or, for figures, before it."""
    spaces = " " * (width - places(text))
    return text + spaces if left else spaces + text


def wrap(line: str, width: int, hang: str = HANG) -> Iterator[str]:
    """The line in pieces of at most `width` places, parted at spaces where there are any; the later ones hang."""
    line, start = line.expandtabs(TAB).rstrip(), ""
    while True:
        at, room = 0, width - places(start)
        while at < len(line) and (room := room - _places(line[at])) >= 0:
            at += 1
        if at == len(line):
            yield start + line
            return
        space = line.rfind(" ", 0, at + 1)
        at = space if line[:space].strip() and space > 0 else at
        yield start + line[:at]
        line, start = line[at:].lstrip(" "), hang
