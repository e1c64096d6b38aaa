"""What few_shot_poems.py reports: a table a model, and poems side by side.

Way           how many examples, chosen how
Row           what was measured of one model with prompts of one way
table         the rows of a model, each beside that without examples, and alike ones beside any ones
poems_page    requests, the poet's lines, and what the model wrote in each way
as_numbers    the same for results.json
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

from minipoet.evaluation import Sampled, compare
from minipoet.text.few_shot import Prompt

SHOWN = 6  # requests on the page
FORMATS = {  # of the figures that are told without an interval
    "chrF": "{:.1f}",
    "theme": "{:.2f}",
    "syllables off": "{:.1f}",
    "ended": "{:.2f}",
    "copied": "{:.2f}",
    "poet's": "{:.2f}",
}
HEAD = ("examples", "fitted", "tokens", "bits/char", "less than without", *FORMATS)


class Way(NamedTuple):
    """So many examples, chosen so; None: not even a request."""

    shots: int | None
    by: str = "likeness"

    @property
    def name(self) -> str:
        if not self.shots:
            return "none" if self.shots == 0 else "no request"
        return f"{self.shots}, {'alike' if self.by == 'likeness' else 'any'}"


@dataclass(frozen=True)
class Row:
    """prompts and written: what the model read and wrote, poem by poem; figures: what was measured, by name."""

    way: Way
    prompts: list[Prompt]
    written: list[str]
    figures: dict[str, Sampled]


def table(rows: Sequence[Row]) -> str:
    """The figures in Markdown: bits with intervals, and their paired difference from no examples with its p."""
    zero = next(row for row in rows if row.way.shots == 0)
    lines = ["| " + " | ".join(HEAD) + " |", "|---|" + "---:|" * (len(HEAD) - 1)]
    for row in rows:
        bits = row.figures["bits"].interval()
        gain = compare(zero.figures["bits"], row.figures["bits"])
        cells = [
            row.way.name,
            f"{fmean(len(prompt.shots) for prompt in row.prompts):.1f}" if row.prompts else "",
            f"{fmean(prompt.tokens for prompt in row.prompts):.0f}" if row.prompts else "",
            f"{bits.value:.3f} ({bits.low:.3f}–{bits.high:.3f})",
            "" if row is zero else f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f}), p {gain.p:.3f}",
            *(form.format(row.figures[name].value) if name in row.figures else "" for name, form in FORMATS.items()),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, *against_chance(rows)])


def against_chance(rows: Sequence[Row]) -> list[str]:
    """By how many bits alike examples are better than as many others, a line a number of examples."""
    bits = {row.way: row.figures["bits"] for row in rows}
    lines = []
    for way in bits:
        if way.shots and way.by == "likeness":
            gain = compare(bits[Way(way.shots, "chance")], bits[way])
            told = f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f}), p {gain.p:.3f}"
            lines.append(f"\n{way.name}: bits/char less than with as many of any kind: {told}")
    return lines


def poems_page(asked: Sequence[str], poets: Sequence[str], rows: Sequence[Row]) -> str:
    """The first requests, the poet's own lines, and each way's examples and poem."""
    parts = []
    for number, (theme, poem) in enumerate(list(zip(asked, poets, strict=True))[:SHOWN]):
        parts.append(f"### {theme}\n\nThe poet:\n\n```text\n{poem}\n```\n")
        for row in rows:
            if row.written:
                read = "; ".join(shot.request for shot in row.prompts[number].shots)
                parts.append(f"{row.way.name}{f' ({read})' if read else ''}:\n\n```text\n{row.written[number]}\n```\n")
    return "\n".join(parts)


def as_numbers(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each row's figures with their intervals, and what it wrote."""
    return [
        {
            "shots": row.way.shots,
            "by": row.way.by,
            "fitted": [len(prompt.shots) for prompt in row.prompts],
            "tokens": [prompt.tokens for prompt in row.prompts],
            "figures": {name: found.interval()._asdict() for name, found in row.figures.items()},
            "bits_by_poem": row.figures["bits"].by_text.tolist(),
            "written": row.written,
        }
        for row in rows
    ]
