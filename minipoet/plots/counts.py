"""Figures of how often words and tokens stand in a corpus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from pathlib import Path

from minipoet.checks import as_path, expect, expect_whole, is_number, shown
from minipoet.evaluation.frequencies import Frequencies
from minipoet.plots.figure import COLORS, finish


def plot_ranks(curves: Mapping[str, Frequencies], path: str | Path, title: str = "") -> None:
    """Draw how often each type stands against its rank, both axes logarithmic: Zipf's law is a straight line.

    Types that no text has are left out. Raises ValueError for no curves.
    """
    lines = {label: (range(1, found.types + 1), found.counts) for label, found in _each_counted(curves)}
    _draw_lines(lines, path, title, "rank of the type", "how often it stands", log="xy")


def plot_rising(curves: Mapping[str, Frequencies], path: str | Path, title: str = "") -> None:
    """Draw the counts in rising order against the share of the types passed, so that all curves are equally long.

    Over 50 % stands the count of the middle type. Raises ValueError for no curves.
    """
    lines = {
        label: ([100 * place / found.types for place in range(1, found.types + 1)], found.rising)
        for label, found in _each_counted(curves)
    }
    _draw_lines(lines, path, title, "types from the rarest on, % of all", "how often it stands", log="y")


def plot_rare(curves: Mapping[str, Frequencies], path: str | Path, title: str = "", most: int = 1000) -> None:
    """Draw the share of the types that are seen fewer than k times, k from 1 to `most`. ValueError for no curves."""
    expect_whole(2, most=most)
    ks = sorted({round(most ** (step / 100)) for step in range(101)})
    lines = {label: (ks, [100 * found.share_below(k) for k in ks]) for label, found in _each_counted(curves)}
    _draw_lines(lines, path, title, "k", "types seen fewer than k times, %", log="x")


def plot_vocabularies(
    points: Mapping[str, Sequence[tuple[float, float, str]]],
    path: str | Path,
    title: str = "",
    x: str = "",
    y: str = "",
    enough: float | None = None,
) -> None:
    """Draw vocabularies as points (x, y, name), a line through those of one label.

    enough: a dashed line at this y. Raises ValueError for no points.
    """
    from matplotlib.figure import Figure

    path = as_path(path, "The picture")
    expect(points, Mapping, "points", "points by label, {label: [(x, y, name), ...]}")
    for label, places in points.items():
        for place in places if isinstance(places, Sequence) else [places]:
            if not isinstance(place, tuple) or len(place) != 3 or not all(map(is_number, place[:2])):
                raise ValueError(f"A vocabulary must be (x, y, name), got {shown(place)} in {label!r}.")
    if not any(points.values()):
        raise ValueError("There is no vocabulary to draw.")
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for (label, places), color in zip(points.items(), cycle(COLORS)):
        axes.plot([at for at, _, _ in places], [value for _, value, _ in places], color=color, marker="o", label=label)
        for at, value, name in places:
            axes.annotate(name, (at, value), xytext=(5, 5), textcoords="offset points", fontsize="small", color=color)
    if enough is not None:
        axes.axhline(enough, color="#666666", linestyle="--", linewidth=1)
    axes.margins(x=0.08, y=0.1)
    finish(figure, path, title, x, y)


def _each_counted(curves: Mapping[str, Frequencies]) -> Iterable[tuple[str, Frequencies]]:
    """The curves. Raises ValueError for none, and for what are no Frequencies."""
    expect(curves, Mapping, "curves", "Frequencies by label, {label: frequencies(texts)}")
    if not curves:
        raise ValueError("There are no counts to draw.")
    for label, found in curves.items():
        expect(found, Frequencies, f"The curve {label!r}", "Frequencies", "frequencies(texts) gives them")
    return curves.items()


def _draw_lines(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], path: str | Path, title: str, x: str, y: str, log: str
) -> None:
    """Draw lines (xs, ys) by label. log: the axes that are logarithmic, of "xy"; there a 0 is left out."""
    from matplotlib.figure import Figure

    path = as_path(path, "The picture")
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for (label, (xs, ys)), color in zip(lines.items(), cycle(COLORS)):
        axes.plot(xs, ys, color=color, linewidth=1.6, label=label)
    if "x" in log:
        axes.set_xscale("log", nonpositive="mask")
    if "y" in log:
        axes.set_yscale("log", nonpositive="mask")
    finish(figure, path, title, x, y)
