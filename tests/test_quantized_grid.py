"""The grid of codes: scales and zeros by hand, and what rounding to nearest costs."""

import pytest
import torch

from minipoet.quantization import QuantConfig, round_to_nearest
from minipoet.quantization.grid import fit, from_codes, to_codes


def both(rows, bits, sym):
    """(scale, zero, codes, what they stand for), as lists, of one row."""
    row = torch.tensor([rows])
    scale, zero = fit(row, bits, sym)
    q = to_codes(row, scale[:, None], zero[:, None], bits)
    return scale.item(), zero.item(), q[0].tolist(), from_codes(q, scale[:, None], zero[:, None])[0].tolist()


def test_an_asymmetric_grid_by_hand():
    # from −1 to 2 in three steps: a step of 1, and 0 at code 1
    assert both([-1.0, 0.4, 2.0], 2, False) == (1.0, 1.0, [0, 1, 3], [-1.0, 0.0, 2.0])


def test_a_symmetric_grid_by_hand():
    # from −7.5 to 7.5 in fifteen steps: a step of 1, and 0 at code 8, so the highest code stands for 7
    assert both([-3.2, 7.5, 0.0], 4, True) == (1.0, 8.0, [5, 15, 8], [-3.0, 7.0, 0.0])


def test_zero_is_on_the_grid_of_weights_of_one_sign():
    assert both([1.0, 2.0, 3.0], 2, False) == (1.0, 0.0, [1, 2, 3], [1.0, 2.0, 3.0])
    assert both([-3.0, -1.0], 2, False)[:2] == (1.0, 3.0)


@pytest.mark.parametrize("sym", [True, False])
def test_zeros_stay_zeros(sym):
    assert both([0.0, 0.0], 4, sym)[3] == [0.0, 0.0]


def test_scales_are_numbers_that_fp16_has():
    scale, _ = fit(torch.randn(50, 8, generator=torch.Generator().manual_seed(0)), 4)
    assert torch.equal(scale, scale.half().float())


def test_codes_are_chosen_for_the_scale_that_is_written():
    # scale 0.1 is 0.0999755859375 in fp16. 2.9494 lies between the middle 29.5 · 0.09998 = 2.9493 and 29.5 · 0.1
    row = torch.tensor([[25.5, 2.9494]])
    scale, zero = fit(row, 8, False)
    assert scale.item() == 0.0999755859375
    assert to_codes(row, scale[:, None], zero[:, None], 8)[0, 1] == 30


def test_a_smaller_range_is_found_where_one_weight_stands_out():
    rows = torch.randn(4, 256, generator=torch.Generator().manual_seed(0))
    rows[:, 0] = 6.0
    errors = []
    for mse in (False, True):
        scale, zero = fit(rows, 3, True, mse)
        back = from_codes(to_codes(rows, scale[:, None], zero[:, None], 3), scale[:, None], zero[:, None])
        errors.append((back - rows).abs().pow(2.4).sum(1))
    assert (errors[1] < 0.9 * errors[0]).all()


@pytest.mark.parametrize(("sym", "bits"), [(False, 2), (False, 3), (False, 4), (False, 8), (True, 4), (True, 8)])
def test_no_weight_moves_by_more_than_a_step(sym, bits):
    weight = torch.randn(16, 96, generator=torch.Generator().manual_seed(1))
    codes = round_to_nearest(weight, QuantConfig(bits=bits, group_size=32, sym=sym))
    steps = codes.scales.float().t().repeat_interleave(32, 1)
    assert ((codes.dense() - weight).abs() <= steps * 1.001).all()
    assert (codes.dense() - weight).abs().mean() < 0.3 * steps.mean()  # a quarter, if they lie evenly


def test_each_group_has_a_grid_of_its_own():
    weight = torch.cat([torch.full((8, 3), 1.0), torch.full((8, 2), 100.0)], 1)
    codes = round_to_nearest(weight, QuantConfig(bits=2, group_size=3, sym=False))
    assert codes.g_idx.tolist() == [0, 0, 0, 1, 1]  # the last group has fewer
    assert torch.allclose(codes.dense(), weight, rtol=1e-3)


@pytest.mark.parametrize("size", [-1, 96, 500])
def test_a_group_may_be_a_whole_column(size):
    codes = round_to_nearest(torch.randn(8, 96), QuantConfig(group_size=size))
    assert codes.scales.shape == codes.zeros.shape == (1, 8) and codes.g_idx.tolist() == [0] * 96


def test_all_that_is_wrong_with_a_config_is_told_at_once():
    with pytest.raises(ValueError) as told:
        QuantConfig(bits=5, group_size=0, sym=1, damp_percent=2)
    for part in ("bits must be one of 2, 3, 4, 8, got 5", "group_size", "sym must be True or False, got 1", "damp"):
        assert part in str(told.value)
