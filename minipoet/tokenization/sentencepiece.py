"""The `spiece.model` of T5, mT5 and their kin, read without sentencepiece and without protobuf.

The file is a protobuf message: a row of fields, each a key (number of the field, and how long its value is) and a
value, which may be a message again. Three fields matter, and of them a dozen fields:

    1  pieces, one field each           1 text   2 score (float)   3 kind
    2  how it was trained               3 unigram or BPE   35 bytes for the unknown   40–43 ids of unk, bos, eos, pad
    3  how a text is prepared           2 the table of characters   3 a space at the start?   4 runs of spaces to one?

From these `unigram_spec` writes the tokenizer.json that does the same in the `tokenizers` library.

    fields                  a message -> (number, value), one after another; `varint` reads one number
    read_model              spiece.model -> SentencePieceModel, its pieces and options
    read_spiece             a folder -> tokenizer.json's content, roles, config; sentinels and added tokens included

Numbers and defaults: sentencepiece_model.proto, https://github.com/google/sentencepiece. Chapter: docs/unigram.md
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import normalizers

from minipoet.tokenization.bpe_files import added_entries
from minipoet.tokenization.line_breaks import sentinel_names
from minipoet.tokenization.roles import added_tokens, read_optional
from minipoet.tokenization.specials import HIDDEN

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # SentencePiece.Type
MODEL_TYPES = {1: "unigram", 2: "BPE", 3: "word", 4: "char"}  # TrainerSpec.ModelType
UNUSED_MARK = HIDDEN + "unused "  # in the name of a piece that no text may yield
SENTINELS = 100  # T5's
SPACE = "▁"  # U+2581 stands for a space
METASPACE = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": True}


class Piece(NamedTuple):
    """A piece with its score, the natural logarithm of its probability."""

    text: str
    score: float
    kind: int = NORMAL


T5_SPECIALS = (Piece("<pad>", 0.0, CONTROL), Piece("</s>", 0.0, CONTROL), Piece("<unk>", 0.0, UNKNOWN))


class SentencePieceModel(NamedTuple):
    """What a spiece.model says. An id of -1: there is none."""

    pieces: Sequence[Piece]
    unk_id: int = 2
    bos_id: int = -1
    eos_id: int = 1
    pad_id: int = 0
    byte_fallback: bool = False
    charsmap: bytes = b""  # what becomes of a character before the cut (sentencepiece's own table)
    dummy_prefix: bool = True  # a text begins as a word does, with a space
    one_space: bool = True  # several spaces are one; none at either end


# Reading


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A number written 7 bits a byte, the lowest first, and where it ends. The top bit says that more is to come."""
    value = 0
    for shift in range(0, 70, 7):
        if at == len(data):
            raise ValueError("it ends in the middle of a number")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise ValueError("a number in it has no end")


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message: number and value, a whole number or bytes."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = varint(data, at)
            yield number, value
            continue
        if wire == 2:
            size, at = varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"a field in it is of the unknown kind {wire}")
        if size > len(data) - at:
            raise ValueError(f"it should have {size} bytes more where it has {len(data) - at}")
        yield number, data[at : at + size]
        at += size


def read_model(path: Path) -> SentencePieceModel:
    """The pieces and options of a spiece.model. Raises ValueError if it is damaged, or no unigram model."""
    try:
        parts = [(number, value) for number, value in fields(path.read_bytes()) if number <= 3]
        pieces = [_piece(_bytes(value)) for number, value in parts if number == 1]
        trainer, normalizer = (dict(fields(b"".join(_bytes(v) for n, v in parts if n == part))) for part in (2, 3))
        model = SentencePieceModel(
            pieces,
            unk_id=_whole(trainer.get(40, 0)),
            bos_id=_whole(trainer.get(41, 1)),
            eos_id=_whole(trainer.get(42, 2)),
            pad_id=_whole(trainer.get(43, -1)),
            byte_fallback=bool(trainer.get(35, 0)),
            charsmap=_bytes(normalizer.get(2, b"")),
            dummy_prefix=bool(normalizer.get(3, 1)),
            one_space=bool(normalizer.get(4, 1)),
        )
        kind = _whole(trainer.get(3, 1))
        if not 0 <= model.unk_id < len(pieces):
            raise ValueError(f"it has {len(pieces)} pieces, and the unknown one should be number {model.unk_id}")
        _table(model.charsmap)
    except (ValueError, struct.error) as error:
        raise ValueError(f"{path} is no sentencepiece model, or is damaged ({error}): fetch it again.") from error
    if kind != 1:
        raise ValueError(
            f"{path} is a sentencepiece model of the type {MODEL_TYPES.get(kind, kind)}, and only unigram is read from "
            "it: fetch the tokenizer.json of this model instead."
        )
    odd = ["spaces behind words"] if trainer.get(24) else []
    odd += ["spaces left as they are"] if normalizer.get(5) == 0 else []
    if odd:
        raise ValueError(f"{path} was trained with {' and '.join(odd)}, which is not read: fetch its tokenizer.json.")
    return model


def _piece(data: bytes) -> Piece:
    found = dict(fields(data))
    (score,) = struct.unpack("<f", _bytes(found.get(2, b"\0\0\0\0")))
    kind = _whole(found.get(3, NORMAL))
    if not NORMAL <= kind <= BYTE:
        raise ValueError(f"a piece in it is of the unknown kind {kind}")
    return Piece(_bytes(found.get(1, b"")).decode(), score, kind)


def _table(charsmap: bytes) -> normalizers.Normalizer:
    try:
        return normalizers.Precompiled(charsmap) if charsmap else normalizers.Sequence([])
    except Exception as error:  # the library raises plain Exception
        raise ValueError(f"its table of {len(charsmap)} bytes for characters cannot be read") from error


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number stands where text should")
    return value


def _whole(value: int | bytes) -> int:
    """An int32: -1 is written as 2⁶⁴ - 1."""
    if isinstance(value, bytes):
        raise ValueError("text stands where a number should")
    return value - (1 << 64) if value >> 63 else value


# Writing


def unigram_spec(model: SentencePieceModel, normalizer: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The content of a tokenizer.json that cuts as sentencepiece does; `normalizer` in place of the character table."""
    if model.charsmap:
        table = base64.b64encode(model.charsmap).decode()
        normalizer = {"type": "Precompiled", "precompiled_charsmap": table}
    steps = [normalizer] if normalizer else []
    if model.one_space:
        steps += [_replaced(rf"\A +|[ {SPACE}]+\z", ""), _replaced(" {2,}", " ")]
    if model.dummy_prefix:
        steps.append({"type": "Prepend", "prepend": SPACE})
    specials = {piece.text: id for id, piece in enumerate(model.pieces) if piece.kind in (UNKNOWN, CONTROL)}
    changed = _table(model.charsmap).normalize_str  # a symbol that the table would change is looked for before it
    user = {piece.text: id for id, piece in enumerate(model.pieces) if piece.kind == USER_DEFINED}
    symbols = {text: id for text, id in user.items() if changed(text) != text}
    words = not any(SPACE in piece.text[1:] for piece in model.pieces if piece.kind in (NORMAL, USER_DEFINED))
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [*added_entries(specials), *added_entries(symbols, special=False)],
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": METASPACE | {"prepend_scheme": "never", "split": words},
        "post_processor": _end_each(model.pieces[model.eos_id].text, model.eos_id) if model.eos_id >= 0 else None,
        "decoder": _decoder(model),
        "model": {
            "type": "Unigram",
            "unk_id": model.unk_id,
            "vocab": _vocabulary(model.pieces),
            "byte_fallback": model.byte_fallback,
        },
    }


def _vocabulary(pieces: Sequence[Piece]) -> list[list[Any]]:
    """Names and scores by which the library, which knows no kinds, treats each kind as sentencepiece does.

    Only normal pieces keep their scores. A user's symbol has 0, a probability of 1, and wins wherever it stands.
    """
    rows: list[list[Any]] = []
    for text, score, kind in pieces:
        if kind == UNUSED:
            start = SPACE * text.startswith(SPACE)  # stays in front, where the decoder looks for it
            text = start + UNUSED_MARK + text.removeprefix(SPACE)
        rows.append([text, score if kind == NORMAL else 0.0])
    return rows


def _replaced(pattern: str, by: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": by}


def _decoder(model: SentencePieceModel) -> dict[str, Any]:
    spaces = METASPACE | {"prepend_scheme": "always" if model.dummy_prefix else "never"}
    if not model.byte_fallback:
        return spaces
    return {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, spaces]}


def _end_each(name: str, id: int) -> dict[str, Any]:
    """What adds the end to each text where others read the file; `specials.hide_specials` takes it out for us."""
    first, second = ({"Sequence": {"id": letter, "type_id": 0}} for letter in "AB")
    end = {"SpecialToken": {"id": name, "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [first, end],
        "pair": [first, end, second, end],
        "special_tokens": {name: {"id": name, "ids": [id], "tokens": [name]}},
    }


# A folder


def sentinel_pieces(number: int) -> list[Piece]:
    """T5's sentinels in the order of their ids, `<extra_id_99>` first."""
    return [Piece(f"<extra_id_{i}>", 0.0, CONTROL) for i in reversed(range(number))]


def read_spiece(folder: Path) -> tuple[dict[str, Any], dict[str, str | None], dict[str, Any]]:
    """spiece.model and what stands beside it: tokenizer.json's content, the model's roles, tokenizer_config.json's.

    A folder whose pieces have no sentinels gets T5's hundred, or as many as tokenizer_config.json says (`extra_ids`),
    unless config.json's `vocab_size` has no rows for them.
    """
    model = read_model(folder / "spiece.model")
    config = read_optional(folder, "tokenizer_config.json")
    rows = read_optional(folder, "config.json").get("vocab_size")
    names = [piece.text for piece in model.pieces]
    added = {name: it for name, it in added_tokens(folder).items() if name not in names}
    number = 0
    if not sentinel_names([*names, *added]):
        number = config.get("extra_ids", SENTINELS)
        if not isinstance(number, int) or number < 0:
            raise ValueError(f"extra_ids in {folder / 'tokenizer_config.json'} should be a number, and is {number!r}")
        if isinstance(rows, int) and "extra_ids" not in config and rows < len(names) + number:
            number = 0
    model = model._replace(pieces=[*model.pieces, *sentinel_pieces(number)])
    spec = unigram_spec(model)
    for name, (id, special) in added.items():
        if not isinstance(rows, int) or id < rows:
            spec["added_tokens"] += added_entries({name: id}, special)
    spec["added_tokens"].sort(key=lambda entry: entry["id"])
    ids = {"bos": model.bos_id, "eos": model.eos_id, "pad": model.pad_id}
    roles = {role: model.pieces[id].text if 0 <= id < len(names) else None for role, id in ids.items()}
    known = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": names[model.unk_id], "extra_ids": number}
    return spec, roles, known | config
