"""Figures. matplotlib is imported when the first is drawn: importing minipoet stays quick.

runs       the course of a training run, and what several gave
curves     several runs in one picture
counts     how often words and tokens stand in a corpus
ratings    how often there is each rating, and shares with their intervals
attention  what attention looks at
comparison what a side-by-side page shows: poems, tables, pictures
page       that page, one HTML file                              terminal   the same as text
figure     what all share
"""

from minipoet.plots.attention import plot_prefix_mass
from minipoet.plots.comparison import Comparison, Pair, Picture, Sample
from minipoet.plots.counts import plot_ranks, plot_rare, plot_rising, plot_vocabularies
from minipoet.plots.curves import curve_pictures, plot_curves
from minipoet.plots.figure import COLORS, save_figure
from minipoet.plots.page import write_page
from minipoet.plots.ratings import plot_ratings, plot_shares, rating_line
from minipoet.plots.runs import plot_bars, plot_history, plot_points, plot_study, plot_trials
from minipoet.plots.terminal import compare_in_terminal

__all__ = [
    "COLORS",
    "Comparison",
    "Pair",
    "Picture",
    "Sample",
    "compare_in_terminal",
    "curve_pictures",
    "plot_bars",
    "plot_curves",
    "plot_history",
    "plot_points",
    "plot_prefix_mass",
    "plot_ranks",
    "plot_rare",
    "plot_ratings",
    "plot_rising",
    "plot_shares",
    "plot_study",
    "plot_trials",
    "plot_vocabularies",
    "rating_line",
    "save_figure",
    "write_page",
]
