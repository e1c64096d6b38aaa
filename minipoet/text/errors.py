"""One kind of error for everything that a user can get wrong about texts.

A message of this room says four things: which file (and line), what was expected, what came, and what to do about it.
Files have many mistakes at a time, so mistakes are collected and told together, the first few in full.
"""

from collections.abc import Sequence

SHOWN = 12  # problems listed in full; the rest are counted


class CorpusError(ValueError):
    """A corpus that cannot be used as it is: missing, empty, broken, in a wrong encoding, or too small to split."""


def listed(problems: Sequence[str]) -> str:
    """The problems, one a line and indented; past the first `SHOWN` only their number is told."""
    lines = [f"  - {problem}" for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"  - ... and {len(problems) - SHOWN} more")
    return "\n".join(lines)
