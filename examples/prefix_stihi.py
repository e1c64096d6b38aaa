"""The laboratory of prefix tuning: does a learnt beginning teach a frozen model to write verse, and is that measured?

    python examples/prefix_stihi.py                                  the embedded base and corpus, a minute
    python examples/prefix_stihi.py --corpus poems.jsonl --author Пушкин --steps 600
    python examples/prefix_stihi.py --base ai-forever/rugpt3medium_based_on_gpt2 --corpus stihi_ru.jsonl.zst \\
        --poems 100000 --steps 12000 --more-steps 8000 --length 512 --gradient-checkpointing

Held-out poems are chosen by a hash: the same ones for every model, every stage and every --poems. The base is measured
on them (perplexity of the whole poems; chrF, form and copying of what it makes of their first two lines), a prefix is
trained for --steps, saved and measured in the same way; then a fresh base with the saved prefix is trained for
--more-steps and measured again. After each stage the table is printed and written, with intervals and a paired test
against the base. In --out: base/, tuned/ and further/ (the prefix in PEFT's format, the history, what was written),
report.md, samples.md, loss.png, results.json. A run that was cut off goes on with --resume, in either stage.

What the figures mean: docs/measuring.md. The mathematics: docs/prefix.md. A hundred thousand poems: docs/corpora.md
"""

from __future__ import annotations

import argparse
import hashlib
import random
import time
from collections.abc import Sequence
from itertools import chain, islice
from math import ceil
from pathlib import Path

import torch
from stihi_report import Exam, Record, best_step, joined

import minipoet
from minipoet.command import run
from minipoet.evaluation import likelihood
from minipoet.files import read_json, remove, write_json_atomic
from minipoet.generation import SamplingSettings
from minipoet.models import LanguageModel
from minipoet.plots import plot_history
from minipoet.text import (
    Poem,
    check_apart,
    corpus_sha256,
    drop_duplicates,
    read_corpus,
    read_stihi,
    split_by_poem,
    split_by_work,
)
from minipoet.text.dedup import find_leaks
from minipoet.tokenization import Tokenizer, encode_texts, tokenized
from minipoet.training import Batches, History, TrainSettings, train

QUATRAIN = "Прошла гроза, умылось небо,\nОт туч остались облака,\n"  # the laboratory's own prompt
STAGES = {"tuned": "tuned", "further": "tuned further"}  # folders of --out, and what they are called
COLLECTIONS = (".zst", ".parquet")
SLICE = 100  # poems that choose the best step
TOP_P = 0.95  # of all sampling
ELSEWHERE = ("out", "resume", "device")  # settings that a run may go on with changed


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--base", default="poet-tiny", help="poet-tiny, a model's folder, or its id on the hub (default: %(default)s)")
    corpora = '"embedded", "pushkin", a folder of .txt, a .txt, a .jsonl; or a collection such as stihi_ru.jsonl.zst'
    add("--corpus", default="embedded", help=corpora)
    add("--collection", action="store_true", help="read a .jsonl as a collection too: as a stream, filtered")
    add("--author", help="only this author's poems of a .jsonl corpus")
    add("--poems", type=int, help="learn from so many poems at most (default: all)")
    add("--held-out", type=int, default=1000, help="measure on so many poems at most (default: %(default)s)")
    add("--held-out-from", help="measure on the poems of this other corpus; an overlap is refused")
    add("--validation", type=float, default=0.1, help="share that is held out (default: %(default)s)")
    add("--split-seed", type=int, default=0, help="of the division into training and held out")
    add("--out", type=Path, default=Path("runs/prefix_stihi"), help="folder for the results (default: %(default)s)")
    add("--virtual-tokens", type=int, default=15, help="length of the prefix (default: %(default)s)")
    add("--projection", action="store_true", help="an MLP makes the prefix while it is trained")
    add("--hidden", type=int, help="width of the MLP (default: that of a token's keys)")
    add("--init", default="text", choices=("text", "random", "zero"), help="start of the prefix (default: %(default)s)")
    add("--init-text", help="the text to start at (default: the training verse)")
    add("--steps", type=int, default=60, help="optimiser steps of the first stage (default: %(default)s)")
    add("--more-steps", type=int, default=60, help="of the second stage (default: %(default)s)")
    add("--lr", type=float, help="largest learning rate (default: 0.1, with --projection 0.001)")
    add("--rows", type=int, default=8, help="rows of packed poems a step (default: %(default)s)")
    add("--length", type=int, default=256, help="tokens a row, at most what the prefix leaves (default: %(default)s)")
    add("--evaluate-every", type=int, help="steps between evaluations (default: a tenth of the stage)")
    add("--precision", default="auto", choices=("auto", "bf16", "fp32"))
    add("--gradient-checkpointing", action="store_true", help="less memory: compute activations twice")
    add("--tokens", type=int, default=90, help="new tokens of a continuation, at most (default: %(default)s)")
    add("--temperature", type=float, default=0.8)
    add("--batch", type=int, default=32, help="continuations written at a time (default: %(default)s)")
    add("--prompts", nargs="+", default=[QUATRAIN], help="more beginnings for samples.md")
    add("--seed", type=int, default=0, help="of the prefix, the batches and the continuations")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--quick", action="store_true", help="a few steps and short texts: only to see that all of it works")
    add("--resume", action="store_true", help="go on with an interrupted run in --out")
    args = parser.parse_args()
    least = dict.fromkeys(("virtual_tokens", "steps", "more_steps", "rows", "length", "tokens", "batch"), 1)
    least |= {"held_out": 2} | {name: 1 for name in ("poems", "evaluate_every") if getattr(args, name) is not None}
    small = [f"--{name.replace('_', '-')} must be at least {n}, got {getattr(args, name)}"
             for name, n in least.items() if getattr(args, name) < n]  # fmt: skip
    if args.init_text and args.init != "text":
        small.append(f"--init-text needs --init text, got --init {args.init}")
    if args.hidden is not None and not args.projection:
        small.append("--hidden is the width of the MLP: it needs --projection")
    args.collection = args.collection or Path(args.corpus).suffix.lower() in COLLECTIONS
    if args.author and args.collection:
        small.append("--author chooses among the poems of a .jsonl corpus, and a collection is read whole: drop it")
    if not all(prompt.strip() for prompt in args.prompts):
        small.append("--prompts has an empty one")
    if not 0 < args.validation < 1:
        small.append(f"--validation must be between 0 and 1, got {args.validation:g}")
    if small:
        raise ValueError("; ".join(small) + ".")
    if args.quick:
        args.steps, args.more_steps, args.tokens = min(args.steps, 8), min(args.more_steps, 4), min(args.tokens, 30)
        args.held_out = min(args.held_out, 4)
    args.sampling = {"max_new_tokens": args.tokens, "temperature": args.temperature, "top_p": TOP_P, "seed": args.seed}
    SamplingSettings(**args.sampling)  # raises for what makes no sense: now, and not hours later
    if args.lr is None:  # the numbers themselves take larger steps than the weights that make them
        args.lr = 1e-3 if args.projection else 1e-1
    return args


def poems_of(path: str, args: argparse.Namespace, first: int | None = None) -> list[Poem]:
    """The poems of a corpus, or the first so many of a collection that pass its filter."""
    if args.collection or Path(path).suffix.lower() in COLLECTIONS:
        poems, what_became = read_stihi(path, first)
        print(what_became)
        return poems
    return read_corpus(path, args.author)


def read(args: argparse.Namespace) -> tuple[list[Poem], list[Poem], list[Poem]]:
    """Poems to learn from, to measure on, and to choose the best step by: others than are measured, if there are more.

    Which poems are held out depends on their words alone; of a collection the first ones are measured.
    """
    # Of a collection enough for both sides, and a fifth more for copies among them.
    most = max((args.poems or 0) / (1 - args.validation), args.held_out / args.validation)
    poems = poems_of(args.corpus, args, ceil(1.2 * most) if args.poems else None)
    if args.held_out_from:
        learnt, aside = drop_duplicates(poems)[0], poems_of(args.held_out_from, args)
        check_apart(learnt, aside)
    elif args.collection:
        split = split_by_poem(poems, args.validation, args.split_seed)
        learnt, aside = drop_duplicates(split.train)[0], split.validation
    else:
        split = split_by_work(drop_duplicates(poems)[0], args.validation, args.split_seed)
        learnt, aside = split.train, split.validation
    if not args.collection:  # of which all is read at any time: in an order that nobody chose
        aside = sorted(aside, key=lambda poem: hashlib.sha256(poem.text.encode()).digest())
    held_out, rest = drop_duplicates(aside[: args.held_out])[0], aside[args.held_out :][:SLICE]
    leaks = {leak.dropped for leak in find_leaks(held_out + rest, learnt)}  # variants, where poems are divided singly
    learnt = [poem for poem in learnt if poem not in leaks]
    if args.poems is not None and args.poems < len(learnt):
        learnt = random.Random(args.seed).sample(learnt, args.poems)
    print(f"corpus {args.corpus}: {len(learnt):,} poems to learn from, {len(held_out):,} to measure on (SHA-256 "
          f"{corpus_sha256(held_out)[:16]}…), {len(leaks)} left out as variants of these")  # fmt: skip
    if args.corpus == "embedded":
        print("(this corpus was written for the package in Pushkin's manner; for the real one: --corpus pushkin)")
    return learnt, held_out, rest or held_out[:SLICE]


def start_of(args: argparse.Namespace, tokenizer: Tokenizer, texts: Sequence[Sequence[int]]) -> str | list[int]:
    """What the prefix starts at: a word that `add_prefix` knows, or as many ids of a text, or of the training verse."""
    if args.init != "text":
        return args.init
    if args.init_text:
        texts = [ids[:-1] for ids in encode_texts(tokenizer, [args.init_text])]
    start = list(map(int, islice(chain.from_iterable(texts), args.virtual_tokens)))
    if len(start) < args.virtual_tokens:
        raise ValueError(
            f"A prefix of {args.virtual_tokens} tokens starts at as many of a text, but "
            f"{'--init-text' if args.init_text else 'the training verse'} has {len(start)}: give more, or --init zero."
        )
    return start


def prepare(args: argparse.Namespace) -> None:
    """See that --out is free for this run, or has what it goes on with; note its settings. Raises ValueError if not."""
    file, done = args.out / "settings.json", args.out / "results.json"
    now = settings_of(args)
    begun = [stage for stage in STAGES if (args.out / stage / "last.safetensors").exists()]
    if args.resume and file.exists():
        then = read_json(file)
        changed = [f"{name} was {then.get(name)!r}, is {now[name]!r}" for name in now if then.get(name) != now[name]]
        if changed:
            raise ValueError(
                f"{args.out} holds a run with other settings ({'; '.join(changed)}): choose another --out."
            )
    elif begun and not done.exists():
        raise ValueError(
            f"{args.out} holds an unfinished run: go on with it (--resume), choose another --out, or delete the folder."
        )
    else:
        for stage in STAGES:
            remove(args.out / stage / "last.safetensors")
            remove(args.out / stage / "answers.json")
    remove(done)
    write_json_atomic(file, now)


def settings_of(args: argparse.Namespace) -> dict:
    """What a run and its figures depend on."""
    return {name: value for name, value in vars(args).items() if name not in ("out", "resume", "device")}


def fingerprint(model: LanguageModel) -> float:
    """A number that another base would hardly have: no folder's name tells what is in it."""
    return float(sum(parameter.detach().double().abs().sum() for parameter in model.parameters()))


def lessons(args: argparse.Namespace) -> dict[str, TrainSettings]:
    """How each stage is trained."""
    return {
        stage: TrainSettings(
            steps=steps, lr=args.lr, warmup=min(20, steps // 4), precision=args.precision, seed=args.seed,
            evaluate_every=args.evaluate_every or max(1, steps // 10),
        )
        for stage, steps in zip(STAGES, (args.steps, args.more_steps), strict=True)
    }  # fmt: skip


def examine(args: argparse.Namespace, held_out: list[Poem], room: int, tokenizer: Tokenizer) -> Exam:
    """What each model is measured on, cut to what the prefix leaves of the context. Raises ValueError for no room."""
    exam = Exam(held_out, args.prompts, min(args.length, room), args.sampling, args.batch)
    longest = exam.longest_prompt(tokenizer)
    if longest + args.tokens > room:
        raise ValueError(
            f"A prefix of {args.virtual_tokens} tokens leaves {room} to this model, but the longest opening and "
            f"--tokens take up {longest} + {args.tokens}: ask for fewer --tokens or --virtual-tokens."
        )
    return exam


def main() -> None:
    args = arguments()
    started, settings = time.perf_counter(), lessons(args)
    model, tokenizer = minipoet.load(args.base, device=args.device)
    model.gradient_checkpointing = args.gradient_checkpointing
    model.beginning_shape(args.virtual_tokens)  # raises if there is no place for it
    learnt, held_out, chosen_by = read(args)
    poems, some = [poem.text for poem in learnt], [poem.text for poem in chosen_by]
    ids = tokenized(tokenizer, poems) if args.collection else encode_texts(tokenizer, poems)
    exam, line_end = examine(args, held_out, model.context - args.virtual_tokens, tokenizer), tokenizer.encode("\n")
    start, some_ids = start_of(args, tokenizer, ids), encode_texts(tokenizer, some)
    key = exam.key() | {"base": fingerprint(model)}
    minipoet.add_prefix(model, args.virtual_tokens, args.projection, args.hidden, start, seed=args.seed)
    counts = minipoet.count_parameters(model)
    prepare(args)
    record = Record(exam, poems, args.out, f"Prefix tuning of {args.base} on {Path(args.corpus).name}")

    def validate() -> float:
        found = likelihood(model, some_ids, sum(map(len, some)), exam.length, breaks=line_end, precision=args.precision)
        return found.loss

    record.measure("the base", "base", minipoet.set_adapter(model, None), tokenizer, key)
    print(f"\na prefix of {args.virtual_tokens} tokens: {counts.trainable:,} of {counts.all:,} parameters train "
          f"({counts.share:.4f} %)")  # fmt: skip
    histories: list[History] = []
    for number, (stage, name) in enumerate(STAGES.items()):
        if number == 0:
            minipoet.set_adapter(model, "default")
        else:  # as on another day: the base, and what was saved
            minipoet.load_adapter(minipoet.remove_prefix(model), args.out / "tuned")
        batches = Batches(ids, exam.length, args.rows, args.seed + number, breaks=line_end)  # in an order of its own
        print(f"\n{name}: {settings[stage].steps} steps of {args.rows} rows of {exam.length} tokens")
        histories.append(train(model, batches, settings[stage], args.out / stage, validate, resume=args.resume))
        minipoet.save_adapter(model, args.out / stage)
        if best_step(histories[-1]) == 0:
            print("No step measured better than the beginning of the stage: the prefix stays as it was.")
        plot_history(joined(histories), args.out / "loss.png", f"A prefix on {Path(args.corpus).name}")
        record.measure(name, stage, model, tokenizer, key | {"settings": settings_of(args)})
    write_json_atomic(args.out / "results.json", {
        "settings": settings_of(args), **key, "train_poems": len(learnt), "held_out_poems": len(held_out),
        "openings": len(exam.openings), "trainable": counts.trainable, "parameters": counts.all,
        "figures": record.as_numbers(), "best_steps": [best_step(history) for history in histories],
        "step_seconds": [history.curve("seconds")[1][-1] for history in histories],
        "peak_memory_gb": round(minipoet.models.peak_memory() / 1e9, 2),
        "seconds": round(time.perf_counter() - started, 1),
    })  # fmt: skip
    print(f"\n{args.out}: report.md (with intervals, and p), samples.md, loss.png, results.json; the prefixes are in "
          f"{' and '.join(STAGES)}; {time.perf_counter() - started:.0f} s in all")  # fmt: skip


if __name__ == "__main__":
    run(main)
