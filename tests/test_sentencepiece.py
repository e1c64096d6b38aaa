"""spiece.model read without sentencepiece: the recorded ids of its models, hand-written files, and broken ones."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from reference_data import load_json, reference

from minipoet.tokenization import PublishedTokenizer, StreamDecoder, Tokenizer, load_tokenizer
from minipoet.tokenization.sentencepiece import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Piece,
    read_model,
    unigram_spec,
    varint,
)

PIECES = [("<pad>", 0.0, CONTROL), ("</s>", 0.0, CONTROL), ("<unk>", 0.0, UNKNOWN)]
PIECES += [("▁", -2.0, NORMAL), ("▁мая", -3.0, NORMAL), ("к", -3.5, NORMAL), ("▁маяк", -4.0, NORMAL)]
PIECES += [(letter, -6.0, NORMAL) for letter in "маявол"]
T5_TRAINER = {3: 1, 40: 2, 41: (1 << 64) - 1, 42: 1, 43: 0}


def number(value: int) -> bytes:
    rest = value >> 7
    return bytes([value & 0x7F | 0x80]) + number(rest) if rest else bytes([value])


def message(*parts: tuple[int, int | bytes | float]) -> bytes:
    """A protobuf message of (number of the field, value)."""
    data = b""
    for field, value in parts:
        if isinstance(value, bytes):
            data += number(field << 3 | 2) + number(len(value)) + value
        elif isinstance(value, float):
            data += number(field << 3 | 5) + struct.pack("<f", value)
        else:
            data += number(field << 3) + number(value)
    return data


def model_file(
    pieces: list[tuple[str, float, int]] = PIECES, trainer: Any = T5_TRAINER, normalizer: Any = None
) -> bytes:
    rows = [(1, message((1, text.encode()), (2, score), (3, kind))) for text, score, kind in pieces]
    return message(*rows, (2, message(*trainer.items())), (3, message(*(normalizer or {}).items())))


def folder_of(path: Path, model: bytes | str, **files: Any) -> Path:
    """A folder with spiece.model, a recorded one by its name, and files given as name__json=object."""
    path.mkdir(exist_ok=True)
    data = reference(f"unigram/{model}.model").read_bytes() if isinstance(model, str) else model
    (path / "spiece.model").write_bytes(data)
    for name, content in files.items():
        (path / name.replace("__", ".")).write_text(json.dumps(content), encoding="utf-8")
    return path


# What sentencepiece answers


@pytest.mark.parametrize("name", ["plain", "options"])
def test_pieces_and_scores_are_those_that_sentencepiece_reads(name: str) -> None:
    recorded, model = load_json(f"unigram/{name}"), read_model(reference(f"unigram/{name}.model"))
    assert [piece.text for piece in model.pieces] == recorded["pieces"].split(" ")
    assert [piece.score for piece in model.pieces] == pytest.approx(list(map(float, recorded["scores"].split(" "))))
    assert (model.pad_id, model.eos_id, model.unk_id, model.bos_id) == (0, 1, 2, -1)
    assert model.byte_fallback == (name == "options")


@pytest.mark.parametrize("name", ["plain", "options"])
def test_ids_are_those_of_sentencepiece(name: str, tmp_path: Path) -> None:
    recorded = load_json(f"unigram/{name}")
    ours = PublishedTokenizer.from_folder(folder_of(tmp_path, name), line_breaks=False)
    ids = [list(map(int, row.split())) for row in recorded["ids"]]
    assert dict(zip(recorded["texts"], ours.encode_batch(recorded["texts"]), strict=True)) == dict(
        zip(recorded["texts"], ids, strict=True)
    )


def test_text_comes_back_as_from_sentencepiece(tmp_path: Path) -> None:
    recorded, ours = load_json("unigram/options"), load_tokenizer(folder_of(tmp_path, "options"))
    for row, text in zip(recorded["ids"], recorded["decoded"], strict=True):
        if "  " in text:  # of two spaces at the start the library takes one, sentencepiece both
            continue
        assert ours.decode(map(int, row.split())) == text


@pytest.mark.parametrize("name", ["plain", "options"])
def test_without_line_breaks_the_marker_changes_nothing(name: str, tmp_path: Path) -> None:
    texts = [text for text in load_json(f"unigram/{name}")["texts"] if "\n" not in text]
    folder = folder_of(tmp_path, name)
    with_marker, without = load_tokenizer(folder), PublishedTokenizer.from_folder(folder, line_breaks=False)
    assert with_marker.encode_batch(texts) == without.encode_batch(texts)


# By hand


def test_varint_has_seven_bits_a_byte_and_the_lowest_first() -> None:
    assert varint(b"\x96\x01", 0) == (150, 2)  # 0010110 + 1 · 128
    assert varint(b"\x00\x7f", 1) == (127, 2)


def test_a_hand_written_file_is_cut_as_worked_out(tmp_path: Path) -> None:
    # ▁маяк -4 beats ▁мая·к -6.5; вол is ▁·в·о·л; ю is no piece, and three of them are one unknown.
    ours = load_tokenizer(folder_of(tmp_path, model_file()))
    ids = {text: id for id, (text, _, _) in enumerate(PIECES)}
    assert ours.encode("маяк вол") == [ids["▁маяк"], ids["▁"], ids["в"], ids["о"], ids["л"]]
    assert ours.encode("маяююк") == [ids["▁мая"], ids["<unk>"], ids["к"]]
    assert ours.decode(ours.encode("  маяк   вол ")) == "маяк вол"


def test_t5_has_a_hundred_sentinels_behind_its_pieces_the_first_one_last(tmp_path: Path) -> None:
    ours = load_tokenizer(folder_of(tmp_path, model_file()))
    size = len(PIECES)
    assert isinstance(ours, PublishedTokenizer) and isinstance(ours, Tokenizer)
    assert ours.vocab_size == size + 100
    assert ours.sentinel_ids == list(range(size + 99, size, -1))
    assert ours.line_break_id == size  # <extra_id_99>
    assert ours.special_ids["<extra_id_0>"] == size + 99
    assert (ours.pad_id, ours.eos_id, ours.bos_id) == (0, 1, None)


@pytest.mark.parametrize(
    ("pieces", "files", "sentinels", "marker"),
    [
        ([], {"tokenizer_config__json": {"extra_ids": 3}}, [15, 14], 13),
        ([], {"tokenizer_config__json": {"extra_ids": 0}}, [], None),
        ([], {"config__json": {"vocab_size": 13}}, [], None),  # the model has no rows for more
        ([], {"config__json": {"vocab_size": 128}}, list(range(112, 13, -1)), 13),
        ([("<extra_id_1>", 0.0, CONTROL), ("<extra_id_0>", 0.0, CONTROL)], {}, [14], 13),
        ([("▁<extra_id_1>", 0.0, USER_DEFINED), ("▁<extra_id_0>", 0.0, NORMAL)], {}, [14], 13),  # mT5
        ([], {"added_tokens__json": {"<extra_id_0>": 14, "<extra_id_1>": 13}}, [14], 13),
    ],
)
def test_sentinels_are_those_of_the_pieces_or_of_the_config(
    pieces: Any, files: Any, sentinels: list[int], marker: int | None, tmp_path: Path
) -> None:
    ours = load_tokenizer(folder_of(tmp_path, model_file(PIECES + pieces), **files))
    assert isinstance(ours, PublishedTokenizer)
    assert (ours.sentinel_ids, ours.line_break_id) == (sentinels, marker)
    assert not {*sentinels, marker} & set(ours.encode("маяк <extra_id_1> <extra_id_0>"))


def test_specials_of_the_files_beside_it_are_honoured(tmp_path: Path) -> None:
    files = {
        "special_tokens_map__json": {"bos_token": "<s>", "eos_token": {"content": "</s>"}},
        "added_tokens__json": {"<s>": 13, "ёж": 14},
        "tokenizer_config__json": {"extra_ids": 0},
    }
    ours = load_tokenizer(folder_of(tmp_path, model_file(), **files))
    assert (ours.bos_id, ours.eos_id, ours.vocab_size) == (13, 1, 15)
    assert ours.encode("ёж") == [14] and 13 not in ours.encode("<s>")


def test_ids_of_the_roles_are_those_of_the_file(tmp_path: Path) -> None:
    pieces = [("[UNK]", 0.0, UNKNOWN), ("[B]", 0.0, CONTROL), ("[E]", 0.0, CONTROL), *PIECES[3:]]
    ours = load_tokenizer(folder_of(tmp_path, model_file(pieces, {})))  # sentencepiece's own defaults: 0, 1, 2, no pad
    assert (ours.bos_id, ours.eos_id, ours.pad_id) == (1, 2, None)
    assert ours.encode("ю") == [3, 0]


def test_an_unused_piece_is_never_written_but_can_be_read(tmp_path: Path) -> None:
    pieces = [*PIECES, ("▁маякв", -0.1, UNUSED)]
    ours = load_tokenizer(folder_of(tmp_path, model_file(pieces)))
    assert ours.encode("маякв") == [6, 10]
    assert ours.decode([13]) == "маякв"


def test_options_of_the_normaliser_are_honoured(tmp_path: Path) -> None:
    bare = load_tokenizer(folder_of(tmp_path / "a", model_file(normalizer={3: 0})))
    assert bare.encode("маяк") == [7, 8, 9, 5] and bare.decode([7, 8, 9, 5]) == "маяк"
    wide = load_tokenizer(folder_of(tmp_path / "b", model_file(normalizer={4: 0})))
    assert wide.encode("вол  л") == [3, 10, 11, 12, 3, 3, 12] and wide.decode(wide.encode("вол  л")) == "вол  л"


def test_a_symbol_that_the_table_would_change_is_found_before_it(tmp_path: Path) -> None:
    model = read_model(reference("unigram/options.model"))
    model = model._replace(pieces=[*model.pieces, Piece("№", 0.0, USER_DEFINED)])  # the table makes No of it
    ours = PublishedTokenizer(unigram_spec(model), {"eos": "</s>"})
    assert ours.encode("снег № ")[-1] == len(model.pieces) - 1


# Line breaks


BROKEN_LINES = ["маяк\nвол", "\nмаяк", "маяк\n", "\n", "маяк\n\n\nвол", "\n\n"]


@pytest.mark.parametrize("text", BROKEN_LINES)
def test_line_breaks_survive(text: str, tmp_path: Path) -> None:
    ours = load_tokenizer(folder_of(tmp_path, model_file()))
    assert isinstance(ours, PublishedTokenizer)
    ids = ours.encode(text)
    assert ids.count(ours.line_break_id or -1) == text.count("\n")
    assert ours.decode(ids) == ours.decode(ids, skip_special=False) == text
    assert ours.encode_batch([text, "вол", text]) == [ids, ours.encode("вол"), ids]


def test_each_line_has_the_ids_that_it_has_alone(tmp_path: Path) -> None:
    ours = load_tokenizer(folder_of(tmp_path, "plain"))
    assert isinstance(ours, PublishedTokenizer) and ours.line_break_id is not None
    first, second = "Снег, снег, тишина.", "Над бухтой — огни"
    assert ours.encode(f"{first}\n{second}") == [*ours.encode(first), ours.line_break_id, *ours.encode(second)]


def test_spaces_beside_a_line_break_are_lost(tmp_path: Path) -> None:
    ours = load_tokenizer(folder_of(tmp_path, "plain"))
    assert ours.decode(ours.encode("снег  \n  лес \n")) == "снег\nлес\n"


def test_carriage_returns_go_with_their_line_break(tmp_path: Path) -> None:
    ours = load_tokenizer(folder_of(tmp_path, "plain"))
    assert ours.encode("снег\r\nлес") == ours.encode("снег\nлес")


def test_the_marker_is_an_ordinary_token_that_no_text_spells(tmp_path: Path) -> None:
    ours = load_tokenizer(folder_of(tmp_path, model_file()))
    assert isinstance(ours, PublishedTokenizer)
    assert ours.line_break_id not in {*ours.special_ids.values(), *ours.spare_ids, *ours.sentinel_ids}
    assert ours.line_break_id not in ours.encode("<extra_id_99> маяк <extra_id_99>")


@pytest.mark.parametrize("text", [*BROKEN_LINES, "маяк вол\nвол маяк\n\nю вол"])
def test_streamed_line_breaks_are_the_decoded_ones(text: str, tmp_path: Path) -> None:
    ours = load_tokenizer(folder_of(tmp_path, model_file()))
    ids = [0, *ours.encode(text), 1]
    decoder = StreamDecoder(ours)
    assert "".join(map(decoder.push, ids)) + decoder.finish() == ours.decode(ids)


def test_streamed_bytes_and_line_breaks_are_the_decoded_ones(tmp_path: Path) -> None:
    ours = load_tokenizer(folder_of(tmp_path, "options"))
    text = "снег 🌲\n🌲 ночь\n\nשלום"
    decoder, ids = StreamDecoder(ours), ours.encode(text)
    assert "".join(map(decoder.push, ids)) + decoder.finish() == ours.decode(ids) == text


@pytest.mark.parametrize("line_breaks", [True, False])
def test_saved_it_comes_back_with_its_line_breaks(line_breaks: bool, tmp_path: Path) -> None:
    ours = PublishedTokenizer.from_folder(folder_of(tmp_path / "a", "plain"), line_breaks=line_breaks)
    ours.save(tmp_path / "b")
    back = load_tokenizer(tmp_path / "b")
    assert isinstance(back, PublishedTokenizer)
    assert (back.line_break_id, back.sentinel_ids) == (ours.line_break_id, ours.sentinel_ids)
    assert (back.line_break_id is not None) == line_breaks
    assert (back.special_ids, back.roles) == (ours.special_ids, ours.roles)
    texts = load_json("unigram/plain")["texts"]
    assert back.encode_batch(texts) == ours.encode_batch(texts)
    assert not (tmp_path / "b" / "spiece.model").exists()


def test_a_tokenizer_that_keeps_line_breaks_has_no_marker(tmp_path: Path) -> None:
    recorded = load_tokenizer(folder_of(tmp_path / "bytes", "options"))  # there a line break is a byte
    assert isinstance(recorded, PublishedTokenizer) and recorded.line_break_id is None
    assert recorded.decode(recorded.encode("снег\n\nлес")) == "снег\n\nлес"
    pieces = [*PIECES, ("\n", -1.0, USER_DEFINED)]
    ours = load_tokenizer(folder_of(tmp_path, model_file(pieces)))
    assert isinstance(ours, PublishedTokenizer)
    assert ours.line_break_id is None and len(ours.sentinel_ids) == 100
    assert ours.encode("маяк\nк") == [6, 13, 5]
    assert ours.decode([6, 13, 5]) == "маяк\nк"


def test_the_library_reads_what_we_save(tmp_path: Path) -> None:
    ours = PublishedTokenizer.from_folder(folder_of(tmp_path / "a", "plain"), line_breaks=False)
    ours.save(tmp_path / "b")
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "b" / "tokenizer.json"))
    text = "Снег, снег — и тишина!"
    assert library.encode(text).ids == [*ours.encode(text), 1]
    assert library.decode(library.encode(text).ids) == ours.decode(ours.encode(text))


# Broken


def test_a_file_cut_anywhere_is_one_clear_error(tmp_path: Path) -> None:
    data, told = model_file(), []
    for end in range(0, len(data), 7):
        try:
            load_tokenizer(folder_of(tmp_path, data[:end]))
        except ValueError as error:
            told.append(str(error))
    assert all("spiece.model is no sentencepiece model, or is damaged" in words for words in told)
    assert len(told) > 0.6 * len(data) / 7  # a cut between two pieces leaves a whole message


BAD = {
    "empty": (b"", "it has 0 pieces"),
    "a page of the web": (b"<!DOCTYPE html><html>", "damaged"),
    "a pointer of git lfs": (b"version https://git-lfs.github.com/spec/v1\n", "damaged"),
    "endless number": (b"\xff" * 20, "a number in it has no end"),
    "a piece that is a number": (message((1, 5)), "a number stands where text should"),
    "a piece of a new kind": (model_file([("а", 0.0, 9)]), "a piece in it is of the unknown kind 9"),
    "no utf-8": (message((1, message((1, b"\xff\xfe")))), "damaged"),
    "the unknown one is missing": (model_file(PIECES[:2]), "it has 2 pieces, and the unknown one should be number 2"),
    "BPE": (model_file(trainer=T5_TRAINER | {3: 2}), "of the type BPE, and only unigram is read"),
    "suffix": (model_file(trainer=T5_TRAINER | {24: 1}), "trained with spaces behind words"),
    "bare spaces": (model_file(normalizer={5: 0}), "trained with spaces left as they are"),
    "a broken table": (model_file(normalizer={2: b"abc"}), "spiece.model"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_broken_file_is_one_clear_error(case: str, tmp_path: Path) -> None:
    data, words = BAD[case]
    with pytest.raises(ValueError, match=words) as error:
        load_tokenizer(folder_of(tmp_path, data))
    assert str(tmp_path / "spiece.model") in str(error.value)


def test_an_odd_number_of_sentinels_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="extra_ids in .*tokenizer_config.json should be a number"):
        load_tokenizer(folder_of(tmp_path, model_file(), tokenizer_config__json={"extra_ids": "many"}))


def test_tokenizer_json_goes_before_spiece_model(tmp_path: Path) -> None:
    load_tokenizer(folder_of(tmp_path / "a", model_file())).save(tmp_path / "b")
    shutil.copy(tmp_path / "b" / "tokenizer.json", tmp_path / "a" / "tokenizer.json")
    (tmp_path / "a" / "spiece.model").write_bytes(b"broken")
    assert load_tokenizer(tmp_path / "a").vocab_size == len(PIECES) + 100


def test_bytes_are_pieces_of_a_kind_of_their_own() -> None:
    kinds = {piece.kind for piece in read_model(reference("unigram/options.model")).pieces}
    assert {BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED} <= kinds
