"""Prefixes on disk: PEFT's files both ways against what it recorded, the MLP beside them, and a LoRA beside both."""

import contextlib
import json
import shutil

import pytest
import torch
from reference_data import load_json, load_tensors, reference
from safetensors.torch import load_file, save_file
from test_gpt2 import assert_logits_equal, tiny

import minipoet
from minipoet.adapters import AdapterError, ProjectedPrefix, adapter_names, files, lora_layers, peft
from minipoet.generation import SamplingSettings, generate_ids
from minipoet.models import count_parameters, load_model
from minipoet.models.gpt2 import GPT2, GPT2Config
from minipoet.models.rnn import CELLS, RNNConfig
from minipoet.models.window import WindowMLP, WindowMLPConfig

RECORDED = ["plain", "projection", "zero"]
READ = [*RECORDED, "plain_old_bin"]
IDS = torch.arange(20).view(2, 10)
CONFIG, WEIGHTS, MLP = "adapter_config.json", "adapter_model.safetensors", "prefix_mlp.safetensors"


def base():
    return load_model(reference("gpt2/plain"))


def recorded(name):
    return load_tensors(f"prefix/{name.removesuffix('_old_bin')}.outputs")


def recurrent(cell="lstm", **options):
    sizes = {"vocab_size": 97, "n_embd": 8, "n_hidden": 32, "n_layer": 2}
    return CELLS[cell](RNNConfig(**(sizes | options))).eval()


def recorded_mlp():
    """gpt2/plain with the recorded MLP, as PEFT had it while it learnt."""
    model = minipoet.add_prefix(base(), 3, projection=True, hidden=12)
    tensors = recorded("projection")
    prefix = model.prefixes.by_name["default"]
    prefix.load_state_dict({name: tensors[f"mlp.{name}"] for name in prefix.state_dict()})
    return model


def adapted(kind, seed=1):
    """gpt2/plain with a LoRA, a prefix, one by an MLP, or both, that does something."""
    model = base()
    if kind in ("lora", "both"):
        minipoet.add_lora(model, rank=2, alpha=8, targets="all-linear", seed=seed)
        for _, layer in lora_layers(model):
            layer.delta("default").B.data.normal_(0, 0.2, generator=torch.Generator().manual_seed(seed))
    if kind in ("prefix", "projected", "both"):
        minipoet.add_prefix(model, 5, projection=kind != "prefix", seed=seed)
    return model


def says(folder):
    """The logits of gpt2/plain with what is in the folder."""
    with torch.no_grad():
        return minipoet.load_adapter(base(), folder)(IDS)


def change_config(folder, **values):
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def copy(name, folder):
    """A recorded folder that may be spoilt."""
    return shutil.copytree(reference(name), folder / "copy")


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# What PEFT wrote


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("case", ["full", "left"])
def test_a_prefix_of_peft_gives_its_logits(name, case):
    theirs = recorded(name)
    model = minipoet.load_adapter(base(), reference(f"prefix/{name}"))
    mask = theirs.get(f"{case}.mask", torch.ones_like(theirs["ids"]))
    real = mask.bool()
    assert_logits_equal(model(theirs["ids"], segments=mask)[real], theirs[f"{case}.logits"][real])
    assert_logits_equal(model(theirs["ids"])[0], theirs["full.logits"][0])  # and without segments


@pytest.mark.parametrize("name", READ)
def test_a_padded_batch_is_continued_as_peft_continues_it(name):
    theirs = recorded(name)
    model = minipoet.load_adapter(base(), reference(f"prefix/{name}"))
    prompts = [row[mask.bool()].tolist() for row, mask in zip(theirs["ids"], theirs["left.mask"], strict=True)]
    new = theirs["left.greedy"]
    settings = SamplingSettings(max_new_tokens=new.shape[1], temperature=0)
    assert [list(poem.ids) for poem in generate_ids(model, prompts, settings)] == new.tolist()


@pytest.mark.parametrize("name", RECORDED)
def test_loss_and_gradients_are_pefts(name):
    theirs = recorded(name)
    model = recorded_mlp() if name == "projection" else minipoet.load_adapter(base(), reference(f"prefix/{name}"))
    ids = theirs["ids"]
    loss = torch.nn.functional.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    assert torch.allclose(loss, theirs["loss"], rtol=1e-6)
    ours = {f"grad.{part}": p.grad for part, p in model.prefixes.by_name["default"].named_parameters()}
    assert ours.keys() == {key for key in theirs if key.startswith("grad.")}
    for key, grad in ours.items():
        assert torch.allclose(grad, theirs[key], rtol=1e-4, atol=1e-5 * float(theirs[key].abs().max())), key
    assert count_parameters(model) == tuple(load_json("prefix/counts")[name][part] for part in ("trainable", "all"))


@pytest.mark.parametrize("size", load_json("prefix/counts_full_size"))
def test_full_size_counts_are_pefts_from_the_shapes_alone(size):
    theirs = load_json("prefix/counts_full_size")[size]
    with torch.device("meta"):
        model = GPT2(GPT2Config(**theirs["config"]))
    for kind, options in (("plain", {}), ("projection", {"projection": True, "hidden": 512})):
        minipoet.add_prefix(model, 15, **options)
        assert count_parameters(model) == (theirs[kind]["trainable"], theirs[kind]["all"])
        minipoet.remove_prefix(model)


# What we write


@pytest.mark.parametrize("name", ["plain", "projection"])
def test_what_is_written_is_what_peft_writes(name, tmp_path):
    model = recorded_mlp() if name == "projection" else minipoet.load_adapter(base(), reference("prefix/plain"))
    model.origin = "gpt2/plain"
    minipoet.save_adapter(model, tmp_path)
    ours, theirs = (load_file(folder / WEIGHTS) for folder in (tmp_path, reference(f"prefix/{name}")))
    assert {key: (t.shape, t.dtype) for key, t in ours.items()} == {
        key: (t.shape, t.dtype) for key, t in theirs.items()
    }
    assert_logits_equal(ours["prompt_embeddings"], theirs["prompt_embeddings"])
    ours, theirs = (json.loads((folder / CONFIG).read_text()) for folder in (tmp_path, reference(f"prefix/{name}")))
    own = {"auto_mapping", "prefix_projection", "encoder_hidden_size"}  # the last two: the file holds plain numbers
    assert theirs.keys() - ours.keys() == {"init_weights", "modules_to_save", "peft_version"}
    assert ours.keys() <= theirs.keys()
    assert {key: value for key, value in ours.items() if key not in own} == {
        key: theirs[key] for key in ours.keys() - own
    }
    assert (ours["prefix_projection"], ours["encoder_hidden_size"]) == (False, 32)


@pytest.mark.parametrize("kind", ["prefix", "projected", "lora", "both"])
def test_an_adapter_goes_out_and_back_unchanged(kind, tmp_path):
    model = adapted(kind)
    minipoet.save_adapter(model, tmp_path / "one")
    again = minipoet.load_adapter(base(), tmp_path / "one", name="x")
    assert torch.equal(again(IDS), model(IDS))
    assert (model(IDS) - base()(IDS)).abs().max() > 0.1
    minipoet.save_adapter(again, tmp_path / "two")
    for file in files_in(tmp_path / "one"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert files_in(tmp_path / "one") == files_in(tmp_path / "two")


def test_one_of_several_prefixes_is_saved_by_its_name(tmp_path):
    model = minipoet.add_prefix(base(), 2, name="short", seed=1)
    wanted = model(IDS)
    minipoet.add_prefix(model, 4, name="long", seed=2)
    minipoet.save_adapter(model, tmp_path, "short")
    assert torch.equal(says(tmp_path), wanted)


def test_training_goes_on_through_the_mlp_that_was_saved(tmp_path):
    model = adapted("projected")
    minipoet.save_adapter(model, tmp_path)
    again = minipoet.load_adapter(base(), tmp_path)
    assert isinstance(again.prefixes.by_name["default"], ProjectedPrefix)
    for one in (model, again):
        for _ in range(3):
            one.zero_grad()
            one(IDS).logsumexp(-1).sum().backward()
            with torch.no_grad():
                for parameter in one.prefixes.parameters():
                    parameter -= 0.01 * parameter.grad
    assert count_parameters(again) == count_parameters(model)
    parts = [dict(one.prefixes.by_name["default"].named_parameters()) for one in (model, again)]
    assert all(
        torch.equal(parts[1][name].grad, p.grad) and torch.equal(parts[1][name], p) for name, p in parts[0].items()
    )


def test_an_mlp_in_half_precision_is_known_again(tmp_path):
    model = adapted("projected").bfloat16()  # it multiplies with 8 bits now, whoever reads it with 24
    minipoet.save_adapter(model, tmp_path)
    again = minipoet.load_adapter(base().bfloat16(), tmp_path)
    assert isinstance(again.prefixes.by_name["default"], ProjectedPrefix)


def test_a_prefix_over_half_precision_is_written_in_fp32(tmp_path):
    model = minipoet.add_prefix(base().bfloat16(), 5)
    numbers = model.beginning().detach().flatten(1)
    minipoet.save_adapter(model, tmp_path)
    assert torch.equal(load_file(tmp_path / WEIGHTS)["prompt_embeddings"], numbers)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("n_layer", [1, 2])
def test_a_first_state_goes_out_and_back(cell, n_layer, tmp_path):
    plain = recurrent(cell, n_layer=n_layer)
    wanted = minipoet.add_prefix(plain, 1)(IDS)
    minipoet.save_adapter(plain, tmp_path)
    minipoet.remove_prefix(plain)
    assert torch.equal(minipoet.load_adapter(plain, tmp_path)(IDS), wanted)


# The MLP beside the numbers


def spoil_numbers(folder):
    """As another program does that trains on, and writes into the same folder."""
    numbers = load_file(folder / WEIGHTS)["prompt_embeddings"]
    save_file({"prompt_embeddings": numbers + 0.01}, folder / WEIGHTS)


def swap_mlp(folder):
    minipoet.save_adapter(adapted("projected", seed=2), folder.parent / "other")
    shutil.copy(folder.parent / "other" / MLP, folder)


def drop_bias(folder):
    tensors = load_file(folder / MLP)
    save_file({name: tensors[name] for name in tensors if name != "up.bias"}, folder / MLP)


def another_width(folder):
    tensors = load_file(folder / MLP)
    save_file(tensors | {"up.bias": torch.tensor(1.0)}, folder / MLP)


@pytest.mark.parametrize("spoil", [spoil_numbers, swap_mlp, drop_bias, another_width])
def test_an_mlp_that_does_not_make_the_numbers_is_refused_and_the_way_out_works(spoil, tmp_path):
    folder = tmp_path / "a"
    minipoet.save_adapter(adapted("projected"), folder)
    spoil(folder)
    model = base()
    with pytest.raises(AdapterError, match=r"delete prefix_mlp\.safetensors, and the prefix is read as plain numbers"):
        minipoet.load_adapter(model, folder)
    assert model.prefixes is None
    (folder / MLP).unlink()
    minipoet.load_adapter(model, folder)
    assert torch.equal(model.beginning().detach().flatten(1), load_file(folder / WEIGHTS)["prompt_embeddings"])


def test_an_mlp_that_is_cut_short_is_told(tmp_path):
    minipoet.save_adapter(adapted("projected"), tmp_path)
    (tmp_path / MLP).write_bytes((tmp_path / MLP).read_bytes()[:500])
    with pytest.raises(AdapterError, match=r"prefix_mlp\.safetensors is broken or cut short"):
        minipoet.load_adapter(base(), tmp_path)


def test_numbers_that_peft_writes_again_keep_the_mlp(tmp_path):
    model = adapted("projected")
    minipoet.save_adapter(model, tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    save_file(tensors, tmp_path / WEIGHTS)
    change_config(tmp_path, prefix_projection=True, peft_version="0.21.2")
    assert torch.equal(says(tmp_path), model(IDS))
    assert isinstance(minipoet.load_adapter(base(), tmp_path).prefixes.by_name["default"], ProjectedPrefix)


# A LoRA and a prefix under one name


def test_both_are_two_folders_of_peft_and_each_is_one_alone(tmp_path):
    model = adapted("both")
    minipoet.save_adapter(model, tmp_path)
    assert files_in(tmp_path) == [f"lora/{CONFIG}", f"lora/{WEIGHTS}", f"prefix/{CONFIG}", f"prefix/{WEIGHTS}",
                                  f"prefix/{MLP}"]  # fmt: skip
    again = minipoet.load_adapter(base(), tmp_path)
    assert adapter_names(again) == ["default"] and again.adapters["default"].keys() == {"lora", "prefix"}
    assert count_parameters(again) == count_parameters(model)
    assert torch.equal(says(tmp_path / "prefix"), minipoet.remove_lora(again)(IDS))
    assert torch.equal(says(tmp_path / "lora"), minipoet.remove_prefix(model)(IDS))
    parts = minipoet.load_adapter(minipoet.load_adapter(base(), tmp_path / "lora"), tmp_path / "prefix")
    assert torch.equal(parts(IDS), says(tmp_path))


KINDS = ["lora", "prefix", "projected", "both"]


@pytest.mark.parametrize("now", KINDS)
@pytest.mark.parametrize("before", KINDS)
def test_what_was_saved_last_is_read(before, now, tmp_path):
    minipoet.save_adapter(adapted(before, seed=2), tmp_path)
    minipoet.save_adapter(adapted(now, seed=1), tmp_path)
    assert torch.equal(says(tmp_path), adapted(now, seed=1)(IDS))
    assert (tmp_path / MLP).exists() == (now == "projected")
    assert (tmp_path / WEIGHTS).exists() == (now != "both")


@pytest.mark.parametrize(
    ("before", "now"),
    [(None, "projected"), (None, "both"), ("lora", "projected"), ("projected", "lora"), ("projected", "both"),
     ("both", "projected"), ("both", "both")],
)  # fmt: skip
def test_saving_that_is_cut_short_leaves_the_old_adapter_or_none(before, now, tmp_path, monkeypatch):
    """A crash at each place: nothing is ever read that was not saved as a whole."""

    class Crash(Exception):
        pass

    def dying(real):
        def write(*arguments, **options):
            nonlocal left
            left -= 1
            if left < 0:
                raise Crash
            return real(*arguments, **options)

        return write

    new, old = adapted(now, seed=1), None if before is None else adapted(before, seed=2)
    whole = [model(IDS) for model in (old, new) if model is not None]
    for module, name in (
        *((peft, name) for name in ("write_tensors_atomic", "write_json_atomic", "remove")),
        *((files, name) for name in ("remove", "make_folder")),
    ):
        monkeypatch.setattr(module, name, dying(getattr(module, name)))
    monkeypatch.setattr("os.fsync", lambda file: None)  # slow, and of no use here
    left = 99
    (tmp_path / "old").mkdir()
    if old is not None:
        minipoet.save_adapter(old, tmp_path / "old")
    for place in range(99):
        folder, left = shutil.copytree(tmp_path / "old", tmp_path / str(place)), place
        try:
            minipoet.save_adapter(new, folder)
            break
        except Crash:
            pass
        with contextlib.suppress(AdapterError):
            said = says(folder)
            assert any(torch.equal(said, logits) for logits in whole), f"after {place} steps"
    assert place > 3
    assert torch.equal(says(folder), new(IDS))


def test_an_unfinished_part_is_told(tmp_path):
    minipoet.save_adapter(adapted("both"), tmp_path)
    (tmp_path / "prefix" / CONFIG).unlink()
    with pytest.raises(AdapterError, match=r"prefix has no adapter_config\.json .*saving it was cut short"):
        minipoet.load_adapter(base(), tmp_path)
    for file in files_in(tmp_path / "prefix"):
        (tmp_path / "prefix" / file).unlink()
    with pytest.raises(AdapterError, match=r"prefix has no adapter_config\.json \(found nothing\)"):
        minipoet.load_adapter(base(), tmp_path)


def test_saving_into_a_folder_leaves_adapters_below_it_alone(tmp_path):
    """runs/lora and runs/prefix may be two experiments of somebody who saves a third one to runs."""
    for kind in ("lora", "prefix"):
        minipoet.save_adapter(adapted(kind), tmp_path / kind)
    below = {file: (tmp_path / file).read_bytes() for file in files_in(tmp_path)}
    minipoet.save_adapter(adapted("prefix", seed=2), tmp_path)
    assert {file: (tmp_path / file).read_bytes() for file in below} == below


def test_a_prefix_that_does_not_fit_leaves_its_lora_out_too(tmp_path):
    minipoet.save_adapter(adapted("both"), tmp_path)
    change_config(tmp_path / "prefix", num_layers=3)
    model = base()
    with pytest.raises(AdapterError, match="num_layers is 3, here 2"):
        minipoet.load_adapter(model, tmp_path)
    assert adapter_names(model) == [] and not list(lora_layers(model)) and model.prefixes is None


def test_two_of_one_kind_are_told(tmp_path):
    minipoet.save_adapter(adapted("both"), tmp_path)
    shutil.rmtree(tmp_path / "lora")
    shutil.copytree(tmp_path / "prefix", tmp_path / "lora")
    model = base()
    with pytest.raises(AdapterError, match="holds a prefix twice"):
        minipoet.load_adapter(model, tmp_path)
    assert adapter_names(model) == []


# What does not fit


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_layer": 3}, "num_layers is 2, here 3"),
        ({"n_head": 2}, "num_attention_heads is 4, here 2"),
        ({"n_layer": 4, "n_embd": 16}, "num_layers is 2, here 4; token_dim is 32, here 16"),  # as many numbers
        ({"n_positions": 5}, "A prefix of 5 tokens leaves no room .* can be 4 at most"),
    ],
)  # fmt: skip
def test_a_prefix_of_another_shape_is_refused(options, message):
    model = tiny(**options)
    before = model(IDS[:, :4])
    message = f"does not fit this model: {message}. It was made for gpt2/plain: load that base"
    with pytest.raises(AdapterError, match=message):
        minipoet.load_adapter(model, reference("prefix/plain"))
    assert torch.equal(model(IDS[:, :4]), before) and adapter_names(model) == []


def test_a_config_without_sizes_is_judged_by_the_tensor(tmp_path):
    folder = copy("prefix/plain", tmp_path)
    change_config(folder, num_layers=None, num_attention_heads=None, token_dim=None)
    assert torch.equal(says(folder), says(reference("prefix/plain")))
    with pytest.raises(AdapterError, match="prompt_embeddings has 128 numbers a token, this model takes 192"):
        minipoet.load_adapter(tiny(n_layer=3), folder)


def test_a_first_state_and_a_prefix_are_not_taken_for_each_other(tmp_path):
    state, keys = tmp_path / "state", tmp_path / "keys"
    minipoet.save_adapter(minipoet.add_prefix(recurrent("gru"), 1), state)
    minipoet.save_adapter(minipoet.add_prefix(tiny(n_layer=1, n_head=1), 1), keys)  # as many numbers
    for model, folder, message in (
        (tiny(n_layer=1, n_head=1), state, "a prefix for a MinipoetGRU, this is a GPT2LMHeadModel"),
        (recurrent("rnn"), state, "a prefix for a MinipoetGRU, this is a MinipoetRNN"),
        (recurrent("gru"), keys, "a prefix for a GPT2LMHeadModel, this is a MinipoetGRU"),
        (recurrent("gru"), reference("prefix/plain"), "carries one state of fixed size"),
        (recurrent("gru", n_hidden=16), state, "token_dim is 32, here 16"),
        (WindowMLP(WindowMLPConfig(vocab_size=10)), reference("prefix/plain"), "WindowMLP keeps nothing"),
    ):
        with pytest.raises(AdapterError, match=message):
            minipoet.load_adapter(model, folder)
        assert model.prefixes is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_virtual_tokens": 6}, r"files disagree \(prompt_embeddings is \(5, 128\), num_virtual_tokens is 6"),
        ({"num_virtual_tokens": None}, "num_virtual_tokens is None"),
        ({"num_virtual_tokens": "5"}, "num_virtual_tokens is 5"),
        ({"num_transformer_submodules": 2}, "it is a prefix for a model that reads a source"),
        ({"num_transformer_submodules": 3}, "does not support: num_transformer_submodules = 3"),
        ({"modules_to_save": ["classifier"]}, r'does not support: modules_to_save = \["classifier"\]'),
        ({"peft_type": "PROMPT_TUNING"}, "kind PROMPT_TUNING; only LORA and PREFIX_TUNING"),
        ({"peft_type": "LORA"}, "prompt_embeddings is not a LoRA matrix"),
    ],
)
def test_a_config_of_another_prefix_is_refused(values, message, tmp_path):
    folder, model = copy("prefix/plain", tmp_path), base()
    change_config(folder, **values)
    with pytest.raises(AdapterError, match=message):
        minipoet.load_adapter(model, folder)
    assert adapter_names(model) == []


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "the tensor prompt_embeddings alone, here are nothing"),
        ({"embedding.weight": (5, 128)}, "prompt_embeddings alone, here are embedding.weight"),
        ({"prompt_embeddings": (5, 128), "classifier.weight": (2, 2)}, "alone, here are classifier.weight, prompt"),
        ({"prompt_embeddings": (640,)}, r"files disagree \(prompt_embeddings is \(640,\)"),
        ({"prompt_embeddings": (5, 2, 64)}, "files disagree"),
        ({"prompt_embeddings": (5, 127)}, "has 127 numbers a token, this model takes 128"),
        ({"prompt_embeddings": (5, 0)}, "files disagree"),
    ],
)
def test_tensors_that_are_no_prefix_are_refused(tensors, message, tmp_path):
    folder, model = copy("prefix/plain", tmp_path), base()
    save_file({name: torch.ones(shape) for name, shape in tensors.items()}, folder / WEIGHTS)
    with pytest.raises(AdapterError, match=message):
        minipoet.load_adapter(model, folder)
    assert adapter_names(model) == []


def test_an_empty_prefix_a_missing_file_and_a_taken_name_are_told(tmp_path):
    folder, model = copy("prefix/plain", tmp_path), base()
    save_file({"prompt_embeddings": torch.ones(0, 128)}, folder / WEIGHTS)
    change_config(folder, num_virtual_tokens=0)
    with pytest.raises(AdapterError, match="files disagree"):
        minipoet.load_adapter(model, folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(AdapterError, match="cut short"):
        minipoet.load_adapter(model, folder)
    minipoet.load_adapter(model, reference("prefix/plain"))
    with pytest.raises(ValueError, match="a prefix named 'default' already"):
        minipoet.load_adapter(model, reference("prefix/plain"))
    assert minipoet.load_adapter(model, reference("prefix/zero"), name="zero").prefix_length == 4


def test_a_model_without_numbers_cannot_be_saved(tmp_path):
    with torch.device("meta"):
        model = GPT2(GPT2Config(n_layer=1, n_embd=8, n_head=2))
    for add in (minipoet.add_prefix, minipoet.add_lora):
        with pytest.raises(ValueError, match="on the meta device"):
            minipoet.save_adapter(add(model), tmp_path)
    assert files_in(tmp_path) == []


def test_a_place_that_cannot_be_written_costs_nothing_that_was_there(tmp_path):
    minipoet.save_adapter(adapted("prefix"), tmp_path)
    wanted = says(tmp_path)
    (tmp_path / "lora").write_text("a file of that name")
    with pytest.raises(OSError, match="Could not make the folder .*lora"):
        minipoet.save_adapter(adapted("both"), tmp_path)
    assert torch.equal(says(tmp_path), wanted)


# A model that reads a source

OURS, PEFTS = "MINIPOET_PREFIX_TUNING", "PREFIX_TUNING"
T5S = ["v10", "mt5"]  # of three layers in the decoder, and of two: PEFT uses all of its rows, or half of them


def t5(name="v10"):
    return load_model(reference(f"t5/{name}"))


def t5_logits(model, case="full", name="v10"):
    given = load_tensors(f"t5/{name}.outputs")
    segments = given["target.mask"] if case == "padded_target" else None
    source = given["left.mask" if case == "padded_target" else f"{case}.mask"]
    return model(given["target"], model.new_cache(given["source"], source), segments)


@pytest.mark.parametrize("name", T5S)
@pytest.mark.parametrize("case", ["full", "left", "padded_target"])
def test_a_prefix_of_peft_for_t5_is_read_as_peft_uses_it(name, case):
    model = minipoet.load_adapter(t5(name), reference(f"t5/{name}_prefix"))
    said, theirs = t5_logits(model, case, name), load_tensors(f"t5/{name}_prefix.outputs")[f"{case}.logits"]
    real = load_tensors(f"t5/{name}.outputs")["target.mask"].bool() if case == "padded_target" else ...
    assert_logits_equal(said[real], theirs[real])
    assert list(load_json("t5/counts")[f"{name}_prefix"]) == list(count_parameters(model))


@pytest.mark.parametrize(("name", "rows"), [("v10", [0, 1, 4, 5, 2, 3]), ("mt5", [0, 1, 0, 1])])
def test_the_rows_that_peft_gives_the_layers_by_hand(name, rows):
    model = minipoet.load_adapter(t5(name), reference(f"t5/{name}_prefix"))
    theirs = load_file(reference(f"t5/{name}_prefix") / WEIGHTS)["prompt_embeddings"].view(3, len(rows), 2, 3)
    assert torch.equal(model.beginning().detach(), theirs[:, rows])


@pytest.mark.parametrize("kind", ["plain", "projected", "peft"])
@pytest.mark.parametrize("parts", [(), ("cross",), ("encoder",), ("encoder", "cross")])
def test_a_prefix_of_t5_goes_out_and_back_unchanged(kind, parts, tmp_path):
    model = t5()
    if kind == "peft":
        minipoet.load_adapter(model, reference("t5/v10_prefix"))
    else:
        mlp = {"projection": True, "hidden": 5} if kind == "projected" else {}
        minipoet.add_prefix(model, 4, parts=parts, seed=2, **mlp)
    minipoet.save_adapter(model, tmp_path)
    values = json.loads((tmp_path / CONFIG).read_text())
    assert (values["peft_type"], values["task_type"]) == (OURS, "SEQ_2_SEQ_LM")
    assert tuple(values["parts"]) == (() if kind == "peft" else parts)
    again = minipoet.load_adapter(t5(), tmp_path)
    assert torch.equal(t5_logits(again), t5_logits(model))
    assert again.adapters == model.adapters
    assert (t5_logits(again) - t5_logits(t5())).abs().max() > 0.1


def test_a_prefix_and_a_lora_of_t5_lie_side_by_side(tmp_path):
    model = minipoet.add_prefix(minipoet.load_adapter(t5(), reference("t5/v10_lora")), 2, parts=("cross",))
    minipoet.save_adapter(model, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lora", "prefix"]
    assert torch.equal(t5_logits(minipoet.load_adapter(t5(), tmp_path)), t5_logits(model))


def refused(model, folder, message):
    with pytest.raises(AdapterError, match=message) as told:
        minipoet.load_adapter(model, folder)
    assert "\n" not in str(told.value)
    assert adapter_names(model) == [] and model.prefixes is None


def test_a_prefix_for_a_source_and_one_for_a_text_are_not_taken_for_each_other(tmp_path):
    refused(
        t5(), reference("prefix/plain"), "does not fit this model: it is a prefix for a model that goes on from a text"
    )
    refused(
        base(), reference("t5/v10_prefix"), "does not fit this model: it is a prefix for a model that reads a source"
    )
    minipoet.save_adapter(minipoet.add_prefix(t5(), 4, parts=("cross",)), tmp_path)
    refused(base(), tmp_path, "it is a prefix for a model that reads a source; .* no place for a prefix called 'cross'")


def test_a_prefix_of_another_t5_is_refused(tmp_path):
    refused(t5("v11"), reference("t5/v10_prefix"), r"num_layers is 3, here 2\. It was made for t5/v10: load that base")
    refused(t5("v10"), reference("t5/mt5_prefix"), "num_layers is 2, here 3")
    minipoet.save_adapter(minipoet.add_prefix(t5("v11"), 4), tmp_path)
    refused(
        t5("mt5"), tmp_path, "it is a prefix for a T5ForConditionalGeneration, this is a MT5ForConditionalGeneration"
    )
    change_config(tmp_path, parts=["middle"])
    refused(t5("v11"), tmp_path, "this model has no place for a prefix called 'middle'")
    change_config(tmp_path, parts=["cross"])
    refused(t5("v11"), tmp_path, "num_layers is 2, here 4")
    change_config(tmp_path, parts="cross")
    refused(t5("v11"), tmp_path, "parts should be a list of names, each once, is 'cross'")
    change_config(tmp_path, parts=["cross", "cross"])
    refused(t5("v11"), tmp_path, "each once, is .*'cross', 'cross'")
    change_config(tmp_path, parts=7)
    refused(t5("v11"), tmp_path, "parts should be a list of names, each once, is 7")
