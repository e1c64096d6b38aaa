"""The loss: in chunks equal to PyTorch's own in value and gradient, without the memory; packed equal to one by one."""

import types

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from training_support import VOCABULARY, random_texts, tiny_gpt2

from minipoet.training import Batch, Batches, batch_loss, cross_entropy, loss
from minipoet.training.loss import chunk_for, token_sums


class LargestTensor(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation makes, forward and backward; of one dtype,
    if one is given. What shares the memory of an argument is not made."""

    def __init__(self, dtype: torch.dtype | None = None):
        super().__init__()
        self.dtype, self.elements = dtype, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = {t.untyped_storage().data_ptr() for t in args if isinstance(t, torch.Tensor)}
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if not isinstance(tensor, torch.Tensor) or self.dtype not in (None, tensor.dtype):
                continue
            if tensor.untyped_storage().data_ptr() not in given:
                self.elements = max(self.elements, tensor.numel())
        return made


class Head(nn.Linear):
    """A linear head that notes how it was called."""

    def __init__(self, width: int, vocabulary: int, bias: bool = True):
        super().__init__(width, vocabulary, bias)
        self.rows: list[int] = []
        self.with_gradient: list[bool] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.rows.append(x.shape[0])
        self.with_gradient.append(torch.is_grad_enabled())
        return super().forward(x)


def example(B: int = 3, T: int = 5, C: int = 8, V: int = 11, bias: bool = True):
    """(head, states, targets), a third of the targets ignored."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    states = torch.randn(B, T, C, generator=generator, requires_grad=True)
    targets = torch.randint(V, (B, T), generator=generator)
    targets[torch.rand(B, T, generator=generator) < 0.3] = -100
    return Head(C, V, bias), states, targets


def plain(head: nn.Module, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """PyTorch's own, with all logits at once."""
    return F.cross_entropy(head(states).float().flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum")


def gradients(loss: torch.Tensor, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(loss / 7, tensors)


def test_uniform_logits_cost_the_logarithm_of_the_vocabulary():
    head, states, targets = example()
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    count = int((targets != -100).sum())
    assert 0 < count < 15
    assert cross_entropy(head, states, targets).item() == pytest.approx(count * 2.3978953, rel=1e-6)  # ln 11


@pytest.mark.parametrize("chunk", [1, 2, 7, 10, 1024])
def test_chunked_loss_equals_pytorchs_in_value_and_gradient(chunk):
    head, states, targets = example()
    ours, theirs = cross_entropy(head, states, targets, chunk), plain(head, states, targets)
    torch.testing.assert_close(ours, theirs)
    wanted = (states, head.weight, head.bias)
    torch.testing.assert_close(gradients(ours, *wanted), gradients(theirs, *wanted))


def test_frozen_head_gets_no_gradient_and_passes_it_on():
    head, states, targets = example()
    head.requires_grad_(False)
    torch.testing.assert_close(
        gradients(cross_entropy(head, states, targets, 4), states), gradients(plain(head, states, targets), states)
    )
    assert head.weight.grad is None


def test_head_learns_also_from_frozen_states():
    head, states, targets = example()
    states = states.detach()
    torch.testing.assert_close(
        gradients(cross_entropy(head, states, targets, 4), head.weight),
        gradients(plain(head, states, targets), head.weight),
    )


@pytest.mark.parametrize("tied", [True, False])
def test_gradients_of_a_whole_model_equal_pytorchs(tied):
    model = tiny_gpt2(tie_word_embeddings=tied)
    batch = next(iter(Batches(random_texts(12), 16, 4).once()))
    parameters = list(model.parameters())
    ours = gradients(batch_loss(model, batch, chunk=5), *parameters)
    logits = model(batch.ids, segments=batch.segments)
    theirs = gradients(F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="sum"), *parameters)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_loss_and_gradient_of_ignored_targets_alone_are_zero():
    head, states, targets = example()
    loss = cross_entropy(head, states, torch.full_like(targets, -100))
    assert loss.item() == 0.0
    assert all((g == 0).all() for g in gradients(loss, states, head.weight, head.bias))


def test_loss_under_bf16_autocast_equals_pytorchs():
    head, states, targets = example(C=32)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = cross_entropy(head, states, targets, 4), plain(head, states, targets)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=0.0)
    for got, expected in zip(gradients(ours, states, head.weight), gradients(theirs, states, head.weight), strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, expected, rtol=2e-2, atol=2e-3)


def test_head_never_sees_more_than_a_chunk_nor_a_token_without_a_target():
    head, states, targets = example()
    cross_entropy(head, states, targets, 4).backward()
    assert head.rows == [3, 3, 3]  # of one size, where they can be
    assert sum(head.rows) == int((targets != -100).sum())


def test_logits_of_all_tokens_are_never_there_at_once():
    B, T, C, V, chunk = 4, 16, 8, 1000, 8
    head, states, targets = example(B, T, C, V, bias=False)
    with LargestTensor() as chunked:
        cross_entropy(head, states, targets, chunk).backward()
    assert chunked.elements <= chunk * V
    with LargestTensor() as whole:
        plain(head, states, targets).backward()
    assert whole.elements == B * T * V  # the measure itself sees what it should


def test_measuring_without_gradients_takes_none():
    head, states, targets = example()
    with torch.no_grad():
        loss = cross_entropy(head, states, targets, 4)
    assert not loss.requires_grad
    assert not any(head.with_gradient)
    torch.testing.assert_close(loss, plain(head, states, targets).detach())


def test_second_derivative_is_refused():
    head, states, targets = example()
    loss = cross_entropy(head, states, targets)
    (gradient,) = torch.autograd.grad(loss.square(), states, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_packed_loss_equals_the_sum_of_the_texts_alone():
    model = tiny_gpt2().eval()
    texts = random_texts(40)
    packed = sum(batch_loss(model, batch).item() for batch in Batches(texts, 16, 4).once())
    alone = 0.0
    for text in texts:
        ids = torch.tensor(text)
        alone += F.cross_entropy(model(ids[None, :-1])[0], ids[1:], reduction="sum").item()
    assert packed == pytest.approx(alone, rel=1e-5)


def test_no_token_sees_another_text():
    model = tiny_gpt2().eval()
    first, second = [3, 1, 4, 1, 5], [9, 2, 6]
    segments = torch.tensor([[1] * 5 + [2] * 3])
    targets = torch.tensor([[-100] * 5 + [2, 6, 5]])
    losses = [
        batch_loss(model, Batch(torch.tensor([other + second]), segments, targets)).item()
        for other in (first, [7, 7, 7, 7, 7])
    ]
    alone = batch_loss(model, Batch(torch.tensor([second]), torch.ones(1, 3, dtype=torch.long), targets[:, 5:])).item()
    assert losses[0] == losses[1]
    assert losses[0] == pytest.approx(alone, rel=1e-5)


def test_padding_changes_nothing():
    model = tiny_gpt2().eval()
    ids, targets = torch.tensor([[3, 1, 4, 0, 0]]), torch.tensor([[1, 4, 1, -100, -100]])
    padded = batch_loss(model, Batch(ids, torch.tensor([[1, 1, 1, 0, 0]]), targets)).item()
    assert padded == pytest.approx(
        batch_loss(model, Batch(ids[:, :3], torch.ones(1, 3, dtype=torch.long), targets[:, :3])).item(), rel=1e-5
    )


class EncoderDecoder(nn.Module):
    """Follows the contract: `new_cache` reads the source, and the states are those of the ids plus its mean."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 8)
        self.head = nn.Linear(8, VOCABULARY)

    def new_cache(self, source, source_segments=None):
        real = ((torch.ones_like(source) if source_segments is None else source_segments) > 0)[..., None]
        return (self.embed(source) * real).sum(1, keepdim=True) / real.sum(1, keepdim=True)

    def states(self, ids, cache=None, segments=None):
        return self.embed(ids) + cache


def test_batch_with_a_source_is_read_through_the_cache():
    torch.manual_seed(0)
    model = EncoderDecoder()
    one = torch.ones(1, 2, dtype=torch.long)
    batch = Batch(torch.tensor([[3, 4]]), one, torch.tensor([[4, 5]]), torch.tensor([[7, 8]]), one)
    expected = plain(
        model.head, model.embed(batch.ids) + model.embed(batch.source).mean(1, keepdim=True), batch.targets
    )
    torch.testing.assert_close(batch_loss(model, batch), expected)
    padded = batch._replace(source=torch.tensor([[7, 8, 0]]), source_segments=torch.tensor([[1, 1, 0]]))
    torch.testing.assert_close(batch_loss(model, padded), expected)


# --- large vocabularies -------------------------------------------------------------------------------------------


class Vocabulary(nn.Module):
    """A model whose config says how many rows it has."""

    def __init__(self, rows):
        super().__init__()
        self.config = types.SimpleNamespace(vocab_size=rows)


@pytest.mark.parametrize(("rows", "chunk"), [(50, 512), (50257, 512), (65536, 512), (151936, 220), (2**26, 1)])
def test_chunk_of_a_large_vocabulary_has_fewer_tokens(rows, chunk):
    assert chunk_for(Vocabulary(rows)) == chunk
    assert rows > loss.LOGITS or chunk * rows <= loss.LOGITS


def test_batch_is_sent_in_chunks_of_the_vocabulary(monkeypatch):
    model = tiny_gpt2()
    batch = next(iter(Batches(random_texts(12), 16, 4).once()))
    whole = batch_loss(model, batch)
    monkeypatch.setattr(loss, "LOGITS", 3 * VOCABULARY + 7)
    rows = []
    model.head.register_forward_hook(lambda module, args, output: rows.append(len(output)))
    torch.testing.assert_close(batch_loss(model, batch), whole)
    assert max(rows) == 3 and sum(rows) == batch.tokens()


def test_a_frozen_head_makes_nothing_larger_than_a_chunk_of_logits():
    C, V, chunk = 64, 100, 4  # the head itself has 6400 numbers
    head, states, targets = example(2, 8, C, V, bias=False)
    head.requires_grad_(False)
    with LargestTensor() as made:
        cross_entropy(head, states, targets, chunk).backward()
    assert made.elements <= 2 * 8 * C
    head.requires_grad_(True)
    with LargestTensor() as made:
        cross_entropy(head, states, targets, chunk).backward()
    assert made.elements == C * V  # the measure sees the gradient of a head that learns


@pytest.mark.parametrize("metrics", [True, False])
def test_logits_of_16_bits_are_never_there_in_32(metrics, monkeypatch):
    monkeypatch.setattr(loss, "SLICE", 2000)
    head, states, targets = example(4, 16, 8, 1000, bias=False)
    head, states = head.to(torch.bfloat16), states.detach().bfloat16().requires_grad_()
    head.requires_grad_(False)
    with LargestTensor(torch.float32) as made:
        token_sums(head, states, targets, 16, metrics).loss.backward()
    assert made.elements == 2000


@pytest.mark.parametrize("frozen", [True, False])
def test_head_and_states_of_16_bits_get_the_gradient_of_pytorchs_own(frozen, monkeypatch):
    monkeypatch.setattr(loss, "SLICE", 25)  # two rows at a time
    head, states, targets = example(C=32)
    head, states = head.to(torch.bfloat16), states.detach().bfloat16().requires_grad_()
    head.requires_grad_(not frozen)
    ours, theirs = cross_entropy(head, states, targets, 4), plain(head, states, targets)
    torch.testing.assert_close(ours, theirs)
    wanted = (states,) if frozen else (states, head.weight, head.bias)
    for got, expected in zip(gradients(ours, *wanted), gradients(theirs, *wanted), strict=True):
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got, expected, rtol=2e-2, atol=2e-3)


def test_frozen_head_under_bf16_autocast_passes_the_gradient_on():
    head, states, targets = example(C=32)
    head.requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = cross_entropy(head, states, targets, 4), plain(head, states, targets)
    torch.testing.assert_close(gradients(ours, states), gradients(theirs, states), rtol=2e-2, atol=2e-3)


def test_loss_may_be_divided_in_place():
    head, states, targets = example()
    ours = cross_entropy(head, states, targets)
    ours /= 7
    torch.testing.assert_close(torch.autograd.grad(ours, states), gradients(plain(head, states, targets), states))


def test_improbable_targets_cost_what_they_should():
    head, states, targets = example(bias=True)
    with torch.no_grad():
        head.bias[3] = 300.0  # all others have a probability of e^-300, which fp32 cannot hold
    ours, theirs = cross_entropy(head, states, targets, 4), plain(head, states, targets)
    assert ours.item() > 1000
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(gradients(ours, states), gradients(theirs, states))


def test_a_head_that_needs_its_own_result_is_refused_and_not_miscounted():
    head, states, targets = example()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        cross_entropy(nn.Sequential(head, nn.Tanh()), states, targets)
