"""The courses of several runs in one picture, drawn twice: for a light page and for a dark one.

curve_pictures    {author: history} -> Pictures for a Comparison, one a metric, on no ground of their own
plot_curves       the same as a file, on white
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from minipoet.checks import as_path, each, expect
from minipoet.plots.comparison import Picture
from minipoet.plots.figure import COLORS, save_figure
from minipoet.training import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRICS = {
    "loss": "loss, nats per token",
    "entropy": "entropy, nats",
    "accuracy": "token accuracy",
    "norm": "gradient norm before clipping",
    "validation": "validation, nats per token",
}
ON_DARK = ("#7fb0f0", "#f0956b", "#86c796", "#c39bdb", "#e0b94f", "#62cfcf", "#ec92c9", "#bdbdbd")  # COLORS, lighter
SIZE, DPI = (4.4, 3.0), 200  # 880 × 600; on the 330 points of a phone the letters stay above 9
EACH = 20  # up to so many steps are drawn as they are


def curve_pictures(
    histories: Mapping[str, History], keys: Sequence[str] = ("loss", "entropy", "accuracy")
) -> list[Picture]:
    """A Picture for each key: its curve in every history that has it, each step faint, the smoothed course strong.

    Raises ValueError for no histories, and for a key that none of them has.
    """
    _check(histories, keys)
    return [
        Picture(
            png=_png(_draw(histories, key, dark=False)),
            alt=_words(histories, key),
            caption=f"{METRICS.get(key, key).capitalize()}: each step faint, the mean of those about it strong.",
            dark=_png(_draw(histories, key, dark=True)),
        )
        for key in keys
    ]


def plot_curves(histories: Mapping[str, History], path: str | Path, key: str = "loss", title: str = "") -> None:
    """Draw the curve of one key of several histories to a picture. Raises ValueError as `curve_pictures` does."""
    path = as_path(path, "The picture")
    _check(histories, (key,))
    figure = _draw(histories, key, dark=False)
    figure.axes[0].set_title(title)
    save_figure(figure, path)


def _draw(histories: Mapping[str, History], key: str, dark: bool) -> Figure:
    from matplotlib.figure import Figure

    ink, colors = ("#e7e2d8", ON_DARK) if dark else ("#24211d", COLORS)
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.set_facecolor("none")
    for (author, history), color, line in zip(histories.items(), cycle(colors), cycle(["-"] * 8 + ["--"] * 8)):
        steps, values = history.curve(key)
        if not steps:
            continue
        if len(values) > EACH:
            axes.plot(steps, values, line, color=color, linewidth=0.7, alpha=0.35)
            values = smooth(values, len(values) // EACH)
        axes.plot(steps, values, line, color=color, linewidth=1.7, label=author)
    axes.set_xlabel("step", color=ink)
    axes.set_ylabel(METRICS.get(key, key), color=ink)
    axes.tick_params(colors=ink)
    for spine in axes.spines.values():
        spine.set(color=ink, alpha=0.5)
    axes.grid(alpha=0.25, color="#888888")
    axes.legend(frameon=False, fontsize="small", labelcolor=ink, ncols=1 + (len(histories) > 5))
    return figure


def smooth(values: Sequence[float], reach: int) -> list[float]:
    """The mean of each value and of up to `reach` on either side of it: unlike a mean of what was, it does not lag."""
    return [fmean(values[max(0, at - reach) : at + reach + 1]) for at in range(len(values))]


def _png(figure: Figure) -> bytes:
    """PNG on no ground, in 256 colours: the eye sees the same, in a third of the bytes."""
    from PIL import Image  # matplotlib writes its own PNG with it

    drawn, packed = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, dpi=DPI, format="png", transparent=True)
    Image.open(drawn).quantize(256, method=Image.Quantize.FASTOCTREE).save(packed, "PNG", optimize=True)
    return packed.getvalue()


def _words(histories: Mapping[str, History], key: str) -> str:
    """What the picture shows, for who does not see it: where each curve begins and ends."""
    courses = []
    for author, history in histories.items():
        steps, values = history.curve(key)
        if steps:
            courses.append(f"{author} from {values[0]:.3f} at step {steps[0]} to {values[-1]:.3f} at step {steps[-1]}")
    return f"{METRICS.get(key, key).capitalize()}, against steps: {'; '.join(courses)}."


def _check(histories: Mapping[str, History], keys: Sequence[str]) -> None:
    expect(histories, Mapping, "histories", "histories by author, {author: history}")
    if not histories:
        raise ValueError("There is no history to draw.")
    for author, history in histories.items():
        expect(history, History, f"The history of {author!r}", "a History", "of a file read_history gives it")
    if missing := [
        key for key in each(keys, str, "keys", "names") if not any(h.curve(key)[0] for h in histories.values())
    ]:
        raise ValueError(f"No history has {', '.join(map(repr, missing))}: was the run told to note it?")
