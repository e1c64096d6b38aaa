"""Epochs and steps: where each epoch ends, which was the best, and that a run is measured just there."""

import pytest
from training_support import random_texts, tiny_batches, tiny_gpt2

from minipoet.training import Batches, History, TrainSettings, train
from minipoet.training.epochs import as_epochs, best_epoch, epoch_ends


class Uneven:
    """Epochs of 4, 3, 5 and again 4, 3, 5 batches."""

    def steps_per_epoch(self, epoch: int) -> int:
        return (4, 3, 5)[epoch % 3]


def measured(values: dict[int, float]) -> History:
    history = History()
    for step, value in values.items():
        history.add(step=step, validation=value)
    return history


def test_epochs_end_where_their_batches_do():
    assert epoch_ends(Uneven(), 4) == (4, 7, 12, 16)


def test_step_of_several_batches_ends_the_epoch_whose_last_batch_it_takes():
    assert epoch_ends(Uneven(), 4, accumulation=2) == (2, 4, 6, 8)  # 4, 7, 12, 16 batches
    assert epoch_ends(Uneven(), 2, accumulation=3) == (2, 3)


def test_batches_of_the_ends_are_the_last_of_their_epochs():
    batches = Batches(random_texts(37), 16, 2)
    ends = epoch_ends(batches, 3)
    first = 0
    for number, end in enumerate(ends):
        tokens = sum(batches.batch(step).tokens() for step in range(first, end))
        assert tokens == batches.epoch_tokens()
        assert end - first == batches.steps_per_epoch(number)
        first = end


def test_run_is_measured_at_the_end_of_each_epoch_and_can_be_resumed_there(tmp_path):
    ends = epoch_ends(tiny_batches(), 3)
    settings = TrainSettings(steps=ends[-1], evaluate_every=ends, precision="fp32")
    values = iter([9.0, 5.0])
    with pytest.raises(StopIteration):
        train(tiny_gpt2(), tiny_batches(), settings, tmp_path, lambda: next(values), quiet=True)
    values = iter([4.0, 6.0])
    history = train(tiny_gpt2(), tiny_batches(), settings, tmp_path, lambda: next(values), resume=True, quiet=True)
    assert history.curve("validation") == ([0, *ends], [9.0, 5.0, 4.0, 6.0])
    assert history.curve("loss")[0] == list(range(1, ends[-1] + 1))
    assert best_epoch(history, ends) == 2


def test_best_epoch_is_that_of_the_least_validation():
    ends = (4, 7, 12)
    assert best_epoch(measured({0: 9.0, 4: 3.0, 7: 2.0, 12: 2.5}), ends) == 2
    assert best_epoch(measured({0: 1.0, 4: 3.0, 7: 2.0}), ends) == 0  # training only made it worse
    assert best_epoch(measured({4: 2.0, 7: 2.0, 12: 2.0}), ends) == 1
    assert best_epoch(measured({0: 9.0, 4: 3.0, 5: 0.0, 7: 4.0}), ends) == 1  # step 5 is no end


def test_steps_are_shares_of_epochs():
    assert as_epochs([0, 2, 4, 5, 7, 12, 17], (4, 7, 12)) == pytest.approx([0, 0.5, 1, 4 / 3, 2, 3, 4])


@pytest.mark.parametrize(
    ("values", "message"),
    [({}, "was not measured at the end of an epoch"), ({3: 1.0}, "was not measured at the end of an epoch")],
)
def test_history_without_epochs_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        best_epoch(measured(values), (4, 7))


def test_careless_calls_are_told():
    with pytest.raises(ValueError, match="batches must have epochs, as Batches"):
        epoch_ends(History(), 3)
    with pytest.raises(ValueError, match="An epoch has 3 batches, but a step takes 4: take fewer rows"):
        epoch_ends(Uneven(), 2, accumulation=4)
    with pytest.raises(ValueError, match=r"Expected whole numbers of at least 1, got epochs=0, accumulation=1\.5"):
        epoch_ends(Uneven(), 0, accumulation=1.5)
    for every in ((), (0, 3), ("a",), "3", 2.5, True, None):
        with pytest.raises(ValueError, match="evaluate_every must be a whole number of at least 0, or steps of at le"):
            TrainSettings(steps=5, evaluate_every=every)
    with pytest.raises(ValueError, match="evaluate_every names step 7, but there are 5"):
        TrainSettings(steps=5, evaluate_every=(4, 7))


@pytest.mark.parametrize("ends", [12, [], [4, 4], [0, 4], "ab", None])
def test_ends_that_do_not_rise_are_refused(ends):
    with pytest.raises(ValueError, match=r"^The ends of epochs must be .*, got "):
        as_epochs([1], ends)
