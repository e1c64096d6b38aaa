"""Tune all parameters of a GPT-2-shaped model on an author's prose, for an epoch.

    python examples/finetune_prose.py                                   the embedded base and prose, a minute
    python examples/finetune_prose.py --corpus pushkin-prose            ten works of Pushkin, fetched once
    python examples/finetune_prose.py --base FOLDER --corpus works.jsonl --author Гоголь --lr 3e-5
    python examples/finetune_prose.py --epochs 6                        too long: see the validation loss turn

The end of each work is held out, the rest is packed into batches, and every weight learns. Then the model before and
after goes on from the same openings with the same seeds, and is measured on the held-out prose and on verse, which it
may have forgotten. In --out: the whole model (model/, for `minipoet.load`), the history, a plot of it, and the
continuations. Chapter: docs/finetuning.md. What was measured: docs/results.md
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import torch

import minipoet
from minipoet.command import run
from minipoet.evaluation import Likelihood, likelihood
from minipoet.files import write_json_atomic, write_text_atomic
from minipoet.generation import generate_many
from minipoet.plots import plot_history
from minipoet.text import (
    Poem,
    Split,
    corpus_sha256,
    drop_duplicates,
    hold_out,
    read_corpus,
    read_prose_corpus,
    split_by_work,
)
from minipoet.tokenization import encode_texts
from minipoet.training import Batches, History, TrainSettings, train

OPENINGS = (  # one of Pushkin's and two of ours
    "Однажды играли в карты у конногвардейца Нарумова.",
    "В исходе осени, по первому снегу, ехал я из Твери в Москву.",
    "— Кто там? — спросил старый майор, поднимая свечу.",
)
RISE = 0.01  # nats a token: a rise of the validation loss by less is no turn
FIGURES = ("loss", "perplexity", "bits_per_character")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--base", default="poet-tiny", help="poet-tiny, a model's folder, or its id on the hub (default: %(default)s)")
    corpora = (
        '"embedded" (written for this package), "pushkin-prose" (fetched once), a folder of .txt, a .txt, a .jsonl'
    )
    add("--corpus", default="embedded", help=corpora)
    add("--author", help="only this author's works of a .jsonl corpus")
    add("--out", type=Path, default=Path("runs/finetune_prose"), help="folder for the results (default: %(default)s)")
    add("--epochs", type=float, default=1, help="how often all of it is read; 0.5 is half of it (default: %(default)s)")
    add("--lr", type=float, default=3e-4, help="largest learning rate; 1e-5 to 5e-5 for large bases (default: 3e-4)")
    add("--schedule", default="cosine", choices=("cosine", "linear", "constant"))
    add("--warmup", type=float, default=0.1, help="share of the steps on which the rate rises (default: %(default)s)")
    add("--rows", type=int, default=4, help="rows of packed prose a step (default: %(default)s)")
    add("--length", type=int, default=256, help="tokens a row, at most the model's context (default: %(default)s)")
    add("--patience", type=int, default=0, help="evaluations without a better one before stopping; 0 (default): never")
    add("--validation", type=float, default=0.1, help="share of each work that is held out (default: %(default)s)")
    add("--hold-out", nargs="+", default=[], metavar="TITLE", help="hold out these works, and no end of the others")
    add("--precision", default="auto", choices=("auto", "bf16", "fp32"))
    add("--gradient-checkpointing", action="store_true", help="less memory: compute activations twice")
    add("--seed", type=int, default=0, help="of the training and of the continuations")
    add("--opening", nargs="+", default=list(OPENINGS), help="texts that the model goes on from, before and after")
    add("--tokens", type=int, default=120, help="new tokens a continuation, at most (default: %(default)s)")
    add("--temperature", type=float, default=0.8)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--quick", action="store_true", help="a few steps and short texts: only to see that all of it works")
    add("--resume", action="store_true", help="go on with an interrupted run in --out")
    args = parser.parse_args()
    if not 0 < args.epochs < float("inf") or not 0 <= args.warmup < 1:
        raise ValueError(f"--epochs must be above 0 and --warmup in [0, 1), got {args.epochs} and {args.warmup}.")
    if args.author and args.corpus in ("embedded", "pushkin-prose"):
        raise ValueError(f"--author chooses among the works of a .jsonl corpus; {args.corpus} has one author: drop it.")
    if args.hold_out and args.validation != parser.get_default("validation"):
        raise ValueError("--hold-out holds out whole works, and --validation would do nothing: drop one of them.")
    return args


def read(args: argparse.Namespace) -> tuple[Split, str]:
    """Prose to learn from and prose to measure on, and the SHA-256 of all; and a word about them."""
    works, copies = drop_duplicates(read_prose_corpus(args.corpus, args.author))
    split, left_out = hold_out(works, args.validation, args.hold_out)
    sizes = [sum(len(work.text) for work in side) for side in (split.train, split.validation)]
    print(f"corpus {args.corpus}: {len(works)} works, {sizes[0]:,} characters to learn from, {sizes[1]:,} held out; "
          f"{len(copies)} copies of works and {left_out} paragraphs that stand on both sides left out; "
          f"SHA-256 {corpus_sha256(works)[:16]}…")  # fmt: skip
    if args.corpus == "embedded":
        print("(this prose was written for the package in Pushkin's manner; for the real one: --corpus pushkin-prose)")
    return split, corpus_sha256(works)


def steps_of(batches: Batches, epochs: float) -> int:
    """Optimiser steps of so many readings of all texts: at least one."""
    whole = int(epochs)
    steps = sum(batches.steps_per_epoch(epoch) for epoch in range(whole))
    return max(1, steps + round((epochs - whole) * batches.steps_per_epoch(whole)))


class Turn(NamedTuple):
    """The validation loss was least at `step` and stood at `last`, clearly above it, at the end of the run."""

    step: int
    least: float
    last: float


def turn(history: History) -> Turn | None:
    """Where the validation loss turned; None if it fell to the end, or rose by less than RISE."""
    steps, values = history.curve("validation")
    best = min(range(len(values)), key=lambda i: values[i])
    return Turn(steps[best], values[best], values[-1]) if values[-1] - values[best] > RISE else None


def warning(turned: Turn, steps_an_epoch: int) -> str:
    """What a turn means, what was kept, and what to do."""
    epochs = turned.step / steps_an_epoch
    advice = f"--epochs {epochs:.2g}, a smaller --lr, or more text"
    if turned.step == 0:
        advice = "a much smaller --lr; the text may also be too little"
    return (
        f"WARNING: the validation loss turned at step {turned.step} (after {epochs:.2f} epochs): {turned.least:.3f} "
        f"there, {turned.last:.3f} at the end. From there on the model learnt its texts by heart.\n"
        f"Kept: the weights of step {turned.step}{', which are those of the base' if turned.step == 0 else ''}. "
        f"Next time: {advice}."
    )


def side_by_side(openings: list[str], before: list[str], after: list[str]) -> str:
    """Markdown: for each opening what the model wrote before and after."""
    parts = ["# The same openings, the same seeds\n"]
    for opening, *texts in zip(openings, before, after, strict=True):
        parts.append(f"## {opening.strip()}\n")
        for name, text in zip(("before", "after"), texts, strict=True):
            parts.append(f"**{name}**\n\n" + "\n".join(f"> {line}" for line in text.split("\n")) + "\n")
    return "\n".join(parts)


def main() -> None:
    args = arguments()
    if args.quick:
        args.tokens, args.opening = min(args.tokens, 40), args.opening[:1]
    started = time.perf_counter()
    model, tokenizer = minipoet.load(args.base, dtype=torch.float32, device=args.device)
    model.requires_grad_(True)
    model.gradient_checkpointing = args.gradient_checkpointing
    split, sha256 = read(args)
    length, line_end = min(args.length, model.context), tokenizer.encode("\n")

    def encode(texts: list[Poem]) -> tuple[list[list[int]], int]:
        """Token ids, and the characters that they spell."""
        return encode_texts(tokenizer, [text.text for text in texts]), sum(len(text.text) for text in texts)

    prose, verse = encode(split.validation), encode(split_by_work(read_corpus("embedded")).validation)
    batches = Batches(encode(split.train)[0], length, args.rows, args.seed, breaks=line_end)

    def measure(texts: tuple[list[list[int]], int], precision: str = "fp32") -> Likelihood:
        return likelihood(model, *texts, length, breaks=line_end, precision=precision)

    def continuations() -> list[str]:
        sampling = {"max_new_tokens": args.tokens, "temperature": args.temperature, "top_p": 0.95, "seed": args.seed}
        return [rows[0].text for rows in generate_many(model, tokenizer, args.opening, **sampling)]

    def state() -> tuple[dict[str, Likelihood], list[str]]:
        return {"prose": measure(prose), "verse": measure(verse)}, continuations()

    steps, an_epoch = steps_of(batches, args.epochs), batches.steps_per_epoch()
    steps = min(steps, 6) if args.quick else steps
    settings = TrainSettings(
        steps=steps, lr=args.lr, warmup=round(args.warmup * steps), schedule=args.schedule, seed=args.seed,
        evaluate_every=steps if args.quick else max(1, steps // 10), patience=args.patience, precision=args.precision,
    )  # fmt: skip
    count = sum(p.numel() for p in model.parameters())
    print(f"all {count:,} parameters train: {steps} steps, {an_epoch} an epoch of {batches.epoch_tokens():,} tokens")
    before, wrote_before = state()
    history = train(model, batches, settings, args.out, lambda: measure(prose, args.precision).loss, args.resume)
    after, wrote_after = state()
    turned = turn(history)

    minipoet.save(model, tokenizer, args.out / "model")
    plot_history(history, args.out / "loss.png", f"All parameters, on {Path(args.corpus).name}")
    samples = side_by_side(args.opening, wrote_before, wrote_after)
    write_text_atomic(args.out / "samples.md", samples)
    seconds = time.perf_counter() - started
    kept = min(zip(*history.curve("validation"), strict=True), key=lambda point: point[1])[0]
    write_json_atomic(args.out / "results.json", {
        **{text: {"before": figures(before[text]), "after": figures(after[text])} for text in before},
        "turned": turned and turned._asdict(), "kept_step": kept, "steps": steps, "steps_an_epoch": an_epoch,
        "tokens_an_epoch": batches.epoch_tokens(), "parameters": count, "corpus_sha256": sha256,
        "seconds": round(seconds, 1), "peak_memory_gb": round(minipoet.models.peak_memory() / 1e9, 2),
    })  # fmt: skip
    print("\n" + samples)
    for text in before:
        print(f"{f'held-out {text}':<20}   before    after")
        for name in FIGURES:
            print(f"{name.replace('_', ' '):<20} {getattr(before[text], name):8.3f} {getattr(after[text], name):8.3f}")
    print("\n" + (warning(turned, an_epoch) if turned else "The validation loss did not turn."))
    print(f"{args.out}: model/ (for minipoet.load), history.jsonl, loss.png, samples.md, results.json; {seconds:.0f} s")


def figures(found: Likelihood) -> dict[str, float]:
    """Loss, perplexity and bits per character, for results.json."""
    return {name: getattr(found, name) for name in FIGURES}


if __name__ == "__main__":
    run(main)
