"""chrF: how many runs of letters does a text share with the text that it should have been?

    chrf             0 to 100, of all texts together
    sentence_chrf    of one text
    chrf_rows        the counts of each text, as a Sampled: intervals, and comparing two models
    ChrF             the formula, from counts to the figure

Of each text the n-grams of letters are counted, n of 1 to 6, white space taken out (so line breaks never matter). A
match is an n-gram that both texts have; one that comes twice here and three times there matches twice. For each n

    precision P_n = matches / n-grams of the hypothesis      recall R_n = matches / n-grams of the reference

and with P and R the means over those n for which both texts have any n-gram

    chrF = 100 · (1 + β²) · P · R / (β² · P + R),  β = 2: recall counts twice as much as precision

chrF++ adds n-grams of one and two words to the means (word_order=2). Popović 2015, "chrF: character n-gram F-score for
automatic MT evaluation"; 2017, "chrF++: words helping character n-grams". The figures are those of sacrebleu, whose
signature is nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no. Chapter: docs/measuring.md
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minipoet.checks import each, expect, expect_whole, is_number, shown
from minipoet.evaluation.samples import Sampled

Array = NDArray[np.float64]
PUNCTUATION = frozenset(string.punctuation)  # of ASCII alone, as in chrF++: « and — stay where they are
Grams = list[Counter[str | tuple[str, ...]]]  # one Counter for each n


@dataclass(frozen=True)
class ChrF:
    """The formula: (..., 3 · orders) counts -> (...) figures from 0 to 100, orders = char_order + word_order.

    A row has as many numbers of each kind: n-grams of the hypothesis, n-grams of the reference, matches.
    """

    word_order: int = 0
    char_order: int = 6
    beta: float = 2.0

    def __post_init__(self):
        expect_whole(1, char_order=self.char_order)
        expect_whole(0, word_order=self.word_order)
        if not is_number(self.beta) or self.beta <= 0:
            raise ValueError(f"beta must be a number above 0, got {shown(self.beta)}: 2 is the usual one.")

    def __call__(self, counts: Array) -> Array:
        ours, theirs, matches = np.split(np.asarray(counts, dtype=np.float64), 3, axis=-1)  # (..., orders) each
        both = (ours > 0) & (theirs > 0)
        orders = np.maximum(both.sum(axis=-1), 1)
        precision = (matches / np.where(both, ours, 1)).sum(axis=-1) / orders
        recall = (matches / np.where(both, theirs, 1)).sum(axis=-1) / orders
        factor = self.beta**2
        below = factor * precision + recall
        return 100 * (1 + factor) * precision * recall / np.where(below > 0, below, 1)  # nothing in common: 0

    def grams(self, text: str) -> Grams:
        """The n-grams of a text: of letters for n of 1 to char_order, then of words for n of 1 to word_order."""
        letters, words = "".join(text.split()), tuple(_words(text))
        of_letters = [_ngrams(letters, n) for n in range(1, self.char_order + 1)]
        return of_letters + [_ngrams(words, n) for n in range(1, self.word_order + 1)]

    def counts(self, ours: Grams, theirs: Grams) -> list[int]:
        """The row of counts for the n-grams of a hypothesis and of one reference."""
        pairs = list(zip(ours, theirs, strict=True))
        matches = [sum(min(a[gram], b[gram]) for gram in a.keys() & b.keys()) for a, b in pairs]
        # What no n-gram of the reference could match is not counted, as if the hypothesis were as short.
        return [*(a.total() if b else 0 for a, b in pairs), *(b.total() for b in theirs), *matches]


def chrf_rows(
    hypotheses: Sequence[str],
    references: Sequence[str | Sequence[str]],
    word_order: int = 0,
    char_order: int = 6,
    beta: float = 2.0,
) -> Sampled:
    """The counts of each hypothesis against its reference, or against that of several which gives it the best figure.

    .value is the chrF of all together, .by_text that of each. Raises ValueError for lists of different length, one
    string instead of a list, no texts, and a hypothesis without a reference.
    """
    formula = ChrF(word_order, char_order, beta)
    ours = list(each(hypotheses, str, "The hypotheses", "strings"))
    theirs = _lists(references)
    if len(ours) != len(theirs):
        raise ValueError(f"Each hypothesis needs its reference, but there are {len(ours)} and {len(theirs)}.")
    if not ours:
        raise ValueError("There is no text to compare: the lists are empty.")
    rows = []
    for text, several in zip(ours, theirs, strict=True):
        grams = formula.grams(text)
        found = np.array([formula.counts(grams, formula.grams(reference)) for reference in several], dtype=np.float64)
        rows.append(found[0] if len(found) == 1 else found[formula(found).argmax()])
    return Sampled(np.stack(rows), formula)


def chrf(
    hypotheses: Sequence[str],
    references: Sequence[str | Sequence[str]],
    word_order: int = 0,
    char_order: int = 6,
    beta: float = 2.0,
) -> float:
    """chrF of all the texts, 0 to 100; chrF++ with word_order=2. The counts are added first: it is not a mean.

    references: a string for each hypothesis, or a list of strings, of which the best for it counts.
    Raises ValueError as chrf_rows does.
    """
    return chrf_rows(hypotheses, references, word_order, char_order, beta).value


def sentence_chrf(
    hypothesis: str,
    references: str | Sequence[str],
    word_order: int = 0,
    char_order: int = 6,
    beta: float = 2.0,
) -> float:
    """chrF of one text, 0 to 100, against a reference or the best of several. Raises ValueError as chrf_rows does."""
    expect(hypothesis, str, "The hypothesis", "a string", "chrf takes a list of them")
    return chrf([hypothesis], [references], word_order, char_order, beta)


def _ngrams(items: str | tuple[str, ...], n: int) -> Counter[str | tuple[str, ...]]:
    """How often each n-gram stands there: "abab", 2 -> ab 2, ba 1."""
    return Counter([items[start : start + n] for start in range(len(items) - n + 1)])


def _words(text: str) -> Iterator[str]:
    """The words as chrF++ takes them: a mark at the end of one stands alone, or else one at its beginning."""
    for word in text.split():
        if len(word) > 1 and word[-1] in PUNCTUATION:
            yield from (word[:-1], word[-1])
        elif len(word) > 1 and word[0] in PUNCTUATION:
            yield from (word[0], word[1:])
        else:
            yield word


def _lists(references: Sequence[str | Sequence[str]]) -> list[list[str]]:
    """The references of each hypothesis, one or several, as a list. Raises ValueError for anything else."""
    if isinstance(references, str) or not isinstance(references, Iterable):
        raise ValueError(f"The references must be a list, one for each hypothesis, got {shown(references)}.")
    found = []
    for number, one in enumerate(references):
        found.append([one] if isinstance(one, str) else list(each(one, str, f"References number {number}", "strings")))
        if not found[-1]:
            raise ValueError(f"Hypothesis number {number} has no reference: give it one at least.")
    return found
