"""Prefix tuning: a learnt beginning of the cache, for any family that has one."""

import pytest
import test_t5 as t5
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


# A model that reads a source

PARTS = [(), ("cross",), ("encoder",), ("cross", "encoder")]


def about(parts=(), **options):
    """A T5 with a prefix, and what it says of its test's ids about its test's source."""
    return minipoet.add_prefix(t5.tiny(**options), 2, parts=parts, seed=3)


@pytest.mark.parametrize("parts", PARTS)
def test_a_prefix_of_t5_has_two_rows_for_each_layer_of_each_part(parts):
    H, D, encoder, decoder = 4, 6, 2, 3  # layers
    model = about(parts)
    rows = 2 * decoder + 2 * decoder * ("cross" in parts) + 2 * encoder * ("encoder" in parts)
    assert model.beginning().shape == (2, rows, H, D)
    assert count_parameters(model).trainable == 2 * rows * H * D
    assert model.adapters["default"]["prefix"] == PrefixConfig(2, parts=parts)
    with torch.device("meta"):
        small = t5.shape("rut5-small")
    assert count_parameters(minipoet.add_prefix(small, 15, parts=parts)).trainable == 15 * 384 * (
        16 * (1 + ("cross" in parts) + ("encoder" in parts))
    )


def test_rows_are_of_the_decoder_then_of_its_cross_attention_then_of_the_encoder():
    """Silencing the rows of a part leaves what the model would say without it."""
    everything = about(("cross", "encoder"))
    numbers = everything.prefixes.by_name["default"].numbers.data.view(2, 16, 4, 6)
    for parts, kept in (((), 6), (("cross",), 12)):
        model = about(parts)
        model.prefixes.by_name["default"].numbers.data = numbers[:, :kept].flatten(1)
        assert (t5.says(model) - t5.says(everything)).abs().max() > 0.05
        cache, whole = model.new_cache(t5.SOURCE), everything.new_cache(t5.SOURCE)
        for layer, other in zip(cache.layers, whole.layers, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(layer.buffers, other.buffers, strict=True))
        for layer in range(3):
            keys, values = whole.cross[layer]
            assert torch.equal(keys[1, :, :2], numbers[:, 6 + 2 * layer].transpose(0, 1))
            assert torch.equal(values[1, :, :2], numbers[:, 7 + 2 * layer].transpose(0, 1))
    past = everything._beginnings()[2]
    assert torch.equal(past, numbers[:, 12:])


@pytest.mark.parametrize("parts", PARTS)
def test_zero_keys_and_values_take_attention_of_t5_and_give_nothing(parts):
    """One token about one: each attention is a share e^s / (e^s + those of two slots) of the token's own value.

    A slot's score is what is learnt of its distance, 1 or 2; the cross attention knows no distances: there it is 0.
    """
    model = minipoet.add_prefix(t5.tiny(num_layers=1, num_decoder_layers=1), 2, init="zero", parts=parts)

    def attended(attn, y, source, near):
        q, k, v = attn.q(y).view(4, 6), attn.k(source).view(4, 6), attn.v(source).view(4, 6)
        own, slots = torch.exp((q * k).sum(-1) + near[0]), torch.exp(near[1:]).sum(0)
        return ((own / (own + slots))[:, None] * v).flatten() @ attn.out.weight.T

    def written(block, x, slots, table):
        y = block.norm1(x)
        x = x + attended(block.attn, y, y, table.weight[: 1 + slots])
        return x

    encoder, decoder = model.encoder.blocks[0], model.decoder.blocks[0]
    x = written(encoder, model.embed.weight[7], 2 * ("encoder" in parts), model.encoder.distances)
    source = model.encoder.norm(x + encoder.mlp(encoder.norm2(x)))
    x = written(decoder, model.embed.weight[3], 2, model.decoder.distances)
    x = x + attended(decoder.cross, decoder.norm2(x), source, torch.zeros(1 + 2 * ("cross" in parts), 4))
    x = model.decoder.norm(x + decoder.mlp(decoder.norm3(x))) * 16**-0.5
    said = model(torch.tensor([[3]]), model.new_cache(torch.tensor([[7]])))
    assert close(said[0, 0], model.head(x))


@torch.no_grad()
@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("split", range(1, 6))
def test_cached_logits_of_t5_with_a_prefix_equal_uncached_at_every_split(parts, split):
    model = about(parts)
    cache = model.new_cache(t5.SOURCE)
    assert cache.length == cache.prefix == 2
    both = torch.cat([model(t5.IDS[:, :split], cache), model(t5.IDS[:, split:], cache)], dim=1)
    assert close(both, t5.says(model)) and cache.length == 8
    assert not close(both, t5.says(t5.tiny()), 1e-2)


@torch.no_grad()
@pytest.mark.parametrize("parts", PARTS)
def test_each_packed_text_and_its_source_begin_with_the_prefix(parts):
    model = about(parts)
    packed = t5.says(model, source_segments=t5.PACKED_SOURCE, segments=t5.PACKED)
    for row in range(2):
        for number in range(1, int(t5.PACKED[row].max()) + 1):
            source = t5.SOURCE[row, t5.PACKED_SOURCE[row] == number][None]
            where = t5.PACKED[row] == number
            assert close(packed[row, where], t5.says(model, source, t5.IDS[row, where][None])[0])
    assert torch.isfinite(packed).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_every_part_of_a_prefix_of_t5_learns(kind, checkpointing):
    model = minipoet.add_prefix(t5.tiny(), 2, parts=("cross", "encoder"), **kind).train()
    model.gradient_checkpointing = checkpointing
    numbers = model.beginning()
    numbers.retain_grad()
    model.prefixes.forward = lambda: numbers
    t5.says(model, source_segments=t5.PACKED_SOURCE, segments=t5.PACKED)[t5.PACKED > 0].logsumexp(-1).sum().backward()
    assert (numbers.grad.abs().amax((0, 2, 3)) > 1e-6).all()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


def test_the_slope_of_a_prefix_of_t5_is_its_gradient():
    model = about(("cross", "encoder"), kind="v11").double()  # GELU: ReLU's kinks are near
    (numbers,) = [p for p in model.parameters() if p.requires_grad]
    t5.says(model).logsumexp(-1).sum().backward()
    direction, values = torch.randn(numbers.shape, generator=torch.Generator().manual_seed(0)).double(), []
    for step in (1e-3, -1e-3):
        with torch.no_grad():
            numbers += step * direction
            values.append(float(t5.says(model).logsumexp(-1).sum()))
            numbers -= step * direction
    assert float((numbers.grad * direction).sum()) == pytest.approx((values[0] - values[1]) / 2e-3, rel=1e-3)


def test_a_prefix_of_t5_stays_in_fp32_over_half_precision():
    model = minipoet.add_prefix(t5.tiny().bfloat16(), 2, parts=("cross", "encoder"))
    assert next(model.prefixes.parameters()).dtype is torch.float32
    assert t5.says(model).dtype is torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        learning = about(("cross", "encoder")).train()
        t5.says(learning).float().logsumexp(-1).sum().backward()
    assert all(p.grad.dtype is torch.float32 for p in learning.parameters() if p.requires_grad)


def test_a_prefix_and_lora_of_one_name_train_together_on_t5():
    model = minipoet.add_lora(about(("cross",)), rank=2, targets=("q", "v"))
    kinds = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert kinds == {"prefixes", "encoder", "decoder"} and adapter_names(model) == ["default"]
    minipoet.remove_lora(model)
    assert close(t5.says(model), t5.says(about(("cross",))))
    assert close(t5.says(minipoet.remove_prefix(model)), t5.says(t5.tiny()))


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (t5.tiny, {"parts": ("decoder",)}, r"A T5 has no place for a prefix called 'decoder'; it has cross, encoder\."),
        (
            t5.tiny,
            {"parts": "cross"},
            r'parts must be a list of names, each once, \("cross", "encoder"\), got \'cross\'',
        ),
        (t5.tiny, {"parts": 3}, r"parts must be a list of names, .* got 3"),
        (t5.tiny, {"parts": ("cross", "cross")}, "each once, .* got \\('cross', 'cross'\\)"),
        (t5.tiny, {"init": [3, 4]}, "A T5 writes about a source, so a prefix cannot be what a text leaves: init="),
        (
            tiny,
            {"parts": ("cross",)},
            "A GPT2 has no place for a prefix called 'cross'; it has none: it reads no source",
        ),
    ],
)
def test_a_part_that_is_not_there_is_told_and_changes_nothing(model, options, message):
    model = model()
    with pytest.raises(ValueError, match=message):
        minipoet.add_prefix(model, 2, **options)
    assert model.prefixes is None and adapter_names(model) == []
