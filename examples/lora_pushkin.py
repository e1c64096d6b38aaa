"""Teach a GPT-2-shaped model to write in the manner of a poet, with LoRA.

    python examples/lora_pushkin.py                                     the embedded base and corpus, a minute
    python examples/lora_pushkin.py --corpus poems.jsonl --author Пушкин --steps 400
    python examples/lora_pushkin.py --base FOLDER --corpus FOLDER       any GPT-2-shaped checkpoint, any poet

The poems are divided by work, packed into batches, and a low-rank adapter is trained on the frozen base. Then the base
and the adapted model continue the same lines with the same seeds. In --out: the adapter in PEFT's format, the history,
a plot of it, and the poems. The mathematics: docs/lora.md. What was measured: docs/results.md
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

import minipoet
from minipoet.command import run
from minipoet.evaluation import Likelihood, likelihood
from minipoet.files import write_json_atomic, write_text_atomic
from minipoet.generation import generate_many
from minipoet.plots import plot_history
from minipoet.text import Poem, corpus_sha256, drop_duplicates, read_corpus, read_poems, split_by_work
from minipoet.tokenization import encode_texts
from minipoet.training import Batches, TrainSettings, train

PROMPTS = (  # two lines of Pushkin's and two of ours; a line break at the end: the model goes on with the next line
    "Мороз и солнце; день чудесный!\n",
    "Я вас любил: любовь ещё, быть может,\n",
    "Прощай, мой друг! Дорога ждёт.\n",
    "Над тихой речкой вечер поздний\n",
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--base", default="poet-tiny", help="poet-tiny, a model's folder, or its id on the hub (default: %(default)s)")
    corpora = '"embedded" (written for this package), "pushkin" (fetched once), or a folder of .txt, a .txt, a .jsonl'
    add("--corpus", default="embedded", help=corpora)
    add("--author", help="only this author's poems of a .jsonl corpus")
    add("--out", type=Path, default=Path("runs/lora_pushkin"), help="folder for the results (default: %(default)s)")
    add("--rank", type=int, default=8, help="of the matrices A and B (default: %(default)s)")
    add("--alpha", type=float, default=16, help="scale of the change: alpha / rank (default: %(default)s)")
    add("--dropout", type=float, default=0.1, help="on the input of A (default: %(default)s)")
    add("--targets", nargs="+", default=["all-linear"], help="ends of layers' names, or all-linear (default)")
    add("--steps", type=int, default=120, help="optimiser steps (default: %(default)s)")
    add("--lr", type=float, default=1e-3, help="largest learning rate (default: %(default)s)")
    add("--rows", type=int, default=8, help="rows of packed poems a step (default: %(default)s)")
    add("--length", type=int, default=256, help="tokens a row, at most the model's context (default: %(default)s)")
    add(
        "--patience",
        type=int,
        default=4,
        help="evaluations without a better one before stopping (default: %(default)s)",
    )
    add("--validation", type=float, default=0.1, help="share of the verse that is held out (default: %(default)s)")
    add("--precision", default="auto", choices=("auto", "bf16", "fp32"))
    add("--seed", type=int, default=0, help="of the training and of the poems")
    add("--split-seed", type=int, default=0, help="of the division into training and validation")
    add("--prompts", nargs="+", default=list(PROMPTS), help="first lines that both models continue")
    add("--tokens", type=int, default=120, help="new tokens a poem, at most (default: %(default)s)")
    add("--temperature", type=float, default=0.8)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--quick", action="store_true", help="a few steps and short poems: only to see that all of it works")
    add("--resume", action="store_true", help="go on with an interrupted run in --out")
    return parser.parse_args()


def read(args: argparse.Namespace) -> tuple[list[Poem], list[Poem]]:
    """Poems to learn from and poems to measure on, and a word about them."""
    named = args.corpus in ("embedded", "pushkin")
    poems = read_corpus(args.corpus) if named else read_poems(args.corpus, args.author)
    poems, dropped = drop_duplicates(poems)
    split = split_by_work(poems, args.validation, args.split_seed)
    print(f"corpus {args.corpus}: {len(split.train)} poems to learn from, {len(split.validation)} held out, "
          f"{len(dropped)} duplicates dropped, SHA-256 {corpus_sha256(poems)[:16]}…")  # fmt: skip
    if args.corpus == "embedded":
        print("(this corpus was written for the package in Pushkin's manner; for the real one: --corpus pushkin)")
    return split.train, split.validation


def side_by_side(title: str, base: list[str], adapted: list[str], prompts: list[str]) -> str:
    """Markdown: for each prompt the base's poem, then the adapted model's."""
    parts = [f"# {title}\n"]
    for prompt, before, after in zip(prompts, base, adapted, strict=True):
        parts.append(f"## {prompt.strip()}\n")
        for name, poem in (("the base", before), ("with LoRA", after)):
            parts.append(f"**{name}**\n\n" + "\n".join(f"> {line}" for line in poem.split("\n")) + "\n")
    return "\n".join(parts)


def main() -> None:
    args = arguments()
    if args.quick:
        args.steps, args.tokens, args.prompts = min(args.steps, 12), 40, args.prompts[:2]
    started = time.perf_counter()
    model, tokenizer = minipoet.load(args.base, device=args.device)
    train_poems, held_out = read(args)
    length = min(args.length, model.context)
    line_end = tokenizer.encode("\n")
    batches = Batches(
        encode_texts(tokenizer, [poem.text for poem in train_poems]), length, args.rows, args.seed, breaks=line_end
    )
    texts = [poem.text for poem in held_out]
    held_out_ids, characters = encode_texts(tokenizer, texts), sum(map(len, texts))

    def measure(precision: str = "fp32") -> Likelihood:
        return likelihood(model, held_out_ids, characters, length, breaks=line_end, precision=precision)

    def poems() -> list[str]:
        sampling = {"max_new_tokens": args.tokens, "temperature": args.temperature, "top_p": 0.95, "seed": args.seed}
        return [rows[0].text for rows in generate_many(model, tokenizer, args.prompts, **sampling)]

    before, poems_before = measure(), poems()
    minipoet.add_lora(model, args.rank, args.alpha, args.targets, args.dropout, seed=args.seed)
    counts = minipoet.count_parameters(model)
    print(f"LoRA of rank {args.rank}: {counts.trainable:,} of {counts.all:,} parameters train ({counts.share:.2f} %)")
    settings = TrainSettings(
        steps=args.steps, lr=args.lr, warmup=min(20, args.steps // 4), evaluate_every=max(1, min(20, args.steps // 12)),
        patience=args.patience, precision=args.precision, seed=args.seed,
    )  # fmt: skip
    history = train(model, batches, settings, args.out, lambda: measure(args.precision).loss, resume=args.resume)
    after, poems_after = measure(), poems()

    minipoet.save_adapter(model, args.out)
    plot_history(history, args.out / "loss.png", f"LoRA of rank {args.rank} on {Path(args.corpus).name}")
    samples = side_by_side(
        "The base and the adapted model, same lines, same seed", poems_before, poems_after, args.prompts
    )
    write_text_atomic(args.out / "samples.md", samples)
    write_json_atomic(args.out / "results.json", results(before, after, counts, time.perf_counter() - started))
    print("\n" + samples)
    print("held-out verse         before    after")
    for name in ("loss", "perplexity", "bits_per_character"):
        print(f"{name.replace('_', ' '):<20} {getattr(before, name):8.3f} {getattr(after, name):8.3f}")
    print(f"\n{args.out}: the adapter (PEFT's format), history.jsonl, loss.png, samples.md, results.json; "
          f"{time.perf_counter() - started:.0f} s in all")  # fmt: skip


def results(before: Likelihood, after: Likelihood, counts: minipoet.models.Counts, seconds: float) -> dict:
    """The figures of the run, for results.json."""
    names = ("loss", "perplexity", "bits_per_character")
    figures = {when: {n: getattr(found, n) for n in names} for when, found in (("before", before), ("after", after))}
    return figures | {
        "trainable": counts.trainable, "parameters": counts.all, "seconds": round(seconds, 1),
        "peak_memory_gb": round(minipoet.models.peak_memory() / 1e9, 2),
    }  # fmt: skip


if __name__ == "__main__":
    run(main)
