"""`minipoet info`: what a folder holds, by its headers alone, and what in it is missing or does not fit."""

import json
import shutil
import struct
from dataclasses import asdict

import pytest
import torch
from reference_data import FOLDER, reference
from safetensors.torch import load_file, save_file
from test_command import minipoet_command

import minipoet
from minipoet.command.describe import describe
from minipoet.models import count_parameters, load_model, peak_memory
from minipoet.models.gpt2 import GPT2, GPT2Config
from minipoet.models.names import apply
from minipoet.training.history import History


def copy(name, folder):
    """A recorded folder that may be spoilt."""
    shutil.copytree(reference(name), folder / "copy")
    return folder / "copy"


def change_json(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


# Checkpoints


def test_checkpoint_is_described():
    facts = describe(str(reference("gpt2/padded")))
    checkpoint = facts["checkpoint"]
    assert (checkpoint["family"], checkpoint["architecture"]) == ("gpt2", "GPT2LMHeadModel")
    sizes = [checkpoint[size] for size in ("layers", "width", "heads", "vocabulary", "context")]
    assert sizes == [2, 16, 2, 428, 32]
    # embedding, positions, 2 × (12 C² + 13 C), the last norm; the head is the embedding
    assert checkpoint["parameters"] == 428 * 16 + 32 * 16 + 2 * (12 * 16**2 + 13 * 16) + 2 * 16
    size = reference("gpt2/padded/model.safetensors").stat().st_size
    numbers = {"fp32": checkpoint["parameters"]}
    assert checkpoint["weights"] == {"files": {"model.safetensors": size}, "tensors": 28, "numbers": numbers}
    assert facts["problems"] == []


def test_tokenizer_is_described_with_the_rows_that_no_token_has():
    facts = describe(str(reference("gpt2/padded")))["tokenizer"]
    assert facts == {
        "kind": "PublishedTokenizer", "vocabulary": 421, "bos": 1, "eos": 2, "pad": 0, "spare_rows": 7,
        "special": {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4},
    }  # fmt: skip


def test_embedded_model_is_described_by_its_name(capsys):
    assert minipoet_command("info", "poet-tiny") == 0
    text = capsys.readouterr().out
    for words in ("poet-tiny: a checkpoint;", "8,791,040: 35.2 MB in fp32", "17.6 MB: 76 tensors in fp16",
                  "</s> 2 (eos)", "problems       none"):  # fmt: skip
        assert words in text


def test_an_encoder_decoder_is_described_with_both_stacks(capsys):
    checkpoint = describe(str(reference("t5/v11")))["checkpoint"]  # its config has n_positions 512, as published
    sizes = [checkpoint[size] for size in ("layers", "decoder_layers", "width", "heads", "vocabulary", "context")]
    assert sizes == [3, 2, 8, 2, 31, "unlimited"]
    assert checkpoint["weights"]["numbers"]["fp32"] > checkpoint["parameters"]  # copies of the embedding, an old table
    assert minipoet_command("info", str(reference("t5/mt5"))) == 0
    text = capsys.readouterr().out
    assert "layers 1, decoder layers 2, width 8, heads 2, vocabulary 31, context unlimited" in text
    assert "mt5 (MT5ForConditionalGeneration)" in text


@pytest.mark.parametrize("folder", ["v10", "v11", "mt5", "v10_old_bin"])
def test_a_head_of_its_own_counts_whatever_the_config_says(folder):
    """transformers 5 writes "tied" into every config of a T5."""
    facts = describe(str(reference(f"t5/{folder}")))
    assert facts["checkpoint"]["parameters"] == count_parameters(load_model(reference(f"t5/{folder}"))).all
    assert not [problem for problem in facts["problems"] if "tokenizer" not in problem and "vocab" not in problem]


def test_shards_count_as_one_model():
    weights = describe(str(reference("gpt2/sharded")))["checkpoint"]["weights"]
    assert (len(weights["files"]), weights["tensors"], weights["numbers"]) == (3, 28, {"fp32": 29_600})


def test_old_bin_is_described_with_buffers_that_are_no_parameters():
    checkpoint = describe(str(reference("gpt2/old_bin")))["checkpoint"]
    assert checkpoint["parameters"] == 29_600
    assert checkpoint["weights"]["numbers"] == {"fp32": 29_600 + 2, "uint8": 2 * 32 * 32}  # masks of two layers


def test_what_a_config_leaves_out_is_the_default_of_the_family(tmp_path):
    folder = copy("gpt2/padded", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    del config["n_positions"]
    (folder / "config.json").write_text(json.dumps(config))
    assert describe(str(folder))["checkpoint"]["context"] == 1024  # of GPT-2


def test_tied_tensor_that_is_there_twice_counts_once(tmp_path):
    folder = copy("gpt2/padded", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()
    save_file(tensors, folder / "model.safetensors")
    facts = describe(str(folder))
    assert facts["checkpoint"]["parameters"] == facts["checkpoint"]["weights"]["numbers"]["fp32"] - 428 * 16
    assert all("tied tensor twice" in problem for problem in facts["problems"])


def test_three_gigabytes_are_described_without_being_read(tmp_path):
    config = GPT2Config(vocab_size=1_500_000, n_positions=8, n_embd=1024, n_layer=1, n_head=1)
    (tmp_path / "config.json").write_text(json.dumps(asdict(config) | {"model_type": "gpt2"}))
    with torch.device("meta"):
        model = GPT2(config)
    header, end = {}, 0
    for name, parameter in model.named_parameters():
        published, transform = model.name_table().published(name)
        place = [end, end := end + 2 * parameter.numel()]
        header[published] = {"dtype": "F16", "shape": list(apply(transform, parameter).shape), "data_offsets": place}
    text = json.dumps(header).encode()
    with open(tmp_path / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)  # a hole: it takes no place on the disk, and memory if it is read
    before = peak_memory()
    facts = describe(str(tmp_path))
    assert facts["bytes"] > 3e9
    assert facts["checkpoint"]["parameters"] == end // 2
    assert [problem for problem in facts["problems"] if "vocab.json" not in problem] == []
    assert peak_memory() - before < 1e9


def test_missing_shard_is_a_problem_and_the_rest_is_told(tmp_path):
    folder = copy("gpt2/sharded", tmp_path)
    (folder / "model-00002-of-00003.safetensors").unlink()
    facts = describe(str(folder))
    assert facts["checkpoint"]["parameters"] == 29_600
    assert sum("1 of 3 shards are missing: model-00002" in problem for problem in facts["problems"]) == 1


def test_weights_that_do_not_fit_the_config_are_a_problem(tmp_path, capsys):
    folder = copy("gpt2/padded", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors["surprise"] = tensors.pop("transformer.ln_f.bias")
    save_file(tensors, folder / "model.safetensors")
    (problem,) = describe(str(folder))["problems"]
    assert "missing (1): transformer.ln_f.bias" in problem
    assert "left over (1): surprise" in problem
    assert minipoet_command("info", folder) == 0
    assert "\n                   missing (1)" in capsys.readouterr().out


def test_tokenizer_of_another_model_is_a_problem(tmp_path):
    folder = copy("gpt2/plain", tmp_path)
    for path in reference("tokenizer").iterdir():
        shutil.copy(path, folder)
    facts = describe(str(folder))
    assert facts["tokenizer"]["spare_rows"] == 97 - 421
    assert facts["problems"] == ["The tokenizer knows 421 ids, but the model has only 97 embeddings."]


def test_unknown_family_is_told_as_far_as_its_files_say(tmp_path, capsys):
    config = {"model_type": "harp", "architectures": ["HarpForCausalLM"], "vocab_size": 100, "hidden_size": 64}
    config |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config |= {"max_position_embeddings": 128}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"model.embed_tokens.weight": torch.zeros(100, 64, dtype=torch.bfloat16)}, tmp_path / "model.safetensors")
    assert minipoet_command("info", tmp_path) == 0
    text = capsys.readouterr().out
    for words in ("harp (HarpForCausalLM)", "layers 2, width 64, heads 4, key value heads 2, vocabulary 100",
                  "context 128", "1 tensor in bf16", "model_type 'harp', which minipoet does not know"):  # fmt: skip
        assert words in text
    assert "parameters" not in text


@pytest.mark.parametrize("architectures", [None, [], "GPT2LMHeadModel", {"a": 1}])
def test_odd_config_does_no_harm(tmp_path, architectures):
    folder = copy("gpt2/padded", tmp_path)
    change_json(folder / "config.json", architectures=architectures, n_layer="two")
    facts = describe(str(folder))
    assert facts["checkpoint"]["architecture"] is None
    assert any("n_layer should be int, is 'two'" in problem for problem in facts["problems"])
    assert minipoet_command("info", folder) == 0


# Adapters


def test_adapter_is_described_and_compared_with_its_base(monkeypatch):
    monkeypatch.chdir(FOLDER)  # its base is gpt2/plain, from there
    facts = describe("lora/c_attn")
    adapter = facts["adapter"]
    assert [adapter[key] for key in ("kind", "rank", "alpha", "scale", "dropout")] == ["LORA", 4, 8, 2, 0.0]
    assert (adapter["layers"], adapter["targets"]) == (2, ["attn.c_attn"])
    assert adapter["parameters"] == 2 * 4 * (32 + 96)  # two layers, rank × (in + out)
    assert (adapter["base"], adapter["fits_base"], facts["problems"]) == ("gpt2/plain", True, [])


def test_scale_of_rslora_is_alpha_by_the_root_of_the_rank():
    adapter = describe(str(reference("lora/wide_rslora")))["adapter"]
    assert (adapter["rank"], adapter["alpha"], adapter["scale"]) == (4, 6, 3)


def test_patterns_are_told(capsys):
    minipoet_command("info", reference("lora/patterns"))
    assert "rank pattern   h.1.attn.c_attn: 3, mlp.c_proj: 2" in capsys.readouterr().out


def test_adapter_of_another_model_does_not_fit(tmp_path, capsys):
    folder = copy("lora/c_attn", tmp_path)
    change_json(folder / "adapter_config.json", base_model_name_or_path="poet-tiny")
    facts = describe(str(folder))
    assert facts["adapter"]["fits_base"] is False
    assert "(960, 320), but the adapter brings" in facts["problems"][0]
    minipoet_command("info", folder)
    assert "poet-tiny, which it does not fit" in capsys.readouterr().out


def test_adapter_whose_base_is_not_here_is_not_compared(capsys):
    assert describe(str(reference("lora/c_attn")))["adapter"]["fits_base"] is None
    minipoet_command("info", reference("lora/c_attn"))
    assert "gpt2/plain, not compared with it" in capsys.readouterr().out


def test_setting_that_the_package_cannot_load_is_a_problem():
    (problem,) = describe(str(reference("lora/refused_dora")))["problems"]
    assert "use_dora = true" in problem


@pytest.mark.parametrize(
    ("values", "problem"),
    [({"peft_type": "IA3"}, "kind IA3"), ({"r": "many"}, "cannot be used"), ({"lora_alpha": None}, "cannot be used")],
)
def test_odd_adapter_config_does_no_harm(tmp_path, monkeypatch, capsys, values, problem):
    monkeypatch.chdir(FOLDER)
    folder = copy("lora/c_attn", tmp_path)
    change_json(folder / "adapter_config.json", **values)
    assert problem in str(describe(str(folder))["problems"])
    assert minipoet_command("info", folder) == 0


def test_adapter_without_weights_is_a_problem(tmp_path):
    folder = copy("lora/c_attn", tmp_path)
    (folder / "adapter_model.safetensors").unlink()
    assert "no adapter_model.safetensors" in str(describe(str(folder))["problems"])
    (folder / "adapter_model.safetensors").write_text("version https://git-lfs")
    assert "broken or cut short" in str(describe(str(folder))["problems"])


def save_prefix(folder, **options):
    """A prefix for poet-tiny, of 3 virtual tokens."""
    model, _ = minipoet.load("poet-tiny")
    minipoet.add_prefix(model, 3, **options)
    minipoet.save_adapter(model, folder)
    return model


def test_prefix_is_described_and_compared_with_its_base(monkeypatch, capsys):
    monkeypatch.chdir(FOLDER)
    facts = describe("prefix/plain")
    assert facts["adapter"].pop("weights")["tensors"] == 1
    assert facts["adapter"] == {
        "kind": "PREFIX_TUNING", "virtual_tokens": 5, "mlp": None, "parameters": 5 * 2 * 2 * 32,
        "base": "gpt2/plain", "fits_base": True,
    }  # fmt: skip
    assert facts["problems"] == []
    minipoet_command("info", "prefix/plain_old_bin")
    text = capsys.readouterr().out
    assert "virtual tokens 5\n  parameters     640\n" in text and "gpt2/plain, which it fits" in text


def test_mlp_of_a_prefix_is_told(tmp_path, capsys):
    save_prefix(tmp_path, projection=True, hidden=7)
    facts = describe(str(tmp_path))
    C, rows = 320, 12 * 320
    assert facts["adapter"]["mlp"] == {"hidden": 7, "parameters": 3 * C + C * 7 + 7 + 7 * rows + rows}
    assert (facts["adapter"]["parameters"], facts["problems"], facts["files"]) == (3 * rows, [], 3)
    minipoet_command("info", tmp_path)
    assert "MLP            7 wide, 33,927 parameters" in capsys.readouterr().out


def test_mlp_of_another_prefix_is_a_problem(tmp_path):
    save_prefix(tmp_path / "mlp", projection=True)
    save_prefix(tmp_path / "plain", seed=1)
    shutil.copy(tmp_path / "plain" / "adapter_model.safetensors", tmp_path / "mlp")
    facts = describe(str(tmp_path / "mlp"))
    assert facts["adapter"]["fits_base"] is False
    assert "prefix_mlp.safetensors does not make the numbers" in facts["problems"][0]


def test_lora_and_prefix_under_one_name_are_both_described(tmp_path, capsys):
    folder = tmp_path / "lora"  # a name that its own part has too
    model = save_prefix(tmp_path / "other")
    minipoet.save_adapter(minipoet.add_lora(model, rank=2), folder)
    facts = describe(str(folder))
    adapter = facts["adapter"]
    assert (adapter["kind"], adapter["base"], adapter["fits_base"]) == ("LORA and PREFIX_TUNING", "poet-tiny", True)
    assert (adapter["lora"]["rank"], adapter["prefix"]["virtual_tokens"]) == (2, 3)
    assert facts["problems"] == []
    assert (facts["files"], facts["bytes"]) == (4, sum(p.stat().st_size for p in folder.rglob("*.*")))
    minipoet_command("info", folder)
    text = capsys.readouterr().out
    assert text.index("rank           2") < text.index("virtual tokens 3") < text.index("poet-tiny, which it fits")


def test_folder_around_one_adapter_is_described_by_it(tmp_path):
    shutil.copytree(reference("lora/c_attn"), tmp_path / "lora")
    facts = describe(str(tmp_path))
    assert (facts["adapter"]["lora"]["rank"], facts["problems"]) == (4, [])


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda path: path.unlink(), "prefix has no adapter_config.json"),
        (lambda path: path.write_text("{"), "adapter_config.json is not a JSON file"),
        (lambda path: path.write_text("[]"), "should hold a JSON object"),
        (lambda path: change_json(path, num_layers=7), "num_layers is 7, here 6"),
        (lambda path: change_json(path, num_virtual_tokens=[3]), "its files disagree"),
        (lambda path: (path.parent / "adapter_model.safetensors").unlink(), "no adapter_model.safetensors"),
    ],
)
def test_half_an_adapter_is_a_problem_and_the_rest_is_told(tmp_path, capsys, spoil, problem):
    minipoet.save_adapter(minipoet.add_lora(save_prefix(tmp_path / "other"), rank=2), tmp_path / "both")
    spoil(tmp_path / "both" / "prefix" / "adapter_config.json")
    facts = describe(str(tmp_path / "both"))
    assert len(facts["problems"]) == 1 and problem in facts["problems"][0]
    assert facts["adapter"]["lora"]["rank"] == 2 and not facts["adapter"]["fits_base"]
    assert minipoet_command("info", tmp_path / "both") == 0
    assert problem in capsys.readouterr().out


# Runs


def test_run_is_told_by_its_history(tmp_path, capsys):
    history = History(tmp_path / "history.jsonl")
    for step, validation in ((0, 4.0), (10, 3.25), (20, 3.5)):
        history.add(step=step, validation=validation)
        history.add(step=step + 1, loss=3.0)
    assert describe(str(tmp_path))["run"] == {"step": 21, "best": 3.25, "best_step": 10}
    assert minipoet_command("info", tmp_path) == 0
    assert "validation 3.2500 at step 10" in capsys.readouterr().out


def test_broken_history_is_a_problem(tmp_path):
    (tmp_path / "history.jsonl").write_text("poem\npoem\n")
    assert "history.jsonl, line 1: not an event" in describe(str(tmp_path))["problems"][0]
    assert minipoet_command("info", tmp_path) == 0


# The command


def test_json_has_the_same_facts(capsys):
    assert minipoet_command("info", reference("gpt2/padded"), "--json") == 0
    assert json.loads(capsys.readouterr().out) == describe(str(reference("gpt2/padded")))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "nowhere",
            "no folder 'nowhere', nor a model of that name in the package, which has poet-tiny, poet-chat, ",
        ),
        ("", "no folder ''"),
        ("poem.txt", "is a file: give the folder that it lies in"),
        ("empty", "it is empty"),
        ("other", "found a.txt, b.txt"),
        ("broken", "config.json is not a JSON file"),
        ("list", "config.json should hold a JSON object, but holds a list"),
    ],
)
def test_folder_of_which_nothing_can_be_said_is_one_sentence(tmp_path, monkeypatch, capsys, name, message):
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "other", "broken", "list"):
        (tmp_path / folder).mkdir()
    for path, text in (("poem.txt", ""), ("other/a.txt", ""), ("other/b.txt", ""), ("broken/config.json", "{"),
                       ("list/config.json", "[]")):  # fmt: skip
        (tmp_path / path).write_text(text)
    assert minipoet_command("info", name) == 2
    output, errors = capsys.readouterr()
    assert (output, errors.count("\n")) == ("", 1)
    assert message in errors
