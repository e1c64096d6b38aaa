"""A figure measured on a sample of texts: how far is it to be trusted, and is the difference of two models real?

    Sampled               rows of sums, a row a text, and the formula that makes one figure of their total
    mean_of, ratio_of     means, and ratios of sums: shares, perplexity, bits per character
    Interval              the figure, and the bounds that resampling the texts gives it
    compare, Difference   two models on the same texts: their difference, its interval, and p
    wilson                the interval of a share of hits, without resampling

Two questions, two experiments with the rows. *Other texts*: draw as many texts again, with replacement, and compute the
figure anew; the middle 95 % of many such figures are the interval (the bootstrap: Efron 1979). *No difference*: if the
two models were one, it would not matter which of them wrote which text; swap the two on a random half of the texts, and
see how seldom the difference comes out as large as the real one (approximate randomisation: Noreen 1989; Riezler and
Maxwell 2005, "On Some Pitfalls in Automatic Evaluation and Significance Testing for MT").

Both cover what differs from text to text: the texts themselves, and the luck of sampling, if each has its own. What all
texts share they cannot see. A model trained with another seed is another model, and how far such models scatter, only
training again can tell. Chapter: docs/measuring.md
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minipoet.checks import SEEDS, expect, expect_whole, is_number, is_whole, shown

Array = NDArray[np.float64]
Formula = Callable[[Array], Array]  # (..., K) -> (...)
CELLS = 4_000_000  # weights held at a time, 32 MB, however many texts and resamples there are


class Interval(NamedTuple):
    """The figure of all the texts, and the bounds of the middle share of its resamples."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """Ours less theirs, its interval, and p: how often chance alone makes a difference as large, either way."""

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, eq=False)
class Sampled:
    """rows (N, K): the sums that each of N texts brings; formula, (..., K) -> (...): the figure of added rows.

    The figure is that of the total, not the mean over the texts' own figures: a long text weighs more than a short one.
    Raises ValueError for rows that are no table of finite numbers.
    """

    rows: Array
    formula: Formula

    def __post_init__(self):
        object.__setattr__(self, "rows", _numbers(self.rows, "The rows", axes=2))

    @property
    def value(self) -> float:
        """The figure of all the texts together."""
        return float(self.formula(self.rows.sum(axis=0)))

    @property
    def by_text(self) -> Array:
        """(N,): the figure of each text alone; NaN where there is none."""
        return self.formula(self.rows)

    def interval(self, confidence: float = 0.95, resamples: int = 1000, seed: int = 0) -> Interval:
        """The figure with its bootstrap interval over the texts (percentiles); the same seed gives the same.

        It says how far other texts of the same kind would have moved the figure. It does not cover what training with
        another seed would do, and of a few dozen texts it is a little too narrow.
        Raises ValueError for fewer than two texts.
        """
        _check(self, confidence, resamples, seed)
        figures = [self.formula(weights @ self.rows) for weights in _resampled(len(self.rows), resamples, seed)]
        return Interval(self.value, *_middle(figures, confidence))


def compare(
    ours: Sampled, theirs: Sampled, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Difference:
    """Ours less theirs on the same texts, row i of both being text i: its paired bootstrap interval and a two-sided p.

    Both are resampled on the same texts, so what makes a text hard for either model cancels out. p counts the random
    swaps with a difference at least as large as the real one, (hits + 1) / (resamples + 1): 1 for a model against
    itself, never 0. It is not the probability that the models are equal, and knows nothing of other training seeds.
    Raises ValueError for fewer than two texts, and for what cannot be compared: other texts, or another figure.
    """
    for one in (ours, theirs):
        expect(one, Sampled, "What is compared", "a Sampled", "chrf_rows, mean_of and ratio_of make them")
    if len(ours.rows) != len(theirs.rows):
        counts = f"{len(ours.rows)} and {len(theirs.rows)}"
        raise ValueError(f"Two models are compared on the same texts, but there are {counts}: measure both on all.")
    if ours.formula != theirs.formula or ours.rows.shape != theirs.rows.shape:
        formulas = f"{ours.formula} and {theirs.formula}"
        raise ValueError(f"Two models are compared by the same figure, but there are two: {formulas}.")
    _check(ours, confidence, resamples, seed)

    def difference(our_sums: Array, their_sums: Array) -> Array:
        return ours.formula(our_sums) - ours.formula(their_sums)

    texts, gap = len(ours.rows), theirs.rows - ours.rows
    our_total, their_total = ours.rows.sum(axis=0), theirs.rows.sum(axis=0)
    resampled = [difference(w @ ours.rows, w @ theirs.rows) for w in _resampled(texts, resamples, seed)]
    swapped = [
        difference(our_total + swaps @ gap, their_total - swaps @ gap) for swaps in _swapped(texts, resamples, seed)
    ]
    value = float(difference(our_total, their_total))
    least = abs(value) - 1e-12 * max(1.0, abs(ours.value))  # a swap of equal rows is a hit, however sums are rounded
    hits = int(np.count_nonzero(np.abs(np.concatenate(swapped)) >= least))
    return Difference(value, *_middle(resampled, confidence), (hits + 1) / (resamples + 1))


@dataclass(frozen=True)
class Ratio:
    """The formula f(Σ numerators / Σ denominators) of rows (..., 2); NaN of nothing."""

    transform: Callable[[Array], Array] | None = None

    def __call__(self, sums: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratio = sums[..., 0] / sums[..., 1]
            return ratio if self.transform is None else self.transform(ratio)


def ratio_of(
    numerators: ArrayLike, denominators: ArrayLike, transform: Callable[[Array], Array] | None = None
) -> Sampled:
    """Σ numerators / Σ denominators over N texts; transform is a function of NumPy arrays applied to that.

    Perplexity is ratio_of(nll, tokens, np.exp), bits per character ratio_of(nll, ln 2 · characters). Two are the same
    figure only with the same function as transform: give a named one, not a lambda.
    Raises ValueError for lists of different length, no texts, negative denominators, and none above 0.
    """
    above, below = _numbers(numerators, "The numerators"), _numbers(denominators, "The denominators")
    if len(above) != len(below):
        raise ValueError(f"Each text needs a numerator and a denominator, got {len(above)} and {len(below)}.")
    if below.min() < 0 or not below.any():
        raise ValueError("The denominators must be 0 or more, and not all of them 0.")
    return Sampled(np.stack([above, below], axis=1), Ratio(transform))


def mean_of(values: ArrayLike) -> Sampled:
    """The mean of one number a text; of True and False the share. Raises ValueError for no texts."""
    values = _numbers(values, "The values")
    return ratio_of(values, np.ones(len(values)))


def wilson(hits: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The bounds of a share of which `hits` of `n` were seen: 87 of 100 -> (0.7902, 0.9224).

    Unlike a bootstrap it is not fooled by 0 of 10, which says no more than "below 0.28". Wilson 1927, "Probable
    Inference, the Law of Succession, and Statistical Inference". Raises ValueError unless 0 <= hits <= n and n > 0.
    """
    if not is_whole(n, 1) or not is_whole(hits, 0, n + 1):
        raise ValueError(f"A share is of n things, one at least, and hits of 0 to n; got {shown(hits)} of {shown(n)}.")
    share, squared = hits / n, _quantile(confidence) ** 2
    centre = share + squared / (2 * n)
    half = math.sqrt(squared * (share * (1 - share) / n + squared / (4 * n * n)))
    shrunk = 1 + squared / n
    return max(0.0, (centre - half) / shrunk), min(1.0, (centre + half) / shrunk)


def _resampled(texts: int, resamples: int, seed: int) -> Iterator[Array]:
    """(R', N) at a time, R rows in all: how often each text comes when as many are drawn with replacement."""
    random = np.random.default_rng(seed)
    for rows in _pieces(texts, resamples):
        yield random.multinomial(texts, np.full(texts, 1 / texts), size=rows).astype(np.float64)


def _swapped(texts: int, resamples: int, seed: int) -> Iterator[Array]:
    """(R', N) at a time, R rows in all: 1 where the two models change places, 0 elsewhere, as coins fall."""
    random = np.random.default_rng(seed)
    for rows in _pieces(texts, resamples):
        yield random.integers(2, size=(rows, texts)).astype(np.float64)


def _pieces(texts: int, resamples: int) -> Iterator[int]:
    """The resamples in numbers that fit into memory; what is drawn does not depend on the division."""
    at_once = max(1, CELLS // texts)
    yield from (min(at_once, resamples - first) for first in range(0, resamples, at_once))


def _middle(figures: list[Array], confidence: float) -> tuple[float, float]:
    """The bounds of the middle share of the figures; resamples in which there was nothing to divide by do not count."""
    low, high = np.nanquantile(np.concatenate(figures), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _quantile(confidence: float) -> float:
    """z such that a normal variable lies in ±z with that probability: 1.96 for 0.95."""
    _check_confidence(confidence)
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _numbers(values: ArrayLike, what: str, axes: int = 1) -> Array:
    """The values as an array, (N,) or (N, K). Raises ValueError for another shape, none, and what is not finite."""
    try:
        found = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{what} must be numbers, got {shown(values)}.") from None
    if found.ndim != axes or not found.size:
        wanted = "one number a text" if axes == 1 else "one row of numbers a text"
        raise ValueError(f"{what} must be {wanted}, of one text at least; got an array of shape {found.shape}.")
    if not np.isfinite(found).all():
        raise ValueError(f"{what} must be finite: number {np.argwhere(~np.isfinite(found))[0][0]} is not.")
    return found


def _check(sampled: Sampled, confidence: float, resamples: int, seed: int) -> None:
    if len(sampled.rows) < 2:
        raise ValueError("One text tells nothing of how far texts scatter: an interval needs two or more.")
    _check_confidence(confidence)
    expect_whole(1, resamples=resamples)
    if not is_whole(seed, 0, SEEDS):
        raise ValueError(f"The seed must be a whole number from 0 to 2**64 - 1, got {shown(seed)}.")


def _check_confidence(confidence: float) -> None:
    if not is_number(confidence) or not 0 < confidence < 1:
        raise ValueError(f"The confidence must be between 0 and 1, as 0.95 is, got {shown(confidence)}.")
