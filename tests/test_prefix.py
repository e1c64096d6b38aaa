"""Prefix tuning: a learnt beginning of the cache, for any family that has one."""

import pytest
import torch
from test_gpt2 import tiny

import minipoet
from minipoet.adapters import PrefixConfig, ProjectedPrefix, active_adapter, adapter_names
from minipoet.models import count_parameters
from minipoet.models.gpt2 import GPT2, GPT2Config
from minipoet.training import Batches, cross_entropy

PROMPT = [3, 1, 4, 1, 5]
IDS = torch.tensor([[2, 6, 5, 3, 5, 8], [9, 7, 9, 3, 2, 3]])
KINDS = [{}, {"projection": True, "hidden": 11}]


def begun(kind=None, **options):
    """A model with a prefix that says something."""
    return minipoet.add_prefix(tiny(), 5, **(kind or {}), **options)


def after_prompt(model, ids=IDS):
    """Logits of the ids, read after the prompt."""
    prompt = torch.tensor([PROMPT]).expand(len(ids), -1)
    return model(torch.cat([prompt, ids], dim=1))[:, len(PROMPT) :]


def close(a, b, tolerance=1e-5):
    return torch.allclose(a, b, atol=tolerance * max(1.0, float(b.detach().abs().max())), rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_prefix_that_starts_at_a_text_says_what_the_text_says_as_a_prompt(kind):
    plain, model = tiny(), begun(kind, init=PROMPT)
    assert close(model(IDS), after_prompt(plain))
    assert not close(model(IDS), plain(IDS), 1e-2)  # and it does say something


def test_a_text_is_read_with_the_lora_of_the_same_name_and_without_other_prefixes():
    plain = minipoet.add_lora(tiny(), rank=2)
    for name, parameter in plain.named_parameters():
        if name.endswith(".B"):
            parameter.data.normal_(0, 0.3, generator=torch.Generator().manual_seed(5))
    wanted = after_prompt(plain)
    minipoet.add_prefix(plain, 2, name="another")
    minipoet.set_adapter(plain, "default")
    assert close(minipoet.add_prefix(plain, 5, init=PROMPT)(IDS), wanted)


def test_zero_keys_and_values_take_attention_and_give_nothing():
    model = tiny()
    x = torch.randn(1, 1, model.config.n_embd, generator=torch.Generator().manual_seed(0))
    attn = model.blocks[0].attn
    alone, _ = attn(x, model.new_cache(1).layers[0], None)
    minipoet.add_prefix(model, 3, init="zero")
    assert model.beginning().abs().max() == 0
    among, _ = attn(x, model.new_cache(1).layers[0], None)
    q, k, v = attn.qkv(x).view(3, model.config.n_head, -1)
    own = torch.exp((q * k).sum(-1) * attn.scale)  # e^score of the token itself; each of the three slots has e^0
    share = (own / (own + 3))[:, None]
    assert torch.allclose(among - attn.out.bias, (share * v).flatten() @ attn.out.weight.T, atol=1e-6)
    assert not torch.allclose(among, alone, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", range(1, 6))
def test_cached_logits_equal_uncached_at_every_split(kind, split):
    model = begun(kind, seed=3)
    cache = model.new_cache(2)
    parts = [model(IDS[:, :split], cache), model(IDS[:, split:], cache)]
    assert close(torch.cat(parts, dim=1), model(IDS))
    assert cache.length == 5 + 6


def test_packed_and_padded_texts_each_see_the_prefix_and_not_each_other():
    model = begun()
    a, b = IDS[:1, :4], IDS[1:, :2]
    packed = model(torch.cat([a, b], 1), segments=torch.tensor([[1, 1, 1, 1, 2, 2]]))
    assert close(packed[:, :4], model(a)) and close(packed[:, 4:], model(b))
    padded = model(torch.cat([torch.zeros(1, 3, dtype=torch.long), b], 1), segments=torch.tensor([[0, 0, 0, 1, 1]]))
    assert close(padded[:, 3:], model(b)) and bool(padded.isfinite().all())
    cache = model.new_cache(1)
    model(a, cache, torch.ones(1, 4, dtype=torch.long))
    assert close(model(b, cache, torch.full((1, 2), 2)), model(b))  # another text behind a cache that has read one


def test_a_cache_moves_the_prefix_with_its_rows():
    model = begun()
    cache = model.new_cache(2)
    model(IDS[:, :3], cache)
    cache.reorder(torch.tensor([1, 0, 1]))
    assert close(model(IDS[[1, 0, 1], 3:], cache), model(IDS[[1, 0, 1]])[:, 3:])
    cache = model.new_cache(1)
    cache.repeat(3)
    assert close(model(IDS[[0, 0, 0]], cache), model(IDS[[0, 0, 0]]))


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_prefix_trains_and_its_gradient_is_that_of_the_loss(kind):
    model = begun(kind).double()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if name.startswith("prefixes.by_name.default.")}
    parameters = [p for p in model.parameters() if p.requires_grad]
    model(IDS).logsumexp(-1).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
    generator, step = torch.Generator().manual_seed(2), 1e-5
    directions = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    slope = sum(float((p.grad * d).sum()) for p, d in zip(parameters, directions, strict=True))
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for p, d in zip(parameters, directions, strict=True):
                p += sign * step * d
            values.append(float(model(IDS).logsumexp(-1).sum()))
            for p, d in zip(parameters, directions, strict=True):
                p -= sign * step * d
    assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4)


@pytest.mark.parametrize("segments", [None, torch.tensor([[1, 1, 1, 2, 2, 0], [1, 1, 2, 2, 3, 3]])])
def test_gradient_checkpointing_changes_no_gradient(segments):
    grads = []
    for checkpointing in (False, True):
        model = minipoet.add_lora(begun({"projection": True}), rank=2).train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        for block in model.blocks:
            block.attn.dropout = 0.0
        model.gradient_checkpointing = checkpointing
        for cache in (None, model.new_cache(2)):
            cross_entropy(model.head, model.states(IDS, cache, segments), IDS).backward()
        grads.append([p.grad for p in model.parameters() if p.requires_grad])
    assert len(grads[0]) == 5 + 2 * 2  # of the MLP, and of LoRA's two layers
    assert all(close(a, b) for a, b in zip(*grads, strict=True))


def test_a_prefix_and_lora_of_one_name_act_and_train_together():
    model = minipoet.add_lora(begun(), rank=2)
    assert adapter_names(model) == ["default"]
    kinds = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert kinds == {"prefixes", "blocks"}
    minipoet.remove_lora(model)
    assert adapter_names(model) == ["default"] and close(model(IDS), begun()(IDS))
    minipoet.remove_prefix(model)
    assert adapter_names(model) == [] and torch.equal(model(IDS), tiny()(IDS))


def test_switching_changes_the_beginning():
    model, plain = begun(), tiny()(IDS)
    first = model(IDS)
    minipoet.add_prefix(model, 2, name="second", seed=1)
    assert active_adapter(model) == "second" and model.prefix_length == 2
    assert not close(model(IDS), first, 1e-3)
    assert torch.equal(minipoet.set_adapter(model, "default")(IDS), first)
    assert torch.equal(minipoet.set_adapter(model, None)(IDS), plain) and model.prefix_length == 0


def test_a_prefix_takes_its_places_from_the_context():
    model = tiny(n_positions=12)
    assert model.context == 12
    minipoet.add_prefix(model, 5)
    assert model.context == 7
    assert model(torch.zeros(1, 7, dtype=torch.long)).shape[1] == 7
    with pytest.raises(ValueError, match="8 tokens long, but this model reads at most 7"):
        model(torch.zeros(1, 8, dtype=torch.long))
    with pytest.raises(ValueError, match="leaves no room"):
        minipoet.add_prefix(tiny(n_positions=12), 12)


def test_counts_come_from_the_shapes_alone():
    with torch.device("meta"):
        medium = GPT2(GPT2Config(vocab_size=50257, n_positions=2048, n_embd=1024, n_layer=24, n_head=16))
    counts = count_parameters(minipoet.add_prefix(medium, 15))
    assert counts == (737_280, 356_609_024)  # as PEFT counts it
    assert round(counts.share, 4) == 0.2067
    minipoet.remove_prefix(medium)
    t, h, P = 1024, 512, 15  # V·t + t·h + h + h·2Lt + 2Lt
    counts = count_parameters(minipoet.add_prefix(medium, P, projection=True, hidden=h))
    assert counts.trainable == P * t + t * h + h + h * 48 * t + 48 * t


def test_half_precision_keeps_the_prefix_in_fp32():
    model = tiny().bfloat16()
    minipoet.add_prefix(model, 5, init=PROMPT)
    assert next(model.prefixes.parameters()).dtype is torch.float32
    assert model(IDS).dtype is torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        again = begun({"projection": True}).train()
        cross_entropy(again.head, again.states(IDS), IDS).backward()
    assert all(p.grad.dtype is torch.float32 for p in again.parameters() if p.requires_grad)


def test_generation_goes_on_from_the_prefix():
    from minipoet.generation import SamplingSettings, generate_ids

    settings = SamplingSettings(max_new_tokens=6, temperature=0)
    prompts = [[2, 6, 5], [9, 7]]
    with_prefix = generate_ids(begun(init=PROMPT), prompts, settings)
    with_prompt = generate_ids(tiny(), [PROMPT + ids for ids in prompts], settings)
    assert [c.ids for c in with_prefix] == [c.ids for c in with_prompt]


def test_batches_leave_room_for_the_prefix():
    model = minipoet.add_prefix(tiny(n_positions=12), 5)
    Batches([[1] * 8], 12, 1).check(model)
    with pytest.raises(ValueError, match="reads at most 7"):
        Batches([[1] * 9], 12, 1).check(model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_virtual_tokens": 0}, "at least 1"),
        ({"projection": 1}, "True or False"),
        ({"hidden": 4}, "needs projection=True"),
        ({"init": "gaussian"}, "random.*zero.*ids of a text"),
        ({"init": [1, 2, 3]}, "has 3 tokens, the prefix 15: give num_virtual_tokens=3"),
        ({"init": [10**6] * 15}, "this model has 0 to"),
        ({"init": list(range(15)), "projection": True, "hidden": 7}, "width 7: give hidden=15 or more"),
        ({"name": "keys"}, "take another name"),
    ],
)
def test_a_mistake_is_told_and_changes_nothing(options, message):
    model = tiny()
    with pytest.raises(ValueError, match=message):
        minipoet.add_prefix(model, **options)
    assert model.prefixes is None and adapter_names(model) == []


def test_a_taken_name_a_merged_lora_and_saving_the_whole_are_told():
    model = begun()
    with pytest.raises(ValueError, match="has a prefix named 'default' already"):
        minipoet.add_prefix(model, 2)
    with pytest.raises(ValueError, match="is a prefix, .* cannot be merged"):
        minipoet.merge_lora(model)
    model = minipoet.merge_lora(minipoet.add_lora(tiny()))
    with pytest.raises(ValueError, match="unmerge_lora"):
        minipoet.add_prefix(model, 2)


def test_the_whole_model_cannot_be_saved_with_a_prefix(tmp_path):
    model, tokenizer = minipoet.load("poet-tiny")
    minipoet.add_prefix(model, 2)
    with pytest.raises(ValueError, match="carries a prefix.*save_adapter"):
        minipoet.save(model, tokenizer, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_family_without_a_place_for_a_prefix_says_so():
    from minipoet.models.window import WindowMLP, WindowMLPConfig

    with pytest.raises(ValueError, match="WindowMLP"):
        minipoet.add_prefix(WindowMLP(WindowMLPConfig(vocab_size=10)), 1)


def test_the_config_keeps_the_settings():
    model = begun({"projection": True, "hidden": 11})
    assert model.adapters["default"]["prefix"] == PrefixConfig(5, True, 11)
    assert isinstance(model.prefixes.by_name["default"], ProjectedPrefix)
