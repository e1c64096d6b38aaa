"""The cache of a source: what reorder and repeat move, what beams leave alone, and who sees which source."""

import pytest
import torch
from test_gpt2 import assert_logits_equal
from test_t5 import IDS, PACKED, PACKED_SOURCE, SOURCE, says, tiny

import minipoet
from minipoet.models.attention import PREFIX
from minipoet.models.source_cache import SourceCache

NEXT = torch.tensor([[3, 9], [2, 2]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1, 1]])


def begun(model, mask=MASK):
    """A cache that has read the sources and the texts, with padding in the second source."""
    cache = model.new_cache(SOURCE, mask)
    model(IDS, cache)
    return cache


def of_row(model, row, ids):
    """What the model says of these ids, (T,), behind the text of a row, without a cache that was moved."""
    whole = torch.cat([IDS[[row]], ids[None]], dim=1)
    return says(model, SOURCE[[row]], whole, MASK[[row]])[0, IDS.shape[1] :]


@torch.no_grad()
@pytest.mark.parametrize("rows", [[1, 0], [1], [0, 0, 1], [1, 1]])
@pytest.mark.parametrize("prefix", [False, True])
def test_rows_take_text_source_and_its_padding_with_them(rows, prefix):
    model = tiny()
    if prefix:
        minipoet.add_prefix(model, 2, parts=("cross", "encoder"))
    cache = begun(model)
    cache.reorder(torch.tensor(rows))
    assert cache.batch_size == len(cache.source_segments) == len(rows)
    ids = torch.tensor([[3, 9], [2, 2], [4, 1]])[: len(rows)]
    said = model(ids, cache)
    for place, row in enumerate(rows):
        assert_logits_equal(said[place], of_row(model, row, ids[place]))


@torch.no_grad()
def test_a_source_that_is_repeated_is_written_about_several_times():
    model = tiny()
    cache = begun(model)
    cache.repeat(2)
    said = model(torch.tensor([[3, 9], [2, 2], [3, 9], [2, 2]]), cache)
    for place, (row, ids) in enumerate(((0, [3, 9]), (0, [2, 2]), (1, [3, 9]), (1, [2, 2]))):
        assert_logits_equal(said[place], of_row(model, row, torch.tensor(ids)))


@torch.no_grad()
def test_beams_of_one_source_leave_its_keys_where_they_are():
    model = tiny()
    cache = begun(model)
    cache.repeat(2)
    model(torch.tensor([[3], [4], [5], [6]]), cache)
    before = [keys.data_ptr() for pair in cache.cross for keys in pair]
    cache.reorder(torch.tensor([1, 1, 2, 2]))  # beams change places within their source
    assert [keys.data_ptr() for pair in cache.cross for keys in pair] == before
    said = model(torch.tensor([[9], [8], [9], [8]]), cache)
    for place, (row, ids) in enumerate(((0, [4, 9]), (0, [4, 8]), (1, [5, 9]), (1, [5, 8]))):
        assert_logits_equal(said[place], of_row(model, row, torch.tensor(ids))[1:])
    cache.reorder(torch.tensor([2, 0]))  # one row a source is left, the other way round
    assert [keys.data_ptr() for pair in cache.cross for keys in pair] != before
    assert_logits_equal(model(torch.tensor([[7], [7]]), cache)[0], of_row(model, 1, torch.tensor([5, 9, 7]))[2:])


def test_keys_of_the_source_are_computed_once_for_all_that_is_written():
    model = tiny()
    cache = model.new_cache(SOURCE)
    keys = list(cache.cross)
    assert [tuple(k.shape) for k, _ in keys] == [(2, 4, 7, 6)] * 3 and cache.length == 0
    with torch.no_grad():
        model(IDS, cache)
    assert all(a is b for a, b in zip(keys, cache.cross, strict=True)) and cache.length == 6


def test_a_token_sees_the_source_of_its_own_text_and_the_prefix():
    cache = SourceCache([], torch.tensor([[PREFIX, 1, 1, 2, 0]]))
    seen = cache.source_visible(torch.tensor([[1, 2, 3, 0]]))
    assert seen.shape == (1, 1, 4, 5)
    assert seen[0, 0].int().tolist() == [[1, 1, 1, 0, 0], [1, 0, 0, 1, 0], [1, 0, 0, 0, 0], [1, 0, 0, 0, 0]]
    assert cache.source_visible(None)[0, 0].int().tolist() == [[1, 1, 1, 0, 0]]


@torch.no_grad()
def test_a_text_without_a_word_of_source_gives_no_nan():
    model = tiny()
    said = says(model, source_segments=PACKED_SOURCE, segments=PACKED + 1)  # nobody has a source of the fourth text
    assert torch.isfinite(said).all()


def test_a_cache_of_several_sources_is_no_prefix():
    with pytest.raises(ValueError, match="one text, alone and without padding"):
        begun(tiny()).as_beginning()
