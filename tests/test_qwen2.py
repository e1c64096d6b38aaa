"""Qwen2 and Qwen3 by hand against recorded outputs of transformers and PEFT; rotation, norm and configs by hand."""

import json
import math
import shutil

import pytest
import torch
from reference_data import load_json, load_tensors, reference
from test_gpt2 import assert_logits_equal
from torch.utils._python_dispatch import TorchDispatchMode

import minipoet
from minipoet.generation import SamplingSettings, generate_ids
from minipoet.models import CheckpointError, count_parameters, load_model, save_model
from minipoet.models.attention import attend
from minipoet.models.families import make_config
from minipoet.models.layers import RMSNorm
from minipoet.models.qwen2 import Qwen2, Qwen2Config, Qwen3, Qwen3Config
from minipoet.models.rotary import rotary, rotate

FOLDERS = ["qwen2", "qwen2_untied", "qwen3"]
FAMILIES = [(Qwen2, Qwen2Config, {}), (Qwen3, Qwen3Config, {"head_dim": 12})]
PROMPT = [3, 1, 4, 1, 5]
IDS = torch.tensor([[2, 6, 5, 3, 5, 8], [9, 7, 9, 3, 2, 3]])
SIZES = {  # layers, hidden, inner, heads, key heads, rows, tied: public shapes, and their parameters
    "0.5B": ((24, 896, 4864, 14, 2, 151936, True), 494_032_768),
    "1.5B": ((28, 1536, 8960, 12, 2, 151936, True), 1_543_714_304),
    "3B": ((36, 2048, 11008, 16, 2, 151936, True), 3_085_938_688),
    "7B": ((28, 3584, 18944, 28, 4, 152064, False), 7_615_616_512),
}


def tiny(number=0, **options):
    """A loud Qwen2 (0) or Qwen3 (1)."""
    cls, config, own = FAMILIES[number]
    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32, "rope_theta": 100.0,
             "initializer_range": 0.3}  # fmt: skip
    torch.manual_seed(0)
    model = cls(config(**(sizes | own | options))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape))
    return model


def shape(size):
    layers, hidden, inner, heads, key_heads, rows, tied = SIZES[size][0]
    with torch.device("meta"):
        return Qwen2(
            Qwen2Config(
                num_hidden_layers=layers,
                hidden_size=hidden,
                intermediate_size=inner,
                num_attention_heads=heads,
                num_key_value_heads=key_heads,
                vocab_size=rows,
                tie_word_embeddings=tied,
            )
        )


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("case", ["full", "left", "right"])
def test_logits_equal_the_recorded_ones(folder, case):
    recorded = load_tensors(f"qwen/{folder}.outputs")
    model, mask = load_model(reference(f"qwen/{folder}")), recorded[f"{case}.mask"]
    with torch.no_grad():
        logits = model(recorded["ids"], segments=mask)
        if case == "full":
            assert_logits_equal(model(recorded["ids"]), recorded["full.logits"])
    assert_logits_equal(logits[mask.bool()], recorded[f"{case}.logits"][mask.bool()])


@pytest.mark.parametrize("folder", FOLDERS)
def test_cached_logits_of_a_padded_batch_equal_the_recorded_ones(folder):
    recorded = load_tensors(f"qwen/{folder}.outputs")
    model = load_model(reference(f"qwen/{folder}"))
    ids, mask = recorded["ids"], recorded["left.mask"]
    cache, pieces = model.new_cache(2), []
    with torch.no_grad():
        for start, stop in ((0, 5), (5, 6), (6, 12)):
            pieces.append(model(ids[:, start:stop], cache, mask[:, start:stop]))
    assert_logits_equal(torch.cat(pieces, 1)[mask.bool()], recorded["left.cached_logits"][mask.bool()])


@pytest.mark.parametrize("folder", FOLDERS)
def test_gradients_equal_the_recorded_ones(folder):
    recorded, ids = load_tensors(f"qwen/{folder}.gradients"), load_tensors(f"qwen/{folder}.outputs")["ids"]
    model = load_model(reference(f"qwen/{folder}"))
    loss = torch.nn.functional.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    assert torch.allclose(loss, recorded.pop("loss"), rtol=1e-6)
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    assert torch.allclose(norm, recorded.pop("grad_norm"), rtol=1e-5)
    assert len(recorded) == 2
    for name, expected in recorded.items():
        ours, transform = model.name_table().ours(name.removeprefix("grad."))
        assert transform is None
        assert_logits_equal(model.get_parameter(ours).grad, expected)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_saved_model_reads_back_as_it_was(folder, tmp_path):
    model = load_model(reference(f"qwen/{folder}"))
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert type(again) is type(model) and again.config == model.config
    assert torch.equal(again(IDS), model(IDS))
    assert (again.head.weight is again.embed.weight) == (folder != "qwen2_untied")


@pytest.mark.parametrize(
    ("values", "theta"),
    [
        ({"rope_theta": 5e5}, 5e5),
        ({"rope_theta": 5e5, "rope_scaling": None, "rope_parameters": None}, 5e5),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 7e5}}, 7e5),
        ({"rope_theta": 5e5, "rope_scaling": {"rope_type": "default"}}, 5e5),
        ({"rope_theta": 5e5, "rope_scaling": {"type": "default", "rope_theta": 6e5}}, 6e5),
        ({"rope_theta": 5e5, "rope_scaling": {}}, 5e5),
        ({}, 1e4),
    ],
)
def test_theta_is_read_in_both_forms_and_is_that_of_transformers_where_there_is_none(values, theta):
    assert make_config(Qwen2, values).rope_theta == make_config(Qwen3, values).rope_theta == theta


@pytest.mark.parametrize("folder", FOLDERS)
def test_half_precision_stays_close(folder):
    recorded = load_tensors(f"qwen/{folder}.outputs")
    model = load_model(reference(f"qwen/{folder}"), dtype=torch.bfloat16)
    with torch.no_grad():
        logits = model(recorded["ids"])
    assert logits.dtype is torch.bfloat16
    expected = recorded["full.logits"]
    assert (logits.float() - expected).abs().mean() < 0.02 * expected.abs().mean()


@pytest.mark.parametrize("base", ["qwen2", "qwen3"])
@pytest.mark.parametrize("kind", ["lora", "prefix"])
def test_adapters_of_peft_say_the_same_here(base, kind, tmp_path):
    recorded, outputs = load_tensors(f"qwen/{base}_{kind}.outputs"), load_tensors(f"qwen/{base}.outputs")
    model = minipoet.load_adapter(load_model(reference(f"qwen/{base}")), reference(f"qwen/{base}_{kind}"))
    trainable, total = load_json("qwen/counts")[f"{base}_{kind}"]
    assert count_parameters(model).all == total
    assert sum(p.numel() for name, p in model.named_parameters() if "default" in name) == trainable
    minipoet.save_adapter(model, tmp_path)
    again = minipoet.load_adapter(load_model(reference(f"qwen/{base}")), tmp_path)
    mask = outputs["left.mask"].bool()
    with torch.no_grad():
        for reader in (model, again, *([minipoet.merge_lora(again)] if kind == "lora" else [])):
            assert_logits_equal(reader(outputs["ids"]), recorded["full.logits"])
            left = reader(outputs["ids"], segments=outputs["left.mask"])
            assert_logits_equal(left[mask], recorded["left.logits"][mask])


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("split", range(1, 12))
def test_cached_logits_equal_uncached_logits_at_every_split(number, split):
    model, ids = tiny(number), torch.randint(50, (3, 12))
    with torch.no_grad():
        cache = model.new_cache(3)
        parts = torch.cat([model(ids[:, :split], cache), model(ids[:, split:], cache)], dim=1)
        assert_logits_equal(parts, model(ids))


@pytest.mark.parametrize("number", [0, 1])
def test_the_cache_holds_the_key_heads_only(number):
    model = tiny(number)
    cache = model.new_cache(2)
    model(IDS, cache)
    D = [8, 12][number]
    assert [tuple(t.shape) for layer in cache.layers for t in layer.buffers] == [(2, 2, 6, D)] * 4


@pytest.mark.parametrize("number", [0, 1])
def test_packed_texts_see_only_themselves(number):
    model, ids = tiny(number), torch.randint(50, (2, 12))
    segments = torch.tensor([[1, 1, 1, 2, 2, 2, 2, 3, 3, 0, 0, 0], [0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2]])
    with torch.no_grad():
        packed = model(ids, segments=segments)
        for row in range(2):
            for segment in range(1, int(segments[row].max()) + 1):
                where = segments[row] == segment
                assert_logits_equal(packed[row, where], model(ids[row, where][None])[0])
    assert torch.isfinite(packed).all()


@pytest.mark.parametrize("number", [0, 1])
def test_gradient_checkpointing_changes_no_gradient(number):
    model = tiny(number, attention_dropout=0.1).train()
    segments, gradients = torch.tensor([[1, 1, 2, 2, 2, 0]] * 2), []
    for checkpointing in (False, True):
        model.gradient_checkpointing = checkpointing
        model.zero_grad()
        torch.manual_seed(1)
        model(IDS, segments=segments).square().mean().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert_logits_equal(one, other)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("kind", [{}, {"projection": True, "hidden": 11}])
def test_a_prefix_that_starts_at_a_text_says_what_the_text_says_as_a_prompt(number, kind):
    plain, model = tiny(number), minipoet.add_prefix(tiny(number), 5, init=PROMPT, **kind)
    prompt = torch.tensor([PROMPT]).expand(2, -1)
    with torch.no_grad():
        wanted = plain(torch.cat([prompt, IDS], dim=1))[:, 5:]
        assert_logits_equal(model(IDS), wanted)
        assert (model(IDS) - plain(IDS)).abs().max() > 0.1
        cache = model.new_cache(2)
        assert_logits_equal(torch.cat([model(IDS[:, :2], cache), model(IDS[:, 2:], cache)], 1), wanted)
    settings = SamplingSettings(max_new_tokens=6, temperature=0)
    with_prefix = generate_ids(model, [[2, 6, 5], [9, 7]], settings)
    with_prompt = generate_ids(plain, [[*PROMPT, 2, 6, 5], [*PROMPT, 9, 7]], settings)
    assert [poem.ids for poem in with_prefix] == [poem.ids for poem in with_prompt]


@pytest.mark.parametrize("number", [0, 1])
def test_autocast_with_lora_and_a_prefix_learns_in_fp32(number):
    model = minipoet.add_lora(minipoet.add_prefix(tiny(number), 3, init="zero"), rank=2, targets="all-linear").train()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(IDS)
        cache = model.new_cache(2)
        with torch.no_grad():
            parts = torch.cat([model(IDS[:, :4], cache), model(IDS[:, 4:], cache)], dim=1)
    assert (parts - logits).abs().float().mean() < 0.05 * logits.abs().float().mean()
    logits.float().logsumexp(-1).sum().backward()
    assert all(p.grad is not None and p.grad.dtype is torch.float32 for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("size", SIZES)
def test_the_public_shapes_have_their_parameters(size):
    assert count_parameters(shape(size)).all == SIZES[size][1]


def test_lora_on_all_linear_layers_of_3b_is_counted_as_peft_counts_it():
    counts = count_parameters(minipoet.add_lora(shape("3B"), rank=8, targets="all-linear"))
    assert counts == (14_966_784, 3_100_905_472)


def test_the_small_qwen3_has_the_parameters_of_its_public_shape():
    C, inner, V, D, H, G, layers = 1024, 3072, 151936, 128, 16, 8, 28
    with torch.device("meta"):
        model = Qwen3(
            Qwen3Config(
                hidden_size=C,
                intermediate_size=inner,
                num_hidden_layers=layers,
                num_attention_heads=H,
                num_key_value_heads=G,
                tie_word_embeddings=True,
            )
        )
    block = 2 * C * H * D + 2 * C * G * D + 3 * C * inner + 2 * C + 2 * D
    assert count_parameters(model).all == V * C + layers * block + C == 596_049_920


def test_a_rotation_worked_by_hand():
    """D = 4, θ = 100: pair (1, 3) of position 2 turns by 2, pair (2, 4) by 2 / √100."""
    cos, sin = rotary(torch.tensor([[0, 2]]), 4, 100.0, torch.float32)
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).expand(1, 1, 2, 4)
    a, b = 2.0, 0.2
    expected = torch.tensor(
        [
            math.cos(a) - 3 * math.sin(a),
            2 * math.cos(b) - 4 * math.sin(b),
            3 * math.cos(a) + math.sin(a),
            4 * math.cos(b) + 2 * math.sin(b),
        ]
    )
    turned = rotate(x, cos, sin)
    assert cos.shape == (1, 1, 2, 4)
    assert torch.equal(turned[0, 0, 0], x[0, 0, 0])  # the first place turns nothing
    assert torch.allclose(turned[0, 0, 1], expected, atol=1e-6)
    assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1))


def test_scores_depend_on_the_difference_of_positions_only():
    q, k = torch.randn(2, 1, 1, 1, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def score(at, to):
        turned = [rotate(x, *rotary(torch.tensor([[p]]), 16, 1e4, torch.float64)) for x, p in ((q, at), (k, to))]
        return float((turned[0] * turned[1]).sum())

    assert score(9, 4) == pytest.approx(score(105, 100), abs=1e-4) == pytest.approx(score(5, 0), abs=1e-4)
    assert abs(score(9, 4) - score(9, 5)) > 0.1 and abs(score(9, 4) - score(4, 9)) > 0.1


def test_angles_are_taken_in_fp32_for_half_precision_too():
    for dtype in (torch.float16, torch.bfloat16):
        cos, _ = rotary(torch.tensor([[20_001]]), 64, 1e6, dtype)
        assert cos.dtype is dtype
        assert float(cos[0, 0, 0, 0]) == pytest.approx(math.cos(20_001), abs=0.01)  # bf16 counts from 19968 to 20096


def test_a_norm_worked_by_hand():
    norm = RMSNorm(2, eps=2.5)
    norm.weight.data = torch.tensor([2.0, -1.0])
    assert torch.allclose(norm(torch.tensor([3.0, 4.0])), torch.tensor([6.0, -4.0]) / math.sqrt(15))  # (9 + 16)/2 + 2.5
    long = norm(torch.full((2,), 3e4, dtype=torch.float16))  # 9e8 is more than fp16 holds
    assert torch.allclose(long.float(), torch.tensor([2.0, -1.0]))


def test_query_heads_share_key_heads_in_groups_of_neighbours():
    source = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, n, 5, 8, generator=source) for n in (4, 2, 2))
    together = attend(q, k, v, None, 0.3)
    for head, shared in enumerate((0, 0, 1, 1)):
        alone = attend(q[:, [head]], k[:, [shared]], v[:, [shared]], None, 0.3)
        assert torch.allclose(together[:, [head]], alone, atol=1e-6)


@pytest.mark.parametrize(
    ("number", "options", "message"),
    [
        (0, {"num_key_value_heads": 3}, "4 query heads .* cannot be shared out among 3 key heads"),
        (0, {"num_attention_heads": 6, "num_key_value_heads": 2}, "hidden_size 32 cannot be divided into 6 heads"),
        (0, {"hidden_size": 36}, "heads of 9 numbers cannot be turned in pairs"),
        (0, {"hidden_act": "sigmoid"}, "Unknown activation 'sigmoid'"),
        (0, {"hidden_size": 0, "rope_theta": "big"}, "hidden_size = 0 .*; rope_theta = 'big'"),
        (0, {"rope_theta": 0}, "rope_theta = 0"),
        (1, {"head_dim": 7}, "heads of 7 numbers cannot be turned in pairs"),
        (1, {"head_dim": 0}, "head_dim = 0"),
        (1, {"head_dim": "8"}, "head_dim = '8'"),
    ],
)
def test_an_impossible_config_is_refused_in_a_sentence(number, options, message):
    with pytest.raises(ValueError, match=message) as told:
        tiny(number, **options)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("folder", "changes", "message"),
    [
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window = True is not supported"),
        ("qwen2", {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_scaling = .*yarn.* is not supported"),
        ("qwen2", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 50.0}}, "rope_.*yarn.* is not supported"),
        ("qwen2", {"rope_parameters": {"type": "linear", "factor": 2.0}}, "rope_scaling = .*linear.* is not supported"),
        ("qwen2", {"rope_scaling": "yarn"}, "rope_scaling = 'yarn' is not supported"),
        ("qwen3", {"attention_bias": True}, "attention_bias = True is not supported"),
        ("qwen3", {"head_dim": 9}, "heads of 9 numbers"),
        ("qwen2", {"rope_parameters": {"rope_type": "default", "rope_theta": "x"}}, "rope_theta should be float"),
        ("qwen2", {"num_key_value_heads": 4}, "k_proj.weight is"),
    ],
)
def test_what_a_config_asks_for_and_is_not_here_is_refused_by_name(folder, changes, message, tmp_path):
    shutil.copytree(reference(f"qwen/{folder}"), tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text(encoding="utf-8")) | changes), encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path / "model")


class Largest(TorchDispatchMode):
    """How many numbers the largest tensor has that any operation gives."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = func(*args, **(kwargs or {}))
        tensors = [t for t in (given if isinstance(given, tuple | list) else (given,)) if isinstance(t, torch.Tensor)]
        self.numel = max(self.numel, *(t.numel() for t in tensors), 0)
        return given


@pytest.mark.parametrize("number", [0, 1])
def test_one_long_text_a_row_makes_no_tensor_of_its_length_squared(number):
    T, learning = 512, tiny(number, max_position_embeddings=1024).train()
    ids = torch.randint(50, (1, T))
    with Largest() as learnt:
        learning(ids).square().mean().backward()
    with Largest() as written, torch.no_grad():
        cache = learning.new_cache(1)
        learning.head(learning.states(ids, cache)[:, -1:])
        learning(ids[:, :1], cache)
    with Largest() as packed, torch.no_grad():
        learning(ids, segments=torch.ones_like(ids).scatter_(1, torch.tensor([[T - 1]]), 2))
    assert learnt.numel < T * T and written.numel < T * T
    assert packed.numel == T * T  # what two texts in a row see of each other: a mask for all layers


def test_a_text_longer_than_the_context_is_refused_with_both_numbers():
    with pytest.raises(ValueError, match=r"33 tokens.* at most 32"):
        tiny()(torch.zeros(1, 33, dtype=torch.long))


def test_scores_too_large_for_bf16_are_left_to_the_kernel_that_keeps_them_in_fp32():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 4, 16, 8, generator=generator).bfloat16() for _ in range(3))
    q, k = q + 10, k + 10  # what biases on q and k do
    exact = attend(q.float(), k.float(), v.float(), None, 8**-0.5)
    assert (attend(q, k, v, None, 8**-0.5, large_scores=True) - exact).abs().max() < 0.02
    assert (attend(q, k, v, None, 8**-0.5) - exact).abs().max() > 0.1  # the plain formula, which Qwen must not take


def test_as_many_key_heads_as_query_heads_are_read_well_in_bf16():
    config = Qwen2Config(40, 32, 48, 1, 4, 4, 64, rope_theta=1e4, initializer_range=0.3)
    model = Qwen2(config).eval()
    model.reset(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for bias in (model.blocks[0].attn.q.bias, model.blocks[0].attn.k.bias):
            bias.fill_(10.0)
    ids = torch.arange(24)[None]
    fp32 = model.bfloat16().float()(ids)  # of the rounded weights
    assert (model.bfloat16()(ids) - fp32).abs().max() < 0.1 * fp32.abs().max()  # the plain formula: 0.145
