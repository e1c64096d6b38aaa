"""Sources and targets as ids; and batches of them."""

import pytest
from training_support import tiny_gpt2

from minipoet.models.t5 import T5, T5Config
from minipoet.tokenization import train_bpe, train_unigram
from minipoet.training import Batches, encode_pairs

TEXTS = ["чай и хлеб", "хлеб и чай с мёдом", "мёд"] * 4


@pytest.fixture(scope="module")
def tokenizer():
    return train_unigram(TEXTS, 40, sentinels=2, alphabet="")


@pytest.fixture(scope="module")
def model(tokenizer):
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    return T5(T5Config(vocab_size=tokenizer.vocab_size, **sizes))


def test_a_target_begins_with_the_start_id_and_both_sides_end(model, tokenizer):
    pairs = encode_pairs(model, tokenizer, ["чай"], ["хлеб и мёд"], 32)
    assert pairs.sources == [[*tokenizer.encode("чай"), tokenizer.eos_id]]
    assert pairs.targets == [[model.start_id, *tokenizer.encode("хлеб и мёд"), tokenizer.eos_id]]
    assert pairs.cut == 0


def test_what_is_cut_has_no_end_and_is_counted(model, tokenizer):
    long = "хлеб и чай с мёдом " * 5
    ids = tokenizer.encode(long)
    pairs = encode_pairs(model, tokenizer, [long, "чай"], ["чай", long], 8)
    assert pairs.cut == 2
    assert pairs.sources[0] == [*ids[:7], tokenizer.eos_id]  # a source is told that it ends
    assert pairs.targets[1] == [model.start_id, *ids[:8]]
    assert Batches(pairs.targets, 8, 2, sources=pairs.sources).batch(0).tokens() == 8 + len(pairs.targets[0]) - 1


def test_a_target_that_just_fits_keeps_its_end(model, tokenizer):
    ids = tokenizer.encode("хлеб и мёд")
    pairs = encode_pairs(model, tokenizer, ["чай"], ["хлеб и мёд"], len(ids) + 1)
    assert pairs.targets[0][-1] == tokenizer.eos_id
    assert pairs.cut == 0


def test_mistakes_are_told(model, tokenizer):
    with pytest.raises(ValueError, match="There are 2 sources and 1 targets: each needs the other"):
        encode_pairs(model, tokenizer, ["чай", "мёд"], ["хлеб"], 8)
    with pytest.raises(ValueError, match="A GPT2 reads no source: let it learn whole texts"):
        encode_pairs(tiny_gpt2(), tokenizer, ["чай"], ["хлеб"], 8)
    with pytest.raises(ValueError, match="names no token for the end of a text"):
        encode_pairs(model, train_bpe(TEXTS, 300, ()), ["чай"], ["хлеб"], 8)
