"""T5, v1.1 and mT5 by hand against recorded outputs of transformers and PEFT, and the model contract with a source."""

import json
import shutil

import pytest
import torch
from reference_data import load_json, load_tensors, reference
from test_gpt2 import assert_logits_equal

import minipoet
from minipoet.models import CheckpointError, count_parameters, load_model, save_model
from minipoet.models.families import make_config
from minipoet.models.packed import can_pack, pack_weights
from minipoet.models.t5 import MT5, T5, GatedT5, T5Config
from minipoet.training.loss import batch_loss, batch_sums
from minipoet.training.packing import Batches

FOLDERS = {"v10": T5, "v11": GatedT5, "mt5": MT5}
KINDS = {
    "v10": (T5, {}),
    "v11": (GatedT5, {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "scale_decoder_outputs": False}),
}
SOURCE = torch.tensor([[2, 6, 5, 3, 5, 8, 1], [9, 7, 9, 3, 2, 3, 1]])
IDS = torch.tensor([[0, 4, 4, 7, 2, 9], [0, 7, 3, 8, 8, 5]])
PACKED_SOURCE = torch.tensor([[1, 1, 1, 2, 2, 3, 0], [1, 2, 2, 2, 2, 2, 2]])
PACKED = torch.tensor([[1, 1, 2, 2, 2, 3], [1, 1, 1, 2, 2, 0]])


def tiny(kind="v10", **options):
    """A loud one: fewer distances with buckets of their own than the texts are long, heads · d_kv another width."""
    cls, own = KINDS[kind]
    sizes = {"vocab_size": 50, "d_model": 16, "d_kv": 6, "d_ff": 20, "num_layers": 2, "num_decoder_layers": 3,
             "num_heads": 4, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 6,
             "dropout_rate": 0.0}  # fmt: skip
    torch.manual_seed(0)
    model = cls(T5Config(**(sizes | own | options))).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape)
            loud = 1.0 if name.split(".")[-2] in ("distances", "embed") else 0.3
            parameter.copy_(1 + 0.3 * noise if parameter.ndim == 1 else loud * noise)
    return model


def says(model, source=SOURCE, ids=IDS, source_segments=None, segments=None):
    """(B, T, V): what the model says of the ids about the source."""
    return model(ids, model.new_cache(source, source_segments), segments)


# Against transformers


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("case", ["full", "left", "right"])
def test_logits_equal_the_recorded_ones(folder, case):
    recorded, model = load_tensors(f"t5/{folder}.outputs"), load_model(reference(f"t5/{folder}"))
    with torch.no_grad():
        logits = says(model, recorded["source"], recorded["target"], recorded[f"{case}.mask"])
        if case == "full":
            assert_logits_equal(says(model, recorded["source"], recorded["target"]), recorded["full.logits"])
    assert type(model) is FOLDERS[folder]
    assert_logits_equal(logits, recorded[f"{case}.logits"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_logits_of_padded_texts_equal_the_recorded_ones(folder):
    recorded, model = load_tensors(f"t5/{folder}.outputs"), load_model(reference(f"t5/{folder}"))
    mask = recorded["target.mask"]
    with torch.no_grad():
        logits = says(model, recorded["source"], recorded["target"], recorded["left.mask"], mask)
    assert_logits_equal(logits[mask.bool()], recorded["padded_target.logits"][mask.bool()])
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("folder", FOLDERS)
def test_cached_logits_equal_the_recorded_ones(folder):
    recorded, model = load_tensors(f"t5/{folder}.outputs"), load_model(reference(f"t5/{folder}"))
    with torch.no_grad():
        cache = model.new_cache(recorded["source"], recorded["left.mask"])
        pieces = [model(ids, cache) for ids in recorded["target"].split((5, 1, 12), dim=1)]
    assert cache.length == 18
    assert_logits_equal(torch.cat(pieces, 1), recorded["left.cached_logits"])


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_and_gradients_equal_the_recorded_ones(folder, checkpointing):
    recorded, outputs = load_tensors(f"t5/{folder}.gradients"), load_tensors(f"t5/{folder}.outputs")
    model = load_model(reference(f"t5/{folder}"))
    model.gradient_checkpointing = checkpointing
    model.train()
    for module in model.modules():
        for name in ("p", "dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    logits = says(model, outputs["source"], outputs["target"], outputs["left.mask"])
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), recorded.pop("labels").flatten())
    loss.backward()
    assert torch.allclose(loss, recorded.pop("loss"), rtol=1e-6)
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    assert torch.allclose(norm, recorded.pop("grad_norm"), rtol=1e-5)
    assert len(recorded) == 4
    for name, expected in recorded.items():
        ours, _ = model.name_table().ours(name.removeprefix("grad."))
        assert_logits_equal(model.get_parameter(ours).grad, expected)


# Files


@pytest.mark.parametrize("folder", [*FOLDERS, "v10_old_bin"])
def test_a_saved_model_reads_back_as_it_was(folder, tmp_path):
    model = load_model(reference(f"t5/{folder}"))
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert type(again) is type(model) and again.config == model.config
    assert torch.equal(says(again), says(model))
    tied = folder.startswith("v10")
    assert (again.head.weight is again.embed.weight) == again.config.tie_word_embeddings == tied
    assert again.output_scale == (8**-0.5 if tied else 1)


def test_a_bin_with_every_copy_of_the_embedding_and_an_unused_table_is_read():
    recorded, model = load_tensors("t5/v10.outputs"), load_model(reference("t5/v10_old_bin"))
    assert model.head.weight is model.embed.weight
    assert_logits_equal(says(model, recorded["source"], recorded["target"]), recorded["full.logits"])


@pytest.mark.parametrize("folder", [*FOLDERS, "v10_old_bin"])
def test_the_shapes_alone_are_read_as_the_numbers_are(folder):
    there, shapes = (load_model(reference(f"t5/{folder}"), device=device) for device in ("cpu", "meta"))
    assert shapes.config == there.config
    assert count_parameters(shapes) == count_parameters(there)


@pytest.mark.parametrize(
    ("values", "tied", "scaled"),
    [
        ({"model_type": "t5"}, True, True),
        ({"model_type": "t5", "tie_word_embeddings": False}, False, False),  # v1.1 as published
        ({"model_type": "t5", "tie_word_embeddings": True, "scale_decoder_outputs": False}, True, False),
        ({"model_type": "mt5", "tie_word_embeddings": False}, False, False),
        ({"model_type": "mt5"}, True, False),
    ],
)
def test_what_the_config_says_of_the_head_and_of_its_scale(values, tied, scaled):
    config = make_config(T5, values)
    assert (config.tie_word_embeddings, config.scale_decoder_outputs) == (tied, scaled)


def test_files_that_do_not_fit_are_told(tmp_path):
    folder = shutil.copytree(reference("t5/v10"), tmp_path / "a")
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"feed_forward_proj": "gated-gelu"}))
    with pytest.raises(CheckpointError, match=r"missing .*DenseReluDense\.wi_0.*\n.*left over .*DenseReluDense\.wi\."):
        load_model(folder)
    (folder / "config.json").write_text(json.dumps(values | {"num_heads": 3}))
    with pytest.raises(CheckpointError, match="SelfAttention"):
        load_model(folder)
    (folder / "config.json").write_text(json.dumps(values | {"d_model": 0, "relative_attention_num_buckets": 6}))
    with pytest.raises(CheckpointError, match="d_model = 0 .*; relative_attention_num_buckets = 6 must be a multiple"):
        load_model(folder)


# The contract


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", range(1, 6))
def test_cached_logits_equal_uncached_logits_at_every_split(kind, split):
    model = tiny(kind)
    with torch.no_grad():
        cache = model.new_cache(SOURCE)
        parts = [model(IDS[:, :split], cache), model(IDS[:, split:], cache)]
        assert_logits_equal(torch.cat(parts, dim=1), says(model))
    assert cache.length == 6


def test_a_text_read_token_by_token_through_packing_is_what_it_is_at_once():
    model = tiny()
    with torch.no_grad():
        cache = model.new_cache(SOURCE, PACKED_SOURCE)
        parts = [model(IDS[:, [t]], cache, PACKED[:, [t]]) for t in range(6)]
        whole = says(model, source_segments=PACKED_SOURCE, segments=PACKED)
    assert_logits_equal(torch.cat(parts, dim=1)[PACKED > 0], whole[PACKED > 0])


@pytest.mark.parametrize("kind", KINDS)
def test_packed_texts_see_only_themselves_and_their_own_source(kind):
    model = tiny(kind)
    with torch.no_grad():
        packed = says(model, source_segments=PACKED_SOURCE, segments=PACKED)
        for row in range(2):
            for number in range(1, int(PACKED[row].max()) + 1):
                source, where = SOURCE[row, PACKED_SOURCE[row] == number], PACKED[row] == number
                assert_logits_equal(packed[row, where], says(model, source[None], IDS[row, where][None])[0])
    assert torch.isfinite(packed).all()


def test_padding_says_nothing_and_rows_of_it_are_no_nan():
    model = tiny()
    padded, segments = torch.nn.functional.pad(SOURCE, (3, 2), value=9), torch.zeros(2, 12, dtype=torch.long)
    segments[:, 3:10] = 1
    with torch.no_grad():
        assert_logits_equal(says(model, padded, source_segments=segments), says(model))
        nothing = torch.zeros_like(segments)
        assert torch.isfinite(says(model, padded, source_segments=nothing, segments=torch.zeros_like(IDS))).all()


def test_what_comes_later_changes_nothing_before_it_and_all_of_the_source_counts():
    model, other, last = tiny(), IDS.clone(), SOURCE.clone()
    other[:, 4], last[:, -1] = 11, 12
    with torch.no_grad():
        first, second, third = says(model), says(model, ids=other), says(model, last)
    assert torch.equal(first[:, :4], second[:, :4]) and (first[:, 4:] - second[:, 4:]).abs().max() > 0.1
    assert (first[:, 0] - third[:, 0]).abs().max() > 0.01


def test_a_model_that_reads_a_source_refuses_to_write_without():
    model = tiny()
    with pytest.raises(ValueError, match=r"^A T5 writes about a source: let it read that first, cache = model\.new_"):
        model(IDS)
    with pytest.raises(ValueError, match=r"new_cache\(source_ids\), \(B, S\) ids, got 2\."):
        model.new_cache(2)
    with pytest.raises(ValueError, match=r"read the sources of 2 texts, and here are 1\."):
        model(IDS[:1], model.new_cache(SOURCE))
    with pytest.raises(ValueError, match="two dimensions"):
        model.new_cache(SOURCE[0])
    with pytest.raises(ValueError, match="this model has 0 to 49"):
        model.new_cache(SOURCE + 50)
    with pytest.raises(ValueError, match=r"source_segments must say .* got \(2, 6\) beside \(2, 7\) ids"):
        model.new_cache(SOURCE, PACKED)
    with pytest.raises(ValueError, match=r"^segments must say .* got \(2, 7\) beside \(2, 6\) ids"):
        says(model, segments=PACKED_SOURCE)


def test_gradients_flow_through_the_encoder_to_every_parameter():
    model = tiny("v11").train()
    says(model, source_segments=PACKED_SOURCE, segments=PACKED)[PACKED > 0].square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_checkpointing_changes_no_gradient(kind):
    model, gradients = tiny(kind, dropout_rate=0.1).train(), []
    for checkpointing in (False, True):
        model.gradient_checkpointing = checkpointing
        model.zero_grad()
        torch.manual_seed(1)
        says(model, source_segments=PACKED_SOURCE, segments=PACKED).square().mean().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert_logits_equal(one, other)


def test_dropout_acts_in_training_only():
    model = tiny(dropout_rate=0.3)
    assert torch.equal(says(model), says(model))
    model.train()
    assert not torch.equal(says(model), says(model))
    with torch.no_grad():
        assert not torch.equal(model.encode(SOURCE), model.encode(SOURCE))


@pytest.mark.parametrize("folder", FOLDERS)
def test_half_precision_stays_close(folder):
    recorded = load_tensors(f"t5/{folder}.outputs")
    model, expected = load_model(reference(f"t5/{folder}"), dtype=torch.bfloat16), recorded["left.logits"]
    with torch.no_grad():
        logits = says(model, recorded["source"], recorded["target"], recorded["left.mask"])
    assert logits.dtype is torch.bfloat16
    assert (logits.float() - expected).abs().mean() < 0.05 * expected.abs().mean()


def test_autocast_learns_in_fp32():
    model = tiny("v11").train()
    plain = says(model).detach()
    with torch.autocast("cpu", torch.bfloat16):
        logits = says(model, source_segments=torch.ones_like(SOURCE))
    assert logits.dtype is torch.bfloat16
    assert (logits.float() - plain).abs().mean() < 0.05 * plain.abs().mean()
    logits.float().logsumexp(-1).sum().backward()
    assert all(p.grad.dtype is torch.float32 for p in model.parameters())


@pytest.mark.skipif(not can_pack(), reason="this PyTorch has no oneDNN")
def test_packed_weights_write_the_same():
    ids = torch.randint(50, (2, 5))
    plain = tiny("v11", d_model=32, d_ff=64).bfloat16()
    with torch.no_grad():
        wanted = says(plain, ids=ids)
        packed = says(pack_weights(plain), ids=ids)
    assert (packed.float() - wanted.float()).abs().mean() < 0.02 * wanted.float().abs().mean()


def test_batches_of_the_loop_are_measured_as_the_texts_by_themselves():
    model, sources, texts = tiny(), [[5, 6, 1], [7, 1], [8, 9, 3, 1]], [[0, 3, 1], [0, 4, 5, 6, 1], [0, 2, 1]]
    (batch,) = Batches(texts, 10, 4, sources=sources).once()
    assert int(batch.segments.max()) > 1
    alone = sum(
        torch.nn.functional.cross_entropy(says(model, torch.tensor([s]), torch.tensor([t[:-1]]))[0],
                                          torch.tensor(t[1:]), reduction="sum")
        for s, t in zip(sources, texts, strict=True)
    )  # fmt: skip
    assert torch.allclose(batch_loss(model, batch), alone, rtol=1e-5)
    sums = batch_sums(model, batch)
    assert torch.allclose(sums.loss, alone, rtol=1e-5) and 0 < float(sums.entropy) < batch.tokens() * 4


# Shapes

PUBLIC = {  # d_model, d_kv, heads, d_ff, layers, rows, gated: parameters
    "t5-small": ((512, 64, 8, 2048, 6, 32128, False), 60_506_624),
    "t5-base": ((768, 64, 12, 3072, 12, 32128, False), 222_903_552),
    "t5-v1_1-small": ((512, 64, 6, 1024, 8, 32128, True), 76_961_152),
    "rut5-small": ((512, 64, 6, 1024, 8, 20100, True), 64_644_480),
}
LORA = {"t5-small": 147_456, "t5-base": 442_368, "rut5-small": 172_032}  # r = 4 on q and v


def shape(size):
    C, D, H, inner, layers, rows, gated = PUBLIC[size][0]
    sizes = {"vocab_size": rows, "d_model": C, "d_kv": D, "d_ff": inner, "num_layers": layers, "num_heads": H}
    head = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "scale_decoder_outputs": False}
    with torch.device("meta"):
        return (GatedT5 if gated else T5)(T5Config(**sizes, **(head if gated else {})))


@pytest.mark.parametrize("size", PUBLIC)
def test_the_public_shapes_have_their_parameters(size):
    assert count_parameters(shape(size)).all == PUBLIC[size][1]


@pytest.mark.parametrize("targets", [("q", "v"), ("attn.q", "attn.v", "cross.q", "cross.v"), r".*Attention\.(q|v)"])
@pytest.mark.parametrize("size", LORA)
def test_lora_is_counted_as_peft_counts_it(size, targets):
    model = minipoet.add_lora(shape(size), rank=4, targets=targets)
    assert count_parameters(model) == (LORA[size], PUBLIC[size][1] + LORA[size])


# PEFT


@pytest.mark.parametrize("base", FOLDERS)
def test_a_lora_of_peft_says_the_same_here(base, tmp_path):
    recorded, outputs = load_tensors(f"t5/{base}_lora.outputs"), load_tensors(f"t5/{base}.outputs")
    model = minipoet.load_adapter(load_model(reference(f"t5/{base}")), reference(f"t5/{base}_lora"))
    trainable, total = load_json("t5/counts")[f"{base}_lora"]
    assert count_parameters(model).all == total
    assert sum(p.numel() for name, p in model.named_parameters() if "default" in name) == trainable
    minipoet.save_adapter(model, tmp_path)
    again = minipoet.load_adapter(load_model(reference(f"t5/{base}")), tmp_path)
    with torch.no_grad():
        plain = says(load_model(reference(f"t5/{base}")), outputs["source"], outputs["target"])
        for reader in (model, again, minipoet.merge_lora(again)):
            for case in ("full", "left"):
                said = says(reader, outputs["source"], outputs["target"], outputs[f"{case}.mask"])
                assert_logits_equal(said, recorded[f"{case}.logits"])
        assert_logits_equal(says(minipoet.set_adapter(minipoet.unmerge_lora(again), None), outputs["source"],
                                 outputs["target"]), plain)  # fmt: skip


def test_a_gate_is_asked_for_where_there_is_one():
    plain = {"feed_forward_proj": "relu", "tie_word_embeddings": True}
    for cls, options in ((T5, {"feed_forward_proj": "gated-gelu"}), (GatedT5, plain), (MT5, plain)):
        with pytest.raises(ValueError, match=f"A {cls.__name__} cannot have feed_forward_proj"):
            cls(T5Config(vocab_size=9, d_model=4, d_kv=2, d_ff=4, num_layers=1, num_heads=2, **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_kv": 0, "num_heads": 1.5}, "d_kv = 0 .*; num_heads = 1.5 must be"),
        ({"num_decoder_layers": 0}, "num_decoder_layers = 0"),
        ({"relative_attention_num_buckets": 2}, "relative_attention_num_buckets = 2 must be a multiple of 4"),
        ({"relative_attention_max_distance": 16}, "relative_attention_max_distance = 16 .* at least 17"),
        ({"dropout_rate": -0.1}, "dropout_rate = -0.1 must be a number, 0 or more"),
        ({"decoder_start_token_id": 40_000}, "decoder_start_token_id = 40000 must be an id, 0 to 32127"),
        ({"feed_forward_proj": "gated-sigmoid"}, "Unknown activation 'sigmoid'"),
    ],
)
def test_sizes_that_make_no_sense_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        T5Config(**options)


def test_the_start_is_the_published_one():
    """Deviations: 1 of the embedding, (C·D)^-½ of q, C^-½ of k, v, up, gate and distances, (H·D)^-½, d_ff^-½."""
    torch.manual_seed(0)
    model = GatedT5(T5Config(vocab_size=400, d_model=64, d_kv=16, d_ff=100, num_layers=1, num_heads=8,
                             feed_forward_proj="gated-gelu", tie_word_embeddings=False))  # fmt: skip
    cross, mlp = model.decoder.blocks[0].cross, model.encoder.blocks[0].mlp
    expected = [(model.embed, 1), (model.head, 1), (cross.q, 1 / 32), (cross.k, 1 / 8), (cross.v, 1 / 8),
                (cross.out, 128**-0.5), (mlp.gate, 1 / 8), (mlp.up, 1 / 8), (mlp.down, 0.1),
                (model.encoder.distances, 1 / 8)]  # fmt: skip
    for layer, deviation in expected:
        assert float(layer.weight.detach().std()) == pytest.approx(deviation, rel=0.1)
    assert torch.equal(model.decoder.norm.weight, torch.ones(64))
