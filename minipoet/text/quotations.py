"""Leaving out of one corpus what quotes another: the leak that a split by work does not see.

A base model that shall learn Pushkin later must not have read him before; but Turgenev's heroes recite him, and critics
quote whole stanzas. `Quotations` knows the lines of the quoted poet and takes them, with the verse around them, out of
other texts.

Chapter: docs/text.md
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from minipoet.checks import each, expect, expect_whole
from minipoet.text.dedup import word_key

MIN_WORDS = 4  # shorter lines («и вот опять») stand everywhere, and are nobody's
VERSE_LINE = 60  # characters: a line no longer than this beside a quoted one is taken for more of the quotation


class Quotations:
    """The lines of the quoted texts, of at least `min_words` words, compared by words alone (no case, ё, signs)."""

    def __init__(self, quoted: Iterable[str], min_words: int = MIN_WORDS):
        expect_whole(1, min_words=min_words)
        self.min_words = min_words
        self._lines: dict[tuple[str, ...], set[tuple[str, ...]]] = defaultdict(set)
        for text in each(quoted, str, "The quoted texts", "strings"):
            for line in text.split("\n"):
                words = tuple(word_key(line).split())
                if len(words) >= min_words:
                    self._lines[words[:min_words]].add(words)

    def quotes(self, line: str) -> bool:
        """Does a quoted line stand whole in this one?"""
        expect(line, str, "The line", "a string")
        words, n = word_key(line).split(), self.min_words
        for start in range(len(words) - n + 1):
            for quoted in self._lines.get(tuple(words[start : start + n]), ()):
                if tuple(words[start : start + len(quoted)]) == quoted:
                    return True
        return False

    def drop(self, text: str) -> tuple[str, int]:
        """The text without its quoting lines and the short lines that adjoin them, and how many lines that were."""
        expect(text, str, "The text", "a string")
        lines = text.split("\n")
        out = {number for number, line in enumerate(lines) if self.quotes(line)}
        for number in sorted(out):
            for step in (-1, 1):
                near = number + step
                while 0 <= near < len(lines) and 0 < len(lines[near].strip()) <= VERSE_LINE and near not in out:
                    out.add(near)
                    near += step
        return "\n".join(line for number, line in enumerate(lines) if number not in out), len(out)
