"""Whole numbers of a few bits, side by side in 32-bit words: eight of 4 bits fill one, the first in the lowest bits.

    value      7    6    5    4    3    2    1    0
    bits     31…28  …    …    …    …   11…8 7…4  3…0

The bits of the values follow one another without a gap, so values of 3 bits, of which ten and two thirds fill a word,
cross its end: 32 of them fill three words, and the eleventh has two bits in the first word and one in the second.

    pack      values -> words, down the columns: (n, m) -> (n · bits / 32, m)
    unpack    back

Chapter: docs/int4.md
"""

from __future__ import annotations

from math import gcd

import torch
from torch import Tensor

WORD = 32
BITS = (2, 3, 4, 8)  # that words are filled with so; 5 to 7 are published in another order (bit by bit), not read here


def pack(values: Tensor, bits: int) -> Tensor:
    """(n, m) whole numbers from 0 to 2^bits - 1 -> (n · bits / 32, m) int32.

    Raises ValueError for other numbers of bits, values that do not fit, and columns that do not fill whole words.
    """
    per, many = _cycle(bits)
    n, m = values.shape
    if n % per:
        raise ValueError(f"{n} values of {bits} bits do not fill whole words of {WORD} bits: {per} fill {many}.")
    if values.numel() and (int(values.min()) < 0 or int(values.max()) >= 2**bits):
        least, most = int(values.min()), int(values.max())
        raise ValueError(f"Values from {least} to {most} do not fit into {bits} bits (0 to {2**bits - 1}).")
    values = values.to(torch.int32).view(n // per, per, m)
    words = values.new_zeros(n // per, many, m)
    for j in range(per):
        word, shift = divmod(bits * j, WORD)
        words[:, word] |= values[:, j] << shift
        if shift + bits > WORD:
            words[:, word + 1] |= values[:, j] >> (WORD - shift)
    return words.view(-1, m)


def unpack(words: Tensor, bits: int) -> Tensor:
    """(n · bits / 32, m) int32 -> (n, m) uint8. One value of each word at a time: nothing larger is made on the way."""
    per, many = _cycle(bits)
    rows, m = words.shape
    if rows % many:
        raise ValueError(f"{rows} words of {WORD} bits do not end with a value of {bits} bits: {per} fill {many}.")
    words = words.view(rows // many, many, m)
    values = torch.empty(rows // many, per, m, dtype=torch.uint8, device=words.device)
    for j in range(per):
        word, shift = divmod(bits * j, WORD)
        value = words[:, word] >> shift  # the sign comes down with it …
        if shift + bits > WORD:
            inside = WORD - shift
            value = (value & ((1 << inside) - 1)) | (words[:, word + 1] << inside)
        values[:, j] = value & (2**bits - 1)  # … and is cut off
    return values.view(-1, m)


def _cycle(bits: int) -> tuple[int, int]:
    """(values, words): after so many values a word ends where a value does."""
    if bits not in BITS:
        raise ValueError(f"Words are filled with values of {', '.join(map(str, BITS))} bits, got {bits!r}.")
    return WORD // gcd(bits, WORD), bits // gcd(bits, WORD)
