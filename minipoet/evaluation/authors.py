"""Whose verse is it? A judge that knows authors by the runs of letters that they use.

    AuthorJudge   fit on texts by author; then author, scores, accuracy, confusion
    words         what the judge reads of a text: its words, and nothing of how they are printed
    pieces        a text in pieces of about one length, cut at line ends; spread: those of many texts, mixed

The idea is naive Bayes over runs of one to five letters («чн», «я вн»): a run that is more frequent in Pushkin than in
others speaks for Pushkin, by the logarithm of how much more. The evidence for him is the mean of that, a letter:

    e(author) = 1/n · Σ over the runs g of the text   ln p(g | author) − mean over the authors of the same
    p(g | author) = (count(author, g) + smoothing) / sum of the numerators          n: letters of the text

"Naive" is to take the runs for independent. Overlapping ones say everything several times, so it would be certain after
four lines, and wrong in every third; and of whom more was read, more of the seldom runs are known. So what the evidence
is worth is measured, on texts that were not counted: all authors have one sureness, and each has a par.

    p(author) = softmax of   √n · (sureness · e(author) − par(author))

Mosteller and Wallace 1963, "Inference in an Authorship Problem"; Kešelj et al. 2003, "N-gram-based Author Profiles";
Platt 1999, "Probabilistic Outputs for Support Vector Machines" (the last formula; √n is ours). Chapter: docs/style.md
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from minipoet.checks import each, expect, expect_whole, is_number, is_whole, shown
from minipoet.evaluation.samples import Interval, wilson

ORDERS = (1, 2, 3, 4, 5)
LONGEST = 12  # 34 ** 12 < 2 ** 63: a run is one number
SMOOTHING = 0.3
CHARACTERS = 400  # four quatrains
FOLDS = 5
BASE = 34  # the space and 32 letters are the digits 1 to 33; no digit 0, so runs of other lengths are other numbers

Codes = NDArray[np.int64]
Scores = NDArray[np.float64]


def words(text: str) -> str:
    """The Russian words of a text in small letters, ё as е, with a space before, between and after: " мороз и солнце ".

    Marks, dashes, quotes, capitals and line breaks are printers' habits: they would tell the edition, not the author.
    """
    return f" {' '.join(re.findall('[а-я]+', text.lower().replace('ё', 'е')))} "


def has_words(text: str) -> bool:
    """Is there anything for the judge to read? Rows of dots, figures and other alphabets are nothing."""
    return bool(words(text).strip())


def pieces(text: str, characters: int = CHARACTERS) -> list[str]:
    """The text in pieces of about so many characters, as even as whole lines allow; none of a blank text."""
    expect(text, str, "The text", "a string")
    expect_whole(characters=characters)
    lines = text.strip("\n").split("\n")
    ends = np.cumsum([len(line) + 1 for line in lines])
    number = max(1, round(int(ends[-1]) / characters))
    middles = ends - [(len(line) + 1) / 2 for line in lines]
    places = (number * middles / ends[-1]).astype(int)
    cut = ("\n".join(line for line, at in zip(lines, places, strict=True) if at == place) for place in range(number))
    return [piece.strip("\n") for piece in cut if piece.strip()]


def spread(texts: Iterable[str], characters: int = CHARACTERS) -> list[str]:
    """All pieces with words, in the order of their hashes: the first hundred of them are from anywhere."""
    found = [piece for text in texts for piece in pieces(text, characters)]
    return sorted(filter(has_words, found), key=lambda piece: sha256(piece.encode()).digest())


@dataclass(frozen=True, eq=False)
class AuthorJudge:
    """What was counted, and what it is worth. V runs, A authors."""

    authors: tuple[str, ...]
    orders: tuple[int, ...]
    letters: tuple[int, ...]  # how many were read of each author
    runs: Codes  # (V,), sorted
    weights: NDArray[np.float32]  # (V, A): ln p(run | author), less its mean over the authors
    sureness: float
    par: Scores  # (A,)

    @classmethod
    def fit(
        cls,
        texts: Mapping[str, Sequence[str]],
        orders: Iterable[int] = ORDERS,
        smoothing: float = SMOOTHING,
        characters: int = CHARACTERS,
    ) -> AuthorJudge:
        """A judge who has read these texts, {author: texts}; the same texts give the same judge.

        What his evidence is worth is measured on pieces of about `characters`, as many of each author: each fifth of
        the texts is judged after the other four were counted.
        Raises ValueError for fewer than two authors, and for fewer than two texts with Russian words of any of them.
        """
        orders = _orders(orders)
        if not is_number(smoothing) or smoothing <= 0:
            raise ValueError(f"smoothing, which is added to every count, must be above 0, got {shown(smoothing)}.")
        legible = {author: [text for text in own if has_words(text)] for author, own in _by_author(texts).items()}
        if len(legible) < 2:
            raise ValueError(f"To tell authors apart takes two or more, got {', '.join(legible) or 'none'}.")
        if few := [f"{author} has {len(own)}" for author, own in legible.items() if len(own) < 2]:
            raise ValueError(f"The judge wants two texts with Russian words or more of each author; {', '.join(few)}.")

        folds = min(FOLDS, *map(len, legible.values()))
        trials = []  # (number of the author, evidence, √letters) of each piece
        for fold in range(folds):
            counted = {a: [t for i, t in enumerate(own) if i % folds != fold] for a, own in legible.items()}
            judge = cls._counted(counted, orders, smoothing)
            unread = [spread(own[fold::folds], characters) for own in legible.values()]
            same = min(map(len, unread))
            trials += [(number, *judge._evidence(piece)) for number, own in enumerate(unread) for piece in own[:same]]
        right, evidence, roots = map(np.array, zip(*trials, strict=True))
        sureness, par = _worth(right, evidence, roots)
        return replace(cls._counted(legible, orders, smoothing), sureness=sureness, par=par)

    @classmethod
    def _counted(cls, texts: Mapping[str, Sequence[str]], orders: tuple[int, ...], smoothing: float) -> AuthorJudge:
        """The judge, before it is known what his evidence is worth."""
        said = {author: words(" ".join(own)) for author, own in texts.items()}
        codes = [_runs(own, orders) for own in said.values()]
        runs, places = np.unique(np.concatenate(codes), return_inverse=True)
        by_author = np.split(places, np.cumsum([len(own) for own in codes])[:-1])
        share = np.stack([np.bincount(own, minlength=len(runs)) for own in by_author], axis=1) + smoothing
        weights = np.log(share / share.sum(axis=0))
        weights -= weights.mean(axis=1, keepdims=True)
        letters = tuple(map(len, said.values()))
        return cls(tuple(texts), orders, letters, runs, weights.astype(np.float32), 1.0, np.zeros(len(texts)))

    def _evidence(self, text: str) -> tuple[Scores, float]:
        """(A,): the evidence for each author; and √letters."""
        expect(text, str, "The text", "a string")
        said = words(text)
        if not said.strip():
            raise ValueError(f"The judge reads Russian words, and there are none in the text {shown(text)}.")
        codes = _runs(said, self.orders)
        places = np.minimum(np.searchsorted(self.runs, codes), len(self.runs) - 1)
        known = places[self.runs[places] == codes]  # a run that nobody used speaks for nobody
        return self.weights[known].sum(axis=0, dtype=np.float64) / len(said), np.sqrt(len(said))

    def _logits(self, text: str) -> Scores:
        evidence, root = self._evidence(text)
        return root * (self.sureness * evidence - self.par)

    def author(self, text: str) -> str:
        """Who of them most likely wrote it: always one of them, whoever did. ValueError for a text without words."""
        return self.authors[int(self._logits(text).argmax())]

    def scores(self, text: str) -> dict[str, float]:
        """The probability of each author, all equally likely before; their sum is 1. Raises as `author`."""
        logits = self._logits(text)
        raised = np.exp(logits - logits.max())
        return dict(zip(self.authors, (raised / raised.sum()).tolist(), strict=True))

    def confusion(self, texts: Mapping[str, Sequence[str]]) -> dict[str, dict[str, int]]:
        """How many texts of each author were taken for whose: {author: {taken for: how many}}.

        Raises ValueError for an author whom the judge does not know or who has no text, and for texts without words.
        """
        found = _by_author(texts)
        wrong = [str(author) for author, own in found.items() if author not in self.authors or not own]
        if wrong or not found:
            known, useless = ", ".join(self.authors), ", ".join(wrong) or "nobody at all"
            raise ValueError(f"The judge knows {known}, and wants one text at least of each author; got {useless}.")
        named = {author: [self.author(text) for text in own] for author, own in found.items()}
        return {author: {name: names.count(name) for name in self.authors} for author, names in named.items()}

    def accuracy(self, texts: Mapping[str, Sequence[str]]) -> Interval:
        """The share of the texts whose author is found, with Wilson's interval; guessing has 1 / authors.

        Give as many texts of each author, or the most frequent one decides the figure. Raises as `confusion`.
        """
        confusion = self.confusion(texts)
        hits = sum(row[author] for author, row in confusion.items())
        n = sum(sum(row.values()) for row in confusion.values())
        return Interval(hits / n, *wilson(hits, n))


def _runs(said: str, orders: tuple[int, ...]) -> Codes:
    """All runs of these lengths in the words of a text, each as a number in base 34."""
    letters = np.frombuffer(said.encode("cp1251"), np.uint8).astype(np.int64)
    digits = np.where(letters == ord(" "), 1, letters - 222)  # cp1251 has «а» to «я» at 224 to 255
    found, code = [], digits
    for length in range(1, max(orders) + 1):
        if length in orders:
            found.append(code)
        code = code[:-1] * BASE + digits[length:]
    return np.concatenate(found)


def _worth(right: NDArray[np.int64], evidence: Scores, roots: Scores) -> tuple[float, Scores]:
    """sureness and par (A,) that make the right authors (N,) of texts with this evidence (N, A) most probable.

    As in Platt one in N + 2 is kept back for the others, lest a judge without a mistake be sure for ever.
    """
    middle = evidence.mean(axis=0)
    rise, root, answers = (torch.from_numpy(a) for a in (evidence - middle, roots[:, None], right))
    sureness = torch.ones((), dtype=torch.float64, requires_grad=True)
    offset = torch.zeros(len(middle), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([sureness, offset], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits = root * (sureness * rise - offset)
        found = cross_entropy(logits, answers, label_smoothing=1 / (len(right) + 2))
        found.backward()
        return found

    optimizer.step(loss)
    worth = sureness.item()
    return worth, worth * middle + offset.detach().numpy()


def _orders(orders: Iterable[int]) -> tuple[int, ...]:
    found = list(orders) if isinstance(orders, Iterable) else []
    if not found or not all(is_whole(order, 1, LONGEST + 1) for order in found):
        raise ValueError(f"orders, the lengths of runs, must be from 1 to {LONGEST}, as (1, 2, 3), got {orders!r}.")
    return tuple(sorted(set(found)))


def _by_author(texts: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The texts of each author in a list. Raises ValueError for anything but strings by author."""
    expect(texts, Mapping, "The texts", "a mapping", 'give {"Пушкин": [text, text], "Есенин": [text, text]}')
    return {author: list(each(own, str, f"The texts of {author}", "strings")) for author, own in texts.items()}
