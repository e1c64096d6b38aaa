"""The tokenizer of a published model, behind the same protocol as our own: the `tokenizers` library does the work.

    PublishedTokenizer      from tokenizer.json, or from vocab.json + merges.txt (GPT-2, ruGPT-3, the first Qwen2)
    hide_specials           what keeps text from ever yielding a special id

A tokenizer.json describes the whole pipeline: normaliser, cut into words, model (BPE, unigram, …), decoder. We take it
as it is but for three things: nothing is added at either end, nothing is cut off or filled up, and a special token is
reached by its name only, never by text that spells it. Nothing in the folder is executed.
Chapter: docs/tokenization.md
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import tokenizers

from minipoet.checks import as_ids, as_path, each, expect
from minipoet.files import remove, write_json_atomic, write_text_atomic
from minipoet.tokenization.bpe import unicode_error
from minipoet.tokenization.bpe_files import added_entries, gpt2_spec, merge_pairs, read_spec, read_vocab_and_merges
from minipoet.tokenization.byte_level import alphabet_bytes
from minipoet.tokenization.chat import CHAT_FILE, folder_template, known_template, template_of, written_template
from minipoet.tokenization.roles import (
    MORE_EOS,
    added_tokens,
    end_ids,
    more_ends,
    named_specials,
    read_optional,
    settle_roles,
    well_known_specials,
)

# A noncharacter and a space: no word of a text has both, so a token that begins with them cannot be spelt.
HIDDEN = "\ufdd0 "
# Qwen2 cuts digits one by one and keeps line breaks together; facts from transformers' tokenization_qwen2.py.
QWEN2_CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Who uses vocab.json + merges.txt with GPT-2's cut: a tokenizer_class, or else config.json's model_type.
GPT2_KINDS = {"gpt2", "gptj", "gptneo", "roberta", "bart", "opt", "pretrained"}


class PublishedTokenizer:
    """A tokenizer as published. See `Tokenizer` for the methods."""

    def __init__(
        self,
        spec: Mapping[str, Any],
        roles: Mapping[str, str | None],
        config: Mapping[str, Any] | None = None,
        more_eos: Sequence[str] = (),
    ) -> None:
        """Build from the content of a tokenizer.json and role -> special string ("bos", "eos", "pad").

        `config` is the content of tokenizer_config.json, kept for `save`; `more_eos` end a text as well. Raises
        ValueError if the library cannot read the specification.
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
        self._special_ids = {name: self._library.token_to_id(HIDDEN + name) for name in names}
        if strangers := [name for name in [*self.roles.values(), *more_eos] if name is not None and name not in names]:
            raise ValueError(f"{strangers} have a role but are no special tokens, which are {names}")
        added = [(HIDDEN * bool(e.get("special")) + e["content"], e["id"]) for e in spec.get("added_tokens") or []]
        moved = [name.removeprefix(HIDDEN) for name, id in added if self._library.token_to_id(name) != id]
        if moved:  # the library numbers them without a gap, whatever the file says
            raise ValueError(f"the ids before {', '.join(moved[:8])} have a gap, which cannot be kept")
        ids = set(self._library.get_vocab(with_added_tokens=True).values())
        self._vocab_size = 1 + max(ids)
        self._spare_ids = sorted(set(range(self._vocab_size)) - ids)
        # Where tokens are bytes a stream can be decoded byte by byte; elsewhere StreamDecoder looks at a window.
        self.token_bytes = self._token_bytes if (spec.get("decoder") or {}).get("type") == "ByteLevel" else None

    @classmethod
    def from_folder(cls, folder: str | PathLike[str]) -> PublishedTokenizer:
        """Read tokenizer.json, or vocab.json and merges.txt, and what the files beside them say of special tokens.

        Raises FileNotFoundError if neither is there, ValueError that names the file if one is broken or unknown.
        """
        folder = as_path(folder, "The folder of a tokenizer")
        path = folder / "tokenizer.json"
        names, named_roles = named_specials(folder)
        if path.is_file():
            spec = read_spec(path)
        else:
            path = folder / "vocab.json"
            spec = _spec_from_vocab_and_merges(folder)
        try:
            ids = _token_ids(spec)
            # A single letter is no special token, whatever a config says: hidden, it could not be written any more.
            specials = [name for name in names if name in ids and len(name) > 1]
            named_roles = {role: name for role, name in named_roles.items() if name is None or name in specials}
            specials += [entry["content"] for entry in spec.get("added_tokens") or [] if entry.get("special")]
            if path.name == "vocab.json":
                specials += well_known_specials(ids)
            roles = settle_roles(folder, named_roles, ids, specials)
            specials += [name for name in roles.values() if name is not None]
            _mark_specials(spec, {name: ids[name] for name in specials})
            more = more_ends(folder, roles["eos"], ids, specials)
            tokenizer = cls(spec, roles, read_optional(folder, "tokenizer_config.json"), more)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"the key {error} is missing" if isinstance(error, KeyError) else error
            raise ValueError(f"{path} cannot be used: {what}. It may be damaged: fetch it again.") from error
        tokenizer.chat_text = folder_template(folder)
        tokenizer.chat = known_template(tokenizer.chat_text)
        return tokenizer

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
        with _clear_about_texts([text]):
            return self._library.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, on all cores."""
        with _clear_about_texts(texts):
            encodings = self._library.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of some ids. An unknown id is a ValueError."""
        ids = as_ids(ids)
        for id in ids:
            self._check(id)
        text = self._library.decode(ids, skip_special_tokens=skip_special)
        if not skip_special and HIDDEN in text:
            for name in self._special_ids:
                text = text.replace(HIDDEN + name, name)
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
        more = {MORE_EOS: self.more_eos} if self.more_eos else {}
        write_json_atomic(folder / "tokenizer_config.json", self._config | roles | more)
        if template is None or template == template_of(self._config):
            remove(folder / CHAT_FILE)  # another model's, which would be read instead
        else:
            write_text_atomic(folder / CHAT_FILE, template)


def hide_specials(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The specification with every special token renamed, so that no text can spell it; nothing added, cut or filled.

    The library can be told not to look for specials in a text (`encode_special_tokens`), but a unigram model has
    `</s>` among its ordinary pieces, and BPE merges may happen to build it. Merges that do are left out.
    """
    spec = {**spec, "post_processor": None, "truncation": None, "padding": None}
    names = {entry["content"] for entry in spec.get("added_tokens") or [] if entry.get("special")}
    hidden = {name: HIDDEN + name for name in names}
    spec["added_tokens"] = [
        {
            **entry,
            "content": hidden.get(entry["content"], entry["content"]) if entry.get("special") else entry["content"],
        }
        for entry in spec.get("added_tokens") or []
    ]
    model = spec["model"] = dict(spec["model"])
    vocab = model["vocab"]
    if isinstance(vocab, dict):
        model["vocab"] = {hidden.get(token, token): id for token, id in vocab.items()}
    else:  # unigram: pairs of piece and score
        model["vocab"] = [[hidden.get(piece, piece), score] for piece, score in vocab]
    if model.get("unk_token") in names:
        model["unk_token"] = hidden[model["unk_token"]]
    if model.get("merges"):
        pairs = merge_pairs(model["merges"])
        model["merges"] = [pair for pair in pairs if not names & {pair[0], pair[1], pair[0] + pair[1]}]
    return spec


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


def _token_ids(spec: Mapping[str, Any]) -> dict[str, int]:
    vocab = spec["model"]["vocab"]
    ids = dict(vocab) if isinstance(vocab, dict) else {piece: id for id, (piece, _) in enumerate(vocab)}
    return ids | {entry["content"]: entry["id"] for entry in spec.get("added_tokens") or []}


def _mark_specials(spec: dict[str, Any], specials: Mapping[str, int]) -> None:
    """See to it that all of these tokens stand under `added_tokens` as special."""
    added = {entry["content"]: dict(entry) for entry in spec.get("added_tokens") or []}
    for entry in added_entries(specials):
        added.setdefault(entry["content"], entry)["special"] = True
    spec["added_tokens"] = sorted(added.values(), key=lambda entry: entry["id"])


def _spec_from_vocab_and_merges(folder: Path) -> dict[str, Any]:
    """The tokenizer.json that a folder of the old form would have, by the family that its configs name."""
    vocab, merges = read_vocab_and_merges(folder)
    kind = read_optional(folder, "tokenizer_config.json").get("tokenizer_class")
    model = read_optional(folder, "config.json")
    kind = kind or model.get("model_type") or "gpt2"
    family = str(kind).lower().removesuffix("fast").removesuffix("tokenizer").replace("_", "").replace("-", "")
    spec = gpt2_spec(vocab, merges, {})
    if family == "qwen2":
        spec["normalizer"] = {"type": "NFC"}
        split = {"type": "Split", "pattern": {"Regex": QWEN2_CUT}, "behavior": "Isolated", "invert": False}
        byte_level = copy.deepcopy(spec["pre_tokenizer"]) | {"use_regex": False}
        spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, byte_level]}
    elif family not in GPT2_KINDS:
        raise ValueError(
            f"{folder} has vocab.json and merges.txt of the kind {kind!r}; without tokenizer.json only the kinds "
            f"{sorted(GPT2_KINDS)} and 'qwen2' are known. Fetch its tokenizer.json."
        )
    rows = model.get("vocab_size")  # GPT2Tokenizer adds <|endoftext|> and saves it, though the model has no row for it
    added = {name: it for name, it in added_tokens(folder).items() if not isinstance(rows, int) or it[0] < rows}
    entries = [added_entries({name: id}, special)[0] for name, (id, special) in added.items()]
    spec["added_tokens"] = sorted(entries, key=lambda entry: entry["id"])
    return spec
