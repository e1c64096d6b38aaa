"""A vocabulary that is a list of whole pieces of text: what the tokenizer of letters and that of words have in common.

    ListedTokenizer     ids, special tokens, what the list lacks, the files of a folder; `CharTokenizer` and
                        `WordTokenizer` add how a text is cut and how it is put together again

The id of a token is its place: `<pad>` 0, `<s>` 1, `</s>` 2, `<unk>` 3 where there is one, then what the texts have. No
cut makes a piece like "<s>", so a text that spells a special token is only its letters.
Chapters: docs/letters.md, docs/words.md
"""

from __future__ import annotations

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any, ClassVar, TypeVar

from minipoet.checks import as_ids, as_path, each, expect
from minipoet.files import read_json, write_json_atomic
from minipoet.tokenization.chat import ChatTemplate

BOS, EOS, PAD, UNK = "<s>", "</s>", "<pad>", "<unk>"
NAMED = 20  # unknown pieces that a message lists
Listed = TypeVar("Listed", bound="ListedTokenizer")


class ListedTokenizer(ABC):
    """Text to ids and back by a list of pieces. See `Tokenizer` for the methods."""

    kind: ClassVar[str]
    marks: ClassVar[tuple[str, ...]] = ()  # ordinary tokens that no text spells; they stand before those of the texts
    chat: ChatTemplate | None = None  # it has no markers for a conversation
    chat_text: str | None = None

    def __init__(self, tokens: Sequence[str], unk: bool) -> None:
        """Build from the tokens of the texts, in the order of their ids, and whether there is an `<unk>`.

        Raises ValueError with every problem of the list at once.
        """
        tokens = list(each(tokens, str, "The tokens", "strings"))
        expect(unk, bool, "unk", "True or False")
        if problems := _problems(tokens) + self.problems(tokens):
            raise ValueError(f"this is no vocabulary of {self.kind}: {'; '.join(problems)}")
        specials = [PAD, BOS, EOS, *[UNK] * unk]
        self.vocab = {token: id for id, token in enumerate([*specials, *self.marks, *tokens])}
        self._special_ids = {name: self.vocab[name] for name in specials}
        self._piece_ids = _PieceIds({token: self.vocab[token] for token in tokens}, self.unk_id)

    @classmethod
    @abstractmethod
    def problems(cls, tokens: Sequence[str]) -> list[str]:
        """What keeps tokens from being pieces of this kind; empty if all is well."""

    @abstractmethod
    def pieces(self, text: str) -> Sequence[str]:
        """The text cut into the pieces that are looked up."""

    @abstractmethod
    def _cut(self, text: str) -> list[int]:
        """The ids of a text, by `_piece_ids`."""

    @abstractmethod
    def _join(self, ids: Sequence[int]) -> str:
        """The text of ids that are in the vocabulary."""

    @property
    def vocab_size(self) -> int:
        return len(self.vocab)

    @property
    def special_ids(self) -> dict[str, int]:
        return dict(self._special_ids)

    @property
    def spare_ids(self) -> list[int]:
        return []

    @property
    def bos_id(self) -> int:
        return self._special_ids[BOS]

    @property
    def eos_id(self) -> int:
        return self._special_ids[EOS]

    @property
    def eos_ids(self) -> list[int]:
        return [self.eos_id]

    @property
    def pad_id(self) -> int:
        return self._special_ids[PAD]

    @property
    def unk_id(self) -> int | None:
        """The id of what the vocabulary lacks, if there is one."""
        return self._special_ids.get(UNK)

    def encode(self, text: str) -> list[int]:
        """The ids of a text. What the vocabulary lacks becomes `<unk>`; without `<unk>` it is a ValueError."""
        expect(text, str, "The text", "a string", "for several use encode_batch")
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text; the error names what is unknown in all of them."""
        texts = list(each(texts, str, "The texts", "strings"))
        try:
            return [self._cut(text) for text in texts]
        except KeyError:
            raise self._unknown_error(texts) from None

    def unknown(self, text: str) -> list[str]:
        """The pieces of a text that the vocabulary lacks, in order, repeated as they come."""
        expect(text, str, "The text", "a string")
        return [piece for piece in self.pieces(text) if piece not in self._piece_ids]

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of some ids; special tokens, `<unk>` among them, are left out or written by name."""
        ids = as_ids(ids)
        if ids and not 0 <= min(ids) <= max(ids) < self.vocab_size:
            wrong = next(id for id in ids if not 0 <= id < self.vocab_size)
            raise ValueError(
                f"id {wrong} is none of this tokenizer's, which are 0 to {self.vocab_size - 1}; "
                "a model with more rows must mask the rest before it samples"
            )
        if skip_special:
            ids = [id for id in ids if id >= len(self._special_ids)]
        return self._join(ids)

    def save(self, folder: str | PathLike[str]) -> None:
        """Write vocab.json (token -> id) and tokenizer_config.json, each whole or not at all."""
        folder = as_path(folder, "The folder to save to")
        write_json_atomic(folder / "vocab.json", self.vocab, indent=None)
        write_json_atomic(folder / "tokenizer_config.json", {"minipoet": self.kind})

    @classmethod
    def from_folder(cls: type[Listed], folder: str | PathLike[str]) -> Listed:
        """Read what `save` wrote. Raises FileNotFoundError or ValueError that names the file."""
        path = as_path(folder, "The folder of a tokenizer") / "vocab.json"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: a tokenizer of {cls.kind} needs it; save the tokenizer again.")
        vocab = read_json(path)
        try:
            tokens = _by_id(vocab)
            unk = tokens[3:4] == [UNK]
            first = [PAD, BOS, EOS, *[UNK] * unk, *cls.marks]
            if tokens[: len(first)] != first:
                raise ValueError(f"it begins with {tokens[: len(first)]} instead of {first}")
            return cls(tokens[len(first) :], unk)
        except ValueError as error:
            raise ValueError(f"{path} cannot be used: {error}. Save the tokenizer again.") from error

    def _unknown_error(self, texts: Sequence[str]) -> ValueError:
        unknown = list(dict.fromkeys(piece for text in texts for piece in self.unknown(text)))
        named = ", ".join(map(_shown, unknown[:NAMED])) + (", …" if len(unknown) > NAMED else "")
        return ValueError(
            f"This vocabulary of {self.kind} lacks some of the text: {named}. Write it without them, or make the "
            "tokenizer from texts that have them, or with unk=True, which reads them as <unk>."
        )


class _PieceIds(dict[str, int]):
    """Piece -> id; the id of `<unk>` for one that is not there, KeyError without `<unk>`."""

    def __init__(self, ids: dict[str, int], unk_id: int | None) -> None:
        super().__init__(ids)
        self._unk_id = unk_id

    def __missing__(self, piece: str) -> int:
        if self._unk_id is None:
            raise KeyError(piece)
        return self._unk_id


def _problems(tokens: Sequence[str]) -> list[str]:
    """What keeps tokens of any kind from being a vocabulary; empty if all is well."""
    problems = []
    if not tokens:
        problems.append("it has nothing but special tokens")
    if twice := len(tokens) - len(set(tokens)):
        problems.append(f"{twice} tokens are in it twice")
    if broken := [token for token in tokens if any("\ud800" <= letter <= "\udfff" for letter in token)]:
        problems.append(
            f"{len(broken)} tokens have a lone surrogate, which is no character, the first {broken[0]!r}: "
            'clean the texts first, e.g. text.encode("utf-8", "replace").decode()'
        )
    return problems


def _by_id(vocab: Any) -> list[str]:
    """The tokens of the content of a vocab.json, by their ids."""
    if not isinstance(vocab, dict) or not all(type(id) is int for id in vocab.values()):
        raise ValueError("expected an object that maps tokens to ids")
    if sorted(vocab.values()) != list(range(len(vocab))):
        raise ValueError(f"the ids of its {len(vocab)} tokens are not 0 to {len(vocab) - 1}, each once")
    return sorted(vocab, key=vocab.__getitem__)


def _shown(piece: str) -> str:
    """A piece in quotes; an accent, which would sit on the quote, by its number."""
    return ascii(piece) if unicodedata.combining(piece[0]) else repr(piece)
