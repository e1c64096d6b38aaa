"""An n-gram model: no weights, no steps, no vectors; it counts what came after the last few tokens.

    NGram    learn by counting; nll, distribution, write

This is the baseline that a network must beat: it learns in one reading, in seconds, and a network that is not better
has learnt no more than a table of what stood where. The table has two ends that a network may pass. Contexts are alike
only if they are equal: what it knows of «тихая ночь» tells it nothing of «тихие ночи». And so a longer context is soon
one that was never seen: of Pushkin's letters it reads the last four with profit, and no more.

The idea: p(w | h) from the counts c after the context h, mixed with what the shorter context h′ (h without its first
token) says, down to a uniform choice of 1/V:

    p(w | h) = (c(h w) + T(h) · p(w | h′)) / (c(h) + T(h)),        T(h): how many different tokens came after h

T(h) counts how often something new came after h, so T / (c + T) is how likely the next is new too: a context that goes
on in many ways trusts the shorter one more. No number is tuned, none is 0, and the sum is 1.

Witten and Bell 1991, "The Zero-Frequency Problem" (their method C); in this recursive form, and compared with others:
Chen and Goodman 1996, "An Empirical Study of Smoothing Techniques for Language Modeling".
Chapter: docs/letters.md
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from minipoet.checks import as_ids, expect_whole, shown

Context = tuple[int, ...]


class NGram:
    """Looks `order` − 1 tokens back: order 1 knows how frequent tokens are, order 2 goes by pairs. A text begins with
    its start token, which is only read, and no context reaches over a beginning. Ids are below `vocab_size`."""

    def __init__(self, order: int, vocab_size: int):
        expect_whole(order=order, vocab_size=vocab_size)
        self.order, self.vocab_size = order, vocab_size
        self._after: defaultdict[Context, dict[int, int]] = defaultdict(dict)  # h -> w -> c(h w)
        self._total: defaultdict[Context, int] = defaultdict(int)  # h -> c(h)

    def learn(self, texts: Iterable[Sequence[int]]) -> None:
        """Count texts of ids; what was learnt before stays. Raises ValueError, and learns nothing, for other texts."""
        if isinstance(texts, str) or not isinstance(texts, Iterable):
            raise ValueError(f"The texts must be lists of ids, as encode_texts gives them, got {shown(texts)}.")
        for ids in [self._ids(text, f"Text {number}") for number, text in enumerate(texts)]:
            for back in range(self.order):
                for i in range(max(back, 1), len(ids)):
                    context, token = ids[i - back : i], ids[i]
                    after = self._after[context]
                    after[token] = after.get(token, 0) + 1
                    self._total[context] += 1

    def nll(self, ids: Sequence[int]) -> float:
        """Σ −ln p in nats of a text, its first id only read: 0 for a text that has no second one."""
        ids = self._ids(ids, "The text")
        return -sum(math.log(self._probability(ids, i)) for i in range(1, len(ids)))

    def distribution(self, context: Sequence[int]) -> np.ndarray:
        """The probability of each id after a context, a text from its start token on: (V,) float64, the sum is 1."""
        context = self._ids(context, "The context")
        p = np.full(self.vocab_size, 1 / self.vocab_size)
        for back in range(min(self.order, len(context) + 1)):
            h = context[len(context) - back :]
            if h not in self._after:
                break  # then no longer one was seen either
            after = self._after[h]
            p *= len(after)
            p[list(after)] += list(after.values())
            p /= self._total[h] + len(after)
        return p

    def write(self, context: Sequence[int], n: int, seed: int = 0, stop: int | None = None) -> list[int]:
        """Up to `n` ids that follow the context, drawn by their probabilities; `stop`, the end token, ends the text.
        The same seed writes the same."""
        expect_whole(0, n=n, seed=seed, stop=0 if stop is None else stop)
        text = list(self._ids(context, "The context"))
        begun, draw = len(text), np.random.default_rng(seed)
        while len(text) < begun + n and not (len(text) > begun and text[-1] == stop):
            text.append(int(draw.choice(self.vocab_size, p=self.distribution(text[-self.order :]))))
        return text[begun:]

    def _probability(self, ids: Context, i: int) -> float:
        """p of ids[i] after those before it: what `distribution` says of one token."""
        p, token = 1 / self.vocab_size, ids[i]
        for back in range(min(self.order, i + 1)):
            h = ids[i - back : i]
            after = self._after.get(h)
            if after is None:
                break
            p = (after.get(token, 0) + len(after) * p) / (self._total[h] + len(after))
        return p

    def _ids(self, ids: Iterable[int], what: str) -> Context:
        """The ids of a text. Raises ValueError for what is none, and for ids outside the vocabulary."""
        found = tuple(as_ids(ids, what))
        wrong = sorted({id for id in found if not 0 <= id < self.vocab_size})
        if wrong:
            raise ValueError(
                f"{what} has ids that the model lacks ({', '.join(map(str, wrong[:5]))}): expected 0 to "
                f"{self.vocab_size - 1}, as vocab_size={self.vocab_size} says."
            )
        return found
