"""What an unknown word costs: its letters, one by one, under an n-gram model of rare words.

A word model that says "some unknown word" has not said which. To be compared with models that spell everything, in
bits per character, it must pay for the letters too:

    p(word) = p(<unk>) · p(letters | a word that the vocabulary lacks)

    Spelling           p(letters | …): learn it on the words that the vocabulary lacks in the *training* texts
    unseen_letters     what remains to be said of letters that a model has no sign for

The unknown words of new texts are other words of the same kind: long, inflected, seldom written. A word ends with a
sign of its own, so that "вод" is not the beginning of "вода" but a word; the shares of all words add up to no more than
1, as those of a probability do. (They stay below 1: the known words could be spelt too, and no word is empty.) A letter
that no rare word had, costs what the n-gram keeps for a letter never seen, and then the choice among all of Unicode's
1,114,112 code points, ln 1,114,112 = 13.9 nats: nothing costs infinitely much, and nothing is free.

Chapter: docs/words.md
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from minipoet.checks import each, expect
from minipoet.models.ngram import NGram

CODE_POINTS = 1_114_112  # 0 to 10FFFF: The Unicode Standard, section 2.4
EDGE, UNSEEN = 0, 1  # before the first letter (only read) and after the last; a letter never seen


class Spelling:
    """A letter n-gram of words, repeated ones counted as often as they come. Raises ValueError for no words."""

    def __init__(self, words: Iterable[str], order: int = 6):
        words = list(each(words, str, "The words", "strings"))
        letters = sorted(set("".join(words)))
        if not letters:
            raise ValueError(
                "Spelling is learnt from words that the vocabulary lacks, and there is none: leave rare words out of "
                "the vocabulary (min_count=2), or give all words of the training texts."
            )
        self._ids = {letter: number for number, letter in enumerate(letters, UNSEEN + 1)}
        self._ngram = NGram(order, len(letters) + UNSEEN + 1)
        self._ngram.learn(map(self._spelt, words))

    def nll(self, word: str) -> float:
        """−ln p in nats of the letters of a word and of its end; always finite."""
        expect(word, str, "The word", "a string")
        return self._ngram.nll(self._spelt(word)) + unseen_letters(c for c in word if c not in self._ids)

    def _spelt(self, word: str) -> list[int]:
        """The ids of a word's letters, between its edges."""
        return [EDGE, *(self._ids.get(letter, UNSEEN) for letter in word), EDGE]


def unseen_letters(letters: Iterable[str]) -> float:
    """Nats to say which letters these are, each among all code points, after a model has said "one unknown to me"."""
    letters = letters if isinstance(letters, str) else "".join(each(letters, str, "The letters", "strings"))
    return len(letters) * math.log(CODE_POINTS)
