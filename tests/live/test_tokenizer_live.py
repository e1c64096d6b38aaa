"""Byte-level BPE against the tokenizers library, on random strings and on every code point (seeds: live_support)."""

import random

import pytest

pytest.importorskip("tokenizers")

from live_support import SEEDS, TOKENIZER
from tokenizers import Tokenizer

import minipoet

AWKWARD = [
    *" \n\t\r\u00a0\u0085\u001c\u2028\u200b\u200d\ufeff'’½Ⅷ²٣\u0301🦉",
    "'s",
    "'re",
    "  ",
    "the",
    " река",
    "</s>",
    "<pad>",
]
LETTERS = [chr(c) for c in [*range(0x20, 0x7F), *range(0x410, 0x450)]]


def their_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(TOKENIZER / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    return tokenizer


@pytest.mark.parametrize("seed", SEEDS)
def test_random_strings_get_the_ids_of_the_library_and_come_back(seed: int) -> None:
    ours, reference, rng = minipoet.load_tokenizer(TOKENIZER), their_tokenizer(), random.Random(seed)
    for _ in range(1000):
        text = "".join(rng.choices(LETTERS + AWKWARD * 4, k=rng.randint(0, 40)))
        assert ours.encode(text) == reference.encode(text).ids, repr(text)
        assert ours.decode(ours.encode(text)) == text


@pytest.mark.parametrize("seed", SEEDS)
def test_random_ids_give_the_text_of_the_library(seed: int) -> None:
    ours, reference, rng = minipoet.load_tokenizer(TOKENIZER), their_tokenizer(), random.Random(seed)
    for _ in range(1000):
        ids = [rng.randrange(reference.get_vocab_size()) for _ in range(rng.randint(0, 12))]
        assert ours.decode(ids) == reference.decode(ids), ids
        assert ours.decode(ids, skip_special=False) == reference.decode(ids, skip_special_tokens=False), ids


def test_every_code_point_is_split_as_in_the_library() -> None:
    ours, reference = minipoet.load_tokenizer(TOKENIZER), their_tokenizer()
    for plane in range(0, 0x110000, 0x100):
        letters = [chr(c) for c in range(plane, plane + 0x100) if not 0xD800 <= c < 0xE000]
        text = "".join(f"a{c}b {c}1{c} " for c in letters)
        assert ours.encode(text) == reference.encode(text).ids, hex(plane)
