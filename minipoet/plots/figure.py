"""What all figures share: colours, title, axes and legend, and a file that is whole or not there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from minipoet.checks import as_path
from minipoet.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure


COLORS = ("#1f4e8c", "#b5471b", "#3c7d4b", "#7a5195", "#b8860b", "#2a9d9d", "#c2569b", "#444444")


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG or whatever its suffix says, all or nothing."""
    path = as_path(path, "The picture")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130, format=path.suffix.lstrip(".") or "png")


def finish(figure: Figure, path: Path, title: str, x: str, y: str) -> None:
    """Title, names of the axes, grid and legend; then the file."""
    (axes,) = figure.axes
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.25)
    figure.legend(loc="outside upper right", ncols=3, fontsize="small", frameon=False)
    save_figure(figure, path)
