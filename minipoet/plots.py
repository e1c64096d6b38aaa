"""Figures of a run. matplotlib is imported when the first is drawn: importing minipoet stays quick."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from minipoet.files import atomic_path
from minipoet.training import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_history(history: History, path: str | Path, title: str = "", unit: str = "nats per token") -> None:
    """Draw training loss (each step, and smoothed) and validation against steps, the best one marked, to a picture.

    unit: of the validation values. Raises ValueError for a history without steps.
    """
    from matplotlib.figure import Figure

    steps, losses = history.curve("loss")
    if not steps:
        raise ValueError("The history has no training step to draw.")
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps, losses, color="#9db7d5", linewidth=0.8, label="training, each step")
    axes.plot(steps, _smooth(losses), color="#1f4e8c", linewidth=1.6, label="training, smoothed")
    axes.set_xlabel("step")
    axes.set_ylabel("nats per token")
    axes.set_title(title)
    at, values = history.curve("validation")
    if at:
        right = axes if unit == "nats per token" else axes.twinx()
        right.plot(at, values, color="#b5471b", marker="o", markersize=3.5, label="validation")
        best = min(range(len(values)), key=lambda i: values[i])
        right.plot(at[best], values[best], marker="*", markersize=14, color="#b5471b", linestyle="none")
        right.annotate(f"{values[best]:.3f} at step {at[best]}", (at[best], values[best]), xytext=(0, 10),
                       textcoords="offset points", ha="right", color="#b5471b")  # fmt: skip
        right.margins(y=0.12)
        if right is not axes:
            right.set_ylabel(f"validation, {unit}", color="#b5471b")
    figure.legend(loc="outside upper right", ncols=3, fontsize="small", frameon=False)
    axes.grid(alpha=0.25)
    save_figure(figure, path)


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG or whatever its suffix says, all or nothing."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130, format=Path(path).suffix.lstrip(".") or "png")


def _smooth(values: list[float], weight: float = 0.9) -> list[float]:
    """Exponential mean, corrected for its start."""
    smoothed, total, norm = [], 0.0, 0.0
    for value in values:
        total, norm = weight * total + value, weight * norm + 1
        smoothed.append(total / norm)
    return smoothed
