"""GPTQ of one matrix: by hand, against a slow form of the same idea that takes inverses, not factors; invariants."""

import warnings

import pytest
import torch

from minipoet.quantization.gptq import Hessian, gptq
from minipoet.quantization.grid import QuantConfig, fit, from_codes, round_to_nearest, to_codes

# The chapter's example: four tokens, four outputs; the grid of each row is the whole numbers from its least to its
# largest weight, as two bits have four points and each row spans 3.
TOKENS = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]).double()
WEIGHT = torch.tensor([[0.4, 0.4, 0.4, 3], [1.4, -1, 0.6, 2], [-2, 0.7, 0.7, 1], [3, 0, 1, 2]]).double()
TWO_BITS = QuantConfig(bits=2, group_size=-1, sym=False, damp_percent=1e-9)


def read(tokens, dtype=torch.float64):
    """The Hessian of a layer that has read these."""
    hessian = Hessian(tokens.shape[1], dtype=dtype)
    hessian.add(tokens)
    return hessian


def correlated(seed, tokens=400, n_in=96, n_out=24):
    """Inputs of which some are loud and all have to do with others, and a matrix; in fp64, so that nothing is a tie."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(n_in, n_in, generator=generator).double() / n_in**0.5 + torch.eye(n_in)
    loud = torch.rand(n_in, generator=generator).double() * 3 + 0.1
    x = torch.randn(tokens, n_in, generator=generator).double() @ mix * loud
    return x, torch.randn(n_out, n_in, generator=generator).double()


def by_inverses(W, H, config):
    """Optimal Brain Quantizer, inputs in their order: H⁻¹ as it is, and an elimination after each input."""
    W, inverse, group = W.clone(), torch.linalg.inv(H), config.group(W.shape[1])
    codes = torch.empty_like(W, dtype=torch.uint8)
    for i in range(W.shape[1]):
        if i % group == 0:
            scale, zero = fit(W[:, i : i + group], config.bits, config.sym, config.mse)
        codes[:, i] = to_codes(W[:, i], scale, zero, config.bits)
        error = (W[:, i] - from_codes(codes[:, i], scale, zero)) / inverse[i, i]
        W[:, i + 1 :] -= error[:, None] * inverse[i, i + 1 :]
        inverse -= torch.outer(inverse[:, i], inverse[i]) / inverse[i, i].clone()
    return codes


# By hand


def test_the_example_of_the_chapter_worked_by_hand():
    found = gptq(WEIGHT, read(TOKENS), TWO_BITS)
    assert found.codes.dense().tolist() == [[0, 1, 0, 3], [1, -1, 1, 2], [-2, 1, 0, 1], [3, 0, 1, 2]]
    assert found.codes.zeros.tolist() == [[0, 1, 2, 0]]
    assert found.loss == pytest.approx((0.40 + 0.64 + 0.74 + 0) / 4)
    nearest = round_to_nearest(WEIGHT, TWO_BITS).dense()
    assert read(TOKENS).heard(WEIGHT - nearest) == pytest.approx((1.60 + 0.64 + 0.54 + 0) / 4)


def test_the_factor_of_the_example_by_hand():
    order, U, damp = read(TOKENS).factor(1e-9)
    by_hand = torch.tensor([[1, -1, 1, -1], [0, 1, -1, 1], [0, 0, 1, -1], [0, 0, 0, 1]]).double() * 2**0.5
    assert order.tolist() == [0, 1, 2, 3] and damp == 1e-9
    assert torch.allclose(U, by_hand, atol=1e-6)


# The Hessian


def test_the_mean_runs_over_tokens_however_they_come():
    x, _ = correlated(0, tokens=60, n_in=8)
    hessian = Hessian(8, dtype=torch.float64)
    for part in (x[:7], x[7:47].view(4, 10, 8), x[:0], x[47:]):
        hessian.add(part)
    assert hessian.tokens == 60
    assert torch.allclose(hessian.matrix, 2 / 60 * x.T @ x)


def test_heard_is_the_mean_squared_output():
    x, W = correlated(1)
    assert read(x).heard(W) == pytest.approx(float((x @ W.T).square().sum(1).mean()))


def test_u_is_the_factor_of_the_damped_inverse_in_the_order_of_rounding():
    hessian = read(correlated(2)[0])
    for act_order in (False, True):
        order, U, _ = hessian.factor(0.05, act_order)
        diagonal = hessian.matrix.diagonal()
        damped = hessian.matrix + 0.05 * diagonal.mean() * torch.eye(96)
        assert torch.allclose(U.T @ U @ damped[order][:, order], torch.eye(96).double(), atol=1e-8)
        assert torch.equal(U, U.triu()) and bool((U.diagonal() > 0).all())
        assert not act_order or bool((diagonal[order].diff() <= 0).all())


# Against another form of the same idea


@pytest.mark.parametrize(
    "config",
    [QuantConfig(group_size=-1), QuantConfig(3, 32), QuantConfig(2, 24, sym=False), QuantConfig(4, 80, mse=True)],
    ids=lambda config: f"{config.bits} bits, {config.group_size}",
)
def test_codes_are_those_of_eliminations_in_the_inverse(config):
    x, W = correlated(3)
    hessian = read(x)
    damped = hessian.matrix + config.damp_percent * hessian.matrix.diagonal().mean() * torch.eye(96)
    assert torch.equal(gptq(W, hessian, config).codes.q, by_inverses(W, damped, config))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("bits", "group_size", "share"), [(4, -1, 0.8), (4, 32, 0.8), (3, 32, 0.8), (2, 48, 1.0)])
def test_less_is_heard_of_it_than_of_rounding_to_nearest(seed, bits, group_size, share):
    x, W = correlated(10 + seed)
    hessian, config = read(x), QuantConfig(bits, group_size)
    heard = hessian.heard(W - gptq(W, hessian, config).codes.dense())
    assert heard < share * hessian.heard(W - round_to_nearest(W, config).dense())


def test_inputs_that_have_nothing_to_do_with_each_other_leave_nothing_to_make_good():
    _, W = correlated(4)
    hessian = read(torch.eye(96).double())
    for config in (QuantConfig(group_size=32), QuantConfig(3, -1, sym=False)):
        assert torch.equal(gptq(W, hessian, config).codes.q, round_to_nearest(W, config).q)


def test_a_matrix_on_the_grid_loses_nothing():
    whole = torch.randint(-7, 9, (24, 96), generator=torch.Generator().manual_seed(5)).double()
    whole[:, ::32], whole[:, 1::32] = -7, 8  # the ends of each group's grid: fifteen steps of 1/16
    found = gptq(whole / 16, read(correlated(5)[0]), QuantConfig(group_size=32, sym=False))
    assert torch.equal(found.codes.dense().double(), whole / 16)
    assert found.loss == 0


# What must not matter


@pytest.mark.parametrize("group_size", [-1, 16, 24, 40, 96])
@pytest.mark.parametrize("more", [{}, {"desc_act": True}, {"desc_act": True, "static_groups": True}], ids=str)
def test_the_size_of_a_block_changes_no_code(group_size, more):
    x, W = correlated(6)
    config = QuantConfig(group_size=group_size, **more)
    one, other, whole = (gptq(W, read(x), config, block) for block in (1, 32, 128))
    assert torch.equal(one.codes.q, whole.codes.q) and torch.equal(other.codes.q, whole.codes.q)
    assert torch.equal(one.codes.scales, whole.codes.scales)
    assert one.loss == pytest.approx(whole.loss)


def test_a_factor_of_the_inputs_changes_no_code():
    x, W = correlated(7)
    small, large = (gptq(W, read(x * factor), QuantConfig(3, 32)) for factor in (0.01, 100))
    assert torch.equal(small.codes.q, large.codes.q)


def test_the_loss_is_what_the_damped_hessian_hears():
    x, W = correlated(8)
    hessian = read(x)
    found = gptq(W, hessian, QuantConfig(3, 32, damp_percent=0.05))
    D = W - found.codes.dense()
    damping = 0.05 * float(hessian.matrix.diagonal().mean())
    assert found.loss == pytest.approx(hessian.heard(D) + 0.5 * damping * float(D.square().sum()))


# Orders and groups


def test_act_order_is_rounding_in_another_order_and_is_undone():
    x, W = correlated(9)
    found = gptq(W, read(x), QuantConfig(3, 32, desc_act=True)).codes
    order = x.square().sum(0).argsort(descending=True)
    sorted_ = gptq(W[:, order], read(x[:, order]), QuantConfig(3, 32)).codes
    assert torch.equal(found.q[:, order], sorted_.q)
    assert torch.equal(found.scales, sorted_.scales)
    assert torch.equal(found.g_idx[order], sorted_.g_idx)
    assert found.g_idx.bincount().tolist() == [32, 32, 32] and found.g_idx.tolist() != sorted_.g_idx.tolist()


def test_static_groups_lie_side_by_side_and_are_fit_before_anything_moves():
    x, W = correlated(9)
    config = QuantConfig(3, 40, desc_act=True, static_groups=True)
    found = gptq(W, read(x), config).codes
    assert found.g_idx.tolist() == [*[0] * 40, *[1] * 40, *[2] * 16]
    assert torch.equal(found.scales, torch.stack([fit(part, 3)[0] for part in W.split(40, dim=1)]))
    assert not torch.equal(found.scales, gptq(W, read(x), QuantConfig(3, 40)).codes.scales)


def test_codes_keep_their_own_zero_where_grids_are_not_about_0():
    x, W = correlated(9)
    found = gptq(W + 2, read(x), QuantConfig(4, 32, sym=False)).codes
    assert len(found.zeros.unique()) > 3
    assert float((found.dense() - W - 2).abs().max()) < 2


# What is odd


def test_inputs_that_are_never_there_get_weight_0_and_disturb_nothing():
    x, W = correlated(11)
    x[:, [5, 50]] = 0
    alive = [i for i in range(96) if i not in (5, 50)]
    loud = W.clone()
    loud[:, 5] = 1000.0
    config = QuantConfig(4, -1)
    found = gptq(loud, read(x), config).codes
    assert not found.dense()[:, [5, 50]].any()
    assert torch.equal(found.q[:, alive], gptq(W[:, alive], read(x[:, alive]), config).codes.q)


def test_a_layer_that_has_read_only_zeros_has_no_weights():
    found = gptq(torch.ones(4, 8), read(torch.zeros(3, 8), torch.float32), QuantConfig(group_size=4))
    assert not found.codes.dense().any()


def test_a_singular_hessian_is_damped_and_it_is_told():
    x, W = correlated(12, tokens=20)  # 20 tokens, 96 inputs
    hessian = read(x)
    config = QuantConfig(damp_percent=1e-18)
    with pytest.warns(
        UserWarning, match=r"20 tokens read, 96 inputs; H is singular.*damped by 0\.0001 .*instead of 1e-18"
    ):
        found = gptq(W, hessian, config)
    assert found.damp == 1e-4
    assert hessian.heard(W - found.codes.dense()) < hessian.heard(W - round_to_nearest(W, config).dense())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert gptq(W, read(x), QuantConfig()).damp == 0.01


def test_inputs_that_repeat_each_other_are_rounded_in_fp32():
    x, W = correlated(13)
    twins = torch.cat([x, x], dim=1).float()
    hessian, config = read(twins, torch.float32), QuantConfig(group_size=32)
    W = torch.cat([W, W], dim=1).float()
    found = gptq(W, hessian, config).codes
    assert hessian.heard(W - found.dense()) < 0.5 * hessian.heard(W - round_to_nearest(W, config).dense())


def test_what_is_not_finite_is_told():
    x, W = correlated(14)
    x[3, 4] = float("inf")
    with pytest.raises(ValueError, match="is not finite"):
        gptq(W, read(x), QuantConfig())


def test_a_hessian_of_another_layer_is_told():
    x, W = correlated(15)
    with pytest.raises(ValueError, match=r"A matrix of 90 inputs needs .* got one of 96 inputs and 400 tokens"):
        gptq(W[:, :90], read(x), QuantConfig())
    with pytest.raises(ValueError, match="96 inputs and 0 tokens"):
        gptq(W, Hessian(96), QuantConfig())
    with pytest.raises(ValueError, match=r"hessian must be a Hessian\(width\)"):
        gptq(W, x.T @ x, QuantConfig())


def test_the_weight_is_left_as_it_was():
    x, W = correlated(16)
    before = W.clone()
    gptq(W, read(x), QuantConfig(desc_act=True))
    assert torch.equal(W, before)
