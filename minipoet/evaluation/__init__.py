"""Evaluation: how to know if it got better.

likelihood   loss, perplexity, bits per character
"""

from minipoet.evaluation.likelihood import Likelihood, likelihood

__all__ = ["Likelihood", "likelihood"]
