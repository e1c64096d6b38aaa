"""LoRA over packed weights: gradients, what autograd keeps, PEFT's files, and why it is not merged."""

from math import prod

import pytest
import torch
from quantized_support import IDS, quantised, tiny
from safetensors.torch import load_file
from test_lora import shaken

import minipoet
from minipoet.adapters import lora_layers
from minipoet.adapters.rows import adapters_by_row
from minipoet.models import load_model
from minipoet.quantization import QuantConfig, dequantize, few_bit_layers, load_quantized, packed_bytes, save_quantized

CONFIG = QuantConfig(group_size=32)


def loss(model) -> torch.Tensor:
    return model(IDS).float().log_softmax(-1)[..., 5].neg().mean()


@pytest.fixture(params=["gpt2", "qwen2"])
def packed(request):
    return quantised(tiny(request.param), CONFIG)


def test_an_adapted_model_starts_as_the_base(packed):
    before = packed(IDS)
    assert torch.equal(minipoet.add_lora(packed, targets="all-linear")(IDS), before)


def test_all_linear_layers_but_the_head_are_found(packed):
    minipoet.add_lora(packed, targets="all-linear")
    adapted = {f"{name}.base" for name, _ in lora_layers(packed)}
    assert adapted == {name for name, _ in few_bit_layers(packed)} != set()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_those_over_the_same_weights_written_out(packed, checkpointing):
    minipoet.add_lora(packed, rank=4, targets="all-linear", seed=1)
    shaken(packed).gradient_checkpointing = checkpointing
    loss(packed.train()).backward()
    found = {name: p.grad.clone() for name, p in packed.named_parameters() if p.requires_grad}
    packed.zero_grad()
    loss(dequantize(packed)).backward()
    assert found and all(grad.abs().max() > 0 for grad in found.values())
    for name, parameter in packed.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, found[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("autocast", [False, True])
def test_no_matrix_of_the_base_is_kept_for_the_backward_pass(packed, autocast):
    """Tensors as large as a layer's matrix are counted: of a plain model there are some, of a packed one none."""
    sizes = {layer.in_features * layer.out_features for _, layer in few_bit_layers(packed)}

    def kept() -> int:
        number = 0

        def note(tensor):
            nonlocal number
            number += tensor.ndim == 2 and prod(tensor.shape) in sizes
            return tensor

        with (
            torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=autocast),
        ):
            loss(packed).backward()
        return number

    minipoet.add_lora(packed, rank=2, targets="all-linear")
    assert kept() == 0
    dequantize(packed)
    assert kept() > 0


def test_training_moves_the_adapter_and_nothing_else(packed):
    minipoet.add_lora(packed, rank=4, targets="all-linear")
    before = {name: tensor.clone() for name, tensor in packed.state_dict().items()}
    trainable = [p for p in packed.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=0.01)
    first = loss(packed).item()
    for _ in range(20):
        optimizer.zero_grad()
        loss(packed).backward()
        optimizer.step()
    assert loss(packed).item() < first - 0.1
    changed = {name for name, tensor in packed.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed and all(".deltas.default." in name for name in changed)


def test_the_adapter_written_is_that_of_the_plain_model(packed, tmp_path):
    """The same names and numbers, so PEFT reads the one as it reads the other."""
    family = packed.model_type
    plain = tiny(family)
    for name, model in (("packed", packed), ("plain", plain)):
        shaken(minipoet.add_lora(model, rank=4, targets="all-linear", seed=1))
        minipoet.save_adapter(model, tmp_path / name)
    ours, theirs = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("packed", "plain"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    config = (tmp_path / "packed/adapter_config.json").read_text()
    assert config == (tmp_path / "plain/adapter_config.json").read_text()


def test_an_adapter_of_the_plain_model_is_loaded_on_the_packed_one(packed, tmp_path):
    plain = shaken(minipoet.add_lora(tiny(packed.model_type), rank=4, targets="all-linear", seed=1))
    minipoet.save_adapter(plain, tmp_path)
    before = packed(IDS)
    minipoet.load_adapter(packed, tmp_path)
    after = packed(IDS)
    assert not torch.allclose(after, before, atol=0.01)
    torch.testing.assert_close(dequantize(packed)(IDS), after, rtol=1e-4, atol=1e-4)


def test_rows_of_a_batch_have_adapters_of_their_own(packed):
    for name, seed in (("one", 1), ("two", 2)):
        minipoet.add_lora(packed, targets="all-linear", name=name, seed=seed)
    shaken(packed)
    with adapters_by_row(packed, ["two", None]):
        mixed = packed(IDS)
    for row, name in enumerate(["two", None]):
        torch.testing.assert_close(mixed[row], minipoet.set_adapter(packed, name)(IDS)[row], rtol=1e-4, atol=1e-4)


def test_merging_is_refused_with_the_reason_and_the_way(packed):
    shaken(minipoet.add_lora(packed, targets="all-linear"))
    beside = packed(IDS)
    with pytest.raises(ValueError, match=r"cannot be merged into quantised weights: .*rounded.*minipoet\.dequantize"):
        minipoet.merge_lora(packed)
    assert torch.equal(packed(IDS), beside)
    merged = minipoet.merge_lora(dequantize(packed))
    torch.testing.assert_close(merged(IDS), beside, rtol=1e-4, atol=1e-4)
    back = minipoet.unmerge_lora(merged)
    torch.testing.assert_close(back(IDS), beside, rtol=1e-4, atol=1e-4)


def test_taking_the_adapter_off_leaves_the_packed_model(packed):
    before = packed(IDS)
    shaken(minipoet.add_lora(packed, targets="all-linear"))
    minipoet.remove_lora(packed)
    assert torch.equal(packed(IDS), before) and packed_bytes(packed) > 0


def test_dequantised_weights_are_the_same_numbers_and_can_be_trained():
    packed = quantised(tiny(), CONFIG)
    before = packed(IDS)
    assert packed_bytes(packed) > 0
    plain = dequantize(packed)
    assert plain is packed and packed_bytes(plain) == 0 and list(few_bit_layers(plain)) == []
    torch.testing.assert_close(plain(IDS), before)
    assert all(parameter.requires_grad for parameter in plain.parameters())
    assert dequantize(plain) is plain


def test_dequantised_weights_may_have_another_type():
    plain = dequantize(quantised(tiny(), CONFIG), torch.bfloat16)
    assert plain.blocks[0].mlp.up.weight.dtype is plain.blocks[0].mlp.up.bias.dtype is torch.bfloat16


def test_weights_that_would_not_fit_are_told_before_anything_is_changed(monkeypatch):
    packed = quantised(tiny(), CONFIG)
    monkeypatch.setattr("minipoet.quantization.whole.available_memory", lambda device: 1000)
    with pytest.raises(ValueError, match=r"would take 0\.0 GB in torch\.float32.*check_memory=False"):
        dequantize(packed)
    assert packed_bytes(packed) > 0
    assert packed_bytes(dequantize(packed, check_memory=False)) == 0


def test_a_model_with_adapters_is_not_saved_packed(packed, tmp_path):
    minipoet.add_lora(packed, targets="all-linear")
    with pytest.raises(ValueError, match=r"save_adapter.*remove_lora"):
        save_quantized(packed, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_packed_model_and_its_adapter_come_back_from_disk(packed, tmp_path):
    save_quantized(packed, tmp_path / "base")
    shaken(minipoet.add_lora(packed, targets="all-linear"))
    minipoet.save_adapter(packed, tmp_path / "adapter")
    back = minipoet.load_adapter(load_quantized(tmp_path / "base"), tmp_path / "adapter")
    assert torch.equal(back(IDS), packed(IDS))


def test_the_plain_loader_says_where_packed_weights_are_read(tmp_path):
    save_quantized(quantised(tiny(), CONFIG), tmp_path)
    with pytest.raises(ValueError, match=r"packed in few bits \(\.qweight\): minipoet\.load"):
        load_model(tmp_path)
