"""ruGPT3's layout (pytorch_model.bin, vocab.json, merges.txt) against transformers, from the same folder."""

from pathlib import Path

import pytest

pytest.importorskip("transformers")

import torch
from live_support import SEEDS, assert_same, our_logits, their_logits
from test_rugpt3 import SPARE, SPECIALS, TEXTS, published, random_model, ship
from transformers import GPT2LMHeadModel, GPT2Tokenizer

import minipoet
from minipoet.models.gpt2 import GPT2, GPT2Config
from minipoet.tokenization import train_bpe

AWKWARD = [*TEXTS, "", " ", "маяк  \n\n и\u0306 ½ Ⅷ 123 🌲\u00a0\x1c\r\n", "it's 'll", "\u2028\u200d’ [x] <b>"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIPOET_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("zipped", [False, True])
def test_logits_and_ids_equal_those_of_transformers_from_the_same_folder(
    seed: int, zipped: bool, tmp_path: Path
) -> None:
    tokenizer = train_bpe(TEXTS * 3, 330 + seed % 50, special_tokens=SPECIALS)
    model = random_model(tokenizer.vocab_size + SPARE, seed=seed)
    folder = ship(tmp_path / "m", model, tokenizer, published(model), zipped)
    ours, read = minipoet.load(folder)
    theirs = GPT2LMHeadModel.from_pretrained(folder).eval()
    ids = torch.randint(0, model.config.vocab_size, (3, 40), generator=torch.Generator().manual_seed(seed))
    assert_same(our_logits(ours, ids), their_logits(theirs, ids))
    old = GPT2Tokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
    for text in AWKWARD:
        assert read.encode(text) == old(text)["input_ids"], repr(text)


def test_transformers_knows_no_end_where_the_vocabulary_has_one(tmp_path: Path) -> None:
    # Why special tokens are looked up here: a bare GPT2Tokenizer takes GPT-2's, which the vocabulary has not.
    tokenizer = train_bpe(TEXTS, 320, special_tokens=SPECIALS)
    model = random_model(tokenizer.vocab_size)
    folder = ship(tmp_path / "m", model, tokenizer, published(model))
    old = GPT2Tokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
    assert old.eos_token_id >= tokenizer.vocab_size
    assert minipoet.load(folder)[1].eos_id == SPECIALS.index("</s>")


def test_full_shape_of_rugpt3_small_gives_the_logits_of_transformers(tmp_path: Path) -> None:
    model = GPT2(GPT2Config(vocab_size=50264, n_positions=2048, n_embd=768, n_layer=12, n_head=12))
    model.reset(torch.Generator().manual_seed(0))
    tokenizer = train_bpe(TEXTS, 320, special_tokens=SPECIALS)
    folder = ship(tmp_path / "m", model, tokenizer, published(model))
    theirs = GPT2LMHeadModel.from_pretrained(folder).eval()
    ids = torch.randint(0, 50264, (1, 64), generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        ours, _tokenizer = minipoet.load(folder)
        assert_same(our_logits(ours, ids), their_logits(theirs, ids))
