"""A learnt first state: every text of a recurrent model begins with it, and it learns from every text."""

import copy

import pytest
import torch
from test_gpt2 import assert_logits_equal
from test_rnn import FAMILIES, PARTS, V, every_model, random_rows, tiny
from torch import nn

from minipoet.adapters import add_lora, add_prefix, load_adapter, save_adapter, set_adapter
from minipoet.generation.loop import generate_ids
from minipoet.generation.settings import SamplingSettings
from minipoet.models.rnn import LSTM, RNN
from minipoet.models.window import WindowMLP, WindowMLPConfig
from minipoet.training import Batches, TrainSettings, train
from minipoet.training.carry import Carry
from minipoet.training.loss import batch_loss
from minipoet.training.streams import Streams

WITHOUT_WINDOW = ["embedding", "label", "one-hot"]


class Start(nn.Module):
    """A beginning and nothing else, for tests of which all weights learn beside it."""

    length = 1

    def __init__(self, values: torch.Tensor):
        super().__init__()
        self.values = nn.Parameter(values)

    def forward(self) -> torch.Tensor:
        return self.values


def begun(family=LSTM, seed: int = 9, **options):
    """`tiny`, with a first state that is far from zeros."""
    model = tiny(family, **options)
    shape = model.beginning_shape(1)
    model.prefixes = Start(torch.randn(shape, generator=torch.Generator().manual_seed(seed)))
    return model


def gradients(model) -> dict[str, torch.Tensor]:
    """Those that `backward` left, taken away from the model."""
    found = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return found


# --- what it stands for -------------------------------------------------------------------------------------------


@every_model
@pytest.mark.parametrize("inputs", WITHOUT_WINDOW)
def test_the_state_of_a_text_untrained_is_having_read_the_text(family, inputs):
    model, (ids, _) = tiny(family, inputs=inputs), random_rows(0)
    with torch.no_grad():
        for row in ids:
            cache, whole = model.new_cache(1), model(row[None])
            model(row[None, :5], cache)
            model.prefixes = Start(model.as_beginning(cache))
            torch.testing.assert_close(model(row[None, 5:]), whole[:, 5:], rtol=1e-6, atol=1e-6)
            model.prefixes = None


@every_model
def test_a_text_read_after_a_first_state_leaves_the_next_one(family):
    """The state of a text that was itself begun with one: both were read."""
    model, ids = begun(family), torch.arange(12)[None]
    with torch.no_grad():
        cache, whole = model.new_cache(1), model(ids)
        model(ids[:, :5], cache)
        model.prefixes = Start(model.as_beginning(cache))
        torch.testing.assert_close(model(ids[:, 5:]), whole[:, 5:], rtol=1e-6, atol=1e-6)


@every_model
def test_a_poem_goes_on_from_the_state_of_a_prompt_as_from_the_prompt(family):
    model, settings = tiny(family), SamplingSettings(max_new_tokens=20)
    expected = generate_ids(model, [[5, 6, 7, 8], [5, 6, 7, 1, 2]], settings, seeds=[1, 2])
    cache = model.new_cache(1)
    model(torch.tensor([[5, 6, 7]]), cache)
    model.prefixes = Start(model.as_beginning(cache))
    found = generate_ids(model, [[8], [1, 2]], settings, seeds=[1, 2])
    assert [poem.ids for poem in found] == [poem.ids for poem in expected]
    assert found[0].ids != generate_ids(tiny(family), [[8]], settings, seeds=[1])[0].ids


@every_model
def test_rows_lie_layer_by_layer_and_part_by_part(family):
    model, ids = tiny(family, n_layer=3), torch.tensor([[1, 2, 3]])
    cache = model.new_cache(1)
    model(ids, cache)
    state = model.as_beginning(cache)
    assert state.shape == model.beginning_shape(1) == (1, 3 * PARTS[family], 1, 16)
    assert not state.requires_grad
    for layer in range(3):
        for part in range(PARTS[family]):
            assert torch.equal(state[0, PARTS[family] * layer + part, 0], cache.tensors[f"{layer}.{part}"][0])


@every_model
def test_a_first_state_of_zeros_is_none(family):
    """Also with the gradients: bit for bit."""
    model, zeros = tiny(family), tiny(family)
    zeros.prefixes = Start(torch.zeros(zeros.beginning_shape(1)))
    ids, segments = random_rows(0)
    for marks in (None, segments):
        logits, other = model(ids, segments=marks), zeros(ids, segments=marks)
        assert torch.equal(logits, other)
        logits.square().sum().backward()
        other.square().sum().backward()
        grads, others = gradients(model), gradients(zeros)
        assert others.pop("prefixes.values").abs().sum() > 0
        assert all(torch.equal(grad, others[name]) for name, grad in grads.items())


# --- the contract, with a first state -----------------------------------------------------------------------------


@every_model
@pytest.mark.parametrize("inputs", WITHOUT_WINDOW)
def test_every_text_of_a_packed_row_begins_with_it(family, inputs):
    model = begun(family, inputs=inputs)
    for seed in range(5):
        ids, segments = random_rows(seed)
        with torch.no_grad():
            packed = model(ids, segments=segments)
            for row in range(4):
                for text in segments[row].unique():
                    where = segments[row] == text
                    if text:
                        assert_logits_equal(packed[row, where], model(ids[row, where][None])[0])
        assert torch.isfinite(packed).all()


@every_model
def test_cached_logits_equal_uncached_logits_at_every_split(family):
    model = begun(family)
    for seed in range(2):
        ids, segments = random_rows(seed)
        with torch.no_grad():
            for marks in (None, segments):
                whole = model(ids, segments=marks)
                for split in range(13):
                    cache, slices = model.new_cache(4), (slice(split), slice(split, 12))
                    parts = [model(ids[:, s], cache, None if marks is None else marks[:, s]) for s in slices]
                    assert_logits_equal(torch.cat(parts, 1), whole)


@every_model
def test_texts_may_be_read_token_by_token(family):
    model, (ids, segments) = begun(family), random_rows(1)
    with torch.no_grad():
        cache = model.new_cache(4)
        steps = [model(ids[:, t : t + 1], cache, segments[:, t : t + 1]) for t in range(12)]
        assert_logits_equal(torch.cat(steps, 1), model(ids, segments=segments))


@every_model
def test_a_cache_whose_rows_begin_another_text_begins_with_it_again(family):
    model, (ids, _) = begun(family), random_rows(3)
    with torch.no_grad():
        cache = model.new_cache(4)
        model(ids[:, :5], cache)
        second = model(ids[:, 5:], cache, torch.full((4, 7), 2))
        assert_logits_equal(second, model(ids[:, 5:]))


@every_model
@pytest.mark.parametrize("places", [[0, 1], [3, 5], [8, 9]], ids=["left", "middle", "right"])
def test_padding_changes_nothing_and_teaches_nothing(family, places):
    """The same text with two places of padding: the same logits, states and gradients, the first state's included."""
    model, text = begun(family), torch.randint(V - 1, (1, 8), generator=torch.Generator().manual_seed(3))
    real = torch.ones(1, 10, dtype=torch.bool).index_fill_(1, torch.tensor(places), False)
    ids = torch.full((1, 10), V - 1).masked_scatter_(real, text)
    found = []
    for given, segments in ((ids, real.long()), (text, None)):
        cache = model.new_cache(1)
        logits = model(given, cache, segments)
        logits = logits[real] if segments is not None else logits[0]
        logits.square().sum().backward()
        found.append((logits, cache.tensors, gradients(model)))
    (logits, states, grads), (expected, expected_states, expected_grads) = found
    assert_logits_equal(logits, expected)
    assert grads["prefixes.values"].abs().sum() > 0
    for name, state in states.items():
        torch.testing.assert_close(state, expected_states[name])
    for name, grad in grads.items():
        torch.testing.assert_close(grad, expected_grads[name], rtol=1e-4, atol=1e-4)


@every_model
def test_reordered_and_repeated_caches_go_on_as_their_rows_did(family):
    """A cache that has read nothing as well: it is multiplied, and then its texts begin."""
    model, (ids, segments) = begun(family), random_rows(2)
    segments[:, -1] = torch.tensor([21, 22, 23, 24])
    rows, more = torch.tensor([2, 2, 0, 0]), torch.randint(V, (4, 2), generator=torch.Generator().manual_seed(1))
    marks = segments[rows, -1:].repeat(1, 2)
    with torch.no_grad():
        for first in (0, 12):
            cache, expected = model.new_cache(4), model.new_cache(4)
            model(ids[:, :first], cache, segments[:, :first])
            cache.reorder(torch.tensor([2, 0]))
            cache.repeat(2)
            model(ids[rows, :first], expected, segments[rows, :first])
            assert_logits_equal(model(more, cache, marks), model(more, expected, marks))


@every_model
def test_poems_are_the_same_alone_and_beside_others(family):
    model, settings = begun(family), SamplingSettings(max_new_tokens=20)
    prompts = [[7], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [9, 8]]
    beside = generate_ids(model, prompts, settings, seeds=[0, 1, 2, 3])
    assert beside == [generate_ids(model, [ids], settings, seeds=[n])[0] for n, ids in enumerate(prompts)]


# --- learning -----------------------------------------------------------------------------------------------------


@every_model
def test_all_gradients_are_those_of_torch_reading_each_text_from_a_first_state_of_its_own(family):
    """Several texts a row, with padding, against torch.nn's layers with h₀ (and c₀), one text at a time."""
    model, (ids, segments) = begun(family).double(), random_rows(4)
    weights = torch.randn(*ids.shape, V, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    (model(ids, segments=segments) * weights)[segments != 0].sum().backward()
    found = gradients(model)

    theirs = getattr(nn, family.__name__)(8, 16, 2).double()
    names = ("weight_ih", "bias_ih", "weight_hh", "bias_hh")
    ours = ("input.weight", "input.bias", "recurrent_weight", "recurrent_bias")
    pairs = {f"blocks.{layer}.{o}": getattr(theirs, f"{n}_l{layer}") for layer in range(2) for n, o in zip(names, ours)}  # noqa: B905
    for name, parameter in pairs.items():
        parameter.data.copy_(model.get_parameter(name).data)
    start = model.prefixes.values.detach().clone().requires_grad_()
    texts, total = 0, torch.zeros((), dtype=torch.float64)
    for row in range(4):
        for text in segments[row][segments[row] != 0].unique():
            where = segments[row] == text
            state = start.view(2, PARTS[family], 16).unbind(1)
            outputs = theirs(model.embed.weight[ids[row, where]], state if family is LSTM else state[0])[0]
            total = total + (model.head(outputs) * weights[row, where]).sum()
            texts += 1
    total.backward()
    assert texts > 12
    torch.testing.assert_close(found["prefixes.values"], start.grad, rtol=1e-10, atol=1e-10)
    for name, parameter in pairs.items():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-10, atol=1e-10)


@every_model
@pytest.mark.parametrize("packed", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(family, packed):
    model, (ids, segments) = begun(family).train(), random_rows(0)
    found = []
    for frozen in (False, True):  # the first state alone as well: then nothing that goes into layer 0 learns
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not frozen or name == "prefixes.values")
        for model.gradient_checkpointing in (False, True):
            cache = model.new_cache(4)
            model(ids, cache, segments if packed else None).square().mean().backward()
            found.append(gradients(model))
    plain, again, alone, alone_again = found
    assert all(torch.equal(grad, again[name]) for name, grad in plain.items())
    assert plain["prefixes.values"].abs().sum() > 0
    for grads in (alone, alone_again):
        assert torch.equal(grads.pop("prefixes.values"), plain["prefixes.values"])
        assert set(grads.values()) == {None}


@every_model
def test_a_carried_stream_teaches_it_wherever_a_text_begins_and_nowhere_else(family):
    """Texts of 9, 5 and 6 targets in one lane, read four targets at a time: they begin in batches 0, 2 and 3."""
    texts = [list(range(10)), list(range(10, 16)), list(range(20, 27))]
    streams = Streams(texts, length=4, rows=1, seed=1)  # the seed that takes three texts in their order
    model, carry, learnt = begun(family).train().requires_grad_(False), Carry(), []
    model.prefixes.requires_grad_(True)
    for step in range(streams.steps_per_epoch()):
        batch = streams.batch(step)
        batch_loss(model, batch, cache=carry.cache_for(model, batch)).backward()
        learnt.append(bool(gradients(model)["prefixes.values"].any()))
    assert learnt == [True, False, True, True, False]


@every_model
def test_in_fp32_under_autocast_and_beside_weights_in_bf16(family):
    """The state keeps its digits under autocast; for weights in bf16 it is rounded, and its gradient is not."""
    for half in (False, True):
        model, (ids, segments) = begun(family).train(), random_rows(0)
        expected = copy.deepcopy(model)(ids, segments=segments)
        if half:
            start, model.prefixes = model.prefixes, None
            model.bfloat16().prefixes = start
        with torch.autocast("cpu", torch.bfloat16, enabled=not half):
            cache = model.new_cache(4)
            logits = model(ids, cache, segments)
        assert logits.dtype is torch.bfloat16
        assert {tensor.dtype for tensor in cache.tensors.values()} == {torch.bfloat16 if half else torch.float32}
        limit = 0.1 * expected.abs().max().item()
        torch.testing.assert_close(logits.float(), expected, rtol=0, atol=limit)
        logits.float().square().mean().backward()
        grad = gradients(model)["prefixes.values"]
        assert grad.dtype is torch.float32 and grad.any() and grad.isfinite().all()


# --- as an adapter ------------------------------------------------------------------------------------------------


@every_model
@pytest.mark.parametrize("length", [1, 5])
@pytest.mark.parametrize("projection", [False, True])
def test_a_prefix_that_starts_at_a_text_of_any_length_says_what_the_text_says(family, length, projection):
    ids = random_rows(0)[0][:1]
    with torch.no_grad():
        expected = tiny(family)(ids)[:, length:]
        model = add_prefix(tiny(family), 1, projection, init=ids[0, :length].tolist())
        torch.testing.assert_close(model(ids[:, length:]), expected, rtol=1e-5, atol=1e-5)


@every_model
@pytest.mark.parametrize("batches", [Batches, Streams])
def test_it_is_trained_alone_and_is_loaded_the_same(family, batches, tmp_path):
    torch.manual_seed(0)
    model, ids = add_prefix(tiny(family), 1, init="zero"), random_rows(0)[0]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    settings = TrainSettings(steps=40, lr=0.1, warmup=5, weight_decay=0.0)
    texts = [[1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2, 3]]  # what a text begins with is all that there is to learn
    losses = train(model, batches(texts, 4, 2), settings, tmp_path / "run", quiet=True).curve("loss")[1]
    assert losses[-1] < 0.6 * losses[0]
    changed = [name for name, p in model.named_parameters() if not torch.equal(p, before[name])]
    assert changed == ["prefixes.by_name.default.numbers"]
    save_adapter(model, tmp_path / "adapter")
    with torch.no_grad():
        assert torch.equal(load_adapter(tiny(family), tmp_path / "adapter")(ids), model(ids))
        assert torch.equal(set_adapter(model, None)(ids), tiny(family)(ids))


@every_model
def test_a_lora_of_the_same_name_learns_beside_it(family):
    model = add_prefix(add_lora(tiny(family), rank=2, targets=["blocks.0.input"]), 1)
    model(random_rows(0)[0]).square().mean().backward()
    learnt = {name.rsplit(".", 1)[-1] for name, grad in gradients(model).items() if grad is not None and grad.any()}
    assert learnt == {"numbers", "B"}  # A's gradient is 0 as long as B is


# --- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 2, 15])
def test_a_state_is_one_virtual_token(count):
    with pytest.raises(ValueError, match=f"one state of fixed size: give num_virtual_tokens=1, not {count}.$"):
        tiny(RNN).beginning_shape(count)


def test_a_model_that_also_sees_a_window_has_no_first_state():
    model = tiny(LSTM, inputs="bag")
    cache = model.new_cache(1)
    model(torch.tensor([[1, 2]]), cache)
    for ask in (lambda: model.beginning_shape(1), lambda: model.as_beginning(cache)):
        with pytest.raises(ValueError, match='This LSTM has inputs="bag".*another kind of input'):
            ask()
    window = WindowMLP(WindowMLPConfig(V))
    with pytest.raises(ValueError, match="A WindowMLP keeps nothing of a text that a prefix could stand for"):
        window.beginning_shape(1)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_beginning_is_what_one_text_left(family):
    model = tiny(family)
    padded = model.new_cache(1)
    model(torch.tensor([[0, 0]]), padded, torch.tensor([[0, 0]]))
    several = model.new_cache(2)
    model(torch.tensor([[1], [2]]), several)
    nothing = model.new_cache(1)
    model(torch.zeros(1, 0, dtype=torch.long), nothing)
    for cache in (model.new_cache(1), nothing, padded):
        with pytest.raises(ValueError, match="the state that a text leaves: give a text of at least one token"):
            model.as_beginning(cache)
    with pytest.raises(ValueError, match="one text leaves, got a cache of 2 texts"):
        model.as_beginning(several)
