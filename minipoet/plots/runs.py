"""Figures of training runs: the course of one, and what several gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, pairwise
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from minipoet.checks import as_path, expect, is_number, shown
from minipoet.plots.figure import COLORS, finish, save_figure
from minipoet.training import History
from minipoet.training.epochs import as_epochs

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_history(
    history: History,
    path: str | Path,
    title: str = "",
    unit: str = "nats per token",
    epochs: Sequence[int] | None = None,
) -> None:
    """Draw training loss (each step, and smoothed) and validation against steps, the best one marked, to a picture.

    unit: of the validation values. epochs: the last step of each (`training.epoch_ends`); then the axis counts epochs,
    and the mean training loss of each stands over its middle. Raises ValueError for a history without steps.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    path = as_path(path, "The picture")
    expect(history, History, "history", "a History", "of a file read_history gives it")
    steps, losses = history.curve("loss")
    if not steps:
        raise ValueError("The history has no training step to draw.")
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    places = steps if epochs is None else as_epochs(steps, epochs)
    axes.plot(places, losses, color="#9db7d5", linewidth=0.8, label="training, each step")
    if epochs is None:
        axes.plot(steps, _smooth(losses), color="#1f4e8c", linewidth=1.6, label="training, smoothed")
    else:
        means = zip(*_epoch_means(steps, losses, epochs), strict=True)
        axes.plot(*means, color="#1f4e8c", marker="o", markersize=3.5, label="training, mean of the epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("step" if epochs is None else "epoch")
    axes.set_ylabel("nats per token")
    axes.set_title(title)
    _draw_validation(axes, history, unit, epochs)
    figure.legend(loc="outside upper right", ncols=4, fontsize="small", frameon=False)
    axes.grid(alpha=0.25)
    save_figure(figure, path)


def _draw_validation(axes: Axes, history: History, unit: str, epochs: Sequence[int] | None) -> None:
    """Draw the validation, the best one marked; in another unit than the loss on an axis of its own."""
    at, values = history.curve("validation")
    if not at:
        return
    right = axes if unit == "nats per token" else axes.twinx()
    places = at if epochs is None else as_epochs(at, epochs)
    right.plot(places, values, color="#b5471b", marker="o", markersize=3.5, label="validation")
    best = min(range(len(values)), key=lambda i: values[i])
    words, label = f"{values[best]:.3f} at step {at[best]}", None
    if epochs is not None:
        words, label = f"{values[best]:.3f}", f"best: epoch {round(places[best], 1):g} of {len(epochs)}"
    right.plot(places[best], values[best], marker="*", markersize=14, color="#b5471b", linestyle="none", label=label)
    right.annotate(words, (places[best], values[best]), xytext=(0, 10), textcoords="offset points", ha="right",
                   color="#b5471b")  # fmt: skip
    right.margins(y=0.12)
    if right is not axes:
        right.set_ylabel(f"validation, {unit}", color="#b5471b")


def plot_study(
    curves: Mapping[str, Sequence[tuple[float | str, float, float]]],
    path: str | Path,
    title: str = "",
    x: str = "",
    y: str = "",
    base: float | None = None,
    log: int = 0,
) -> None:
    """Draw what several runs gave against a setting: curves of (setting, mean, standard deviation), to a picture.

    x, y: what the axes are. log: the base of the x axis' logarithm, 0 for an even one. Settings that are names stand
    side by side, and no line joins them. base: a dashed line, what there was before. Raises ValueError for no points.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    path = as_path(path, "The picture")
    _check_curves(curves)
    places = list(dict.fromkeys(place for points in curves.values() for place, _, _ in points))
    if not places:
        raise ValueError("The study has no run to draw.")
    named = any(isinstance(place, str) for place in places)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for (label, points), color in zip(curves.items(), cycle(COLORS)):
        at = [float(places.index(place)) if named else float(place) for place, _, _ in points]
        means, deviations = [mean for _, mean, _ in points], [deviation for _, _, deviation in points]
        line = "none" if named else "-"
        axes.errorbar(at, means, deviations, label=label, color=color, linestyle=line, marker="o", capsize=4)
    if base is not None:
        axes.axhline(base, color="#666666", linestyle="--", linewidth=1, label="the base")
    if log:
        axes.set_xscale("log", base=log)
    if named:
        axes.set_xticks(range(len(places)), [str(place) for place in places], fontsize="small")
        axes.margins(x=0.15)
    else:
        axes.set_xticks([float(place) for place in places], [f"{place:g}" for place in places])
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title)
    axes.grid(alpha=0.25)
    figure.legend(loc="outside upper right", ncols=3, fontsize="small", frameon=False)
    save_figure(figure, path)


def plot_bars(values: Mapping[str, float], path: str | Path, title: str = "", x: str = "") -> None:
    """Draw a bar a name, the first on top, its value beside it. Raises ValueError for no values."""
    from matplotlib.figure import Figure

    path = as_path(path, "The picture")
    expect(values, Mapping, "values", "numbers by name, {name: number}")
    if not values or not all(map(is_number, values.values())):
        raise ValueError(f"There must be a number for each bar, got {dict(values)!r}.")
    figure = Figure(figsize=(8, 1.2 + 0.32 * len(values)), layout="constrained")
    axes = figure.add_subplot()
    bars = axes.barh(list(values), list(values.values()), color=COLORS[0])
    axes.bar_label(bars, fmt="%.3f", padding=3, fontsize="small")
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlabel(x)
    axes.set_title(title)
    axes.grid(alpha=0.25, axis="x")
    save_figure(figure, path)


def plot_trials(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    path: str | Path,
    title: str = "",
    x: str = "",
    y: str = "",
    named: int = 3,
) -> None:
    """Draw many curves of (x, y), the best first: the first `named` in colour and by name, the others grey; y is
    logarithmic. Raises ValueError for no curves, and for points that are none.
    """
    from matplotlib.figure import Figure

    path = as_path(path, "The picture")
    _check_points(curves)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for number, (label, points) in enumerate(curves.items()):
        color, width, name = (COLORS[number % len(COLORS)], 1.8, label) if number < named else ("#c4c4c4", 0.8, None)
        line = ("-", "--", ":")[number // len(COLORS) % 3] if number < named else "-"  # a colour may come again
        order = 3 - number / len(curves)  # the best on top
        axes.plot(*zip(*points, strict=True), line, color=color, linewidth=width, label=name, zorder=order)
    axes.set_yscale("log")
    for which in ("major", "minor"):
        getattr(axes.yaxis, f"set_{which}_formatter")("{x:g}")
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.25)
    axes.legend(loc="upper right", fontsize="small", frameon=False)
    save_figure(figure, path)


def plot_points(
    points: Mapping[str, Sequence[tuple[float, float]]],
    path: str | Path,
    title: str = "",
    x: str = "",
    y: str = "",
    log: str = "",
) -> None:
    """Draw points (x, y), those of a label in one colour. log: the axes that are logarithmic, of "xy".

    Raises ValueError for no points, and for points that are none.
    """
    from matplotlib.figure import Figure

    path = as_path(path, "The picture")
    _check_points(points)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for (label, places), color, marker in zip(points.items(), cycle(COLORS), cycle("os^Dv")):
        axes.plot(*zip(*places, strict=True), color=color, marker=marker, linestyle="none", label=label)
    axes.set(**{f"{axis}scale": "log" for axis in log})
    finish(figure, path, title, x, y)


def _check_curves(curves: Mapping[str, Sequence[tuple[float | str, float, float]]]) -> None:
    """Raise ValueError for anything but lists of (setting, mean, standard deviation) by label."""
    expect(curves, Mapping, "curves", "points by label, {label: [(setting, mean, deviation), ...]}")
    for label, points in curves.items():
        for point in points if isinstance(points, Sequence) else [points]:
            if not isinstance(point, Sequence) or len(point) != 3 or not all(map(is_number, point[1:])):
                raise ValueError(f"A point must be (setting, mean, standard deviation), got {point!r} in {label!r}.")


def _check_points(points: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """Raise ValueError for anything but lists of (x, y) by label, with a point each."""
    expect(points, Mapping, "points", "points by label, {label: [(x, y), ...]}")
    if not points:
        raise ValueError("There are no points to draw.")
    for label, places in points.items():
        if not isinstance(places, Sequence) or not places:
            raise ValueError(f"Points must be lists of (x, y), got {shown(places)} in {label!r}.")
        for place in places:
            if not isinstance(place, tuple) or len(place) != 2 or not all(map(is_number, place)):
                raise ValueError(f"A point must be (x, y), got {place!r} in {label!r}.")


def _epoch_means(steps: Sequence[int], losses: Sequence[float], ends: Sequence[int]) -> list[tuple[float, float]]:
    """(middle, mean loss of its steps) of the epochs that have steps, the last one perhaps not all of them."""
    of = list(zip(steps, losses, strict=True))
    inside = ([loss for step, loss in of if first < step <= last] for first, last in pairwise([0, *ends]))
    return [(number + 0.5, fmean(found)) for number, found in enumerate(inside) if found]


def _smooth(values: list[float], weight: float = 0.9) -> list[float]:
    """Exponential mean, corrected for its start."""
    smoothed, total, norm = [], 0.0, 0.0
    for value in values:
        total, norm = weight * total + value, weight * norm + 1
        smoothed.append(total / norm)
    return smoothed
