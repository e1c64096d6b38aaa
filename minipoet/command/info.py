"""`minipoet info`: what is in a folder, for people or as JSON. `describe` finds it out, this file says it.

Chapter: docs/command.md
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

from minipoet.command import show
from minipoet.command.describe import SIZES, Facts, describe
from minipoet.command.units import count_word, size_word

Rows = Iterator[tuple[str, str]]


EXAMPLES = """
examples:
  minipoet info poet-tiny
  minipoet info runs/lora_pushkin --json
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """The options of the command."""
    parser = commands.add_parser(
        "info",
        help="what is in a folder",
        description="Tell what a folder holds (a checkpoint, an adapter, a training run), how large\n"
        "it is, and what in it is missing or does not fit. No weights are read, so a\n"
        "large model takes no longer than a small one.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(main=info, interrupted="nothing was changed")
    parser.add_argument("folder", metavar="FOLDER", help="a folder, poet-tiny or poet-chat")
    parser.add_argument("--json", action="store_true", help="the same for programs")


def info(args: argparse.Namespace) -> None:
    """Run the command."""
    facts = describe(args.folder)
    show(json.dumps(facts, ensure_ascii=False, indent=2) if args.json else "\n".join(lines(facts)))


def lines(facts: Facts) -> Iterator[str]:
    """The facts for people, a line each."""
    kinds = {"checkpoint": "a checkpoint", "adapter": "an adapter", "run": "a training run"}
    found = " and ".join(words for kind, words in kinds.items() if kind in facts)
    yield f"{facts['name']}: {found}; {count_word(facts['files'], 'file')}, {size_word(facts['bytes'])}"
    for kind, say in (("checkpoint", _checkpoint), ("tokenizer", _tokenizer), ("adapter", _adapter), ("run", _run)):
        for name, text in say(facts[kind]) if facts.get(kind) else ():
            yield f"  {name:<14} {text}"
    for problem in facts["problems"]:
        yield "  problem        " + problem.replace("\n", "\n" + 17 * " ")
    if not facts["problems"]:
        yield "  problems       none"


def _checkpoint(facts: Facts) -> Rows:
    yield "family", f"{facts['family']} ({facts['architecture']})" if facts["architecture"] else str(facts["family"])
    sizes = [(size.replace("_", " "), facts[size]) for size in SIZES if size in facts]
    yield (
        "shape",
        ", ".join(f"{size} {value:,}" if isinstance(value, int) else f"{size} {value}" for size, value in sizes),
    )
    if "parameters" in facts:
        n = facts["parameters"]
        yield "parameters", f"{n:,}: {size_word(4 * n)} in fp32, {size_word(2 * n)} in bf16 or fp16"
    if "weights" in facts:
        yield from _weights(facts["weights"])


def _weights(facts: Facts) -> Rows:
    first, *others = facts["files"]
    more = f" and {len(others)} more" if others else ""
    size, tensors, numbers = sum(facts["files"].values()), count_word(facts["tensors"], "tensor"), facts["numbers"]
    types = ", ".join(f"{count:,} numbers in {dtype}" for dtype, count in numbers.items())
    kinds = f" in {next(iter(numbers))}" if len(numbers) == 1 else f", {types}"
    yield "weights", f"{first}{more}, {size_word(size)}: {tensors}{kinds}"


def _tokenizer(facts: Facts) -> Rows:
    yield "tokenizer", f"{facts['kind']}, {facts['vocabulary']:,} tokens"
    roles = {id: [role for role in ("bos", "eos", "pad") if facts[role] == id] for id in facts["special"].values()}
    names = [
        f"{name} {id}" + (f" ({', '.join(roles[id])})" if roles[id] else "") for name, id in facts["special"].items()
    ]
    yield "special tokens", ", ".join(names) or "none"
    if facts.get("spare_rows"):
        yield "spare rows", f"{facts['spare_rows']:,} embeddings that no token has"


def _adapter(facts: Facts) -> Rows:
    yield "kind", str(facts["kind"])
    for part in [facts[kind] for kind in ("lora", "prefix") if kind in facts] or [facts]:
        yield from _lora_or_prefix(part)
    fits = {True: "which it fits", False: "which it does not fit", None: "not compared with it"}
    yield "base", f"{facts['base']}, {fits[facts['fits_base']]}" if facts["base"] else "not named"


def _lora_or_prefix(facts: Facts) -> Rows:
    if "rank" in facts:
        yield "rank", f"{facts['rank']}, alpha {facts['alpha']}, scale {facts['scale']:g}, dropout {facts['dropout']}"
    for key in ("rank_pattern", "alpha_pattern"):
        if key in facts:
            yield key.replace("_", " "), ", ".join(f"{name}: {value}" for name, value in facts[key].items())
    if "targets" in facts:
        yield "targets", f"{count_word(facts['layers'], 'layer')}: {', '.join(facts['targets'])}"
    if "virtual_tokens" in facts:
        yield "virtual tokens", str(facts["virtual_tokens"])
    if "parameters" in facts:
        yield "parameters", f"{facts['parameters']:,}"
    if facts.get("mlp"):
        yield "MLP", f"{facts['mlp']['hidden']:,} wide, {facts['mlp']['parameters']:,} parameters, to learn on with"
    if "weights" in facts:
        yield from _weights(facts["weights"])


def _run(facts: Facts) -> Rows:
    if "step" in facts:
        step = f"step {facts['step']:,}"
        if "steps" in facts:
            end = "finished" if facts["finished"] else "unfinished"
            step += f" of {facts['steps']:,}, {end}; {facts['tokens']:,} tokens learnt from"
        yield "training", step
    if "best" in facts:
        yield "best", f"validation {facts['best']:.4f} at step {facts['best_step']:,}"
