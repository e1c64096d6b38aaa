"""A whole model: which layers are rounded, by what they read, in which order, and what a careless caller is told."""

import warnings

import pytest
import torch
from test_gpt2 import tiny as tiny_gpt2
from test_qwen2 import tiny as tiny_qwen
from torch import nn

import minipoet
from minipoet.models.rnn import LSTM, RNNConfig
from minipoet.quantization.calibrate import quantize
from minipoet.quantization.gptq import Hessian, gptq
from minipoet.quantization.grid import QuantConfig, round_to_nearest
from minipoet.quantization.layer import FewBitLinear, GPTQLinear
from minipoet.quantization.nf4 import NF4Linear
from minipoet.training import Batches, TrainSettings, train

MODELS = {"GPT-2": tiny_gpt2, "Qwen2": lambda: tiny_qwen(intermediate_size=64), "Qwen3": lambda: tiny_qwen(1)}
SETS = {
    "GPT-2": [["attn.qkv"], ["attn.out"], ["mlp.up"], ["mlp.down"]],
    "Qwen2": [["attn.q", "attn.k", "attn.v"], ["attn.out"], ["mlp.gate", "mlp.up"], ["mlp.down"]],
}
FOUR = QuantConfig(bits=4, group_size=16)


def texts(count=60, seed=0):
    """Texts of 5 to 30 ids, 1,000 in all or so."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(5, 31, (count,), generator=generator).tolist()
    return [torch.randint(1, 50, (length,), generator=generator).tolist() for length in lengths]


def rows_of(ids, length):
    """(text ids so far in this row, …): pieces of the joined texts as a row of `length` tokens holds them."""
    pieces, room = [], length
    for text in ids:
        while text:
            pieces.append(text[:room])
            text, room = text[room:], room - len(text[:room]) or length
    return pieces


def one_by_one(model, ids, config, sets):
    """The same by brute force: for each set of layers each text goes, alone, through the whole model as it is now."""
    for block in model.blocks:
        for names in sets:
            hessian = Hessian(block.get_submodule(names[0]).in_features)
            hook = block.get_submodule(names[0]).register_forward_pre_hook(
                lambda _, inputs, h=hessian: h.add(inputs[0])
            )
            with torch.no_grad():
                for text in ids:
                    model.states(torch.tensor([text]))
            hook.remove()
            for name in names:
                layer = block.get_submodule(name)
                block.set_submodule(name, GPTQLinear.of(gptq(layer.weight, hessian, config).codes, layer.bias))
    return model


def packed(model):
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, FewBitLinear)}


@pytest.mark.parametrize("name", SETS)
def test_codes_are_those_of_texts_that_go_one_by_one_through_the_whole_model(name):
    ids = texts()
    found = packed(quantize(MODELS[name](), ids, FOUR, length=32, quiet=True))
    expected = packed(one_by_one(MODELS[name](), rows_of(ids, 32), FOUR, SETS[name]))
    assert list(found) == list(expected) and len(found) == 2 * sum(map(len, SETS[name]))
    for layer, other in zip(found.values(), expected.values(), strict=True):
        same = (layer.codes().q == other.codes().q).float().mean()
        assert float(same) > 0.995  # fp32 sums in another order may turn a tie


@pytest.mark.parametrize("name", MODELS)
def test_the_blocks_linear_layers_are_rounded_and_nothing_else(name):
    model, before = MODELS[name](), MODELS[name]()
    plain = {n for n, m in before.named_modules() if isinstance(m, nn.Linear) and n != "head"}
    assert quantize(model, texts(), FOUR, quiet=True) is model
    assert set(packed(model)) == plain
    left = dict(before.named_parameters())
    for n, parameter in model.named_parameters():
        assert torch.equal(parameter, left[n])
    assert torch.isfinite(model(torch.tensor([texts()[0]]))).all()


def test_a_block_is_rounded_when_all_before_it_are_and_none_behind():
    model, seen = tiny_gpt2(n_layer=3), []

    def look(block, number):
        def hook(module, inputs):
            seen.append((number, [bool(packed(other)) for other in model.blocks]))

        block.register_forward_pre_hook(hook)

    for number, block in enumerate(model.blocks):
        look(block, number)
    quantize(model, texts(), FOUR, quiet=True)
    own = [number for number, _ in seen]
    assert own == sorted(own)  # no text goes back to an earlier block, or ahead
    assert all(state[:n] == [True] * n and not any(state[n + 1 :]) for n, state in seen)


def test_later_layers_of_a_block_read_what_rounded_ones_give_only_if_sequential():
    config = QuantConfig(bits=2, group_size=-1, true_sequential=False)
    apart = packed(quantize(tiny_gpt2(n_layer=1), texts(), config, quiet=True))
    ordered = packed(quantize(tiny_gpt2(n_layer=1), texts(), QuantConfig(bits=2, group_size=-1), quiet=True))
    assert torch.equal(apart["blocks.0.attn.qkv"].qweight, ordered["blocks.0.attn.qkv"].qweight)
    assert not torch.equal(apart["blocks.0.mlp.down"].qweight, ordered["blocks.0.mlp.down"].qweight)
    model = tiny_gpt2(n_layer=1)  # by hand: what the plain block reads
    hessian = Hessian(128)
    hook = model.blocks[0].mlp.down.register_forward_pre_hook(lambda _, inputs: hessian.add(inputs[0]))
    with torch.no_grad():
        for text in rows_of(texts(), 32):
            model.states(torch.tensor([text]))
    hook.remove()
    codes = gptq(model.blocks[0].mlp.down.weight, hessian, config).codes
    assert float((apart["blocks.0.mlp.down"].codes().q == codes.q).float().mean()) > 0.995


@pytest.mark.parametrize("name", MODELS)
def test_logits_stay_nearer_than_by_rounding_to_nearest(name):
    ids, config = texts(200), QuantConfig(bits=4, group_size=16)
    held = torch.tensor([text[:5] for text in texts(40, seed=1)])
    plain = MODELS[name]()(held).detach()

    def error(model):
        return float((model(held).detach() - plain).square().mean())

    by_text = error(quantize(MODELS[name](), ids, config, quiet=True))
    assert by_text < error(quantize(MODELS[name](), None, config, "rtn", quiet=True))
    assert error(quantize(MODELS[name](), None, None, "int8", quiet=True)) < 0.2 * by_text


def test_methods_without_text_give_what_they_say():
    weight = tiny_gpt2().blocks[1].mlp.up.weight
    kinds = {
        "rtn": (QuantConfig(3, 32), round_to_nearest(weight, QuantConfig(3, 32)).dense()),
        "int8": (None, round_to_nearest(weight, QuantConfig(8, -1)).dense()),
    }
    for method, (config, dense) in kinds.items():
        layer = quantize(tiny_gpt2(), None, config, method, quiet=True).blocks[1].mlp.up
        assert isinstance(layer, GPTQLinear) and torch.equal(layer.dense(), dense)
    assert isinstance(quantize(tiny_gpt2(), method="nf4", quiet=True).blocks[1].mlp.up, NF4Linear)


def test_each_layer_is_told_with_its_error():
    told = {}
    quantize(tiny_gpt2(), texts(), FOUR, told=told.__setitem__, quiet=True)
    assert list(told)[:4] == [f"blocks.0.{name}" for (name,) in SETS["GPT-2"]] and len(told) == 8
    assert all(1e-5 < error < 0.05 for error in told.values())
    nearest = {}
    model = quantize(tiny_gpt2(), None, FOUR, "rtn", told=nearest.__setitem__, quiet=True)
    weight, dense = tiny_gpt2().blocks[0].attn.out.weight.detach(), model.blocks[0].attn.out.dense()
    assert nearest["blocks.0.attn.out"] == pytest.approx(float((weight - dense).square().sum() / weight.square().sum()))


def test_skipped_layers_stay_and_their_inputs_are_still_those_of_rounded_ones():
    model = quantize(tiny_gpt2(), texts(), FOUR, skip=("mlp.down", "blocks.1.attn.qkv", "head"), quiet=True)
    assert [n for n in packed(model) if n.startswith("blocks.1")] == ["blocks.1.attn.out", "blocks.1.mlp.up"]
    assert torch.equal(model.blocks[0].mlp.down.weight, tiny_gpt2().blocks[0].mlp.down.weight)


def test_dropout_is_off_and_the_mode_comes_back():
    models = [tiny_gpt2(resid_pdrop=0.5).train(mode) for mode in (False, True)]
    words = [quantize(model, texts(), FOUR, quiet=True).blocks[1].mlp.down.qweight for model in models]
    assert torch.equal(*words)
    assert [model.training for model in models] == [False, True]


def test_too_little_text_is_told_once():
    with pytest.warns(UserWarning, match="too little text") as told:
        quantize(tiny_gpt2(), texts(3), FOUR, quiet=True)
    (message,) = [str(warning.message) for warning in told]
    assert "are too little text to calibrate on: blocks.0.mlp.down alone has 128 inputs" in message
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantize(tiny_gpt2(), texts(), FOUR, quiet=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texts": None}, r"needs calibration text: lists of token ids.*encode_texts.*\"rtn\" or \"nf4\""),
        ({"texts": []}, "needs calibration text"),
        ({"texts": ["стих"]}, "A calibration text must be a list of whole numbers, as encode gives them, got 'стих'"),
        ({"texts": [[1, 99] * 200]}, "The ids go from 1 to 99, but this model has 0 to 49"),
        ({"method": "awq"}, "method must be one of gptq, rtn, nf4, int8, got 'awq'"),
        ({"method": "rtn"}, r'method="rtn" reads no text'),
        ({"method": "nf4", "texts": None}, r'method="nf4" has no settings'),
        ({"config": {"bits": 4}}, r"config must be a QuantConfig\(bits=4, group_size=128, ...\), got dict"),
        ({"skip": ["mlp.gate"]}, r"skip names layers that are not there: mlp.gate; there are .*mlp.down.*head"),
        ({"skip": ["qkv", "out", "up", "down"]}, "There is no layer left to round"),
        ({"length": 0}, "Expected whole numbers of at least 1, got length=0"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_and_changes_nothing(arguments, message):
    model, before = tiny_gpt2(), tiny_gpt2()
    with pytest.raises(ValueError, match=message):
        quantize(model, **({"texts": texts(), "config": FOUR, "quiet": True} | arguments))
    assert not packed(model)
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), before.parameters(), strict=True))


def test_models_that_cannot_be_rounded_are_told_so():
    with pytest.raises(ValueError, match="A LSTM cannot be quantised: only decoders"):
        quantize(LSTM(RNNConfig(vocab_size=50)), texts(), FOUR)
    with pytest.raises(ValueError, match=r"carries adapters: merge or remove them first"):
        quantize(minipoet.add_lora(tiny_gpt2(), targets=("attn.qkv",)), texts(), FOUR)
    with pytest.raises(ValueError, match=r"carries adapters"):
        quantize(minipoet.add_prefix(tiny_gpt2(), 3), texts(), FOUR)
    with pytest.raises(ValueError, match="in few bits already"):
        quantize(quantize(tiny_gpt2(), method="nf4", quiet=True), method="nf4")
    with pytest.raises(ValueError, match="The model must be a language model"):
        quantize(nn.Linear(8, 8), texts(), FOUR)
    with pytest.raises(
        ValueError, match=r"filled by 32 inputs or outputs .* blocks.0.mlp.gate \(32 inputs, 40 outputs\)"
    ):
        quantize(tiny_qwen(), texts(), QuantConfig(bits=3, group_size=16))


@pytest.mark.parametrize("method", ["rtn", "gptq"])
def test_nothing_of_a_quantised_model_trains_without_an_adapter(method, tmp_path):
    model = quantize(tiny_gpt2(), texts() if method == "gptq" else None, FOUR, method, quiet=True)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(ValueError, match="Nothing to train: no parameter requires a gradient. Add an adapter"):
        train(model, Batches([list(range(20))], 8, 1), TrainSettings(steps=1), tmp_path)
