"""Teach a chat model the manners of several poets, a LoRA adapter each, and lay its poems beside those of the base.

    python examples/qwen_lora_poets.py                                   the embedded model and verse, two minutes
    python examples/qwen_lora_poets.py --base Qwen/Qwen2.5-3B-Instruct --lr 2e-4 --poets Пушкин=pushkin \\
        Лермонтов=poems.jsonl Бродский=FOLDER                            a real model; bring the texts of your poets

The poems of each poet are divided by work: some to learn from, some to measure on, and some that the generator never
sees, from which a judge learns whose verse is whose. Each poem becomes a request («Напиши стихотворение из 4
четверостиший на тему 'осень' в стиле поэта Пушкина») and its answer; the loss is that of the answer. Then the base and
the adapters, all in one batch, answer the same requests with the same seeds. In --out: a folder a poet (the adapter in
PEFT's format, the history), page.html, which shows the poems side by side, and results.json. Chapters:
docs/instruction.md, docs/metrics.md, docs/style.md. What was measured: docs/results.md
"""

from __future__ import annotations

import argparse
import sys
import time
import webbrowser
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from poets_report import QUATRAINS, TOP_P, first, metric_rows, notes, style_rows

import minipoet
from minipoet.adapters import save_adapter, set_adapter
from minipoet.command import run
from minipoet.evaluation import AuthorJudge, Likelihood, split_for_judge
from minipoet.files import make_folder, write_json_atomic
from minipoet.generation import chat_many
from minipoet.models import LanguageModel, available_memory, peak_memory, training_memory
from minipoet.plots import Comparison, Pair, Sample, compare_in_terminal, curve_pictures, write_page
from minipoet.text import (
    LAB_THEMES,
    Poem,
    Themes,
    corpus_sha256,
    drop_duplicates,
    parse_poet,
    read_corpus,
    request,
    split_by_work,
)
from minipoet.tokenization import Tokenizer, chat_template
from minipoet.training import Batches, History, TrainSettings, completion_metrics, has_fast_bf16, logged, train
from minipoet.training.instruction import Examples, check_enough, examples

POETS = ("Пушкин=embedded", "Лермонтов=embedded-lermontov", "Есенин=embedded-esenin")


@dataclass(frozen=True)
class Poet:
    """A poet to be learnt: the name, which is the adapter's too, its genitive, and the poems."""

    name: str
    genitive: str
    poems: list[Poem]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--base", default="poet-chat", help="poet-chat, a chat model's folder, or its id on the hub (%(default)s)")
    poets = (
        'NAME=CORPUS each: "embedded", "embedded-lermontov", "embedded-esenin" (verse in their manner, written for '
        'this package), "pushkin" (fetched once), or a path: a folder of .txt, a .txt, a .jsonl (of which the poems of '
        "NAME are taken). NAME/GENITIVE=CORPUS where the genitive is not by the rules"
    )
    add("--poets", nargs="+", default=list(POETS), metavar="NAME=CORPUS", help=poets)
    add("--out", type=Path, default=Path("runs/qwen_lora_poets"), help="folder for the results (default: %(default)s)")
    add("--rank", type=int, default=8)
    add("--alpha", type=float, default=16)
    add("--dropout", type=float, default=0.05)
    add("--targets", nargs="+", default=["all-linear"], help="ends of layers' names, or all-linear (default)")
    add("--steps", type=int, default=60, help="optimiser steps a poet (default: %(default)s)")
    add("--lr", type=float, default=2e-3, help="largest learning rate; for a model of billions 2e-4 (%(default)s)")
    add("--rows", type=int, default=4, help="rows of packed examples a batch (default: %(default)s)")
    add("--accumulation", type=int, default=1, help="batches a step (default: %(default)s)")
    add("--length", type=int, default=320, help="tokens a row, request and poem (default: %(default)s)")
    add("--checkpointing", action="store_true", help="keep no activations but those between blocks: slower, smaller")
    add("--precision", default="auto", choices=("auto", "bf16", "fp32"))
    add(
        "--themes", nargs="+", default=list(LAB_THEMES), help="what the poems are to be about (default: the lab's five)"
    )
    add("--samples", type=int, default=4, help="poems of each theme, poet and model (default: %(default)s)")
    add("--tokens", type=int, default=260, help="new tokens a poem, at most (default: %(default)s)")
    add("--temperature", type=float, default=0.8)
    add("--seed", type=int, default=0)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--no-open", action="store_true", help="do not open the page in a browser")
    add("--quick", action="store_true", help="a few steps and short poems: only to see that all of it works")
    add("--resume", action="store_true", help="go on with an interrupted run in --out")
    args = parser.parse_args()
    if args.quick:
        args.steps, args.tokens, args.samples, args.themes = min(args.steps, 6), 48, 1, args.themes[:2]
    return args


def read_poets(wanted: list[str]) -> list[Poet]:
    """The poets of the command line with their poems, duplicates dropped."""
    poets: list[Poet] = []
    for text in wanted:
        name, sign, corpus = text.partition("=")
        if not sign or not corpus:
            raise ValueError(f"--poets takes NAME=CORPUS, as in Пушкин=embedded or Бродский=FOLDER, got {text!r}.")
        name, genitive = parse_poet(name)
        if name in (poet.name for poet in poets):
            raise ValueError(f"--poets names {name} twice: each poet has one adapter.")
        poems, _ = drop_duplicates(read_corpus(corpus, name if Path(corpus).exists() else None))
        check_enough(name, poems)
        poets.append(Poet(name, genitive, poems))
    if len(poets) < 2:
        raise ValueError("Give two poets or more: whose manner a poem has can only be told beside another's.")
    return poets


def teach(
    model: LanguageModel, poet: Poet, learn: Examples, held_out: Examples, args: argparse.Namespace
) -> tuple[History, dict[str, Any]]:
    """Train an adapter of the poet's name; gives the history, and what was measured before and after."""
    length = args.length
    batches = Batches(learn.ids, length, args.rows, args.seed, prompts=learn.prompts)
    apart = Batches(held_out.ids, length, args.rows, prompts=held_out.prompts)
    characters = sum(map(len, held_out.texts))

    def measure() -> dict[str, float]:
        found = completion_metrics(model, apart)
        bits = Likelihood(found.loss * found.tokens, found.tokens, characters).bits_per_character
        return {"loss": found.loss, "entropy": found.entropy, "accuracy": found.accuracy, "bits_per_character": bits}

    def validate() -> float:
        return completion_metrics(model, apart, args.precision).loss

    set_adapter(model, None)
    before = measure()
    minipoet.add_lora(model, args.rank, args.alpha, args.targets, args.dropout, name=poet.name, seed=args.seed)
    counts = minipoet.count_parameters(model)
    check_room(model, args)
    settings = TrainSettings(
        steps=args.steps, lr=args.lr, warmup=min(10, args.steps // 4), evaluate_every=max(1, args.steps // 6),
        accumulation=args.accumulation, precision=args.precision, seed=args.seed, metrics=True,
    )  # fmt: skip
    history = train(model, batches, settings, args.out / poet.name, validate, resume=args.resume)
    save_adapter(model, args.out / poet.name)
    return history, {"before": before, "after": measure(), "trainable": counts.trainable}


def check_room(model: LanguageModel, args: argparse.Namespace) -> None:
    """Raise ValueError, before the first step, if a step will not fit in memory."""
    bits = 16 if args.precision != "fp32" and has_fast_bf16(args.device) else 32
    needed = training_memory(model, args.rows, args.length, args.checkpointing, bits)
    free = available_memory(args.device)
    if needed.total - needed.weights > free:  # the weights are there already
        raise ValueError(
            f"A step will take about {needed}, and {free / 1e9:.1f} GB are available: take fewer --rows (with as many "
            "more --accumulation the steps are the same), a smaller --length, --checkpointing, or a smaller model."
        )


def write(
    model: LanguageModel, tokenizer: Tokenizer, poets: list[Poet], args: argparse.Namespace
) -> dict[str, list[Pair]]:
    """For each poet a Pair a theme: base and adapted, the same requests and seeds; all adapters in one batch."""
    asked = {(poet.name, theme): request(QUATRAINS, theme, poet.genitive) for poet in poets for theme in args.themes}
    settings = {"max_new_tokens": args.tokens, "temperature": args.temperature, "top_p": TOP_P, "seed": args.seed}
    written: dict[str, list[list[Sample]]] = {}
    for kind in ("base", "adapted"):  # a poem's seed is that of its place: the same in both
        adapters = [None if kind == "base" else name for name, _ in asked]
        found = chat_many(model, tokenizer, list(asked.values()), samples=args.samples, adapters=adapters, **settings)
        written[kind] = [[Sample(p.continuation, p.finish, p.seed, len(p.ids)) for p in poems] for poems in found]
    pairs: dict[str, list[Pair]] = {poet.name: [] for poet in poets}
    for (name, theme), base, adapted in zip(asked, written["base"], written["adapted"], strict=True):
        pairs[name].append(Pair(asked[name, theme], base, adapted))
    return pairs


def main() -> None:
    args = arguments()
    started = time.perf_counter()
    poets = read_poets(args.poets)
    parts = split_for_judge({poet.name: poet.poems for poet in poets}, seed=args.seed)
    model, tokenizer = minipoet.load(args.base, device=args.device)
    template = chat_template(tokenizer)
    model.gradient_checkpointing = args.checkpointing
    args.length = min(args.length, model.context)
    make_folder(args.out)
    themes = Themes.of([poem for own in parts.generator.values() for poem in own])

    histories, measured, sizes = {}, {}, {}
    for poet in poets:
        split = split_by_work(parts.generator[poet.name], 0.15, args.seed)
        learn, held_out = (
            examples(own, poet.genitive, template, tokenizer, args.length, themes)
            for own in (split.train, split.validation)
        )
        sizes[poet.name] = {"learn": len(learn.ids), "held_out": len(held_out.ids), "divided": learn.divided,
                            "sha256": corpus_sha256(poet.poems)}  # fmt: skip
        print(f"{poet.name}: {len(learn.ids)} poems and excerpts to learn from, {len(held_out.ids)} held out; divided, "
              f"since longer than {args.length} tokens: {learn.divided} poems, {learn.cut_lines} lines")  # fmt: skip
        histories[poet.name], measured[poet.name] = teach(model, poet, learn, held_out, args)

    judge = AuthorJudge.fit({name: [poem.text for poem in own] for name, own in parts.judge.items()})
    pairs = write(model, tokenizer, poets, args)
    course = {name: logged(history, max(1, args.steps // 6)) for name, history in histories.items()}
    style, difference = style_rows(judge, parts.test, pairs)
    comparison = Comparison(
        title="Три поэта" if len(poets) == 3 else "Поэты", base=args.base, poets=[poet.name for poet in poets],
        prompts=args.themes, poems=first(pairs), metrics=metric_rows(course, measured), style=style,
        figures=curve_pictures(histories, ("loss", "entropy", "accuracy", "norm")),
        notes=notes(args, sizes, judge.accuracy(parts.test), difference),
    )  # fmt: skip
    write_page(args.out / "page.html", comparison)
    write_json_atomic(args.out / "results.json", {
        "settings": {name: value for name, value in vars(args).items() if name not in ("out", "resume", "no_open")},
        "corpora": sizes, "measured": measured, "style": style, "difference": difference._asdict(),
        "logged": course,
        "poems": {name: [asdict(pair) for pair in own] for name, own in pairs.items()},
        "seconds": round(time.perf_counter() - started, 1), "peak_memory_gb": round(peak_memory() / 1e9, 2),
    })  # fmt: skip
    print(compare_in_terminal(comparison))
    print(f"\n{args.out}: page.html, results.json, and a folder a poet with its adapter (PEFT's format) and history; "
          f"{time.perf_counter() - started:.0f} s in all")  # fmt: skip
    if sys.stdout.isatty() and not args.no_open:
        webbrowser.open((args.out / "page.html").resolve().as_uri())


if __name__ == "__main__":
    run(main)
