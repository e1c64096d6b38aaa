"""Prefix tuning against PEFT, both ways, on fresh random models and prefixes (seeds: live_support)."""

import random
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("peft")

from live_support import (
    SEEDS,
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
from peft import (
    AutoPeftModelForCausalLM,
    PeftConfig,
    PeftModel,
    PrefixTuningConfig,
    get_peft_model,
    load_peft_weights,
    set_peft_model_state_dict,
)
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

import minipoet
from minipoet.generation import SamplingSettings, generate_ids
from minipoet.models import count_parameters
from minipoet.models.gpt2 import GPT2
from minipoet.models.gpt2 import GPT2Config as OurConfig

KINDS = ["plain", "projection", "zero"]
LOUD = {"plain": 1.0, "projection": 0.4}  # an MLP makes about as large numbers then; larger ones magnify rounding


def random_prefix(base: torch.nn.Module, kind: str, seed: int) -> PeftModel:
    """PEFT on the given model, with a prefix of random length and numbers (zero: as it starts)."""
    rng = random.Random(seed)
    settings = {"num_virtual_tokens": rng.choice([1, 2, 5, 9])}
    if kind == "projection":
        settings |= {"prefix_projection": True, "encoder_hidden_size": rng.choice([None, 7, 40])}
    elif kind == "zero":
        settings |= {"init_weights": "zero"}
    model = get_peft_model(base, PrefixTuningConfig(task_type="CAUSAL_LM", **settings)).eval()
    return model if kind == "zero" else randomise(model, seed + 1, only="prompt_encoder", std=LOUD[kind])


def our_prefix(model: torch.nn.Module, kind: str, seed: int, name: str = "default") -> torch.nn.Module:
    """The model with a prefix of ours, of random length; of an MLP all parts are random, and louder than its start."""
    rng = random.Random(seed)
    options = {"projection": True, "hidden": rng.choice([None, 9, 33])} if kind == "projection" else {}
    minipoet.add_prefix(model, rng.choice([1, 3, 8]), init="zero" if kind == "zero" else "random", name=name, **options)
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.prefixes.by_name[name].parameters() if kind != "zero" else ():
            parameter.copy_(LOUD[kind] * torch.randn(parameter.shape, generator=source))
    return model.eval()


def read_by_peft(base: Path, adapter: Path) -> PeftModel:
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()


def learnt_on_by_peft(base: Path, adapter: Path) -> PeftModel:
    """PEFT refuses is_trainable=True for prefixes: a new one is made by the saved config, and filled."""
    with pytest.raises(ValueError, match="Cannot set a prompt learning adapter to trainable"):
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter, is_trainable=True)
    config = PeftConfig.from_pretrained(adapter)
    config.inference_mode = False
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).eval()
    set_peft_model_state_dict(model, load_peft_weights(str(adapter), device="cpu"))
    return model


def greedy_of_both(model: torch.nn.Module, peft: PeftModel, seed: int) -> tuple[list[list[int]], list[list[int]]]:
    """How a left-padded batch goes on, ours and theirs."""
    ids, mask = random_ids(seed), padding_mask("left", seed)
    new = 40 - 14 - 9  # the smallest context, the prompts, the longest prefix
    options = {"do_sample": False, "max_new_tokens": new, "eos_token_id": None, "pad_token_id": 0}
    wanted = peft.generate(input_ids=ids, attention_mask=mask, **options)[:, ids.shape[1] :]
    prompts = [row[real.bool()].tolist() for row, real in zip(ids, mask, strict=True)]
    found = generate_ids(model, prompts, SamplingSettings(max_new_tokens=new, temperature=0))
    return [list(poem.ids) for poem in found], wanted.tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_prefix_of_peft_says_the_same_here(seed: int, kind: str, tmp_path: Path) -> None:
    reference = theirs(seed)
    folder = save_theirs(reference, tmp_path / "base")
    peft = random_prefix(reference, kind, seed)
    peft.save_pretrained(tmp_path / "adapter")
    model = minipoet.load_adapter(minipoet.load(folder)[0], tmp_path / "adapter", name="one")
    for padding in ("none", "left", "right"):
        ids, mask = random_ids(seed), padding_mask(padding, seed)
        assert_same(our_logits(model, ids, mask), their_logits(peft, ids, mask), mask)
    with torch.no_grad():  # without positions, as when it learns
        assert_same(our_logits(model, ids), peft(ids).logits)
    found, wanted = greedy_of_both(model, peft, seed)
    assert found == wanted
    minipoet.save_adapter(model, tmp_path / "again")
    assert_same(their_logits(read_by_peft(folder, tmp_path / "again"), ids), their_logits(peft, ids))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_prefix_of_ours_says_the_same_in_peft(seed: int, kind: str, tmp_path: Path) -> None:
    reference = theirs(seed)
    folder = save_theirs(reference, tmp_path / "base")
    model = our_prefix(minipoet.load(folder)[0], kind, seed)
    minipoet.save_adapter(model, tmp_path / "adapter")
    ids, mask = random_ids(seed), padding_mask("left", seed)
    logits = our_logits(model, ids, mask)
    assert (logits - their_logits(reference, ids, mask)).abs().max() > 1e-3
    for peft in (
        read_by_peft(folder, tmp_path / "adapter"),
        learnt_on_by_peft(folder, tmp_path / "adapter"),
        AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter").eval(),  # it finds the base by its name
    ):
        assert_same(logits, their_logits(peft, ids, mask), mask)
    found, wanted = greedy_of_both(model, peft, seed)
    assert found == wanted


@pytest.mark.parametrize("seed", SEEDS)
def test_gradients_and_counts_of_a_prefix_equal_those_of_peft(seed: int, tmp_path: Path) -> None:
    folder = save_theirs(theirs(seed), tmp_path / "base")
    model, ids = our_prefix(minipoet.load(folder)[0], "plain", seed), random_ids(seed)
    minipoet.save_adapter(model, tmp_path / "adapter")
    peft = learnt_on_by_peft(folder, tmp_path / "adapter")
    assert count_parameters(model) == peft.get_nb_trainable_parameters()
    peft(ids, labels=ids).loss.backward()
    torch.nn.functional.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    ours, wanted = model.prefixes.by_name["default"].numbers.grad, peft.prompt_encoder["default"].embedding.weight.grad
    assert torch.allclose(ours, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
    learnt = [parameter for parameter in [*model.parameters(), *peft.parameters()] if parameter.grad is not None]
    assert len(learnt) == 2


@pytest.mark.parametrize("seed", SEEDS)
def test_the_mlp_has_pefts_numbers_gradients_and_counts(seed: int) -> None:
    reference = theirs(seed)
    peft = random_prefix(reference, "projection", seed)
    encoder, config = peft.prompt_encoder["default"], peft.peft_config["default"]
    settings = random_settings(seed)
    model = GPT2(OurConfig(**{k: v for k, v in settings.items() if k in OurConfig.__dataclass_fields__}))
    minipoet.add_prefix(model, config.num_virtual_tokens, projection=True, hidden=encoder.transform[0].weight.shape[0])
    assert count_parameters(model) == peft.get_nb_trainable_parameters()
    prefix = model.prefixes.by_name["default"]
    mine = [prefix.tokens, prefix.up.weight, prefix.up.bias, prefix.down.weight, prefix.down.bias]
    with torch.no_grad():
        for parameter, value in zip(mine, encoder.parameters(), strict=True):
            parameter.copy_(value)
    made = peft.get_prompt_embedding_to_save("default")
    assert_same(prefix().detach().flatten(1), made)
    direction = torch.randn(made.shape, generator=torch.Generator().manual_seed(seed))
    (prefix().flatten(1) * direction).sum().backward()
    (encoder(torch.arange(len(made))) * direction).sum().backward()
    for parameter, value in zip(mine, encoder.parameters(), strict=True):
        assert torch.allclose(parameter.grad, value.grad, rtol=1e-4, atol=1e-5 * float(value.grad.abs().max()))


@pytest.mark.parametrize("kind", ["plain", "projection"])
@pytest.mark.parametrize("seed", SEEDS[:3])
def test_each_half_of_a_lora_and_a_prefix_is_read_by_peft(seed: int, kind: str, tmp_path: Path) -> None:
    folder = save_theirs(theirs(seed), tmp_path / "base")
    model = minipoet.add_lora(minipoet.load(folder)[0], rank=2, targets=("attn.qkv", "mlp.up"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".B"):
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
    our_prefix(model, kind, seed)
    minipoet.save_adapter(model, tmp_path / "adapter")
    ids, mask = random_ids(seed), padding_mask("left", seed)
    again = minipoet.load_adapter(minipoet.load(folder)[0], tmp_path / "adapter")
    assert_same(our_logits(again, ids, mask), our_logits(model, ids, mask), mask)
    for part, rest in (("prefix", minipoet.remove_lora(again)), ("lora", minipoet.remove_prefix(model))):
        peft = read_by_peft(folder, tmp_path / "adapter" / part)
        assert_same(our_logits(rest, ids, mask), their_logits(peft, ids, mask), mask)


def test_fifteen_virtual_tokens_on_rugpt3_medium_are_counted_without_weights() -> None:
    shape = {"vocab_size": 50257, "n_positions": 2048, "n_embd": 1024, "n_layer": 24, "n_head": 16}
    with torch.device("meta"):
        peft = get_peft_model(
            GPT2LMHeadModel(GPT2Config(**shape)), PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=15)
        )
        ours = minipoet.add_prefix(GPT2(OurConfig(**shape)), 15)
    assert peft.get_nb_trainable_parameters() == (737_280, 356_609_024)
    assert count_parameters(ours) == (737_280, 356_609_024)
    assert all(parameter.is_meta for parameter in [*ours.parameters(), *peft.parameters()])
