"""Stop strings: where a text that comes piece by piece ends, when the string may be split over the pieces.

    StopStrings("\n\n").push("день\n")  -> "день"    the "\n" is held back: it may be the start of the stop string

Chapter: docs/generation.md
"""

from __future__ import annotations

from collections.abc import Sequence

from minipoet.checks import each


class StopStrings:
    """Takes pieces of text, gives back what is certainly text and not the start of a stop string.

    The string that is complete first ends the text, and of those that are complete at the same letter the longest: so
    the text does not depend on how it was cut into pieces.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = tuple(each(stops, str, "The stop strings", "strings"))
        self.found = False
        self._held = ""

    def push(self, piece: str) -> str:
        """Take the next piece, return the text that it settles. After a stop string was found, nothing."""
        if self.found or not piece:
            return ""
        text = self._held + piece
        ends = [(text.find(stop) + len(stop), -len(stop)) for stop in self.stops if stop in text]
        if ends:
            end, length = min(ends)
            self.found, self._held = True, ""
            return text[: end + length]
        held = max((_overlap(text, stop) for stop in self.stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def finish(self) -> str:
        """Return what was held back: the text ended before it became a stop string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """How many letters at the end of the text are the start of the stop string?"""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
