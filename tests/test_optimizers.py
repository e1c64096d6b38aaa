"""The learning rate by hand, and which parameter goes to which optimiser, with or without decay."""

import pytest
import torch
from safetensors.torch import load_file
from training_support import tiny_batches, tiny_gpt2

from minipoet.adapters import add_lora
from minipoet.models.t5 import T5, T5Config
from minipoet.training import TrainSettings, train
from minipoet.training.optimizers import learning_rate, make_optimizers


def rates(steps: list[int], **options) -> list[float]:
    settings = TrainSettings(**({"steps": 12, "warmup": 2} | options))
    return [learning_rate(step, settings) for step in steps]


def names(model, parameters) -> set[str]:
    of = {id(p): name for name, p in model.named_parameters()}
    return {of[id(p)] for p in parameters}


def test_warmup_rises_in_equal_steps():
    assert rates([0, 1, 2, 3], warmup=4) == [0.25, 0.5, 0.75, 1.0]


def test_without_warmup_the_first_step_is_at_full_height():
    for schedule in ("cosine", "linear", "constant"):
        assert rates([0], warmup=0, schedule=schedule) == [1.0]


def test_cosine_is_half_way_down_at_the_middle():
    assert rates([2, 7, 12]) == pytest.approx([1.0, 0.5, 0.0])
    assert rates([2, 7, 12], final_lr=0.1) == pytest.approx([1.0, 0.55, 0.1])


def test_linear_is_flat_and_then_straight():
    assert rates([2, 6, 7, 8, 11, 12], schedule="linear") == pytest.approx([1.0, 1.0, 1.0, 0.8, 0.2, 0.0])
    assert rates([2, 7, 11], schedule="linear", decay=1.0) == pytest.approx([1.0, 0.5, 0.1])
    assert rates([8, 12], schedule="linear", final_lr=0.5) == pytest.approx([0.9, 0.5])


def test_constant_stays():
    assert rates([2, 7, 11], schedule="constant") == [1.0, 1.0, 1.0]


def test_past_the_end_the_rate_stays_where_it_ended():
    assert rates([13, 100], final_lr=0.1) == pytest.approx([0.1, 0.1])
    assert rates([13, 100], schedule="linear") == [0.0, 0.0]


def test_biases_and_norms_do_not_decay():
    model = tiny_gpt2()
    (adamw,) = make_optimizers(model, TrainSettings(steps=1, weight_decay=0.1))
    decayed = names(model, [p for group in adamw.param_groups if group["weight_decay"] for p in group["params"]])
    free = names(model, [p for group in adamw.param_groups if not group["weight_decay"] for p in group["params"]])
    assert free == {name for name, _ in model.named_parameters() if "norm" in name or name.endswith("bias")}
    assert decayed | free == {name for name, _ in model.named_parameters()}
    assert "blocks.1.mlp.up.weight" in decayed
    assert {group["weight_decay"] for group in adamw.param_groups} == {0.1, 0.0}


def test_muon_gets_the_matrices_of_the_blocks_and_nothing_else():
    model = tiny_gpt2(tie_word_embeddings=False)
    adamw, muon = make_optimizers(model, TrainSettings(steps=1, lr=1e-3, optimizer="muon", muon_lr=0.02))
    layers = ("attn.qkv", "attn.out", "mlp.up", "mlp.down")
    matrices = {f"blocks.{i}.{layer}.weight" for i in (0, 1) for layer in layers}
    assert names(model, [p for group in muon.param_groups for p in group["params"]]) == matrices
    rest = names(model, [p for group in adamw.param_groups for p in group["params"]])
    assert rest == {name for name, _ in model.named_parameters()} - matrices
    assert {group["base_lr"] for group in muon.param_groups} == {0.02}
    assert {group["base_lr"] for group in adamw.param_groups} == {1e-3}


def test_only_what_requires_a_gradient_is_trained():
    model = add_lora(tiny_gpt2(), rank=2)
    (adamw,) = make_optimizers(model, TrainSettings(steps=1))
    trained = names(model, [p for group in adamw.param_groups for p in group["params"]])
    assert trained == {f"blocks.{i}.attn.qkv.deltas.default.{m}" for i in (0, 1) for m in "AB"}


def test_nothing_to_train_is_refused():
    with pytest.raises(ValueError, match="Nothing to train"):
        make_optimizers(tiny_gpt2().requires_grad_(False), TrainSettings(steps=1))


def test_muon_without_matrices_of_blocks_is_refused():
    model = tiny_gpt2()
    model.blocks.requires_grad_(False)
    with pytest.raises(ValueError, match="none of them trains"):
        make_optimizers(model, TrainSettings(steps=1, optimizer="muon"))


def adafactor(value: float, gradients: list[list[list[float]]]) -> torch.Tensor:
    """A matrix of this value after steps with these gradients, at a rate of 0.01."""
    module = torch.nn.Linear(2, 2, bias=False)
    torch.nn.init.constant_(module.weight, value)
    (optimizer,) = make_optimizers(module, TrainSettings(steps=9, lr=0.01, optimizer="adafactor"))
    for gradient in gradients:
        module.weight.grad = torch.tensor(gradient)
        optimizer.step()
    return module.weight.detach()


def test_adafactor_steps_by_a_share_of_the_size_of_the_matrix():
    # Squares [[1, 4], [4, 16]] are the product of their row means 2.5, 10 and column means 2.5, 10 over the mean 6.25:
    # so the estimate is exact, and each number moves by one unit, times the rate, times the size of the matrix.
    gradient = [[1.0, -2.0], [2.0, 4.0]]
    signs = torch.tensor(gradient).sign()
    for value, size in ((1.0, 1.0), (0.5, 0.5), (-4.0, 4.0), (0.0, 1e-3)):
        torch.testing.assert_close(adafactor(value, [gradient]) - value, -0.01 * size * signs, atol=1e-6, rtol=1e-3)


def test_adafactor_does_not_mind_how_small_gradients_are():
    large, small = ([[[scale, -2 * scale], [3 * scale, scale]]] * 3 for scale in (1.0, 1e-6))
    torch.testing.assert_close(adafactor(1.0, large), adafactor(1.0, small))


def test_adafactor_leaves_rows_that_were_never_read_as_they_are():
    torch.testing.assert_close(adafactor(1.0, [[[1.0, 2.0], [0.0, 0.0]]] * 2)[1], torch.ones(2), rtol=0, atol=0)


def test_adafactor_keeps_a_row_and_a_column_of_each_matrix(tmp_path):
    settings = TrainSettings(steps=3, lr=0.01, optimizer="adafactor", precision="fp32")
    train(tiny_gpt2(), tiny_batches(), settings, tmp_path, stop_after=2, quiet=True)
    slots = {name: tensor.shape for name, tensor in load_file(tmp_path / "last.safetensors").items() if "optim" in name}
    kinds = {name.rsplit(".", 1)[1] for name in slots}
    assert kinds == {"step", "row_var", "col_var", "variance"}
    numbers = sum(shape.numel() for name, shape in slots.items() if not name.endswith("step"))
    expected = sum(sum(p.shape) if p.ndim == 2 else p.numel() for p in tiny_gpt2().parameters())
    assert numbers == expected < sum(p.numel() for p in tiny_gpt2().parameters()) / 5


@pytest.mark.parametrize("optimizer", ["adafactor", "sgd", "rmsprop"])
def test_resumed_run_of_any_optimizer_equals_one_that_never_stopped(tmp_path, optimizer):
    torch.set_num_threads(1)
    settings = TrainSettings(steps=6, lr=0.01, warmup=2, weight_decay=0.1, optimizer=optimizer, precision="fp32")
    whole, halves, resumed = tiny_gpt2(0.2), tiny_gpt2(0.2), tiny_gpt2(0.2)
    train(whole, tiny_batches(), settings, tmp_path / "whole", quiet=True)
    train(halves, tiny_batches(), settings, tmp_path / "halves", stop_after=3, quiet=True)
    train(resumed, tiny_batches(), settings, tmp_path / "halves", resume=True, quiet=True)
    ours, theirs = (load_file(tmp_path / name / "last.safetensors") for name in ("halves", "whole"))
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    start = tiny_gpt2(0.2).embed.weight
    assert not torch.equal(resumed.embed.weight, start)


def test_muon_takes_smaller_steps_on_what_has_to_stay_small():
    # Scaled scores, (x W)·k / √D, and unscaled ones, (x W')·k with W' = W / √D, are one function; they must remain so.
    torch.manual_seed(0)
    settings = TrainSettings(steps=1, optimizer="muon", weight_decay=0.5)
    sizes = {"vocab_size": 20, "d_model": 16, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    model = T5(T5Config(**sizes, relative_attention_num_buckets=8))
    q, k = (model.decoder.blocks[0].cross.get_submodule(name).weight for name in ("q", "k"))
    with torch.no_grad():
        k.copy_(q * 2)  # √D = 2: as if k were q without its scale
    gradient = torch.randn_like(q)
    q.grad, k.grad = gradient.clone(), gradient / 2
    optimizers = make_optimizers(model, settings)
    for optimizer in optimizers:
        optimizer.step()
    torch.testing.assert_close(2 * q, k, rtol=1e-4, atol=1e-6)


def test_all_matrices_of_other_families_are_one_group_of_muon():
    muon = make_optimizers(tiny_gpt2(), TrainSettings(steps=1, optimizer="muon", weight_decay=0.1))[-1]
    assert [(group["lr"], group["weight_decay"]) for group in muon.param_groups] == [(0.02, 0.1)]
