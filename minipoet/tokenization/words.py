"""Every word is a token: short texts, a vocabulary that never has enough.

    split_tokens    the cut: words, numbers, single signs, line breaks
    WordTokenizer   the frequent words; the others are `<unk>`; spaces follow from rules

A space is no token of its own: every second token would be one. Between two tokens there is a space unless one of
them is a sign that clings: "," to what stands before it, "(" to what follows, a line break to both. Where a text does
otherwise, one of two tokens says so: `<space>`, a space here, and `<join>`, none here. So nothing is lost but unknown
words: `decode(encode(text)) == text` if all words are known, whatever the spaces. (Beside `<unk>` no exception is told:
left out, it would leave a `<join>` between two words.) A space is written before a token and depends on that and the
last one alone, so a text can be told word by word.

A text is expected as `minipoet.text.clean_text` leaves it: an accent written as a character of its own is a sign here.
Chapter: docs/words.md
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from minipoet.checks import each, expect, expect_whole
from minipoet.tokenization.listed import UNK, ListedTokenizer

WORD = r"[^\W\d_]+(?:[-'’][^\W\d_]+)*"  # letters, with hyphens and apostrophes inside
PIECE = rf"{WORD}|\d+|[^ ]"
SPACE, JOIN = "<space>", "<join>"
CLINGS_LEFT = frozenset(",.;:!?…)]}>»“”%" + "\"'’-/")  # no space before it; „this“ is how Russian quotes within a quote
CLINGS_RIGHT = frozenset("([{<«„" + "\"'’-/")  # none after it

_PIECE = re.compile(PIECE)
_SPACES_AND_PIECE = re.compile(rf"( *)({PIECE}|\Z)")


def split_tokens(text: str) -> list[str]:
    """The words of a text, its numbers, every other character but the space by itself.

    `split_tokens("Кое-кто, 12 лет…\\n") == ["Кое-кто", ",", "12", "лет", "…", "\\n"]`
    """
    expect(text, str, "The text", "a string")
    return _PIECE.findall(text)


class WordTokenizer(ListedTokenizer):
    """A vocabulary of words as they are written, large and small letters apart. See `Tokenizer` for the methods.

    Ids 0 to 3 are special, 4 and 5 are `<space>` and `<join>`, then the words, the most frequent first. `decode` leaves
    `<unk>` out and its space with it, or writes it like any word with `skip_special=False`; `generate` never draws it.
    """

    kind = "words"
    marks = (SPACE, JOIN)

    def __init__(self, words: Sequence[str], unk: bool = True) -> None:
        super().__init__(words, unk)
        shown = {SPACE: " ", JOIN: ""}
        self._texts = [shown.get(token, token) for token in self.vocab]
        bare = {*self._special_ids, SPACE, JOIN} - {UNK}
        self._before = [_takes_space(token, bare, CLINGS_LEFT) for token in self.vocab]
        self._after = [_takes_space(token, bare, CLINGS_RIGHT) for token in self.vocab]

    @classmethod
    def from_texts(
        cls, texts: Iterable[str], min_count: int = 2, max_words: int | None = None, unk: bool = True
    ) -> WordTokenizer:
        """The words and signs that stand at least `min_count` times in the texts, at most `max_words` of them.

        The most frequent come first; of equally frequent ones, the first by code points. Raises ValueError if none is
        left.
        """
        expect_whole(1, min_count=min_count, **({} if max_words is None else {"max_words": max_words}))
        counts: Counter[str] = Counter()
        for text in each(texts, str, "The texts", "strings"):
            counts.update(split_tokens(text))
        words = sorted((word for word in counts if counts[word] >= min_count), key=lambda word: (-counts[word], word))
        if not words:
            raise ValueError(
                f"The vocabulary would be empty: of the {counts.total()} words and signs of the texts none stands "
                f"{min_count} times; give more text, or a smaller min_count."
            )
        return cls(words[:max_words], unk)

    @classmethod
    def problems(cls, tokens: Sequence[str]) -> list[str]:
        wrong = [token for token in tokens if not _PIECE.fullmatch(token)]
        return [f"{len(wrong)} tokens are not one word or sign, the first is {wrong[0]!r}"] if wrong else []

    def pieces(self, text: str) -> Sequence[str]:
        return split_tokens(text)

    def _cut(self, text: str) -> list[int]:
        space, join = self.vocab[SPACE], self.vocab[JOIN]
        unk = self.unk_id
        ids: list[int] = []
        last, after = -1, False
        for spaces, piece in _SPACES_AND_PIECE.findall(text):
            if not piece:  # the end of the text
                return ids + [space] * len(spaces)
            id = self._piece_ids[piece]
            if len(spaces) != (after and self._before[id]) and unk not in (last, id):
                ids += [space] * len(spaces) or [join]
            ids.append(id)
            last, after = id, self._after[id]
        return ids

    def _join(self, ids: Sequence[int]) -> str:
        parts = []
        after = False
        for id in ids:
            if after and self._before[id]:
                parts.append(" ")
            parts.append(self._texts[id])
            after = self._after[id]
        return "".join(parts)


def _takes_space(token: str, bare: set[str], clings: frozenset[str]) -> bool:
    return not (token in bare or token in clings or token.isspace())
