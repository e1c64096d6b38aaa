"""Figures of what attention looks at."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path

import numpy as np

from minipoet.checks import as_path, expect
from minipoet.evaluation.attention import PrefixMass
from minipoet.plots.figure import COLORS, save_figure

READABLE = 150  # numbers in a table; in a larger one there are colours only


def plot_prefix_mass(found: Mapping[str, PrefixMass], path: str | Path, title: str = "") -> None:
    """Draw a table, layers × heads, of the prefix's share of the attention for each; and their course over the text.

    Places that fewer than half of the texts have are left out of the course. Dashed: what equal keys would get.
    Raises ValueError for no shares.
    """
    from matplotlib.figure import Figure

    path = as_path(path, "The picture")
    expect(found, Mapping, "found", "shares by label, {label: prefix_mass(model, texts)}")
    if not found:
        raise ValueError("There are no shares of attention to draw.")
    for label, mass in found.items():
        expect(mass, PrefixMass, f"The share {label!r}", "a PrefixMass", "prefix_mass(model, texts) gives it")
    columns = min(len(found), 2)
    rows = -(-len(found) // columns)
    figure = Figure(figsize=(4.6 + 3.2 * columns, max(4.5, 0.8 + 2.7 * rows)), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(3.2 * columns, 4.6))[0]
    left.suptitle("share of each head")
    tables = list(left.subplots(rows, columns, squeeze=False, sharey=True).flat)
    axes = right.subplots()
    axes.set_title(title or "share at each place")
    most = max(100 * float(mass.heads.max()) for mass in found.values())
    for (label, mass), panel, color in zip(found.items(), tables, cycle(COLORS)):
        shares = 100 * mass.heads.numpy()
        panel.imshow(shares, cmap="Blues", vmin=0, vmax=most, aspect="auto")
        for (layer, head), share in np.ndenumerate(shares) if shares.size <= READABLE else ():
            panel.text(head, layer, f"{share:.0f}", ha="center", va="center", fontsize="x-small",
                       color="white" if share > 0.6 * most else "black")  # fmt: skip
        panel.set_title(f"{label}: {100 * mass.mean:.0f} %", fontsize="medium", color=color)
        panel.set(xticks=range(shares.shape[1]), yticks=range(shares.shape[0]))
        panel.set(xlabel="head", ylabel="layer")
        panel.label_outer(remove_inner_ticks=True)
        shown = 2 * mass.counts >= mass.counts.max()
        axes.plot(100 * mass.places[shown], color=color, linewidth=1.6, label=label)
    for unused in tables[len(found) :]:
        unused.remove()
    for length in dict.fromkeys(mass.length for mass in found.values()):
        longest = max((mass for mass in found.values() if mass.length == length), key=lambda mass: len(mass.counts))
        even = 100 * longest.even[2 * longest.counts >= longest.counts.max()]
        axes.plot(even, color="#666666", linewidth=1, linestyle="--", label=f"equal keys, prefix of {length}")
    axes.set(xlabel="place in the text, tokens", ylabel="% of the attention, mean of all heads", yscale="log")
    for which in ("major", "minor"):
        getattr(axes.yaxis, f"set_{which}_formatter")("{x:g}")
    axes.grid(alpha=0.25)
    axes.legend(loc="upper right", fontsize="small", frameon=False)
    save_figure(figure, path)
