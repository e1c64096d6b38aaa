"""Teach a GPT-2-shaped model to write in the manner of a poet, with LoRA.

    python examples/lora_pushkin.py                                     the embedded base and corpus, a minute
    python examples/lora_pushkin.py --corpus poems.jsonl --author Пушкин --steps 400
    python examples/lora_pushkin.py --base FOLDER --corpus FOLDER       any GPT-2-shaped checkpoint, any poet
    python examples/lora_pushkin.py --full --lr 5e-4                    all parameters instead of an adapter

The poems are divided by work, packed into batches, and a low-rank adapter is trained on the frozen base. Then the base
and the adapted model continue the same lines with the same seeds. In --out: the adapter in PEFT's format, the history,
a plot of it, and the poems. The mathematics: docs/lora.md. What was measured: docs/results.md. Many such runs, tabled
and plotted: examples/study_lora.py
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

import minipoet
from minipoet.command import run
from minipoet.evaluation import CopyIndex, Copying, Likelihood, likelihood
from minipoet.files import write_json_atomic, write_text_atomic
from minipoet.generation import generate_many
from minipoet.plots import plot_history
from minipoet.text import Poem, corpus_sha256, drop_duplicates, read_corpus, read_poems, split_by_work
from minipoet.tokenization import encode_texts
from minipoet.training import Batches, History, TrainSettings, train

PROMPTS = (  # two lines of Pushkin's and two of ours; a line break at the end: the model goes on with the next line
    "Мороз и солнце; день чудесный!\n",
    "Я вас любил: любовь ещё, быть может,\n",
    "Прощай, мой друг! Дорога ждёт.\n",
    "Над тихой речкой вечер поздний\n",
)
OF_AN_ADAPTER = ("rank", "alpha", "dropout", "targets")  # mean nothing with --full
TOP_P = 0.95


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
    add("--full", action="store_true", help="train all parameters instead of an adapter, to compare")
    add("--steps", type=int, default=120, help="optimiser steps (default: %(default)s)")
    add("--poems", type=int, help="learn from so many poems, drawn by --seed (default: all)")
    add("--lr", type=float, default=1e-3, help="largest learning rate (default: %(default)s)")
    add("--rows", type=int, default=8, help="rows of packed poems a step (default: %(default)s)")
    add("--length", type=int, default=256, help="tokens a row, at most the model's context (default: %(default)s)")
    add(
        "--patience",
        type=int,
        default=4,
        help="evaluations without a better one before stopping (default: %(default)s)",
    )
    add("--evaluate-every", type=int, help="steps between evaluations (default: a twelfth of all, 20 at most)")
    add("--validation", type=float, default=0.1, help="share of the verse that is held out (default: %(default)s)")
    add("--precision", default="auto", choices=("auto", "bf16", "fp32"))
    add("--seed", type=int, default=0, help="of the training and of the poems")
    add("--split-seed", type=int, default=0, help="of the division into training and validation")
    add("--prompts", nargs="+", default=list(PROMPTS), help="first lines that both models continue")
    add("--tokens", type=int, default=120, help="new tokens a poem, at most (default: %(default)s)")
    add("--temperature", type=float, default=0.8)
    add("--copying", type=int, default=0, help="continue so many held-out first lines and look for copies (default: 0)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--quick", action="store_true", help="a few steps and short poems: only to see that all of it works")
    add("--resume", action="store_true", help="go on with an interrupted run in --out")
    args = parser.parse_args()
    idle = [f"--{name}" for name in OF_AN_ADAPTER if args.full and getattr(args, name) != parser.get_default(name)]
    if idle:
        raise ValueError(
            f"--full trains the model without an adapter, and {', '.join(idle)} would do nothing: drop them."
        )
    if args.copying < 0:
        raise ValueError(f"--copying must be at least 0, got {args.copying}.")
    return args


def read(args: argparse.Namespace) -> tuple[list[Poem], list[Poem], str]:
    """Poems to learn from, poems to measure on, and the SHA-256 of the whole corpus; and a word about them."""
    named = args.corpus in ("embedded", "pushkin")
    poems = read_corpus(args.corpus) if named else read_poems(args.corpus, args.author)
    poems, dropped = drop_duplicates(poems)
    split = split_by_work(poems, args.validation, args.split_seed)
    train_poems, sha256 = split.train, corpus_sha256(poems)
    if args.poems is not None:
        if not 1 <= args.poems <= len(train_poems):
            raise ValueError(f"--poems must be from 1 to {len(train_poems)}, all that there are; got {args.poems}.")
        train_poems = random.Random(args.seed).sample(train_poems, args.poems)
    print(f"corpus {args.corpus}: {len(train_poems)} poems to learn from, {len(split.validation)} held out, "
          f"{len(dropped)} duplicates dropped, SHA-256 {sha256[:16]}…")  # fmt: skip
    if args.corpus == "embedded":
        print("(this corpus was written for the package in Pushkin's manner; for the real one: --corpus pushkin)")
    return train_poems, split.validation, sha256


def held_out_openings(model, tokenizer, poems: list[Poem], number: int) -> tuple[list[str], list[str]]:
    """`number` first lines of poems, over again if there are fewer, and what the poet wrote after them.

    The continuations, the poet's and later the models', are all of one length: 64 tokens, if the context allows.
    """
    tokens = min(64, model.context // 2)
    openings = []
    for poem in poems:
        first, _, rest = poem.text.partition("\n")
        ids = tokenizer.encode(rest)[:tokens]
        if len(ids) == tokens and len(tokenizer.encode(first)) < model.context - tokens:
            openings.append((first + "\n", tokenizer.decode(ids)))
    if not openings:
        raise ValueError(f"--copying continues held-out poems, but none has {tokens} tokens after its first line.")
    openings = [openings[i % len(openings)] for i in range(number)]
    return [first for first, _ in openings], [rest for _, rest in openings]


def copying_of(model, tokenizer, prompts: list[str], verse: CopyIndex, args: argparse.Namespace) -> Copying:
    """What the model's continuations of the prompts have in common with the verse."""
    sampling = {"max_new_tokens": min(64, model.context // 2), "temperature": args.temperature, "top_p": TOP_P}
    rows = generate_many(model, tokenizer, prompts, **sampling, until_end=False, seed=args.seed)
    return verse.copying([poems[0].continuation for poems in rows])


def side_by_side(title: str, base: list[str], adapted: list[str], prompts: list[str], after_what: str) -> str:
    """Markdown: for each prompt the base's poem, then the adapted model's."""
    parts = [f"# {title}\n"]
    for prompt, before, after in zip(prompts, base, adapted, strict=True):
        parts.append(f"## {prompt.strip()}\n")
        for name, poem in (("the base", before), (after_what, after)):
            parts.append(f"**{name}**\n\n" + "\n".join(f"> {line}" for line in poem.split("\n")) + "\n")
    return "\n".join(parts)


def main() -> None:
    args = arguments()
    if args.quick:
        args.steps, args.tokens, args.prompts = min(args.steps, 12), 40, args.prompts[:2]
    started = time.perf_counter()
    # The small steps of full fine-tuning would be lost in 16 bits; an adapter is fp32 on any base.
    model, tokenizer = minipoet.load(args.base, dtype=torch.float32 if args.full else None, device=args.device)
    train_poems, held_out, sha256 = read(args)
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
        sampling = {"max_new_tokens": args.tokens, "temperature": args.temperature, "top_p": TOP_P, "seed": args.seed}
        return [rows[0].text for rows in generate_many(model, tokenizer, args.prompts, **sampling)]

    before, poems_before = measure(), poems()
    copying = {}
    if args.copying:
        verse = CopyIndex(poem.text for poem in train_poems)
        openings, poets = held_out_openings(model, tokenizer, held_out, args.copying)
        copying = {"poet": verse.copying(poets), "before": copying_of(model, tokenizer, openings, verse, args)}

    if not args.full:
        minipoet.add_lora(model, args.rank, args.alpha, args.targets, args.dropout, seed=args.seed)
    method = "full fine-tuning" if args.full else f"LoRA of rank {args.rank}"
    counts = minipoet.count_parameters(model)
    print(f"{method}: {counts.trainable:,} of {counts.all:,} parameters train ({counts.share:.2f} %)")
    every = max(1, min(20, args.steps // 12)) if args.evaluate_every is None else args.evaluate_every
    settings = TrainSettings(
        steps=args.steps, lr=args.lr, warmup=min(20, args.steps // 4), evaluate_every=every,
        patience=args.patience, precision=args.precision, seed=args.seed,
    )  # fmt: skip
    resumed = args.resume and (args.out / "last.safetensors").exists()
    cpu = time.process_time()
    history = train(model, batches, settings, args.out, lambda: measure(args.precision).loss, resume=args.resume)
    cost = {
        "train_cpu_seconds": round(time.process_time() - cpu, 1), "resumed": resumed,  # then only since it was resumed
        "peak_memory_gb": round(minipoet.models.peak_memory() / 1e9, 2),
    }  # fmt: skip
    after, poems_after = measure(), poems()
    if args.copying:
        copying["after"] = copying_of(model, tokenizer, openings, verse, args)

    if args.full:
        minipoet.save(model, tokenizer, args.out / "model")
    else:
        minipoet.save_adapter(model, args.out)
    plot_history(history, args.out / "loss.png", f"{method} on {Path(args.corpus).name}".capitalize())
    samples = side_by_side(
        "The base and the adapted model, same lines, same seed", poems_before, poems_after, args.prompts,
        "after full fine-tuning" if args.full else "with LoRA",
    )  # fmt: skip
    write_text_atomic(args.out / "samples.md", samples)
    told = {name: value for name, value in vars(args).items() if name not in ("out", "resume")}
    found = {"settings": told, "corpus_sha256": sha256, "train_poems": len(train_poems)}
    found |= results(before, after, counts, history) | {"copying": {name: summary(c) for name, c in copying.items()}}
    found |= cost | {"cpu_seconds": round(time.process_time(), 1), "seconds": round(time.perf_counter() - started, 1)}
    write_json_atomic(args.out / "results.json", found)
    print("\n" + samples)
    print("held-out verse         before    after")
    for name in ("loss", "perplexity", "bits_per_character"):
        print(f"{name.replace('_', ' '):<20} {getattr(before, name):8.3f} {getattr(after, name):8.3f}")
    for name, c in copying.items():
        print(f"longest run of words shared with the training verse, {name}: {c.mean:.2f} in the mean, "
              f"{c.longest.words} at most («{c.longest.text}»)")  # fmt: skip
    saved = "model/ (the whole model)" if args.full else "the adapter (PEFT's format)"
    print(f"\n{args.out}: {saved}, history.jsonl, loss.png, samples.md, results.json; "
          f"{time.perf_counter() - started:.0f} s in all")  # fmt: skip


def results(before: Likelihood, after: Likelihood, counts: minipoet.models.Counts, history: History) -> dict[str, Any]:
    """What the run learnt, for results.json.

    train_loss: the mean of the last ten steps; step_seconds: the time of all steps, without the evaluations.
    """
    names = ("loss", "perplexity", "bits_per_character")
    figures = {when: {n: getattr(found, n) for n in names} for when, found in (("before", before), ("after", after))}
    steps, losses = history.curve("loss")
    at, values = history.curve("validation")
    return figures | {
        "trainable": counts.trainable, "parameters": counts.all, "steps": steps[-1],
        "best_step": at[values.index(min(values))], "tokens": history.curve("tokens")[1][-1],
        "train_loss": fmean(losses[-10:]), "step_seconds": history.curve("seconds")[1][-1],
    }  # fmt: skip


def summary(copying: Copying) -> dict[str, Any]:
    """Copying, for results.json."""
    return {"texts": len(copying.runs), "mean": copying.mean, "max": copying.longest.words,
            "share_of_5": copying.share(), "longest": copying.longest.text}  # fmt: skip


if __name__ == "__main__":
    run(main)
