"""From GPT-2 to Qwen: what does each of the changes bring, measured alone?

    python examples/gpt2_to_qwen.py                                     the embedded corpus, seven minutes
    python examples/gpt2_to_qwen.py --corpus poems.jsonl --author Пушкин
    python examples/gpt2_to_qwen.py --parts norms cache                 only what needs no training

Three parts. `norms`: time and memory of RMSNorm and LayerNorm. `cache`: what a new token costs after a long text, with
as many key heads as query heads and with fewer. `models`: tiny models of letters, Qwen2's, GPT-2's, and between them
Qwen2's with one part of GPT-2 put back at a time, all blocks with as many parameters: how well do they learn, and what
do they do on longer texts than those of the training? In --out: results.json, a figure of the last. Times are
processor time on one thread. Chapter: docs/qwen2.md
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Collection, Mapping, Sequence
from itertools import cycle, pairwise
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from char_rnn_yesenin import read
from gpt2_to_qwen_costs import cache_table, measure_block, measure_cache, measure_norms, norms_table, table
from matplotlib.figure import Figure
from torch import Tensor, nn

from minipoet import count_parameters
from minipoet.command import run
from minipoet.evaluation import fair_bits, likelihood
from minipoet.files import make_folder, write_json_atomic
from minipoet.models import gpt2
from minipoet.models.layers import Embedding
from minipoet.models.qwen2 import Qwen2, Qwen2Config, Rotation
from minipoet.plots import COLORS, save_figure
from minipoet.tokenization import CharTokenizer, encode_texts
from minipoet.training import Batches, TrainSettings, cut, train

CHANGES = ("RMSNorm", "rotary positions", "grouped heads", "gate", "fewer biases")
PUT_BACK = ("with LayerNorm", "with a table of places", "with all key heads", "without a gate", "with all biases")
FORMS = {
    "Qwen2": frozenset(CHANGES),
    **{name: frozenset(CHANGES) - {new} for name, new in zip(PUT_BACK, CHANGES, strict=True)},
    "GPT-2": frozenset(),
}
DRAWN = ("Qwen2", "with a table of places", "GPT-2")  # loss by place
SPANS = 4  # into which the places are divided in the table; the first half of them was learnt


class Between(Qwen2):
    """Qwen2 with GPT-2's part in the place of each change that is not asked for: with none of them it is GPT-2."""

    def __init__(self, config: Qwen2Config, changes: Collection[str]):
        super().__init__(config)
        C, inner = config.hidden_size, config.intermediate_size
        self.table = None if "rotary positions" in changes else Embedding(config.max_position_embeddings, C)
        for block in self.blocks:
            if "gate" not in changes:
                block.mlp = gpt2.MLP(gpt2.GPT2Config(n_embd=C, n_inner=inner, n_head=config.num_attention_heads))
            for layer in (block.attn.out, *block.mlp.children()):
                layer.bias = None if "fewer biases" in changes else nn.Parameter(torch.zeros(layer.out_features))
            if "RMSNorm" not in changes:
                block.norm1, block.norm2 = (nn.LayerNorm(C, eps=1e-5) for _ in range(2))
        if "RMSNorm" not in changes:
            self.norm = nn.LayerNorm(C, eps=1e-5)
        self.reset()

    def enter(self, ids: Tensor, positions: Tensor) -> tuple[Tensor, tuple[Rotation]]:
        """With a table a vector of the place is added, and nothing is turned: cos = 1, sin = 0."""
        x, (rotation,) = super().enter(ids, positions)
        if self.table is None:
            return x, (rotation,)
        return x + self.table(positions), ((torch.ones_like(rotation[0]), torch.zeros_like(rotation[1])),)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    corpora = '"embedded" (written for this package), "pushkin" (fetched once), or a folder of .txt, a .txt, a .jsonl'
    parts = ("norms", "cache", "models")
    add("--parts", nargs="+", choices=parts, default=parts, help="what to measure (default: all three)")
    add("--forms", nargs="+", choices=list(FORMS), default=list(FORMS), help="of the models (default: all seven)")
    add("--corpus", default="embedded", help=corpora)
    add("--author", help="only this author's poems of a .jsonl corpus")
    add("--out", type=Path, default=Path("runs/gpt2_to_qwen"), help="for the results (default: %(default)s)")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of weights and batches (default: 0 1 2)")
    add("--steps", type=int, default=300, help="of training each model (default: %(default)s)")
    add("--lr", type=float, default=4e-3, help="AdamW's, for embeddings and vectors (default: %(default)s)")
    add("--muon-lr", type=float, default=0.02, help="Muon's, for the matrices of the blocks (default: %(default)s)")
    add("--rows", type=int, default=8, help="a step (default: %(default)s)")
    add("--length", type=int, default=128, help="letters a row in training; read is up to twice that")
    add("--width", type=int, default=96, help="C (default: %(default)s)")
    add("--layers", type=int, default=3)
    add("--heads", type=int, default=6, help="query heads (default: %(default)s)")
    add("--key-heads", type=int, default=2, help="key/value heads where they are shared (default: %(default)s)")
    add("--validation", type=float, default=0.1, help="share of the verse that is held out (default: %(default)s)")
    add("--split-seed", type=int, default=0, help="of the division into training and held-out verse")
    add("--tokens", type=int, default=512, help="through each norm (default: %(default)s)")
    add("--past", type=int, default=4096, help="tokens read before the one that is timed (default: %(default)s)")
    add("--times", type=int, default=15, help="each job is timed, the least counts (default: %(default)s)")
    add("--quick", action="store_true", help="a few steps, short texts: only to see that all of it works")
    args = parser.parse_args()
    small = [f"--{name}" for name in ("tokens", "past", "times", "width", "rows") if getattr(args, name) < 1]
    if small:
        raise ValueError(f"{', '.join(small)} must be at least 1.")
    if args.length < 4 or args.length % 2:
        raise ValueError(f"--length must be an even number of at least 4, since it is halved, got {args.length}.")
    if args.quick:
        args.steps, args.width, args.layers, args.times = min(args.steps, 2), 24, 1, 1
        args.length, args.tokens, args.past, args.seeds = min(args.length, 32), 16, 64, args.seeds[:2]
    return args


def build(changes: Collection[str], inner: int, vocabulary: int, args: argparse.Namespace) -> Between:
    """A model of these sizes; of its places, twice as many as a row has, a row teaches the first half."""
    return Between(
        Qwen2Config(
            vocab_size=vocabulary,
            hidden_size=args.width,
            intermediate_size=inner,
            num_hidden_layers=args.layers,
            num_attention_heads=args.heads,
            num_key_value_heads=args.key_heads if "grouped heads" in changes else args.heads,
            max_position_embeddings=2 * args.length,
            rope_theta=10_000.0,
            tie_word_embeddings=True,
        ),
        changes,
    )


def fair_inner(changes: Collection[str], vocabulary: int, args: argparse.Namespace) -> int:
    """The inner width of the MLP with which the blocks have as many parameters as GPT-2's, to half a column."""
    with torch.device("meta"):
        wanted = count_parameters(build((), 4 * args.width, vocabulary, args).blocks).all
        one, two = (count_parameters(build(changes, inner, vocabulary, args).blocks).all for inner in (1, 2))
    return 1 + round((wanted - one) / (two - one))


@torch.no_grad()
def losses_by_place(model: Between, windows: Tensor) -> list[float]:
    """Nats for the letter after each place, mean over the windows: (N, T + 1) -> T of them."""
    sums = torch.zeros(windows.shape[1] - 1)
    for rows in windows.split(64):
        logits = model(rows[:, :-1]).flatten(0, 1)
        sums += F.cross_entropy(logits, rows[:, 1:].flatten(), reduction="none").view(len(rows), -1).sum(0)
    return (sums / len(windows)).tolist()


def losses_anew(model: Between, windows: Tensor) -> list[float]:
    """The same for the places of the second half, where the text is begun anew half a half before: no place is new."""
    length = windows.shape[1] // 2
    half = length // 2
    starts = (half, length)
    return [loss for at in starts for loss in losses_by_place(model, windows[:, at : at + length + 1])[half:]]


def measure_models(args: argparse.Namespace) -> dict[str, Any]:
    """Train each form with each seed; bits a letter on held-out verse in rows as learnt, and the loss by place."""
    poems, held_out_poems, sha256 = read(args)
    texts, held_out_texts = [poem.text for poem in poems], [poem.text for poem in held_out_poems]
    tokenizer = CharTokenizer.from_texts(texts, unk=True)  # <unk>: for a letter that only the held-out verse has
    learnt, held_out, twice = encode_texts(tokenizer, texts), encode_texts(tokenizer, held_out_texts), 2 * args.length
    pieces = [piece for ids in held_out for piece in cut(ids, twice + 1) if len(piece) == twice + 1]
    if not pieces:
        raise ValueError(
            f"No held-out text has {twice + 1} letters: --length can be {(max(map(len, held_out)) - 1) // 4 * 2}."
        )
    windows = torch.stack([torch.from_numpy(piece).long() for piece in pieces])
    print(f"{len(windows)} held-out windows of {twice} letters")

    forms: dict[str, dict[str, Any]] = {}
    for name in args.forms:
        changes = FORMS[name]
        inner = fair_inner(changes, tokenizer.vocab_size, args)
        bits, places, anew, started = [], [], [], time.process_time()
        for seed in args.seeds:
            torch.manual_seed(seed)
            model = build(changes, inner, tokenizer.vocab_size, args)
            settings = TrainSettings(steps=args.steps, lr=args.lr, warmup=min(40, args.steps // 4), evaluate_every=0,
                                     optimizer="muon", muon_lr=args.muon_lr, precision="fp32", seed=seed)  # fmt: skip
            with TemporaryDirectory() as folder:  # nobody wants these checkpoints
                train(model, Batches(learnt, args.length, args.rows, seed), settings, folder, quiet=True)
            found = likelihood(model, held_out, sum(map(len, held_out_texts)), args.length)
            bits.append(fair_bits(found, tokenizer, held_out_texts))
            places.append(losses_by_place(model, windows))
            anew.append(losses_anew(model, windows))
            print(f"{name:<22} seed {seed}: {bits[-1]:.3f} bits a letter", flush=True)
        forms[name] = {
            "parameters": count_parameters(model.blocks).all, "inner": inner, "bits": bits, "places": places,
            "anew": anew, "cpu_seconds": (time.process_time() - started) / len(args.seeds),
        }  # fmt: skip
    return {"corpus_sha256": sha256, "windows": len(windows), "forms": forms}


def mean_and_spread(values: Sequence[float]) -> str:
    """2.345 ± 0.006: the mean, and the standard deviation of one run."""
    return f"{fmean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def models_table(forms: Mapping[str, Mapping[str, Any]]) -> str:
    first = next(iter(forms))
    base = fmean(forms[first]["bits"])
    rows = [
        (name, f"{of['parameters']:,}", of["inner"], mean_and_spread(of["bits"]), f"{fmean(of['bits']) - base:+.3f}",
         f"{of['cpu_seconds']:.0f}")
        for name, of in forms.items()
    ]  # fmt: skip
    return table(("", "parameters of the blocks", "inner width", "bits a letter", f"against {first}", "CPU s"), rows)


def places_table(forms: Mapping[str, Mapping[str, Any]]) -> str:
    """Nats a letter in each span of places."""
    number = {len(run) for of in forms.values() for run in of["places"]}.pop()
    spans = list(pairwise(number * i // SPANS for i in range(SPANS + 1)))
    late = spans[SPANS // 2 :]
    rows = [
        (
            name,
            *(mean_and_spread([fmean(run[a:b]) for run in of["places"]]) for a, b in spans),
            *(mean_and_spread([fmean(run[a - number // 2 : b - number // 2]) for run in of["anew"]]) for a, b in late),
        )
        for name, of in forms.items()
    ]
    told = [f"{a + 1} to {b}" for a, b in spans]
    return table(("", *told, *(f"{span} anew" for span in told[SPANS // 2 :])), rows)


def draw(forms: Mapping[str, Mapping[str, Any]], args: argparse.Namespace) -> None:
    """Loss by place, each point the mean over some neighbours: seeds faint, their mean strong, begun anew dotted."""
    figure = Figure(figsize=(7.5, 4), layout="constrained")
    axes, wide = figure.add_subplot(), max(1, args.length // 16)
    for name, color in zip([name for name in DRAWN if name in forms] or forms, cycle(COLORS)):
        runs = torch.tensor(forms[name]["places"]).unfold(1, wide, wide).mean(-1)  # (seeds, points)
        at = torch.arange(runs.shape[1]) * wide + (wide + 1) / 2
        for curve in runs:
            axes.plot(at, curve, color=color, linewidth=0.7, alpha=0.4)
        axes.plot(at, runs.mean(0), color=color, linewidth=1.8, label=name)
        again = torch.tensor(forms[name]["anew"]).mean(0).unfold(0, wide, wide).mean(-1)
        axes.plot(args.length + at[: len(again)], again, ":", color=color, linewidth=1.8)
    axes.plot([], [], ":", color="#666666", label="text begun anew")
    axes.axvline(args.length, color="#666666", linestyle="--", linewidth=1)
    axes.annotate("so long were the rows in training", (args.length, 1), (-6, -4), xycoords=("data", "axes fraction"),
                  textcoords="offset points", ha="right", va="top", fontsize="small", color="#666666")  # fmt: skip
    axes.set_xlabel("place in the window")
    axes.set_ylabel("loss, nats a letter")
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=4, fontsize="small", frameon=False)
    save_figure(figure, args.out / "places.png")


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)  # so that processor time is what a clock shows
    started = time.perf_counter()
    make_folder(args.out)  # now: it would be a pity later
    found, tables, written = {}, [], ["results.json"]
    if "models" in args.parts:
        found["models"] = measure_models(args)
        draw(found["models"]["forms"], args)
        tables += [models_table(found["models"]["forms"]), places_table(found["models"]["forms"])]
        written.append("places.png")
    if "norms" in args.parts:
        found["norms"] = {"norms": measure_norms(args), "block_ms": measure_block(args)}
        tables.append(norms_table(found["norms"]))
    if "cache" in args.parts:
        found["cache"] = measure_cache(args)
        tables.append(cache_table(found["cache"]))
    settings = {name: value for name, value in vars(args).items() if name != "out"}
    write_json_atomic(args.out / "results.json", {"settings": settings, "torch": torch.__version__, **found})
    print("\n" + "\n\n".join(tables))
    print(f"\n{args.out}: {', '.join(written)}; {time.perf_counter() - started:.0f} s in all")


if __name__ == "__main__":
    run(main)
