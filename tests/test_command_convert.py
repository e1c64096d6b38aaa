"""`minipoet convert`: the same tensors in safetensors, no code run, and nothing half-written."""

import errno
import json
import os
import shutil

import pytest
import torch
from reference_data import load_tensors, reference
from safetensors.torch import load_file
from test_command import minipoet_command
from test_gpt2 import tiny

import minipoet
from minipoet.command import convert
from minipoet.files import write_tensors_atomic
from minipoet.models import load_model, save_model
from minipoet.models.weights import read_bin

IDS = torch.arange(16).view(2, 8)


@pytest.fixture
def old(tmp_path):
    """A checkpoint as people saved them: config, and a .bin in which the head shares the embedding's memory."""
    save_model(tiny(), tmp_path / "old")
    tensors = load_file(tmp_path / "old" / "model.safetensors")
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"]
    (tmp_path / "old" / "model.safetensors").unlink()
    save_bin(tensors, tmp_path / "old")
    (tmp_path / "old" / "merges.txt").write_text("#version: 0.2\n")
    return tmp_path / "old"


def save_bin(tensors, folder, shards=1):
    """pytorch_model.bin, or shards and their index."""
    if shards == 1:
        torch.save(tensors, folder / "pytorch_model.bin")
        return
    names, weight_map = list(tensors), {}
    for number in range(shards):
        file = f"pytorch_model-{number + 1:05d}-of-{shards:05d}.bin"
        torch.save({name: tensors[name] for name in names[number::shards]}, folder / file)
        weight_map |= dict.fromkeys(names[number::shards], file)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


@pytest.fixture
def sharded(old):
    """`old` in three shards."""
    tensors = read_bin(old / "pytorch_model.bin")
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    (old / "pytorch_model.bin").unlink()
    save_bin(tensors, old, shards=3)
    return old


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_recorded_old_checkpoint_gives_the_recorded_logits(tmp_path):
    assert minipoet_command("convert", reference("gpt2/old_bin"), tmp_path / "new") == 0
    assert left_in(tmp_path / "new") == ["config.json", "model.safetensors"]
    outputs = load_tensors("gpt2/plain.outputs")
    logits = load_model(tmp_path / "new")(outputs["ids"])
    assert torch.allclose(logits, outputs["full.logits"], atol=1e-5, rtol=0)
    old = read_bin(reference("gpt2/old_bin/pytorch_model.bin"))
    new = load_file(tmp_path / "new" / "model.safetensors")
    assert old.keys() == new.keys()
    assert all(torch.equal(old[name], new[name]) and old[name].dtype == new[name].dtype for name in old)


def test_in_place_the_bin_stays_and_the_new_file_is_beside_it(old, capsys):
    before = left_in(old)
    assert minipoet_command("convert", old) == 0
    assert left_in(old) == sorted([*before, "model.safetensors"])
    output, errors = capsys.readouterr()
    assert f"{old}: done" in output
    assert "pytorch_model.bin -> model.safetensors: 28 tensors" in errors


def test_another_folder_gets_config_and_tokenizer_and_no_other_weights(old, tmp_path):
    for name in ("training_args.bin", "flax_model.msgpack", "optimizer.pt"):
        (old / name).write_bytes(b"x")
    minipoet_command("convert", old, tmp_path / "a" / "new")
    assert left_in(tmp_path / "a" / "new") == ["config.json", "merges.txt", "model.safetensors"]


def test_tied_tensor_is_written_once_as_save_does(old, tmp_path):
    minipoet_command("convert", old, tmp_path / "new")
    assert "lm_head.weight" not in load_file(tmp_path / "new" / "model.safetensors")
    assert torch.equal(load_model(tmp_path / "new")(IDS), load_model(old)(IDS))


def test_tensors_of_one_memory_get_copies_where_no_family_ties_them(tmp_path):
    line = torch.arange(12.0)
    tensors = {"a": line, "b": line, "part": line[2:6], "rows": line.view(3, 4), "columns": line.view(3, 4).t()}
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    assert minipoet_command("convert", tmp_path) == 0
    new = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(new[name], tensor) for name, tensor in tensors.items())
    assert new.keys() == tensors.keys()


def test_shards_stay_shards_with_an_index_of_their_own(sharded, tmp_path):
    assert minipoet_command("convert", sharded, tmp_path / "new") == 0
    shards = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    assert left_in(tmp_path / "new") == ["config.json", "merges.txt", *shards, "model.safetensors.index.json"]
    index = json.loads((tmp_path / "new" / "model.safetensors.index.json").read_text())
    for shard in shards:
        tensors = load_file(tmp_path / "new" / shard)
        assert {name for name, file in index["weight_map"].items() if file == shard} == tensors.keys()
        index["metadata"]["total_size"] -= sum(tensor.numel() * 4 for tensor in tensors.values())
    assert index["metadata"]["total_size"] == 0
    assert torch.equal(load_model(tmp_path / "new")(IDS), load_model(sharded)(IDS))


def test_tied_tensor_in_a_shard_is_missed_neither_there_nor_in_the_index(old, tmp_path):
    tensors = read_bin(old / "pytorch_model.bin")
    first = ["transformer.wte.weight", "transformer.wpe.weight", "lm_head.weight"]  # one and three in one shard
    (old / "pytorch_model.bin").unlink()
    save_bin({name: tensors[name] for name in dict.fromkeys([*first, *tensors])}, old, shards=2)
    assert minipoet_command("convert", old, tmp_path / "new") == 0
    index = json.loads((tmp_path / "new" / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == tensors.keys() - {"lm_head.weight"}
    assert torch.equal(load_model(tmp_path / "new")(IDS), load_model(old)(IDS))


def test_index_that_names_what_no_shard_has_is_refused(sharded, tmp_path, capsys):
    index = sharded / "pytorch_model.bin.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["transformer.lost.weight"] = "pytorch_model-00001-of-00003.bin"
    index.write_text(json.dumps(content))
    assert minipoet_command("convert", sharded, tmp_path / "new") == 2
    assert "names transformer.lost.weight, which no shard has" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_adapter_is_converted_too(tmp_path):
    folder = tmp_path / "a"
    minipoet_command("convert", reference("lora/c_attn_old_bin"), folder)
    assert left_in(folder) == ["adapter_config.json", "adapter_model.safetensors"]
    new, old = (minipoet.load_adapter(load_model(reference("gpt2/plain")), path)
                for path in (folder, reference("lora/c_attn_old_bin")))  # fmt: skip
    assert torch.equal(new(IDS), old(IDS))


# Types of numbers


def test_numbers_are_rounded_to_the_type_asked_for_and_whole_numbers_stay(tmp_path):
    (tmp_path / "old").mkdir()
    tensors = {"third": torch.tensor([1 / 3]), "ids": torch.tensor([70_000]), "mask": torch.tensor([True])}
    torch.save(tensors, tmp_path / "old" / "pytorch_model.bin")
    (tmp_path / "old" / "config.json").write_text('{"torch_dtype": "float32", "vocab_size": 5}')
    assert minipoet_command("convert", tmp_path / "old", tmp_path / "new", "--dtype", "bf16") == 0
    new = load_file(tmp_path / "new" / "model.safetensors")
    assert float(new["third"]) == 0.333984375  # 1.0101011 (binary) / 4: seven bits of fraction
    assert (new["third"].dtype, int(new["ids"]), bool(new["mask"])) == (torch.bfloat16, 70_000, True)
    assert json.loads((tmp_path / "new" / "config.json").read_text()) == {"torch_dtype": "bfloat16", "vocab_size": 5}


def test_type_stays_unless_asked(tmp_path):
    torch.save({"half": torch.ones(2).half()}, tmp_path / "pytorch_model.bin")
    minipoet_command("convert", tmp_path)
    assert load_file(tmp_path / "model.safetensors")["half"].dtype == torch.float16


def test_number_too_large_for_the_type_is_refused(tmp_path, capsys):
    torch.save({"fine": torch.tensor([65504.0]), "large": torch.tensor([1.0, -7e4])}, tmp_path / "pytorch_model.bin")
    assert minipoet_command("convert", tmp_path, tmp_path / "new", "--dtype", "fp16") == 2
    assert "large holds 70000, too large for fp16." in capsys.readouterr().err
    assert minipoet_command("convert", tmp_path, tmp_path / "new", "--dtype", "bf16") == 0


# What must not happen


def test_code_in_a_bin_is_not_run_and_nothing_is_left(tmp_path, capsys):
    class Stranger:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was here"),)

    (tmp_path / "old").mkdir()
    torch.save({"weight": Stranger()}, tmp_path / "old" / "pytorch_model.bin")
    assert minipoet_command("convert", tmp_path / "old", tmp_path / "new") == 2
    assert minipoet_command("convert", tmp_path / "old") == 2
    assert (left_in(tmp_path), left_in(tmp_path / "old")) == (["old"], ["pytorch_model.bin"])
    assert capsys.readouterr().err.count("it holds code, which is never run") == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weight": "text"}, "not a table of named tensors"),
        ({"odd": torch.eye(3).to_sparse()}, "odd is not a plain tensor"),
    ],
)
def test_what_is_no_plain_tensor_is_refused(tmp_path, capsys, content, message):
    torch.save(content, tmp_path / "pytorch_model.bin")
    assert minipoet_command("convert", tmp_path) == 2
    assert message in capsys.readouterr().err
    assert left_in(tmp_path) == ["pytorch_model.bin"]


def test_what_is_there_is_replaced_only_by_force(old, tmp_path, capsys):
    new = tmp_path / "new"
    new.mkdir()
    for name in ("model.safetensors.index.json", "model-00001-of-00001.safetensors", "config.json", "notes.txt"):
        (new / name).write_text("mine")
    assert minipoet_command("convert", old, new) == 2
    message = "has config.json, model-00001-of-00001.safetensors, model.safetensors.index.json already"
    assert message in capsys.readouterr().err
    assert {path.read_text() for path in new.iterdir()} == {"mine"}
    assert minipoet_command("convert", old, new, "--force") == 0
    assert left_in(new) == ["config.json", "merges.txt", "model.safetensors", "notes.txt"]
    assert (new / "notes.txt").read_text() == "mine"
    load_model(new)


def test_force_on_a_model_leaves_the_adapter_beside_it(old):
    (old / "adapter_model.safetensors").write_text("mine")
    (old / "model.safetensors").write_text("old")
    assert minipoet_command("convert", old, "--force") == 0
    assert (old / "adapter_model.safetensors").read_text() == "mine"


@pytest.mark.parametrize("there", [False, True])
def test_full_disk_leaves_the_target_as_it_was(sharded, tmp_path, monkeypatch, capsys, there):
    written = []

    def write(path, *arguments):
        if written:
            raise OSError(f"Could not write {path}: No space left on device.")
        written.append(path)
        write_tensors_atomic(path, *arguments)

    monkeypatch.setattr(convert, "write_tensors_atomic", write)
    new = tmp_path / "new"
    if there:
        new.mkdir()
        (new / "notes.txt").write_text("mine")
    assert minipoet_command("convert", sharded, new) == 2
    assert written
    assert f"error: Could not write {new}/model-00002-of-00003.safetensors: No space" in capsys.readouterr().err
    assert (left_in(new) if there else new.exists()) == (["notes.txt"] if there else False)


def test_interruption_leaves_the_target_as_it_was(old, tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(convert, "write_tensors_atomic", interrupted)
    assert minipoet_command("convert", old, tmp_path / "new") == 130
    assert left_in(tmp_path) == ["old"]


def test_system_error_is_told_with_the_target(old, tmp_path, monkeypatch, capsys):
    def denied(*arguments):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "somewhere")

    monkeypatch.setattr(shutil, "copyfile", denied)
    assert minipoet_command("convert", old, tmp_path / "new") == 2
    assert f"error: Could not write to {tmp_path}/new: Permission denied." in capsys.readouterr().err
    assert left_in(tmp_path) == ["old"]


def test_file_that_does_not_read_back_is_not_kept(old, tmp_path, monkeypatch, capsys):
    def write(path, tensors, metadata):
        write_tensors_atomic(path, dict(list(tensors.items())[1:]), metadata)

    monkeypatch.setattr(convert, "write_tensors_atomic", write)
    assert minipoet_command("convert", old, tmp_path / "new") == 2
    assert "new/model.safetensors does not read back as it was written" in capsys.readouterr().err
    assert left_in(tmp_path) == ["old"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no folder 'nowhere'"),
        (["old/config.json"], "is a file: give the folder that it lies in, old."),
        (["empty"], "empty has no pytorch_model.bin or adapter_model.bin to convert: it is empty."),
        (["safe"], "to convert: found config.json, generation_config.json, model.safetensors."),
        (["old", "old/config.json"], "is a file"),
        (["old", "--dtype", "bf16"], "give a TARGET folder"),
        (["old", "./old", "--dtype", "bf16"], "give a TARGET folder"),
        (["cut"], "cannot be read as plain tensors"),
    ],
)
def test_mistake_gets_one_sentence_and_exit_code_2(old, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(reference("gpt2/plain"), "safe")
    for name in ("empty", "cut"):
        (tmp_path / name).mkdir()
    (tmp_path / "cut" / "pytorch_model.bin").write_bytes((old / "pytorch_model.bin").read_bytes()[:-5000])
    before = left_in(old)
    assert minipoet_command("convert", *arguments) == 2
    output, errors = capsys.readouterr()
    assert (output, errors.count("error: ")) == ("", 1)
    assert message in errors
    assert left_in(old) == before


@pytest.mark.parametrize("folder", ["v10_old_bin", "v11"])
def test_a_t5_as_published_is_converted_and_says_the_same(folder, tmp_path):
    assert minipoet_command("convert", reference(f"t5/{folder}"), tmp_path / "new") == 0
    outputs = load_tensors(f"t5/{folder.removesuffix('_old_bin')}.outputs")
    model = load_model(tmp_path / "new")
    logits = model(outputs["target"], model.new_cache(outputs["source"]))
    assert torch.allclose(logits, outputs["full.logits"], atol=1e-5, rtol=0)


def test_a_head_of_its_own_is_kept_though_the_config_says_tied(tmp_path):
    """transformers 5 writes "tied" into every config of a T5."""
    folder = shutil.copytree(reference("t5/mt5"), tmp_path / "old")
    save_bin(load_file(folder / "model.safetensors"), folder)
    (folder / "model.safetensors").unlink()
    assert minipoet_command("convert", folder) == 0
    tensors = load_file(folder / "model.safetensors")
    assert not torch.equal(tensors["lm_head.weight"], tensors["shared.weight"])
    outputs, model = load_tensors("t5/mt5.outputs"), load_model(folder)
    logits = model(outputs["target"], model.new_cache(outputs["source"]))
    assert torch.allclose(logits, outputs["full.logits"], atol=1e-5, rtol=0)
