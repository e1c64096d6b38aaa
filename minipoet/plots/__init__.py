"""Figures. matplotlib is imported when the first is drawn: importing minipoet stays quick.

runs      the course of a training run, and what several gave
counts    how often words and tokens stand in a corpus
attention what attention looks at
figure    what all share
"""

from minipoet.plots.attention import plot_prefix_mass
from minipoet.plots.counts import plot_ranks, plot_rare, plot_rising, plot_vocabularies
from minipoet.plots.figure import COLORS, save_figure
from minipoet.plots.runs import plot_bars, plot_history, plot_points, plot_study, plot_trials

__all__ = [
    "COLORS",
    "plot_bars",
    "plot_history",
    "plot_points",
    "plot_prefix_mass",
    "plot_ranks",
    "plot_rare",
    "plot_rising",
    "plot_study",
    "plot_trials",
    "plot_vocabularies",
    "save_figure",
]
