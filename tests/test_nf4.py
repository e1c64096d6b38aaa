"""NF4: its points, blocks by hand, both ways to keep what blocks were divided by, and the layer."""

import math

import pytest
import torch

from minipoet.quantization.grid import QuantConfig, round_to_nearest
from minipoet.quantization.nf4 import NF4_POINTS, NF4Linear, quantize_nf4


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def bits_of(codes):
    tensors = [t for t in (codes.q, codes.absmax, codes.steps, codes.mean) if t is not None]
    return 8 * sum(t.numel() * t.element_size() for t in tensors) / math.prod(codes.shape)


def test_the_points_are_quantiles_of_the_normal_distribution():
    """The paper's recipe: 8 even steps of probability above 0 and 7 below, from near 1 to a half."""
    outermost = 1 - 0.5 * (1 / 32 + 1 / 30)
    normal_ = torch.distributions.Normal(0.0, 1.0)
    above = normal_.icdf(torch.linspace(outermost, 0.5, 9).double()[:-1])
    below = -normal_.icdf(torch.linspace(outermost, 0.5, 8).double()[:-1])
    points = torch.cat([above, torch.zeros(1), below]).sort().values
    found = torch.tensor(NF4_POINTS, dtype=torch.float64)
    assert torch.allclose(points / points.abs().max(), found, atol=2e-4)


def test_a_block_by_hand():
    """Divided by 4, the largest: 0.5 lies between 0.4407 and 0.5626, nearer to the first; −0.06 nearer to −0.0911 …"""
    row = torch.zeros(1, 64)
    row[0, :6] = torch.tensor([4.0, 2.0, -0.24, -4.0, 0.1, 0.2])
    codes = quantize_nf4(row)
    assert codes.absmax.tolist() == [4.0]
    nibbles = [int(byte) >> shift & 15 for byte in codes.q[:3] for shift in (0, 4)]
    assert nibbles == [15, 12, 6, 0, 7, 8]  # 0.025 is nearer to 0, 0.05 to 0.0796
    by_hand = [4, 4 * 0.4407098, 4 * -0.0910500, -4, 0, 4 * 0.0795803]
    assert codes.dense()[0, :6].tolist() == pytest.approx(by_hand, abs=1e-6)
    assert not codes.dense()[0, 6:].any()


def test_each_number_becomes_its_nearest_point():
    weight = normal(24, 40)  # 15 blocks
    codes = quantize_nf4(weight)
    blocks = weight.view(15, 64)
    points = torch.tensor(NF4_POINTS) * blocks.abs().amax(1)[:, None, None]
    least = (blocks[..., None] - points).abs().amin(-1)
    assert torch.allclose((codes.dense() - weight).abs().view(15, 64), least, atol=1e-7)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("shape", [(3, 5), (7, 30), (5, 64), (33, 129)])
def test_matrices_of_every_shape_come_back(shape, double):
    weight = normal(*shape)
    weight[-1, -1] = 9.0
    dense = quantize_nf4(weight, double).dense(torch.float64)
    assert dense.shape == shape and dense.dtype is torch.float64
    assert float((dense - weight).square().mean().sqrt()) < (0.15 if weight.numel() > 100 else 0.4)


@pytest.mark.parametrize("double", [False, True])
def test_zeros_stay_zeros(double):
    weight = normal(8, 64)
    weight[2:5] = 0
    assert not quantize_nf4(weight, double).dense()[2:5].any()
    assert not quantize_nf4(torch.zeros(2, 64), double).dense().any()


def test_double_quantisation_takes_an_eighth_of_a_bit_instead_of_a_half():
    weight = normal(512, 512)
    plain, double = quantize_nf4(weight), quantize_nf4(weight, double=True)
    assert bits_of(plain) == 4.5
    assert bits_of(double) == pytest.approx(4.127, abs=5e-4)
    error, more = (float((codes.dense() - weight).square().mean()) for codes in (plain, double))
    assert error != more and more == pytest.approx(error, rel=0.01)


def test_normal_numbers_are_nearer_to_it_than_to_equal_steps():
    weight = normal(64, 1024)
    error = (quantize_nf4(weight).dense() - weight).square().mean()
    even = (round_to_nearest(weight, QuantConfig(group_size=64)).dense() - weight).square().mean()
    assert float(error) < 0.85 * float(even)


@pytest.mark.parametrize("double", [False, True])
def test_the_layer_is_a_layer_with_this_matrix(double):
    weight, bias, x = normal(24, 40), normal(24, seed=1), normal(2, 3, 40, seed=2)
    layer = NF4Linear.of(quantize_nf4(weight, double), bias)
    assert torch.allclose(layer(x), x @ layer.dense().T + bias, atol=1e-5)
    assert torch.equal(layer.dense(), quantize_nf4(weight, double).dense())
    assert not list(layer.parameters())
    x.requires_grad_()
    layer(x).sum().backward()
    assert torch.allclose(x.grad, layer.dense().sum(0).expand_as(x), atol=1e-5)


@pytest.mark.parametrize("double", [False, True])
def test_the_scales_keep_their_type_when_the_model_changes_its_own(double):
    layer = NF4Linear.of(quantize_nf4(normal(24, 40), double), normal(24))
    before = layer.dense()
    layer.to(torch.bfloat16)
    assert torch.equal(layer.dense(), before)
    assert layer.bias.dtype is torch.bfloat16
    assert layer(normal(2, 40).bfloat16()).dtype is torch.bfloat16


def test_the_layer_says_that_it_is_on_no_even_grid():
    with pytest.raises(ValueError, match="not on a grid of equal steps"):
        NF4Linear.of(quantize_nf4(normal(8, 8))).codes()
