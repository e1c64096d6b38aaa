"""LoRA against PEFT, both ways, on fresh random models and adapters (seeds: live_support)."""

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
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

import minipoet

TARGETS = [
    ["c_attn"],
    ["c_attn", "c_proj", "c_fc"],
    ["attn.c_proj"],
    ["mlp.c_fc", "mlp.c_proj"],
    r".*h\.0\..*c_(attn|fc)",
]
OURS = {"c_attn": "attn.qkv", "attn.c_proj": "attn.out", "c_fc": "mlp.up", "mlp.c_proj": "mlp.down"}
LORA = {"task_type": "CAUSAL_LM", "fan_in_fan_out": True}


def random_adapter(base: torch.nn.Module, seed: int) -> PeftModel:
    """PEFT on the given model, with random settings and weights."""
    rng = random.Random(seed)
    settings = {
        "r": rng.choice([1, 2, 4, 8]),
        "lora_alpha": rng.choice([1, 4, 16]),
        "target_modules": rng.choice(TARGETS),
        "use_rslora": rng.random() < 0.4,
        "lora_dropout": rng.choice([0.0, 0.1]),
        "rank_pattern": rng.choice([{}, {"c_attn": 3}, {r"h\.0\.mlp\.c_fc": 5, "c_proj": 2}]),
        "alpha_pattern": rng.choice([{}, {"mlp.c_proj": 7}, {r".*\.0\..*": 2}]),
    }
    return randomise(get_peft_model(base, LoraConfig(**settings, **LORA)), seed + 1, only="lora_")


def counts(model: torch.nn.Module) -> tuple[int, int]:
    """(trainable, all), tied tensors once."""
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_adapter_of_peft_gives_its_logits_adapted_merged_and_unmerged(seed: int, tmp_path: Path) -> None:
    reference = theirs(seed)
    folder = save_theirs(reference, tmp_path / "base")
    peft = random_adapter(reference, seed)
    peft.save_pretrained(tmp_path / "adapter")
    ids, mask = random_ids(seed), padding_mask("left", seed)
    adapted = their_logits(peft, ids, mask)
    model = minipoet.load_adapter(minipoet.load(folder)[0], tmp_path / "adapter", name="one")
    assert_same(our_logits(model, ids, mask), adapted, mask)
    model = minipoet.merge_lora(model)
    assert_same(our_logits(model, ids, mask), their_logits(peft.merge_and_unload(), ids, mask), mask)
    model = minipoet.unmerge_lora(model)
    assert_same(our_logits(model, ids, mask), adapted, mask)


@pytest.mark.parametrize("targets", [["c_attn"], ["c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"], ["mlp.c_proj"]])
@pytest.mark.parametrize("names", ["ours", "published"])
@pytest.mark.parametrize("seed", SEEDS[:3])
def test_peft_loads_our_adapter(seed: int, names: str, targets: list[str], tmp_path: Path) -> None:
    reference = theirs(seed)
    folder = save_theirs(reference, tmp_path / "base")
    rank, alpha = random.Random(seed).choice([(1, 1), (4, 8), (3, 16)])
    chosen = tuple(OURS[name] if names == "ours" else name for name in targets)
    model = minipoet.add_lora(minipoet.load(folder)[0], rank=rank, alpha=alpha, targets=chosen)
    ids, mask = random_ids(seed), padding_mask("left", seed)
    assert_same(our_logits(model, ids, mask), their_logits(reference, ids, mask), mask)  # B starts at zero
    trained = randomise_trainable(model, seed)
    minipoet.save_adapter(trained, tmp_path / "adapter")
    peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), tmp_path / "adapter").eval()
    ours = our_logits(trained, ids, mask)
    assert (ours - their_logits(reference, ids, mask)).abs().max() > 1e-3
    assert_same(ours, their_logits(peft, ids, mask), mask)
    assert_same(
        our_logits(minipoet.merge_lora(trained), ids, mask), their_logits(peft.merge_and_unload(), ids, mask), mask
    )


def randomise_trainable(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """What training would do: other values for what may be trained, and for nothing else."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=source))
    return model.eval()


@pytest.mark.parametrize("seed", SEEDS[:3])
def test_peft_reads_back_what_we_read_from_peft(seed: int, tmp_path: Path) -> None:
    reference = theirs(seed)
    folder = save_theirs(reference, tmp_path / "base")
    peft = random_adapter(reference, seed)
    peft.save_pretrained(tmp_path / "one")
    model = minipoet.load_adapter(minipoet.load(folder)[0], tmp_path / "one", name="one")
    minipoet.save_adapter(model, tmp_path / "two")
    again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), tmp_path / "two").eval()
    ids = random_ids(seed)
    assert_same(their_logits(again, ids), their_logits(peft, ids))


@pytest.mark.parametrize("seed", SEEDS[:3])
def test_two_adapters_are_switched_as_in_peft(seed: int, tmp_path: Path) -> None:
    reference = theirs(seed)
    folder = save_theirs(reference, tmp_path / "base")
    model, ids, expected = minipoet.load(folder)[0], random_ids(seed), {}
    for number, name in enumerate(("pushkin", "fet")):
        peft = random_adapter(AutoModelForCausalLM.from_pretrained(folder), seed + 100 * number)
        peft.save_pretrained(tmp_path / name)
        expected[name] = their_logits(peft, ids)
        model = minipoet.load_adapter(model, tmp_path / name, name=name)
    for name in ("pushkin", "fet", "pushkin"):
        model = minipoet.set_adapter(model, name)
        assert_same(our_logits(model, ids), expected[name])


@pytest.mark.parametrize("seed", SEEDS[:3])
def test_a_merged_model_saved_by_us_is_a_plain_model_of_transformers(seed: int, tmp_path: Path) -> None:
    reference = theirs(seed)
    folder = save_theirs(reference, tmp_path / "base")
    peft = random_adapter(reference, seed)
    peft.save_pretrained(tmp_path / "adapter")
    model, tokenizer = minipoet.load(folder)
    model = minipoet.merge_lora(minipoet.load_adapter(model, tmp_path / "adapter", name="one"))
    minipoet.save(model, tokenizer, tmp_path / "merged")
    plain, report = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not report["unexpected_keys"]
    ids = random_ids(seed)
    assert_same(their_logits(plain.eval(), ids), their_logits(peft.merge_and_unload(), ids))


@pytest.mark.parametrize("targets", [["c_attn"], ["c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"]])
@pytest.mark.parametrize("seed", SEEDS)
def test_parameter_counts_equal_those_of_peft_on_the_meta_device(seed: int, targets: list[str]) -> None:
    from minipoet.models.gpt2 import GPT2
    from minipoet.models.gpt2 import GPT2Config as OurConfig

    settings, rank = random_settings(seed), random.Random(seed).randint(1, 9)
    with torch.device("meta"):
        base = GPT2LMHeadModel(GPT2Config(**settings))
        ours = GPT2(OurConfig(**{k: v for k, v in settings.items() if k in OurConfig.__dataclass_fields__}))
    peft = get_peft_model(base, LoraConfig(r=rank, target_modules=targets, **LORA), low_cpu_mem_usage=True)
    ours = minipoet.add_lora(ours, rank=rank, alpha=16, targets=tuple(OURS[name] for name in targets))
    assert counts(ours) == peft.get_nb_trainable_parameters()
    assert all(parameter.is_meta for parameter in ours.parameters())


@pytest.mark.parametrize("seed", SEEDS[:3])
def test_gradients_of_an_adapter_equal_those_of_peft(seed: int, tmp_path: Path) -> None:
    """One step of plain gradient descent in both, compared by what the adapters then answer."""
    reference = theirs(seed)
    folder = save_theirs(reference, tmp_path / "base")
    ids = random_ids(seed)
    model = randomise_trainable(
        minipoet.add_lora(minipoet.load(folder)[0], rank=3, alpha=6, targets=("attn.qkv",)), seed
    )
    minipoet.save_adapter(model, tmp_path / "adapter")
    base = AutoModelForCausalLM.from_pretrained(folder)
    peft = PeftModel.from_pretrained(base, tmp_path / "adapter", is_trainable=True).eval()
    peft(ids, labels=ids).loss.backward()
    torch.nn.functional.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    with torch.no_grad():
        for parameter in [*model.parameters(), *peft.parameters()]:
            if parameter.requires_grad:
                parameter -= 0.5 * parameter.grad
            else:
                assert parameter.grad is None
    # Such a step magnifies rounding: from float64 both sides are up to 3e-4 away, at logits of 6.
    assert_same(our_logits(model, ids), their_logits(peft, ids), tolerance=1e-4)
