"""How alike are a few words and each of many texts? The cosine of their tf–idf vectors, over stems.

    weight(stem, text) = (1 + ln tf) · ln(N / df)        likeness(a, b) = Σ weight(s, a) · weight(s, b) / (|a| · |b|)

tf is how often the text has the stem, df how many of the N texts have it. A word that all texts have weighs nothing, so
the words that stand in every request («Напиши стихотворение…») do not count; nor do pronouns and particles (`STOP`).
1 is a text of the same words in the same proportions, 0 one without a word in common. Meaning is not seen: «осень» and
«листопад» have nothing in common here. (Salton, Wong, Yang, "A Vector Space Model for Automatic Indexing", 1975.)

    Likeness(texts).scores(query)    one number a text, from an inverted index: only texts with a word of the query
                                     are visited

Chapter: docs/few-shot.md
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from math import log, sqrt

from minipoet.checks import each, expect
from minipoet.text.keywords import SHORTEST, stem
from minipoet.text.stems import STOP, WORD, fold


class Likeness:
    """The texts as vectors of length 1: stem -> which of them have it, and with which weight. Errors as for `each`."""

    def __init__(self, texts: Iterable[str]) -> None:
        counts = [_stems(text) for text in each(texts, str, "The texts", "strings")]
        self.texts = len(counts)
        documents = Counter(key for count in counts for key in count)
        self._rarity = {key: log(self.texts / seen) for key, seen in documents.items()}
        self._holders: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
        for number, count in enumerate(counts):
            for key, weight in self._vector(count).items():
                self._holders[key].append((number, weight))

    def scores(self, query: str) -> list[float]:
        """From 0 to 1 for each text. Words that no text has say nothing of any, and are passed over."""
        expect(query, str, "What the texts are compared with", "a string")
        found = [0.0] * self.texts
        for key, weight in self._vector(_stems(query)).items():
            for number, its in self._holders[key]:
                found[number] += weight * its
        return found

    def _vector(self, count: Counter[str]) -> dict[str, float]:
        """The weights of the known stems that tell texts apart, divided by their length."""
        weights = {key: (1 + log(tf)) * rarity for key, tf in count.items() if (rarity := self._rarity.get(key, 0))}
        length = sqrt(sum(weight * weight for weight in weights.values()))
        return {key: weight / length for key, weight in weights.items()}


def _stems(text: str) -> Counter[str]:
    return Counter(stem(word) for word in WORD.findall(text) if len(word) >= SHORTEST and fold(word) not in STOP)
