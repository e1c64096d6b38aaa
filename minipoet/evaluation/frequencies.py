"""How often does each word, letter or token stand in a corpus? Few do all the work, most are hardly ever met.

    frequencies     texts -> Frequencies: a number for each type, in falling order
    Frequencies     shares of rare and of well-known types, of the text that they cover, and the slope of Zipf's law
    counts_by_size  the counts of the tokens of every smaller BPE vocabulary, from one encoding

A *type* is a word of the vocabulary, a *token* one place of the running text where it stands. In most texts the count
of the type of rank r is about C / rˢ with s near 1 (Zipf, "The Psycho-Biology of Language", 1935), so that about half
of all types are met once: a vector of their own learns nothing. How much of a vocabulary is met often enough is what
chooses its size (Gowda & May 2020, "Finding the Optimal Vocabulary Size for Neural Machine Translation").
Chapter: docs/vocabulary.md
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import neg
from statistics import linear_regression
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from minipoet.checks import expect, expect_whole, is_number, is_whole, shown
from minipoet.tokenization.bpe import BPETokenizer


@dataclass(frozen=True)
class Frequencies:
    """counts: how often each type stands, in falling order; 0 for a type of the vocabulary that no text has.

    texts, characters: of the running text, 0 where nobody said. Raises ValueError for no types, and for counts that
    are no whole numbers.
    """

    counts: tuple[int, ...]
    texts: int = 0
    characters: int = 0

    def __post_init__(self) -> None:
        if not self.counts:
            raise ValueError("There is no type to count: the texts are empty, or there are none.")
        if not all(map(is_whole, self.counts)):
            raise ValueError("Counts must be whole numbers of 0 or more.")
        expect_whole(0, texts=self.texts, characters=self.characters)
        object.__setattr__(self, "counts", tuple(sorted(self.counts, reverse=True)))

    @property
    def types(self) -> int:
        """How many different words, letters or tokens there are: the size of the vocabulary."""
        return len(self.counts)

    @property
    def tokens(self) -> int:
        """How long the running text is."""
        return sum(self.counts)

    @property
    def rising(self) -> tuple[int, ...]:
        """The counts, the rarest first."""
        return self.counts[::-1]

    @property
    def tokens_per_text(self) -> float:
        """How long a text is, in the mean."""
        return self.tokens / self._told("texts")

    @property
    def characters_per_token(self) -> float:
        """How much of the text a token holds, in the mean."""
        return self._told("characters") / self._running()

    def share_below(self, k: int) -> float:
        """Share of the types that are seen fewer than k times."""
        return (self.types - self._number_from(k)) / self.types

    def share_from(self, n: int) -> float:
        """Share of the types that are seen at least n times."""
        return self._number_from(n) / self.types

    def coverage(self, n: int) -> float:
        """Share of the running text that the types cover which are seen at least n times."""
        return sum(self.counts[: self._number_from(n)]) / self._running()

    def head(self, types: int) -> float:
        """Share of the running text that so many most frequent types cover."""
        expect_whole(1, types=types)
        return sum(self.counts[:types]) / self._running()

    def reached(self, share: float) -> int:
        """How often the types are seen of which this share is seen at least so often: the largest such number."""
        if not is_number(share) or not 0 < share <= 1:
            raise ValueError(f"A share of the types must be above 0 and at most 1, got {shown(share)}.")
        return self.counts[math.ceil(share * self.types - 1e-9) - 1]  # 0.07 · 100 is a little more than 7

    def zipf_slope(self, first: int = 1, last: int | None = None) -> float:
        """Slope of log count against log rank, least squares over the ranks first to last (the last type seen).

        Zipf's law is −1. All ranks count alike, so the many rare types weigh most; the very first and the last ranks
        lie on no line (counts of 1 are a step): say which ranks were taken. Raises ValueError for fewer than two.
        """
        seen = self._number_from(1)
        last = seen if last is None else last
        expect_whole(1, first=first, last=last)
        if not first < last <= seen:
            raise ValueError(f"The ranks must be two or more of 1 to {seen}, the types seen; got {first} to {last}.")
        ranks = range(first, last + 1)
        counts = self.counts[first - 1 : last]
        return linear_regression([math.log(rank) for rank in ranks], [math.log(count) for count in counts]).slope

    def _number_from(self, n: int) -> int:
        """How many types are seen at least n times."""
        expect_whole(0, times=n)
        return bisect_right(self.counts, -n, key=neg)

    def _running(self) -> int:
        """The number of tokens. Raises ValueError if it is 0."""
        return self.tokens or self._nothing("no type was seen in any text")

    def _told(self, name: str) -> int:
        """texts or characters. Raises ValueError if nobody said how many."""
        return int(getattr(self, name)) or self._nothing(f"nobody said how many {name} there are: give {name}=…")

    def _nothing(self, why: str) -> NoReturn:
        raise ValueError(f"There is nothing to divide by: {why}.")


def frequencies(
    texts: Iterable[Iterable[Hashable]], characters: int = 0, vocabulary: Iterable[Hashable] | None = None
) -> Frequencies:
    """Count the types of texts, each a list of words, letters or ids; a string is a list of letters.

    characters: of all texts. vocabulary: count these types only, one that no text has as 0; else all that stand there.
    Raises ValueError for no types, one string instead of several texts, and a text that is no list of types.
    """
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise ValueError(f"The texts must be a list of texts, each a list of types, got {shown(texts)}.")
    found: Counter[Hashable] = Counter()
    number = 0
    for number, text in enumerate(texts, start=1):
        try:
            found.update(text)
        except TypeError:
            what = f"number {number - 1} of them is {shown(text)}"
            raise ValueError(f"Each text must be a list of words, letters or ids, but {what}.") from None
    counts = found.values() if vocabulary is None else [found[type] for type in dict.fromkeys(vocabulary)]
    return Frequencies(tuple(counts), number, characters)


def counts_by_size(tokenizer: BPETokenizer, texts: Sequence[str]) -> Iterator[NDArray[np.int64]]:
    """(V,) for each vocabulary that is a beginning of this one: how often each id stands in the texts.

    From all merges down to none, and one encoding serves them all: the last merge learnt is in no other, so to undo it
    is to read each of its tokens as the two that it joined. "ab ab b" with a·b is ab 2, b 1; without, a 2, b 3.
    The array is the same one, changed: copy what is to be kept. Raises ValueError unless the tokenizer's last ids are
    its merges, the first learnt first, as `train_bpe` numbers them.
    """
    expect(tokenizer, BPETokenizer, "The tokenizer", "a BPETokenizer", "train_bpe learns one")
    vocab, merges = tokenizer.vocab, tokenizer.merges
    least = tokenizer.vocab_size - len(merges)
    if any(vocab[left + right] != id for id, (left, right) in enumerate(merges, start=least)):
        raise ValueError("The last ids of this vocabulary are not its merges in their order: train_bpe learns such.")
    ids = np.fromiter(chain.from_iterable(tokenizer.encode_batch(texts)), dtype=np.int64)
    counts = np.bincount(ids, minlength=tokenizer.vocab_size)
    for id, (left, right) in zip(range(tokenizer.vocab_size - 1, least - 1, -1), reversed(merges), strict=True):
        yield counts[: id + 1]
        for part in (left, right):  # one after the other: in "aa" both are the same
            counts[vocab[part]] += counts[id]
    yield counts[:least]
