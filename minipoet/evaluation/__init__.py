"""Evaluation: how to know if it got better.

likelihood   loss, perplexity, bits per character
copying      the longest run of words shared with the training verse
"""

from minipoet.evaluation.copying import CopyIndex, Copying, SharedRun
from minipoet.evaluation.likelihood import Likelihood, likelihood

__all__ = ["CopyIndex", "Copying", "Likelihood", "SharedRun", "likelihood"]
