"""Windows of parallel lanes, and the state that training carries from one to the next, through a stop as well."""

import pytest
import torch
from safetensors.torch import load_file
from test_train_loop import Killed, Watched, assert_same_end, kill, run
from training_support import VOCABULARY, numbered_texts, pairs, random_texts, tiny_batches, tiny_gpt2

from minipoet.models.rnn import GRU, LSTM, RNN, RNNConfig
from minipoet.models.window import WindowMLP, WindowMLPConfig
from minipoet.training import TrainSettings, train
from minipoet.training.batch import Batch
from minipoet.training.carry import Carry
from minipoet.training.loss import batch_loss
from minipoet.training.optimizers import make_optimizers
from minipoet.training.state import load_state, read_header
from minipoet.training.streams import Streams

IN_ORDER = 1  # the seed of which the first epoch takes three texts in their order, and two as well
STEPS = 12  # of `run`


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny(family=LSTM, **options):
    torch.manual_seed(0)
    model = family(RNNConfig(**({"vocab_size": VOCABULARY, "n_embd": 8, "n_hidden": 12, "window": 3} | options)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5)
    return model


def streams(length: int = 8, rows: int = 2, seed: int = 0) -> Streams:
    """34 batches an epoch, the last one narrower."""
    return Streams(random_texts(60), length, rows, seed)


def rows_of(batch: Batch) -> list[list[list[int]]]:
    return [tensor.tolist() for tensor in (batch.ids, batch.segments, batch.targets)]


# --- lanes --------------------------------------------------------------------------------------------------------


def test_lanes_worked_by_hand():
    """Three texts, six targets, two lanes of three: 1 2 4 | 6 7 8, read two at a time."""
    found = Streams([[1, 2, 3], [4, 5], [6, 7, 8, 9]], length=2, rows=2, seed=IN_ORDER)
    assert found.steps_per_epoch() == 2 and found.epoch_tokens() == 6
    assert rows_of(found.batch(0)) == [[[1, 2], [6, 7]], [[1, 1], [3, 3]], [[2, 3], [7, 8]]]
    assert rows_of(found.batch(1)) == [[[4], [8]], [[2], [3]], [[5], [9]]]
    assert [found.batch(step).goes_on for step in range(4)] == [False, True, False, True]


def test_a_text_that_the_end_of_a_lane_cuts_goes_on_in_the_next():
    """Seven targets in three lanes of three: 1 2 3 | 4 6 7 | 8, and then two places of padding."""
    found = Streams([[1, 2, 3, 4, 5], [6, 7, 8, 9]], length=2, rows=3, seed=IN_ORDER)
    assert rows_of(found.batch(0)) == [[[1, 2], [4, 6], [8, 0]], [[1, 1], [1, 2], [2, 0]], [[2, 3], [5, 7], [9, -100]]]
    assert rows_of(found.batch(1)) == [[[3], [7], [0]], [[1], [2], [0]], [[4], [8], [-100]]]


@pytest.mark.parametrize(("length", "rows"), [(1, 1), (7, 3), (8, 2), (60, 1)])
def test_every_token_but_the_first_of_a_text_is_a_target_once_an_epoch(length, rows):
    texts = numbered_texts([5, 1, 12, 2, 30, 19])  # 63 targets; the text of one token has nothing to predict
    found, each = Streams(texts, length, rows), [pair for text in texts for pair in zip(text, text[1:])]  # noqa: B905
    for epoch in range(2):
        first = epoch * found.steps_per_epoch()
        batches = [found.batch(first + step) for step in range(found.steps_per_epoch())]
        assert sorted(pair for batch in batches for pair in pairs(batch)) == sorted(each)
        assert sum(batch.tokens() for batch in batches) == found.epoch_tokens() == 63


def test_every_epoch_has_an_order_of_its_own_that_the_seed_gives():
    one, same, other = streams(), streams(), streams(seed=1)
    epoch = one.steps_per_epoch()
    for step in (0, 1, epoch, 3 * epoch + 2):
        assert rows_of(one.batch(step)) == rows_of(same.batch(step))
        assert rows_of(one.batch(step)) != rows_of(other.batch(step))
    assert rows_of(one.batch(0)) != rows_of(one.batch(epoch))


def test_a_batch_remembers_whether_it_goes_on_when_it_is_sent_to_a_device():
    assert [streams().batch(step).to("cpu").goes_on for step in (0, 1)] == [False, True]


# --- the state ----------------------------------------------------------------------------------------------------

MODELS = {
    "RNN, bag": lambda: tiny(RNN, inputs="bag"),
    "GRU": lambda: tiny(GRU),
    "LSTM": lambda: tiny(LSTM),
    "window": lambda: WindowMLP(WindowMLPConfig(VOCABULARY, n_embd=8, n_hidden=12, window=5)),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("rows", [1, 3])
def test_windows_with_carried_state_have_the_loss_of_one_long_reading(name, rows):
    model, carry = MODELS[name]().eval(), Carry()
    parts, whole = streams(7, rows), streams(streams(7, rows).tokens // rows, rows)
    with torch.no_grad():
        batches = map(parts.batch, range(parts.steps_per_epoch()))
        total = sum(batch_loss(model, batch, cache=carry.cache_for(model, batch)).item() for batch in batches)
        longest = map(whole.batch, range(whole.steps_per_epoch()))
        cache = model.new_cache(rows)
        expected = sum(batch_loss(model, batch, cache=cache).item() for batch in longest)
        alone = sum(batch_loss(model, parts.batch(step)).item() for step in range(parts.steps_per_epoch()))
    assert total == pytest.approx(expected, rel=1e-5)
    assert alone != pytest.approx(expected, rel=1e-4)  # windows that forget what was before them


def test_the_gradient_ends_at_the_beginning_of_the_window():
    """Of the second window it is that of a reading which begins with the state, taken as given."""
    model, carry, found = tiny(), Carry(), streams()
    for step in range(2):
        model.zero_grad(set_to_none=True)
        batch = found.batch(step)
        batch_loss(model, batch, cache=carry.cache_for(model, batch)).backward()
    ours = {name: parameter.grad for name, parameter in model.named_parameters()}

    model.zero_grad(set_to_none=True)
    cache = model.new_cache(2)
    with torch.no_grad():
        batch_loss(model, found.batch(0), cache=cache)
    batch_loss(model, found.batch(1), cache=cache).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(ours[name], parameter.grad, msg=name)


def test_a_new_epoch_begins_with_a_new_state_and_other_batches_have_none():
    model, carry, found = tiny(), Carry(), streams()
    first = carry.cache_for(model, found.batch(0))
    assert carry.cache_for(model, found.batch(1)) is first
    assert carry.cache_for(model, found.batch(found.steps_per_epoch())) is not first
    assert carry.cache_for(model, tiny_batches().batch(0)) is None and carry.tensors() == {}


def test_what_is_held_for_a_checkpoint_is_held_again():
    model, carry, again = tiny(inputs="bag"), Carry(), Carry()
    for step in range(3):
        batch = streams().batch(step)
        batch_loss(model, batch, cache=carry.cache_for(model, batch))
    held = {name: tensor.clone() for name, tensor in carry.tensors().items()}
    again.restore(model, held)
    assert {name.rsplit(".")[-1] for name in held} >= {"length", "segment", "window"}
    batch = streams().batch(3)
    losses = [batch_loss(model, batch, cache=one.cache_for(model, batch)).item() for one in (carry, again)]
    assert losses[0] == losses[1]
    again.restore(model, {})
    assert again.tensors() == {}


# --- stopping and going on ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["LSTM", "RNN, bag"])
def undisturbed(request, tmp_path_factory):
    """How a run ends that was never stopped, and the model to begin it with; with dropout, two batches a step."""

    def fresh():
        family, inputs = (LSTM, "embedding") if request.param == "LSTM" else (RNN, "bag")
        return tiny(family, dropout=0.2, inputs=inputs)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("undisturbed")
    done = (folder, *run(folder, streams(), fresh()))
    torch.set_num_threads(threads)
    return done, fresh


@pytest.mark.parametrize("stop", [1, 5, 8, 11])
def test_a_run_stopped_in_the_middle_of_an_epoch_ends_as_if_it_never_was(tmp_path, undisturbed, stop):
    expected, fresh = undisturbed
    run(tmp_path, streams(), fresh(), stop_after=stop)
    assert_same_end(tmp_path, *run(tmp_path, streams(), fresh(), resume=True), expected)


def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path, undisturbed):
    expected, fresh = undisturbed
    with pytest.raises(Killed):
        run(tmp_path, Watched(13, kill, streams()), fresh())
    assert read_header(tmp_path / "last.safetensors")[0].step == 4  # save_every
    assert_same_end(tmp_path, *run(tmp_path, streams(), fresh(), resume=True), expected)


def test_a_run_stopped_at_the_end_of_an_epoch_begins_the_next_anew(tmp_path):
    found = streams(length=23)  # 12 batches, which are 6 steps
    assert found.steps_per_epoch() == STEPS
    whole = run(tmp_path / "whole", found, tiny())
    run(tmp_path / "parts", found, tiny(), stop_after=6)
    ends = run(tmp_path / "parts", found, tiny(), resume=True)
    assert_same_end(tmp_path / "parts", *ends, (tmp_path / "whole", *whole))


def test_the_checkpoint_holds_the_state_that_the_next_step_goes_on_from(tmp_path):
    run(tmp_path, streams(), tiny(), stop_after=5, accumulation=1)
    held = {name: tensor for name, tensor in load_file(tmp_path / "last.safetensors").items() if "carry." in name}
    states = {f"carry.tensor.{layer}.{part}" for layer in (0, 1) for part in (0, 1)}
    assert set(held) == states | {"carry.length", "carry.segment"}
    assert held["carry.length"].item() == 5 * 8
    assert held["carry.segment"].tolist() == streams().batch(4).segments[:, -1].tolist()

    other, carry = tiny(), Carry()
    settings = TrainSettings(**read_header(tmp_path / "last.safetensors")[1])
    load_state(tmp_path / "last.safetensors", other, make_optimizers(other, settings), settings, streams(), carry)
    restored = {f"carry.{name}": tensor for name, tensor in carry.tensors().items()}
    assert [name for name in held if not torch.equal(restored[name], held[name])] == []


# --- mistakes -----------------------------------------------------------------------------------------------------


def test_a_model_that_carries_no_state_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"for models that carry a state .*and GPT2 carries none: use Batches"):
        train(tiny_gpt2(), streams(), TrainSettings(steps=1), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_ids_that_the_model_has_not_are_told_before_the_first_step(tmp_path):
    with pytest.raises(ValueError, match=r"The texts have the id 70, but this model has 0 to 49"):
        train(tiny(), Streams([[1, 70, 2]], 1, 1), TrainSettings(steps=1), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_window_longer_than_the_text_is_refused_with_the_longest_that_fits():
    with pytest.raises(ValueError, match=r"have 9 tokens to learn from, but a step reads 2 rows of 5: .*at most 4 "):
        Streams([list(range(10))], length=5, rows=2)
    assert Streams([list(range(10))], length=4, rows=2).steps_per_epoch() == 2


@pytest.mark.parametrize("texts", [[], [[1], [2]], [[]]])
def test_nothing_to_learn_is_refused(texts):
    with pytest.raises(ValueError, match="no text of two tokens or more"):
        Streams(texts, 1, 1)


@pytest.mark.parametrize("sizes", [(0, 1, 0), (1, 0, 0), (1, 1, -1), (1.5, 1, 0), (True, 1, 0), ("2", 1, 0)])
def test_sizes_that_make_no_sense_are_refused(sizes):
    with pytest.raises(ValueError, match="Streams need length ≥ 1, rows ≥ 1 and seed ≥ 0, got"):
        Streams([[1, 2, 3]], *sizes)


@pytest.mark.parametrize("texts", ["мороз", None, 5])
def test_what_are_no_lists_of_ids_is_refused(texts):
    with pytest.raises(ValueError, match="Streams need texts as lists of token ids"):
        Streams(texts, 1, 1)


def test_there_is_no_batch_of_a_step_that_is_none():
    with pytest.raises(ValueError, match="There is no batch of step -1"):
        streams().batch(-1)
