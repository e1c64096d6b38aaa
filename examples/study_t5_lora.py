"""When does LoRA lose to full fine-tuning? Rank, alpha, targets and rates, and how far each moves the matrices.

    python examples/study_t5_lora.py --out runs/t5-lora         # the embedded T5, the reviews of t5_reviews.py

The same reviews are learnt for the same epochs by all parameters, by the q and v of all attention alone, and by LoRA
of several ranks, alphas and targets, each at several rates (the table KINDS). The last validation loss is noted, and on
the way how far q and v moved, in shares of their size; before that, what the very first step of Adam does to them,
beside what `first_change` and `first_gain` say that it does. In --out: runs/, results.json, study.md, rate.png (loss
against rate, at most the base's), first.png (against the size of the first step), moved.png. An interrupted study goes
on where it was: start it again. Chapter: docs/lora-or-full.md
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from review_data import EMBEDDED, ask, balanced, read
from torch import Tensor

import minipoet
from minipoet.adapters import lora_layers
from minipoet.adapters.targets import find_targets
from minipoet.checks import expect_whole
from minipoet.command import run
from minipoet.files import make_folder, read_json, remove, write_json_atomic, write_text_atomic
from minipoet.models import LanguageModel
from minipoet.plots import plot_study, plot_trials
from minipoet.text import Keywords
from minipoet.training import Batch, Batches, Pairs, TrainSettings, completion_metrics, encode_pairs
from minipoet.training.loss import batch_sums

LOOKED_AT = ("q", "v")  # of all attention: what every kind teaches, whatever else it does
LENGTH = 192  # tokens a row; longer reviews are cut
COURSES = ("validation", *(f"validation: {letter} moved" for letter in LOOKED_AT))  # what is noted of a run
LOOKS = (4, 16, 64)  # the steps after which is measured, beside the first and the last


@dataclass(frozen=True)
class Kind:
    """What learns, and at which multiples of the rate of full fine-tuning. rank 0: the matrices themselves."""

    label: str
    times: tuple[float, ...]
    targets: tuple[str, ...] = ()  # of rank 0 and without targets: all parameters
    rank: int = 0
    alpha: float = 0.0

    def first_change(self, n_in: int) -> float:
        """By how much Adam's first step changes an entry of ΔW (root mean square), in shares of the rate.

        Full: 1. LoRA: B becomes ±rate, so an entry of (α/R)·BA is a sum of R numbers of A, of variance 1/(3 in) each.
        """
        return self.alpha / math.sqrt(3 * self.rank * n_in) if self.rank else 1.0

    def first_gain(self, n_in: int) -> float:
        """How much the loss falls by this change, beside a full step at the same rate: the rank is in it no more."""
        return self.alpha / (math.sqrt(3) * n_in) if self.rank else 1.0


KINDS = (
    Kind("all parameters", (0.5, 1, 2, 4)),
    Kind("q, v themselves", (1, 2, 4), LOOKED_AT),
    Kind("q, v: R = 4, α = 16", (1, 4, 8, 16, 32, 64), LOOKED_AT, 4, 16),
    Kind("k, q, v: R = 16, α = 1", (1, 16, 32, 64, 128), ("k", "q", "v"), 16, 1),
    Kind("k, q, v: R = 16, α = 16", (1, 2, 8, 32), ("k", "q", "v"), 16, 16),
    Kind("k, q, v: R = 16, α = 64", (1, 2, 8), ("k", "q", "v"), 16, 64),
    Kind("all layers: R = 4, α = 16", (1, 4, 16, 32), ("all-linear",), 4, 16),
)


def prepare(model: LanguageModel, kind: Kind, seed: int) -> LanguageModel:
    """Let learn what the kind lets learn, and nothing else. Returns the model."""
    if kind.rank:
        return minipoet.add_lora(model, kind.rank, kind.alpha, kind.targets, seed=seed)
    if kind.targets:
        chosen = {f"{ours}.weight" for ours, _ in find_targets(model, kind.targets)}
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in chosen)
    return model


def looked_at(model: LanguageModel) -> dict[str, Tensor]:
    """The matrices q and v of a model that has not learnt yet, by name."""
    return {ours: model.get_submodule(ours).weight.detach().clone() for ours, _ in find_targets(model, LOOKED_AT)}


@torch.no_grad()
def changes(model: LanguageModel, before: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """ΔW, (out, in), of each: what was learnt beside the matrix, or in it."""
    beside = {name: layer.delta("default").matrix() for name, layer in lora_layers(model)}
    return {name: beside[name] if beside else model.get_submodule(name).weight - before[name] for name in before}


def moved(model: LanguageModel, before: Mapping[str, Tensor]) -> dict[str, float]:
    """‖ΔW‖ / ‖W‖ (Frobenius) over all q together, and over all v."""

    def norm(matrices: Mapping[str, Tensor], letter: str) -> float:
        return float(torch.cat([each for name, each in matrices.items() if name.endswith(f".{letter}")]).norm())

    changed = changes(model, before)
    return {letter: norm(changed, letter) / norm(before, letter) for letter in LOOKED_AT}


def first_step(base: LanguageModel, batch: Batch, kind: Kind, lr: float, seed: int) -> tuple[float, float]:
    """What Adam's first step does to q and v: the root mean square of ΔW, and the gain −Σ ∂L/∂W · ΔW."""
    model = deepcopy(base)
    before = looked_at(model)
    (batch_sums(model, batch).loss / batch.tokens()).backward()
    slopes = {name: model.get_submodule(name).weight.grad for name in before}
    model.zero_grad(set_to_none=True)
    prepare(model, kind, seed)
    (batch_sums(model, batch).loss / batch.tokens()).backward()
    torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr).step()
    changed = changes(model, before)
    gain = -sum(float((slopes[name] * change).sum()) for name, change in changed.items())
    return float(torch.cat(list(changed.values())).square().mean().sqrt()), gain


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, every = parser.add_argument, range(len(KINDS))
    add("--base", default="reviewer-tiny", help="embedded model, folder or model on the hub (default: %(default)s)")
    add("--data", default=EMBEDDED, help="as for t5_reviews.py (default: written for the package)")
    add("--reviews", type=int, default=1000, help="how many; 0.6 of them are learnt from (default: %(default)s)")
    add("--epochs", type=int, default=2, help="(default: %(default)s)")
    add("--lr", type=float, default=1e-3, help="of full fine-tuning: each rate is a multiple (default: %(default)s)")
    add("--rows", type=int, default=4, help="rows of 192 tokens a step (default: %(default)s)")
    add("--kinds", type=int, nargs="+", default=every, choices=every, metavar="N", help="of KINDS, 0 … (default: all)")
    add("--out", type=Path, default=Path("runs/t5-lora"), help="folder to write to (default: %(default)s)")
    add("--seed", type=int, default=0)
    add("--workers", type=int, default=2, help="runs at the same time, a thread each (default: %(default)s)")
    args = parser.parse_args()
    expect_whole(1, reviews=args.reviews, workers=args.workers)
    return args


def teach(job: tuple[Kind, float], sides: Mapping[str, Pairs], args: argparse.Namespace) -> dict[str, Any]:
    """One run: a kind at a multiple of the rate. Gives its figures, those of results.json where it is finished."""
    kind, times = job
    folder = args.out / "runs" / f"kind{KINDS.index(kind)}-times{times:g}"
    asked = {"kind": kind.label, "times": times} | {
        name: getattr(args, name) for name in ("base", "data", "reviews", "epochs", "lr", "rows", "seed")
    }
    if (file := folder / "results.json").exists():
        figures = read_json(file)
        if figures["asked"] != asked:
            raise ValueError(f"{folder} holds a run with other settings ({figures['asked']}): choose another --out.")
        return figures
    torch.set_num_threads(1)
    model, _ = minipoet.load(args.base, dtype=torch.float32)
    before = looked_at(model)
    prepare(model, kind, args.seed)
    learnt, measured = (Batches(of.targets, LENGTH, args.rows, args.seed, sources=of.sources) for of in sides.values())
    steps = minipoet.training.epoch_ends(learnt, args.epochs)[-1]
    looks = [step for step in LOOKS if step <= steps] or 0  # the start and the end are measured without asking
    settings = TrainSettings(steps, args.lr * times, warmup=min(10, steps), evaluate_every=looks, seed=args.seed)

    def validate() -> dict[str, float]:
        figures = completion_metrics(model, measured, "auto").loss, *moved(model, before).values()
        return dict(zip(COURSES, figures, strict=True))

    history = minipoet.training.train(model, learnt, settings, folder, validate, resume=True, quiet=True)
    figures = {"asked": asked, "trainable": minipoet.count_parameters(model).trainable}
    figures |= {key: list(zip(*history.curve(key), strict=True)) for key in COURSES}
    write_json_atomic(file, figures)
    for name in ("last", "best"):  # only good to go on from, and large
        remove(folder / f"{name}.safetensors")
    print(f"{kind.label}, rate {settings.lr:g}: {figures['validation'][-1][1]:.3f}", flush=True)
    return figures


def table(head: str, rows: Sequence[Sequence[Any]]) -> str:
    """In Markdown; the first column is words, a number gets two digits."""
    body = ([f"{cell:.2g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows)
    return "\n".join([head, f"|---{'|---:' * (head.count('|') - 2)}|", *(f"| {' | '.join(cells)} |" for cells in body)])


def report(steps: Sequence[Sequence[Any]], runs: Sequence[dict[str, Any]], n_in: int, args: argparse.Namespace) -> str:
    """Write the tables and figures to --out; gives the tables."""
    start, kinds = runs[0]["validation"][0][1], {kind.label: kind for kind in KINDS}
    rows, rates, firsts, courses = [], {}, {}, {}
    for figures in runs:
        label, times = figures["asked"]["kind"], figures["asked"]["times"]
        loss, q, v = (figures[key][-1][1] for key in COURSES)
        first = float(f"{times * kinds[label].first_change(n_in):.2g}")
        rows.append([label, f"{figures['trainable']:,}", times, first, f"{loss:.3f}", 100 * q, 100 * v])
        for curves, x in ((rates, times), (firsts, first)):
            curves.setdefault(label, []).append((x, min(loss, start), 0.0))
        if times == 1:
            courses[label] = [(step, value) for step, value in figures[COURSES[-1]] if step]
    text = f"""# LoRA and full fine-tuning

Base: {start:.3f} nats a token of held-out reviews. Adam's first step, in shares of a full one at the same rate:

{table("| what learns | α/R | change: formula | measured | gain: formula | measured |", steps)}

After {args.epochs} epochs (rate: × {args.lr:g}; first: the first step, in full ones at × 1; q, v: ‖ΔW‖ / ‖W‖):

{table("| what learns | parameters | rate | first | validation | q, % | v, % |", rows)}
"""
    write_text_atomic(args.out / "study.md", text)
    for name, curves, x in (("rate", rates, "learning rate"), ("first", firsts, "Adam's first step")):
        x, y = f"{x}, in those of full fine-tuning", "validation, nats a token"
        plot_study(curves, args.out / f"{name}.png", f"{args.epochs} epochs", x, y, start, 2)
    plot_trials(courses, args.out / "moved.png", "at one rate", "step", "‖ΔW‖ / ‖W‖ of all v", len(courses))
    return text


def main() -> None:
    args = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a kill ends the runs as Ctrl-C does
    make_folder(args.out)
    sides = read(args.data, args.reviews, args.seed)
    keywords = Keywords.of(review.text for review in sides.train)
    base, tokenizer = minipoet.load(args.base, dtype=torch.float32)
    both = {"learnt": balanced(sides.train, 0.5, args.seed), "measured": sides.validation}
    pairs = {name: encode_pairs(base, tokenizer, *ask(side, keywords), LENGTH) for name, side in both.items()}
    batch = Batches(pairs["learnt"].targets, LENGTH, 16, args.seed, sources=pairs["learnt"].sources).batch(0)
    kinds = [KINDS[number] for number in args.kinds]
    n_in = next(iter(looked_at(base).values())).shape[1]
    full = first_step(base, batch, KINDS[0], args.lr, args.seed)
    steps = []
    for kind in kinds:
        change, gain = first_step(base, batch, kind, args.lr, args.seed)
        shares = kind.first_change(n_in), change / full[0], kind.first_gain(n_in), gain / full[1]
        steps.append([kind.label, f"{kind.alpha / kind.rank:g}" if kind.rank else "–", *shares])
    work, jobs = partial(teach, sides=pairs, args=args), [(kind, times) for kind in kinds for times in kind.times]
    if args.workers == 1:
        runs = list(map(work, jobs))
    else:
        context, dies_silently = multiprocessing.get_context("spawn"), (signal.SIGINT, signal.SIG_DFL)
        with ProcessPoolExecutor(args.workers, context, signal.signal, dies_silently) as pool:
            runs = list(pool.map(work, jobs))
    write_json_atomic(args.out / "results.json", {"first steps": steps, "runs": runs})
    print(f"\n{report(steps, runs, n_in, args)}\n{args.out}: results.json, study.md, rate.png, first.png, moved.png")


if __name__ == "__main__":
    run(main)
