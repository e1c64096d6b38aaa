"""Packing: texts cut and packed by hand, every token a target once, batches a pure function of the step."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from training_support import numbered_texts, pairs, random_texts

from minipoet.training import Batch, Batches, cut, pack
from minipoet.training.batch import IGNORED


class CountingBatches(Batches):
    """Notes which epochs were packed."""

    def __init__(self, *args, **options):
        self.packed: list[int] = []
        super().__init__(*args, **options)

    def _make_plan(self, epoch: int) -> list[list[int]]:
        self.packed.append(epoch)
        return super()._make_plan(epoch)


def lists(pieces) -> list[list[int]]:
    return [piece.tolist() for piece in pieces]


def equal(a: Batch, b: Batch) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a[:3], b[:3], strict=True))


def rows_of(batch: Batch) -> list[list[int]]:
    """The real tokens of each row that has some."""
    return [ids[real].tolist() for ids, real in zip(batch.ids, batch.segments > 0, strict=True) if real.any()]


def test_cut_pieces_overlap_by_one_token():
    assert lists(cut(range(10), 4)) == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert lists(cut(range(8), 4)) == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7]]


def test_cut_leaves_a_text_that_fits_as_it_is():
    assert lists(cut(range(4), 4)) == [[0, 1, 2, 3]]


def test_cut_ends_a_piece_at_the_last_break_of_its_second_half():
    assert lists(cut([1, 2, 3, 9, 5, 6, 7, 8], 5, breaks=[9])) == [[1, 2, 3, 9], [9, 5, 6, 7, 8]]
    assert lists(cut([1, 2, 3, 9, 9, 6, 7, 8], 5, breaks=[9])) == [[1, 2, 3, 9, 9], [9, 6, 7, 8]]


def test_cut_copies_what_may_change_and_only_that():
    ids = np.arange(9, dtype=np.uint16)
    pieces = cut(ids, 4)
    ids[:] = 0
    assert lists(pieces) == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8]]
    mapped = np.arange(9, dtype=np.uint16)
    mapped.flags.writeable = False
    assert all(np.shares_memory(piece, mapped) for piece in cut(mapped, 4, breaks=[2]))
    assert lists(cut(mapped, 4)) == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8]]


def test_small_unsigned_ids_make_the_batches_that_lists_make():
    texts = random_texts(30)
    small = [np.array(text, dtype=np.uint16) for text in texts]
    for text in small:
        text.flags.writeable = False
    ours, theirs = (Batches(kind, 16, 3, seed=2, breaks=[1, 2]) for kind in (small, texts))
    assert all(equal(ours.batch(step), theirs.batch(step)) for step in range(20))


def test_cut_does_not_use_a_break_of_the_first_half():
    assert lists(cut([1, 9, 3, 4, 5, 6, 7], 5, breaks=[9])) == [[1, 9, 3, 4, 5], [5, 6, 7]]


def test_cut_gives_nothing_for_a_text_without_a_target():
    assert cut([], 5) == []
    assert cut([1], 5) == []


@pytest.mark.parametrize("length", [2, 3, 4, 7, 20])
def test_cut_makes_every_token_but_the_first_a_target_once(length):
    for text in random_texts(30, 2, 60):
        pieces = lists(cut(text, length, breaks=[1, 2, 3, 4, 5]))
        assert all(2 <= len(piece) <= length for piece in pieces)
        assert [token for piece in pieces for token in piece[1:]] == text[1:]


def test_cut_refuses_pieces_without_a_target():
    with pytest.raises(ValueError, match="at least 2 tokens"):
        cut(range(10), 1)


def test_pack_puts_each_text_into_the_fullest_row_that_it_fits_in():
    assert pack([3, 3, 2, 2, 1], 5, range(5)) == [[0, 2], [1, 3], [4]]
    assert pack([2, 4, 1], 5, range(3)) == [[0], [1, 2]]


def test_pack_takes_the_texts_in_the_given_order():
    assert pack([3, 3, 2, 2, 1], 5, [4, 3, 2, 1, 0]) == [[4, 3, 2], [1], [0]]


def test_pack_gives_up_the_fullest_row_when_too_many_are_open():
    assert pack([4, 2, 1], 5, range(3), open_rows=1) == [[0], [1, 2]]
    assert pack([4, 2, 1], 5, range(3), open_rows=2) == [[0, 2], [1]]


def test_pack_refuses_a_text_that_no_row_holds():
    with pytest.raises(ValueError, match=r"Text 1 takes 6 places, but a row has 5: cut it"):
        pack([3, 6], 5, range(2))


def test_batch_shows_each_token_its_successor_and_its_segment():
    batch = Batches([[1, 2, 3], [4, 5]], length=4, rows=1).batch(0)
    by_first = {1: ([1, 2], [2, 3]), 4: ([4], [5])}  # the order is chance
    first, second = (by_first[k] for k in ((1, 4) if batch.ids[0, 0] == 1 else (4, 1)))
    assert batch.ids.tolist() == [first[0] + second[0]]
    assert batch.targets.tolist() == [first[1] + second[1]]
    assert batch.segments.tolist() == [[1] * len(first[0]) + [2] * len(second[0])]


def test_rows_are_padded_without_targets_and_trimmed_to_the_longest():
    batch = Batches(numbered_texts([5, 3]), length=4, rows=2).batch(0)
    long = int(batch.ids[:, 0].argmin())  # the text that begins with 0
    assert batch.ids.shape == (2, 4)
    assert batch.ids[1 - long].tolist() == [1000, 1001, 0, 0]
    assert batch.targets[1 - long].tolist() == [1001, 1002, -100, -100]
    assert batch.segments[1 - long].tolist() == [1, 1, 0, 0]
    assert Batches(numbered_texts([4, 3]), length=100, rows=1).batch(0).ids.shape == (1, 5)


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_every_token_but_the_first_of_a_text_is_a_target_once_an_epoch(rows):
    texts = numbered_texts([2, 3, 9, 40, 17, 5, 8, 16, 2, 33])
    batches = Batches(texts, 8, rows, seed=5, breaks=[3012, 9020])
    expected = Counter(pair for text in texts for pair in pairwise(text))
    step = 0
    for epoch in range(3):
        seen: Counter = Counter()
        for _ in range(batches.steps_per_epoch(epoch)):
            seen.update(pairs(batches.batch(step)))
            step += 1
        assert seen == expected
    assert batches.epoch_tokens() == expected.total()
    assert Counter(pair for batch in batches.once() for pair in pairs(batch)) == expected


def test_segments_of_a_row_are_whole_texts():
    batches = Batches(numbered_texts([3, 4, 5, 2, 3, 3, 2]), 8, 2)
    for batch in batches.once():
        for ids, segments in zip(batch.ids, batch.segments, strict=True):
            for number in range(1, int(segments.max()) + 1):
                text = ids[segments == number].tolist()
                assert text[0] % 1000 == 0
                assert text == list(range(text[0], text[0] + len(text)))


def test_last_batch_of_an_epoch_has_the_rows_that_are_left():
    batches = Batches(numbered_texts([5] * 5), length=4, rows=2)
    assert batches.steps_per_epoch() == 3
    assert [len(batches.batch(step).ids) for step in range(6)] == [2, 2, 1, 2, 2, 1]


def test_fresh_batches_give_the_same_batch_of_a_late_step():
    texts = random_texts(40)
    batches = Batches(texts, 16, 3, seed=7)
    walked = [batches.batch(step) for step in range(1001)]
    for step in (1000, 0, 500, 999):
        assert equal(Batches(texts, 16, 3, seed=7).batch(step), walked[step])
        assert equal(batches.batch(step), walked[step])


def test_walking_packs_each_epoch_once_and_a_late_step_is_remembered():
    batches = CountingBatches(numbered_texts([5] * 6), length=4, rows=2)  # three steps an epoch
    for step in range(30):
        batches.batch(step)
    assert batches.packed == list(range(10))
    batches.batch(3 * 500)
    assert batches.packed == list(range(501))
    batches.batch(3 * 500 + 1)
    assert len(batches.packed) == 501
    batches.batch(0)  # going back takes one packing, and so does returning
    batches.batch(3 * 500 - 1)
    assert batches.packed[501:] == [0, 499]


def test_epochs_and_seeds_differ_in_order():
    texts = numbered_texts([5] * 20)
    order = {
        (seed, epoch): tuple(Batches(texts, 4, 20, seed).batch(epoch).ids[:, 0].tolist())
        for seed in (0, 1)
        for epoch in (0, 1, 2)
    }
    assert len(set(order.values())) == 6
    assert len({tuple(sorted(first)) for first in order.values()}) == 1


def test_each_epoch_packs_the_texts_anew():
    batches = Batches(numbered_texts([3] * 20), length=4, rows=10)  # two texts a row, one step an epoch
    together = [{frozenset(row[::2]) for row in rows_of(batches.batch(epoch))} for epoch in range(3)]
    assert [len(rows) for rows in together] == [10, 10, 10]
    assert len({frozenset(rows) for rows in together}) == 3


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_divide_the_rows_of_a_step_among_them(world):
    texts = random_texts(50)
    together, divided = Batches(texts, 16, 2 * world, seed=1), Batches(texts, 16, 2, seed=1)
    assert divided.steps_per_epoch(0, world) == together.steps_per_epoch(0)
    for step in range(2 * together.steps_per_epoch() + 1):
        parts = [divided.batch(step, rank, world) for rank in range(world)]
        assert [row for part in parts for row in rows_of(part)] == rows_of(together.batch(step))


def test_rank_with_nothing_left_gets_a_batch_without_a_target():
    batches = Batches(numbered_texts([5]), length=4, rows=1)
    assert batches.batch(0, rank=0, world=2).tokens() == 4
    empty = batches.batch(0, rank=1, world=2)
    assert empty.tokens() == 0
    assert empty.ids.shape == (1, 1)


@pytest.mark.parametrize(("step", "rank", "world"), [(-1, 0, 1), (0, 1, 1), (0, -1, 2)])
def test_impossible_steps_and_ranks_are_refused(step, rank, world):
    with pytest.raises(ValueError, match="There is no batch"):
        Batches([[1, 2]], 4, 1).batch(step, rank, world)


def test_texts_without_a_target_are_refused():
    with pytest.raises(ValueError, match="no text of two tokens"):
        Batches([[1], []], 4, 1)


@pytest.mark.parametrize(("length", "rows", "seed"), [(0, 1, 0), (4, 0, 0), (4, 1, -1)])
def test_sizes_that_make_no_sense_are_refused(length, rows, seed):
    with pytest.raises(ValueError, match=rf"got {length}, {rows} and {seed}"):
        Batches([[1, 2]], length, rows, seed)


def test_a_prompt_is_read_and_not_learnt():
    batches = Batches([[1, 2, 3, 4, 5], [6, 7, 8]], length=8, rows=1, prompts=[3, 1])
    (batch,) = batches.once()
    assert batch.ids.tolist() == [[1, 2, 3, 4, 6, 7]]
    assert batch.segments.tolist() == [[1, 1, 1, 1, 2, 2]]
    assert batch.targets.tolist() == [[IGNORED, IGNORED, 4, 5, 7, 8]]  # the prompt's last token predicts the answer's
    assert batches.epoch_tokens() == batch.tokens() == 4


def test_no_prompt_token_is_a_target_in_any_batch():
    generator = np.random.default_rng(0)
    texts = [[number] * int(size) for number, size in enumerate(generator.integers(2, 20, 50), start=1)]
    prompts = [int(generator.integers(1, len(text))) for text in texts]
    batches = Batches(texts, length=24, rows=4, seed=3, prompts=prompts)
    learnt = Counter()
    for step in range(batches.steps_per_epoch()):
        batch = batches.batch(step)
        learnt.update(batch.targets[batch.targets != IGNORED].tolist())
    assert learnt == {text[0]: len(text) - prompt for text, prompt in zip(texts, prompts, strict=True)}


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ([1], "There are 2 texts and the prompts of 1"),
        ([5, 1], "Text 0 has 5 tokens, of which 5 are its prompt"),
        ([0, 1], "of which 0 are its prompt"),
        ([2, "2"], "Text 1 has 3 tokens, of which '2' are its prompt"),
    ],
)
def test_prompts_that_leave_nothing_to_learn_are_refused(prompts, said):
    with pytest.raises(ValueError, match=said):
        Batches([[1, 2, 3, 4, 5], [6, 7, 8]], length=8, rows=1, prompts=prompts)


def test_a_text_with_a_prompt_is_not_cut():
    with pytest.raises(ValueError, match="Text 1 has 6 tokens with its prompt, but a row of length 4 holds 5"):
        Batches([[1, 2, 3], [1, 2, 3, 4, 5, 6]], length=4, rows=1, prompts=[1, 1])


# Sources


def paired(count: int, seed: int = 0) -> tuple[list[list[int]], list[list[int]]]:
    """Numbered texts behind a start token 0, and sources of their own numbers: text n is about a source of −n."""
    lengths = np.random.default_rng(seed).integers(1, 9, (2, count))
    texts = [[0, *([number] * int(size))] for number, size in enumerate(lengths[0], start=1)]
    return texts, [[100 + number] * int(size) for number, size in enumerate(lengths[1], start=1)]


def test_a_batch_with_sources_worked_by_hand():
    (batch,) = Batches([[0, 2, 3, 1], [0, 4, 1]], length=6, rows=1, sources=[[7, 1], [8, 9, 1]]).once()
    assert batch.ids.tolist() == [[0, 2, 3, 0, 4]]
    assert batch.segments.tolist() == [[1, 1, 1, 2, 2]]
    assert batch.targets.tolist() == [[2, 3, 1, 4, 1]]
    assert batch.source.tolist() == [[7, 1, 8, 9, 1]]
    assert batch.source_segments.tolist() == [[1, 1, 2, 2, 2]]


def test_both_sides_of_a_row_fit_and_belong_together():
    texts, sources = paired(60)
    batches = Batches(texts, length=12, rows=3, seed=4, sources=sources)
    seen = Counter()
    for step in range(batches.steps_per_epoch()):
        batch = batches.batch(step)
        assert batch.ids.shape[1] <= 12 and batch.source.shape[1] <= 12
        for row in range(len(batch.ids)):
            for number in range(1, int(batch.segments[row].max()) + 1):
                (name,) = set(batch.targets[row, batch.segments[row] == number].tolist())
                where = batch.source_segments[row] == number
                assert batch.source[row, where].tolist() == sources[name - 1]
                seen[name] += 1
        assert batch.source_segments.max() == batch.segments.max()
    assert seen == Counter(range(1, 61))


def test_batches_with_sources_are_a_function_of_the_step():
    texts, sources = paired(40)
    one, two = (Batches(texts, 12, 2, seed=3, sources=sources) for _ in range(2))
    for step in (7, 0, 23):
        pair = one.batch(step).tensors(), two.batch(step).tensors()
        assert len(pair[0]) == 5
        assert all(torch.equal(a, b) for a, b in zip(*pair, strict=True))


def test_a_rank_with_nothing_left_has_an_empty_source_too():
    batch = Batches([[0, 5, 1]], 4, 1, sources=[[6, 1]]).batch(0, rank=1, world=2)
    assert batch.tokens() == 0 and batch.source.tolist() == batch.source_segments.tolist() == [[0]]


@pytest.mark.parametrize(
    ("texts", "sources", "said"),
    [
        ([[0, 2, 1]], [[3], [4]], "There are 1 texts and 2 sources: each text needs one"),
        ([[0, 2, 1]], [[]], "Source 0 has 0 tokens, but a row holds 1 to 4: shorten it"),
        ([[0, 2, 1], [0, 1]], [[3], [4] * 5], "Source 1 has 5 tokens, but a row holds 1 to 4"),
        ([[0]], [[3]], "Text 0 has 1 tokens, but beside a source it has 2 .* to 5"),
        (
            [[0, 1], [0, 2, 3, 4, 5, 1]],
            [[3], [3]],
            "Text 1 has 6 tokens, but beside a source it has 2 .* to 5: shorten",
        ),
        ([[0, 1]], ["отзыв"], "A text must be a list of token ids"),
    ],
)
def test_sources_that_cannot_be_read_are_refused(texts, sources, said):
    with pytest.raises(ValueError, match=said):
        Batches(texts, length=4, rows=1, sources=sources)


def test_batches_are_for_a_model_that_reads_sources_or_for_one_that_does_not():
    from test_t5 import tiny
    from training_support import tiny_gpt2

    plain, with_sources = Batches([[0, 2, 1]], 4, 1), Batches([[0, 2, 1]], 4, 1, sources=[[3, 1]])
    plain.check(tiny_gpt2())
    with_sources.check(tiny())
    with pytest.raises(ValueError, match=r"This model writes about a source: give Batches its sources\."):
        plain.check(tiny())
    with pytest.raises(ValueError, match=r"This model reads no sources\."):
        with_sources.check(tiny_gpt2())
    with pytest.raises(ValueError, match="have the id 60, but this model has 0 to 49"):
        Batches([[0, 2, 1]], 4, 1, sources=[[60, 1]]).check(tiny())
    with pytest.raises(ValueError, match=r"begins with the id 2, but all that this model writes begins with 0: give"):
        Batches([[2, 1]], 4, 1, sources=[[3, 1]]).check(tiny())
