"""Letters as tokens: ids by hand, unknown letters, files; and what holds for words too."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from minipoet.text import read_corpus
from minipoet.tokenization import CharTokenizer, StreamDecoder, Tokenizer, WordTokenizer, encode_texts, load_tokenizer

CHARS, WORDS = CharTokenizer.from_texts(["дом"]), WordTokenizer.from_texts(["дом"], min_count=1)
FIRST = ["<pad>", "<s>", "</s>"]


def folder_of(folder: Path, kind: str, vocab: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer_config.json").write_text(json.dumps({"minipoet": kind}), encoding="utf-8")
    (folder / "vocab.json").write_text(vocab if isinstance(vocab, str) else json.dumps(vocab), encoding="utf-8")
    return folder


def numbered(*tokens: str) -> dict[str, int]:
    return {token: id for id, token in enumerate(tokens)}


# Letters


def test_ids_are_specials_then_letters_by_code_point() -> None:
    tokenizer = CharTokenizer.from_texts(["дом\n", "Ёж"])
    assert tokenizer.vocab == numbered(*FIRST, "\n", "Ё", "д", "ж", "м", "о")
    assert tokenizer.encode("мод\n") == [7, 8, 5, 3]
    assert tokenizer.decode([1, 7, 8, 5, 2]) == "мод"
    assert tokenizer.decode([1, 7, 8, 5, 2], skip_special=False) == "<s>мод</s>"
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id) == (0, 1, 2, None)
    assert isinstance(tokenizer, Tokenizer)
    assert encode_texts(tokenizer, ["дом", ""]) == [[1, 5, 8, 7, 2], [1, 2]]


def test_letters_under_the_cut_become_unk() -> None:
    tokenizer = CharTokenizer.from_texts(["дом", "дым"], min_count=2)
    assert tokenizer.vocab == numbered(*FIRST, "<unk>", "д", "м")
    assert tokenizer.encode("дом") == [4, 3, 5]
    assert tokenizer.decode([4, 3, 5]) == "дм"
    assert tokenizer.decode([4, 3, 5], skip_special=False) == "д<unk>м"
    assert tokenizer.unknown("дома, доом") == list("оа, оо")


@pytest.mark.parametrize(
    ("min_count", "unk", "expected"), [(1, None, None), (1, True, 3), (2, None, 3), (2, False, None)]
)
def test_unk_is_there_if_letters_may_be_cut_or_as_one_says(min_count: int, unk: bool | None, expected: Any) -> None:
    assert CharTokenizer.from_texts(["мама"], min_count, unk).unk_id == expected


def test_unknown_letters_are_named_once_over_all_texts() -> None:
    with pytest.raises(ValueError, match=r"lacks some of the text: 'а', '\\u0306', 'Q'\. .*unk=True"):
        CHARS.encode_batch(["дама", "мод\u0306", "Qа"])
    with pytest.raises(ValueError, match="'T', …"):
        CHARS.encode("ABCDEFGHIJKLMNOPQRSTUVW")


def test_every_poem_comes_back() -> None:
    texts = [poem.text for poem in read_corpus("embedded")]
    tokenizer = CharTokenizer.from_texts(texts)
    ids = tokenizer.encode_batch(texts)
    assert [tokenizer.decode(row) for row in ids] == texts
    assert [len(row) for row in ids] == [len(text) for text in texts]
    decoder = StreamDecoder(tokenizer)
    assert "".join(map(decoder.push, ids[0])) + decoder.finish() == texts[0]


@pytest.mark.parametrize(("texts", "min_count"), [([], 1), (["", ""], 1), (["дом", "лес"], 2)])
@pytest.mark.parametrize("kind", [CharTokenizer, WordTokenizer])
def test_empty_vocabulary_is_refused(kind: Any, texts: list[str], min_count: int) -> None:
    with pytest.raises(ValueError, match=rf"vocabulary would be empty: of the \d .* none stands {min_count} times"):
        kind.from_texts(texts, min_count)


# What letters and words have in common


@pytest.mark.parametrize("kind", [CharTokenizer, WordTokenizer])
def test_text_that_spells_a_special_token_never_yields_its_id(kind: Any) -> None:
    text = "<s></s> <pad><unk>\n<space><join>"
    tokenizer = kind.from_texts([text], min_count=1)
    ids = tokenizer.encode(text)
    assert not set(ids) & set(tokenizer.special_ids.values())
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("tokenizer", [CHARS, WORDS])
@pytest.mark.parametrize("wrong", [-1, 100])
def test_id_outside_the_vocabulary_is_named(tokenizer: Any, wrong: int) -> None:
    with pytest.raises(
        ValueError, match=f"id {wrong} is none of this tokenizer's, which are 0 to {tokenizer.vocab_size - 1}"
    ):
        tokenizer.decode([3, wrong])


@pytest.mark.parametrize("tokenizer", [CHARS, CharTokenizer(["a"], unk=True), WORDS, WordTokenizer(["a"], unk=False)])
def test_what_was_saved_comes_back(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "new")
    back = load_tokenizer(tmp_path / "new")
    assert type(back) is type(tokenizer)
    assert (back.vocab, back.special_ids, back.unk_id) == (tokenizer.vocab, tokenizer.special_ids, tokenizer.unk_id)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["tokenizer_config.json", "vocab.json"]


def test_tokenizer_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(OSError, match="is a file, not a folder"):
        CHARS.save(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("kind", "vocab", "message"),
    [
        ("chars", '{"<pad>": 0, "<s', "is not a JSON file"),
        ("chars", ["а"], "expected an object that maps tokens to ids"),
        ("chars", {"<pad>": "0"}, "expected an object that maps tokens to ids"),
        ("chars", {"<pad>": 0, "<s>": 1, "</s>": 2, "а": 4}, "the ids of its 4 tokens are not 0 to 3, each once"),
        ("chars", numbered("а", "б", "в", "г"), "it begins with .* instead of"),
        ("chars", numbered(*FIRST), "nothing but special tokens"),
        ("chars", numbered(*FIRST, "аб", ""), "2 tokens are not one letter, the first is 'аб'"),
        ("chars", numbered(*FIRST, "\ud83c", "аб"), r"lone surrogate, .*'\\ud83c'.*; 1 tokens are not one letter"),
        ("words", numbered(*FIRST, "<unk>", "дом"), "it begins with .* instead of .*'<space>', '<join>'"),
        ("words", numbered(*FIRST, "<space>", "<join>", "дом", "два слова"), "not one word or sign, .* 'два слова'"),
    ],
)
def test_broken_file_is_one_clear_error(kind: str, vocab: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as error:
        load_tokenizer(folder_of(tmp_path, kind, vocab))
    assert str(tmp_path / "vocab.json") in str(error.value)


@pytest.mark.parametrize("kind", ["chars", "words"])
def test_missing_file_is_named(kind: str, tmp_path: Path) -> None:
    (folder_of(tmp_path, kind, {}) / "vocab.json").unlink()
    with pytest.raises(FileNotFoundError, match=rf"vocab\.json is missing: a tokenizer of {kind} needs it"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("tokenizer", [CHARS, WORDS])
def test_file_with_a_byte_changed_is_read_or_named(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    path = tmp_path / "vocab.json"
    content, draw, refused, read = path.read_bytes(), random.Random(0), 0, 0
    for _ in range(200):
        place = draw.randrange(len(content))
        path.write_bytes(content[:place] + draw.choice([b"", bytes([draw.randrange(256)])]) + content[place + 1 :])
        try:
            load_tokenizer(tmp_path)
        except ValueError as error:
            refused += str(path) in str(error)
        else:
            read += 1
    assert refused + read == 200 and refused > read > 0


def test_twice_the_same_token_is_refused() -> None:
    with pytest.raises(ValueError, match="1 tokens are in it twice"):
        CharTokenizer(["а", "б", "а"])
