"""Every letter is a token: the smallest vocabulary there is, and the longest texts.

    CharTokenizer   one id a character (line breaks and spaces are characters too), in the order of Unicode

A letter that the texts did not have has no id: that is an error that names it, or `<unk>` if the tokenizer was made
with one. Chapter: docs/letters.md
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from minipoet.checks import each, expect_whole
from minipoet.tokenization.listed import ListedTokenizer


class CharTokenizer(ListedTokenizer):
    """A vocabulary of letters. See `Tokenizer` for the methods.

    `CharTokenizer.from_texts(["дом"]).encode("мод") == [4, 5, 3]`: 0, 1 and 2 are special, then д, м, о.
    """

    kind = "chars"

    def __init__(self, letters: Sequence[str], unk: bool = False) -> None:
        super().__init__(letters, unk)
        self._texts = list(self.vocab)

    @classmethod
    def from_texts(cls, texts: Iterable[str], min_count: int = 1, unk: bool | None = None) -> CharTokenizer:
        """The letters that stand at least `min_count` times in the texts, in the order of their code points.

        There is an `<unk>` if letters may be cut (`min_count` over 1), or as `unk` says. Raises ValueError if no letter
        is left.
        """
        expect_whole(1, min_count=min_count)
        counts: Counter[str] = Counter()
        for text in each(texts, str, "The texts", "strings"):
            counts.update(text)
        letters = sorted(letter for letter, count in counts.items() if count >= min_count)
        if not letters:
            raise ValueError(
                f"The vocabulary would be empty: of the {counts.total()} letters of the texts none stands {min_count} "
                "times; give more text, or a smaller min_count."
            )
        return cls(letters, min_count > 1 if unk is None else unk)

    @classmethod
    def problems(cls, tokens: Sequence[str]) -> list[str]:
        wrong = [token for token in tokens if len(token) != 1]
        return [f"{len(wrong)} tokens are not one letter, the first is {wrong[0]!r}"] if wrong else []

    def pieces(self, text: str) -> Sequence[str]:
        return text

    def _cut(self, text: str) -> list[int]:
        return list(map(self._piece_ids.__getitem__, text))

    def _join(self, ids: Sequence[int]) -> str:
        return "".join(map(self._texts.__getitem__, ids))
