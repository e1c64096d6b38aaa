"""Buckets of distances by hand, against the published formula's own numbers, and the table that is added to scores."""

import math

import pytest
import torch

from minipoet.models.distances import Distances, buckets


def numbered(distances, both_ways, number=32, most=128):
    return buckets(torch.tensor(distances), number, most, both_ways).tolist()


def test_near_distances_have_a_bucket_each_and_far_ones_share():
    """8 buckets to 16, one way: 0–3 alone, then 4 · (16/4)^(n/4): 4, 5.7, 8, 11.3 are the borders of 4 to 7."""
    assert numbered([0, -1, -2, -3], False, 8, 16) == [0, 1, 2, 3]
    assert numbered([-4, -5, -6, -7, -8, -9, -10, -11, -12, -16, -1000], False, 8, 16) == [
        4, 4, 5, 5, 6, 6, 6, 6, 7, 7, 7,
    ]  # fmt: skip


def test_what_stands_behind_counts_as_no_distance_one_way():
    assert numbered([1, 5, 500], False) == [0, 0, 0]


def test_each_direction_has_half_of_the_buckets_both_ways():
    near = [*range(-7, 8)]
    assert numbered(near, True) == [7, 6, 5, 4, 3, 2, 1, 0, 17, 18, 19, 20, 21, 22, 23]
    for far in (8, 20, 90, 128, 4000):
        behind, before = numbered([far, -far], True)
        assert behind == before + 16


def test_the_published_borders_are_kept_to_the_last_digit():
    """First distances of the buckets 8 to 15, of 16 to 128, as fp32 has them: 8 · 16^(n/8); 16, 32, 64 lie on one."""
    borders = [8, 12, 16, 23, 32, 46, 64, 91]
    assert borders == [math.ceil(8 * 16 ** (n / 8) - 1e-9) for n in range(8)]
    assert numbered([-border for border in borders], True) == [*range(8, 16)]
    assert numbered([1 - border for border in borders[1:]], True) == [*range(8, 15)]


def test_all_buckets_are_used_and_farther_is_never_a_lower_one():
    for both_ways, far in ((True, 200), (False, 200)):
        found = numbered([-n for n in range(far)], both_ways)
        assert found == sorted(found)
        assert set(found) == set(range(16 if both_ways else 32))


def test_the_number_of_a_bucket_is_added_to_the_score_of_each_head():
    table = Distances(8, 2, 16, both_ways=False)
    table.weight.data = torch.arange(16.0).view(8, 2)  # bucket b: 2b for head 0, 2b + 1 for head 1
    added = table(torch.tensor([[5, 6]]), torch.tensor([[0, 4, 5, 6]]))
    assert added.shape == (1, 2, 2, 4)
    assert added[0, 0].tolist() == [[8.0, 2.0, 0.0, 0.0], [10.0, 4.0, 2.0, 0.0]]
    assert torch.equal(added[0, 1], added[0, 0] + 1)


def test_each_row_has_places_of_its_own():
    table = Distances(8, 3, 16, both_ways=True)
    torch.nn.init.normal_(table.weight)
    rows = torch.tensor([[0, 1, 2, 3], [0, 1, 0, 1]])
    together = table(rows, rows)
    assert torch.equal(together[0], table(rows[:1], rows[:1])[0])
    assert torch.equal(together[1, :, 2:, 2:], together[1, :, :2, :2])
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize("both_ways", [True, False])
def test_the_gradient_of_a_bucket_is_the_sum_over_its_places(both_ways):
    table, places = Distances(8, 2, 6, both_ways), torch.tensor([[0, 1, 2, 3, 4], [0, 1, 2, 0, 1]])
    torch.nn.init.normal_(table.weight)
    weights = torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    (table(places, places) * weights).sum().backward()
    where = buckets(places[:, None, :] - places[:, :, None], 8, 6, both_ways)
    for bucket in range(8):
        expected = (weights * (where == bucket)[:, None]).sum((0, 2, 3))
        assert torch.allclose(table.weight.grad[bucket], expected, atol=1e-5)
