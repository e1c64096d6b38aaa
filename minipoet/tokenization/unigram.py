"""Cutting a word into pieces whose probabilities multiply to the most: Viterbi's algorithm, by hand.

A unigram model draws pieces independently of one another. So a cut x₁ … xₙ has the probability p(x₁) · … · p(xₙ), and
with scores s = ln p the best one is found from left to right, as the best cut of the first j characters ends with some
piece, and what stands before that piece must be cut best as well:

    best(0) = 0        best(j) = max over i < j of  best(i) + s(word[i:j])

    Unigram             scores -> `segment` a word, `pieces` of a text
    segment             the same for a word and a dictionary
    unigram_scores      the dictionary of a T5 tokenizer

A character that is no piece may stand alone for 10 less than the worst piece; neighbours of that kind become one
unknown. That is what sentencepiece and the `tokenizers` library do, ties included: of equals the longer last piece.
Kudo 2018, https://arxiv.org/abs/1804.10959; Viterbi 1967. Chapter: docs/unigram.md
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from minipoet.checks import expect
from minipoet.tokenization.published import PublishedTokenizer
from minipoet.tokenization.sentencepiece import SPACE

UNKNOWN_PENALTY = 10.0  # kUnkPenalty of sentencepiece's unigram_model.cc


class Unigram:
    """Pieces with scores, the natural logarithms of their probabilities."""

    def __init__(self, scores: Mapping[str, float]) -> None:
        expect(scores, Mapping, "scores", "a dictionary of pieces and their scores")
        if not scores:
            raise ValueError("scores is empty: without pieces nothing can be cut into them.")
        self.scores = dict(scores)
        self.unknown = min(scores.values()) - UNKNOWN_PENALTY
        self.longest = max(map(len, scores))

    def segment(self, word: str) -> list[str]:
        """The best cut. Time: the length of the word times that of the longest piece."""
        best = [0.0] + [-math.inf] * len(word)
        begins = [0] * (len(word) + 1)  # where the last piece of the best cut of word[:end] begins
        for begin in range(len(word)):
            for end in range(begin + 1, min(begin + self.longest, len(word)) + 1):
                score = self.scores.get(word[begin:end])
                if score is None and end == begin + 1:
                    score = self.unknown
                if score is not None and best[begin] + score > best[end]:
                    best[end], begins[end] = best[begin] + score, begin
        cut: list[str] = []
        end = len(word)
        while end > 0:
            piece = word[begins[end] : end]
            if cut and piece not in self.scores and cut[-1] not in self.scores:
                cut[-1] = piece + cut[-1]
            else:
                cut.append(piece)
            end = begins[end]
        return cut[::-1]

    def pieces(self, text: str) -> list[str]:
        """The pieces of a text whose characters are normalised: each word begins with its space, written "▁"."""
        return [piece for word in text.split() for piece in self.segment(SPACE + word)]

    def score(self, pieces: list[str]) -> float:
        """The logarithm of the probability of some pieces, one after another."""
        return sum(self.scores.get(piece, self.unknown) for piece in pieces)


def segment(word: str, scores: Mapping[str, float]) -> list[str]:
    """The best cut of a word (`Unigram.segment`); for many words make a `Unigram` once."""
    return Unigram(scores).segment(word)


def unigram_scores(tokenizer: PublishedTokenizer) -> dict[str, float]:
    """The ordinary pieces of a unigram tokenizer and their scores. Raises ValueError for another kind of tokenizer."""
    expect(tokenizer, PublishedTokenizer, "The tokenizer", "a PublishedTokenizer with a unigram model")
    model, added = tokenizer.spec["model"], tokenizer.spec.get("added_tokens") or []
    if model.get("type") != "Unigram":
        raise ValueError(f"The tokenizer must be a unigram model, and is of the type {model.get('type')!r}.")
    special = {entry["content"] for entry in added}
    return {piece: score for piece, score in model["vocab"] if piece not in special}
