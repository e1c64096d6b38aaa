"""Teach a language model to write in the manner of a poet, with LoRA.

    python examples/lora_pushkin.py                                     the embedded base and corpus, a minute
    python examples/lora_pushkin.py --corpus poems.jsonl --author Пушкин --steps 400
    python examples/lora_pushkin.py --base FOLDER --corpus FOLDER       any checkpoint that minipoet loads, any poet
    python examples/lora_pushkin.py --prefix 15 --lr 1e-1               a learnt prefix instead (docs/prefix.md)
    python examples/lora_pushkin.py --full --lr 5e-4                    all parameters instead of an adapter

The poems are divided by work, packed into batches, and a low-rank adapter is trained on the frozen base. Then the base
and the adapted model continue the same lines with the same seeds. In --out: the adapter in PEFT's format, the history,
a plot of it, and the poems. The mathematics: docs/lora.md. What was measured: docs/results.md. What comes after such a
run: does it write or recite (examples/copying.py)? What would other settings have given (examples/study_lora.py)?
"""

from __future__ import annotations

import argparse
import random
import time
from itertools import chain, islice
from pathlib import Path
from statistics import fmean

import torch

import minipoet
from minipoet.command import run
from minipoet.evaluation import Likelihood, likelihood
from minipoet.files import write_json_atomic, write_text_atomic
from minipoet.generation import generate_many
from minipoet.models import LanguageModel
from minipoet.plots import plot_history
from minipoet.text import Poem, corpus_sha256, drop_duplicates, read_corpus, split_by_work
from minipoet.tokenization import encode_texts
from minipoet.training import Batches, History, TrainSettings, train

PROMPTS = (  # two lines of Pushkin's and two of ours; a line break at the end: the model goes on with the next line
    "Мороз и солнце; день чудесный!\n",
    "Я вас любил: любовь ещё, быть может,\n",
    "Прощай, мой друг! Дорога ждёт.\n",
    "Над тихой речкой вечер поздний\n",
)
OF_LORA = ("rank", "alpha", "dropout", "targets")  # mean nothing with --full or --prefix
OF_A_PREFIX = ("projection", "hidden", "init")
TOP_P = 0.95  # of all sampling


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
    add("--prefix", type=int, metavar="TOKENS", help="train a prefix of so many virtual tokens instead of LoRA")
    add("--projection", action="store_true", help="let an MLP make the prefix while it is learnt")
    add("--hidden", type=int, help="width of that MLP (default: the model's)")
    starts = "of the prefix: at the first tokens of the training verse, at random, or at zero (default: %(default)s)"
    add("--init", choices=("text", "random", "zero"), default="text", help=starts)
    add("--full", action="store_true", help="train all parameters instead of an adapter, to compare")
    add("--steps", type=int, default=120, help="optimiser steps (default: %(default)s)")
    add("--poems", type=int, help="learn from so many poems, drawn by --seed (default: all)")
    add("--lr", type=float, default=1e-3, help="largest learning rate (default: %(default)s)")
    add("--rows", type=int, default=8, help="rows of packed poems a step (default: %(default)s)")
    add("--length", type=int, default=256, help="tokens a row, at most the model's context (default: %(default)s)")
    add("--patience", type=int, default=4, help="evaluations with none better before stopping (default: %(default)s)")
    add("--evaluate-every", type=int, help="steps between evaluations (default: a twelfth of all, 20 at most)")
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
    args = parser.parse_args()
    if args.full and args.prefix is not None:
        raise ValueError("--full trains without an adapter, and --prefix is one: give one of them.")
    idle = [name for name in OF_A_PREFIX if args.prefix is None] + [
        name for name in OF_LORA if args.full or args.prefix is not None
    ]
    idle = [f"--{name}" for name in idle if getattr(args, name) != parser.get_default(name)]
    if idle:
        what = "--full" if args.full else "LoRA" if args.prefix is None else "--prefix"
        raise ValueError(f"{', '.join(idle)} would do nothing with {what}: drop what is not meant for it.")
    if args.quick:
        args.steps, args.tokens, args.prompts = min(args.steps, 12), 40, args.prompts[:2]
    if args.evaluate_every is None:
        args.evaluate_every = max(1, min(20, args.steps // 12))
    return args


def read(args: argparse.Namespace) -> tuple[list[Poem], list[Poem], str]:
    """Poems to learn from, poems to measure on, and the SHA-256 of the whole corpus; and a word about them."""
    poems, dropped = drop_duplicates(read_corpus(args.corpus, args.author))
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


def adapt(model: LanguageModel, args: argparse.Namespace, train_ids: list[list[int]]) -> str:
    """Put on the model what is to be trained; gives its name."""
    if args.full:
        return "Full fine-tuning"
    if args.prefix is None:
        minipoet.add_lora(model, args.rank, args.alpha, args.targets, args.dropout, seed=args.seed)
        return f"LoRA of rank {args.rank}"
    init = args.init if args.init != "text" else list(islice(chain.from_iterable(train_ids), args.prefix))
    minipoet.add_prefix(model, args.prefix, args.projection, args.hidden, init, seed=args.seed)
    return f"A prefix of {args.prefix} tokens"


def side_by_side(prompts: list[str], poems: dict[str, list[str]]) -> str:
    """Markdown: for each prompt the poem of each model, under the model's name."""
    parts = ["# The base and the adapted model, same lines, same seed\n"]
    for number, prompt in enumerate(prompts):
        parts.append(f"## {prompt.strip()}\n")
        for name, written in poems.items():
            parts.append(f"**{name}**\n\n" + "\n".join(f"> {line}" for line in written[number].split("\n")) + "\n")
    return "\n".join(parts)


def main() -> None:
    args = arguments()
    started = time.perf_counter()
    # The small steps of full fine-tuning would be lost in 16 bits; an adapter is fp32 on any base.
    model, tokenizer = minipoet.load(args.base, dtype=torch.float32 if args.full else None, device=args.device)
    train_poems, held_out, sha256 = read(args)
    length, line_end = min(args.length, max(1, model.context - (args.prefix or 0))), tokenizer.encode("\n")
    train_ids = encode_texts(tokenizer, [poem.text for poem in train_poems])
    held_out_ids = encode_texts(tokenizer, [poem.text for poem in held_out])
    characters = sum(len(poem.text) for poem in held_out)
    batches = Batches(train_ids, length, args.rows, args.seed, breaks=line_end)

    def measure(precision: str = "fp32") -> Likelihood:
        return likelihood(model, held_out_ids, characters, length, breaks=line_end, precision=precision)

    def poems() -> list[str]:
        sampling = {"max_new_tokens": args.tokens, "temperature": args.temperature, "top_p": TOP_P, "seed": args.seed}
        return [rows[0].text for rows in generate_many(model, tokenizer, args.prompts, **sampling)]

    before, poems_before = measure(), poems()
    method = adapt(model, args, train_ids)
    counts = minipoet.count_parameters(model)
    print(f"{method}: {counts.trainable:,} of {counts.all:,} parameters train ({counts.share:.2f} %)")
    settings = TrainSettings(
        steps=args.steps, lr=args.lr, warmup=min(20, args.steps // 4), evaluate_every=args.evaluate_every,
        patience=args.patience, precision=args.precision, seed=args.seed,
    )  # fmt: skip
    resumed = args.resume and (args.out / "last.safetensors").exists()  # then the cost is only that of what was left
    cpu = time.process_time()
    history = train(model, batches, settings, args.out, lambda: measure(args.precision).loss, resume=args.resume)
    cost = {"train_cpu_seconds": round(time.process_time() - cpu, 1), "resumed": resumed,
            "peak_memory_gb": round(minipoet.models.peak_memory() / 1e9, 2)}  # fmt: skip
    after, poems_after = measure(), poems()

    if args.full:
        label, saved = "after full fine-tuning", "model/ (the whole model)"
        minipoet.save(model, tokenizer, args.out / "model")
    else:
        label, saved = f"with {'LoRA' if args.prefix is None else 'a prefix'}", "the adapter (PEFT's format)"
        minipoet.save_adapter(model, args.out)
    plot_history(history, args.out / "loss.png", f"{method} on {Path(args.corpus).name}")
    samples = side_by_side(args.prompts, {"the base": poems_before, label: poems_after})
    write_text_atomic(args.out / "samples.md", samples)
    write_json_atomic(args.out / "results.json", {
        "settings": {name: value for name, value in vars(args).items() if name not in ("out", "resume")},
        "corpus_sha256": sha256, "train_poems": len(train_poems),
        "before": figures(before), "after": figures(after),
        "trainable": counts.trainable, "parameters": counts.all, **course(history), **cost,
        "cpu_seconds": round(time.process_time(), 1), "seconds": round(time.perf_counter() - started, 1),
    })  # fmt: skip

    print("\n" + samples)
    print("held-out verse         before    after")
    for name, value in figures(before).items():
        print(f"{name.replace('_', ' '):<20} {value:8.3f} {figures(after)[name]:8.3f}")
    print(f"\n{args.out}: {saved}, history.jsonl, loss.png, samples.md, results.json; "
          f"{time.perf_counter() - started:.0f} s in all")  # fmt: skip


def figures(found: Likelihood) -> dict[str, float]:
    """What is told of a model, on the screen and in results.json."""
    return {name: getattr(found, name) for name in ("loss", "perplexity", "bits_per_character")}


def course(history: History) -> dict[str, float]:
    """How the training went. train_loss: of the last ten steps; step_seconds: of all steps, without the evaluations."""
    steps, losses = history.curve("loss")
    at, values = history.curve("validation")
    return {
        "steps": steps[-1], "best_step": at[values.index(min(values))], "tokens": history.curve("tokens")[1][-1],
        "train_loss": fmean(losses[-10:]), "step_seconds": history.curve("seconds")[1][-1],
    }  # fmt: skip


if __name__ == "__main__":
    run(main)
