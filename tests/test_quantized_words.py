"""Values of a few bits in 32-bit words: by hand, and against NumPy's own bits."""

import numpy as np
import pytest
import torch
from quantized_support import numpy_words

from minipoet.quantization.words import BITS, pack, unpack


def word(value: int) -> int:
    """A word as int32 has it."""
    return value - 2**32 if value >= 2**31 else value


@pytest.mark.parametrize(
    ("bits", "values", "words"),
    [
        (4, [1, 2, 3, 4, 5, 6, 7, 8], [0x87654321]),
        (4, [7] * 8, [2004318071]),  # the zeros of a symmetric grid, 8, as AutoGPTQ keeps them
        (2, [0, 1, 2, 3] * 4, [0xE4E4E4E4]),
        (8, [1, 2, 3, 255], [0xFF030201]),
        (3, [5, 3] + [0] * 30, [0b011101, 0, 0]),
        (3, [0] * 10 + [5] + [0] * 21, [0x40000000, 0b1, 0]),  # 101: its low 01 ends the first word
        (3, [0] * 21 + [6] + [0] * 10, [0, 0, 0b11]),  # 110: its 0 ends the second word
        (3, [0] * 31 + [7], [0, 0, 0xE0000000]),
    ],
)
def test_words_by_hand(bits, values, words):
    column = torch.tensor(values)[:, None]
    assert pack(column, bits).flatten().tolist() == [word(value) for value in words]
    assert unpack(pack(column, bits), bits).flatten().tolist() == values


@pytest.mark.parametrize("bits", BITS)
def test_random_words_equal_numpys_both_ways(bits):
    values = np.random.default_rng(bits).integers(0, 2**bits, (96, 5))
    words = pack(torch.from_numpy(values), bits)
    assert words.dtype is torch.int32 and words.shape == (96 * bits // 32, 5)
    assert np.array_equal(words.numpy(), numpy_words(values, bits))
    back = unpack(torch.from_numpy(np.ascontiguousarray(numpy_words(values, bits))), bits)
    assert back.dtype is torch.uint8 and np.array_equal(back.numpy(), values)


def test_columns_are_packed_apart():
    assert pack(torch.tensor([[1, 2]] * 8), 4).tolist() == [[0x11111111, 0x22222222]]


@pytest.mark.parametrize(
    ("values", "bits", "message"),
    [
        (torch.zeros(12, 1), 4, "12 values of 4 bits do not fill whole words"),
        (torch.zeros(30, 1), 3, "32 fill 3"),
        (torch.full((8, 1), 16), 4, r"Values from 16 to 16 do not fit into 4 bits \(0 to 15\)"),
        (torch.full((8, 1), -1), 4, "Values from -1"),
        (torch.zeros(32, 1), 5, "2, 3, 4, 8 bits, got 5"),
    ],
)
def test_what_cannot_be_packed_is_told(values, bits, message):
    with pytest.raises(ValueError, match=message):
        pack(values, bits)


def test_words_cut_short_are_told():
    with pytest.raises(ValueError, match="4 words of 32 bits do not end with a value of 3 bits"):
        unpack(torch.zeros(4, 1, dtype=torch.int32), 3)
