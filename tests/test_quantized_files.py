"""GPTQ's files: folders as AutoGPTQ leaves them against their twins written out, ours read back, and broken ones."""

import json
import shutil

import pytest
import torch
from quantized_support import IDS, published_tensors, quantised, random_codes, tiny, write_folder
from safetensors.torch import load_file, save_file

import minipoet
from minipoet.models import CheckpointError, load_model
from minipoet.quantization import (
    FewBitLinear,
    GPTQLinear,
    QuantConfig,
    few_bit_layers,
    is_quantized,
    load_quantized,
    packed_bytes,
    quantization_of,
    save_quantized,
)
from minipoet.quantization import checkpoint as module


def assert_twins(packed, twin) -> None:
    """The same logits, to fp32's accuracy; the layers are packed."""
    model = load_quantized(packed)
    assert len(list(few_bit_layers(model))) in (8, 14)
    torch.testing.assert_close(model(IDS), load_model(twin)(IDS), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "qwen2"])
@pytest.mark.parametrize("sym", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_logits_equal_those_of_the_weights_written_out(bits, sym, family, tmp_path):
    assert_twins(*write_folder(tmp_path, tiny(family), QuantConfig(bits=bits, group_size=32, sym=sym)))


@pytest.mark.parametrize(
    ("config", "options"),
    [
        ({"group_size": -1}, {}),
        ({"group_size": 128}, {}),  # larger than some layers
        ({"group_size": 24}, {}),  # the last group has fewer
        ({"group_size": 32, "sym": False}, {"order": True}),
        ({"group_size": -1}, {"order": True}),
        ({"group_size": 32, "sym": False}, {"version": 2}),
        ({"bits": 3, "group_size": 32, "sym": False}, {"version": 2, "order": True}),
        ({"group_size": 32}, {"g_idx": False}),
    ],
)
def test_every_kind_of_groups_and_zeros(config, options, tmp_path):
    assert_twins(*write_folder(tmp_path, tiny("qwen2"), QuantConfig(**config), **options))


@pytest.mark.parametrize(
    ("file", "settings"),
    [
        ("gptq_model-4bit-32g.safetensors", {}),
        ("gptq_model-4bit-32g.bin", {}),
        ("pytorch_model.bin", {}),
        ("verse-4bit.safetensors", {"model_file_base_name": "verse-4bit"}),
    ],
)
def test_files_of_other_names_are_found(file, settings, tmp_path):
    assert_twins(*write_folder(tmp_path, tiny(), QuantConfig(group_size=32), file=file, settings=settings))


def test_shards_are_read(tmp_path):
    packed, twin = write_folder(tmp_path, tiny(), QuantConfig(group_size=32))
    tensors = load_file(packed / "model.safetensors")
    weight_map = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(tensors)}
    for shard in set(weight_map.values()):
        save_file({name: t for name, t in tensors.items() if weight_map[name] == shard}, packed / shard)
    (packed / "model.safetensors").unlink()
    (packed / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert_twins(packed, twin)


@pytest.mark.parametrize("where", ["config.json", "both"])
def test_settings_may_stand_in_config_json(where, tmp_path):
    packed, twin = write_folder(tmp_path, tiny(), QuantConfig(group_size=32, sym=False), version=2)
    values = json.loads((packed / "quantize_config.json").read_text())
    values["format"] = values.pop("checkpoint_format")  # GPTQModel's word
    config = json.loads((packed / "config.json").read_text())
    (packed / "config.json").write_text(json.dumps(config | {"quantization_config": values | {"quant_method": "gptq"}}))
    if where == "config.json":
        (packed / "quantize_config.json").unlink()
    assert quantization_of(packed).form == "gptq_v2"
    assert_twins(packed, twin)


def test_a_symmetric_file_that_names_the_wrong_form_is_known_by_its_words(tmp_path):
    packed, twin = write_folder(
        tmp_path, tiny(), QuantConfig(group_size=32), version=2, settings={"checkpoint_format": "gptq"}
    )
    with pytest.warns(UserWarning, match="they are those of 'gptq_v2'"):
        assert_twins(packed, twin)


def test_a_bias_of_a_layer_that_has_none_is_added(tmp_path):
    """AutoGPTQ wrote a bias for every layer."""
    packed, _ = write_folder(tmp_path, tiny("qwen2"), QuantConfig(group_size=32))
    tensors = load_file(packed / "model.safetensors")
    before = load_quantized(packed)(IDS)
    tensors["model.layers.0.mlp.down_proj.bias"] = torch.full((64,), 0.5).half()
    save_file(tensors, packed / "model.safetensors")
    assert not torch.allclose(load_quantized(packed)(IDS), before, atol=0.01)


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16])
def test_dtype_is_that_of_what_is_not_packed(dtype, tmp_path):
    packed, twin = write_folder(tmp_path, tiny(), QuantConfig(group_size=32))
    model = load_quantized(packed, dtype)
    assert {p.dtype for p in model.parameters()} == {dtype or torch.float32}  # fp16 becomes fp32 on a CPU
    assert {layer.scales.dtype for _, layer in few_bit_layers(model)} == {torch.float16}
    tolerance = 0.05 if dtype is torch.bfloat16 else 1e-5
    torch.testing.assert_close(model(IDS).float(), load_model(twin)(IDS), rtol=tolerance, atol=tolerance)


def test_a_quantised_model_is_frozen(tmp_path):
    packed, _ = write_folder(tmp_path, tiny(), QuantConfig(group_size=32))
    model = load_quantized(packed)
    assert not model.training and not any(p.requires_grad for p in model.parameters())


def test_words_are_not_copied(tmp_path, monkeypatch):
    """They stay where the file is mapped: the loader needs no memory for them besides."""
    packed, _ = write_folder(tmp_path, tiny(), QuantConfig(group_size=32))
    mapped = {}

    def noted(*arguments):
        for name, tensor in read(*arguments):
            mapped[name] = tensor.data_ptr()
            yield name, tensor

    read = module.read_tensors
    monkeypatch.setattr(module, "read_tensors", noted)
    model = load_quantized(packed)
    table = model.name_table()
    for name, layer in few_bit_layers(model):
        stem, _ = table.published_module(name)
        for part in ("qweight", "qzeros", "scales", "g_idx"):
            assert getattr(layer, part).data_ptr() == mapped[f"{stem}.{part}"]


def test_packed_bytes_are_those_of_the_files_tensors(tmp_path):
    packed, _ = write_folder(tmp_path, tiny("qwen2"), QuantConfig(group_size=32))
    tensors = load_file(packed / "model.safetensors")
    layers = {
        name: t for name, t in tensors.items() if name.rpartition(".")[2] in ("qweight", "qzeros", "scales", "g_idx")
    }
    biases = {name: t.float() for name, t in tensors.items() if name.endswith("proj.bias")}  # they become fp32
    assert packed_bytes(load_quantized(packed)) == sum(t.nbytes for t in (layers | biases).values())


def test_weights_that_do_not_fit_in_memory_are_told_before_loading(tmp_path, monkeypatch):
    packed, _ = write_folder(tmp_path, tiny(), QuantConfig(group_size=32))
    monkeypatch.setattr("minipoet.models.checkpoint.available_memory", lambda device: 10_000)
    with pytest.raises(CheckpointError, match="does not fit in memory"):
        load_quantized(packed, torch.float32)
    assert load_quantized(packed, torch.float32, check_memory=False)


def test_a_model_is_loaded_on_the_meta_device(tmp_path):
    packed, _ = write_folder(tmp_path, tiny(), QuantConfig(group_size=32))
    model = load_quantized(packed, device="meta")
    assert {t.device.type for t in (*model.parameters(), *model.buffers())} == {"meta"}


# Written by us


@pytest.mark.parametrize("family", ["gpt2", "qwen2"])
@pytest.mark.parametrize(
    ("bits", "group", "sym"), [(4, 32, True), (4, 24, False), (3, 32, False), (2, 32, True), (8, -1, True)]
)
def test_what_is_written_gives_the_same_logits_when_read(bits, group, sym, family, tmp_path):
    model = quantised(tiny(family), QuantConfig(bits=bits, group_size=group, sym=sym))
    save_quantized(model, tmp_path)
    assert torch.equal(load_quantized(tmp_path)(IDS), model(IDS))
    found = quantization_of(tmp_path).config
    assert (found.bits, found.group_size, found.sym, found.desc_act) == (bits, group, sym, False)


def test_what_was_read_is_written_as_it_was(tmp_path):
    packed, _ = write_folder(tmp_path, tiny(), QuantConfig(group_size=32, sym=False), order=True)
    save_quantized(load_quantized(packed), tmp_path / "again")
    before, after = load_file(packed / "model.safetensors"), load_file(tmp_path / "again/model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name].float(), after[name].float()) for name in before)
    assert quantization_of(tmp_path / "again").config.desc_act


def test_zeros_of_the_second_form_are_written_in_the_first(tmp_path):
    packed, _ = write_folder(tmp_path, tiny(), QuantConfig(group_size=32, sym=False), version=2)
    model = load_quantized(packed)
    save_quantized(model, tmp_path / "again")
    assert quantization_of(tmp_path / "again").form == "gptq"
    assert torch.equal(load_quantized(tmp_path / "again")(IDS), model(IDS))


def test_both_places_name_the_settings_and_the_files_are_autogptqs(tmp_path):
    save_quantized(quantised(tiny(), QuantConfig(group_size=32)), tmp_path, {"eos_token_id": 2})
    beside, config = (json.loads((tmp_path / name).read_text()) for name in ("quantize_config.json", "config.json"))
    assert config["quantization_config"].items() <= beside.items() and config["eos_token_id"] == 2
    assert beside == {
        "quant_method": "gptq",
        "bits": 4,
        "group_size": 32,
        "sym": True,
        "desc_act": False,
        "checkpoint_format": "gptq",
        "lm_head": False,
        "model_file_base_name": "model",
    }
    tensors = load_file(tmp_path / "model.safetensors")
    shapes = {name: (tuple(t.shape), t.dtype) for name, t in tensors.items() if ".h.1.mlp.c_fc." in name}
    assert shapes == {
        "transformer.h.1.mlp.c_fc.qweight": ((8, 256), torch.int32),
        "transformer.h.1.mlp.c_fc.qzeros": ((2, 32), torch.int32),
        "transformer.h.1.mlp.c_fc.scales": ((2, 256), torch.float16),
        "transformer.h.1.mlp.c_fc.g_idx": ((64,), torch.int32),
        "transformer.h.1.mlp.c_fc.bias": ((256,), torch.float32),
    }
    assert (tensors["transformer.h.0.attn.c_attn.qzeros"] == 2004318071).all()


def test_a_plain_model_saved_over_a_packed_one_is_plain(tmp_path):
    model, tokenizer = minipoet.load("poet-tiny")
    for _ in range(2):
        minipoet.save(model, tokenizer, tmp_path)
        assert not is_quantized(tmp_path)
        assert not list(few_bit_layers(minipoet.load(tmp_path)[0]))
        save_quantized(quantised(tiny(), QuantConfig(group_size=32)), tmp_path)
        assert is_quantized(tmp_path) and not list(tmp_path.glob("model-*"))


def test_load_and_save_of_the_package_know_packed_models(tmp_path):
    model, tokenizer = minipoet.load("poet-chat")
    quantised(model, QuantConfig())
    ids = torch.tensor([tokenizer.encode("Мороз и солнце")])
    minipoet.save(model, tokenizer, tmp_path)
    back, its_tokenizer = minipoet.load(tmp_path)
    assert torch.equal(back(ids), model(ids)) and back.origin == str(tmp_path)
    assert its_tokenizer.encode("Мороз и солнце") == ids[0].tolist()
    assert (tmp_path / "model.safetensors").stat().st_size < 6_700_000  # fp32 takes 24 MB


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda layer: GPTQLinear.of(random_codes(8, 64, 192)), "4, 8 bits"),
        (lambda layer: GPTQLinear.of(random_codes(4, 64, 192, group=16)), "groups of 16, 32"),
        (lambda layer: FewBitLinear(64, 192), r"blocks\.1\.attn\.qkv cannot be written .* not on a grid"),
    ],
)
def test_layers_that_one_file_cannot_hold_are_told_and_nothing_is_written(change, message, tmp_path):
    model = quantised(tiny(), QuantConfig(group_size=32))
    model.blocks[1].attn.qkv = change(model.blocks[1].attn.qkv)
    with pytest.raises(ValueError, match=message):
        save_quantized(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# What cannot be read


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quant_method": "awq"}, "quant_method 'awq'"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "'bitsandbytes'"),
        ({"load_in_8bit": True}, "'bitsandbytes'"),
        ({"quant_method": "exl2"}, "'exl2'"),
        ({"is_marlin_format": True}, "checkpoint_format 'marlin'"),
        (
            {"checkpoint_format": "gptq_p", "bits": 6},
            "checkpoint_format 'gptq_p'; bits must be one of 2, 3, 4, 8, got 6",
        ),
        ({"pack_dtype": "int16"}, "int16"),
        ({"dynamic": {"-:.*mlp": {}}}, "dynamic"),
        ({"group_size": 0}, "group_size must be"),
        ({"bits": "4"}, "bits must be one of 2, 3, 4, 8, got '4'"),
        ({"bits": None}, "bits are not given"),
    ],
)
def test_other_layouts_are_refused_by_name(settings, message, tmp_path):
    packed, _ = write_folder(tmp_path, tiny(), QuantConfig(group_size=32), settings=settings)
    with pytest.raises(CheckpointError, match=message) as told:
        load_quantized(packed)
    assert "minipoet.quantize" in str(told.value)


def test_settings_that_disagree_are_told(tmp_path):
    packed, _ = write_folder(tmp_path, tiny(), QuantConfig(group_size=32))
    config = json.loads((packed / "config.json").read_text())
    other = {"quant_method": "gptq", "bits": 8, "group_size": 64}
    (packed / "config.json").write_text(json.dumps(config | {"quantization_config": other}))
    with pytest.raises(CheckpointError, match=r"config.json has bits 8, quantize_config.json 4; config.json has group"):
        load_quantized(packed)


@pytest.mark.parametrize("text", ["[1, 2]", '"four bits"'])
def test_settings_that_are_no_object_are_told(text, tmp_path):
    packed, _ = write_folder(tmp_path, tiny(), QuantConfig(group_size=32))
    (packed / "quantize_config.json").write_text(text)
    with pytest.raises(CheckpointError, match="should be a JSON object"):
        load_quantized(packed)


@pytest.mark.parametrize(("name", "value"), [("group_size", 64), ("bits", 8)])
def test_a_config_that_the_tensors_disagree_with_is_told(name, value, tmp_path):
    packed, _ = write_folder(tmp_path, tiny(), QuantConfig(group_size=32), settings={name: value})
    with pytest.raises(
        CheckpointError, match=r"c_attn\.scales is \(2, 192\)|c_attn\.qweight is \(8, 192\), but 64 inputs"
    ):
        load_quantized(packed)


def test_all_that_is_wrong_with_the_tensors_is_told_at_once(tmp_path):
    packed, _ = write_folder(tmp_path, tiny(), QuantConfig(group_size=32))
    tensors = load_file(packed / "model.safetensors")
    block = "transformer.h.0."
    tensors[f"{block}attn.c_attn.qweight"] = tensors[f"{block}attn.c_attn.qweight"][:-1].clone()  # cut short
    tensors[f"{block}attn.c_proj.g_idx"][3] = 2
    tensors[f"{block}mlp.c_fc.scales"] = tensors[f"{block}mlp.c_fc.scales"].int()
    tensors[f"{block}mlp.c_proj.qweight"] = tensors[f"{block}mlp.c_proj.qweight"].long()
    tensors["transformer.wpe.weight"] = tensors["transformer.wpe.weight"][:-1].clone()
    tensors["transformer.h.7.mlp.c_fc.qweight"] = tensors[f"{block}mlp.c_fc.qweight"].clone()
    tensors["transformer.wte.scales"] = torch.ones(1, 64).half()
    del tensors["transformer.h.1.mlp.c_fc.qzeros"], tensors["transformer.h.1.attn.c_attn.bias"]
    del tensors["transformer.ln_f.bias"]
    save_file(tensors, packed / "model.safetensors")
    with pytest.raises(CheckpointError) as told:
        load_quantized(packed)
    for part in (
        "c_attn.qweight is (7, 192), but 64 inputs and 192 outputs in 4 bits and groups of 32 take (8, 192)",
        "h.0.attn.c_proj.g_idx names groups 0 to 2, there are 2",
        "h.0.mlp.c_fc.scales holds torch.int32",
        "h.0.mlp.c_proj.qweight holds torch.int64",
        "transformer.wpe.weight is (31, 64), the config asks for (32, 64)",
        "left over (1): transformer.h.7.mlp.c_fc.qweight",
        "transformer.wte is packed, but only linear layers can be",
        "h.1.mlp.c_fc.qzeros is missing",
        "h.1.attn.c_attn.bias is missing",
        "missing (1): transformer.ln_f.bias",
    ):
        assert part in str(told.value), part


def test_a_file_cut_short_is_told(tmp_path):
    packed, _ = write_folder(tmp_path, tiny(), QuantConfig(group_size=32))
    file = packed / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="broken or cut short"):
        load_quantized(packed)


def test_a_folder_without_packed_layers_is_told(tmp_path):
    packed, twin = write_folder(tmp_path, tiny(), QuantConfig(group_size=32))
    shutil.copyfile(twin / "model.safetensors", packed / "model.safetensors")
    with pytest.raises(CheckpointError, match="no packed layers"):
        load_quantized(packed)


def test_a_folder_without_weights_names_those_it_looked_for(tmp_path):
    packed, _ = write_folder(tmp_path, tiny(), QuantConfig(group_size=32))
    (packed / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"gptq_model-4bit-32g\.safetensors"):
        load_quantized(packed)


def test_a_packed_head_is_read_where_it_is_not_tied(tmp_path):
    packed, _ = write_folder(tmp_path, tiny(), QuantConfig(group_size=32))
    tensors = load_file(packed / "model.safetensors")
    head = random_codes(4, 64, 80)
    save_file(tensors | published_tensors("lm_head", head), packed / "model.safetensors")
    with pytest.raises(CheckpointError, match="the head is packed, but the config ties it"):
        load_quantized(packed)
    config = json.loads((packed / "config.json").read_text())
    (packed / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    model = load_quantized(packed)
    torch.testing.assert_close(model(IDS), model.states(IDS) @ head.dense().t())
    minipoet.add_lora(model, targets=["head"])
