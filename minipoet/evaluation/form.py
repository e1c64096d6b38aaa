"""Has a text the form of verse? Lines, stanzas and syllables: not whether it is good, nor whether it rhymes or scans.

A poet breaks his lines before the page does. So lines of verse are short, they are of about one length, and they end
where the speech rests: with a mark of punctuation, or the next line begins with a capital. Prose is a few long
paragraphs; dialogue has short lines, but uneven ones; prose that was broken by a page's width has even lines that end
anywhere. The verdict asks for all four:

    lines                             2 or more that are whole
    syllables in a line, the median   3 to 17 (17 is the hexameter), and no line of more than 20
    unevenness                        0.5 at most: the deviation of the lines' syllables by their mean
    marked lines                      three quarters or more begin with a capital or end with a mark

The bounds are wide, since metres are. Of what ten real poets wrote after two lines, 98 in a hundred pass; of six lines
of prose 2 to 9 (of 600 letters, of 150: dialogue passes), and of prose that was broken into lines of 30 to 50 letters
9 to 20: the shorter a piece, the less can be told. A ladder of lines (Mayakovsky: half), and free verse without
capitals and marks, do not pass.

    Form          what was counted, and the verdict
    verse_form    of a text

A syllable of Russian is a vowel. Chapter: docs/measuring.md
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from statistics import fmean, median, pstdev

from minipoet.checks import expect

LINES = 2
SYLLABLES = (3, 17)
LONGEST = 20
UNEVEN = 0.5
MARKED = 3 / 4

_VOWEL = re.compile("[аеёиоуыэюяѣіѵ]", re.IGNORECASE)
_LETTER = re.compile(r"[^\W\d_]")
_CAPITAL = re.compile(r"[^\w]*[A-ZА-ЯЁ]")  # behind a dash or a quotation mark too
_MARK = re.compile(r"[^\w\s]\Z")


@dataclass(frozen=True)
class Form:
    """letters, syllables and capital-or-mark of each line that has a letter or a digit; lines of each stanza."""

    letters: tuple[int, ...]
    syllables: tuple[int, ...]
    marks: tuple[bool, ...]
    stanzas: tuple[int, ...]

    @property
    def lines(self) -> int:
        """How many lines there are, blank ones and rows of dots or stars not counted."""
        return len(self.letters)

    @property
    def unevenness(self) -> float:
        """Standard deviation of the lines' syllables, divided by their mean; 0 for lines of one length, or no line."""
        mean = fmean(self.syllables) if self.syllables else 0
        return pstdev(self.syllables) / mean if mean else 0.0

    @property
    def marked(self) -> float:
        """Share of the lines that begin with a capital letter or end with a mark of punctuation; 0 of no lines."""
        return sum(self.marks) / len(self.marks) if self.marks else 0.0

    @property
    def is_verse(self) -> bool:
        """Whether all is as lines of verse have it; the bounds are at the head of this file."""
        if self.lines < LINES:
            return False
        short = SYLLABLES[0] <= median(self.syllables) <= SYLLABLES[1] and max(self.syllables) <= LONGEST
        return short and self.unevenness <= UNEVEN and self.marked >= MARKED


def verse_form(text: str, cut: bool = False) -> Form:
    """The form of a text. cut: what stands after its last line break was cut off, and is no line."""
    expect(text, str, "The text", "a string")
    lines = text.split("\n")
    stanzas, found = [0], []
    for line in lines[:-1] if cut else lines:
        if re.search(r"\w", line):
            found.append(line.strip())
            stanzas[-1] += 1
        else:
            stanzas.append(0)
    return Form(
        letters=tuple(len(_LETTER.findall(line)) for line in found),
        syllables=tuple(len(_VOWEL.findall(line)) for line in found),
        marks=tuple(bool(_CAPITAL.match(line) or _MARK.search(line)) for line in found),
        stanzas=tuple(filter(None, stanzas)),
    )
