"""Which rating does a review have? A judge that reads the text and names one of 1 to 5.

    signs          what he reads of a review
    RatingJudge    fit on reviews and their ratings; then rating, scores, rate (many at once), accuracy, confusion

The idea is logistic regression over the stems of the words, where «вкусно» and «не вкусно» are two words: each has a
weight for each rating, found by making the given ratings as likely as they can be.

    x(text)      1 / √n for each of the n different words of the text, 0 for all others
    p(rating)    softmax over the ratings of   x · W + b
    loss         − Σ over the texts   weight(rating) · ln p(rating)   +   l2 / 2 · ‖W‖²
    gradient     Σ over the texts   weight(rating) · x · (p − 1 for the true rating, 0 for others)   +   l2 · W

Words are not listed: each has a place among 2¹⁸ by its checksum, so that half a million reviews need no more than ten
thousand. Two may share a place, which of so many does little harm (Weinberger et al. 2009, "Feature Hashing for Large
Scale Multitask Learning"). The loss has one lowest point, so no luck is in it: equal texts, equal judge.

Of real reviews 78 in a hundred have five stars, and a judge who says "five" to everything would have a low loss. So
each rating weighs the same in it as any other, however rare (`power`). Chapter: docs/proportions.md
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding_bag, one_hot

from minipoet.checks import each, expect, is_number, is_whole, shown
from minipoet.evaluation.confusion import NONE, Confusion
from minipoet.evaluation.samples import Interval
from minipoet.text.dedup import word_key
from minipoet.text.keywords import stem
from minipoet.text.review_sets import class_weights

BITS = 18
NEGATIONS = ("не", "ни", "без")
AT_ONCE = 10_000  # texts whose words are held at a time
STEPS = 200


def signs(text: str) -> list[str]:
    """What the judge reads of a text: the stem of each word, with the negation before it: "не вкус" is no "вкус"."""
    words = word_key(text).split()
    return [
        f"{before} {stem(word)}" if before in NEGATIONS else stem(word)
        for before, word in zip(["", *words], words, strict=False)
    ]


@dataclass(frozen=True, eq=False)
class RatingJudge:
    """What was learnt: K ratings, V places of words."""

    ratings: tuple[int, ...]  # those that were seen
    weights: Tensor  # (V, K)
    bias: Tensor  # (K,)

    @classmethod
    def fit(
        cls, texts: Iterable[str], ratings: Iterable[int], l2: float = 1.0, power: float = 0.0, bits: int = BITS
    ) -> RatingJudge:
        """The judge of these reviews. A text without a word teaches nothing, and is left out.

        l2: how much weights are held near 0; more for fewer texts, 1 / C of other libraries.
        power: a rating with n texts weighs n^power in all; with 1 each text weighs the same, and then rare ratings are
            seldom named (`text.review_sets.class_weights`). bits: of the number of a place, 18 for 2¹⁸ of them.
        Raises ValueError for a rating outside 1 to 5, all of them named, and for fewer than two different ones.
        """
        if not is_number(l2) or l2 <= 0 or not is_whole(bits, 1, 25):
            got = f"{shown(l2)} and {shown(bits)}"
            raise ValueError(f"l2 must be above 0, and bits a whole number from 1 to 24; got {got}.")
        texts, given = _pairs(texts, ratings)
        words = _Words.of(texts, bits)
        legible = [rating for rating, n in zip(given, words.sizes.tolist(), strict=True) if n]
        known = tuple(sorted(set(legible)))
        if len(known) < 2:
            raise ValueError(f"To tell ratings apart takes two or more, got {', '.join(map(str, known)) or 'none'}.")
        factors = class_weights(legible, power)
        counts = torch.tensor([factors.get(rating, 0.0) for rating in given]) * (words.sizes > 0)
        answers = torch.tensor([known.index(rating) if rating in known else 0 for rating in given])
        used, places = words.places.unique(return_inverse=True)  # all others would keep the weight 0
        words = _Words(places.int(), words.sizes, len(used))
        weights = torch.zeros(1 << bits, len(known))
        weights[used], bias = _lowest(words, one_hot(answers, len(known)).float(), counts, l2)
        return cls(known, weights, bias)

    def rating(self, text: str) -> int:
        """The likeliest rating of a review; 0 for a text without a word."""
        expect(text, str, "The text", "a string", "rate reads a list of them")
        return self.rate([text])[0]

    def scores(self, text: str) -> dict[int, float]:
        """The probability of each rating, all equally likely before (with power 0); their sum is 1.

        Raises ValueError for a text without a word.
        """
        expect(text, str, "The text", "a string")
        if not word_key(text):
            raise ValueError(f"The judge reads words, and there are none in the text {shown(text)}.")
        return dict(zip(self.ratings, self.probabilities([text])[0].tolist(), strict=True))

    def rate(self, texts: Iterable[str]) -> list[int]:
        """The likeliest rating of each text; 0 for one without a word."""
        logits, words = self._logits(texts)
        named = np.array(self.ratings)[logits.argmax(1).numpy()]
        return np.where(words.sizes.numpy() > 0, named, NONE).tolist()

    def probabilities(self, texts: Iterable[str]) -> NDArray[np.float64]:
        """(N, K): the probability of each rating that the judge knows (`ratings`), a row a text."""
        return self._logits(texts)[0].double().softmax(1).numpy()

    def confusion(self, texts: Iterable[str], ratings: Iterable[int]) -> Confusion:
        """How many texts of each rating are taken for which. Give reviews that the judge has not learnt from.

        Raises ValueError for a rating outside 1 to 5, and for no texts.
        """
        texts, given = _pairs(texts, ratings)
        return Confusion.of(given, self.rate(texts))

    def accuracy(self, texts: Iterable[str], ratings: Iterable[int]) -> Interval:
        """The share of the texts whose rating is found, with Wilson's interval. Raises as `confusion`."""
        return self.confusion(texts, ratings).accuracy

    def _logits(self, texts: Iterable[str]) -> tuple[Tensor, _Words]:
        words = _Words.of(list(each(texts, str, "The texts", "strings")), len(self.weights).bit_length() - 1)
        return words.times(self.weights) + self.bias, words


@dataclass(frozen=True, eq=False)
class _Words:
    """The sparse matrix x (N, V): which places each of N texts has, one text after another."""

    places: Tensor  # (E,) int32
    sizes: Tensor  # (N,): how many of them are of each text
    width: int  # V

    @classmethod
    def of(cls, texts: Sequence[str], bits: int) -> _Words:
        found = [_places(texts[first : first + AT_ONCE], bits) for first in range(0, len(texts), AT_ONCE)]
        places, sizes = map(np.concatenate, zip(*found, strict=True)) if found else (np.zeros(0, np.int32),) * 2
        return cls(torch.from_numpy(places), torch.from_numpy(sizes), 1 << bits)

    def times(self, weights: Tensor) -> Tensor:
        """x W: (V, K) -> (N, K)."""
        return _sums(self.places, self.sizes, weights) * self._value

    @property
    def _value(self) -> Tensor:
        """(N, 1): 1 / √n, so that a long review has no more to say than a short one."""
        return self.sizes.clamp(min=1).float().rsqrt()[:, None]

    def turned(self):
        """The function xᵀ G: (N, K) -> (V, K). It is a sum of rows again, the texts that have each place."""
        owners = torch.arange(len(self.sizes), dtype=torch.int32).repeat_interleave(self.sizes)
        owners = owners[self.places.argsort(stable=True)]
        sizes = torch.bincount(self.places, minlength=self.width)
        return lambda rows: _sums(owners, sizes, rows * self._value)


def _sums(numbers: Tensor, sizes: Tensor, table: Tensor) -> Tensor:
    """Sums of rows of a table: the first sizes[0] numbers say which rows make the first sum, and so on."""
    starts = (sizes.cumsum(0) - sizes).to(numbers.dtype)
    return embedding_bag(numbers, table, starts, mode="sum")


def _places(texts: Sequence[str], bits: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The different places of each text, one text after another, and how many it has."""
    said = [signs(text) for text in texts]
    owners = np.repeat(np.arange(len(said)), [len(own) for own in said])
    sums = np.fromiter((crc32(sign.encode()) for own in said for sign in own), np.uint32, len(owners))
    found = np.unique(owners << bits | sums >> np.uint32(32 - bits))
    sizes = np.bincount(found >> bits, minlength=len(said))
    return (found & ((1 << bits) - 1)).astype(np.int32), sizes.astype(np.int32)


def _lowest(words: _Words, answers: Tensor, heavy: Tensor, l2: float) -> tuple[Tensor, Tensor]:
    """W (V, K) and b (K,) of the lowest loss, for answers (N, K) of ones and zeros and the weight (N,) of each text.

    Both are divided by the sum of the weights, which moves no lowest point. L-BFGS (Nocedal 1980) takes loss and
    gradient, and guesses the curvature from its last steps: for a smooth loss that fits into memory there is nothing
    simpler that comes as near.
    """
    weights = torch.zeros(words.width, answers.shape[1])
    bias = torch.zeros(answers.shape[1])
    back, total = words.turned(), heavy.sum()

    def loss() -> Tensor:
        logits = words.times(weights) + bias
        likely = logits.log_softmax(1)
        off = heavy[:, None] * (likely.exp() - answers)
        weights.grad = (back(off) + l2 * weights) / total
        bias.grad = off.sum(0) / total
        return ((heavy * -(likely * answers).sum(1)).sum() + l2 / 2 * weights.square().sum()) / total

    optimizer = torch.optim.LBFGS(
        [weights, bias], max_iter=STEPS, history_size=10, line_search_fn="strong_wolfe", tolerance_grad=1e-5
    )
    with torch.no_grad():
        optimizer.step(loss)
    return weights, bias


def _pairs(texts: Iterable[str], ratings: Iterable[int]) -> tuple[list[str], list[int]]:
    """Texts and their ratings. Raises ValueError for other numbers of them, and for ratings outside 1 to 5."""
    found = list(each(texts, str, "The texts", "strings"))
    given = list(ratings) if isinstance(ratings, Iterable) else [ratings]
    if len(found) != len(given):
        raise ValueError(f"Each text needs its rating, got {len(found)} texts and {len(given)} ratings.")
    wrong = [f"text {n} has {shown(rating)}" for n, rating in enumerate(given) if not is_whole(rating, 1, 6)]
    if wrong:
        more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ValueError(f"A rating is a whole number from 1 to 5, but {', '.join(wrong[:5])}{more}: leave these out.")
    return found, [int(rating) for rating in given]
