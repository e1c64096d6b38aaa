"""Layers with packed weights: the numbers of the written-out matrix, and a gradient that keeps none of it."""

from math import prod

import pytest
import torch
import torch.nn.functional as F
from quantized_support import published_tensors, random_codes
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from minipoet.quantization import Codes, FewBitLinear, GPTQLinear
from minipoet.quantization.layer import SLAB
from minipoet.quantization.words import BITS


def layer_of(codes: Codes, version: int = 1, bias: bool = True) -> GPTQLinear:
    """As a file's tensors make it, with NumPy's words."""
    tensors = published_tensors("", codes, version)
    parts = [tensors[f".{part}"] for part in ("qweight", "qzeros", "scales", "g_idx")]
    generator = torch.Generator().manual_seed(9)
    return GPTQLinear(
        codes.bits,
        *parts,
        bias=torch.randn(len(codes.q), generator=generator) if bias else None,
        zero_offset=int(version == 1),
    )


def inputs(dtype: torch.dtype = torch.float32, requires_grad: bool = False) -> torch.Tensor:
    x = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(7)).to(dtype)
    return x.requires_grad_(requires_grad)


def test_a_layer_by_hand():
    # eight inputs, eight outputs: q = 1 … 8 down each column, a zero of 3, a scale of 1/2: W = −1, −1/2, 0, …, 5/2
    layer = GPTQLinear(
        4,
        torch.tensor([[0x87654321 - 2**32] * 8]),
        torch.tensor([[0x22222222]]),
        torch.full((1, 8), 0.5).half(),
        torch.zeros(8, dtype=torch.int32),
    )
    assert layer.dense().tolist() == [[-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5]] * 8
    assert layer(torch.tensor([[1.0, 0, 0, 0, 0, 0, 0, 10.0]])).tolist() == [[24.0] * 8]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("order", [False, True])
@pytest.mark.parametrize("group", [32, 24, 64])
@pytest.mark.parametrize("bits", BITS)
def test_the_matrix_is_what_the_codes_stand_for(bits, group, order, version):
    codes = random_codes(bits, group=group, order=order)
    layer = layer_of(codes, version)
    q, s, z, g = codes.q.double(), codes.scales.double(), codes.zeros.double(), codes.g_idx.long()
    expected = s[g].t() * (q - z[g].t())
    assert torch.equal(layer.dense(torch.float64), expected)
    assert torch.equal(layer.dense(), expected.float())
    assert torch.equal(codes.dense().double(), expected)


@pytest.mark.parametrize("bits", BITS)
def test_codes_come_out_as_they_went_in(bits):
    codes = random_codes(bits, order=True)
    for layer in (layer_of(codes, 1), layer_of(codes, 2), GPTQLinear.of(codes)):
        back = layer.codes()
        assert all(torch.equal(getattr(back, part), getattr(codes, part)) for part in ("q", "scales", "zeros", "g_idx"))


def test_a_zero_of_zero_comes_back_from_the_highest_code():
    codes = random_codes(4)
    codes.zeros[:] = 0
    layer = GPTQLinear.of(codes)
    assert (layer.qzeros == -1).all() and (layer.zeros() == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_product_is_that_of_the_matrix_in_the_type_of_x(dtype):
    layer = layer_of(random_codes(4))
    y = layer(inputs(dtype))
    assert y.dtype is dtype and y.shape == (2, 5, 96)
    expected = F.linear(inputs(dtype), layer.dense(dtype), layer.bias.to(dtype))
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_those_through_a_plain_layer(bias):
    layer = layer_of(random_codes(3, order=True), bias=bias)
    ours, theirs = inputs(requires_grad=True), inputs(requires_grad=True)
    weights = torch.randn(2, 5, 96)
    (layer(ours) * weights).sum().backward()
    (F.linear(theirs, layer.dense(), layer.bias) * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def saved_by(run) -> list[tuple[int, ...]]:
    """Shapes of all that autograd keeps of a forward pass for the backward pass."""
    shapes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: shapes.append(tuple(t.shape)) or t, lambda t: t):
        run()
    return shapes


def test_nothing_is_kept_for_the_backward_pass():
    layer, x = layer_of(random_codes(4)), inputs(requires_grad=True)
    assert saved_by(lambda: layer(x)) == []
    assert any(prod(shape) == 64 * 96 for shape in saved_by(lambda: F.linear(x, layer.dense())))  # what it would be


def test_nothing_is_kept_under_autocast_either():
    layer, x = layer_of(random_codes(4)), inputs(requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
        assert saved_by(lambda: layer(x)) == []
    assert y.dtype is torch.bfloat16
    y.float().sum().backward()
    assert x.grad.dtype is torch.float32
    expected = layer.dense(torch.bfloat16).float().sum(0).expand(2, 5, -1)
    torch.testing.assert_close(x.grad, expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradients_pass_through_a_checkpoint(reentrant):
    layer = layer_of(random_codes(4))
    plain, checked = inputs(requires_grad=True), inputs(requires_grad=True)
    layer(plain).square().sum().backward()
    checkpoint(layer, checked, use_reentrant=reentrant).square().sum().backward()
    assert torch.equal(plain.grad, checked.grad)


class Made(TorchDispatchMode):
    """Bytes of each tensor that is made, but for views."""

    def __init__(self):
        super().__init__()
        self.bytes = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            storage = out.untyped_storage()
            self.bytes[storage.data_ptr()] = max(storage.nbytes(), self.bytes.get(storage.data_ptr(), 0))
        return out


def test_nothing_but_the_matrix_is_as_large_as_the_matrix():
    layer = GPTQLinear.of(random_codes(4, n_in=8 * SLAB, n_out=64, group=128, order=True))
    with Made() as made:
        weight = layer.dense()
    size = weight.untyped_storage().nbytes()
    others = [n for pointer, n in made.bytes.items() if pointer != weight.untyped_storage().data_ptr()]
    own = layer.qweight.untyped_storage().nbytes()
    assert max(n for n in others if n != own) <= size / 8


@pytest.mark.parametrize("move", [lambda m: m.to(torch.bfloat16), lambda m: m.half().float(), lambda m: m.double()])
def test_scales_keep_their_type_when_the_model_changes_its(move):
    layer = layer_of(random_codes(4))
    before, scales = layer.dense(), layer.scales.clone()
    moved = move(layer)
    assert moved.scales.dtype is torch.float16 and torch.equal(moved.scales, scales)
    assert torch.equal(moved.dense(), before)


def test_a_layer_moves_to_another_device():
    layer = layer_of(random_codes(4)).to("meta")
    assert {buffer.device.type for buffer in layer.buffers()} == {"meta"} and layer.device.type == "meta"


def test_there_is_nothing_to_train():
    layer = layer_of(random_codes(4))
    assert layer.packed_numbers == 64 * 96 + 96
    assert list(layer.parameters()) == []
    assert layer.requires_grad_(False) is layer
    for attempt in (lambda: layer.requires_grad_(), lambda: layer.weight):
        with pytest.raises(ValueError, match=r"packed in few bits.*add_lora.*dequantize"):
            attempt()


def test_a_matrix_that_does_not_fill_words_is_told():
    codes = random_codes(4, n_in=60)
    with pytest.raises(ValueError, match="60 inputs and 96 outputs cannot be packed in 4 bits.*multiples of 8"):
        GPTQLinear.of(codes)


def test_a_layer_without_a_grid_says_so():
    with pytest.raises(ValueError, match="FewBitLinear are not on a grid"):
        FewBitLinear(2, 2).codes()
