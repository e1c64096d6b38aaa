"""Span corruption: a text by hand, runs that never touch, exact shares, nothing lost, batches of the step alone."""

import numpy as np
import pytest
import torch
from test_t5 import tiny
from training_support import tiny_gpt2

from minipoet.training import TrainSettings, train
from minipoet.training.batch import IGNORED
from minipoet.training.denoising import SHORTEST, Denoising, corrupt, noise_runs
from minipoet.training.loss import batch_loss

SENTINELS = [49, 48, 47, 46, 45, 44]
START, END = 0, 1


def texts(count=20, longest=40, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.integers(2, 40, int(size)).tolist() for size in generator.integers(8, longest, count)]


def denoising(given=None, **options):
    settings = {"length": 30, "rows": 3, "sentinels": SENTINELS, "start": START, "end": END} | options
    return Denoising(texts() if given is None else given, **settings)


def runs_of(length, density=0.15, run=3.0, seed=0):
    return noise_runs(length, density, run, np.random.default_rng(seed))


def mended(source, target):
    """The text again: each sentinel of the source gives way to what stands behind it in the target."""
    runs, current = {}, None
    for token in target:
        if token in SENTINELS:
            runs[current := token] = []
        else:
            runs[current].append(token)
    return [piece for token in source for piece in runs.pop(token, [token])], runs


def rows_of(batch):
    """(source, input, target) of each row, without padding."""
    for row in range(len(batch.ids)):
        real, read = batch.segments[row] > 0, batch.source_segments[row] > 0
        assert torch.equal(real, batch.targets[row] != IGNORED)
        yield tuple(t.tolist() for t in (batch.source[row, read], batch.ids[row, real], batch.targets[row, real]))


def test_a_text_corrupted_by_hand():
    text = np.array([10, 11, 12, 13, 14, 15])  # Мороз и солнце; день чудесный !
    source, target = corrupt(text, [(1, 3), (4, 6)], SENTINELS)
    assert source == [10, 49, 13, 48]
    assert target == [49, 11, 12, 48, 14, 15]


def test_a_batch_by_hand():
    """Eight tokens at 0.25: two are taken out, in one run, which is the last."""
    batch = denoising([[2, 3, 4, 5, 6, 7, 8, 9]], density=0.25, run=2.0).batch(0)
    assert batch.source.tolist() == [[2, 3, 4, 5, 6, 7, 49, END]]
    assert batch.ids.tolist() == [[START, 49, 8, 9]]
    assert batch.targets.tolist() == [[49, 8, 9, END]]
    assert batch.segments.tolist() == [[1] * 4] and batch.source_segments.tolist() == [[1] * 8]


@pytest.mark.parametrize("length", [8, 9, 20, 33, 100, 257])
@pytest.mark.parametrize(("density", "run"), [(0.15, 3.0), (0.5, 1.0), (0.9, 5.0), (0.01, 1.0)])
def test_runs_never_touch_and_take_the_exact_share(length, density, run):
    for seed in range(20):
        runs = runs_of(length, density, run, seed)
        noise = min(max(1, round(length * density)), length - 1)
        assert sum(end - start for start, end in runs) == noise
        assert len(runs) == min(max(1, round(noise / run)), length - noise)
        assert runs[0][0] > 0 and runs[-1][1] == length
        assert all(start < end for start, end in runs)
        assert all(end < start for (_, end), (start, _) in zip(runs, runs[1:], strict=False))


def test_one_run_is_the_end_of_a_text_and_others_may_lie_anywhere_before():
    assert {tuple(runs_of(20, seed=seed)) for seed in range(50)} == {((17, 20),)}
    taken = np.zeros(40)
    for seed in range(2000):
        for start, end in runs_of(40, 0.3, 3.0, seed):
            taken[start:end] += 1
    assert taken[0] == 0 and taken[-1] == 2000 and taken.sum() == 2000 * 12
    assert taken[3:30].min() > 0.15 * 2000 and taken[3:30].max() < 0.4 * 2000


def test_the_text_is_there_again_if_each_run_takes_its_sentinels_place():
    given = texts()
    batches = denoising(given)
    pieces = [tuple(text[at : at + 30]) for text in given for at in range(0, len(text), 30)]
    pieces = sorted(piece for piece in pieces if len(piece) >= SHORTEST)
    for epoch in range(2):
        found = []
        for step in range(batches.steps_per_epoch()):
            for source, read, target in rows_of(batches.batch(epoch * batches.steps_per_epoch() + step)):
                assert source[-1] == target[-1] == END and read == [START, *target[:-1]]
                text, left = mended(source[:-1], target[:-1])
                assert not left
                used = [token for token in target if token in SENTINELS]
                assert used == [token for token in source if token in SENTINELS] == SENTINELS[: len(used)]
                found.append(tuple(text))
        assert sorted(found) == pieces


def test_a_batch_is_a_function_of_the_step_and_each_epoch_takes_out_other_tokens():
    one, two = denoising(seed=5), denoising(seed=5)
    for step in (9, 0, 17):
        tensors = one.batch(step).tensors(), two.batch(step).tensors()
        assert all(torch.equal(a, b) for a, b in zip(*tensors, strict=True))
    text = [[*range(2, 32)]]
    epochs = {tuple(denoising(text, density=0.3).batch(epoch).source[0].tolist()) for epoch in range(5)}
    assert len(epochs) == 5
    assert not torch.equal(denoising(seed=6).batch(0).ids, one.batch(0).ids)


def test_measuring_takes_out_the_same_tokens_always_whatever_the_seed():
    first, again, other = (list(denoising(seed=seed).once()) for seed in (1, 1, 2))
    assert sum(len(batch.ids) for batch in first) == len(denoising().pieces)
    for a, b, c in zip(first, again, other, strict=True):
        assert torch.equal(a.source, b.source) and torch.equal(a.source, c.source)


def test_texts_are_cut_at_the_length_and_too_short_rests_are_left_out():
    pieces = denoising([[*range(2, 39)], [5] * 7], length=15).pieces  # 37 = 15 + 15 + 7
    assert [len(piece) for piece in pieces] == [15, 15]


def test_a_model_learns_to_fill_in(tmp_path):
    text = [[2 + (n + shift) % 20 for n in range(24)] for shift in range(20)]
    batches, model = denoising(text, length=24, rows=10), tiny()

    def loss():
        with torch.no_grad():
            return sum(float(batch_loss(model, batch)) for batch in batches.once())

    before = loss()
    train(model, batches, TrainSettings(steps=30, lr=1e-2, warmup=0, precision="fp32"), tmp_path, quiet=True)
    assert loss() < 0.7 * before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"length": 7}, "length ≥ 8, rows ≥ 1 and seed ≥ 0, got 7, 3 and 0"),
        ({"rows": 0}, "rows ≥ 1"),
        ({"density": 1.0}, "a density between 0 and 1 and runs of 1 or more, got 1.0 and 3.0"),
        ({"run": 0.5}, "runs of 1 or more, got 0.15 and 0.5"),
        ({"density": float("nan")}, "a density between 0 and 1"),
        (
            {"sentinels": [49], "density": 0.2},
            "30 tokens are corrupted in 2 places, and there are 1 sentinels: take shorter",
        ),
        ({"sentinels": "<0>"}, "The sentinels"),
        ({"sentinels": [49, 49, 48]}, "The sentinels have the id 49 twice"),
        ({"given": [[3] * 7]}, "There is no text of 8 tokens or more"),
        ({"given": ["Мороз и солнце"]}, "A text must be a list of token ids"),
        ({"given": 5}, "texts as lists of token ids .* got 5"),
        ({"given": "Мороз"}, "texts as lists of token ids .* got 'Мороз'"),
    ],
)
def test_what_makes_no_sense_is_told(options, said):
    with pytest.raises(ValueError, match=said):
        denoising(**options)


def test_a_text_that_holds_a_sentinel_is_told():
    with pytest.raises(ValueError, match="A text holds the id 48, which is a sentinel"):
        denoising([[2, 3, 4, 5, 48, 6, 7, 8, 9]])


def test_a_model_that_cannot_learn_from_it_is_told():
    denoising().check(tiny())
    with pytest.raises(ValueError, match="for models that read a source and write about it"):
        denoising().check(tiny_gpt2())
    with pytest.raises(ValueError, match="have the id 49, but this model has 0 to 39"):
        denoising().check(tiny(vocab_size=40))
    with pytest.raises(ValueError, match="begins with the id 3, but all that this model writes begins with 0"):
        denoising(start=3).check(tiny())
    with pytest.raises(ValueError, match="no batch of step -1"):
        denoising().batch(-1)
