"""chrF against sacrebleu on random strings: orders, several references, one text and many (seeds: live_support)."""

import random

import pytest

pytest.importorskip("sacrebleu")

from live_support import SEEDS
from sacrebleu.metrics import CHRF

from minipoet.evaluation import chrf, chrf_rows, sentence_chrf

SMALL = "аб "  # much in common
WIDE = [*"абвгдежзик ёЁé.,!?-—«»()'\"\n\t\r\u00a0\u2028\u0085\u200b\u0301🦉", "...", " — ", "вода ", " и "]


def random_text(draw: random.Random) -> str:
    return "".join(draw.choices(draw.choice((SMALL, WIDE)), k=draw.choice((0, 1, 2, 5, 12, 60))))


def random_options(draw: random.Random) -> dict[str, int]:
    usual = {"char_order": 6, "word_order": draw.choice((0, 2)), "beta": 2}
    other = {"char_order": draw.randint(1, 8), "word_order": draw.randint(0, 3), "beta": draw.randint(1, 4)}
    return draw.choice((usual, other))


@pytest.mark.parametrize("seed", SEEDS)
def test_random_texts_get_the_figures_of_sacrebleu(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(40):
        options = random_options(draw)
        texts = [random_text(draw) for _ in range(draw.randint(1, 8))]
        streams = [[random_text(draw) for _ in texts] for _ in range(draw.randint(1, 3))]
        references = [list(several) for several in zip(*streams, strict=True)]
        reference = CHRF(**options)
        told = (texts, references, options)
        alone = [reference.sentence_score(text, several).score for text, several in zip(texts, references, strict=True)]
        assert [sentence_chrf(*pair, **options) for pair in zip(texts, references, strict=True)] == pytest.approx(
            alone, abs=1e-9
        ), told
        assert chrf_rows(texts, references, **options).by_text == pytest.approx(alone, abs=1e-9), told
        together = reference.corpus_score(texts, streams).score
        assert chrf(texts, references, **options) == pytest.approx(together, abs=1e-9), told
