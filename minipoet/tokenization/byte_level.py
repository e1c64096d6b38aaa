r"""The two ideas of GPT-2 that come before any merge: bytes as letters, and the cut into words.

    byte_alphabet   256 printable characters, one for each byte: every text can be written, nothing is "unknown"
    split_words     the cut: a merge never crosses the border of a word, so " кот" is learnt, "кот сидит" is not

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.2. The cut is GPT-2's regular
expression `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`, whose classes Python's
`re` does not know: `\d` is narrower than `\p{N}` (½, Ⅷ), `\s` is wider than Unicode's white space (U+001C).
Chapter: docs/tokenization.md
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

# Letters and numbers that Unicode 15.0, 15.1 and 16.0 added to 14.0. Python 3.11 knows 14.0, `tokenizers` 16.0, and two
# readers must cut one text in one way. Pairs "first-last", hexadecimal.
NEW_LETTERS = (
    "1c89-1c8a a7cb-a7cd a7da-a7dc 105c0-105f3 10d4a-10d65 10d6f-10d85 10ec2-10ec4 1123f-11240 11380-11389 "
    "1138b-1138b 1138e-1138e 11390-113b5 113b7-113b7 113d1-113d1 113d3-113d3 11bc0-11be0 11f02-11f02 11f04-11f10 "
    "11f12-11f33 1342f-1342f 13441-13446 13460-143fa 16100-1611d 16d40-16d6c 18cff-18cff 1b132-1b132 1b155-1b155 "
    "1df25-1df2a 1e030-1e06d 1e4d0-1e4eb 1e5d0-1e5ed 1e5f0-1e5f0 2b739-2b739 2ebf0-2ee5d 31350-323af"
)
NEW_NUMBERS = (
    "10d40-10d49 116d0-116e3 11bf0-11bf9 11f50-11f59 16130-16139 16d70-16d79 1ccf0-1ccf9 1d2c0-1d2d3 1e4f0-1e4f9 "
    "1e5f1-1e5fa"
)
LAST_LETTER = 0x323AF  # in Unicode 16.0; all numbers come before it too
# Unicode's White_Space property. Python's \s has U+001C..U+001F besides.
WHITE_SPACE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
# Within these ranges (Latin, Greek, Cyrillic, … up to Arabic; punctuation; ₽, №) Python's own classes say the same as
# Unicode's, and they are several times as fast as a class of 800 ranges.
SIMPLE = "\t-\r\x20-\xb1\xb4-\xb8\xba\xbb\xbf-\u0887\u2000-\u206f\u20a0-\u214f"


@cache
def byte_alphabet() -> dict[int, str]:
    """Byte -> its character. Printable Latin-1 stands for itself, the other 68 bytes move to U+0100 and on.

    So a token can be written into a file and read by eye: the space is "Ġ", the newline "Ċ", "д" (D0 B4) is "Ð´".
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    moved = iter(range(0x100, 0x200))
    return {byte: chr(byte if byte in printable else next(moved)) for byte in range(256)}


@cache
def alphabet_bytes() -> dict[str, int]:
    """Character of the alphabet -> its byte, the inverse of `byte_alphabet`."""
    return {character: byte for byte, character in byte_alphabet().items()}


def split_words(text: str) -> list[str]:
    """Cut a text as GPT-2 does. Nothing is lost: `"".join(split_words(text)) == text`.

    `split_words("Шёл 2-й год,  и") == ["Шёл", " 2", "-", "й", " год", ",", " ", " и"]`
    """
    if _outside_simple().search(text) is None:
        return _simple_words().findall(text)
    return _exact_words().findall(text)


@cache
def _outside_simple() -> re.Pattern[str]:
    return re.compile(f"[^{SIMPLE}]")


@cache
def _simple_words() -> re.Pattern[str]:
    letter, other = r"[^\W\d_]", r"(?:[^\w\s]|_)"
    return re.compile(rf" ?{letter}+|'(?:[stmd]|re|ve|ll)| ?\d+| ?{other}+|\s+(?!\S)|\s+")


@cache
def _exact_words() -> re.Pattern[str]:
    letter, number, space = unicode_class("L", NEW_LETTERS), unicode_class("N", NEW_NUMBERS), WHITE_SPACE
    other = f"[^{space}{letter}{number}]"
    return re.compile(
        f" ?[{letter}]+|'(?:[stmd]|re|ve|ll)| ?[{number}]+| ?{other}+|[{space}]+(?![^{space}])|[{space}]+"
    )


def unicode_class(category: str, added: str) -> str:
    """The inside of a `[...]` with all characters of a general category ("L", "N") and the ranges in `added`."""
    codes = {code for code in range(LAST_LETTER + 1) if unicodedata.category(chr(code))[0] == category}
    for pair in added.split():
        start, end = pair.split("-")
        codes.update(range(int(start, 16), int(end, 16) + 1))
    first = [code for code in sorted(codes) if code - 1 not in codes]
    last = [code for code in sorted(codes) if code + 1 not in codes]
    return "".join(f"\\U{a:08x}-\\U{b:08x}" for a, b in zip(first, last, strict=True))
