"""Evaluation: how to know if it got better.

likelihood   loss, perplexity, bits per character
fair         bits per character across letters, words and subwords
copying      the longest run of words shared with the training verse
frequencies  how often each word, letter or token stands in a corpus
spelling     what an unknown word costs: its letters
repetition   how much of a text is repetition: n-grams, loops, lines
"""

from minipoet.evaluation.copying import CopyIndex, Copying, SharedRun
from minipoet.evaluation.fair import fair_bits, unknown_cost
from minipoet.evaluation.frequencies import Frequencies, counts_by_size, frequencies
from minipoet.evaluation.likelihood import Likelihood, likelihood
from minipoet.evaluation.repetition import Repeats, Repetition, repetition
from minipoet.evaluation.spelling import Spelling, unseen_letters

__all__ = [
    "CopyIndex",
    "Copying",
    "Frequencies",
    "Likelihood",
    "Repeats",
    "Repetition",
    "SharedRun",
    "Spelling",
    "counts_by_size",
    "fair_bits",
    "frequencies",
    "likelihood",
    "repetition",
    "unknown_cost",
    "unseen_letters",
]
