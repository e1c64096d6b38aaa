"""Byte-level BPE: the cut into words, learning merges, encoding and decoding. The yardstick is `tokenizers`."""

import random
import sys

import pytest
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers, trainers

from minipoet.tokenization import BPETokenizer, StreamDecoder, Tokenizer, bpe, byte_level, train_bpe
from minipoet.tokenization.bpe import merge_long_word, merge_word
from minipoet.tokenization.bpe_train import count_words
from minipoet.tokenization.byte_level import NEW_LETTERS, NEW_NUMBERS, byte_alphabet, split_words

SPECIALS = ["<pad>", "<s>", "</s>"]
CORPUS = [
    "Над рекой туман, над рекой рассвет, рыбаки молчат и смотрят вдаль.\n\nТуман уйдёт, рассвет придёт.",
    "Кот сидел у окна, кот глядел на снег; снег летел, летел и не таял.\r\nА кот-то всё глядел!",
    "It's a cat's life, they'll say: we've 12 cats, 345 dogs.  ½ of them (Ⅷ) slept…",
]
TRICKY = [
    "",
    " ",
    "  кот",
    "кот  ",
    "кот \n\n\n снег\t\t!",
    "\r\n\r\nа\rб",
    "1234567890 ½ ¾ ² Ⅷ ٣٤ 一二三",
    "don't DON'T we'll 'кот' 's",
    "й и\u0306 е\u0301 ё e\u0308 \u0301",
    "NBSP\u00a0\u00a0NNBSP\u202fZWSP\u200bBOM\ufeff",
    "\x00\x1c\x1d\x1e\x1f \x85 \x7f\u180e\u2028\u2029",
    "🌲🌲 👨‍👩‍👧‍👦 🇷🇺 👍🏽",
    "«Ой!» — сказал он… №5, 100 ₽, 20 °C",
    "\U00031350\U0001e030\U00010d40\u1c89 \U000e0001\U0010ffff",
    "snake_case __init__ a_1",
    "</s><s> <pad>",
    "مرحبا नमस्ते ไทย 한국어 日本語",
]


def library_trained(texts: list[str], vocab_size: int, min_frequency: int = 2) -> Library:
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIALS,
        min_frequency=min_frequency,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator(texts, trainer)
    library.encode_special_tokens = True
    return library


def library_pieces(text: str) -> list[str]:
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(text)
    return [text[start:end] for _, (start, end) in cut]


def random_texts(seed: int) -> list[str]:
    """A few letters, so that many pairs are equally frequent, and words long enough for runs and repetitions."""
    source = random.Random(seed)
    letters = source.choice(["ab", "abc", "aab", "абв ", "ab c\n", "яаб½ Ⅷ²1 \n\x1f_!'s"])
    return [
        "".join(source.choices(letters, k=source.choice([1, 5, 30, 300]))) for _ in range(source.choice([1, 4, 12]))
    ]


@pytest.fixture(scope="module")
def ours() -> BPETokenizer:
    return train_bpe(CORPUS * 3, 400)


@pytest.fixture(scope="module")
def library() -> Library:
    return library_trained(CORPUS * 3, 400)


# Learning


def test_hand_worked_merges() -> None:
    # ab 3 times, abc twice, bc 2 times.
    # a+b stands 3+2 = 5 times, b+c 2+2 = 4 times       -> ab; in abc the pair b+c is broken, ab+c made
    # b+c stands 4-2 = 2 times, ab+c 2 times: a tie, and b is older than ab        -> bc
    # ab+c stands 2 times                               -> abc
    tokenizer = train_bpe(["ab", "ab", "ab", "abc", "abc", "bc", "bc"], vocab_size=300)
    assert tokenizer.merges == [("a", "b"), ("b", "c"), ("ab", "c")]
    assert [tokenizer.vocab[token] for token in ("ab", "bc", "abc")] == [259, 260, 261]
    assert tokenizer.vocab_size == 262  # nothing else stands twice


def test_hand_worked_encoding() -> None:
    tokenizer = train_bpe(["ab", "ab", "ab", "abc", "abc", "bc", "bc"], vocab_size=300)
    ab, bc, abc, b = (tokenizer.vocab[token] for token in ("ab", "bc", "abc", "b"))
    assert tokenizer.encode("abc") == [abc]  # ab is joined first, so bc never stands there
    assert tokenizer.encode("bcab") == [bc, ab]
    assert tokenizer.encode("babb") == [b, ab, b]


def test_run_of_one_letter_is_joined_from_the_left() -> None:
    # In aaaaa the pair a+a stands 4 times. Joined it is aa aa a: aa+aa once, aa+a once, a tie, and a is older than aa.
    tokenizer = train_bpe(["aaaaa"] * 2, vocab_size=300)
    assert tokenizer.merges == [("a", "a"), ("aa", "a"), ("aa", "aaa")]


def test_ids_are_specials_then_bytes_then_merges() -> None:
    tokenizer = train_bpe(CORPUS, 300)
    tokens = sorted(tokenizer.vocab, key=tokenizer.vocab.__getitem__)
    assert tokens[:3] == SPECIALS
    assert tokens[3:259] == sorted(byte_alphabet().values())
    assert tokens[259:] == [left + right for left, right in tokenizer.merges]
    assert tokenizer.vocab_size == 300


@pytest.mark.parametrize("seed", range(60))
def test_merges_equal_the_librarys_with_many_ties(seed: int) -> None:
    texts = random_texts(seed)
    vocab_size, min_frequency = 259 + [1, 20, 100, 1000][seed % 4], seed % 5
    library = library_trained(texts, vocab_size, min_frequency)
    ours = train_bpe(texts, vocab_size, SPECIALS, min_frequency)
    assert ours.vocab == library.get_vocab()
    assert all(ours.encode(text) == library.encode(text).ids for text in texts)


def test_merges_do_not_depend_on_the_order_of_the_texts() -> None:
    texts = random_texts(0) + random_texts(4) + CORPUS
    assert train_bpe(texts, 500).merges == train_bpe(texts[::-1], 500).merges


def test_pairs_below_min_frequency_are_not_joined() -> None:
    assert train_bpe(["ab", "ab", "ab", "cd", "cd"], 300, min_frequency=3).merges == [("a", "b")]


@pytest.mark.parametrize("texts", [[], [""]])
def test_there_is_nothing_to_learn_from_an_empty_corpus(texts: list[str]) -> None:
    with pytest.raises(ValueError, match="no text to learn from"):
        train_bpe(texts, 300)


def test_no_merge_makes_a_special_token() -> None:
    tokenizer = train_bpe(["end", "end", "end"], 300, special_tokens=["end", "</s>"])
    assert tokenizer.merges == [("e", "n")]
    assert tokenizer.encode("end") == [tokenizer.vocab["en"], tokenizer.vocab["d"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a"], 258), "need 259"),
        (("текст", 300), r"train_bpe\(\[text\]"),
        ((["a"], 300, ["<s>", "<s>"]), "twice"),
        ((["a"], 300, ["a"]), "single letters"),
        ((["а\ud800"], 300), "lone surrogate, U.D800"),
    ],
)
def test_impossible_training_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_bpe(*arguments)


def test_words_are_counted_over_all_texts() -> None:
    assert count_words(["кот и кот", "и кот"]) == {"кот": 1, " и": 1, " кот": 2, "и": 1}


# The cut into words


def test_cut_by_hand() -> None:
    assert split_words("Шёл 2-й год,  и") == ["Шёл", " 2", "-", "й", " год", ",", " ", " и"]


@pytest.mark.parametrize("text", TRICKY + CORPUS)
def test_cut_equals_the_librarys(text: str) -> None:
    assert split_words(text) == library_pieces(text)


def test_every_class_of_characters_is_the_librarys() -> None:
    # The first 0x3000 characters, and in all planes both sides of every border between classes, Python's and ours.
    kind = [chr(code).isalpha() * 4 + chr(code).isnumeric() * 2 + chr(code).isspace() for code in range(0x110000)]
    codes = {*range(0x3000), *(code for code in range(1, 0x110000) if kind[code] != kind[code - 1])}
    codes |= {int(code, 16) for pair in f"{NEW_LETTERS} {NEW_NUMBERS}".split() for code in pair.split("-")}
    near = sorted({code + step for code in codes for step in (-1, 0, 1)} & {*range(sys.maxunicode + 1)})
    characters = [chr(code) for code in near if not 0xD800 <= code < 0xE000]
    for first in range(0, len(characters), 500):
        text = "".join(f"я{c}1{c}!{c} {c}  {c}\n" for c in characters[first : first + 500])
        assert split_words(text) == library_pieces(text)


def test_fast_pattern_equals_the_exact_one_where_it_is_used() -> None:
    simple = [chr(code) for code in range(0x10000) if not byte_level._outside_simple().search(chr(code))]
    text = "".join(f"я{c}1{c}!{c} {c}  {c}\n" for c in simple)
    assert len(simple) == 2439
    assert byte_level._simple_words().findall(text) == byte_level._exact_words().findall(text)


# Encoding and decoding


def test_it_is_a_tokenizer(ours: BPETokenizer) -> None:
    assert isinstance(ours, Tokenizer)


@pytest.mark.parametrize("text", TRICKY + CORPUS)
def test_ids_equal_the_librarys(text: str, ours: BPETokenizer, library: Library) -> None:
    assert ours.encode(text) == library.encode(text).ids


@pytest.mark.parametrize("text", TRICKY + CORPUS)
def test_text_comes_back(text: str, ours: BPETokenizer) -> None:
    assert ours.decode(ours.encode(text)) == text


def test_random_unicode_comes_back_and_has_the_librarys_ids(ours: BPETokenizer, library: Library) -> None:
    source = random.Random(7)
    codes = [*range(0xD800), *range(0xE000, 0x110000)]
    for _ in range(50):
        text = "".join(chr(source.choice(codes if source.random() < 0.5 else range(0x500))) for _ in range(60))
        ids = ours.encode(text)
        assert ids == library.encode(text).ids
        assert ours.decode(ids) == text


def test_batch_equals_one_by_one(ours: BPETokenizer) -> None:
    assert ours.encode_batch(TRICKY) == [ours.encode(text) for text in TRICKY]


def test_short_and_long_words_are_merged_alike() -> None:
    tokenizer = train_bpe(["абаабабаа" * 5, "ааааа" * 7], 350)
    for seed in range(40):
        text = "".join(random.Random(seed).choices("аб", k=60))
        ids = [tokenizer.vocab[byte_alphabet()[byte]] for byte in text.encode()]
        assert merge_word(list(ids), tokenizer._table) == merge_long_word(list(ids), tokenizer._table)


def test_word_of_100_kilobytes_takes_no_quadratic_time(ours: BPETokenizer, library: Library) -> None:
    text = "а" * 50_000  # the short-word way, quadratic, would take about a minute
    assert ours.encode(text) == library.encode(text).ids


def test_word_cache_is_bounded(monkeypatch: pytest.MonkeyPatch, ours: BPETokenizer, library: Library) -> None:
    monkeypatch.setattr(bpe, "CACHED_WORDS", 10)
    tokenizer = BPETokenizer(ours.vocab, ours.merges, SPECIALS)
    assert tokenizer.encode(CORPUS[0]) == library.encode(CORPUS[0]).ids
    assert len(tokenizer._words) <= 10


def test_special_tokens_come_by_name_only(ours: BPETokenizer) -> None:
    assert ours.special_ids == {"<pad>": 0, "<s>": 1, "</s>": 2}
    assert (ours.bos_id, ours.eos_id, ours.pad_id) == (1, 2, 0)
    assert not set(ours.special_ids.values()) & set(ours.encode("<s>кот</s><pad>"))
    ids = [1, *ours.encode("кот"), 2]
    assert ours.decode(ids) == "кот"
    assert ours.decode(ids, skip_special=False) == "<s>кот</s>"


def test_merge_that_spells_a_special_token_is_left_out(ours: BPETokenizer) -> None:
    vocab = ours.vocab | {"qz": ours.vocab_size, "qzq": ours.vocab_size + 1}
    tokenizer = BPETokenizer(vocab, [("q", "z"), ("qz", "q")], ["qzq"])
    assert tokenizer.encode("qzq") == [vocab["qz"], vocab["q"]]


def test_lone_surrogate_is_refused(ours: BPETokenizer) -> None:
    with pytest.raises(ValueError, match=r"lone surrogate, U\+DC80"):
        ours.encode("кот \udc80")


@pytest.mark.parametrize("id", [-1, 10**6])
def test_unknown_id_is_refused(id: int, ours: BPETokenizer) -> None:
    with pytest.raises(ValueError, match=f"id {id} is none of"):
        ours.decode([id])


def test_every_problem_of_a_vocabulary_is_told_at_once(ours: BPETokenizer) -> None:
    vocab = {token: id for token, id in ours.vocab.items() if token != "!"} | {"кот": 5}
    with pytest.raises(ValueError) as error:
        BPETokenizer(vocab, [("q", "zz")], ["<s>", "<none>"], eos="<end>")
    for words in ("are not 0 to", "first '!'", "'<none>'", "outside the vocabulary", "'кот'", "eos token '<end>'"):
        assert words in str(error.value)


# Streaming


def streamed(tokenizer: Tokenizer, ids: list[int], skip_special: bool = True) -> list[str]:
    decoder = StreamDecoder(tokenizer, skip_special)
    return [*(decoder.push(id) for id in ids), decoder.finish()]


@pytest.mark.parametrize("text", TRICKY + CORPUS)
def test_stream_gives_the_text_in_whole_characters(text: str, ours: BPETokenizer) -> None:
    pieces = streamed(ours, ours.encode(text))
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_stream_holds_a_split_character_back(ours: BPETokenizer) -> None:
    ids = [ours.vocab[byte_alphabet()[byte]] for byte in "д🌲".encode()]
    assert streamed(ours, ids) == ["", "д", "", "", "", "🌲", ""]


def test_stream_of_random_ids_equals_decode(ours: BPETokenizer) -> None:
    for seed in range(30):
        ids = random.Random(seed).choices(range(ours.vocab_size), k=80)  # mostly no UTF-8
        for skip_special in (True, False):
            assert "".join(streamed(ours, ids, skip_special)) == ours.decode(ids, skip_special)


def test_stream_decoder_is_ready_for_the_next_text(ours: BPETokenizer) -> None:
    decoder = StreamDecoder(ours)
    assert decoder.push(ours.vocab[byte_alphabet()[0xD0]]) == ""
    assert decoder.finish() == "\ufffd"
    assert "".join(map(decoder.push, ours.encode("кот"))) == "кот"
