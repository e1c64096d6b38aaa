"""Several adapters in one batch: adapters/rows.py, and `adapters=` of generation."""

import pytest
import torch

import minipoet
from minipoet.adapters import load_adapter, save_adapter
from minipoet.adapters.rows import adapters_by_row
from minipoet.generation import SamplingSettings, generate_ids, generate_many
from minipoet.models.gpt2 import GPT2, GPT2Config
from minipoet.models.qwen2 import Qwen2, Qwen2Config

NAMES = ("pushkin", "lermontov", "esenin")


def random_model(family="qwen2"):
    torch.manual_seed(0)
    if family == "gpt2":
        model = GPT2(GPT2Config(vocab_size=50, n_positions=40, n_embd=16, n_layer=2, n_head=2))
    else:
        config = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "max_position_embeddings": 40}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2}
        model = Qwen2(Qwen2Config(vocab_size=50, **config, **heads))
    return model.eval()


def with_adapters(family="qwen2", names=NAMES):
    model = random_model(family)
    for seed, name in enumerate(names):
        minipoet.add_lora(model, rank=2, targets="all-linear", name=name, seed=seed)
        generator = torch.Generator().manual_seed(100 + seed)
        for parameter_name, parameter in model.named_parameters():
            if f".deltas.{name}.B" in parameter_name:
                parameter.data.normal_(0, 0.5, generator=generator)
    return model


def alone(model, name, ids):
    minipoet.set_adapter(model, name)
    with torch.inference_mode():
        return model(ids[None])[0]


@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
def test_each_row_is_written_by_its_own_adapter(family):
    model = with_adapters(family)
    ids = torch.randint(0, 50, (5, 7), generator=torch.Generator().manual_seed(1))
    names = ["lermontov", None, "pushkin", "esenin", "pushkin"]
    expected = torch.stack([alone(model, name, row) for name, row in zip(names, ids, strict=True)])
    minipoet.set_adapter(model, "esenin")
    with torch.inference_mode(), adapters_by_row(model, names):
        together = model(ids)
    assert torch.allclose(together, expected, atol=1e-5)
    assert (together[2] - alone(model, None, ids[2])).abs().max() > 0.01  # the adapters do something
    assert torch.equal(alone(model, "esenin", ids[0]), model(ids[:1])[0])  # as it was before


def test_rows_that_leave_take_their_adapters_with_them():
    model = with_adapters()
    ids = torch.randint(0, 50, (3, 4), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode(), adapters_by_row(model, NAMES) as rows:
        rows.keep([2, 0])
        assert rows.names == ["esenin", "pushkin"]
        kept = model(ids[[2, 0]])
    assert torch.allclose(kept[0], alone(model, "esenin", ids[2]), atol=1e-5)
    assert torch.allclose(kept[1], alone(model, "pushkin", ids[0]), atol=1e-5)


def poems(model, prompts, adapters, **more):
    settings = SamplingSettings(max_new_tokens=12, temperature=0.9, seed=3, **more)
    seeds = list(range(len(prompts)))
    return [c.ids for c in generate_ids(model, prompts, settings, eos_ids=[1, 7, 9], seeds=seeds, adapters=adapters)]


@pytest.mark.parametrize("more", [{}, {"repetition_penalty": 1.3}])
def test_poems_of_several_adapters_in_one_batch_are_those_of_each_alone(more):
    model = with_adapters()
    prompts = [[5, 6], [5, 6], [5, 6, 8], [5, 6], [3], [5, 6]]
    names = ["lermontov", "pushkin", None, "esenin", "pushkin", "lermontov"]
    together = poems(model, prompts, names, **more)
    assert len({len(ids) for ids in together}) > 1, "some poems should end before others"
    for number, name in enumerate(names):
        minipoet.set_adapter(model, name)
        settings = SamplingSettings(max_new_tokens=12, temperature=0.9, seed=3, **more)
        one = generate_ids(model, [prompts[number]], settings, eos_ids=[1, 7, 9], seeds=[number])
        assert one[0].ids == together[number]


def test_one_adapter_in_all_rows_is_the_active_one():
    model = with_adapters()
    prompts = [[5, 6], [4]]
    named = poems(model, prompts, ["esenin", "esenin"])
    minipoet.set_adapter(model, "esenin")
    assert poems(model, prompts, None) == named


def test_adapters_with_prefixes_are_written_apart():
    model = with_adapters()
    minipoet.add_prefix(model, 3, name="tyutchev", seed=1)
    minipoet.add_prefix(model, 5, name="fet", seed=2)
    prompts, names = [[5, 6]] * 4, ["fet", "pushkin", "tyutchev", None]
    together = poems(model, prompts, names)
    for number, name in enumerate(names):
        minipoet.set_adapter(model, name)
        settings = SamplingSettings(max_new_tokens=12, temperature=0.9, seed=3)
        assert generate_ids(model, [[5, 6]], settings, eos_ids=[1, 7, 9], seeds=[number])[0].ids == together[number]
    with pytest.raises(ValueError, match="different prefixes"), adapters_by_row(model, ["fet", "tyutchev"]):
        pass


def test_switching_and_mixing_copies_no_weight():
    model = with_adapters()
    places = {name: p.data_ptr() for name, p in model.named_parameters() if ".deltas." not in name}
    for name in (*NAMES, None):
        minipoet.set_adapter(model, name)
    poems(model, [[5], [6]], ["pushkin", "esenin"])
    assert places == {name: p.data_ptr() for name, p in model.named_parameters() if ".deltas." not in name}
    shape = model.blocks[0].mlp.up.weight.shape
    assert sum(p.shape == shape for p in model.parameters()) == 2 * 2  # up and gate of two blocks, once


def test_generate_many_takes_an_adapter_a_prompt():
    model, tokenizer = minipoet.load("poet-tiny")
    for seed, name in enumerate(NAMES):
        minipoet.add_lora(model, rank=2, name=name, seed=seed)
        for parameter_name, parameter in model.named_parameters():
            if f".deltas.{name}.B" in parameter_name:
                parameter.data.normal_(0, 0.3, generator=torch.Generator().manual_seed(seed))
    options = {"max_new_tokens": 6, "seed": 4}
    found = generate_many(model, tokenizer, ["Мороз"] * 3, adapters=NAMES, samples=2, **options)
    minipoet.set_adapter(model, "lermontov")
    assert generate_many(model, tokenizer, ["Мороз"] * 3, samples=2, **options)[1] == found[1]
    one = minipoet.generate(model, tokenizer, "Мороз", adapters=["lermontov"], **options)
    assert one == minipoet.generate(model, tokenizer, "Мороз", **options)
    assert one != minipoet.generate(model, tokenizer, "Мороз", adapters=["esenin"], **options)


def test_three_saved_adapters_are_loaded_by_name(tmp_path):
    model = with_adapters()
    ids = torch.tensor([3, 4, 5])
    expected = {name: alone(model, name, ids) for name in NAMES}
    for name in NAMES:
        minipoet.set_adapter(model, name)
        save_adapter(model, tmp_path / name)
    fresh = random_model()
    for name in NAMES:
        load_adapter(fresh, tmp_path / name, name=name)
    for name in NAMES:
        assert torch.allclose(alone(fresh, name, ids), expected[name], atol=1e-6)


@pytest.mark.parametrize(
    ("adapters", "said"),
    [
        (["pushkin"], "of each of the 2 prompts, got 1"),
        ("pushkin", "of each of the 2 prompts, got 'pushkin'"),
        (["pushkin", "fet"], "There is no adapter 'fet' on this model; it has"),
        (["pushkin", 3], "There is no adapter 3"),
    ],
)
def test_wrong_adapters_are_told(adapters, said):
    with pytest.raises(ValueError, match=said):
        poems(with_adapters(), [[5], [6]], adapters)


def test_a_merged_adapter_is_in_every_row():
    model = with_adapters()
    minipoet.set_adapter(model, "pushkin")
    minipoet.merge_lora(model)
    with pytest.raises(ValueError, match="'pushkin' is merged"):
        poems(model, [[5], [6]], ["pushkin", None])
