"""What a recurrent model reads: windows worked by hand, and read in pieces; labels, one-hots and bags."""

import pytest
import torch
from torch import nn

from minipoet.models.inputs import INPUTS, NONE, Bag, Label, OneHot, input_width, make_input, preceding, read_inputs
from minipoet.models.layers import Embedding
from minipoet.models.recurrent_cache import StateCache, follow

V, WINDOW = 10, 3


def read(embed, ids, cache=None, segments=None) -> torch.Tensor:
    """As a model reads: follow the segments, then bring the cache up to date."""
    segments = torch.ones_like(ids) if segments is None else segments
    new, real, last = follow(segments, None if cache is None else cache.segment)
    x = read_inputs(embed, ids, cache, new, real)
    if cache is not None:
        cache.advance(ids.shape[1], last)
    return x


def random_rows(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and segments of rows with several texts, and padding before, between, inside and behind them."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(V, (4, 9), generator=generator)
    segments = torch.randint(2, (4, 9), generator=generator).cumsum(1)
    return ids, segments * (torch.rand(4, 9, generator=generator) < 0.7)


def test_the_window_of_a_text_grows_from_its_first_token():
    found = preceding(torch.tensor([[5, 6, 7, 8]]), WINDOW)
    assert found.tolist() == [[[-1, -1, 5], [-1, 5, 6], [5, 6, 7], [6, 7, 8]]]


def test_the_window_skips_padding_and_other_texts():
    ids = torch.tensor([[9, 1, 2, 9, 3, 4, 5, 9, 6]])
    new, real, _ = follow(torch.tensor([[0, 1, 1, 0, 1, 2, 2, 0, 2]]), None)
    empty, first, second = [-1, -1, -1], [[-1, -1, 1], [-1, 1, 2]], [[-1, -1, 4], [-1, 4, 5]]
    expected = [empty, *first, first[-1], [1, 2, 3], *second, second[-1], [4, 5, 6]]
    assert preceding(ids, WINDOW, None, new, real)[0].tolist() == expected


def test_the_past_is_seen_until_another_text_begins():
    past = torch.tensor([[-1, 1, 2], [1, 2, 3]])
    new, real, _ = follow(torch.tensor([[0, 7, 8], [7, 7, 7]]), torch.tensor([7, 7]))
    found = preceding(torch.tensor([[9, 3, 4], [4, 5, 6]]), WINDOW, past, new, real)
    assert found.tolist() == [[[-1, 1, 2], [1, 2, 3], [-1, -1, 4]], [[2, 3, 4], [3, 4, 5], [4, 5, 6]]]


@pytest.mark.parametrize("window", [1, 3, 20])
@pytest.mark.parametrize("seed", range(5))
def test_each_window_is_the_end_of_its_own_text_so_far(seed, window):
    ids, segments = random_rows(seed)
    new, real, _ = follow(segments, None)
    found = preceding(ids, window, None, new, real)
    for row in range(4):
        for t in torch.nonzero(segments[row]).flatten().tolist():
            own = ids[row, : t + 1][segments[row, : t + 1] == segments[row, t]].tolist()[-window:]
            assert found[row, t].tolist() == [NONE] * (window - len(own)) + own


@pytest.mark.parametrize("window", [1, 3, 20])
@pytest.mark.parametrize("split", range(1, 9))
def test_windows_read_in_pieces_equal_those_read_at_once_padding_too(split, window):
    for seed in range(5):
        ids, segments = random_rows(seed)
        new, real, _ = follow(segments, None)
        whole = preceding(ids, window, None, new, real)
        before, first, last = follow(segments[:, :split], None)
        pieces = [preceding(ids[:, :split], window, None, before, first)]
        after, second, _ = follow(segments[:, split:], last)
        pieces.append(preceding(ids[:, split:], window, pieces[0][:, -1], after, second))
        assert torch.equal(torch.cat(pieces, 1), whole)


def test_windows_without_segments_equal_those_of_one_text_a_row():
    ids, past = random_rows(0)[0], torch.randint(V, (4, WINDOW))
    new, real, last = follow(torch.ones_like(ids), torch.ones(4, dtype=torch.long))
    assert torch.equal(preceding(ids, WINDOW, past), preceding(ids, WINDOW, past, new, real))
    assert last.tolist() == [1, 1, 1, 1]


def test_label_is_the_id_over_the_size_of_the_vocabulary():
    assert read(Label(V), torch.tensor([[0, 5, 9]]))[0, :, 0].tolist() == pytest.approx([0.0, 0.5, 0.9])


def test_one_hot_has_a_one_in_the_place_of_the_id():
    assert read(OneHot(4), torch.tensor([[2, 0]])).tolist() == [[[0, 0, 1, 0], [1, 0, 0, 0]]]


def test_bag_holds_the_share_of_each_of_the_last_tokens():
    bags = read(Bag(3, window=4), torch.tensor([[1, 1, 2, 1, 0, 0]]))
    expected = [
        [0, 1, 0],
        [0, 1, 0],
        [0, 2 / 3, 1 / 3],
        [0, 3 / 4, 1 / 4],
        [1 / 4, 2 / 4, 1 / 4],
        [2 / 4, 1 / 4, 1 / 4],
    ]
    assert torch.allclose(bags[0], torch.tensor(expected))


def test_bag_of_nothing_is_all_zeros():
    assert read(Bag(3, window=2), torch.tensor([[1]]), segments=torch.tensor([[0]])).tolist() == [[[0, 0, 0]]]


@pytest.mark.parametrize("kind", INPUTS)
def test_every_input_reads_in_pieces_what_it_reads_at_once(kind):
    embed = make_input(kind, V, n_embd=5, window=WINDOW)
    for seed in range(3):
        ids, segments = random_rows(seed)
        whole, cache = read(embed, ids, segments=segments), StateCache(4)
        pieces = [
            read(embed, ids[:, a:b], cache, segments[:, a:b]) for a, b in [(0, 2), (2, 3), (3, 4), (4, 7), (7, 9)]
        ]
        assert torch.equal(torch.cat(pieces, 1), whole)
        assert whole.shape == (4, 9, input_width(embed))


def test_a_bag_remembers_each_row_when_the_cache_is_reordered():
    embed, cache, ids = Bag(V, WINDOW), StateCache(2), torch.tensor([[1, 2, 3], [4, 5, 6]])
    read(embed, ids, cache)
    cache.reorder(torch.tensor([1, 0, 1]))
    found = read(embed, torch.tensor([[7], [8], [9]]), cache)
    assert [sorted(row.nonzero().flatten().tolist()) for row in found[:, 0]] == [[5, 6, 7], [2, 3, 8], [5, 6, 9]]


def test_an_embedding_is_our_own_and_the_others_have_no_weights():
    assert type(make_input("embedding", V, 5, 3)) is Embedding
    for kind in INPUTS[1:]:
        embed = make_input(kind, V, 5, 3)
        assert embed.weight is None and not embed.state_dict()


@pytest.mark.parametrize("kind", INPUTS[1:])
def test_numbers_come_in_the_type_of_the_weights_that_multiply_them(kind):
    embed = make_input(kind, V, 5, WINDOW)
    assert read_inputs(embed, torch.tensor([[1, 2]]), dtype=torch.bfloat16).dtype is torch.bfloat16


@pytest.mark.parametrize("kind", INPUTS)
def test_ids_may_be_of_any_whole_type(kind):
    embed, (ids, segments) = make_input(kind, V, 5, WINDOW), random_rows(0)
    assert torch.equal(read(embed, ids.int(), segments=segments.int()), read(embed, ids, segments=segments))


@pytest.mark.parametrize("kind", INPUTS)
def test_inputs_work_on_the_meta_device(kind):
    with torch.device("meta"):
        embed = make_input(kind, V, 5, WINDOW)
        assert read(embed, torch.zeros(2, 3, dtype=torch.long)).shape == (2, 3, input_width(embed))


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("wrong", [-1, V])
def test_ids_that_the_model_has_not_are_named(kind, wrong):
    with pytest.raises(
        ValueError, match=r"The ids go from -?\d+ to \d+, but this model has 0 to 9: encode with its own"
    ):
        read(make_input(kind, V, 5, WINDOW), torch.tensor([[1, wrong]]))


@pytest.mark.parametrize("kind", ["onehot", "", None, nn.Linear, ["bag"]])
def test_an_unknown_kind_of_input_is_refused_with_those_that_there_are(kind):
    with pytest.raises(ValueError, match="must be one of embedding, label, one-hot, bag"):
        make_input(kind, V, 5, 3)
