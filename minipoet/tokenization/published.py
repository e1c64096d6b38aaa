"""The tokenizer of a published model, behind the same protocol as our own: the `tokenizers` library does the work.

    PublishedTokenizer      from tokenizer.json, from T5's spiece.model (`sentencepiece.py`), or from vocab.json and
                            merges.txt (GPT-2, ruGPT-3, the first Qwen2; `bpe_files.py`)

A tokenizer.json describes the whole pipeline: normaliser, cut into words, model (BPE, unigram, …), decoder. We take it
as it is but for three things: nothing is added at either end, nothing is cut off or filled up, and a special token is
reached by its name only, never by text that spells it. Nothing in the folder is executed.
Chapter: docs/tokenization.md
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any

import tokenizers

from minipoet.checks import as_ids, as_path, each, expect
from minipoet.files import remove, write_json_atomic, write_text_atomic
from minipoet.tokenization.bpe import unicode_error
from minipoet.tokenization.bpe_files import old_spec, read_spec
from minipoet.tokenization.byte_level import alphabet_bytes
from minipoet.tokenization.chat import CHAT_FILE, folder_template, known_template, template_of, written_template
from minipoet.tokenization.line_breaks import LINE_BREAKS, decode_lines, encode_lines, sentinel_names
from minipoet.tokenization.roles import (
    MORE_EOS,
    end_ids,
    more_ends,
    named_specials,
    read_optional,
    settle_roles,
    well_known_specials,
)
from minipoet.tokenization.sentencepiece import UNUSED_MARK, read_spiece
from minipoet.tokenization.specials import HIDDEN, hide_specials, mark_specials, token_ids


class PublishedTokenizer:
    """A tokenizer as published. See `Tokenizer` for the methods."""

    def __init__(
        self,
        spec: Mapping[str, Any],
        roles: Mapping[str, str | None],
        config: Mapping[str, Any] | None = None,
        more_eos: Sequence[str] = (),
        line_breaks: bool = True,
    ) -> None:
        """Build from the content of a tokenizer.json and role -> special string ("bos", "eos", "pad").

        `config` is the content of tokenizer_config.json, kept for `save`; `more_eos` end a text as well;
        `line_breaks` False takes a line break for a space, where the specification does. Raises ValueError if the
        library cannot read the specification.
        """
        expect(
            spec,
            Mapping,
            "spec",
            "the content of a tokenizer.json",
            "of a folder PublishedTokenizer.from_folder reads it",
        )
        expect(roles, Mapping, "roles", "special strings by role, {'eos': '</s>'}")
        self._spec_text = json.dumps(spec, ensure_ascii=False)
        self._config = dict(config or {})
        self.roles = dict(roles)
        self.more_eos = list(more_eos)
        self.chat_text = template_of(self._config)
        self.chat = known_template(self.chat_text)
        try:
            self._library = tokenizers.Tokenizer.from_str(json.dumps(hide_specials(spec), ensure_ascii=False))
        except Exception as error:  # the library raises plain Exception
            raise ValueError(f"the tokenizers library cannot read it ({error})") from error
        self._library.encode_special_tokens = True
        names = [entry["content"] for entry in spec.get("added_tokens") or [] if entry.get("special")]
        vocab = self._library.get_vocab(with_added_tokens=True)
        self._special_ids = {name: vocab[HIDDEN + name] for name in names}
        if strangers := [name for name in [*self.roles.values(), *more_eos] if name is not None and name not in names]:
            raise ValueError(f"{strangers} have a role but are no special tokens, which are {names}")
        added = [(HIDDEN * bool(e.get("special")) + e["content"], e["id"]) for e in spec.get("added_tokens") or []]
        moved = [name.removeprefix(HIDDEN) for name, id in added if self._library.token_to_id(name) != id]
        if moved:  # the library numbers them without a gap, whatever the file says
            raise ValueError(f"the ids before {', '.join(moved[:8])} have a gap, which cannot be kept")
        ids = set(vocab.values())
        self._hidden = {HIDDEN + name: name for name in names}
        if any(UNUSED_MARK in token for token in vocab):
            self._hidden[UNUSED_MARK] = ""
        self._vocab_size = 1 + max(ids)
        self._spare_ids = sorted(set(range(self._vocab_size)) - ids)
        sentinels = sentinel_names(self._special_ids)
        self._keeps_line_breaks = line_breaks
        self._line_break_id: int | None = None
        if line_breaks and sentinels and "\n" not in self._library.decode(self._encode_all(["a\nb"])[0]):
            self._line_break_id = self._special_ids.pop(sentinels.pop())
        self._sentinel_ids = [self._special_ids[name] for name in sentinels]
        # Where tokens are bytes a stream can be decoded byte by byte; elsewhere StreamDecoder looks at a window.
        self.token_bytes = self._token_bytes if (spec.get("decoder") or {}).get("type") == "ByteLevel" else None

    @classmethod
    def from_folder(cls, folder: str | PathLike[str], line_breaks: bool = True) -> PublishedTokenizer:
        """Read tokenizer.json, spiece.model, or vocab.json and merges.txt, and what other files say of specials.

        Raises FileNotFoundError if none is there, ValueError that names the file if one is broken or unknown.
        """
        folder = as_path(folder, "The folder of a tokenizer")
        path = folder / "tokenizer.json"
        names, named_roles = named_specials(folder)
        config = read_optional(folder, "tokenizer_config.json")
        if path.is_file():
            spec = read_spec(path)
        elif (folder / "spiece.model").is_file():
            path = folder / "spiece.model"
            spec, model_roles, config = read_spiece(folder)
            named_roles = model_roles | named_roles
        else:
            path = folder / "vocab.json"
            spec = old_spec(folder)
        try:
            ids = token_ids(spec)
            # A single letter is no special token, whatever a config says: hidden, it could not be written any more.
            specials = [name for name in names if name in ids and len(name) > 1]
            specials += [entry["content"] for entry in spec.get("added_tokens") or [] if entry.get("special")]
            specials += sentinel_names(ids)
            named_roles = {role: name for role, name in named_roles.items() if name is None or name in specials}
            if path.name == "vocab.json":
                specials += well_known_specials(ids)
            roles = settle_roles(folder, named_roles, ids, specials)
            specials += [name for name in roles.values() if name is not None]
            mark_specials(spec, {name: ids[name] for name in specials})
            more = more_ends(folder, roles["eos"], ids, specials)
            tokenizer = cls(spec, roles, config, more, line_breaks and config.get(LINE_BREAKS) is not False)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"the key {error} is missing" if isinstance(error, KeyError) else error
            raise ValueError(f"{path} cannot be used: {what}. It may be damaged: fetch it again.") from error
        tokenizer.chat_text = folder_template(folder)
        tokenizer.chat = known_template(tokenizer.chat_text)
        return tokenizer

    @property
    def spec(self) -> dict[str, Any]:
        """The content of the tokenizer.json."""
        content: dict[str, Any] = json.loads(self._spec_text)
        return content

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    @property
    def special_ids(self) -> dict[str, int]:
        return dict(self._special_ids)

    @property
    def spare_ids(self) -> list[int]:
        return list(self._spare_ids)

    @property
    def line_break_id(self) -> int | None:
        """The id that stands for "\\n" where line breaks would be lost: an ordinary token, once the last sentinel."""
        return self._line_break_id

    @property
    def sentinel_ids(self) -> list[int]:
        """The ids of `<extra_id_0>`, `<extra_id_1>`, …, which stand for gaps in a text; without the line break's."""
        return list(self._sentinel_ids)

    @property
    def bos_id(self) -> int | None:
        return self._role_id("bos")

    @property
    def eos_id(self) -> int | None:
        return self._role_id("eos")

    @property
    def eos_ids(self) -> list[int]:
        return end_ids(self.roles, self.more_eos, self.special_ids)

    @property
    def pad_id(self) -> int | None:
        return self._role_id("pad")

    def _role_id(self, role: str) -> int | None:
        name = self.roles.get(role)
        return None if name is None else self._special_ids[name]

    def encode(self, text: str) -> list[int]:
        """The ids of a text; what the model does not know is its unknown token. A lone surrogate is a ValueError."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, on all cores."""
        texts = list(texts)
        with _clear_about_texts(texts):
            if self._line_break_id is None:
                return self._encode_all(texts)
            return encode_lines(texts, self._line_break_id, self._encode_all)

    def _encode_all(self, texts: list[str]) -> list[list[int]]:
        return [row.ids for row in self._library.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of some ids. An unknown id is a ValueError."""
        ids = as_ids(ids)
        for id in ids:
            self._check(id)
        if self._line_break_id is None:
            return self._decode(ids, skip_special)
        return decode_lines(ids, self._line_break_id, lambda line: self._decode(line, skip_special))

    def _decode(self, ids: list[int], skip_special: bool) -> str:
        text = self._library.decode(ids, skip_special_tokens=skip_special)
        if HIDDEN in text:
            for hidden, name in self._hidden.items():
                text = text.replace(hidden, name)
        return text

    def _token_bytes(self, id: int) -> bytes:
        token = self._check(id).removeprefix(HIDDEN)
        byte_of = alphabet_bytes()
        if all(letter in byte_of for letter in token):
            return bytes(byte_of[letter] for letter in token)
        return token.encode()  # an added token, written as it is

    def _check(self, id: int) -> str:
        token = self._library.id_to_token(id) if 0 <= id < self._vocab_size else None
        if token is None:
            raise ValueError(
                f"id {id} is none of this tokenizer's, which are 0 to {self._vocab_size - 1}; "
                "a model with more rows must mask the rest before it samples"
            )
        return token

    def save(self, folder: str | PathLike[str]) -> None:
        """Write tokenizer.json, tokenizer_config.json and the chat template, which transformers reads too."""
        folder = as_path(folder, "The folder to save to")
        roles = {f"{role}_token": name for role, name in self.roles.items()}
        template = written_template(self)
        write_text_atomic(folder / "tokenizer.json", self._spec_text + "\n")
        more: dict[str, Any] = {MORE_EOS: self.more_eos} if self.more_eos else {}
        if not self._keeps_line_breaks:
            more[LINE_BREAKS] = False
        write_json_atomic(folder / "tokenizer_config.json", self._config | roles | more)
        if template is None or template == template_of(self._config):
            remove(folder / CHAT_FILE)  # another model's, which would be read instead
        else:
            write_text_atomic(folder / CHAT_FILE, template)


@contextmanager
def _clear_about_texts(texts: Sequence[str]) -> Iterator[None]:
    """The library calls a text with half a surrogate pair "no str"; say what is wrong with it, or what came instead."""
    try:
        yield
    except TypeError:
        for text in each(texts, str, "What is encoded", "strings"):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise unicode_error(error) from None
        raise
