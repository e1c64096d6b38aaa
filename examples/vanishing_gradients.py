"""How far back does a recurrent network learn? The gradient of a letter's loss at the letters before it, measured.

    python examples/vanishing_gradients.py                                      the embedded corpus, a minute
    python examples/vanishing_gradients.py --corpus poems.jsonl --author Пушкин --steps 1000
    python examples/vanishing_gradients.py --far 200 --hidden 256

At many places t of held-out verse the loss of the next letter is taken, and the length of its gradient with respect to
the vector of the letter that stands d places before t: what is 0 there cannot teach. So before training and after a
short one, for Elman's network, a GRU and an LSTM, and for two of them with start values as they were before one knew
better. Then the effect itself: by how much does the loss change if the letter d places back is another one? In --out:
a figure of the three, results.json. Chapter: docs/cells.md
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from char_rnn_yesenin import read
from matplotlib.figure import Figure
from torch import Tensor, nn

from minipoet.command import run
from minipoet.evaluation import fair_bits, likelihood
from minipoet.files import write_json_atomic
from minipoet.models.rnn import GRU, LSTM, RNN, RecurrentModel, RNNConfig
from minipoet.plots import COLORS, save_figure
from minipoet.tokenization import CharTokenizer, encode_texts
from minipoet.training import Streams, TrainSettings, train

RUN_IN = 16  # letters before the farthest one: the state is then one of the middle of a text
TOLD = (1, 3, 10, 30, 100)  # distances in the table
GONE = 0.01  # of the gradient at the last letter: then it is called gone
WINDOW = 1024  # letters that are read at a stretch when the loss is measured


def uniform_start(model: RecurrentModel) -> None:
    """All weights of the layers from U(-1/√C, 1/√C), as torch.nn has them: the matrix shrinks what it turns."""
    for parameter in model.blocks.parameters():
        nn.init.uniform_(parameter, -1 / model.config.n_hidden**0.5, 1 / model.config.n_hidden**0.5)


def no_forget_bias(model: RecurrentModel) -> None:
    """The forget gates begin at sigmoid(0) = 1/2: half of the memory is lost at each letter."""
    for block in model.blocks:
        nn.init.zeros_(block.input.bias)


class Variant(NamedTuple):
    """A network to look at: its class, and what is done to its start values."""

    family: type[RecurrentModel]
    change: Callable[[RecurrentModel], None] = lambda model: None


VARIANTS = {
    "RNN": Variant(RNN),
    "RNN, uniform start": Variant(RNN, uniform_start),
    "GRU": Variant(GRU),
    "LSTM": Variant(LSTM),
    "LSTM, forget bias 0": Variant(LSTM, no_forget_bias),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    corpora = '"embedded" (written for this package), "pushkin" (fetched once), or a folder of .txt, a .txt, a .jsonl'
    add("--corpus", default="embedded", help=corpora)
    add("--author", help="only this author's poems of a .jsonl corpus")
    add("--out", type=Path, default=Path("runs/vanishing_gradients"), help="for the results (default: %(default)s)")
    add("--far", type=int, default=100, help="the greatest distance, in letters (default: %(default)s)")
    add("--places", type=int, default=256, help="to average over (default: %(default)s)")
    add("--hidden", type=int, default=128, help="numbers in the state, of one layer (default: %(default)s)")
    add("--steps", type=int, default=150, help="of the training (default: %(default)s)")
    add("--length", type=int, default=100, help="letters of a window in training (default: %(default)s)")
    add("--rows", type=int, default=16, help="lanes, read side by side (default: %(default)s)")
    add("--lr", type=float, default=5e-3, help="largest learning rate (default: %(default)s)")
    add("--validation", type=float, default=0.1, help="share of the verse that is held out (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the weights, the training and the places")
    add("--split-seed", type=int, default=0, help="of the division into training and held-out verse")
    add("--quick", action="store_true", help="a few steps: only to see that all of it works")
    args = parser.parse_args()
    small = [f"--{name}" for name in ("far", "places", "hidden", "steps") if getattr(args, name) < 1]
    if small:
        raise ValueError(f"{', '.join(small)} must be at least 1.")
    if args.quick:
        args.steps, args.places, args.hidden, args.far = min(args.steps, 3), 8, 16, min(args.far, 20)
    return args


def windows(texts: Sequence[Sequence[int]], length: int, number: int, seed: int) -> Tensor:
    """So many pieces of `length` ids, from random places of the texts: (number, length)."""
    starts = [(text, start) for text in texts for start in range(len(text) - length + 1)]
    if not starts:
        longest = max(map(len, texts)) - RUN_IN - 2
        raise ValueError(f"No held-out text is long enough to look so far back: --far may be {max(longest, 0)} here.")
    chosen = torch.randint(len(starts), (number,), generator=torch.Generator().manual_seed(seed)).tolist()
    return torch.tensor([starts[i][0][starts[i][1] : starts[i][1] + length] for i in chosen])


def last_losses(model: RecurrentModel, ids: Tensor) -> Tensor:
    """The loss of the last letter of each row, with the others before it: (B,)."""
    logits = model.head(model.states(ids[:, :-1])[:, -1])
    return F.cross_entropy(logits, ids[:, -1], reduction="none")


def gradients(model: RecurrentModel, ids: Tensor, far: int) -> list[float]:
    """The mean length of ∂ loss at place t / ∂ vector of the letter at t - d, for d = 0, 1, … far."""
    read: list[Tensor] = []
    hook = model.embed.register_forward_hook(lambda module, given, vectors: read.append(vectors))
    loss = last_losses(model, ids).sum()  # a row's gradient is that of its own loss
    hook.remove()
    (grad,) = torch.autograd.grad(loss, read)  # (B, T, n_embd)
    return grad.norm(dim=2).mean(0).flip(0)[: far + 1].tolist()


@torch.no_grad()
def effects(model: RecurrentModel, ids: Tensor, distances: Sequence[int], letters: int, seed: int) -> list[float]:
    """The mean change of the loss at t, up or down, if the letter at t - d is another one, drawn from the verse."""
    generator, before, found = torch.Generator().manual_seed(seed), last_losses(model, ids), []
    for d in distances:
        changed, place = ids.clone(), ids.shape[1] - 2 - d
        order = torch.randperm(len(ids), generator=generator)
        changed[:, place] = ids[order, place]  # another row's letter, as frequent as letters are
        same = changed[:, place] == ids[:, place]
        changed[same, place] = (ids[same, place] + 1) % letters
        found.append((last_losses(model, changed) - before).abs().mean().item())
    return found


def reach(curve: Sequence[float]) -> int | None:
    """The first distance at which the gradient is gone; None: it never is."""
    return next((d for d, value in enumerate(curve) if value < GONE * curve[0]), None)


def main() -> None:
    args = arguments()
    started = time.perf_counter()
    poems, held_out_poems, sha256 = read(args)
    texts, held_out_texts = [poem.text for poem in poems], [poem.text for poem in held_out_poems]
    tokenizer = CharTokenizer.from_texts(texts, unk=True)  # <unk>: for a letter that only the held-out verse has
    held_out, letters = encode_texts(tokenizer, held_out_texts), tokenizer.vocab_size
    ids = windows(held_out, RUN_IN + args.far + 2, args.places, args.seed)
    streams = Streams(encode_texts(tokenizer, texts), args.length, args.rows, args.seed)
    distances = sorted({d for d in (0, 1, 2, 3, 5, 8, 13, 20, 30, 50, 80, 100, 150, 200) if d < args.far} | {args.far})
    settings = TrainSettings(steps=args.steps, lr=args.lr, warmup=min(20, args.steps // 4), evaluate_every=0,
                             precision="fp32", seed=args.seed)  # fmt: skip

    found: dict[str, dict[str, Any]] = {}
    for name, variant in VARIANTS.items():
        torch.manual_seed(args.seed)
        model = variant.family(RNNConfig(letters, args.hidden // 2 or 1, args.hidden, n_layer=1))
        variant.change(model)
        before = gradients(model, ids, args.far)
        with TemporaryDirectory() as folder:  # nobody wants these checkpoints
            train(model, streams, settings, folder, quiet=True)
        after = gradients(model, ids, args.far)
        measured = likelihood(model, held_out, sum(len(text) + 1 for text in held_out_texts), WINDOW)
        found[name] = {
            "before": before, "after": after, "effect": effects(model, ids, distances, letters, args.seed),
            "gone_before": reach(before), "gone_after": reach(after),
            "bits_per_character": fair_bits(measured, tokenizer, held_out_texts),
        }  # fmt: skip
        print(f"{name:<20} {found[name]['bits_per_character']:.2f} bits a letter after {args.steps} steps")

    draw(found, distances, args)
    write_json_atomic(args.out / "results.json", {
        "settings": {name: value for name, value in vars(args).items() if name != "out"}, "corpus_sha256": sha256,
        "distances": distances, "found": found, "seconds": round(time.perf_counter() - started, 1),
    })  # fmt: skip
    print("\n" + table(found, args.far))
    print(f"\n{args.out}: vanishing_gradients.png, results.json; {time.perf_counter() - started:.0f} s in all")


def table(found: Mapping[str, dict[str, Any]], far: int) -> str:
    """Markdown: the gradient at some distances as a share of that at the last letter, and where it is gone."""
    told = [d for d in TOLD if d <= far]
    columns = ["gradient, % of that at distance 0", *map(str, told), f"below {100 * GONE:g} % from"]
    lines = [f"| {' | '.join(columns)} |", f"| --- {'| ---: ' * (len(told) + 1)}|"]
    for when in ("before", "after"):
        for name, of in found.items():
            shares = [f"{100 * of[when][d] / of[when][0]:.2g}" for d in told]
            gone = of[f"gone_{when}"]
            lines.append(f"| {name}, {when} | {' | '.join(shares)} | {'never' if gone is None else gone} |")
    return "\n".join(lines)


def draw(found: Mapping[str, dict[str, Any]], distances: Sequence[int], args: argparse.Namespace) -> None:
    """Three panels: gradients before and after training as shares of that at distance 0, and the effect."""
    figure = Figure(figsize=(13, 4.5), layout="constrained")
    before, after, effect = figure.subplots(1, 3)
    for (name, of), color in zip(found.items(), cycle(COLORS)):
        style = {"color": color, "linewidth": 1.6, "linestyle": "--" if "," in name else "-"}
        before.plot([value / of["before"][0] for value in of["before"]], label=name, **style)
        after.plot([value / of["after"][0] for value in of["after"]], **style)
        effect.plot(distances, of["effect"], marker="o", markersize=3, **style)
    titles = ("before training: gradient", f"after {args.steps} steps: gradient", "after: change of the loss, nats")
    for axes, title in zip((before, after, effect), titles, strict=True):
        axes.set_yscale("log", nonpositive="mask")
        axes.set_title(title)
        axes.set_xlabel("letters back")
        axes.grid(alpha=0.25)
    for axes in (before, after):
        axes.set_ylim(bottom=1e-8)
        axes.set_ylabel("share of that at distance 0")
    figure.legend(loc="outside lower center", ncols=len(found), fontsize="small", frameon=False)
    save_figure(figure, args.out / "vanishing_gradients.png")


if __name__ == "__main__":
    run(main)
