"""GPT-2 against transformers, on models and texts that no one has seen before (seeds: live_support)."""

import random
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from live_support import (
    SEEDS,
    TOKENIZER,
    assert_same,
    our_logits,
    padding_mask,
    random_ids,
    random_settings,
    randomise,
    save_theirs,
    their_logits,
    theirs,
)
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Model

import minipoet
from minipoet.models.gpt2 import GPT2, GPT2Config


def our_model(seed: int) -> GPT2:
    fields = GPT2Config.__dataclass_fields__
    return randomise(GPT2(GPT2Config(**{k: v for k, v in random_settings(seed).items() if k in fields})), seed)


@pytest.mark.parametrize("padding", ["none", "left", "right"])
@pytest.mark.parametrize("seed", SEEDS)
def test_loaded_logits_equal_those_of_transformers(seed: int, padding: str, tmp_path: Path) -> None:
    reference = theirs(seed)
    model, _ = minipoet.load(save_theirs(reference, tmp_path))
    ids, mask = random_ids(seed), padding_mask(padding, seed)
    assert_same(our_logits(model, ids, mask), their_logits(reference, ids, mask), mask)
    if padding == "none":
        assert_same(our_logits(model, ids), their_logits(reference, ids))


@pytest.mark.parametrize("seed", SEEDS)
def test_cached_logits_equal_those_of_transformers_at_random_splits(seed: int, tmp_path: Path) -> None:
    reference = theirs(seed)
    model, _ = minipoet.load(save_theirs(reference, tmp_path))
    ids, mask = random_ids(seed), padding_mask("left", seed)
    cuts = sorted(random.Random(seed).sample(range(1, ids.shape[1]), 3))
    cache, pieces = model.new_cache(len(ids)), []
    with torch.no_grad():
        for start, end in zip([0, *cuts], [*cuts, ids.shape[1]], strict=True):
            pieces.append(model(ids[:, start:end], cache, mask[:, start:end]))
    assert cache.length == ids.shape[1]
    assert_same(torch.cat(pieces, 1), their_logits(reference, ids, mask), mask)


@pytest.mark.parametrize("seed", SEEDS)
def test_packed_texts_equal_texts_that_transformers_reads_alone(seed: int, tmp_path: Path) -> None:
    reference = theirs(seed)
    model, _ = minipoet.load(save_theirs(reference, tmp_path))
    ids = random_ids(seed)
    first, second = random.Random(seed).randint(1, 6), random.Random(seed + 1).randint(1, 6)
    segments = torch.tensor([1] * first + [2] * second + [0] * (ids.shape[1] - first - second)).expand_as(ids)
    logits = our_logits(model, ids, segments)
    assert_same(logits[:, :first], their_logits(reference, ids[:, :first]))
    assert_same(logits[:, first : first + second], their_logits(reference, ids[:, first : first + second]))
    assert logits.isfinite().all()


@pytest.mark.parametrize("form", ["sharded", "fp16", "bf16", "headless", "bin", "legacy_bin"])
@pytest.mark.parametrize("seed", SEEDS[:3])
def test_every_published_form_loads(seed: int, form: str, tmp_path: Path) -> None:
    reference = theirs(seed)
    if form in ("fp16", "bf16"):
        reference = reference.to(torch.float16 if form == "fp16" else torch.bfloat16)
    if form == "headless":  # GPT2Model, not GPT2LMHeadModel: no prefix, no head
        reference.config.tie_word_embeddings = True
        reference.tie_weights()
        save_theirs(reference.transformer, tmp_path)
    else:
        save_theirs(reference, tmp_path, **({"max_shard_size": "20KB"} if form == "sharded" else {}))
    if "bin" in form:
        (tmp_path / "model.safetensors").unlink()
        new_format = form == "bin"
        torch.save(reference.state_dict(), tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=new_format)
    model, _ = minipoet.load(tmp_path)
    ids = random_ids(seed)
    assert_same(our_logits(model.float(), ids), their_logits(reference.float(), ids))


@pytest.mark.parametrize("seed", SEEDS)
def test_transformers_loads_what_we_save(seed: int, tmp_path: Path) -> None:
    model, tokenizer = our_model(seed), minipoet.load_tokenizer(TOKENIZER)
    minipoet.save(model, tokenizer, tmp_path)
    again, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    problems = {key: set(report[key]) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    assert problems["missing_keys"] <= tied and not problems["unexpected_keys"] and not problems["mismatched_keys"]
    ids = random_ids(seed)
    assert_same(our_logits(model, ids), their_logits(again.eval(), ids))
    text = "Лодки стоят у берега,\n  а кот isn't here. <s> ½"
    theirs_tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs_tokenizer.decode(tokenizer.encode(text)) == text
    assert theirs_tokenizer.encode(text.replace("<s>", ""), add_special_tokens=False) == tokenizer.encode(
        text.replace("<s>", "")
    )


@pytest.mark.parametrize("seed", SEEDS[:3])
def test_a_round_through_both_libraries_keeps_every_bit(seed: int, tmp_path: Path) -> None:
    reference = theirs(seed)
    model, tokenizer = minipoet.load(save_theirs(reference, tmp_path / "one"))
    minipoet.save(model, tokenizer, tmp_path / "two")
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) and one[key].dtype == two[key].dtype for key in one)


@pytest.mark.parametrize("seed", SEEDS)
def test_gradients_equal_those_of_transformers(seed: int, tmp_path: Path) -> None:
    """Our gradients are put in the place of the weights and saved, so that they come back under the published names."""
    reference = theirs(seed)
    model, tokenizer = minipoet.load(save_theirs(reference, tmp_path / "base"))
    ids = random_ids(seed)
    their_loss = reference(ids, labels=ids).loss
    their_loss.backward()
    logits = model.eval()(ids)
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    torch.testing.assert_close(loss, their_loss, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.grad)
    minipoet.save(model, tokenizer, tmp_path / "gradients")
    ours = load_file(tmp_path / "gradients" / "model.safetensors")
    for name, parameter in reference.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("seed", SEEDS[:3])
def test_parameter_counts_equal_those_of_transformers(seed: int) -> None:
    ours, reference = our_model(seed), theirs(seed)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in reference.parameters())
    assert isinstance(reference.transformer, GPT2Model)
