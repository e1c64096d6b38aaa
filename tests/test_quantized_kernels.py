"""The processor's own kernels beside the plain path: the same numbers, and the whole numbers back again."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

from minipoet.models.qwen2 import Qwen2, Qwen2Config
from minipoet.quantization import Codes, GPTQLinear, QuantConfig, kernels, round_to_nearest
from minipoet.quantization.checkpoint import save_quantized
from minipoet.quantization.kernels import FastInt4, fast_layer, has_kernels, pack_for_speed
from minipoet.quantization.nf4 import NF4Linear, quantize_nf4
from minipoet.quantization.whole import dequantize, few_bit_layers, packed_bytes

needs_kernels = pytest.mark.skipif(not has_kernels(), reason="no fast int4 and int8 kernels on this processor")

KINDS = {
    "symmetric": (QuantConfig(), 256),
    "asymmetric": (QuantConfig(sym=False), 256),
    "groups of 32": (QuantConfig(group_size=32), 96),
    "groups of 96": (QuantConfig(group_size=96), 192),
    "groups of 512": (QuantConfig(group_size=512), 1024),
    "a column": (QuantConfig(group_size=-1, sym=False), 320),
    "3 bits": (QuantConfig(bits=3), 128),
    "2 bits, asymmetric": (QuantConfig(bits=2, sym=False), 128),
    "8 bits": (QuantConfig(bits=8, group_size=-1), 96),
}


def codes_of(config: QuantConfig, n_in: int, n_out: int = 192, shuffled: bool = False) -> Codes:
    """Codes of random weights; shuffled: inputs in an order as act-order leaves them."""
    weight = torch.randn(n_out, n_in, generator=torch.Generator().manual_seed(n_in)) * 0.02 + 0.003
    codes = round_to_nearest(weight, config)
    if not shuffled:
        return codes
    order = torch.randperm(n_in, generator=torch.Generator().manual_seed(1))
    return Codes(codes.q[:, order], codes.scales, codes.zeros, codes.g_idx[order], codes.bits)


def layer_of(kind: str, bias: bool = True, shuffled: bool = False) -> GPTQLinear:
    config, n_in = KINDS[kind]
    return GPTQLinear.of(codes_of(config, n_in, shuffled=shuffled), torch.linspace(-1, 1, 192) if bias else None)


def inputs(n_in: int, *shape: int) -> Tensor:
    return torch.randn(*shape, n_in, generator=torch.Generator().manual_seed(0)).bfloat16()


def small_model(dtype: torch.dtype = torch.bfloat16, config: QuantConfig | None = None) -> Qwen2:
    shape = {"hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = Qwen2(Qwen2Config(vocab_size=97, num_key_value_heads=2, **shape))
    model.reset(torch.Generator().manual_seed(0))
    for name, layer in list(model.blocks.named_modules()):
        if isinstance(layer, torch.nn.Linear):
            packed = GPTQLinear.of(round_to_nearest(layer.weight, config or QuantConfig(group_size=64)), layer.bias)
            model.blocks.set_submodule(name, packed)
    return model.to(dtype).requires_grad_(False).eval()


@needs_kernels
def test_three_weights_by_hand():
    q = torch.full((64, 32), 8, dtype=torch.uint8)
    q[5, 0], q[5, 1], q[40, 1] = 11, 6, 15
    layer = FastInt4.of(Codes(q, torch.full((1, 64), 0.5), torch.full((1, 64), 9, dtype=torch.uint8), g_idx(32), 4))
    y = layer(torch.eye(32)[:2].bfloat16())  # (2, 64): what the first input adds to each output, and the second
    assert (y[0, 5], y[1, 5], y[1, 40], y[0, 40]) == (
        1.0,
        -1.5,
        3.0,
        -0.5,
    )  # 0.5 · (11 - 9), (6 - 9), (15 - 9), (8 - 9)


def g_idx(n_in: int) -> Tensor:
    return torch.zeros(n_in, dtype=torch.int32)


@needs_kernels
@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_kernel_gives_what_the_plain_path_gives(kind: str, shuffled: bool):
    plain = layer_of(kind, shuffled=shuffled and kind != "8 bits")
    fast, x = fast_layer(plain), inputs(plain.in_features, 2, 3)
    exact = x.double() @ plain.dense().double().t() + plain.bias.double()
    assert fast(x).dtype is torch.bfloat16 and fast(x).shape == (2, 3, 192)
    # Scales have 8 bits, as all numbers of bf16: as far from the exact sums as the plain path, or little farther.
    near, far = ((y.double() - exact).norm() for y in (plain(x), fast(x)))
    assert far < 1.6 * near


@needs_kernels
@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_packing_loses_nothing(kind: str, shuffled: bool):
    plain = layer_of(kind, shuffled=shuffled and kind != "8 bits")
    fast, before = fast_layer(plain), plain.codes()
    after = fast.codes()
    for part in ("q", "scales", "zeros", "g_idx"):
        assert torch.equal(getattr(after, part), getattr(before, part)), part
    assert after.bits == before.bits
    assert torch.equal(fast.dense(), plain.dense())


@needs_kernels
@pytest.mark.parametrize("kind", ["asymmetric", "8 bits"])
def test_a_token_goes_through_the_kernel_and_fp32_does_not(kind: str, monkeypatch: pytest.MonkeyPatch):
    fast = fast_layer(plain := layer_of(kind))
    x = inputs(plain.in_features, 1, 1)
    monkeypatch.setattr(type(fast), "dense", lambda self, dtype=None: pytest.fail("the matrix was written out"))
    assert fast(x).isfinite().all()
    monkeypatch.undo()
    monkeypatch.setattr(type(fast), "_multiply", lambda self, x: pytest.fail("the kernel rounds to bfloat16"))
    assert torch.allclose(fast(x.float()), plain(x.float()), atol=1e-5)


@needs_kernels
@pytest.mark.parametrize("kind", ["asymmetric", "8 bits"])
def test_many_rows_take_the_plain_path(kind: str):
    fast = fast_layer(plain := layer_of(kind))
    x = inputs(plain.in_features, kernels.MOST_ROWS[fast._kernel_bits] + 1)
    assert torch.allclose(fast(x), plain(x), rtol=0.01)


@needs_kernels
def test_no_rows_are_no_rows():
    assert fast_layer(layer_of("symmetric"))(torch.zeros(0, 256, dtype=torch.bfloat16)).shape == (0, 192)


@needs_kernels
def test_a_gradient_flows_through():
    fast = fast_layer(plain := layer_of("symmetric", bias=False))
    x = inputs(256, 3).float().requires_grad_()
    fast(x).sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, plain.dense().sum(0).expand(3, -1), atol=1e-6)


@needs_kernels
@pytest.mark.parametrize("kind", ["symmetric", "8 bits"])
def test_scales_keep_their_type_when_the_model_changes_its_own(kind: str):
    fast = fast_layer(layer_of(kind))
    types = {name: buffer.dtype for name, buffer in fast.named_buffers() if name != "bias"}
    fast.double().bfloat16()
    assert {name: buffer.dtype for name, buffer in fast.named_buffers() if name != "bias"} == types


@needs_kernels
def test_a_layer_holds_one_form():
    plain = layer_of("symmetric", bias=False)
    fast = fast_layer(plain)
    n = plain.in_features * plain.out_features
    size = sum(buffer.numel() * buffer.element_size() for buffer in fast.buffers())
    assert size <= n * (4 + 7 * 8 / 128) / 8 + 4 * plain.in_features  # four bits; seven bytes a group; g_idx


@needs_kernels
@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (GPTQLinear.of(codes_of(QuantConfig(group_size=16), 64)), "groups of 32 inputs"),
        (GPTQLinear.of(codes_of(QuantConfig(), 128, n_out=96)), "a multiple of 64 outputs"),
        (GPTQLinear.of(codes_of(QuantConfig(8, 64), 128)), "one scale for each output"),
        (GPTQLinear.of(codes_of(QuantConfig(8, -1, sym=False), 128)), "a symmetric grid"),
        (NF4Linear.of(quantize_nf4(torch.randn(64, 64))), "not on a grid"),
    ],
)
def test_what_no_kernel_takes_is_refused_with_the_reason(layer, reason: str):
    with pytest.raises(ValueError, match=reason):
        fast_layer(layer)


@needs_kernels
def test_a_packed_model_writes_the_same_logits_and_is_packed_once():
    model, ids = small_model(), torch.arange(12).view(2, 6)
    plain, size = model(ids), packed_bytes(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pack_for_speed(pack_for_speed(model)) is model
    assert all(isinstance(layer, FastInt4) for _, layer in few_bit_layers(model))
    assert packed_bytes(model) < 1.25 * size  # groups of 64 here; a second form would be twice as much
    assert (model(ids) - plain).norm() < 0.02 * plain.norm()


@needs_kernels
def test_a_packed_model_is_saved_and_dequantised_as_before(tmp_path):
    save_quantized(small_model(), tmp_path / "plain")
    save_quantized(fast := pack_for_speed(small_model()), tmp_path / "fast")
    name = "model.safetensors"
    assert (tmp_path / "fast" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    ids = torch.arange(6)[None]
    assert torch.equal(dequantize(fast)(ids), dequantize(small_model())(ids))


@needs_kernels
def test_layers_that_stay_plain_are_named():
    model = small_model(config=QuantConfig(group_size=16))
    with pytest.warns(UserWarning, match=r"14 packed layers \(blocks.0.attn.q, .*groups of 32 inputs"):
        pack_for_speed(model)
    assert all(isinstance(layer, GPTQLinear) for _, layer in few_bit_layers(model))


@needs_kernels
def test_a_model_in_fp32_stays_as_it_is_and_is_told():
    with pytest.warns(UserWarning, match="this model in float32"):
        model = pack_for_speed(small_model(torch.float32))
    assert all(isinstance(layer, GPTQLinear) for _, layer in few_bit_layers(model))


def test_without_kernels_a_model_stays_as_it_is_and_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernels, "_int4_product", None)
    model = small_model()
    with pytest.warns(UserWarning, match="none that are fast on this processor"):
        pack_for_speed(model)
    assert all(isinstance(layer, GPTQLinear) for _, layer in few_bit_layers(model))
    assert model(torch.arange(6)[None]).isfinite().all()


def test_a_plain_model_has_nothing_to_pack():
    model = dequantize(small_model())
    assert pack_for_speed(model) is model


@needs_kernels
@pytest.mark.parametrize("width", [16, 32, 64])
def test_another_processor_s_order_of_outputs_is_read_too(width: int, monkeypatch: pytest.MonkeyPatch):
    def pack(q: Tensor, tiles: int) -> Tensor:  # blocks of `width` outputs: the first half low, the second half high
        halves = q.view(-1, 2, width // 2, q.shape[1]).transpose(2, 3)  # (blocks, 2, in, width / 2)
        return (halves[:, 0] | halves[:, 1] << 4).to(torch.uint8).reshape(q.shape[0], -1)

    monkeypatch.setattr(kernels, "_int4_pack", pack)
    kernels._places.cache_clear()
    try:
        plain = layer_of("asymmetric", shuffled=True)
        assert torch.equal(fast_layer(plain).dense(), plain.dense())
    finally:
        kernels._places.cache_clear()
