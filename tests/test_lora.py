"""LoRA by hand, and PEFT's files both ways against recorded logits and counts."""

import json
import shutil

import pytest
import test_t5 as t5
import torch
from reference_data import load_json, load_tensors, reference
from safetensors.torch import load_file, save_file
from test_gpt2 import assert_logits_equal, tiny

import minipoet
from minipoet.adapters import AdapterError, LoRAConfig, LoRALinear, attach, lora_layers
from minipoet.adapters.rows import adapters_by_row
from minipoet.models import count_parameters, load_model
from minipoet.models.gpt2 import GPT2, GPT2Config

READ = ["c_attn", "wide_rslora", "patterns", "dropout", "regex", "layers", "c_attn_old_bin"]
IDS = torch.arange(20).view(2, 10)


def shaken(model):
    """The model with adapters that do something."""
    generator = torch.Generator().manual_seed(3)
    for _, layer in lora_layers(model):
        for delta in layer.deltas.values():
            delta.B.data.normal_(0, 0.2, generator=generator)
    return model


def test_the_formula_on_a_matrix_worked_by_hand():
    base = torch.nn.Linear(2, 2, bias=False)
    base.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    holder = tiny()
    holder.blocks[0].attn.out = base
    minipoet.add_lora(holder, rank=1, alpha=3, targets=["blocks.0.attn.out"])
    layer = holder.blocks[0].attn.out
    layer.deltas["default"].A.data = torch.tensor([[1.0, 2.0]])
    layer.deltas["default"].B.data = torch.tensor([[1.0], [-1.0]])
    # A x = 1·5 + 2·7 = 19; s = 3/1; y = x + 3 · 19 · (1, −1)
    assert layer(torch.tensor([5.0, 7.0])).tolist() == [62.0, -50.0]


def test_an_adapted_model_starts_as_the_base():
    model = tiny()
    before = model(IDS)
    assert torch.equal(minipoet.add_lora(model, targets="all-linear")(IDS), before)


def test_only_the_adapter_trains():
    model = minipoet.add_lora(tiny(), rank=2, targets=["attn.qkv", "mlp.up"])
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert names == {
        f"blocks.{i}.{layer}.deltas.default.{m}" for i in (0, 1) for layer in ("attn.qkv", "mlp.up") for m in "AB"
    }
    model(IDS).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("targets", [["c_attn"], ["attn.qkv"], ["attn.c_attn"], r".*\.c_attn"])
def test_targets_may_be_ours_or_published(targets):
    assert [name for name, _ in lora_layers(minipoet.add_lora(tiny(), targets=targets))] == [
        "blocks.0.attn.qkv",
        "blocks.1.attn.qkv",
    ]


def test_a_published_end_that_two_layers_share_matches_both():
    names = [name for name, _ in lora_layers(minipoet.add_lora(tiny(n_layer=1), targets=["c_proj"]))]
    assert names == ["blocks.0.attn.out", "blocks.0.mlp.down"]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["attn.qkv", "q_proj"], r"'q_proj' matches no layer.*attn\.qkv \(attn\.c_attn\)"),
        (["head"], "shares its matrix with the embedding"),
        (["embed"], "is a Embedding, not a linear layer"),
        (["wte"], "is a Embedding, not a linear layer"),
        (["norm"], "is a LayerNorm, not a linear layer"),
        ([], "No targets"),
        (["tn.qkv"], "matches no layer"),
    ],
)
def test_targets_that_cannot_be_adapted_are_told_with_the_choices(targets, message):
    model = tiny()
    with pytest.raises(ValueError, match=message):
        minipoet.add_lora(model, targets=targets)
    assert not list(lora_layers(model))


def test_an_untied_head_can_be_adapted():
    model = tiny(tie_word_embeddings=False)
    assert isinstance(minipoet.add_lora(model, targets=["lm_head"]).head, LoRALinear)


@pytest.mark.parametrize(
    "settings", [{"rank": 0}, {"rank": 2.5}, {"dropout": 1.0}, {"dropout": -0.1}, {"alpha": float("nan")}]
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        minipoet.add_lora(tiny(), **settings)


def test_scale_is_alpha_over_rank_or_over_its_root():
    assert LoRAConfig(rank=16, alpha=8).scale(16, 8) == 0.5
    assert LoRAConfig(rank=16, alpha=8, rslora=True).scale(16, 8) == 2.0
    patterns = LoRAConfig(rank=4, alpha=4, rank_pattern={"up": 8}, alpha_pattern={r"blocks\.0\..*": 2})
    assert patterns.of("blocks.1.mlp.up") == (8, 4)
    assert patterns.of("blocks.0.mlp.down") == (4, 2)


def test_merging_gives_the_same_logits_and_unmerging_the_base():
    model = tiny()
    base = model(IDS)
    adapted = shaken(minipoet.add_lora(model, rank=4, targets="all-linear"))(IDS)
    assert float((adapted - base).detach().abs().max()) > 0.1
    assert_logits_equal(minipoet.merge_lora(model)(IDS), adapted)
    with pytest.raises(ValueError, match="merged already"):
        minipoet.merge_lora(model)
    with pytest.raises(ValueError, match="unmerge_lora"):
        minipoet.set_adapter(model, None)
    assert_logits_equal(minipoet.unmerge_lora(model)(IDS), adapted)
    assert torch.allclose(minipoet.set_adapter(model, None)(IDS), base, atol=1e-4)
    with pytest.raises(ValueError, match="No adapter is merged"):
        minipoet.unmerge_lora(model)
    with pytest.raises(ValueError, match="no active adapter"):
        minipoet.merge_lora(model)


def test_a_broken_adapter_is_not_merged_even_in_part():
    model = shaken(minipoet.add_lora(tiny(), targets=["attn.qkv"]))
    before = model.blocks[0].attn.qkv.weight.clone()
    model.blocks[1].attn.qkv.deltas["default"].B.data[0, 0] = float("inf")
    with pytest.raises(ValueError, match="not finite"):
        minipoet.merge_lora(model)
    assert torch.equal(model.blocks[0].attn.qkv.weight, before)


def test_several_adapters_live_on_one_base():
    model = tiny()
    base = model(IDS)
    minipoet.add_lora(model, name="one", targets=["attn.qkv"], seed=1)
    one = shaken(model)(IDS)
    minipoet.add_lora(model, name="two", targets=["mlp.up"], rank=3, seed=2)
    assert torch.equal(model(IDS), base)  # the new one is active, and starts as nothing
    assert torch.equal(minipoet.set_adapter(model, "one")(IDS), one)
    assert torch.equal(minipoet.set_adapter(model, None)(IDS), base)
    assert count_parameters(model).trainable == 0
    with pytest.raises(ValueError, match="'one' already"):
        minipoet.add_lora(model, name="one")
    with pytest.raises(ValueError, match="no adapter 'three'"):
        minipoet.set_adapter(model, "three")
    assert torch.equal(minipoet.remove_lora(model)(IDS), base)
    assert not list(lora_layers(model))


def test_the_start_depends_on_the_seed_alone():
    one, two = (minipoet.add_lora(tiny(), seed=5) for _ in range(2))
    torch.manual_seed(99)
    other = minipoet.add_lora(tiny(), seed=6)
    first = [m.blocks[1].attn.qkv.deltas["default"].A for m in (one, two, other)]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])
    assert float(first[0].detach().abs().max()) <= 32**-0.5


def test_dropout_acts_in_training_only():
    model = shaken(minipoet.add_lora(tiny(resid_pdrop=0, embd_pdrop=0, attn_pdrop=0), dropout=0.5))
    assert torch.equal(model(IDS), model(IDS))
    model.train()
    assert not torch.equal(model(IDS), model(IDS))


@pytest.mark.parametrize("name", READ)
def test_an_adapter_of_peft_gives_its_logits_and_counts(name):
    recorded = load_tensors(f"lora/{name.removesuffix('_old_bin')}.outputs")
    model = minipoet.load_adapter(load_model(reference("gpt2/plain")), reference(f"lora/{name}"))
    real = recorded["mask"].bool()
    assert_logits_equal(model(recorded["ids"], segments=recorded["mask"])[real], recorded["logits"][real])
    counts = load_json("lora/counts")[name.removesuffix("_old_bin")]
    assert count_parameters(model) == (counts["trainable"], counts["all"])
    minipoet.merge_lora(model)
    assert_logits_equal(model(recorded["ids"], segments=recorded["mask"])[real], recorded["merged_logits"][real])


@pytest.mark.parametrize("name", READ)
def test_an_adapter_goes_out_and_back_unchanged(name, tmp_path):
    model = minipoet.load_adapter(load_model(reference("gpt2/plain")), reference(f"lora/{name}"), name="x")
    minipoet.save_adapter(model, tmp_path)
    again = minipoet.load_adapter(load_model(reference("gpt2/plain")), tmp_path)
    assert torch.equal(model(IDS), again(IDS))


def test_what_is_written_has_pefts_names_and_settings(tmp_path):
    model = load_model(reference("gpt2/plain"))
    minipoet.save_adapter(minipoet.add_lora(model, rank=4, alpha=8, targets=["c_attn"]), tmp_path)
    ours, theirs = (load_file(folder / "adapter_model.safetensors") for folder in (tmp_path, reference("lora/c_attn")))
    assert {n: (t.shape, t.dtype) for n, t in ours.items()} == {n: (t.shape, t.dtype) for n, t in theirs.items()}
    ours, theirs = (
        json.loads((folder / "adapter_config.json").read_text()) for folder in (tmp_path, reference("lora/c_attn"))
    )
    same = ("peft_type", "task_type", "r", "lora_alpha", "fan_in_fan_out", "bias", "inference_mode", "use_rslora")
    assert {key: ours[key] for key in same} == {key: theirs[key] for key in same}


@pytest.mark.parametrize(
    ("name", "word"),
    [("refused_dora", "use_dora"), ("refused_modules_to_save", "modules_to_save"), ("refused_bias", "bias")],
)
def test_what_is_not_supported_is_refused_by_name(name, word):
    model = load_model(reference("gpt2/plain"))
    with pytest.raises(AdapterError, match=word):
        minipoet.load_adapter(model, reference(f"lora/{name}"))
    assert not list(lora_layers(model))


def test_an_adapter_of_another_model_is_refused_and_the_model_left_alone():
    for options in ({"n_embd": 64, "vocab_size": 97}, {"n_layer": 1, "vocab_size": 97}):
        model = tiny(**options)
        with pytest.raises(AdapterError, match="does not fit this model"):
            minipoet.load_adapter(model, reference("lora/c_attn"))
        assert not list(lora_layers(model))


def test_broken_adapter_folders_are_told(tmp_path):
    model = load_model(reference("gpt2/plain"))
    with pytest.raises(AdapterError, match=r"no adapter_config\.json"):
        minipoet.load_adapter(model, tmp_path)
    folder = tmp_path / "a"
    shutil.copytree(reference("lora/c_attn"), folder)
    weights = folder / "adapter_model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[: len(data) // 2])
    with pytest.raises(AdapterError, match="broken or cut short"):
        minipoet.load_adapter(model, folder)
    weights.unlink()
    with pytest.raises(AdapterError, match="cut short"):
        minipoet.load_adapter(model, folder)
    tensors = load_file(reference("lora/c_attn/adapter_model.safetensors"))
    save_file({n: t for n, t in tensors.items() if "lora_A" in n}, weights)
    with pytest.raises(AdapterError, match="does not fit"):
        minipoet.load_adapter(model, folder)
    (folder / "adapter_config.json").write_text('{"peft_type": "IA3"}')
    with pytest.raises(AdapterError, match="IA3"):
        minipoet.load_adapter(model, folder)
    (folder / "adapter_config.json").write_text("[]")
    with pytest.raises(AdapterError, match="peft_type"):
        minipoet.load_adapter(model, folder)
    assert not list(lora_layers(model))


@pytest.mark.parametrize("size", load_json("lora/counts_full_size"))
def test_full_size_counts_are_pefts_from_the_shapes_alone(size):
    recorded = load_json("lora/counts_full_size")[size]
    for targets, counts in recorded["lora"].items():
        with torch.device("meta"):
            model = GPT2(GPT2Config(**recorded["config"]))
        attach(model, LoRAConfig(rank=recorded["rank"], targets=tuple(targets.split(","))))
        assert count_parameters(model) == (counts["trainable"], counts["all"])


def test_a_half_precision_base_gets_a_full_precision_adapter():
    model = shaken(minipoet.add_lora(load_model(reference("gpt2/bf16"))))
    assert {delta.dtype for _, layer in lora_layers(model) for delta in layer.deltas.parameters()} == {torch.float32}
    assert model(IDS).dtype == torch.bfloat16


# A model that reads a source

SIDES = {"encoder.blocks.{}.attn", "decoder.blocks.{}.attn", "decoder.blocks.{}.cross"}


def t5_layers(targets, **options):
    """The adapted layers of a T5 of 2 + 3 layers, without the numbers of their blocks."""
    model = minipoet.add_lora(t5.tiny(**options), rank=2, targets=targets)
    names = [name for name, _ in lora_layers(model)]
    return {".".join("{}" if part.isdigit() else part for part in name.split(".")) for name in names}, len(names)


@pytest.mark.parametrize(
    ("targets", "letters"),
    [
        (("q", "v"), "qv"),
        (("k", "q", "v"), "kqv"),
        (("attn.q", "cross.q", "EncDecAttention.v", "SelfAttention.v"), "qv"),
        (r".*\.(q|k|v)", "kqv"),
        (r"(encoder|decoder)\.block\.\d\.layer\.\d\.(Self|EncDec)Attention\.[qv]", "qv"),
    ],
)
def test_targets_of_t5_reach_the_encoder_the_decoder_and_its_cross_attention(targets, letters):
    wanted = {f"{side}.{letter}" for side in SIDES for letter in letters}
    assert t5_layers(targets) == (wanted, len(letters) * (2 + 3 + 3))


def test_a_part_of_t5_can_be_adapted_alone():
    assert t5_layers(("cross.k", "EncDecAttention.v")) == ({f"decoder.blocks.{{}}.cross.{x}" for x in "kv"}, 6)
    assert t5_layers(r"encoder\..*\.wo")[0] == {"encoder.blocks.{}.mlp.down"}


@pytest.mark.parametrize(("kind", "mlp"), [("v10", ("up", "down")), ("v11", ("gate", "up", "down"))])
def test_all_linear_layers_of_t5_are_adapted_but_the_head(kind, mlp):
    attention = {f"{side}.{letter}" for side in SIDES for letter in ("q", "k", "v", "out")}
    wanted = attention | {f"{side}.blocks.{{}}.mlp.{name}" for side in ("encoder", "decoder") for name in mlp}
    assert t5_layers("all-linear", kind=kind) == (wanted, 8 * 4 + 5 * len(mlp))


def test_targets_that_t5_has_not_are_told_with_the_choices():
    with pytest.raises(
        ValueError, match=r"'qkv' matches no layer. This model has attn\.q \(SelfAttention\.q\), .*cross"
    ):
        minipoet.add_lora(t5.tiny(), targets=("q", "qkv"))
    with pytest.raises(ValueError, match="shares its matrix with the embedding"):
        minipoet.add_lora(t5.tiny(), targets=("lm_head",))
    assert isinstance(minipoet.add_lora(t5.tiny("v11"), targets=("lm_head",)).head, LoRALinear)
    with pytest.raises(ValueError, match="'distances' is a Distances, not a linear layer"):
        minipoet.add_lora(t5.tiny(), targets=("distances",))


@pytest.mark.parametrize("kind", t5.KINDS)
def test_merging_on_t5_gives_the_same_logits_and_unmerging_the_base(kind):
    model = t5.tiny(kind)
    plain = t5.says(model)
    adapted = t5.says(shaken(minipoet.add_lora(model, rank=2, targets=("k", "q", "v"))))
    assert float((adapted - plain).detach().abs().max()) > 0.1
    assert_logits_equal(t5.says(minipoet.merge_lora(model)), adapted)
    assert torch.allclose(t5.says(minipoet.set_adapter(minipoet.unmerge_lora(model), None)), plain, atol=1e-4)


def test_lora_on_t5_learns_on_both_sides_and_nothing_else_does():
    model = shaken(minipoet.add_lora(t5.tiny(), rank=2, targets=("q", "v"))).train()
    for checkpointing in (False, True):
        model.gradient_checkpointing = checkpointing
        model.zero_grad()
        t5.says(model).logsumexp(-1).sum().backward()
        assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
        assert all(p.grad.abs().max() > 0 for p in model.parameters() if p.requires_grad)


@torch.no_grad()
def test_each_row_of_t5_is_written_by_its_own_adapter_and_so_is_its_source_read():
    model, names = t5.tiny(), ["good", None, "bad"]
    for seed, name in enumerate(("good", "bad")):
        minipoet.add_lora(model, rank=2, targets="all-linear", name=name, seed=seed)
    shaken(model)
    source, ids = (torch.cat([rows, rows[:1]]) for rows in (t5.SOURCE, t5.IDS))
    with adapters_by_row(model, names):
        together = t5.says(model, source, ids)
    for row, name in enumerate(names):
        alone = t5.says(minipoet.set_adapter(model, name), source[[row]], ids[[row]])
        assert torch.allclose(together[[row]], alone, atol=1e-5)
    assert (together[0] - together[2]).abs().max() > 0.1
