"""What a model with relative positions has learnt of distance: its two tables, printed and as a figure.

    python examples/show_distances.py --base reviewer-tiny --out docs/figures/distances_reviewer_tiny.png

A line a head: what is added to the score of a key at each distance, less the mean of the distances shown, since what is
added to all of them alike changes nothing. Chapter: docs/distances.md
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

import minipoet
from minipoet.checks import expect_whole
from minipoet.command import run
from minipoet.models.distances import Distances, buckets
from minipoet.plots import COLORS, save_figure


@torch.no_grad()
def added(table: Distances, most: int) -> tuple[Tensor, Tensor]:
    """Distances, (N,), and what each head adds there, (N, H), less its mean."""
    distances = torch.arange(-most, most + 1 if table.both_ways else 1)
    found = buckets(distances, len(table.weight), table.max_distance, table.both_ways)
    numbers = table.weight[found].float().cpu()
    return distances, numbers - numbers.mean(dim=0)


def print_table(name: str, distances: Tensor, numbers: Tensor) -> None:
    """A row for each distance that is a power of two, and for 0."""
    print(f"\n{name}: distance, then a number a head")
    for distance, row in zip(distances.tolist(), numbers.tolist(), strict=True):
        if abs(distance) & (abs(distance) - 1) == 0:
            print(f"{distance:5}", *(f"{number:6.2f}" for number in row))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--base", default="reviewer-tiny", help="a name, a folder or an id on the hub (default: %(default)s)")
    add("--most", type=int, default=160, help="the longest distance to show (default: %(default)s)")
    add("--out", type=Path, default=Path("distances.png"), help="the figure (default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    expect_whole(1, most=args.most)
    model, _ = minipoet.load(args.base)
    if not model.reads_source:
        raise ValueError(f"{args.base} is a {type(model).__name__}, which learns no table of distances: take a T5.")
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
    for name, stack, axis in zip(("encoder", "decoder"), (model.encoder, model.decoder), axes, strict=True):
        distances, numbers = added(stack.distances, args.most)
        print_table(name, distances, numbers)
        for head, line in enumerate(numbers.T):
            axis.plot(distances, line, color=COLORS[head % len(COLORS)], label=f"head {head + 1}")
        axis.set_xscale("symlog", linthresh=8)
        axis.set(title=name, xlabel="key − query, tokens")
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("added to the score")
    axes[1].legend(fontsize="small", ncols=2)
    save_figure(figure, args.out)
    print(f"\n{args.out}")


if __name__ == "__main__":
    run(main)
