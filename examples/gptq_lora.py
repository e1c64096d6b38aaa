"""Quantise a model to four bits, or load one that is quantised, and teach it a poet by LoRA.

    python examples/gptq_lora.py                                            the embedded base and corpus, a few minutes
    python examples/gptq_lora.py --corpus poems.jsonl --author Пушкин --steps 300
    python examples/gptq_lora.py --base OWNER/MODEL-GPTQ --corpus FOLDER    a published one: it is loaded as it is

The weights are rounded by GPTQ on verse to learn from; then they are measured, asked with examples in the prompt, and
taught: the rounded weights stay as they are, and a low-rank adapter in fp32 learns beside them. Where the base came in
full precision, that is taught beside it, the same steps with the same seeds: what do four bits cost, and how much of it
does the adapter win back? In --out: the quantised model in AutoGPTQ's form, the adapter in PEFT's, report.md, loss.png,
poems.md, results.json. Chapters: docs/gptq.md, docs/qlora.md, docs/few-shot.md
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from few_shot_poems import Subject, request_for
from lora_pushkin import PROMPTS, TOP_P, figures, read

import minipoet
from minipoet.adapters import LoRAConfig
from minipoet.command import run
from minipoet.evaluation import Likelihood, first_lines, likelihood
from minipoet.files import make_folder, write_json_atomic, write_text_atomic
from minipoet.generation import generate_many
from minipoet.models import LanguageModel
from minipoet.plots import plot_curves
from minipoet.quantization import QuantConfig, few_bit_layers, packed_bytes
from minipoet.text import Poem, Themes
from minipoet.text.few_shot import PlainForm, Shot, Shots
from minipoet.tokenization import Tokenizer, encode_texts
from minipoet.training import Batches, History, TrainSettings, train

FULL, ROUNDED = "full precision", "quantised"
LINES = 4  # of a poem in a few-shot prompt, and to write there
ASKED = 3  # few-shot requests


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--base", default="poet-tiny", help="poet-tiny, a model's folder, or its id on the hub, quantised or not "
        "(default: %(default)s)")  # fmt: skip
    add("--corpus", default="embedded", help='"embedded", "pushkin", a folder of .txt, a .txt, a .jsonl')
    add("--author", help="only this author's poems of a .jsonl corpus")
    add("--out", type=Path, default=Path("runs/gptq_lora"), help="folder for the results (default: %(default)s)")
    add("--method", default="gptq", choices=("gptq", "rtn", "nf4", "int8"), help="(default: %(default)s)")
    add("--bits", type=int, default=4, choices=(2, 3, 4, 8), help="for gptq and rtn (default: %(default)s)")
    add("--group-size", type=int, default=64, help="weights that share a scale; -1: a column (default: %(default)s)")
    add("--act-order", action="store_true", help="GPTQ begins with the inputs that matter most")
    add("--calibration", type=int, default=32_768, help="tokens of verse that GPTQ reads (default: %(default)s)")
    add("--rank", type=int, default=8, help="of LoRA, on all linear layers (default: %(default)s)")
    add("--alpha", type=float, default=16)
    add("--dropout", type=float, default=0.1)
    add("--steps", type=int, default=120, help="optimiser steps (default: %(default)s)")
    add("--lr", type=float, default=1e-3, help="largest learning rate (default: %(default)s)")
    add("--rows", type=int, default=8, help="rows of packed poems a step (default: %(default)s)")
    add("--length", type=int, default=256, help="tokens a row, at most the model's context (default: %(default)s)")
    add("--validation", type=float, default=0.1, help="share of the verse that is held out (default: %(default)s)")
    add("--shots", type=int, default=3, help="example poems in a few-shot prompt (default: %(default)s)")
    add("--tokens", type=int, default=100, help="new tokens a poem, at most (default: %(default)s)")
    add("--temperature", type=float, default=0.8)
    add("--no-compare", action="store_true", help="do not teach the base in full precision beside it")
    add("--seed", type=int, default=0, help="of the training and of the poems")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--quick", action="store_true", help="a few steps and short poems: only to see that all of it works")
    add("--resume", action="store_true", help="go on with an interrupted run in --out")
    args = parser.parse_args()
    QuantConfig(bits=args.bits, group_size=args.group_size)  # raises for what makes no sense: now
    LoRAConfig(args.rank, args.alpha, args.dropout, targets="all-linear")
    args.poems, args.split_seed = None, 0  # for lora_pushkin.read: all of them
    if args.quick:
        args.steps, args.tokens, args.calibration = min(args.steps, 8), 40, 4096
    return args


@dataclass
class Verse:
    """The poems, and as ids for the models of one tokenizer."""

    learnt: list[Poem]
    held_out: list[Poem]
    learnt_ids: list[list[int]]
    held_out_ids: list[list[int]]
    sha256: str


@dataclass
class Course:
    """A base, before it was taught and after."""

    name: str
    before: Likelihood
    after: Likelihood
    history: History
    poems: list[str]
    seconds: float


def quantise(model: LanguageModel, texts: list[list[int]], args: argparse.Namespace) -> dict[str, float]:
    """Round the weights in place; gives each layer's relative error."""
    errors: dict[str, float] = {}
    free = args.method in ("nf4", "int8")
    config = None if free else QuantConfig(bits=args.bits, group_size=args.group_size, desc_act=args.act_order)
    ends = accumulate(map(len, texts))  # whole poems, as many as have so many tokens
    read = [ids for ids, end in zip(texts, ends, strict=True) if end - len(ids) < args.calibration]
    calibration = read if args.method == "gptq" else None
    minipoet.quantize(model, calibration, config, args.method, length=args.length, told=errors.__setitem__)
    return errors


def measure(model: LanguageModel, verse: Verse, args: argparse.Namespace, breaks: list[int]) -> Likelihood:
    """Of the held-out poems, in fp32."""
    characters = sum(len(poem.text) for poem in verse.held_out)
    return likelihood(model, verse.held_out_ids, characters, min(args.length, model.context), breaks=breaks)


def teach(name: str, model: LanguageModel, tokenizer: Tokenizer, verse: Verse, args: argparse.Namespace) -> Course:
    """LoRA on all linear layers of the blocks, the same for every base."""
    breaks = tokenizer.encode("\n")
    before = measure(model, verse, args, breaks)
    minipoet.add_lora(model, args.rank, args.alpha, "all-linear", args.dropout, seed=args.seed)
    counts = minipoet.count_parameters(model)
    print(f"\n{name}: {counts.trainable:,} numbers learn; held-out verse before: "
          f"{before.bits_per_character:.3f} bits per character")  # fmt: skip
    length = min(args.length, model.context)
    batches = Batches(verse.learnt_ids, length, args.rows, args.seed, breaks=breaks)
    settings = TrainSettings(
        steps=args.steps, lr=args.lr, warmup=min(20, args.steps // 4), evaluate_every=max(1, args.steps // 6),
        seed=args.seed,
    )  # fmt: skip
    folder = args.out / name.replace(" ", "_")
    started = time.perf_counter()
    history = train(
        model, batches, settings, folder, lambda: measure(model, verse, args, breaks).loss, resume=args.resume
    )
    seconds = time.perf_counter() - started
    minipoet.save_adapter(model, folder)
    after = measure(model, verse, args, breaks)
    return Course(name, before, after, history, write(model, tokenizer, PROMPTS, args), seconds)


def write(model: LanguageModel, tokenizer: Tokenizer, prompts: Sequence[str], args: argparse.Namespace) -> list[str]:
    """A poem behind each prompt."""
    options = {"max_new_tokens": args.tokens, "temperature": args.temperature, "top_p": TOP_P, "seed": args.seed}
    return [rows[0].text for rows in generate_many(model, tokenizer, prompts, **options)]


def few_shot(model: LanguageModel, tokenizer: Tokenizer, verse: Verse, args: argparse.Namespace) -> list[str]:
    """Markdown: poems that the rounded base writes when it is shown some, before it is taught anything."""
    themes, form = Themes.of(verse.learnt), PlainForm()
    subject = Subject(ROUNDED, model, tokenizer, form)
    shots = [
        Shot(request_for(poem, themes, form, None), first_lines(poem.text, LINES, whole=True).strip())
        for poem in verse.learnt
    ]
    usable = [shot for shot in shots if shot.text and not form.problem(shot)]
    pool = Shots(usable, form, subject.count, [poem.text for poem in verse.held_out], args.seed)
    parts = [f"# Shown {args.shots} poems, not taught\n"]
    for poem in verse.held_out[:ASKED]:
        asked = request_for(poem, themes, form, None)
        prompt = pool.prompt(asked, min(args.shots, len(pool.shots)), model.context, args.tokens)
        (written,) = subject.write([prompt], args)
        parts.append(f"**{asked}** ({len(prompt.shots)} examples)\n\n{quoted(form.parse(written.continuation))}\n")
    return parts


def quoted(text: str) -> str:
    """As a quotation of Markdown."""
    return "\n".join(f"> {line}" for line in text.split("\n"))


def report(courses: Sequence[Course], errors: dict[str, float], told: str) -> str:
    """Markdown: what rounding cost, and what each base learnt."""
    lines = [f"# LoRA on a quantised base\n\n{told}\n"]
    if errors:
        worst = max(errors, key=errors.__getitem__)
        mean = sum(errors.values()) / len(errors)
        lines.append(f"Relative error of the layers: {mean:.4f} on average, {errors[worst]:.4f} at most ({worst}).\n")
    lines += ["| base | bits per character before | after | learnt | seconds |", "|---|---:|---:|---:|---:|"]
    for one in courses:
        before, after = one.before.bits_per_character, one.after.bits_per_character
        lines.append(f"| {one.name} | {before:.3f} | {after:.3f} | {before - after:.3f} | {one.seconds:.0f} |")
    return "\n".join(lines) + "\n"


def load(args: argparse.Namespace) -> tuple[LanguageModel, Tokenizer, bool]:
    """The base, and whether it is quantised already."""
    model, tokenizer = minipoet.load(args.base, device=args.device)
    return model, tokenizer, any(few_bit_layers(model))


def main() -> None:
    args = arguments()
    started = time.perf_counter()
    make_folder(args.out)
    model, tokenizer, quantised = load(args)
    learnt, held_out, sha256 = read(args)
    ids = [encode_texts(tokenizer, [poem.text for poem in poems]) for poems in (learnt, held_out)]
    verse, errors, courses = Verse(learnt, held_out, *ids, sha256), {}, []
    if not quantised:
        whole = sum(p.numel() * p.element_size() for p in model.parameters())
        if not args.no_compare:
            courses.append(teach(FULL, model, tokenizer, verse, args))
            minipoet.remove_lora(model)
        errors = quantise(model, verse.learnt_ids, args)
        if args.method != "nf4":  # GPTQ's files have no place for it
            minipoet.save(model, tokenizer, args.out / "model")
    rest = sum(p.numel() * p.element_size() for p in model.parameters())
    packed = packed_bytes(model)
    told = f"{args.base}: {packed / 1e6:.1f} MB packed, {rest / 1e6:.1f} MB beside them"
    told += "." if quantised else f"; {whole / 1e6:.1f} MB before ({args.method})."
    print(f"\n{told}")
    shown = few_shot(model, tokenizer, verse, args)
    courses.append(teach(ROUNDED, model, tokenizer, verse, args))

    plot_curves({one.name: one.history for one in courses}, args.out / "loss.png", "validation", "Held-out verse")
    text = report(courses, errors, told)
    write_text_atomic(args.out / "report.md", text)
    poems = ["# Taught\n"]
    for number, prompt in enumerate(PROMPTS):
        poems.append(f"## {prompt.strip()}\n")
        poems += [f"**{one.name}**\n\n{quoted(one.poems[number])}\n" for one in courses]
    write_text_atomic(args.out / "poems.md", "\n".join([*shown, *poems]))
    write_json_atomic(args.out / "results.json", {
        "settings": {name: value for name, value in vars(args).items() if name not in ("out", "resume")},
        "corpus_sha256": sha256, "packed_bytes": packed, "other_bytes": rest, "errors": errors,
        "bases": {one.name: {"before": figures(one.before), "after": figures(one.after), "seconds": one.seconds}
                  for one in courses},
    })  # fmt: skip
    print("\n" + "\n".join([*shown, *poems]) + "\n" + text)
    print(f"{args.out}: report.md, poems.md, loss.png, the adapter{'s' * (len(courses) > 1)}, results.json; "
          f"{time.perf_counter() - started:.0f} s in all")  # fmt: skip


if __name__ == "__main__":
    run(main)
