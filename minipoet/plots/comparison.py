"""What a page of comparison shows: the base model's poems beside the adapted ones', and what was measured. Plain data.

    Sample      one poem: its text, why it ended, its seed
    Pair        what was asked, the base's samples and the adapted model's
    Picture     a PNG with the words for who does not see it, and its twin for a dark page
    Comparison  all of it: poets × prompts, tables, pictures, notes

`write_page` (page.py) makes a file for a browser of it, `compare_in_terminal` (terminal.py) a text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from numbers import Integral, Real
from typing import Any

from minipoet.checks import each, expect, is_number, is_whole, shown

Row = Mapping[str, Any]  # a column's name -> str, number, Interval (a value and its bounds) or None
LINE_END = re.compile("\r\n|[\n\r\u0085\u2028\u2029]")
BLANK = re.compile("\\A\\s*[\n\r\u0085\u2028\u2029]")  # empty lines at the beginning; not the first line's spaces
BIDI = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}  # what turns the direction of writing
FINISHES = ("end", "stop", "length", "context", "")
CAPTIONS = {"metrics": "What the trainer reported", "style": "Whose style is it?"}


@dataclass(frozen=True)
class Sample:
    """One poem. finish: as `Generated` has it, "end", "stop", "length" or "context"; "" where it is not known.

    tokens: how many the model wrote. seed: the one that writes this poem again.
    """

    text: str
    finish: str = ""
    seed: int | None = None
    tokens: int | None = None

    def __post_init__(self):
        expect(self.text, str, "The text of a sample", "a string")
        if self.finish not in FINISHES:
            raise ValueError(f"A sample's finish must be one of {', '.join(FINISHES[:-1])}, got {shown(self.finish)}.")
        for name in ("seed", "tokens"):
            if getattr(self, name) is not None and not is_whole(getattr(self, name)):
                raise ValueError(f"A sample's {name} must be a whole number, got {shown(getattr(self, name))}.")

    @property
    def lines(self) -> list[str]:
        """The lines as they can be shown anywhere; empty ones part the stanzas. Of a poem without a letter: none."""
        text = BLANK.sub("", self.text.rstrip())
        return [visible(line.rstrip()) for line in LINE_END.split(text)] if text else []

    @property
    def note(self) -> str:
        """How it ended, in a few words: "cut at 120 tokens · seed 3"."""
        tokens = "" if self.tokens is None else f"{self.tokens:,} token{'' if self.tokens == 1 else 's'}"
        ended = {
            "end": f"ended after {tokens}" if tokens else "ended by the model",
            "stop": f"stopped after {tokens}" if tokens else "stopped",
            "length": f"cut at {tokens}" if tokens else "cut: no more was asked for",
            "context": f"cut: no more than {tokens} fit" if tokens else "cut: no more fits",
            "": tokens,
        }[self.finish]
        return " · ".join(filter(None, (ended, "" if self.seed is None else f"seed {self.seed}")))


@dataclass(frozen=True)
class Pair:
    """What was asked, and what the base and the adapted model wrote: a sample each, or several."""

    request: str
    base: Sample | Sequence[Sample]
    adapted: Sample | Sequence[Sample]

    def __post_init__(self):
        expect(self.request, str, "The request", "a string")
        for name in ("base", "adapted"):
            object.__setattr__(self, name, _as_samples(getattr(self, name), name))

    @property
    def samples(self) -> list[tuple[Sample | None, Sample | None]]:
        """(base, adapted) side by side; None where there are more of the other."""
        return list(zip_longest(_as_samples(self.base, "base"), _as_samples(self.adapted, "adapted")))


@dataclass(frozen=True)
class Picture:
    """png: the bytes of the file. alt: what it shows, in words. dark: the same picture for a dark page."""

    png: bytes
    alt: str
    caption: str = ""
    dark: bytes | None = None

    def __post_init__(self):
        for png in (self.png, *([] if self.dark is None else [self.dark])):
            if not isinstance(png, bytes) or not png.startswith(b"\x89PNG\r\n\x1a\n") or len(png) < 24:
                raise ValueError("A picture must be the bytes of a PNG file: Path('loss.png').read_bytes().")
        if not isinstance(self.alt, str) or not self.alt.strip():
            raise ValueError("A picture needs words that say what it shows: alt='The loss of three poets: ...'.")
        expect(self.caption, str, "The caption", "a string")


@dataclass(frozen=True)
class Comparison:
    """The base model beside its adapters.

    title, base: of the page; the name of the base model.
    poets, prompts: names, and themes or whole requests, in the order in which they are shown.
    poems: poems[poet][i] is the Pair of prompts[i].
    metrics, style: rows of the trainer's table and of the author judge's, {column: value}; the first column names the
    row. A value is a string, a number, an Interval or None.
    figures: Pictures. notes: plain sentences: the data and their licences, the settings, the command.
    Raises ValueError that lists all that does not fit.
    """

    title: str
    base: str
    poets: Sequence[str]
    prompts: Sequence[str]
    poems: Mapping[str, Sequence[Pair]]
    metrics: Sequence[Row] = ()
    style: Sequence[Row] = ()
    figures: Sequence[Picture] = ()
    notes: Sequence[str] = ()

    def __post_init__(self):
        for name, kind, wanted in _KINDS:
            object.__setattr__(self, name, tuple(each(getattr(self, name), kind, name, wanted)))
        expect(self.title, str, "title", "a string")
        expect(self.base, str, "base", "a string, the name of the base model")
        expect(self.poems, Mapping, "poems", "pairs by poet, {poet: [Pair(request, base, adapted), ...]}")
        if wrong := list(_misfits(self)):
            raise ValueError("The comparison does not fit together: " + "; ".join(wrong) + ".")


def _as_samples(value: Sample | Sequence[Sample], name: str) -> tuple[Sample, ...]:
    samples = (value,) if isinstance(value, Sample) else value
    if not isinstance(samples, Sequence) or not all(isinstance(one, Sample) for one in samples):
        raise ValueError(f"{name} must be a Sample or a list of them, got {shown(value)}.")
    return tuple(samples)


_KINDS = (
    ("poets", str, "names"),
    ("prompts", str, "themes or requests"),
    ("metrics", Mapping, "rows, {column: value}"),
    ("style", Mapping, "rows, {column: value}"),
    ("figures", Picture, "Pictures"),
    ("notes", str, "sentences"),
)


def _misfits(comparison: Comparison) -> Iterator[str]:
    """What does not fit together, a clause each."""
    poets, prompts, poems = comparison.poets, comparison.prompts, comparison.poems
    for name, values in (("poets", poets), ("prompts", prompts)):
        if not values:
            yield f"{name} is empty"
        if twice := sorted({value for value in values if list(values).count(value) > 1}):
            yield f"{name} has {', '.join(map(repr, twice))} more than once"
    for poet in poets:
        pairs = poems.get(poet)
        if pairs is None:
            yield f"poems has nothing of {poet!r}"
        elif not isinstance(pairs, Sequence) or not all(isinstance(pair, Pair) for pair in pairs):
            yield f"poems of {poet!r} must be a list of Pairs, got {shown(pairs)}"
        elif len(pairs) != len(prompts):
            yield f"there are {len(prompts)} prompts, and {len(pairs)} pairs of {poet!r}"
    for name, rows in (("metrics", comparison.metrics), ("style", comparison.style)):
        for number, row in enumerate(rows):
            if not row or not all(isinstance(column, str) for column in row):
                yield f"row {number} of {name} must have columns with names, got {shown(row) if row else 'none'}"
    if strangers := [poet for poet in poems if poet not in poets]:
        yield f"poems has {', '.join(map(repr, strangers))}, who is not among the poets"


def columns(rows: Sequence[Row]) -> list[str]:
    """The names of all columns, in the order in which they first come."""
    return list(dict.fromkeys(name for row in rows for name in row))


def cell(value: Any) -> str:
    """A value of a table in words: 0.6512 -> "0.651", 14966784 -> "14,966,784", an Interval -> "0.62 (0.51–0.72)"."""
    if value is None:
        return "–"
    if isinstance(value, tuple) and len(value) == 3 and all(map(is_number, value)):
        value, low, high = (f"{bound:.2f}" for bound in value)
        return f"{value} ({low}–{high})"
    if isinstance(value, Integral) and not isinstance(value, bool):
        return f"{int(value):,}"
    if isinstance(value, Real) and not isinstance(value, bool):
        number = float(value)
        form = ",.0f" if abs(number) >= 1000 else ".3f" if abs(number) >= 0.001 or not number else ".3g"
        return f"{number:{form}}"
    return visible(str(value))


def visible(text: str) -> str:
    """The text on one line, with nothing in it that commands a browser or a terminal.

    A line end becomes a space, a control character its picture (an escape is ␛), what turns the direction of writing
    and halves of characters become �. Tabs stay.
    """
    return "".join(map(_visible, LINE_END.sub(" ", text)))


def _visible(char: str) -> str:
    code = ord(char)
    if code in BIDI or unicodedata.category(char) == "Cs":
        return "\ufffd"
    if unicodedata.category(char) != "Cc" or char == "\t":
        return char
    return chr(0x2400 + code) if code < 32 else "\u2421" if code == 127 else "\ufffd"
