"""Tokenizers on disk: what we write others read, what others publish we read, and what is broken is named."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

from minipoet.tokenization import BPETokenizer, PublishedTokenizer, StreamDecoder, Tokenizer, load_tokenizer, train_bpe
from minipoet.tokenization.bpe_files import read_bpe

TEXTS = [
    "Старый маяк над бухтой светит всю ночь, старый смотритель не спит.\n\nВолна за волной, волна за волной…",
    "Чайник шумит, за окном метёт; 12 книг на столе, 7 на полу.",
]
TRICKY = ["", " ", "маяк  \n\n и\u0306 ½ Ⅷ 123 🌲\u00a0\x1c\r\n", "</s><s><pad><|endoftext|> маяк", "it's"]


def write(folder: Path, **files: Any) -> Path:
    """Write files given as name__json=object or name__txt=text."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


def old_layout(folder: Path, tokenizer: BPETokenizer, **files: Any) -> Path:
    """vocab.json and merges.txt as GPT-2 and ruGPT-3 were published, and whatever else is given."""
    merges = "\n".join(["#version: 0.2", *map(" ".join, tokenizer.merges), ""])
    return write(folder, vocab__json=tokenizer.vocab, merges__txt=merges, **files)


def unigram(folder: Path) -> Path:
    """A tokenizer as T5 has it: pieces with scores, the specials among them, </s> at the end of every text."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁мая", -3.0), ("к", -3.5), ("▁маяк", -4.0)]
    pieces += [(letter, -6.0) for letter in "</spadunkмаяволнн>."]
    pieces = list(dict(reversed(pieces)).items())[::-1]
    library = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace("▁", prepend_scheme="always")]
    )
    library.decoder = decoders.Metaspace("▁", prepend_scheme="always")
    library.add_special_tokens(["<pad>", "</s>", "<unk>"])
    library.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    library.enable_truncation(4)
    library.enable_padding()
    return write(
        folder,
        tokenizer__json=library.to_str(),
        tokenizer_config__json={"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"},
    )


@pytest.fixture(scope="module")
def ours() -> BPETokenizer:
    return train_bpe(TEXTS * 3, 380)


@pytest.fixture
def saved(ours: BPETokenizer, tmp_path: Path) -> Path:
    ours.save(tmp_path / "saved")
    return tmp_path / "saved"


# Our own


@pytest.mark.parametrize("removed", [[], ["tokenizer.json"], ["vocab.json", "merges.txt"]])
def test_what_was_saved_comes_back(removed: list[str], ours: BPETokenizer, saved: Path) -> None:
    for name in removed:
        (saved / name).unlink()
    back = load_tokenizer(saved)
    assert isinstance(back, BPETokenizer)
    assert (back.vocab, back.merges, back.roles) == (ours.vocab, ours.merges, ours.roles)
    assert back.special_ids == ours.special_ids


def test_given_roles_come_back(tmp_path: Path) -> None:
    tokenizer = train_bpe(TEXTS, 300, special_tokens=["<a>", "<b>", "<c>"])
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (None, None, None)
    BPETokenizer(tokenizer.vocab, tokenizer.merges, ["<a>", "<b>", "<c>"], eos="<b>", pad="<c>").save(tmp_path)
    back = load_tokenizer(tmp_path)
    assert (back.bos_id, back.eos_id, back.pad_id) == (None, 1, 2)


def test_the_library_reads_our_files(ours: BPETokenizer, saved: Path) -> None:
    library = tokenizers.Tokenizer.from_file(str(saved / "tokenizer.json"))
    library.encode_special_tokens = True
    old = tokenizers.Tokenizer(models.BPE.from_file(str(saved / "vocab.json"), str(saved / "merges.txt")))
    old.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for text in TEXTS + TRICKY:
        assert ours.encode(text) == library.encode(text).ids == old.encode(text).ids
        assert library.decode(ours.encode(text)) == text
    assert library.get_vocab_size() == ours.vocab_size


def test_transformers_reads_our_folder(ours: BPETokenizer, saved: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(saved)
    assert len(theirs) == ours.vocab_size
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (1, 2, 0)
    for text in TEXTS:
        assert theirs(text)["input_ids"] == ours.encode(text)


def test_saving_leaves_nothing_else_behind(saved: Path) -> None:
    names = {"tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"}
    assert {path.name for path in saved.iterdir()} == names


# Published


def test_a_folder_without_our_key_is_published(ours: BPETokenizer, saved: Path) -> None:
    (saved / "tokenizer_config.json").unlink()
    published = load_tokenizer(saved)
    assert isinstance(published, PublishedTokenizer) and isinstance(published, Tokenizer)
    assert published.vocab_size == ours.vocab_size
    assert published.special_ids == ours.special_ids
    assert (published.bos_id, published.eos_id, published.pad_id) == (1, 2, 0)  # by the well-known strings
    assert published.encode_batch(TEXTS + TRICKY) == ours.encode_batch(TEXTS + TRICKY)
    for text in TEXTS + TRICKY:
        assert published.encode(text) == ours.encode(text)
        assert published.decode(published.encode(text)) == text


def test_old_layout_needs_no_other_file(ours: BPETokenizer, tmp_path: Path) -> None:
    published = load_tokenizer(old_layout(tmp_path, ours))
    assert published.special_ids == ours.special_ids
    assert (published.bos_id, published.eos_id, published.pad_id) == (1, 2, 0)
    assert all(published.encode(text) == ours.encode(text) for text in TEXTS + TRICKY)


def test_specials_are_written_only_when_asked_for(ours: BPETokenizer, tmp_path: Path) -> None:
    published = load_tokenizer(old_layout(tmp_path, ours))
    ids = [1, *published.encode("маяк"), 2, 0]
    assert published.decode(ids) == "маяк"
    assert published.decode(ids, skip_special=False) == "<s>маяк</s><pad>"


def test_ids_of_a_config_count_only_for_special_tokens(ours: BPETokenizer, tmp_path: Path) -> None:
    # Several ruGPT-3 configs carry GPT-2's id 50256, an ordinary token of theirs.
    folder = old_layout(
        tmp_path,
        ours,
        config__json={"bos_token_id": 300, "eos_token_id": 300},
        generation_config__json={"eos_token_id": [1, 2], "pad_token_id": 300},
    )
    published = load_tokenizer(folder)
    assert (published.bos_id, published.eos_id, published.pad_id) == (1, 1, 0)


def test_of_several_ids_of_a_config_the_first_that_is_special_counts(ours: BPETokenizer, tmp_path: Path) -> None:
    folder = old_layout(tmp_path, ours, generation_config__json={"eos_token_id": [300, 0, 1], "bos_token_id": []})
    published = load_tokenizer(folder)
    assert (published.bos_id, published.eos_id) == (1, 0)


def test_added_token_that_the_model_has_no_row_for_is_left_out(ours: BPETokenizer, tmp_path: Path) -> None:
    # GPT2Tokenizer adds its <|endoftext|> to a vocabulary that has none, and saves it as beginning and end.
    size, names = ours.vocab_size, {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    files = {"added_tokens__json": {"<|endoftext|>": size}, "special_tokens_map__json": names}
    published = load_tokenizer(old_layout(tmp_path / "a", ours, config__json={"vocab_size": size}, **files))
    assert (published.vocab_size, published.bos_id, published.eos_id) == (size, 1, 2)
    with_a_row = load_tokenizer(old_layout(tmp_path / "b", ours, config__json={"vocab_size": size + 1}, **files))
    assert (with_a_row.vocab_size, with_a_row.eos_id) == (size + 1, size)


def test_names_of_a_config_count_before_ids_and_only_if_known(ours: BPETokenizer, tmp_path: Path) -> None:
    folder = old_layout(
        tmp_path,
        ours,
        tokenizer_config__json={"bos_token": None, "eos_token": "<|endoftext|>", "pad_token": {"content": "</s>"}},
        special_tokens_map__json={"eos_token": "<s>"},
        config__json={"bos_token_id": 1, "pad_token_id": 0},
    )
    published = load_tokenizer(folder)
    assert (published.bos_id, published.eos_id, published.pad_id) == (None, 2, 2)


def test_a_single_letter_never_becomes_a_special_token(ours: BPETokenizer, tmp_path: Path) -> None:
    published = load_tokenizer(old_layout(tmp_path, ours, tokenizer_config__json={"pad_token": "!"}))
    assert published.encode("!") == [ours.vocab["!"]]
    assert published.pad_id == 0


def test_added_tokens_keep_their_ids_and_ordinary_ones_are_found_in_text(ours: BPETokenizer, tmp_path: Path) -> None:
    size = ours.vocab_size
    folder = old_layout(
        tmp_path, ours, added_tokens__json={"<|im_start|>": size, "ёлка-палка": size + 1, "<|im_end|>": size + 2}
    )
    published = load_tokenizer(folder)
    assert published.vocab_size == size + 3
    assert published.special_ids["<|im_end|>"] == size + 2
    assert published.encode("ёлка-палка") == [size + 1]
    assert not {size, size + 2} & set(published.encode("<|im_start|><|im_end|>"))
    assert published.decode([size + 2, size + 1], skip_special=False) == "<|im_end|>ёлка-палка"
    assert "".join(map(StreamDecoder(published).push, [size + 1, size + 2])) == "ёлка-палка"


def test_qwen2_cuts_digits_one_by_one_and_composes(ours: BPETokenizer, tmp_path: Path) -> None:
    folder = old_layout(tmp_path, ours, tokenizer_config__json={"tokenizer_class": "Qwen2Tokenizer"})
    published = load_tokenizer(folder)
    assert published.encode("12") == [ours.vocab["1"], ours.vocab["2"]]
    assert published.encode("и\u0306") == published.encode("й")
    assert published.decode(published.encode("Шёл 2025 год.\n\n И")) == "Шёл 2025 год.\n\n И"


def test_text_never_yields_a_special_piece_of_a_unigram_model(tmp_path: Path) -> None:
    published = load_tokenizer(unigram(tmp_path))
    raw = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    raw.encode_special_tokens = True
    assert 1 in raw.encode("</s>", add_special_tokens=False).ids  # what the library alone would give
    ids = published.encode("</s> <pad>маяк")
    assert not {0, 1} & set(ids)
    assert published.decode(ids) == "</s> <pad>маяк"


def test_nothing_is_added_cut_off_or_filled_up(tmp_path: Path) -> None:
    published = load_tokenizer(unigram(tmp_path))
    one, two = published.encode_batch(["маяк", "маяк волна маяк волна маяк"])
    assert len(one) == 1 and len(two) > 4
    assert (published.bos_id, published.eos_id, published.pad_id) == (None, 1, 0)


def test_stream_of_words_keeps_their_spaces(tmp_path: Path) -> None:
    published = load_tokenizer(unigram(tmp_path))
    ids = [*published.encode("маяк волна маяк"), 1, 0, *published.encode("маяк . лава")]
    decoder = StreamDecoder(published)
    assert "".join(map(decoder.push, ids)) + decoder.finish() == published.decode(ids) == "маяк волна маяк маяк . лава"


def test_stream_decodes_a_bounded_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = load_tokenizer(unigram(tmp_path))
    lengths: list[int] = []
    decode = published.decode

    def watched(ids: list[int], skip_special: bool) -> str:
        lengths.append(len(ids))
        return decode(ids, skip_special)

    monkeypatch.setattr(published, "decode", watched)
    decoder = StreamDecoder(published)
    for id in published.encode("маяк волна " * 200):
        decoder.push(id)
    assert len(lengths) > 400 and max(lengths) <= 5


@pytest.mark.parametrize("make", [unigram, None])
def test_published_tokenizer_saves_itself(make: Any, ours: BPETokenizer, tmp_path: Path) -> None:
    folder = make(tmp_path / "a") if make else old_layout(tmp_path / "a", ours)
    published = load_tokenizer(folder)
    published.save(tmp_path / "b")
    back = load_tokenizer(tmp_path / "b")
    assert back.special_ids == published.special_ids
    assert (back.bos_id, back.eos_id, back.pad_id) == (published.bos_id, published.eos_id, published.pad_id)
    assert [back.encode(text) for text in TEXTS + TRICKY] == [published.encode(text) for text in TEXTS + TRICKY]


def test_published_tokenizer_refuses_what_is_no_text_and_no_id(ours: BPETokenizer, tmp_path: Path) -> None:
    published = load_tokenizer(old_layout(tmp_path, ours))
    for encode in (published.encode, lambda text: published.encode_batch([text])):
        with pytest.raises(ValueError, match=r"lone surrogate, U\+D83C"):
            encode("\ud83c")
    with pytest.raises(ValueError, match="id 5000 is none of"):
        published.decode([5000])


# Broken


GOOD = {"a": 0}
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "nothing there": ({}, "vocab.json is missing"),
    "merges.txt missing": ({"vocab__json": GOOD}, "merges.txt is missing"),
    "cut short": ({"tokenizer__json": '{"model": {"vo'}, "tokenizer.json"),
    "a list": ({"tokenizer__json": "[1]"}, "tokenizer.json is JSON but no tokenizer"),
    "no model": ({"tokenizer__json": "{}"}, "tokenizer.json is JSON but no tokenizer"),
    "unknown model": ({"tokenizer__json": {"model": {"type": "X", "vocab": GOOD}}}, "tokenizer.json cannot be used"),
    "model of wrong shape": ({"tokenizer__json": {"model": {"type": "BPE", "vocab": 3}}}, "tokenizer.json"),
    "added token without id": (
        {"tokenizer__json": {"model": {"vocab": GOOD}, "added_tokens": [{"content": "b"}]}},
        "tokenizer.json cannot be used: the key 'id' is missing",
    ),
    "vocabulary is a list": ({"vocab__json": "[]", "merges__txt": ""}, "vocab.json should map tokens to ids"),
    "three parts": ({"vocab__json": GOOD, "merges__txt": "#version\na b c"}, "merges.txt, line 2"),
    "merge of unknown tokens": ({"vocab__json": GOOD, "merges__txt": "a b"}, "vocab.json cannot be used"),
    "config is a list": ({"tokenizer_config__json": "[]"}, "tokenizer_config.json should hold a JSON object"),
    "kind of the future": ({"tokenizer_config__json": {"minipoet": "runes"}}, "'runes', and this version knows"),
    "unknown family": (
        {"vocab__json": GOOD, "merges__txt": "", "config__json": {"model_type": "llama"}},
        "of the kind 'llama'",
    ),
    "ours, wrong model": (
        {
            "tokenizer_config__json": {"minipoet": "bpe"},
            "tokenizer__json": {"model": {"type": "Unigram", "vocab": [1]}},
        },
        "its model is 'Unigram' instead of 'BPE'",
    ),
    "ours, bytes missing": (
        {"tokenizer_config__json": {"minipoet": "bpe"}, "vocab__json": GOOD, "merges__txt": ""},
        "vocab.json cannot be used: .* 255 of the 256 bytes are no tokens",
    ),
    "ours, broken merges": (
        {
            "tokenizer_config__json": {"minipoet": "bpe"},
            "tokenizer__json": {
                "model": {"type": "BPE", "vocab": GOOD, "merges": ["a b c"]},
                "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
            },
        },
        "tokenizer.json is broken: 1 merges are no pairs",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_folder_is_one_clear_error(case: str, tmp_path: Path) -> None:
    files, message = BROKEN[case]
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        load_tokenizer(write(tmp_path, **files))
    assert str(tmp_path) in str(error.value)


def test_bytes_that_are_no_utf8_are_named(tmp_path: Path) -> None:
    write(tmp_path, vocab__json=GOOD)
    (tmp_path / "merges.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"merges\.txt is no UTF-8"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(("name", "message"), [("none", "does not exist"), ("tokenizer.json", "is a file")])
def test_no_folder_is_named(name: str, message: str, saved: Path) -> None:
    with pytest.raises(FileNotFoundError, match=message):
        load_tokenizer(saved / name)


def test_foreign_bpe_is_not_taken_for_gpt2s(ours: BPETokenizer, saved: Path) -> None:
    spec = json.loads((saved / "tokenizer.json").read_text(encoding="utf-8"))
    spec |= {"normalizer": {"type": "NFC"}, "pre_tokenizer": spec["pre_tokenizer"] | {"add_prefix_space": True}}
    write(saved, tokenizer__json=spec)
    with pytest.raises(ValueError, match="its normalizer is .*; its add_prefix_space is True instead of False"):
        read_bpe(saved)
