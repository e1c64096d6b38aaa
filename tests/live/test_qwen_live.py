"""Qwen2 and Qwen3 against transformers and PEFT, on fresh random models (seeds: live_support)."""

import json
import random
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("peft")

from live_support import (
    SEEDS,
    TOKENIZER,
    TOKENIZER_SIZE,
    assert_same,
    our_logits,
    padding_mask,
    random_ids,
    save_theirs,
    their_logits,
)
from peft import LoraConfig, PeftModel, PrefixTuningConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

import minipoet
from minipoet.generation import SamplingSettings, generate_ids
from minipoet.models import count_parameters
from minipoet.models.families import family
from minipoet.models.rotary import rotary

KINDS = {"qwen2": (Qwen2ForCausalLM, Qwen2Config), "qwen3": (Qwen3ForCausalLM, Qwen3Config)}
SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def settings(kind: str, seed: int) -> dict[str, object]:
    """The fields of a random config."""
    rng = random.Random(seed)
    key_heads, group, size = rng.choice([1, 2, 3]), rng.choice([1, 2, 3]), rng.choice([4, 6, 8])
    values = {
        "vocab_size": TOKENIZER_SIZE + rng.choice([0, 3, 11]),
        "hidden_size": key_heads * group * size,
        "intermediate_size": rng.choice([7, 32, 60]),
        "num_hidden_layers": rng.choice([1, 2, 3]),
        "num_attention_heads": key_heads * group,
        "num_key_value_heads": key_heads,
        "max_position_embeddings": rng.choice([40, 64]),
        "hidden_act": rng.choice(["silu", "silu", "gelu", "gelu_pytorch_tanh"]),
        "rms_norm_eps": rng.choice([1e-6, 1e-5, 1e-3]),
        "rope_theta": rng.choice([30.0, 1e4, 1e6]),
        "tie_word_embeddings": rng.random() < 0.5,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return values | ({"head_dim": rng.choice([4, 6, 10])} if kind == "qwen3" else {})


@torch.no_grad()
def loud(model: torch.nn.Module, seed: int, only: str = "") -> torch.nn.Module:
    """Random numbers for what holds `only` in its name; norms near 1."""
    source = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if only in name:
            noise = 0.2 * torch.randn(parameter.shape, generator=source)
            parameter.copy_(noise + 1 if "norm" in name else noise)
    return model.eval()


def theirs(kind: str, seed: int) -> torch.nn.Module:
    model_class, config_class = KINDS[kind]
    return loud(model_class(config_class(**settings(kind, seed))), seed)


def our_config(kind: str, seed: int) -> object:
    config_class = family({"model_type": kind}).config_class
    return config_class(**{k: v for k, v in settings(kind, seed).items() if k in config_class.__dataclass_fields__})


def greedy_of_both(model: torch.nn.Module, reference: torch.nn.Module, seed: int) -> tuple[list, list]:
    """How a left-padded batch goes on, ours and theirs."""
    ids, mask, new = random_ids(seed), padding_mask("left", seed), 16
    options = {"do_sample": False, "max_new_tokens": new, "eos_token_id": None, "pad_token_id": 0}
    wanted = reference.generate(input_ids=ids, attention_mask=mask, **options)[:, ids.shape[1] :]
    prompts = [row[real.bool()].tolist() for row, real in zip(ids, mask, strict=True)]
    found = generate_ids(model, prompts, SamplingSettings(max_new_tokens=new, temperature=0))
    return [list(poem.ids) for poem in found], wanted.tolist()


def read(folder: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_loaded_logits_cached_pieces_and_greedy_texts_equal_theirs(kind: str, seed: int, tmp_path: Path) -> None:
    reference = theirs(kind, seed)
    model, _ = minipoet.load(save_theirs(reference, tmp_path))
    for padding in ("none", "left", "right"):
        ids, mask = random_ids(seed), padding_mask(padding, seed)
        assert_same(our_logits(model, ids, mask), their_logits(reference, ids, mask), mask)
    mask = padding_mask("left", seed)
    cuts = sorted(random.Random(seed).sample(range(1, ids.shape[1]), 3))
    cache, pieces = model.new_cache(len(ids)), []
    with torch.no_grad():
        for start, end in zip([0, *cuts], [*cuts, ids.shape[1]], strict=True):
            pieces.append(model(ids[:, start:end], cache, mask[:, start:end]))
    assert_same(torch.cat(pieces, 1), their_logits(reference, ids, mask), mask)
    found, wanted = greedy_of_both(model, reference, seed)
    assert found == wanted


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_transformers_loads_what_we_save(kind: str, seed: int, tmp_path: Path) -> None:
    model, tokenizer = (
        loud(family({"model_type": kind})(our_config(kind, seed)), seed),
        minipoet.load_tokenizer(TOKENIZER),
    )
    minipoet.save(model, tokenizer, tmp_path)
    again, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(again) is KINDS[kind][0]
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    assert set(report["missing_keys"]) <= tied and not report["unexpected_keys"] and not report["mismatched_keys"]
    wanted = settings(kind, seed)
    assert again.config.rope_parameters["rope_theta"] == wanted.pop("rope_theta")
    assert {key: getattr(again.config, key) for key in wanted} == wanted
    assert sum(p.numel() for p in again.parameters()) == count_parameters(model).all
    ids, mask = random_ids(seed), padding_mask("left", seed)
    assert_same(our_logits(model, ids, mask), their_logits(again.eval(), ids, mask), mask)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["sharded", "fp16", "bf16", "bin"])
@pytest.mark.parametrize("seed", SEEDS[:2])
def test_every_published_form_loads_and_keeps_every_bit(kind: str, form: str, seed: int, tmp_path: Path) -> None:
    reference = theirs(kind, seed).to({"fp16": torch.float16, "bf16": torch.bfloat16}.get(form, torch.float32))
    save_theirs(reference, tmp_path / "one", **({"max_shard_size": "20KB"} if form == "sharded" else {}))
    if form == "bin":
        (tmp_path / "one" / "model.safetensors").unlink()
        torch.save(reference.state_dict(), tmp_path / "one" / "pytorch_model.bin")
    model, tokenizer = minipoet.load(tmp_path / "one")
    minipoet.save(model, tokenizer, tmp_path / "two")
    state = reference.state_dict()
    for name, tensor in load_file(tmp_path / "two" / "model.safetensors").items():
        assert torch.equal(tensor, state[name].to(tensor.dtype)), name
    ids = random_ids(seed)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "two", dtype=torch.float32).eval()  # .float() keeps its
    assert_same(our_logits(model.float(), ids), their_logits(again, ids))  # rotations in half precision


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_gradients_equal_those_of_transformers(kind: str, seed: int, tmp_path: Path) -> None:
    reference = theirs(kind, seed)
    model, _ = minipoet.load(save_theirs(reference, tmp_path))
    ids = random_ids(seed)
    reference(ids, labels=ids).loss.backward()
    torch.nn.functional.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    for name, parameter in reference.named_parameters():
        ours, _ = model.name_table().ours(name)
        torch.testing.assert_close(model.get_parameter(ours).grad, parameter.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("adapter", ["lora", "prefix", "projection"])
@pytest.mark.parametrize("seed", SEEDS)
def test_adapters_of_peft_say_the_same_here_and_again_there(kind: str, adapter: str, seed: int, tmp_path: Path) -> None:
    rng, base = random.Random(seed), save_theirs(theirs(kind, seed), tmp_path / "base")
    if adapter == "lora":
        config = LoraConfig(task_type="CAUSAL_LM", r=rng.choice([1, 2, 5]), lora_alpha=4, target_modules=SEVEN)
        peft = loud(get_peft_model(read(base), config), seed + 1, "lora_")
    else:
        numbers = {"prefix_projection": True, "encoder_hidden_size": 9} if adapter == "projection" else {}
        config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=rng.choice([1, 2, 5]), **numbers)
        peft = loud(get_peft_model(read(base), config), seed + 1, "prompt_encoder")
    _, total = peft.get_nb_trainable_parameters()
    peft.save_pretrained(tmp_path / "adapter")
    model = minipoet.load_adapter(minipoet.load(base)[0], tmp_path / "adapter")
    if adapter != "projection":
        assert count_parameters(model).all == total
    for padding in ("none", "left"):
        ids, mask = random_ids(seed), padding_mask(padding, seed)
        assert_same(our_logits(model, ids, mask), their_logits(peft, ids, mask), mask)
    found, wanted = greedy_of_both(model, peft, seed)
    assert found == wanted
    minipoet.save_adapter(model, tmp_path / "again")
    again = PeftModel.from_pretrained(read(base), tmp_path / "again").eval()
    assert_same(their_logits(again, ids, mask), their_logits(peft, ids, mask), mask)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_adapters_of_ours_say_the_same_in_peft(kind: str, seed: int, tmp_path: Path) -> None:
    base = save_theirs(theirs(kind, seed), tmp_path / "base")
    ids, mask = random_ids(seed), padding_mask("left", seed)
    plain = our_logits(minipoet.load(base)[0], ids, mask)
    lora = minipoet.add_lora(minipoet.load(base)[0], rank=3, targets="all-linear")
    prefix = minipoet.add_prefix(minipoet.load(base)[0], 4, init="random", seed=seed)
    for name, model in (("lora", loud(lora, seed, "deltas")), ("prefix", prefix.eval())):
        minipoet.save_adapter(model, tmp_path / name)
        logits = our_logits(model, ids, mask)
        assert (logits - plain).abs().max() > 1e-3
        peft = PeftModel.from_pretrained(read(base), tmp_path / name).eval()
        assert_same(logits, their_logits(peft, ids, mask), mask)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS[:3])
def test_gradients_of_a_prefix_and_counts_equal_those_of_peft(kind: str, seed: int, tmp_path: Path) -> None:
    base, ids = save_theirs(theirs(kind, seed), tmp_path), random_ids(seed)
    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    peft = loud(get_peft_model(read(base), config), seed + 1, "prompt_encoder")
    model = minipoet.add_prefix(minipoet.load(base)[0], 4)
    assert count_parameters(model) == peft.get_nb_trainable_parameters()
    ours, wanted = model.prefixes.by_name["default"].numbers, peft.prompt_encoder["default"].embedding.weight
    with torch.no_grad():
        ours.copy_(wanted.view_as(ours))
    peft(ids, labels=ids).loss.backward()
    torch.nn.functional.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    assert torch.allclose(ours.grad.view_as(wanted), wanted.grad, rtol=1e-4, atol=1e-4 * float(wanted.grad.abs().max()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_config_without_theta_means_the_same_there(kind: str, tmp_path: Path) -> None:
    save_theirs(theirs(kind, SEEDS[0]), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    del config["rope_parameters"]
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    model, reference, ids = minipoet.load(tmp_path)[0], read(tmp_path), random_ids(0)
    assert model.config.rope_theta == reference.config.rope_parameters["rope_theta"]
    assert_same(our_logits(model, ids), their_logits(reference, ids))


@pytest.mark.parametrize("theta", [1e4, 1e6])
@pytest.mark.parametrize("size", [64, 128])
def test_rotations_are_those_of_transformers_to_the_last_bit(size: int, theta: float) -> None:
    config = Qwen2Config(hidden_size=2 * size, num_attention_heads=2, rope_theta=theta)
    positions = torch.arange(0, 32768, 7)[None]
    for dtype in (torch.float32, torch.bfloat16):
        wanted = Qwen2RotaryEmbedding(config)(torch.zeros(1, dtype=dtype), positions)
        found = rotary(positions, size, theta, dtype)
        assert all(torch.equal(ours[:, 0], their) for ours, their in zip(found, wanted, strict=True))
