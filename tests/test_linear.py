"""The linear layer by oneDNN, and packed weights: the same numbers as PyTorch's own layer."""

import weakref

import pytest
import torch
from test_gpt2 import tiny
from torch import nn

import minipoet
from minipoet.models import packed
from minipoet.models.linear import Linear, linear, onednn_linear
from minipoet.models.packed import PackedLinear, pack_weights

needs_onednn = pytest.mark.skipif(onednn_linear is None, reason="this PyTorch has no oneDNN")


@needs_onednn
def test_fp32_on_a_cpu_goes_through_onednn_and_a_vector_or_autocast_does_not(monkeypatch):
    calls = []
    spy = lambda *arguments: calls.append(1) or onednn_linear(*arguments)  # noqa: E731
    monkeypatch.setattr("minipoet.models.linear.onednn_linear", spy)
    weight = torch.ones(3, 4)
    linear(torch.ones(2, 4), weight)
    assert len(calls) == 1
    linear(torch.ones(4), weight), linear(torch.ones(0, 4), weight), linear(torch.ones(2, 4).double(), weight.double())
    with torch.autocast("cpu", torch.bfloat16):
        linear(torch.ones(2, 4), weight)
    assert len(calls) == 1


@pytest.mark.parametrize("shape", [(2, 5, 4), (1, 1, 4), (0, 5, 4), (2, 4), (4,)])
def test_torch_is_given_rows_and_not_more_dimensions(monkeypatch, shape):
    given = []
    plain = torch.nn.functional.linear
    spy = lambda x, *more: given.append(x.ndim) or plain(x, *more)  # noqa: E731
    monkeypatch.setattr("minipoet.models.linear.F.linear", spy)
    x, weight = torch.randn(shape).bfloat16(), torch.randn(3, 4).bfloat16()
    y = linear(x, weight)
    assert given == [min(len(shape), 2)]
    assert y.shape == (*shape[:-1], 3)
    torch.testing.assert_close(y, plain(x, weight))


def test_without_onednn_the_layer_still_works(monkeypatch):
    monkeypatch.setattr("minipoet.models.linear.onednn_linear", None)
    assert linear(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]), torch.tensor([5.0])).tolist() == [[16.0]]


def test_by_hand():
    x, weight = torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.tensor([[3.0, 4.0]]).requires_grad_()
    y = linear(x, weight, torch.tensor([5.0]))
    assert y.tolist() == [[16.0], [9.0]]
    y.sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [[1.0, 3.0]]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", [(1, 40), (7, 40), (2, 1, 40), (2, 5, 40)])
def test_outputs_and_gradients_are_those_of_torch(shape, transposed):
    generator = torch.Generator().manual_seed(sum(shape))
    x = torch.randn(shape, generator=generator, requires_grad=True)
    weight = torch.randn(40, 24, generator=generator).t() if transposed else torch.randn(24, 40, generator=generator)
    weight, bias = weight.requires_grad_(), torch.randn(24, generator=generator, requires_grad=True)
    y, expected = linear(x, weight, bias), torch.nn.functional.linear(x, weight, bias)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    grad = torch.randn(y.shape, generator=generator)
    ours = torch.autograd.grad(y, (x, weight, bias), grad)
    theirs = torch.autograd.grad(expected, (x, weight, bias), grad)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("learns", ["x", "weight", "bias"])
def test_only_what_learns_gets_a_gradient(learns):
    parts = {"x": torch.ones(2, 3), "weight": torch.ones(4, 3), "bias": torch.ones(4)}
    parts[learns].requires_grad_()
    linear(**parts).sum().backward()
    assert [name for name, part in parts.items() if part.grad is not None] == [learns]


def test_a_second_derivative_is_refused_and_not_wrong():
    x, weight = torch.ones(2, 3, requires_grad=True), torch.ones(4, 3, requires_grad=True)
    if onednn_linear is None:
        pytest.skip("this PyTorch has no oneDNN")
    (grad,) = torch.autograd.grad((linear(x, weight) ** 2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@needs_onednn
class TestPacked:
    @pytest.mark.parametrize("shape", [(1, 1, 64), (3, 1, 64), (2, 9, 64)])
    def test_a_packed_layer_gives_the_plain_layers_numbers(self, shape):
        torch.manual_seed(0)
        layer = Linear(64, 48).bfloat16()
        x = torch.randn(shape).bfloat16()
        torch.testing.assert_close(PackedLinear(layer)(x), layer(x), rtol=2**-7, atol=2**-7)

    def test_a_packed_model_has_the_same_logits_and_no_second_copy(self):
        model = tiny().bfloat16().eval()
        ids = torch.arange(12)[None]
        before = model(ids)
        assert pack_weights(model) is model
        torch.testing.assert_close(model(ids), before, rtol=2**-6, atol=2**-6)
        cache = model.new_cache(1)
        pieces = [model(part, cache) for part in ids.split([5, 1, 6], dim=1)]
        torch.testing.assert_close(torch.cat(pieces, 1), before, rtol=0, atol=0.02 * before.abs().max().item())
        matrices = [name for name, p in model.named_parameters() if p.ndim == 2]
        assert matrices == ["embed.weight", "positions.weight"]

    def test_the_plain_form_of_a_layer_goes_before_the_next_one_is_packed(self, monkeypatch):
        model = tiny().bfloat16().eval()
        plain = [weakref.ref(module) for module in model.modules() if isinstance(module, nn.Linear)]
        alive = []

        def counted(layer):
            alive.append(sum(reference() is not None for reference in plain))
            return PackedLinear(layer)

        monkeypatch.setattr(packed, "PackedLinear", counted)
        pack_weights(model)
        assert alive == list(range(len(plain), 0, -1))

    def test_fp32_stays_as_it_is(self):
        model = pack_weights(tiny())
        assert not any(isinstance(module, PackedLinear) for module in model.modules())

    def test_a_merged_adapter_is_packed_too(self):
        model = minipoet.add_lora(tiny().bfloat16().eval(), rank=2, alpha=64)
        torch.nn.init.normal_(model.get_parameter("blocks.0.attn.qkv.deltas.default.B"))
        ids = torch.arange(6)[None]
        merged = minipoet.merge_lora(model)(ids)
        torch.testing.assert_close(pack_weights(model)(ids), merged, rtol=2**-6, atol=2**-5)

    def test_what_needs_the_plain_weights_is_refused_with_a_way_out(self, tmp_path):
        model = pack_weights(minipoet.add_lora(tiny().bfloat16(), rank=2))
        for attempt in (
            lambda: minipoet.merge_lora(model),
            lambda: minipoet.add_lora(model, rank=2, name="other"),
            lambda: minipoet.models.save_model(model, tmp_path / "model"),
        ):
            with pytest.raises(ValueError, match="Load it again"):
                attempt()
        assert not (tmp_path / "model").exists()
