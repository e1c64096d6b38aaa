"""The cache of tokens: equal to `encode_texts`, made once, mapped and not read, and never half of a file."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from minipoet.text import read_corpus
from minipoet.tokenization import CharTokenizer, Tokenizer, TokenStore, store, tokenized, train_bpe
from minipoet.tokenization.base import encode_texts
from minipoet.training import Batches, Streams

TEXTS = ["над полем снег", "снег над полем\nи дым", "", "и над полем дым"] * 3


class Counting:
    """A tokenizer of words that counts the texts that it was given."""

    def __init__(self, vocab_size: int = 300, specials: tuple[str, ...] = ("</s>",), fails_at: int = -1) -> None:
        self.vocab_size, self.fails_at, self.seen = vocab_size, fails_at, 0
        self.special_ids = {name: number for number, name in enumerate(specials)}
        self.bos_id, self.eos_id, self.pad_id = None, 0, None

    def encode(self, text: str) -> list[int]:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts) -> list[list[int]]:
        self.seen += len(texts)
        if 0 <= self.fails_at < self.seen:
            raise KeyboardInterrupt
        return [[self.vocab_size - 1 - len(word) for word in text.split()] for text in texts]

    def decode(self, ids, skip_special: bool = True) -> str:
        raise NotImplementedError

    def save(self, folder) -> None:
        (Path(folder) / "words.json").write_text(json.dumps([self.vocab_size, self.special_ids]))


@pytest.fixture
def bpe() -> Tokenizer:
    return train_bpe(TEXTS, 300)


def equal(found: TokenStore, tokenizer: Tokenizer, texts: list[str]) -> bool:
    return [ids.tolist() for ids in found] == encode_texts(tokenizer, texts)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_store_has_the_ids_that_encode_texts_gives(tmp_path, bpe, monkeypatch):
    monkeypatch.setattr(store, "CHUNK", 5)
    found = tokenized(bpe, TEXTS, tmp_path)
    assert len(found) == 12
    assert equal(found, bpe, TEXTS)
    assert found.tokens == sum(map(len, encode_texts(bpe, TEXTS)))


def test_second_call_reads_the_file_and_tokenises_nothing(tmp_path):
    tokenizer = Counting()
    first = tokenized(tokenizer, TEXTS, tmp_path)
    assert tokenizer.seen == len(TEXTS)
    second = tokenized(tokenizer, TEXTS, tmp_path)
    assert tokenizer.seen == len(TEXTS)
    assert [a.tolist() for a in first] == [b.tolist() for b in second]
    assert files(tmp_path) == [first.path.name]


def test_a_store_is_a_sequence_of_arrays_that_nobody_can_write(tmp_path, bpe):
    found, lists = tokenized(bpe, TEXTS, tmp_path), encode_texts(bpe, TEXTS)
    assert found[-1].tolist() == lists[-1]
    assert [ids.tolist() for ids in found[1:7:2]] == lists[1:7:2]
    assert not found[0].flags.writeable and not found[0].flags.owndata
    with pytest.raises(IndexError, match="no text 12 among 12"):
        found[12]


@pytest.mark.parametrize(
    ("vocab_size", "dtype"),
    [(256, "uint8"), (257, "uint16"), (50257, "uint16"), (65536, "uint16"), (65537, "uint32")],
)
def test_ids_take_the_smallest_type_that_holds_the_vocabulary(tmp_path, vocab_size, dtype):
    tokenizer = Counting(vocab_size)
    found = tokenized(tokenizer, TEXTS, tmp_path)
    assert found.ids.dtype == dtype
    assert equal(found, tokenizer, TEXTS)


def test_file_is_one_that_safetensors_reads(tmp_path, bpe):
    found = tokenized(bpe, TEXTS, tmp_path)
    tensors = load_file(found.path)
    assert tensors.keys() == {"ids", "offsets"}
    assert tensors["ids"].dtype == np.uint16
    assert tensors["ids"].tolist() == found.ids.tolist()
    assert tensors["offsets"].tolist() == found.offsets.tolist()


def test_another_text_order_or_tokenizer_is_another_file(tmp_path):
    variants = [
        (Counting(), TEXTS),
        (Counting(), TEXTS[::-1]),
        (Counting(), ["".join(TEXTS[:2]), *TEXTS[2:]]),
        (Counting(), [TEXTS[0] + "н", "ад", *TEXTS[1:]]),
        (Counting(), [TEXTS[0], "над", *TEXTS[1:]]),
        (Counting(301), TEXTS),
        (Counting(300, ("</s>", "<pad>")), TEXTS),
    ]
    assert len({tokenized(*variant, tmp_path).path for variant in variants}) == len(variants)


def test_saved_and_loaded_tokenizers_share_a_file(tmp_path):
    tokenizer = CharTokenizer.from_texts(TEXTS)
    tokenizer.save(tmp_path / "tokenizer")
    again = CharTokenizer.from_folder(tmp_path / "tokenizer")
    assert tokenized(tokenizer, TEXTS, tmp_path).path == tokenized(again, TEXTS, tmp_path).path


@pytest.mark.parametrize("place", [0, 5, 60, 300, 1023, 1024, 1032, -1])
def test_changed_byte_is_noticed_wherever_it_is_and_the_file_made_anew(tmp_path, place):
    tokenizer = Counting()
    path = tokenized(tokenizer, TEXTS, tmp_path).path
    good = path.read_bytes()
    damaged = bytearray(good)
    damaged[place] ^= 1
    path.write_bytes(bytes(damaged))
    found = tokenized(tokenizer, TEXTS, tmp_path)
    assert equal(found, Counting(), TEXTS)
    assert path.read_bytes() == good


@pytest.mark.parametrize("size", [0, 7, 500, 1024, 1100, -1])
def test_file_cut_short_is_noticed_and_made_anew(tmp_path, size):
    tokenizer = Counting()
    path = tokenized(tokenizer, TEXTS, tmp_path).path
    path.write_bytes(path.read_bytes()[:size])
    assert equal(tokenized(tokenizer, TEXTS, tmp_path), Counting(), TEXTS)
    assert tokenizer.seen == 2 * len(TEXTS)


def test_interrupted_writing_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "CHUNK", 5)
    with pytest.raises(KeyboardInterrupt):
        tokenized(Counting(fails_at=7), TEXTS, tmp_path)
    assert files(tmp_path) == []


def test_several_at_once_do_no_harm(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "CHUNK", 1)
    found: list[TokenStore] = []
    barrier = threading.Barrier(4)

    def work() -> None:
        barrier.wait()
        found.append(tokenized(Counting(), TEXTS, tmp_path))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(equal(one, Counting(), TEXTS) for one in found)
    assert files(tmp_path) == [found[0].path.name]


def test_open_store_outlives_a_file_that_is_made_anew(tmp_path):
    tokenizer = Counting()
    found = tokenized(tokenizer, TEXTS, tmp_path)
    store._write(found.path, "0" * 64, Counting(), TEXTS[::-1])
    assert equal(found, tokenizer, TEXTS)


def test_batches_take_a_store_without_copying_it(tmp_path):
    tokenizer, texts = Counting(), [poem.text for poem in read_corpus("embedded")]
    found = tokenized(tokenizer, texts, tmp_path)
    batches = Batches(found, 64, 3, breaks=[290])
    assert all(np.shares_memory(piece, found.ids) for piece in batches.texts)
    lists = Batches(encode_texts(tokenizer, texts), 64, 3, breaks=[290])
    for step in (0, 7, batches.steps_per_epoch()):
        ours, theirs = batches.batch(step), lists.batch(step)
        assert all(torch.equal(a, b) for a, b in zip(ours[:3], theirs[:3], strict=True))
        assert ours.ids.dtype == torch.int64


def test_streams_take_a_store_too(tmp_path):
    tokenizer = Counting(257)
    streams = [
        Streams(texts, 4, 2) for texts in (tokenized(tokenizer, TEXTS, tmp_path), encode_texts(tokenizer, TEXTS))
    ]
    for step in range(2 * streams[0].steps_per_epoch()):
        ours, theirs = (source.batch(step) for source in streams)
        assert all(torch.equal(a, b) for a, b in zip(ours[:3], theirs[:3], strict=True))


def test_cache_lies_in_the_folder_that_the_environment_names(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIPOET_CACHE", str(tmp_path))
    assert tokenized(Counting(), TEXTS).path.parent == tmp_path / "tokens"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("одна строка", "The texts must be a list of strings, got one string"),
        ([], "There is no text to make tokens of"),
        ([*TEXTS, None], "number 12 of it is None"),
    ],
)
def test_what_are_no_texts_is_refused(tmp_path, texts, message):
    with pytest.raises(ValueError, match=message):
        tokenized(Counting(), texts, tmp_path)


def test_folder_that_cannot_be_written_is_an_error_that_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="is a file, not a folder"):
        tokenized(Counting(), TEXTS, tmp_path / "file")


def test_half_a_character_is_the_tokenizers_error(tmp_path, bpe):
    with pytest.raises(ValueError, match="lone surrogate"):
        tokenized(bpe, ["снег \ud83d"], tmp_path)
    assert files(tmp_path) == []
