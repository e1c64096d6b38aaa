"""The longest copied run of each text, where the training verse is too large to be indexed.

`CopyIndex` keeps every pair of words of the training verse, some hundred bytes each: 100,000 poems are gigabytes. What
a model wrote is small. So here that is indexed, and the training verse is read past it once, a poem at a time. The
runs are the same; what is not told is where they come from.

    copied_words    words in the longest run of each text

The table of the longest common substring is symmetric, and is filled along the other side. Chapter: docs/lora.md
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from minipoet.checks import each
from minipoet.text.dedup import word_key


def copied_words(texts: Sequence[str], training: Iterable[str]) -> list[int]:
    """How many words has the longest run that a text shares with one training text? `CopyIndex.longest_run`'s words.

    Raises ValueError for what are no texts, and if there is no word in the training verse.
    """
    owners: list[int] = []  # which text does the word at each place belong to, all texts in a row?
    ends: defaultdict[tuple[str, str], list[int]] = defaultdict(list)  # of a pair of words: the places of its first
    unmet: dict[str, set[int]] = {}  # the texts that have a word, until the training verse has it too
    for number, text in enumerate(each(texts, str, "The texts", "strings")):
        words = word_key(text).split()
        for place, pair in enumerate(zip(words, words[1:], strict=False), start=len(owners)):
            ends[pair].append(place)
        for word in words:
            unmet.setdefault(word, set()).add(number)
        owners += [number] * len(words)
    best, any_word = [0] * len(texts), False
    for verse in each(training, str, "The training verse", "texts"):
        words = word_key(verse).split()
        any_word = any_word or bool(words)
        for word in unmet.keys() & set(words):
            for number in unmet.pop(word):
                best[number] = max(best[number], 1)
        lengths: dict[int, int] = {}  # the run whose last pair is at a place of the texts and here
        for pair in zip(words, words[1:], strict=False):
            lengths = {place: lengths.get(place - 1, 1) + 1 for place in ends.get(pair, ())}
            for place, length in lengths.items():
                best[owners[place]] = max(best[owners[place]], length)
    if not any_word:
        raise ValueError("There is no word in the training verse to look for.")
    return best
