"""RNN, GRU and LSTM: the model contract with every kind of input, start values, folders, adapters, errors."""

import math

import pytest
import torch
from test_gpt2 import assert_logits_equal
from training_support import random_texts

import minipoet
from minipoet.adapters import add_lora, load_adapter, lora_layers, merge_lora, save_adapter
from minipoet.generation.loop import generate_ids
from minipoet.generation.settings import SamplingSettings
from minipoet.models.inputs import INPUTS
from minipoet.models.rnn import GRU, LSTM, RNN, RNNConfig
from minipoet.tokenization.chars import CharTokenizer
from minipoet.training import Batches, TrainSettings, train

V = 50  # the vocabulary of random_texts
FAMILIES = [RNN, GRU, LSTM]
PARTS = {RNN: 1, GRU: 1, LSTM: 2}
every_model = pytest.mark.parametrize("family", FAMILIES)
every_input = pytest.mark.parametrize("inputs", INPUTS)


def tiny(family=LSTM, **options):
    """Weights large enough for a broken state to show."""
    model = family(RNNConfig(**({"vocab_size": V, "n_embd": 8, "n_hidden": 16, "n_layer": 2, "window": 3} | options)))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    return model.eval()


def random_rows(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and segments of rows with several texts, and padding before, between, inside and behind them."""
    generator = torch.Generator().manual_seed(seed)
    segments = torch.randint(2, (4, 12), generator=generator).cumsum(1)
    padding = torch.rand(4, 12, generator=generator) < 0.3
    return torch.randint(V, (4, 12), generator=generator), segments.masked_fill(padding, 0)


# --- the contract -------------------------------------------------------------------------------------------------


@every_model
def test_a_model_is_its_embedding_its_cells_and_its_head(family):
    """torch.nn's layers with the same weights, as test_cells compares them, and the same embedding and head."""
    model, ids = tiny(family), random_rows(0)[0]
    theirs = getattr(torch.nn, family.__name__)(8, 16, 2)
    for layer, block in enumerate(model.blocks):
        ours = (block.input.weight, block.input.bias, block.recurrent_weight, block.recurrent_bias)
        for name, weight in zip(("weight_ih", "bias_ih", "weight_hh", "bias_hh"), ours, strict=True):
            getattr(theirs, f"{name}_l{layer}").data.copy_(weight.data)
    with torch.no_grad():
        states = theirs(model.embed.weight[ids].transpose(0, 1))[0].transpose(0, 1)
        expected = states @ model.head.weight.t() + model.head.bias
        assert_logits_equal(model(ids), expected)
        assert torch.equal(model(ids), model.head(model.states(ids)))


@every_model
@every_input
def test_cached_logits_equal_uncached_logits_at_every_split(family, inputs):
    model = tiny(family, inputs=inputs)
    for seed in range(2):
        ids, segments = random_rows(seed)
        with torch.no_grad():
            for marks in (None, segments):
                whole = model(ids, segments=marks)
                for split in range(1, 12):
                    cache, slices = model.new_cache(4), (slice(split), slice(split, 12))
                    parts = [model(ids[:, s], cache, None if marks is None else marks[:, s]) for s in slices]
                    assert_logits_equal(torch.cat(parts, 1), whole)
                    assert cache.length == 12


@every_model
@every_input
def test_texts_may_be_read_token_by_token(family, inputs):
    model, (ids, segments) = tiny(family, inputs=inputs), random_rows(1)
    with torch.no_grad():
        cache = model.new_cache(4)
        steps = [model(ids[:, t : t + 1], cache, segments[:, t : t + 1]) for t in range(12)]
        assert_logits_equal(torch.cat(steps, 1), model(ids, segments=segments))
    assert {len(tensor) for tensor in cache.tensors.values()} == {4}
    assert len([name for name in cache.tensors if name != "window"]) == 2 * PARTS[family]


@every_model
@every_input
def test_packed_texts_see_only_themselves_wherever_the_padding_stands(family, inputs):
    model = tiny(family, inputs=inputs)
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
@every_input
@pytest.mark.parametrize("places", [[0, 1], [3, 5], [8, 9]], ids=["left", "middle", "right"])
def test_padding_changes_no_state_and_teaches_nothing(family, inputs, places):
    """The same text with two places of padding: the same logits, and the same gradients."""
    model, text = tiny(family, inputs=inputs), torch.randint(V - 1, (1, 8), generator=torch.Generator().manual_seed(3))
    real = torch.ones(1, 10, dtype=torch.bool).index_fill_(1, torch.tensor(places), False)
    ids = torch.full((1, 10), V - 1).masked_scatter_(real, text)
    found = []
    for given, segments in ((ids, real.long()), (text, None)):
        cache = model.new_cache(1)
        logits = model(given, cache, segments)
        logits = logits[real] if segments is not None else logits[0]
        logits.square().sum().backward()
        grads = {name: p.grad for name, p in model.named_parameters()}
        found.append((logits, cache.tensors, grads))
        model.zero_grad(set_to_none=True)
    (logits, states, grads), (expected, expected_states, expected_grads) = found
    assert_logits_equal(logits, expected)
    for name, state in states.items():
        torch.testing.assert_close(state, expected_states[name])
    for name, grad in grads.items():
        torch.testing.assert_close(grad, expected_grads[name], rtol=1e-4, atol=1e-4)


@every_model
def test_a_row_of_nothing_but_padding_gives_no_nan(family):
    model = tiny(family)
    logits = model(torch.zeros(1, 3, dtype=torch.long), segments=torch.zeros(1, 3, dtype=torch.long))
    logits.sum().backward()
    assert torch.isfinite(logits).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@every_model
@every_input
def test_a_text_goes_on_whether_or_not_it_is_marked(family, inputs):
    model, (ids, _) = tiny(family, inputs=inputs), random_rows(1)
    ones = torch.ones(4, 12, dtype=torch.long)
    with torch.no_grad():
        for first, second in ((None, ones[:, 5:]), (ones[:, :5], None)):
            cache = model.new_cache(4)
            parts = [model(ids[:, :5], cache, first), model(ids[:, 5:], cache, second)]
            assert_logits_equal(torch.cat(parts, 1), model(ids))


@every_model
@every_input
def test_reading_nothing_changes_nothing(family, inputs):
    model, ids = tiny(family, inputs=inputs), torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        cache = model.new_cache(1)
        steps = [model(part, cache) for part in (ids[:, :0], ids[:, :2], ids[:, :0], ids[:, 2:])]
        assert_logits_equal(torch.cat(steps, 1), model(ids))


@every_model
@every_input
def test_reordered_and_repeated_caches_go_on_as_their_rows_did(family, inputs):
    model, (ids, segments) = tiny(family, inputs=inputs), random_rows(2)
    segments[:, -1] = torch.tensor([21, 22, 23, 24])  # each row ends in another text, and goes on with it
    rows, more = torch.tensor([2, 2, 0, 0]), torch.randint(V, (4, 2), generator=torch.Generator().manual_seed(1))
    marks = segments[rows, -1:].repeat(1, 2)
    with torch.no_grad():
        cache, expected = model.new_cache(4), model.new_cache(4)
        model(ids, cache, segments)
        cache.reorder(torch.tensor([2, 0]))
        cache.repeat(2)
        model(ids[rows], expected, segments[rows])
        assert_logits_equal(model(more, cache, marks), model(more, expected, marks))
    assert cache.batch_size == 4


@every_model
def test_a_state_brings_its_gradient_along_until_it_is_cut_off(family):
    """The gradient of a loss in the second half: through the cache it is that of one reading, and less once cut."""
    model, (ids, _) = tiny(family), random_rows(0)

    def grad_of_first_token(cut: bool | None) -> torch.Tensor:
        model.zero_grad(set_to_none=True)
        if cut is None:
            logits = model(ids)[:, 6:]
        else:
            cache = model.new_cache(4)
            model(ids[:, :6], cache)
            if cut:
                cache.detach()
            logits = model(ids[:, 6:], cache)
        logits.square().mean().backward()
        return model.embed.weight.grad

    whole, through, cut = (grad_of_first_token(way) for way in (None, False, True))
    torch.testing.assert_close(through, whole)
    only_before = sorted(set(ids[:, :6].flatten().tolist()) - set(ids[:, 6:].flatten().tolist()))
    assert whole[only_before].abs().sum() > 0
    assert not cut[only_before].any()


@every_model
@every_input
def test_poems_are_the_same_alone_and_beside_others(family, inputs):
    model, settings = tiny(family, inputs=inputs), SamplingSettings(max_new_tokens=20)
    prompts = [[7], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [9, 8]]
    beside = generate_ids(model, prompts, settings, seeds=[0, 1, 2, 3])
    alone = [generate_ids(model, [ids], settings, seeds=[seed])[0] for seed, ids in enumerate(prompts)]
    assert beside == alone
    assert all(len(poem.ids) == 20 for poem in alone) and alone[1] != alone[2]


@every_model
def test_a_poem_may_be_longer_than_any_context(family):
    model = tiny(family, n_layer=1)
    (poem,) = generate_ids(model, [[1]], SamplingSettings(max_new_tokens=600))
    assert (len(poem.ids), poem.finish) == (600, "length")
    assert model.context > 10**9


@every_model
@every_input
def test_a_large_model_is_counted_without_memory(family, inputs):
    gates = {RNN: 1, GRU: 3, LSTM: 4}[family]
    with torch.device("meta"):
        config = RNNConfig(vocab_size=10**5, n_embd=1000, n_hidden=10**4, n_layer=2, inputs=inputs)
        model = family(config)
        assert model(torch.zeros(2, 3, dtype=torch.long)).shape == (2, 3, 10**5)
    width = {"embedding": 1000, "label": 1}.get(inputs, 10**5)
    recurrent = gates * 10**4 * (10**4 + 2)
    expected = 2 * recurrent + gates * 10**4 * (width + 10**4) + 10**5 * (10**4 + 1)
    assert sum(p.numel() for p in model.parameters()) == expected + (10**8 if inputs == "embedding" else 0)


# --- training -----------------------------------------------------------------------------------------------------


@every_model
@every_input
def test_every_parameter_learns(family, inputs):
    model = tiny(family, inputs=inputs).train()
    model(random_rows(0)[0]).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@every_model
@pytest.mark.parametrize("packed", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(family, packed):
    model, (ids, segments) = tiny(family).train(), random_rows(0)
    found = []
    for model.gradient_checkpointing in (False, True):
        cache = model.new_cache(4)
        logits = model(ids, cache, segments if packed else None)
        logits.square().mean().backward()
        found.append(({name: p.grad for name, p in model.named_parameters()}, cache))
        model.zero_grad(set_to_none=True)
    (plain, cache), (again, other) = found
    for name, grad in plain.items():
        assert torch.equal(grad, again[name]), name
    assert cache.length == other.length == 12
    assert all(torch.equal(tensor, other.tensors[name]) for name, tensor in cache.tensors.items())


def test_gradient_checkpointing_keeps_less(monkeypatch):
    """Without it each layer's cell is run once; with it once more on the way back."""
    calls, forward = [], RNN.cell.forward
    monkeypatch.setattr(RNN.cell, "forward", staticmethod(lambda *parts: calls.append(1) or forward(*parts)))
    model, ids = tiny(RNN).train(), torch.tensor([[1, 2, 3]])
    for model.gradient_checkpointing, times in ((False, 1), (True, 2)):
        calls.clear()
        model(ids).sum().backward()
        assert len(calls) == times * 2 * 3


@every_model
def test_dropout_acts_in_training_alone_and_between_layers_not_in_time(family):
    model, ids = tiny(family, dropout=0.5), random_rows(0)[0]
    assert torch.equal(model(ids), tiny(family)(ids))
    states = model.train().states(ids)
    assert 0.3 < (states == 0).float().mean() < 0.7
    cache = model.new_cache(4)
    model(ids, cache)
    assert not any((tensor == 0).any() for tensor in cache.tensors.values())  # the state itself goes on whole


@every_model
@every_input
def test_it_learns_a_small_corpus(family, inputs, tmp_path):
    torch.manual_seed(0)
    model = family(RNNConfig(V, n_embd=16, n_hidden=48, n_layer=1, inputs=inputs))
    batches, settings = Batches(random_texts(4, longest=17), 16, 4), TrainSettings(steps=60, lr=2e-2, warmup=5)
    losses = train(model, batches, settings, tmp_path, quiet=True).curve("loss")[1]
    assert losses[0] > 3.5
    assert losses[-1] < (2.5 if inputs == "label" else 1.5)


@every_model
def test_training_in_bf16_keeps_the_states_in_fp32(family):
    model, ids = tiny(family).train(), random_rows(0)[0]
    with torch.autocast("cpu", torch.bfloat16):
        cache = model.new_cache(4)
        logits = model(ids, cache)
    assert logits.dtype is torch.bfloat16
    assert {tensor.dtype for tensor in cache.tensors.values()} == {torch.float32}
    logits.float().square().mean().backward()
    assert all(p.grad.dtype is torch.float32 for p in model.parameters())


@every_model
@every_input
def test_a_model_may_be_bf16_altogether(family, inputs):
    model, ids = tiny(family, inputs=inputs), random_rows(0)[0]
    with torch.no_grad():
        expected = model(ids)
        logits = model.bfloat16()(ids)
    assert logits.dtype is torch.bfloat16
    torch.testing.assert_close(logits.float(), expected, rtol=0, atol=0.1 * expected.abs().max().item())
    assert generate_ids(model, [[1, 2]], SamplingSettings(max_new_tokens=3))[0].finish == "length"


# --- start values -------------------------------------------------------------------------------------------------


@every_model
def test_each_gate_comes_back_by_an_orthogonal_matrix(family):
    model = family(RNNConfig(V, n_embd=8, n_hidden=16))
    for block in model.blocks:
        for gate in block.recurrent_weight.chunk(block.cell.gates):
            torch.testing.assert_close(gate @ gate.t(), torch.eye(16), rtol=0, atol=1e-5)
        assert not block.recurrent_bias.any()


def test_an_lstm_remembers_unless_taught():
    model = LSTM(RNNConfig(V, n_embd=8, n_hidden=16))
    for block in model.blocks:
        assert block.input.bias.view(4, 16).mean(1).tolist() == [0, 1, 0, 0]  # input, forget, cell, output
    assert not any(block.input.bias.any() for block in GRU(model.config).blocks)


@every_model
def test_glorot_bounds_what_comes_in_gate_by_gate(family):
    weight = family(RNNConfig(V, n_embd=8, n_hidden=400)).blocks[0].input.weight
    assert weight.abs().max().item() == pytest.approx(math.sqrt(6 / (8 + 400)), rel=1e-2)


@every_model
def test_vectors_of_tokens_begin_with_length_one_and_the_first_loss_is_that_of_chance(family):
    torch.manual_seed(0)
    model = family(RNNConfig(V, n_embd=64, n_hidden=64))
    assert model.embed.weight.norm(dim=1).mean().item() == pytest.approx(1, abs=0.1)
    logits = model(torch.randint(V, (8, 20)))[:, :-1]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.randint(V, (8 * 19,)))
    assert loss.item() == pytest.approx(math.log(V), abs=0.15)


@every_model
@every_input
def test_start_values_come_from_the_generator(family, inputs):
    models = [tiny(family, inputs=inputs), tiny(family, inputs=inputs)]
    for model in models:
        model.reset(torch.Generator().manual_seed(7))
        torch.rand(3)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)


# --- folders and adapters -----------------------------------------------------------------------------------------


@every_model
@pytest.mark.parametrize("inputs", [*INPUTS, "tied"])
def test_a_saved_model_is_loaded_the_same(family, inputs, tmp_path):
    text = "мороз и солнце"
    tokenizer = CharTokenizer.from_texts([text])
    tied = {"tie_word_embeddings": True, "n_embd": 16} if inputs == "tied" else {"inputs": inputs}
    model = tiny(family, vocab_size=tokenizer.vocab_size, **tied)
    minipoet.save(model, tokenizer, tmp_path)
    again, letters = minipoet.load(tmp_path)
    assert type(again) is family and again.config == model.config
    ids = torch.tensor([letters.encode(text)])
    assert letters.decode(ids[0].tolist()) == text
    with torch.no_grad():
        assert torch.equal(again(ids), model(ids))
    assert (again.head.weight is again.embed.weight) == (inputs == "tied")
    written = minipoet.generate(again, letters, "мороз", max_new_tokens=5, seed=1)
    assert written == minipoet.generate(model, tokenizer, "мороз", max_new_tokens=5, seed=1)


@every_model
def test_a_tied_head_is_the_embedding_itself(family):
    model = tiny(family, n_embd=16, tie_word_embeddings=True)
    assert model.head.weight is model.embed.weight
    free = tiny(family, n_embd=16)
    assert sum(p.numel() for p in free.parameters()) - sum(p.numel() for p in model.parameters()) == V * 16
    model(torch.tensor([[1, 2]])).sum().backward()
    assert model.embed.weight.grad.abs().sum(1).count_nonzero() == V  # as the head; as the embedding only 1 and 2


@every_model
def test_lora_learns_on_what_comes_in_and_is_merged_and_saved(family, tmp_path):
    ids = random_rows(0)[0]
    model = add_lora(tiny(family), rank=2, alpha=8, targets=["blocks.0.input"])
    assert [name for name, _ in lora_layers(model)] == ["blocks.0.input"]
    assert torch.equal(model(ids), tiny(family)(ids))  # B is 0 at the start
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert {name.rsplit(".", 1)[1] for name in learning} == {"A", "B"}
    optimizer = torch.optim.Adam(learning.values(), lr=0.1)
    for _ in range(3):
        model(ids).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        adapted = model(ids)
        assert not torch.allclose(adapted, tiny(family)(ids))
        save_adapter(model, tmp_path)
        loaded = load_adapter(tiny(family), tmp_path)
        assert torch.equal(loaded(ids), adapted)
        assert_logits_equal(merge_lora(model)(ids), adapted)


@every_model
def test_all_linear_layers_are_those_that_lora_can_sit_on(family):
    model = add_lora(tiny(family), rank=2, targets="all-linear")
    assert [name for name, _ in lora_layers(model)] == ["blocks.0.input", "blocks.1.input"]


def test_lora_on_the_recurrent_weights_is_refused_with_what_there_is():
    with pytest.raises(ValueError, match=r"'recurrent_weight' matches no layer.*has 0\.input.*1\.input"):
        add_lora(tiny(), targets=["recurrent_weight"])


# --- mistakes -----------------------------------------------------------------------------------------------------


def test_a_wrong_config_is_refused_with_all_that_is_wrong():
    with pytest.raises(ValueError) as error:
        RNNConfig(vocab_size=0, n_embd=1.5, n_hidden=-1, n_layer=True, window="8", dropout=1)
    message = str(error.value)
    wrong = ("vocab_size = 0", "n_embd = 1.5", "n_hidden = -1", "n_layer = True", "window = '8'", "dropout = 1 must be")
    assert message.startswith("RNN config: ")
    assert [part for part in wrong if part not in message] == []


@pytest.mark.parametrize(
    "options", [{"n_embd": 8, "n_hidden": 16}, {"inputs": "one-hot", "n_embd": 16, "n_hidden": 16}]
)
def test_a_head_that_cannot_be_tied_is_told(options):
    with pytest.raises(ValueError, match="tie_word_embeddings needs an embedding as wide as the state"):
        RNNConfig(tie_word_embeddings=True, **options)


def test_an_unknown_input_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match="inputs = 'letters' must be one of embedding, label, one-hot, bag"):
        RNNConfig(inputs="letters")


@every_model
def test_a_config_of_another_type_is_refused(family):
    with pytest.raises(ValueError, match=r"config must be an RNNConfig\(...\), got dict"):
        family({"vocab_size": 5})


@every_input
@pytest.mark.parametrize(
    "ids", [[1], torch.tensor([1]), torch.tensor([[1.0]]), torch.tensor([[V]]), torch.tensor([[-1]])]
)
def test_what_is_no_ids_of_the_vocabulary_is_refused(inputs, ids):
    with pytest.raises(ValueError, match="A model reads|The ids go from"):
        tiny(inputs=inputs)(ids)


def test_a_cache_of_other_texts_and_segments_of_another_shape_are_refused():
    model, ids = tiny(), torch.tensor([[1, 2], [3, 4]])
    with pytest.raises(ValueError, match=r"cache is that of 3 texts, but 2 rows were given .*model\.new_cache\(2\)"):
        model(ids, model.new_cache(3))
    with pytest.raises(ValueError, match=r"Segments .* got \(2, 3\) beside ids of \(2, 2\)"):
        model(ids, segments=torch.ones(2, 3, dtype=torch.long))
