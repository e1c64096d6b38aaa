"""Words as tokens: the cut, the rules of spaces and their exceptions, unknown words. What is common: test_chars.py."""

import random
from typing import Any

import pytest

from minipoet.text import read_corpus
from minipoet.tokenization import StreamDecoder, Tokenizer, WordTokenizer, split_tokens

EMBEDDED = [poem.text for poem in read_corpus("embedded")]
SPACE, JOIN = 4, 5


def told(tokenizer: WordTokenizer, ids: list[int], **options: Any) -> list[str]:
    """What is seen of a text after each of its ids."""
    decoder, seen = StreamDecoder(tokenizer, **options), [""]
    for id in ids:
        seen.append(seen[-1] + decoder.push(id))
    assert decoder.finish() == ""
    return seen[1:]


# The cut


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Кое-кто, 12 лет…\n", ["Кое-кто", ",", "12", "лет", "…", "\n"]),
        ("д’Артаньян — О'Нил!..", ["д’Артаньян", "—", "О'Нил", "!", ".", "."]),
        ("-то кто- 'он' а--б", ["-", "то", "кто", "-", "'", "он", "'", "а", "-", "-", "б"]),
        ("2-й 12км\t_ёж_\n\n", ["2", "-", "й", "12", "км", "\t", "_", "ёж", "_", "\n", "\n"]),
        ("  ", []),
    ],
)
def test_text_is_cut_into_words_numbers_and_signs(text: str, expected: list[str]) -> None:
    assert split_tokens(text) == expected


# The vocabulary


def test_ids_are_specials_marks_then_words_by_how_often_they_stand() -> None:
    tokenizer = WordTokenizer.from_texts(["дом, дом, Дом.", "лес, бор, лес"], min_count=1)
    first = ["<pad>", "<s>", "</s>", "<unk>", "<space>", "<join>"]
    assert list(tokenizer.vocab) == [*first, ",", "дом", "лес", ".", "Дом", "бор"]
    assert tokenizer.encode("Дом, лес") == [10, 6, 8]
    assert tokenizer.decode([1, 10, 6, 8, 2]) == "Дом, лес"
    assert tokenizer.decode([1, 10, 6, 8, 2], skip_special=False) == "<s>Дом, лес</s>"
    assert tokenizer.special_ids == {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3}
    assert isinstance(tokenizer, Tokenizer)


def test_rare_words_are_cut_and_no_more_are_kept_than_asked_for() -> None:
    texts = ["дом, дом, Дом.", "лес, бор, лес"]
    assert list(WordTokenizer.from_texts(texts).vocab)[6:] == [",", "дом", "лес"]
    assert list(WordTokenizer.from_texts(texts, max_words=2).vocab)[6:] == [",", "дом"]
    assert list(WordTokenizer.from_texts(texts, min_count=4).vocab)[6:] == [","]


# Spaces


TOKENIZER = WordTokenizer.from_texts(['дом лес 7 , . ! ? ( ) « » — - * \n " \t'], min_count=1)


def spelled(ids: list[int]) -> str:
    names = list(TOKENIZER.vocab)
    return " ".join({SPACE: "SPACE", JOIN: "JOIN"}.get(id, names[id]) for id in ids)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("дом, лес — «дом»!..", "дом , лес — « дом » ! . ."),
        ("(дом)\n\n— лес\nдом 7", "( дом ) \n \n — лес \n дом 7"),
        ("7-лес * *", "7 - лес * *"),
        ("дом  лес", "дом SPACE SPACE лес"),
        ("дом ,лес", "дом SPACE , JOIN лес"),
        ("дом—лес", "дом JOIN — JOIN лес"),
        ("7лес", "7 JOIN лес"),
        (" дом \n лес ", "SPACE дом SPACE \n SPACE лес SPACE"),
        ("« дом\t лес", "« SPACE дом \t SPACE лес"),
        ("   ", "SPACE SPACE SPACE"),
        ("", ""),
    ],
)
def test_spaces_follow_from_rules_and_exceptions_are_told(text: str, expected: str) -> None:
    ids = TOKENIZER.encode(text)
    assert spelled(ids) == expected
    assert TOKENIZER.decode(ids) == text


def test_any_text_of_known_words_comes_back_with_its_spaces() -> None:
    draw = random.Random(0)
    parts = ["дом", "лес", "7", *',.!?()«»—-*"\n\t', " ", " ", " ", "  "]
    for _ in range(2000):
        text = "".join(draw.choices(parts, k=draw.randrange(12)))
        tokenizer = WordTokenizer.from_texts([text, "дом"], min_count=1)  # chance makes words like "лес-дом"
        ids = tokenizer.encode(text)
        assert tokenizer.unknown(text) == []
        assert tokenizer.decode(ids) == text
        assert all(text.startswith(seen) for seen in told(tokenizer, ids))


def test_any_ids_read_alike_one_by_one_and_at_once() -> None:
    draw = random.Random(1)
    for _ in range(500):
        ids = draw.choices(range(TOKENIZER.vocab_size), k=8)
        for options in ({}, {"skip_special": False}):
            seen = told(TOKENIZER, ids, **options)
            assert seen == [TOKENIZER.decode(ids[: end + 1], **options) for end in range(8)]


def test_every_poem_comes_back_and_hardly_needs_exceptions() -> None:
    tokenizer = WordTokenizer.from_texts(EMBEDDED, min_count=1)
    ids = tokenizer.encode_batch(EMBEDDED)
    assert [tokenizer.decode(row) for row in ids] == EMBEDDED
    assert [told(tokenizer, row)[-1] for row in ids[:20]] == EMBEDDED[:20]
    exceptions = sum(row.count(SPACE) + row.count(JOIN) for row in ids)
    assert exceptions < sum(map(len, ids)) / 1000


# Unknown words


def test_unknown_words_are_read_as_words_and_leave_no_gap() -> None:
    text = "дом, старый дом: лес  ,чаща"
    ids = TOKENIZER.encode(text)
    assert spelled(ids) == "дом , <unk> дом <unk> лес SPACE SPACE , <unk>"
    assert TOKENIZER.unknown(text) == ["старый", ":", "чаща"]
    assert TOKENIZER.decode(ids, skip_special=False) == "дом, <unk> дом <unk> лес  , <unk>"
    assert TOKENIZER.decode(ids) == "дом, дом лес  ,"


def test_unknown_words_come_in_order_with_repetition_as_often_as_unk() -> None:
    tokenizer = WordTokenizer.from_texts(EMBEDDED[:50], min_count=3)
    for text in EMBEDDED[50:60]:
        unknown = tokenizer.unknown(text)
        assert unknown == [word for word in split_tokens(text) if word not in tokenizer.vocab]
        assert len(unknown) == tokenizer.encode(text).count(tokenizer.unk_id)
    assert tokenizer.unknown("абвг, где абвг") == ["абвг", "абвг"]


def test_without_unk_unknown_words_are_an_error_that_names_them() -> None:
    tokenizer = WordTokenizer(["дом"], unk=False)
    assert (tokenizer.unk_id, tokenizer.encode("дом дом")) == (None, [5, 5])
    with pytest.raises(ValueError, match="vocabulary of words lacks some of the text: 'лес', ','"):
        tokenizer.encode("дом лес, лес")
