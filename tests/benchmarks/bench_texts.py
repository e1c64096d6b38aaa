"""Texts for the benchmark of BPE: from a file, or invented, the same bytes on every machine.

    read_texts        the first megabytes of a corpus, in pieces of about 4,000 letters
    pseudo_russian    lines with the statistics of Russian prose that byte-level BPE feels

The invented words are syllables with real endings, drawn by Zipf's law: about as many different words, as many that
stand once, and as large a share of the commonest ones as in prose of that size; only they are a fifth longer. Merges
learnt from them are of no use, but take about as long to learn.
"""

from __future__ import annotations

import random
from itertools import accumulate
from pathlib import Path

from minipoet.text import read_records
from minipoet.text.records import is_records_file, read_text

PIECE = 4_000  # letters
CONSONANTS, VOWELS = "нтсрвлкмдпгзбчйхжшцщф", "оеаиуыяюё"
ONSETS = ("", *CONSONANTS, *(first + second for first in "пркстгвбд" for second in "рлвн"))
ENDINGS = [
    "а", "о", "и", "у", "ы", "е", "й", "ть", "ал", "ла", "ли", "ого", "ому", "ой", "ый", "ая", "ое", "ые", "ами", "ах",
    "ов", "ом", "ей", "ет", "ит", "ют", "ят", "лся", "лась", "ться", "ный", "ного", "ешь", "вший", "ение", "ость",
]  # fmt: skip


def read_texts(corpus: Path | None, size: int) -> list[str]:
    """The first `size` bytes of the corpus or a little more, in pieces of about PIECE letters."""
    if corpus is None:
        lines = pseudo_russian(size)
    elif is_records_file(corpus):
        lines = [line for record in read_records(corpus) for line in record.text.split("\n")]
    else:
        lines = read_text(corpus).split("\n")
    texts, piece = [], ""
    for line in lines:
        piece += line + "\n"
        if len(piece) >= PIECE:
            texts.append(piece)
            size -= len(piece.encode())
            piece = ""
        if size <= 0:
            return texts
    return [*texts, piece] if piece else texts


def pseudo_russian(size: int) -> list[str]:
    """Lines of a sentence each, `size` bytes of UTF-8 or a little more in all."""
    source = random.Random(0)
    syllables = [onset + vowel + end for onset in ONSETS for vowel in VOWELS for end in ("", "", "", *"нрлст")]
    source.shuffle(syllables)
    common, forms = zipf(len(syllables), 10), 250_000

    def stem(length: int) -> str:
        return "".join(source.choices(syllables, cum_weights=common, k=length))

    stems = [stem(source.choice((1, 2, 2, 2, 3))) for _ in range(30_000)]
    endings = source.choices(ENDINGS, cum_weights=zipf(len(ENDINGS), 5), k=forms)
    words = [stem(1) for _ in range(100)]  # as short as the commonest words are
    words += [start + end for start, end in zip(source.choices(stems, k=forms), endings, strict=True)]
    weights = zipf(len(words), 2, 1.05)
    lines = []
    while size > 0:
        sentence = " ".join(source.choices(words, cum_weights=weights, k=source.randint(4, 16)))
        lines.append(source.choice(("", "— ")) + sentence.capitalize() + source.choice(".,.!?…"))
        size -= len(lines[-1].encode()) + 1
    return lines


def zipf(count: int, start: int, power: float = 1.0) -> list[float]:
    """Cumulative weights 1 / (start + i)^power."""
    return list(accumulate((start + i) ** -power for i in range(count)))
