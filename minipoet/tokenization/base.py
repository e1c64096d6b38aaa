"""What every tokenizer of the package can do, and how its ids become text one by one.

    Tokenizer       the protocol: text -> ids -> text, ids of the special tokens by name
    StreamDecoder   ids come one at a time, complete characters go out

A model sees only ids. Whether they were letters, words or byte pairs is nobody's business outside this room.
Chapter: docs/tokenization.md
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Protocol, runtime_checkable

from minipoet.checks import each, expect_tokenizer
from minipoet.tokenization.chat import ChatTemplate

BETWEEN_TEXTS = "<|endoftext|>"


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids and back.

    chat: the form in which its model learnt to talk, None if it did not or if the form is unknown; it may be set.
    chat_text: how the model's publisher wrote that form down. `chat_template(tokenizer)` says which it is, or why not.
    """

    chat: ChatTemplate | None
    chat_text: str | None

    @property
    def vocab_size(self) -> int:
        """How many ids there are: one more than the largest. A model may have more rows; those are padding."""

    @property
    def special_ids(self) -> dict[str, int]:
        """Special string -> id, e.g. `{"<pad>": 0, "<s>": 1, "</s>": 2}`."""

    @property
    def spare_ids(self) -> list[int]:
        """The ids below vocab_size that no token has: a gap before an added token. They must not be drawn."""

    @property
    def bos_id(self) -> int | None:
        """The id that begins a text, if the tokenizer has one."""

    @property
    def eos_id(self) -> int | None:
        """The id that ends a text, if the tokenizer has one."""

    @property
    def eos_ids(self) -> list[int]:
        """All ids that end a text, eos_id first: a model that talks also ends its answers (`<|im_end|>`)."""

    @property
    def pad_id(self) -> int | None:
        """The id that fills up a row, if the tokenizer has one."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text. Adds nothing at either end; a text that spells a special token never yields its id."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text."""

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of some ids. Bytes that are no UTF-8 become U+FFFD; an unknown id is a ValueError."""

    def save(self, folder: str | PathLike[str]) -> None:
        """Write the files from which `load_tokenizer(folder)` rebuilds the tokenizer."""


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text between its start and its end, as models learn them.

    What begins a text: `start_id`. Raises ValueError for a tokenizer that names no end token (eos): a text could not
    end.
    """
    expect_tokenizer(tokenizer)
    texts = list(each(texts, str, "The texts", "strings"))
    start = start_id(tokenizer)
    if start is None or tokenizer.eos_id is None:
        raise ValueError("This model's tokenizer names no token for the end of a text (eos): a poem could not end.")
    return [[start, *ids, tokenizer.eos_id] for ids in tokenizer.encode_batch(texts)]


def start_id(tokenizer: Tokenizer) -> int | None:
    """The id that a text begins with: bos; without one `<|endoftext|>`, which parts texts in GPT-2 and Qwen; else eos.

    (The end of a chat model, `<|im_end|>`, ends what somebody said, and no text begins behind it.)
    """
    known = (tokenizer.bos_id, tokenizer.special_ids.get(BETWEEN_TEXTS), tokenizer.eos_id)
    return next((id for id in known if id is not None), None)


class StreamDecoder:
    """Turns a growing list of ids into text without decoding the whole list anew at each step.

    One character may be split over several tokens ("д" is two bytes, "🌲" four), so `push` returns only what is
    complete and keeps the rest back. Pushed piece by piece or decoded at once, the text is the same.

        decoder = StreamDecoder(tokenizer)
        for id in ids:
            print(decoder.push(id), end="")
        print(decoder.finish())

    A tokenizer with a method `token_bytes(id) -> bytes` is read byte by byte. Any other is asked to decode a short
    window: the tokens of the last output for context (a word may take its space from what stands before it) and
    those that came since.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special: bool = True) -> None:
        expect_tokenizer(tokenizer)
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._special = frozenset(tokenizer.special_ids.values())
        self._token_bytes = getattr(tokenizer, "token_bytes", None)
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._context: list[int] = []
        self._waiting: list[int] = []

    def push(self, id: int) -> str:
        """Take the next id, return the characters that it completes (often none, sometimes several)."""
        if self._skip_special and id in self._special:
            return ""
        if self._token_bytes is not None:
            return self._utf8.decode(self._token_bytes(id))
        self._waiting.append(id)
        return self._decode_window(final=False)

    def finish(self) -> str:
        """Return what was held back, a broken character as U+FFFD, and be ready for the next text."""
        rest = self._utf8.decode(b"", final=True)
        if self._waiting:
            rest += self._decode_window(final=True)
        self._utf8.reset()
        self._context, self._waiting = [], []
        return rest

    def _decode_window(self, final: bool) -> str:
        known = self._tokenizer.decode(self._context, self._skip_special)
        text = self._tokenizer.decode(self._context + self._waiting, self._skip_special)
        # A character has at most 4 bytes: what is still broken after 4 tokens will not be mended by a fifth.
        if text.endswith("\ufffd") and len(self._waiting) < 4 and not final:
            return ""
        if len(text) > len(known):  # a token without text of its own must not push the context out
            self._context, self._waiting = self._waiting, []
        return text[len(known) :]
