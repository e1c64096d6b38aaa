"""ruGPT3 as its publishers ship it: the layout of its folders, in small, with random weights (docs/checkpoints.md)."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

import minipoet
from minipoet.generation import SamplingSettings, generate_ids
from minipoet.models import LanguageModel, count_parameters
from minipoet.models.gpt2 import GPT2, GPT2Config
from minipoet.models.names import apply
from minipoet.tokenization import BPETokenizer, train_bpe

TEXTS = ["Старый маяк над бухтой светит всю ночь.\nВолна за волной, волна за волной…", "Чайник шумит, за окном метёт."]
SPECIALS = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]  # the first ids of its vocab.json
SPARE = 7  # 50,264 rows for 50,257 pieces, in ruGPT3-small
SIZES = {"n_positions": 48, "n_embd": 16, "n_layer": 2, "n_head": 2}


@pytest.fixture(scope="module")
def tokenizer() -> BPETokenizer:
    return train_bpe(TEXTS * 3, 380, special_tokens=SPECIALS)


def random_model(rows: int, seed: int = 0) -> GPT2:
    model = GPT2(GPT2Config(vocab_size=rows, initializer_range=0.3, **SIZES))
    model.reset(torch.Generator().manual_seed(seed))
    return model.eval()


def published(model: LanguageModel, prefix: str = "transformer.") -> dict[str, Tensor]:
    """The tensors of a pytorch_model.bin of 2020: the tied head under both names, and the masks of the attention."""
    tensors = {}
    for name, parameter in model.named_parameters():
        found = model.name_table().published(name)
        assert found is not None
        tensors[found[0].replace("transformer.", prefix)] = apply(found[1], parameter.detach()).contiguous()
    tensors["lm_head.weight"] = tensors[f"{prefix}wte.weight"]
    positions = model.config.n_positions
    for layer in range(model.config.n_layer):
        mask = torch.ones(1, 1, positions, positions, dtype=torch.uint8)  # its numbers are not looked at
        tensors |= {f"{prefix}h.{layer}.attn.bias": mask, f"{prefix}h.{layer}.attn.masked_bias": torch.tensor(-1e4)}
    return tensors


def ship(
    folder: Path,
    model: GPT2,
    tokenizer: BPETokenizer,
    tensors: dict[str, Tensor],
    zipped: bool = False,
) -> Path:
    """config.json with GPT-2's ids 50256 (here: of an ordinary piece), pytorch_model.bin, vocab.json, merges.txt."""
    config, ordinary = model.config, tokenizer.vocab_size - 1
    values = {name: getattr(config, name) for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")}
    values |= {"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1}
    values |= {
        "bos_token_id": ordinary,
        "eos_token_id": ordinary,
        "gradient_checkpointing": False,
        "model_type": "gpt2",
    }
    values |= {"n_ctx": config.n_positions, "n_inner": None, "n_special": 0, "output_past": True, "use_cache": True}
    values |= {"predict_special_tokens": True, "summary_type": "cls_index"}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(values))
    (folder / "vocab.json").write_text(json.dumps(tokenizer.vocab), encoding="utf-8")
    merges = "\n".join(["#version: 0.2", *map(" ".join, tokenizer.merges), ""])
    (folder / "merges.txt").write_text(merges, encoding="utf-8")
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIPOET_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("prefix", ["transformer.", ""])
@pytest.mark.parametrize("zipped", [False, True])
def test_the_folder_loads_with_the_logits_that_its_weights_have_twice(tokenizer, tmp_path, prefix, zipped):
    model = random_model(tokenizer.vocab_size + SPARE)
    ids = torch.arange(24).view(2, 12)
    folder = ship(tmp_path / "m", model, tokenizer, published(model, prefix), zipped)
    for _ in range(2):  # the second time from the converted copy
        loaded, _ = minipoet.load(folder)
        assert torch.allclose(loaded(ids), model(ids), atol=1e-5)
        assert loaded.head.weight is loaded.embed.weight


def test_special_tokens_are_looked_up_and_the_configs_wrong_ids_are_not_believed(tokenizer, tmp_path):
    model = random_model(tokenizer.vocab_size + SPARE)
    _, loaded = minipoet.load(ship(tmp_path / "m", model, tokenizer, published(model)))
    assert loaded.special_ids == {name: id for id, name in enumerate(SPECIALS)}
    assert (loaded.pad_id, loaded.bos_id, loaded.eos_id) == (0, 1, 2)
    assert loaded.vocab_size == tokenizer.vocab_size == model.config.vocab_size - SPARE


def test_texts_get_the_ids_of_the_vocabulary_and_never_a_special_one(tokenizer, tmp_path):
    model = random_model(tokenizer.vocab_size)
    _, loaded = minipoet.load(ship(tmp_path / "m", model, tokenizer, published(model)))
    for text in [*TEXTS, "</s><pad> маяк <|endoftext|>", "  \n\nй и\u0306 ½ 🌲"]:
        assert loaded.encode(text) == tokenizer.encode(text)
        assert loaded.decode(loaded.encode(text)) == text
        assert not set(loaded.encode(text)) & set(range(len(SPECIALS)))


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_rows_without_a_piece_are_never_sampled_though_they_are_the_likeliest(tokenizer, tmp_path, temperature):
    pieces = tokenizer.vocab_size
    model = random_model(pieces + SPARE)
    with torch.no_grad():  # whatever was read, the spare rows have the greatest logits
        model.norm.weight.zero_()
        model.norm.bias.fill_(1.0)
        model.embed.weight[pieces:] = 3.0
    loaded, read = minipoet.load(ship(tmp_path / "m", model, tokenizer, published(model)))
    settings = {"temperature": temperature, "top_p": 1.0, "max_new_tokens": 30, "until_end": False}
    unaware = generate_ids(loaded, [[1, 9]], SamplingSettings(**settings))[0].ids
    assert min(unaware) >= pieces  # who does not know the tokenizer draws them all the time
    assert len(minipoet.generate(loaded, read, "маяк", **settings)) > len("маяк")


def test_an_id_that_no_piece_has_is_never_sampled(tokenizer, tmp_path):
    model = random_model(tokenizer.vocab_size)
    gap = tokenizer.vocab_size - 2
    with torch.no_grad():
        model.norm.weight.zero_()
        model.norm.bias.fill_(1.0)
        model.embed.weight[gap] = 3.0
    folder = ship(tmp_path / "m", model, tokenizer, published(model))
    vocab = {piece: id for piece, id in tokenizer.vocab.items() if id != gap}
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    merges = [" ".join(pair) for pair in tokenizer.merges if "".join(pair) in vocab]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    loaded, read = minipoet.load(folder)
    assert (read.vocab_size, read.spare_ids) == (gap + 2, [gap])
    settings = {"temperature": 1.5, "top_p": 1.0, "max_new_tokens": 30, "until_end": False}
    assert gap in generate_ids(loaded, [[1, 9]], SamplingSettings(**settings))[0].ids
    assert len(minipoet.generate(loaded, read, "маяк", **settings)) > len("маяк")  # and nothing that cannot be decoded


def test_an_added_token_behind_a_gap_is_refused_and_not_given_another_id(tokenizer, tmp_path):
    model = random_model(tokenizer.vocab_size + SPARE)
    folder = ship(tmp_path / "m", model, tokenizer, published(model))
    (folder / "added_tokens.json").write_text(json.dumps({"<|endoftext|>": tokenizer.vocab_size + 4}))
    with pytest.raises(ValueError, match=r"ids before <\|endoftext\|> have a gap"):
        minipoet.load(folder)


@pytest.mark.parametrize(
    ("size", "shape", "count"),
    [
        ("small", {"vocab_size": 50264, "n_embd": 768, "n_layer": 12, "n_head": 12}, 125_231_616),
        ("medium", {"vocab_size": 50257, "n_embd": 1024, "n_layer": 24, "n_head": 16}, 355_871_744),
        ("large", {"vocab_size": 50257, "n_embd": 1536, "n_layer": 24, "n_head": 16}, 760_300_032),
    ],
)
def test_a_bin_of_the_full_shape_fits_name_for_name_without_its_numbers(size, shape, count, tmp_path, monkeypatch):
    with torch.device("meta"):
        model = GPT2(GPT2Config(n_positions=2048, **shape))
        tensors = published(model)
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "gpt2", "n_positions": 2048, "n_ctx": 2048} | shape)
    )
    monkeypatch.setattr("minipoet.models.checkpoint.read_tensors", lambda folder, keep: tensors.items())
    loaded = minipoet.models.load_model(tmp_path, device="meta")
    assert count_parameters(loaded).all == count
