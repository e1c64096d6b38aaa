"""The windowed MLP: what it sees and what it cannot, the model contract, its folder, and that it learns."""

import pytest
import torch
from test_gpt2 import assert_logits_equal
from training_support import random_texts

from minipoet.adapters import add_lora, lora_layers, merge_lora
from minipoet.generation.loop import generate_ids
from minipoet.generation.settings import SamplingSettings
from minipoet.models import load_model, save_model
from minipoet.models.window import WindowMLP, WindowMLPConfig
from minipoet.training import Batches, TrainSettings, train

V = 50  # the vocabulary of random_texts


def tiny(**options) -> WindowMLP:
    torch.manual_seed(0)
    return WindowMLP(WindowMLPConfig(**({"vocab_size": V, "n_embd": 8, "n_hidden": 16, "window": 3} | options))).eval()


def random_rows(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and segments of rows with several texts, and padding before, between, inside and behind them."""
    generator = torch.Generator().manual_seed(seed)
    segments = torch.randint(2, (4, 12), generator=generator).cumsum(1)
    padding = torch.rand(4, 12, generator=generator) < 0.3
    return torch.randint(V, (4, 12), generator=generator), segments.masked_fill(padding, 0)


def test_a_model_worked_by_hand():
    """Two tokens, of vectors -3 and 2, a window of 2: relu(10 · the older + the newer), which the head doubles."""
    model = WindowMLP(WindowMLPConfig(2, n_embd=1, n_hidden=1, window=2, activation_function="relu"))
    with torch.no_grad():
        model.embed.weight.copy_(torch.tensor([[-3.0], [2.0]]))
        model.blocks[0].up.weight.copy_(torch.tensor([[10.0, 1.0]]))
        model.head.weight.copy_(torch.tensor([[2.0], [-1.0]]))
        logits = model(torch.tensor([[1, 0, 1, 1]]))  # relu of 2, 20 - 3, -30 + 2, 20 + 2
    assert logits.tolist() == [[[4, -2], [34, -17], [0, 0], [44, -22]]]


def test_tanh_bends_it_unless_asked_otherwise_as_in_the_paper():
    model = tiny()
    with torch.no_grad():
        x = model.embed(torch.tensor([[1, 2, 3]])).flatten(1)
        expected = model.head(torch.tanh(x @ model.blocks[0].up.weight.t()))
        assert_logits_equal(model(torch.tensor([[1, 2, 3]]))[:, -1], expected)


def test_a_prediction_depends_on_the_window_and_on_nothing_before():
    model, ids = tiny(), torch.randint(V, (1, 8))
    with torch.no_grad():
        whole = model(ids)
        for t in range(8):
            other = ids.clone()
            other[0, t] = (ids[0, t] + 1) % V
            changed = (model(other) != whole).any(-1)[0].tolist()
            assert changed == [t <= place < t + 3 for place in range(8)]


def test_each_place_of_the_window_has_weights_of_its_own():
    model = tiny()
    with torch.no_grad():
        assert not torch.allclose(model(torch.tensor([[1, 2, 3]]))[0, -1], model(torch.tensor([[2, 1, 3]]))[0, -1])


@pytest.mark.parametrize("split", range(1, 12))
def test_cached_logits_equal_uncached_logits_at_every_split(split):
    model = tiny(n_layer=2)
    for seed in range(5):
        ids, segments = random_rows(seed)
        with torch.no_grad():
            for marks in (None, segments):
                whole, cache = model(ids, segments=marks), model.new_cache(4)
                parts = [(ids[:, a:b], None if marks is None else marks[:, a:b]) for a, b in ((0, split), (split, 12))]
                assert_logits_equal(torch.cat([model(part, cache, own) for part, own in parts], 1), whole)
                assert cache.length == 12


@pytest.mark.parametrize("window", [1, 3, 40])
def test_packed_texts_see_only_themselves_wherever_the_padding_stands(window):
    model = tiny(window=window)
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


def test_texts_may_be_read_token_by_token():
    model, (ids, segments) = tiny(), random_rows(1)
    with torch.no_grad():
        cache = model.new_cache(4)
        steps = [model(ids[:, t : t + 1], cache, segments[:, t : t + 1]) for t in range(12)]
        assert_logits_equal(torch.cat(steps, 1), model(ids, segments=segments))


def test_a_text_goes_on_whether_or_not_it_is_marked():
    model, (ids, _) = tiny(), random_rows(1)
    ones = torch.ones(4, 12, dtype=torch.long)
    with torch.no_grad():
        for first, second in ((None, ones[:, 5:]), (ones[:, :5], None)):
            cache = model.new_cache(4)
            parts = [model(ids[:, :5], cache, first), model(ids[:, 5:], cache, second)]
            assert_logits_equal(torch.cat(parts, 1), model(ids))


def test_reading_nothing_changes_nothing():
    model, cache, ids = tiny(), tiny().new_cache(1), torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        steps = [model(part, cache) for part in (ids[:, :0], ids[:, :2], ids[:, :0], ids[:, 2:])]
        assert_logits_equal(torch.cat(steps, 1), model(ids))


def test_reordered_and_repeated_caches_go_on_as_their_rows_did():
    model, (ids, segments) = tiny(), random_rows(2)
    segments[:, -1] = 1  # what the next tokens, without segments, go on with
    rows, more = torch.tensor([2, 2, 0, 0]), torch.randint(V, (4, 2))
    with torch.no_grad():
        cache, expected = model.new_cache(4), model.new_cache(4)
        model(ids, cache, segments)
        cache.reorder(torch.tensor([2, 0]))
        cache.repeat(2)
        model(ids[rows], expected, segments[rows])
        assert_logits_equal(model(more, cache), model(more, expected))


def test_states_and_head_make_the_logits():
    model, ids = tiny(), torch.randint(V, (2, 5))
    assert torch.equal(model(ids), model.head(model.states(ids)))
    assert model.states(ids).shape == (2, 5, 16)


def test_every_parameter_learns_and_padding_teaches_nothing():
    model = tiny(n_layer=2).train()
    model(torch.tensor([[1, 2, 9, 3]]), segments=torch.tensor([[1, 1, 0, 1]]))[0, [0, 1, 3]].square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    assert model.embed.weight.grad.abs().sum(1).nonzero().flatten().tolist() == [1, 2, 3]


def test_dropout_acts_in_training_alone():
    model, ids = tiny(dropout=0.5), torch.randint(V, (1, 4))
    assert torch.equal(model(ids), model(ids))
    assert (model.train().states(ids) == 0).float().mean() > 0.2


def test_start_values_come_from_the_generator():
    first, second = tiny(), WindowMLP(first_config := tiny().config)
    for model in (first, second):
        model.reset(torch.Generator().manual_seed(7))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert first_config == first.config and not first.head.bias.any()


def test_a_saved_model_is_loaded_the_same(tmp_path):
    model, ids = tiny(n_layer=2, activation_function="gelu"), torch.randint(V, (2, 6))
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert type(again) is WindowMLP and again.config == model.config
    with torch.no_grad():
        assert torch.equal(again(ids), model(ids))


def test_a_large_model_is_counted_without_memory():
    with torch.device("meta"):
        model = WindowMLP(WindowMLPConfig(vocab_size=10**6, n_embd=1000, n_hidden=10**4, window=100))
        assert model(torch.zeros(2, 3, dtype=torch.long)).shape == (2, 3, 10**6)
    assert sum(p.numel() for p in model.parameters()) == 10**9 + (10**9 + 10**4) + (10**10 + 10**6)


def test_lora_learns_on_its_layers_and_is_merged():
    model, ids = add_lora(tiny(n_layer=2), rank=2, targets="all-linear"), torch.randint(V, (1, 6))
    assert [name for name, _ in lora_layers(model)] == ["blocks.0.up", "blocks.1.up"]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_()
        adapted = model(ids)
        assert_logits_equal(merge_lora(model)(ids), adapted)
    assert not torch.allclose(adapted, tiny(n_layer=2)(ids))


def test_it_learns_a_small_corpus(tmp_path):
    model = tiny(n_embd=16, n_hidden=32)
    texts = random_texts(4, longest=17)
    history = train(model, Batches(texts, 16, 4), TrainSettings(steps=150, lr=1e-2), tmp_path, quiet=True)
    losses = history.curve("loss")[1]
    assert losses[0] > 3 and losses[-1] < 0.3


def test_a_poem_is_longer_than_the_window_and_the_same_alone_and_beside_others():
    settings = SamplingSettings(max_new_tokens=20)
    alone = generate_ids(tiny(), [[1, 2, 3, 4, 5]], settings, seeds=[1])
    beside = generate_ids(tiny(), [[7], [1, 2, 3, 4, 5]], settings, seeds=[0, 1])
    assert beside[1] == alone[0] and len(alone[0].ids) == 20


def test_a_wrong_config_is_refused_with_all_that_is_wrong():
    with pytest.raises(ValueError) as error:
        WindowMLPConfig(vocab_size=0, n_embd=1.5, n_layer=True, window=-1, dropout=1)
    message = str(error.value)
    for part in (
        "vocab_size = 0",
        "n_embd = 1.5",
        "n_layer = True",
        "window = -1",
        "dropout = 1 must be a number from 0",
    ):
        assert part in message
    with pytest.raises(ValueError, match="Unknown activation 'sin' in the config; known are"):
        WindowMLPConfig(activation_function="sin")
    with pytest.raises(ValueError, match=r"config must be a WindowMLPConfig\(...\), got dict"):
        WindowMLP({"vocab_size": 5})


@pytest.mark.parametrize(
    "ids", [[1], torch.tensor([1]), torch.tensor([[1.0]]), torch.tensor([[V]]), torch.tensor([[-1]])]
)
def test_what_is_no_ids_of_the_vocabulary_is_refused(ids):
    with pytest.raises(ValueError, match="A model reads|The ids go from"):
        tiny()(ids)
