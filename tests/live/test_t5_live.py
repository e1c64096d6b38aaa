"""T5, v1.1 and mT5 against transformers and PEFT, on fresh random models and adapters (seeds: live_support)."""

import random
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("peft")

from live_support import SEEDS, assert_same, generator, padding_mask, random_ids
from peft import LoraConfig, PeftConfig, PeftModel, PrefixTuningConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    AutoModelForSeq2SeqLM,
    MT5Config,
    MT5ForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

import minipoet
from minipoet.adapters import lora_layers
from minipoet.generation import SamplingSettings, generate_ids
from minipoet.models import count_parameters, load_model, save_model
from minipoet.models.families import family
from minipoet.models.t5 import T5, GatedT5
from minipoet.models.t5 import T5Config as OurConfig

KINDS = {
    "v10": (T5ForConditionalGeneration, T5Config, {}),
    "v11": (T5ForConditionalGeneration, T5Config, {"tie_word_embeddings": False}),
    "mt5": (MT5ForConditionalGeneration, MT5Config, {}),
}
TARGETS = [["q", "v"], ["k", "q", "v"], ["q", "k", "v", "o", "wo"], "all-linear"]
S, T = 30, 22  # longer than the largest distance


def settings(kind: str, seed: int) -> dict[str, object]:
    """The fields of a random config: another depth of each side, and heads · d_kv seldom d_model."""
    rng = random.Random(seed)
    gated = ["gated-gelu", "gated-gelu", "gated-silu", "gated-relu"]
    buckets = rng.choice([4, 8, 12, 32])
    return {
        "vocab_size": 421 + rng.choice([0, 11]),
        "d_model": rng.choice([8, 12, 16]),
        "d_kv": rng.choice([3, 4, 8]),
        "d_ff": rng.choice([7, 24]),
        "num_layers": rng.choice([1, 2, 3]),
        "num_decoder_layers": rng.choice([1, 2, 3, 4]),
        "num_heads": rng.choice([1, 2, 3]),
        "relative_attention_num_buckets": buckets,
        "relative_attention_max_distance": buckets // 2 + rng.choice([1, 5, 40]),
        "layer_norm_epsilon": rng.choice([1e-6, 1e-3]),
        "feed_forward_proj": rng.choice(["relu", "relu", "gelu"] if kind == "v10" else gated),
        "decoder_start_token_id": rng.choice([0, 0, 3]),
        "pad_token_id": 0,
        "eos_token_id": 1,
    }


@torch.no_grad()
def loud(model: nn.Module, seed: int, only: str = "", size: float = 0.3) -> nn.Module:
    """Random numbers for what holds `only` in its name; norms near 1, embeddings and distances near ±1."""
    source = generator(seed)
    for name, parameter in model.named_parameters():
        if only in name:
            noise = torch.randn(parameter.shape, generator=source)
            loudness = 1.0 if "shared" in name or "relative" in name else size
            parameter.copy_(1 + 0.3 * noise if "norm" in name else loudness * noise)
    return model.eval()


def theirs(kind: str, seed: int, **more: object) -> nn.Module:
    model_class, config_class, own = KINDS[kind]
    model = model_class(config_class(**(settings(kind, seed) | own | more)))
    if kind != "v10":  # the library ties what it makes; a head of its own is what it reads
        model.lm_head.weight = nn.Parameter(torch.empty_like(model.lm_head.weight))
    return loud(model, seed)


def read(folder: Path) -> nn.Module:
    return AutoModelForSeq2SeqLM.from_pretrained(folder).eval()


def both(kind: str, seed: int, folder: Path, **more: object) -> tuple[nn.Module, nn.Module]:
    """Theirs, and ours from its folder."""
    reference = theirs(kind, seed, **more)
    reference.save_pretrained(folder)
    return reference, load_model(folder)


def texts(seed: int) -> tuple[Tensor, Tensor]:
    """(B, S) sources and (B, T) texts."""
    return random_ids(seed, length=S), random_ids(seed + 1, length=T)


@torch.no_grad()
def their_logits(model: nn.Module, seed: int, padding: str = "none", of_target: bool = False) -> Tensor:
    source, target = texts(seed)
    mask = padding_mask("right", seed + 2, length=T) if of_target else None
    masks = {"attention_mask": padding_mask(padding, seed, length=S), "decoder_attention_mask": mask}
    return model(input_ids=source, decoder_input_ids=target, use_cache=False, **masks).logits


@torch.no_grad()
def our_logits(model: nn.Module, seed: int, padding: str = "none", of_target: bool = False) -> Tensor:
    source, target = texts(seed)
    mask = padding_mask("right", seed + 2, length=T) if of_target else None
    return model(target, model.new_cache(source, padding_mask(padding, seed, length=S)), mask)


def assert_all_same(ours: nn.Module, theirs: nn.Module, seed: int) -> None:
    for padding in ("none", "left", "right"):
        assert_same(our_logits(ours, seed, padding), their_logits(theirs, seed, padding), tolerance=1e-4)
    real = padding_mask("right", seed + 2, length=T)
    assert_same(our_logits(ours, seed, "left", True), their_logits(theirs, seed, "left", True), real, tolerance=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_logits_cached_pieces_and_greedy_texts_equal_theirs(kind: str, seed: int, tmp_path: Path) -> None:
    reference, model = both(kind, seed, tmp_path)
    assert_all_same(model, reference, seed)
    source, target = texts(seed)
    cuts = sorted(random.Random(seed).sample(range(1, T), 3))
    cache, pieces = model.new_cache(source, padding_mask("left", seed, length=S)), []
    with torch.no_grad():
        for start, end in zip([0, *cuts], [*cuts, T], strict=True):
            pieces.append(model(target[:, start:end], cache))
    assert_same(torch.cat(pieces, 1), their_logits(reference, seed, "left"), tolerance=1e-4)
    if reference.config.num_decoder_layers > reference.config.num_layers:
        return  # the cache of their generate has as many layers as the encoder, and breaks
    mask = padding_mask("left", seed, length=S)
    options = {"do_sample": False, "max_new_tokens": 12, "eos_token_id": None, "pad_token_id": 0}
    wanted = reference.generate(input_ids=source, attention_mask=mask, **options)[:, 1:]
    prompts = [row[real.bool()].tolist() for row, real in zip(source, mask, strict=True)]
    found = generate_ids(model, prompts, SamplingSettings(max_new_tokens=12, temperature=0))
    assert [list(text.ids) for text in found] == wanted.tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_what_we_save_is_a_plain_model_of_transformers(kind: str, seed: int, tmp_path: Path) -> None:
    reference, model = both(kind, seed, tmp_path / "theirs")
    save_model(model, tmp_path / "ours")
    again, report = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values())
    assert_all_same(model, again.eval(), seed)
    assert torch.equal(their_logits(again, seed), their_logits(reference, seed))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_loss_and_gradients_equal_theirs(kind: str, seed: int, tmp_path: Path) -> None:
    reference, model = both(kind, seed, tmp_path)
    source, target = texts(seed)
    mask = padding_mask("left", seed, length=S)
    target[:, 0] = model.start_id
    labels = torch.cat([target[:, 1:], torch.ones_like(target[:, :1])], dim=1)
    loss = reference(input_ids=source, attention_mask=mask, labels=labels).loss
    loss.backward()
    ours = torch.nn.functional.cross_entropy(
        model(target, model.new_cache(source, mask)).flatten(0, 1), labels.flatten()
    )
    ours.backward()
    assert torch.allclose(ours, loss, rtol=1e-5)
    names = model.name_table()
    for name, parameter in reference.named_parameters():
        found, _ = names.ours(name)
        gap = (model.get_parameter(found).grad - parameter.grad).abs().max()
        assert gap <= 1e-4 * max(1.0, float(parameter.grad.abs().max())), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_lora_passes_to_peft_and_back(kind: str, seed: int, tmp_path: Path) -> None:
    reference, model = both(kind, seed, tmp_path / "base")
    targets = TARGETS[seed % len(TARGETS)]
    config = LoraConfig(
        task_type="SEQ_2_SEQ_LM", r=2, lora_alpha=random.Random(seed).choice([1, 4]), target_modules=targets
    )
    peft = loud(get_peft_model(reference, config), seed + 5, only="lora_")
    peft.save_pretrained(tmp_path / "one")
    minipoet.load_adapter(model, tmp_path / "one")
    assert_all_same(model, peft, seed)
    minipoet.save_adapter(model, tmp_path / "two")
    again = PeftModel.from_pretrained(read(tmp_path / "base"), tmp_path / "two").eval()
    assert_all_same(model, again, seed)
    assert_same(
        our_logits(minipoet.merge_lora(model), seed), their_logits(again.merge_and_unload(), seed), tolerance=1e-4
    )
    save_model(model, tmp_path / "merged", parameters={
        name.replace(".base.", "."): p for name, p in model.named_parameters() if ".deltas." not in name
    })  # fmt: skip
    assert_same(our_logits(model, seed), their_logits(read(tmp_path / "merged"), seed), tolerance=1e-4)


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("seed", SEEDS[:3])
def test_peft_loads_our_lora(seed: int, targets: list[str] | str, tmp_path: Path) -> None:
    kind = list(KINDS)[seed % 3]
    _, model = both(kind, seed, tmp_path / "base")
    minipoet.add_lora(model, rank=3, alpha=5, targets=targets, seed=seed)
    for number, (_, layer) in enumerate(lora_layers(model)):
        layer.delta("default").B.data.normal_(0, 0.3, generator=generator(seed + number))
    minipoet.save_adapter(model, tmp_path / "adapter")
    peft = PeftModel.from_pretrained(read(tmp_path / "base"), tmp_path / "adapter").eval()
    assert_all_same(model, peft, seed)
    named = (lora for name, lora in peft.named_parameters() if "lora_" in name)
    assert count_parameters(model).trainable == sum(parameter.numel() for parameter in named)


def their_prefix(reference: nn.Module, seed: int) -> PeftModel:
    """PEFT takes the encoder's depth and d_model by itself: so it is told what the decoder has."""
    config, rng = reference.config, random.Random(seed)
    sizes = {"num_layers": config.num_decoder_layers, "num_attention_heads": config.num_heads,
             "token_dim": config.num_heads * config.d_kv}  # fmt: skip
    settings = PrefixTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=rng.choice([1, 3, 8]), **sizes)
    return loud(get_peft_model(reference, settings), seed + 5, only="prompt_encoder", size=1.0)


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_a_prefix_of_peft_is_read_as_peft_uses_it(kind: str, layers: int, tmp_path: Path) -> None:
    seed = SEEDS[0] + layers
    reference, model = both(kind, seed, tmp_path / "base", num_decoder_layers=layers)
    plain = our_logits(model, seed)
    peft = their_prefix(reference, seed)
    peft.save_pretrained(tmp_path / "prefix")
    minipoet.load_adapter(model, tmp_path / "prefix")
    assert (our_logits(model, seed) - plain).abs().max() > 0.01
    assert_all_same(model, peft, seed)
    trainable, total = peft.get_nb_trainable_parameters()
    assert count_parameters(model) == (trainable, total)
    minipoet.save_adapter(model, tmp_path / "again")  # as ours, which has a place for each layer
    assert torch.equal(our_logits(minipoet.load_adapter(load_model(tmp_path / "base"), tmp_path / "again"), seed),
                       our_logits(model, seed))  # fmt: skip


def test_sizes_that_peft_takes_by_itself_fit_where_the_sides_are_alike(tmp_path: Path) -> None:
    sizes = {"num_layers": 2, "num_decoder_layers": 2, "d_model": 8, "num_heads": 2, "d_kv": 4}
    reference, model = both("v10", SEEDS[0], tmp_path / "base", **sizes)
    config = PrefixTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=3)
    peft = loud(get_peft_model(reference, config), 3, only="prompt_encoder", size=1.0)
    peft.save_pretrained(tmp_path / "prefix")
    assert_all_same(minipoet.load_adapter(model, tmp_path / "prefix"), peft, SEEDS[0])


@pytest.mark.parametrize("parts", [(), ("cross", "encoder")])
def test_peft_refuses_our_own_kind_of_prefix(parts: tuple[str, ...], tmp_path: Path) -> None:
    _, model = both("v10", SEEDS[0], tmp_path / "base")
    minipoet.save_adapter(minipoet.add_prefix(model, 3, parts=parts), tmp_path / "prefix")
    with pytest.raises((ValueError, KeyError), match="MINIPOET_PREFIX_TUNING"):
        PeftModel.from_pretrained(read(tmp_path / "base"), tmp_path / "prefix")
    with pytest.raises((ValueError, KeyError), match="MINIPOET_PREFIX_TUNING"):
        PeftConfig.from_pretrained(tmp_path / "prefix")


@pytest.mark.parametrize("size", ["t5-small", "t5-base", "rut5-small"])
def test_counts_of_the_public_shapes_equal_theirs(size: str) -> None:
    shapes = {  # vocab_size, d_model, d_kv, num_heads, d_ff, num_layers
        "t5-small": (32128, 512, 64, 8, 2048, 6),
        "t5-base": (32128, 768, 64, 12, 3072, 12),
        "rut5-small": (20100, 512, 64, 6, 1024, 8),
    }
    names = ("vocab_size", "d_model", "d_kv", "num_heads", "d_ff", "num_layers")
    values = dict(zip(names, shapes[size], strict=True))
    gated = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False} if size == "rut5-small" else {}
    with torch.device("meta"):
        reference = T5ForConditionalGeneration(T5Config(**values, **gated))
        if gated:
            reference.lm_head.weight = nn.Parameter(torch.empty_like(reference.lm_head.weight))
        ours = (GatedT5 if gated else T5)(
            OurConfig(**values, **gated, **({"scale_decoder_outputs": False} if gated else {}))
        )
    assert family(reference.config.to_dict()) is type(ours)
    peft = get_peft_model(reference, LoraConfig(task_type="SEQ_2_SEQ_LM", r=4, target_modules=["q", "v"]),
                          low_cpu_mem_usage=True)  # fmt: skip
    assert count_parameters(minipoet.add_lora(ours, rank=4, targets=("q", "v"))) == peft.get_nb_trainable_parameters()
