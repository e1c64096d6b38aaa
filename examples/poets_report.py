"""What qwen_lora_poets.py reports: the trainer's table, the judge's, the notes under the page.

metric_rows    the table of the laboratory, and what was measured on held-out poems
style_rows     how often the poet asked for comes out, base against adapted
first          of several poems of a theme the one that the page shows
notes          what the data are, and how the poems came about
"""

from __future__ import annotations

import argparse
from typing import Any

from minipoet.evaluation import AuthorJudge, Difference, Interval, how_often, quatrains_asked
from minipoet.plots import Pair

QUATRAINS = 4  # that the laboratory asks for
TOP_P = 0.95  # of all sampling


def metric_rows(course: dict[str, list[dict[str, Any]]], measured: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The table of the laboratory, the last logged row of each poet, and what was measured on held-out poems."""
    rows = []
    for name, logged in course.items():
        last = logged[-1]
        before, after = measured[name]["before"], measured[name]["after"]
        rows.append({
            "poet": name, "loss": last["loss"], "grad norm": last["grad_norm"], "entropy": last["entropy"],
            "tokens": int(last["num_tokens"]), "token accuracy": last["mean_token_accuracy"],
            "held-out loss, base": before["loss"], "adapted": after["loss"],
            "held-out accuracy, base": before["accuracy"], "adapted ": after["accuracy"],
        })  # fmt: skip
    return rows


def style_rows(
    judge: AuthorJudge, test: dict[str, list[str]], pairs: dict[str, list[Pair]]
) -> tuple[list[dict[str, Any]], Difference]:
    """How often the asked poet comes out, base against adapted, and how often the four quatrains asked for."""
    base, adapted = (how_often(judge, texts(pairs, kind)) for kind in ("base", "adapted"))
    own = how_often(judge, test)
    rows: list[dict[str, Any]] = []
    for name in pairs:
        written = [quatrains_asked(texts(pairs, kind)[name], QUATRAINS) for kind in ("base", "adapted")]
        rows.append({
            "poet": name, "base": base.by_author[name], "adapted": adapted.by_author[name],
            "his own verse": own.by_author[name],
            "four quatrains, base": written[0].share, "four quatrains, adapted": written[1].share,
        })  # fmt: skip
    rows.append({"poet": "all", "base": base.all, "adapted": adapted.all, "his own verse": own.all})
    return rows, adapted.against(base)


def first(pairs: dict[str, list[Pair]]) -> dict[str, list[Pair]]:
    """The first poem of each theme, for the page; the judge reads all."""
    return {name: [Pair(p.request, p.samples[0][0], p.samples[0][1]) for p in own] for name, own in pairs.items()}


def texts(pairs: dict[str, list[Pair]], kind: str) -> dict[str, list[str]]:
    """All poems of each poet that the base wrote, or the adapters."""
    return {name: [sample.text for pair in own for sample in getattr(pair, kind)] for name, own in pairs.items()}


def notes(
    args: argparse.Namespace, sizes: dict[str, dict[str, Any]], accuracy: Interval, difference: Difference
) -> list[str]:
    """Plain sentences under the page: what the data are, and how the poems came about."""
    data = "; ".join(
        f"{text}, {sizes[text.partition('=')[0].partition('/')[0]]['learn']} examples" for text in args.poets
    )
    return [
        f"Learnt from: {data}.",
        "Verse called “embedded” was written for minipoet in the poet's manner; no line in it is the poet's own (MIT).",
        f"LoRA of rank {args.rank} on {', '.join(args.targets)}, {args.steps} steps a poet at a rate of {args.lr:g}; "
        f"temperature {args.temperature:g}, top-p {TOP_P}; the same seed for both poems of a pair. Shown is the first "
        f"of {args.samples} poems of each theme; the table counts all.",
        f"The judge of manners learnt from verse that no adapter saw; of verse that he had not seen either he names "
        f"the author rightly in {accuracy.value:.0%} ({accuracy.low:.0%} to {accuracy.high:.0%}).",
        f"The poet asked for came out more often with the adapters by {difference.value:.2f} of all poems (95 %: "
        f"{difference.low:.2f} to {difference.high:.2f}; p = {difference.p:.3f}).",
    ]
