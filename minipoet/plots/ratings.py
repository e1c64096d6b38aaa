"""Figures of ratings: how many reviews there are of each, and how often a model writes the one that it was asked for.

plot_ratings    bars with counts and shares            rating_line    the same as a line of text
plot_shares     shares with their intervals, by rating, of several models
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from pathlib import Path

from minipoet.checks import as_path, expect, is_number, is_whole, shown
from minipoet.plots.figure import COLORS, finish, save_figure

RATINGS = range(1, 6)
ROUNDING = 1e-9  # by which a bound may miss the share: that of 0 of 10 is 0
Share = tuple[float, float, float]  # the share and its bounds, as `evaluation.wilson` gives them


def rating_line(ratings: Iterable[int]) -> str:
    """How often there is each rating: "1: 12 (2.4 %), 2: 8 (1.6 %), ...". Raises ValueError for what is no rating."""
    counts = _counted(ratings)
    return ", ".join(f"{rating}: {count:,} ({_percent(count, counts)})" for rating, count in counts.items())


def plot_ratings(ratings: Iterable[int], path: str | Path, title: str = "") -> None:
    """Draw a bar for each rating from 1 to 5, its count and its share above it. Raises ValueError as `rating_line`."""
    from matplotlib.figure import Figure

    path = as_path(path, "The picture")
    counts = _counted(ratings)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    bars = axes.bar(list(counts), list(counts.values()), color=COLORS[0], width=0.7)
    labels = [f"{count:,}\n{_percent(count, counts)}" for count in counts.values()]
    axes.bar_label(bars, labels, padding=3, fontsize="small")
    axes.margins(y=0.18)
    axes.set_xticks(list(counts))
    axes.set_xlabel("rating")
    axes.set_ylabel("reviews")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_title(title)
    axes.grid(alpha=0.25, axis="y")
    save_figure(figure, path)


def plot_shares(
    shares: Mapping[str, Mapping[int | str, Share]],
    path: str | Path,
    title: str = "",
    x: str = "rating asked for",
    y: str = "share, %",
    chance: float | None = None,
) -> None:
    """Draw shares (share, low, high) as points with whiskers, side by side at each rating, a colour for each model.

    shares: {model: {rating: (share, low, high)}}. chance: a dashed line at this share. Raises ValueError for no shares,
    and for what is none.
    """
    from matplotlib.figure import Figure

    path = as_path(path, "The picture")
    _check_shares(shares)
    places = list(dict.fromkeys(place for of in shares.values() for place in of))
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    apart = min(0.16, 0.7 / len(shares))
    for number, ((model, of), color, marker) in enumerate(zip(shares.items(), cycle(COLORS), cycle("os^Dv"))):
        at = [places.index(place) + apart * (number - (len(shares) - 1) / 2) for place in of]
        values = [100 * value for value, _, _ in of.values()]
        below = [100 * max(0.0, value - low) for value, low, _ in of.values()]
        above = [100 * max(0.0, high - value) for value, _, high in of.values()]
        axes.errorbar(at, values, [below, above], label=model, color=color, marker=marker, linestyle="none", capsize=4)
    if chance is not None:
        axes.axhline(100 * chance, color="#666666", linestyle="--", linewidth=1)
        axes.annotate("by chance", (0.005, 100 * chance), xycoords=("axes fraction", "data"), xytext=(0, 3),
                      textcoords="offset points", fontsize="small", color="#666666")  # fmt: skip
    axes.set_xticks(range(len(places)), [str(place) for place in places])
    axes.set_xlim(-0.5, len(places) - 0.5)
    axes.set_ylim(-3, 103)
    finish(figure, path, title, x, y)


def _counted(ratings: Iterable[int]) -> dict[int, int]:
    """The count of each rating from 1 to 5. Raises ValueError for none, and for another number."""
    if isinstance(ratings, str) or not isinstance(ratings, Iterable):
        raise ValueError(f"ratings must be a list of whole numbers from 1 to 5, got {shown(ratings)}.")
    found = Counter(ratings)
    if wrong := [rating for rating in found if not is_whole(rating, 1, 6)]:
        raise ValueError(f"A rating must be a whole number from 1 to 5, got {', '.join(map(shown, wrong[:5]))}.")
    if not found:
        raise ValueError("There are no ratings to show.")
    return {rating: found[rating] for rating in RATINGS}


def _percent(count: int, counts: Mapping[int, int]) -> str:
    return f"{100 * count / sum(counts.values()):.1f} %"


def _check_shares(shares: Mapping[str, Mapping[int | str, Share]]) -> None:
    """Raise ValueError for anything but shares with their bounds, by rating, by model, with one at least."""
    wanted = "shares by model and rating, {model: {rating: (share, low, high)}}"
    expect(shares, Mapping, "shares", wanted)
    for model, of in shares.items():
        expect(of, Mapping, f"The shares of {model!r}", "shares by rating, {rating: (share, low, high)}")
        for place, share in of.items():
            right = isinstance(share, Sequence) and len(share) == 3 and all(map(is_number, share))
            if not right or not 0 <= share[1] <= share[0] + ROUNDING <= share[2] + 2 * ROUNDING <= 1 + 2 * ROUNDING:
                raise ValueError(
                    f"A share must be (share, low, high) between 0 and 1, got {share!r} for {place!r} of {model!r}."
                )
    if not any(shares.values()):
        raise ValueError("There are no shares to draw.")
