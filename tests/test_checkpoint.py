"""Checkpoints: what is saved comes back, what is broken is told."""

import json
import os
import shutil
import struct

import pytest
import torch
from reference_data import reference
from safetensors.torch import load_file, save_file
from test_gpt2 import tiny

from minipoet.models import CheckpointError, checkpoint, count_parameters, load_model, save_model, weights
from minipoet.models.gpt2 import GPT2, GPT2Config

IDS = torch.arange(16).view(2, 8)


class Evil:
    """What a malicious .bin holds: unpickled by a trusting reader, it calls a function."""

    def __reduce__(self):
        return (print, ("code of a stranger ran",))


@pytest.fixture
def folder(tmp_path):
    copy = tmp_path / "plain"
    shutil.copytree(reference("gpt2/plain"), copy)
    return copy


def edit_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_model_comes_back_with_the_same_logits_and_ties(tmp_path, tied):
    model, ids = tiny(tie_word_embeddings=tied, n_inner=80, activation_function="relu"), torch.randint(50, (2, 7))
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert torch.equal(again(ids), model(ids))
    assert (again.head.weight is again.embed.weight) is tied
    assert again.config == model.config


def test_a_model_saved_in_shards_comes_back(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SHARD", 8000)
    model, ids = tiny(), torch.randint(50, (2, 7))
    save_model(model, tmp_path)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert torch.equal(load_model(tmp_path)(ids), model(ids))
    monkeypatch.undo()
    save_model(model, tmp_path)  # whole again: no shard and no index is left to be read instead
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_a_published_file_is_written_back_tensor_for_tensor(tmp_path):
    save_model(load_model(reference("gpt2/plain")), tmp_path)
    ours, theirs = load_file(tmp_path / "model.safetensors"), load_file(reference("gpt2/plain/model.safetensors"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("name", "asked", "found"),
    [
        ("plain", None, torch.float32),
        ("fp16", None, torch.float32),
        ("bf16", None, torch.bfloat16),
        ("fp16", torch.float16, torch.float16),
        ("plain", torch.bfloat16, torch.bfloat16),
    ],
)
def test_the_type_is_the_files_own_unless_asked_and_fp16_becomes_fp32_on_a_cpu(name, asked, found):
    assert {p.dtype for p in load_model(reference(f"gpt2/{name}"), dtype=asked).parameters()} == {found}


def test_fp16_becomes_bf16_and_says_so_where_fp32_does_not_fit(monkeypatch):
    monkeypatch.setattr(checkpoint, "available_memory", lambda device="cpu": 100_000)  # bf16 takes 60 KB, fp32 120
    with pytest.warns(UserWarning, match="bf16"):
        model = load_model(reference("gpt2/fp16"))
    assert model.embed.weight.dtype == torch.bfloat16


@pytest.fixture
def free(monkeypatch):
    """Sets how many bytes of memory there are. The plain model has 30,240 parameters, 120,960 bytes in fp32."""
    return lambda size: monkeypatch.setattr(checkpoint, "available_memory", lambda device="cpu": size)


def test_a_type_that_does_not_fit_in_memory_is_told_before_loading_with_those_that_do(free, monkeypatch):
    monkeypatch.setattr(checkpoint, "fill_model", lambda *_: pytest.fail("a tensor was converted"))
    free(100_000)
    with pytest.raises(CheckpointError) as told:
        load_model(reference("gpt2/plain"), dtype=torch.float64)
    message = str(told.value)
    assert message.startswith(f"{reference('gpt2/plain')} does not fit in memory: its weights take 0.0 GB in torch.fl")
    assert "give dtype=torch.float32 (as the file has it: mapped, not copied), give dtype=torch.bfloat16 (" in message
    assert message.endswith("a smaller model of the family, or let check_memory=False try nevertheless.")
    assert "\n" not in message


def test_where_no_type_fits_only_a_smaller_model_is_offered(free):
    free(50_000)
    with pytest.raises(CheckpointError, match=r"available: take a smaller model of the family, or let"):
        load_model(reference("gpt2/bf16"), dtype=torch.float32)  # of a transposed bf16 file too much is turned


def test_a_model_that_seems_not_to_fit_is_loaded_where_the_caller_says_so(free):
    free(1000)
    model = load_model(reference("gpt2/plain"), dtype=torch.bfloat16, check_memory=False)
    assert model.embed.weight.dtype is torch.bfloat16


@pytest.mark.parametrize(
    ("name", "asked", "bytes_each"),
    [
        ("qwen/qwen2", None, 0),
        ("qwen/qwen2", torch.bfloat16, 2),
        ("gpt2/plain", None, 0),
        ("gpt2/plain", torch.bfloat16, 2),
    ],
)
def test_what_stays_as_the_file_has_it_needs_no_memory_of_its_own(name, asked, bytes_each):
    model, tensors = load_model(reference(name), device="meta"), dict(weights.read_tensors(reference(name)))
    device = torch.device("cpu")
    assert checkpoint._copied(model, tensors, asked, device) == bytes_each * count_parameters(model).all


def test_a_mapped_file_that_is_larger_than_the_memory_is_warned_of(free):
    free(70_000)
    with pytest.warns(UserWarning, match=r"mapped from the disk, but only .* read again and again"):
        load_model(reference("gpt2/plain"))


def test_a_gpu_is_asked_for_its_own_memory_and_maps_nothing(monkeypatch):
    asked = []
    monkeypatch.setattr(checkpoint, "available_memory", lambda device="cpu": asked.append(str(device)) or 100_000)
    model, tensors = (
        load_model(reference("gpt2/plain"), device="meta"),
        dict(weights.read_tensors(reference("gpt2/plain"))),
    )
    with pytest.raises(CheckpointError, match=r"are available on cuda:0: give dtype=torch\.bfloat16 \("):
        checkpoint.expect_room(model, reference("gpt2/plain"), tensors, None, torch.device("cuda:0"))
    assert asked == ["cuda:0"]


def test_all_that_disagrees_is_told_in_one_error(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["transformer.ln_f.bias"], tensors["transformer.h.1.mlp.c_fc.weight"]
    tensors["transformer.h.0.attn.c_attn.bias"] = torch.zeros(7)
    tensors["transformer.h.7.extra"] = torch.zeros(1)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError) as error:
        load_model(folder)
    for word in ("ln_f.bias", "h.1.mlp.c_fc.weight", "c_attn.bias is (7,)", "(96,)", "h.7.extra", "missing (2)"):
        assert word in str(error.value)


@pytest.mark.parametrize("change", [{"n_layer": 3}, {"n_embd": 64}, {"vocab_size": 98}, {"n_positions": 31}])
def test_a_config_that_disagrees_with_the_weights_is_refused(folder, change):
    edit_config(folder, **change)
    with pytest.raises(CheckpointError, match="do not fit its config"):
        load_model(folder)


@pytest.mark.parametrize("keep", [0, 4, 60, 0.5, 0.99])
def test_a_truncated_file_is_named(folder, keep):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if keep < 1 else keep])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is broken or cut short"):
        load_model(folder)


def test_a_header_of_garbage_is_told(folder):
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 20) + b"{not json at all....")
    with pytest.raises(CheckpointError, match="broken or cut short"):
        load_model(folder)


def test_a_bin_with_code_in_it_is_refused_and_not_run(folder, capsys):
    (folder / "model.safetensors").unlink()
    torch.save({"transformer.wte.weight": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="never run"):
        load_model(folder)
    assert "stranger" not in capsys.readouterr().out


def test_a_truncated_bin_is_told(folder):
    shutil.copy(reference("gpt2/old_bin/pytorch_model.bin"), folder)
    (folder / "model.safetensors").unlink()
    data = (folder / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        load_model(folder)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Minipoet's cache, empty."""
    monkeypatch.setenv("MINIPOET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def old_bin(folder, tensors=None, zipped=False):
    """A folder with a pytorch_model.bin in place of its safetensors; by default in the form before PyTorch 1.6."""
    path = folder / "model.safetensors"
    tensors = load_file(path) if tensors is None else tensors
    path.unlink(missing_ok=True)
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    return folder


def test_an_old_bin_is_read_once_and_its_copy_mapped_from_then_on(folder, cache, monkeypatch, capsys):
    logits = load_model(folder)(IDS)
    old_bin(folder)
    assert torch.equal(load_model(folder)(IDS), logits)
    (copy,) = cache.rglob("*.*")
    assert f"writing pytorch_model.bin once as safetensors, to {copy}" in capsys.readouterr().err
    monkeypatch.setattr(weights, "read_bin", lambda path: pytest.fail("the .bin was read again"))
    assert torch.equal(load_model(folder)(IDS), logits)
    assert capsys.readouterr().err == ""


def test_an_old_bin_in_shards_gets_a_copy_of_each(tmp_path, cache):
    shutil.copytree(reference("gpt2/plain"), tmp_path / "s")
    tensors, index = load_file(tmp_path / "s" / "model.safetensors"), {}
    for number, names in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2])):
        file = f"pytorch_model-0000{number + 1}-of-00002.bin"
        shard = {name: tensors[name] for name in names}
        torch.save(shard, tmp_path / "s" / file, _use_new_zipfile_serialization=False)
        index |= dict.fromkeys(names, file)
    (tmp_path / "s" / "model.safetensors").unlink()
    (tmp_path / "s" / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    for _ in range(2):
        assert torch.equal(load_model(tmp_path / "s")(IDS), load_model(reference("gpt2/plain"))(IDS))
        assert len(list(cache.rglob("*.safetensors"))) == 2


def test_a_changed_bin_is_never_served_from_the_copy_of_the_old(folder, cache):
    tensors = load_file(folder / "model.safetensors")
    old_bin(folder, tensors)
    before, times = load_model(folder)(IDS), (folder / "pytorch_model.bin").stat()
    old_bin(folder, {name: tensor + 0.5 for name, tensor in tensors.items()})
    os.utime(folder / "pytorch_model.bin", ns=(times.st_atime_ns, times.st_mtime_ns))  # of the same size and age
    assert not torch.equal(load_model(folder)(IDS), before)
    assert len(list(cache.rglob("*.safetensors"))) == 1  # the new copy took the place of the old


def test_a_copy_that_is_cut_short_is_made_again(folder, cache):
    logits = load_model(old_bin(folder))(IDS)
    (copy,) = cache.rglob("*.safetensors")
    copy.write_bytes(copy.read_bytes()[:-9])
    assert torch.equal(load_model(folder)(IDS), logits)
    assert torch.equal(load_model(folder)(IDS), logits)


def test_two_names_of_one_tensor_are_kept_once_in_a_copy_and_both_come_back(folder, cache):
    tensors = load_file(folder / "model.safetensors")
    shared = tensors | {
        "lm_head.weight": tensors["transformer.wte.weight"],
        "part": tensors["transformer.ln_f.bias"][2:5],
    }
    path = old_bin(folder, shared) / "pytorch_model.bin"
    copy = weights.as_safetensors(path)
    assert "lm_head.weight" not in load_file(copy)
    read = dict(weights.read_file(copy))
    assert read.keys() == shared.keys() and all(torch.equal(read[name], shared[name]) for name in shared)


def test_a_model_loads_with_a_warning_where_its_copy_cannot_be_written(folder, tmp_path, monkeypatch):
    logits = load_model(folder)(IDS)
    (tmp_path / "file").touch()
    monkeypatch.setenv("MINIPOET_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match=r"Could not write .*pytorch_model\.bin is read as it is; MINIPOET_CACHE"):
        assert torch.equal(load_model(old_bin(folder))(IDS), logits)


def test_what_can_be_mapped_gets_no_copy_nor_what_is_only_looked_at(folder, cache):
    tensors = load_file(folder / "model.safetensors")
    load_model(old_bin(folder, tensors), device="meta")
    load_model(old_bin(folder, tensors, zipped=True))
    assert not cache.exists()


def test_a_bin_with_code_in_it_gets_no_copy(folder, cache, capsys):
    old_bin(folder, {"transformer.wte.weight": Evil()})
    with pytest.raises(CheckpointError, match="never run"):
        load_model(folder)
    assert not cache.exists() and "stranger" not in capsys.readouterr().out


@pytest.fixture
def shards(tmp_path):
    """A folder of three shards."""
    shutil.copytree(reference("gpt2/sharded"), tmp_path / "s")
    return tmp_path / "s"


def edit_index(folder, change):
    path = folder / "model.safetensors.index.json"
    content = json.loads(path.read_text())
    change(content["weight_map"])
    path.write_text(json.dumps(content))


NORM, FIRST, LAST = "transformer.ln_f.weight", "model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors"


def test_a_missing_shard_is_named(shards):
    (shards / FIRST).unlink()
    with pytest.raises(CheckpointError, match=f"1 of 3 shards are missing: {FIRST}"):
        load_model(shards)


def test_a_tensor_that_is_in_another_shard_than_the_index_says_is_told(shards):
    edit_index(shards, lambda index: index.update({NORM: FIRST}))
    with pytest.raises(CheckpointError, match=f"the index puts {NORM} in {FIRST}, but {LAST} has it"):
        load_model(shards)


def test_a_tensor_that_its_shard_lacks_is_told_with_the_shard(shards):
    tensors = load_file(shards / LAST)
    del tensors[NORM]
    save_file(tensors, shards / LAST)
    with pytest.raises(CheckpointError, match=rf"missing \(1\): {NORM} \(not in {LAST}, where the index puts it\)"):
        load_model(shards)


def test_a_tensor_that_only_the_index_has_is_not_asked_for_if_the_model_ties_it(shards):
    logits = load_model(shards)(IDS)
    edit_index(shards, lambda index: index.update({"lm_head.weight": LAST}))
    assert torch.equal(load_model(shards)(IDS), logits)


def test_a_shard_that_the_index_does_not_name_is_told(shards):
    def forget_the_last(index):
        for name in [name for name, file in index.items() if file == LAST]:
            del index[name]

    edit_index(shards, forget_the_last)
    with pytest.raises(CheckpointError, match=f"has {LAST}, which model.safetensors.index.json does not name"):
        load_model(shards)


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 3}}', '{"weight_map": "x"}']
)
def test_an_index_that_is_none_is_told(shards, content):
    (shards / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError, match="has no weight_map"):
        load_model(shards)


def test_an_index_cannot_lead_out_of_its_folder(shards):
    edit_index(shards, lambda index: index.update(dict.fromkeys(index, "../plain/model.safetensors")))
    with pytest.raises(CheckpointError, match="outside its own folder"):
        load_model(shards)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "gpt9"}, "gpt9"),
        ({"n_head": "four"}, "n_head should be int"),
        ({"n_layer": 2.5}, "n_layer should be int"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"activation_function": "quick"}, "quick"),
    ],
)
def test_a_config_that_cannot_be_read_is_told(folder, values, message):
    edit_config(folder, **values)
    with pytest.raises(CheckpointError, match=message):
        load_model(folder)


def test_folders_without_config_or_weights_are_told(tmp_path, folder):
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load_model(tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="holds no weights"):
        load_model(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not a JSON file"):
        load_model(folder)


def test_a_head_that_the_config_ties_but_that_differs_is_told(folder):
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"lm_head.weight": tensors["transformer.wte.weight"].clone()}, folder / "model.safetensors")
    load_model(folder)  # an equal copy, as old files have it, is fine
    save_file(tensors | {"lm_head.weight": tensors["transformer.wte.weight"] + 1}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="tie_word_embeddings"):
        load_model(folder)


def test_a_copy_of_the_embedding_without_the_embedding_is_told(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors.pop("transformer.wte.weight")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"missing \(1\): transformer\.wte\.weight"):
        load_model(folder)


def test_a_save_that_fails_leaves_no_config_behind(folder, monkeypatch):
    model = load_model(folder)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("minipoet.files.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_model(model, folder)
    assert not (folder / "config.json").exists()  # half a save is not taken for a whole one
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize(
    ("shape", "count"),
    [
        ({"vocab_size": 50264, "n_embd": 768, "n_layer": 12, "n_head": 12}, 125_231_616),
        ({"vocab_size": 50257, "n_embd": 1024, "n_layer": 24, "n_head": 16}, 355_871_744),
        ({"vocab_size": 50257, "n_embd": 1536, "n_layer": 24, "n_head": 16}, 760_300_032),
        ({"vocab_size": 50272, "n_embd": 5120, "n_layer": 40, "n_head": 40}, 12_853_463_040),
    ],
)
def test_published_sizes_are_counted_without_memory(shape, count):
    with torch.device("meta"):
        model = GPT2(GPT2Config(n_positions=2048, **shape))
    assert count_parameters(model).all == count
