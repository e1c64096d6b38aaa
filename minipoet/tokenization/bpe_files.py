"""A byte-level BPE on disk, in the two forms in use, so that `tokenizers` and `transformers` read what we write.

    vocab.json + merges.txt     GPT-2's own form (2019): token -> id, and one merge a line
    tokenizer.json              the `tokenizers` library's form: the same, the cut into words, the specials
    tokenizer_config.json       beside either: which special has which role; `"minipoet": "bpe"` says it is ours

Chapter: docs/tokenization.md
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from minipoet.checks import as_path
from minipoet.files import read_json, remove, write_json_atomic, write_text_atomic
from minipoet.tokenization.bpe import BPETokenizer
from minipoet.tokenization.chat import CHAT_FILE, folder_template, known_template, written_template
from minipoet.tokenization.roles import MORE_EOS, ROLES, added_tokens, more_ends, named_specials, read_optional

MERGES_HEADER = "#version: 0.2"
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
# Qwen2 cuts digits one by one and keeps line breaks together; facts from transformers' tokenization_qwen2.py.
QWEN2_CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Who uses vocab.json + merges.txt with GPT-2's cut: a tokenizer_class, or else config.json's model_type.
GPT2_KINDS = {"gpt2", "gptj", "gptneo", "roberta", "bart", "opt", "pretrained"}


def write_bpe(tokenizer: BPETokenizer, folder: str | PathLike[str]) -> None:
    """Write both forms and the config. Each file is written whole or not at all."""
    folder = as_path(folder, "The folder to save to")
    specials = tokenizer.special_ids
    config: dict[str, Any] = {
        "minipoet": "bpe",
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": False,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "unk_token": None,  # GPT2Tokenizer would add <|endoftext|> as a new token
        **{f"{role}_token": name for role, name in tokenizer.roles.items()},
        "added_tokens_decoder": {str(entry.pop("id")): entry for entry in added_entries(specials)},
    }
    if tokenizer.more_eos:
        config[MORE_EOS] = tokenizer.more_eos
    if (template := written_template(tokenizer)) is not None:
        config["chat_template"] = template
    merges = "\n".join([MERGES_HEADER, *(f"{left} {right}" for left, right in tokenizer.merges)]) + "\n"
    write_json_atomic(folder / "vocab.json", tokenizer.vocab, indent=None)
    write_text_atomic(folder / "merges.txt", merges)
    write_json_atomic(folder / "tokenizer.json", gpt2_spec(tokenizer.vocab, tokenizer.merges, specials))
    write_json_atomic(folder / "tokenizer_config.json", config)
    remove(folder / CHAT_FILE)  # another model's, which would be read instead


def read_bpe(folder: str | PathLike[str]) -> BPETokenizer:
    """Read a byte-level BPE from tokenizer.json, or from vocab.json and merges.txt where that is missing.

    Raises FileNotFoundError if neither is there, ValueError if a file is broken or describes another tokenizer.
    """
    folder = as_path(folder, "The folder of a tokenizer")
    names, roles = named_specials(folder)
    path = folder / "tokenizer.json"
    if path.is_file():
        try:
            vocab, merges, specials = _from_spec(path, read_spec(path))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is damaged ({error!r}): write the folder again with tokenizer.save.") from error
    else:
        vocab, merges = read_vocab_and_merges(folder)
        added = added_tokens(folder)
        vocab |= {name: id for name, (id, _) in added.items()}
        specials = [name for name, (_, special) in added.items() if special]
        path = folder / "vocab.json"
    specials = list(dict.fromkeys([*specials, *(name for name in names if name in vocab)]))
    specials.sort(key=vocab.__getitem__)
    bos, eos, pad = (name if (name := roles.get(role)) in specials else None for role in ROLES)
    try:
        more = more_ends(folder, eos, vocab, specials)
        tokenizer = BPETokenizer(vocab, merges, specials, bos, eos, pad, more)
    except ValueError as error:
        raise ValueError(f"{path} cannot be used: {error}. Write the folder again with tokenizer.save.") from error
    tokenizer.chat_text = folder_template(folder)
    tokenizer.chat = known_template(tokenizer.chat_text)
    return tokenizer


def read_spec(path: Path) -> dict[str, Any]:
    """tokenizer.json as an object with a `model` that has a `vocab`; anything else is a ValueError."""
    spec = read_json(path)
    model = spec.get("model") if isinstance(spec, dict) else None
    if not isinstance(model, dict) or not model.get("vocab"):
        raise ValueError(
            f'{path} is JSON but no tokenizer: expected an object with a "model" that has a "vocab", '
            f"got {_shape(spec)}; fetch or write it again."
        )
    return spec


def read_vocab_and_merges(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """vocab.json and merges.txt. Raises FileNotFoundError or ValueError that names the file."""
    for path in (folder / "vocab.json", folder / "merges.txt"):
        if not path.is_file():
            there = ", ".join(sorted(entry.name for entry in folder.iterdir())) or "nothing"
            raise FileNotFoundError(
                f"{path} is missing: a tokenizer needs tokenizer.json, spiece.model, or vocab.json and merges.txt; "
                f"the folder has {there}."
            )
    vocab = read_json(folder / "vocab.json")
    if not isinstance(vocab, dict) or not all(isinstance(id, int) for id in vocab.values()):
        raise ValueError(f"{folder / 'vocab.json'} should map tokens to ids, got {_shape(vocab)}; fetch it again.")
    path = folder / "merges.txt"
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text ({error}); fetch it again.") from error
    merges = []
    for number, line in enumerate(lines, start=1):
        if not line or (number == 1 and line.startswith("#version")):
            continue
        parts = line.split(" ")
        if len(parts) != 2 or not all(parts):
            raise ValueError(f"{path}, line {number}: expected two tokens and one space, got {line!r}; fetch it again.")
        merges.append((parts[0], parts[1]))
    return vocab, merges


def gpt2_spec(
    vocab: Mapping[str, int], merges: Sequence[tuple[str, str]], specials: Mapping[str, int]
) -> dict[str, Any]:
    """The content of a tokenizer.json that works as GPT-2's tokenizer does."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_entries(specials),
        "normalizer": None,
        "pre_tokenizer": BYTE_LEVEL,
        "post_processor": None,
        "decoder": BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": dict(vocab),
            "merges": [f"{left} {right}" for left, right in merges],  # the form that every version reads
        },
    }


def old_spec(folder: Path) -> dict[str, Any]:
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


def added_entries(tokens: Mapping[str, int], special: bool = True) -> list[dict[str, Any]]:
    """Tokens as tokenizer.json lists them under `added_tokens`, by id."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special}
    return [{"id": id, "content": name} | flags for name, id in sorted(tokens.items(), key=lambda item: item[1])]


def merge_pairs(merges: Sequence[Any]) -> list[tuple[str, str]]:
    """Merges as tokenizer.json has them, `["a", "b"]` since 2024 and `"a b"` before, as pairs."""
    split = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
    if wrong := [parts for parts in split if len(parts) != 2]:
        raise ValueError(f"{len(wrong)} merges are no pairs, the first is {wrong[0]}")
    return [(left, right) for left, right in split]


def _from_spec(path: Path, spec: dict[str, Any]) -> tuple[dict[str, int], list[tuple[str, str]], list[str]]:
    model, cut = spec["model"], spec.get("pre_tokenizer") or {}
    differences = [
        f"its {name} is {value!r} instead of {wanted!r}"
        for name, value, wanted in (
            ("model", model.get("type"), "BPE"),
            ("normalizer", spec.get("normalizer"), None),
            ("pre_tokenizer", cut.get("type"), "ByteLevel"),
            ("add_prefix_space", cut.get("add_prefix_space", True), False),
            ("use_regex", cut.get("use_regex", True), True),
            ("dropout", model.get("dropout") or None, None),
            ("ignore_merges", bool(model.get("ignore_merges")), False),
        )
        if value != wanted
    ]
    if differences:
        raise ValueError(
            f"{path} is no tokenizer of GPT-2's kind: {'; '.join(differences)}. "
            "Read it as PublishedTokenizer.from_folder(folder)."
        )
    added = spec.get("added_tokens") or []
    vocab = dict(model["vocab"]) | {entry["content"]: entry["id"] for entry in added}
    try:
        merges = merge_pairs(model.get("merges") or [])
    except ValueError as error:
        raise ValueError(f"{path} is broken: {error}; fetch it again.") from error
    return vocab, merges, [entry["content"] for entry in added if entry.get("special")]


def _shape(value: Any) -> str:
    if isinstance(value, dict):
        return f"an object with the keys {sorted(map(str, value))[:6]}"
    return f"a {type(value).__name__}"
