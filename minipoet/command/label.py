"""`minipoet label`: a person says yes or no to one text at a time, and what the answers come to.

Lines are read from standard input, so that it works in any terminal and from a script. Each answer is on disk before
the next text is shown. Which model wrote a text is not told, nor how often yes was said so far: both would tempt.
Chapter: docs/proportions.md
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from minipoet.checks import SEEDS, is_whole
from minipoet.command import show, tell
from minipoet.evaluation.labels import QUESTION, Labels, Sample, read_labels, read_samples
from minipoet.evaluation.shares import LabelSummary, share_difference, summarize

WIDEST = 100  # columns
# By their first letters, in Russian, and as the same key writes in the Russian layout, where that says nothing else.
KEYS = {
    "yes": ("y", "yes", "д", "да"),
    "no": ("n", "no", "н", "нет"),
    "skip": ("s", "skip", "ы"),
    "back": ("b", "back", "и"),
    "quit": ("q", "quit", "й"),
}
HINT = "y/n (д/н), s skip, b back, q quit: "

EXAMPLES = """
examples:
  minipoet label runs/t5_reviews/samples.jsonl
  minipoet label samples.jsonl --question "Does it fit the rating asked for?" --labels fit.jsonl
  minipoet label samples.jsonl --summary

A key and Enter answers: y or д for yes, n or н for no, s skips a text, b goes back
to the one before (a new answer replaces the old one), q ends. The same command
goes on where it ended, after Ctrl-C too. More: docs/command.md
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """The options of the command."""
    parser = commands.add_parser(
        "label",
        help="judge texts by yes and no",
        description="Show the texts of SAMPLES one at a time, record yes or no for each, and tell\n"
        "the share of yes with its 95 % interval.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(main=label, interrupted="all answers are kept, and the same command goes on from here")
    parser.add_argument("samples", metavar="SAMPLES", help="texts to judge: JSON lines, as write_samples makes them")
    parser.add_argument("--labels", metavar="FILE", help="the answers (default: beside SAMPLES, NAME.labels.jsonl)")
    parser.add_argument("--question", metavar="TEXT", help=f'what to say yes or no to (default: "{QUESTION}")')
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of the order of the texts (default: 0)")
    parser.add_argument("--summary", action="store_true", help="ask nothing: tell what the answers so far come to")


def label(args: argparse.Namespace) -> None:
    """Run the command."""
    if not is_whole(args.seed, 0, SEEDS):
        raise ValueError(f"--seed must be a whole number from 0 to 2**64 - 1, got {args.seed}.")
    samples = read_samples(args.samples)
    path = Path(args.samples).with_suffix(".labels.jsonl") if args.labels is None else Path(args.labels)
    labels = read_labels(path, samples, args.question)
    if labels.cut:
        tell(f"note: the last line of {path} was cut short, so that answer is to be given again")
    if not args.summary:
        tell(f"{len(labels.given)} of {len(samples.by_id)} are judged; the answers go to {path}")
        ask(labels, samples.shuffled(args.seed))
    if args.summary or len(labels.given) == len(samples.by_id):
        show("\n".join(summary_lines(summarize(labels), labels.question)))
    else:
        tell(f"{len(labels.given)} of {len(samples.by_id)} are judged; the same command goes on from here")


def ask(labels: Labels, order: list[Sample]) -> None:
    """Ask about one sample after another, from the first without an answer on, until q or the end of the input."""
    answers, place, shown = _answers(), _next(labels, order, 0), -1
    while True:
        at_end = place == len(order)
        if place != shown:
            show("\nThat was the last one." if at_end else "\n".join(card(order[place], labels, place + 1, len(order))))
            shown = place
        show("b back, q quit: " if at_end else HINT, end="")
        answer = next(answers, "quit")
        if answer == "quit":
            return
        if answer == "back" and place > 0:
            place -= 1
        elif answer in ("yes", "no", "skip") and not at_end:
            if answer != "skip":
                labels.add(order[place].id, answer == "yes")
            show(f"-> {answer}")
            place = _next(labels, order, place + 1)
        else:
            show("this is the first" if answer == "back" else f"{answer!r} is no answer here; nothing was recorded")


def card(sample: Sample, labels: Labels, number: int, of: int) -> Iterator[str]:
    """What is shown of a sample, line by line."""
    width = min(WIDEST, shutil.get_terminal_size().columns)
    yield f"\n--- {number} of {of} " + "-" * 20
    if sample.request:
        yield from wrapped(f"[{sample.request}]", width)
        yield ""
    yield from wrapped(sample.text if sample.text.strip() else "(an empty text)", width)
    yield ""
    so_far = {True: " (so far: yes)", False: " (so far: no)", None: ""}[labels.given.get(sample.id)]
    yield from wrapped(labels.question + so_far, width)


def wrapped(text: str, width: int) -> Iterator[str]:
    """The lines of a text, none wider than so many characters. What a terminal would obey, and not show, is a space."""
    for line in text.split("\n"):
        seen = "".join(c if c.isprintable() else " " for c in line)
        yield from textwrap.wrap(seen, max(20, width)) or [""]


def summary_lines(found: LabelSummary, question: str) -> Iterator[str]:
    """The shares of yes for people, with the difference where two models were compared."""
    yield f"\n{question}"
    if found.all.n < found.samples:
        yield f"{found.all.n} of {found.samples} are judged so far."
    yield f"yes: {found.all} (95 %)"
    for rating, share in found.by_rating.items():
        yield f"  rating {rating}: {share}"
    for model, share in found.by_model.items():
        yield f"  {model}: {share}"
    if len(found.by_model) == 2:
        (one, ours), (other, theirs) = found.by_model.items()
        value, low, high = share_difference(*ours, *theirs)
        yield f"  {one} less {other}: {value:+.2f} ({low:+.2f} to {high:+.2f})"


def _answers() -> Iterator[str]:
    """The lines of standard input, each as one of KEYS, or as it is. The input's end ends them."""
    if sys.stdin is None:
        raise OSError("Standard input is closed: there is nobody to ask; --summary asks nothing.")
    if isinstance(sys.stdin, io.TextIOWrapper):  # another program writes UTF-8, and a slip of the finger no traceback
        sys.stdin.reconfigure(encoding=None if sys.stdin.isatty() else "utf-8", errors="replace")
    names = {word: name for name, words in KEYS.items() for word in words}
    for line in iter(sys.stdin.readline, ""):
        said = line.strip().lower()
        yield names.get(said, said)
    show("")  # what the shell writes next must not stick to our question


def _next(labels: Labels, order: list[Sample], place: int) -> int:
    """The first place from this one on whose sample has no answer; the end, if all have."""
    return next((n for n in range(place, len(order)) if order[n].id not in labels.given), len(order))
