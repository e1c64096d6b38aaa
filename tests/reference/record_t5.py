"""T5 checkpoints by transformers in the forms that are published, their logits, and PEFT's adapters on them."""

from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, PrefixTuningConfig, get_peft_model
from record_adapters import save_adapter
from record_common import fresh_folder, padding_masks, random_ids, write_json, write_tensors
from record_prefix import save_prefix
from record_qwen import loud
from transformers import (
    AutoModelForSeq2SeqLM,
    MT5Config,
    MT5ForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

# Texts longer than the distance from which on all share a bucket; heads · d_kv is not d_model.
SMALL = dict(
    vocab_size=31, d_model=8, d_kv=3, d_ff=10, num_heads=2, relative_attention_num_buckets=8,
    relative_attention_max_distance=12, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
)  # fmt: skip
V10 = dict(num_layers=2, num_decoder_layers=3)
V11 = dict(num_layers=3, num_decoder_layers=2, feed_forward_proj="gated-gelu")
MODELS = {
    "v10": (T5ForConditionalGeneration, T5Config, V10),
    "v11": (T5ForConditionalGeneration, T5Config, V11 | dict(tie_word_embeddings=False)),
    "mt5": (MT5ForConditionalGeneration, MT5Config, V11 | dict(num_layers=1, layer_norm_epsilon=1e-3)),
}
S, CHUNKS = 24, (5, 1, 12)  # tokens of the source; how those of the target are read through a cache
T = sum(CHUNKS)
SOURCE, TARGET = random_ids(31, 2, S, seed=3), random_ids(31, 2, T, seed=4)
TARGET[:, 0] = 0
LABELS = torch.cat([TARGET[:, 1:], torch.ones_like(TARGET[:, :1])], dim=1)
MASKS = padding_masks(2, S, amount=9)
RIGHT = padding_masks(2, T)["right"]  # of the target
TABLE = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
GRADIENTS = (f"encoder.{TABLE}", f"decoder.{TABLE}", "shared.weight", "encoder.block.0.layer.0.SelfAttention.k.weight")
LORA = {  # base, settings
    "v11_lora": ("v11", dict(r=2, lora_alpha=4, target_modules=["q", "v"])),
    "mt5_lora": ("mt5", dict(r=2, lora_alpha=1, target_modules=["k", "q", "v"])),
    "v10_lora": ("v10", dict(r=1, lora_alpha=2, target_modules="all-linear")),
}
PREFIXES = {"v10_prefix": "v10", "mt5_prefix": "mt5"}  # three layers of a decoder, and two


def make(name: str) -> torch.nn.Module:
    model_class, config_class, settings = MODELS[name]
    model = model_class(config_class(**(SMALL | settings)))
    if name != "v10":  # the library ties what it makes, and unties what it reads
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
    model = loud(model, seed=80 + list(MODELS).index(name))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5 if parameter.ndim == 2 else 1)
        model.shared.weight.mul_(4 if name == "v10" else 2)  # of v10 it is the head too, and what comes there is small
        for side in (model.encoder, model.decoder):
            side.get_parameter(TABLE).mul_(3)  # else it is lost among the scores
    model.name_or_path = model.config._name_or_path = f"t5/{name}"
    return model


@torch.no_grad()
def logits_of(model: torch.nn.Module, case: str, target_mask: torch.Tensor | None = None) -> torch.Tensor:
    """(B, T, V)."""
    masks = dict(attention_mask=MASKS[case], decoder_attention_mask=target_mask)
    return model(input_ids=SOURCE, decoder_input_ids=TARGET, use_cache=False, **masks).logits


@torch.no_grad()
def cached_logits_of(model: torch.nn.Module) -> torch.Tensor:
    """(B, T, V) by the library's own cache, of the source with padding at the left."""
    encoded, past, pieces = model.get_encoder()(SOURCE, attention_mask=MASKS["left"]), None, []
    for ids in TARGET.split(CHUNKS, dim=1):
        options = dict(attention_mask=MASKS["left"], past_key_values=past, use_cache=True)
        out = model(encoder_outputs=encoded, decoder_input_ids=ids, **options)
        pieces.append(out.logits)
        past = out.past_key_values
    return torch.cat(pieces, dim=1)


def outputs(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    tensors = {"source": SOURCE, "target": TARGET, "target.mask": RIGHT}
    for case, mask in MASKS.items():
        tensors |= {f"{case}.mask": mask, f"{case}.logits": logits_of(model, case)}
    tensors["left.cached_logits"] = cached_logits_of(model)
    tensors["padded_target.logits"] = logits_of(model, "left", RIGHT) * RIGHT.unsqueeze(-1)
    assert tensors["full.logits"].std(dim=-1).mean() > 0.5, "the logits are near-constant"
    assert (tensors["full.logits"] - tensors["left.logits"])[1].abs().max() > 0.1, "the source does nothing"
    return tensors


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Mean cross-entropy of the labels, four gradients and the L2 norm of all of them."""
    model.zero_grad()
    loss = model(input_ids=SOURCE, attention_mask=MASKS["left"], labels=LABELS).loss
    loss.backward()
    named = dict(model.named_parameters())
    norm = torch.stack([parameter.grad.norm() for parameter in named.values()]).norm()
    found = {f"grad.{name}": named[name].grad for name in GRADIENTS}
    return {"labels": LABELS, "loss": loss, "grad_norm": norm} | found


def save_as_published(model: torch.nn.Module, folder: Path, **values: object) -> None:
    """As T5 lies on the hub: a .bin with every copy of the embedding and a table that is never used, an old config."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    state[unused] = torch.ones(SMALL["relative_attention_num_buckets"], SMALL["num_heads"])
    assert torch.equal(state["encoder.embed_tokens.weight"], state["shared.weight"])
    torch.save(state, fresh_folder(folder) / "pytorch_model.bin")
    old = SMALL | dict(architectures=["T5ForConditionalGeneration"], model_type="t5", n_positions=512, use_cache=True)
    old |= dict(dropout_rate=0.1, initializer_factor=1.0, is_encoder_decoder=True, layer_norm_epsilon=1e-06)
    write_json(folder / "config.json", old | values)
    again = AutoModelForSeq2SeqLM.from_pretrained(folder, attn_implementation="eager").eval()
    torch.testing.assert_close(logits_of(again, "left"), logits_of(model, "left"), atol=1e-5, rtol=1e-5)


def record_model(out: Path, name: str) -> None:
    model = make(name)
    if name == "v11":
        save_as_published(model, out / name, **MODELS[name][2])
    else:
        model.save_pretrained(fresh_folder(out / name))
        (out / name / "generation_config.json").unlink(missing_ok=True)
        again = AutoModelForSeq2SeqLM.from_pretrained(out / name, attn_implementation="eager").eval()
        torch.testing.assert_close(logits_of(again, "left"), logits_of(model, "left"), atol=1e-5, rtol=1e-5)
    if name == "v10":
        save_as_published(model, out / "v10_old_bin", **V10)
    write_tensors(out / f"{name}.outputs.safetensors", outputs(model))
    write_tensors(out / f"{name}.gradients.safetensors", gradients(model))


def record_adapter(out: Path, base: str, name: str, config: LoraConfig | PrefixTuningConfig, seed: int) -> list[int]:
    """The folder, and the logits with it for two paddings; returns PEFT's counts while it is learnt."""
    is_lora = isinstance(config, LoraConfig)
    model = loud(get_peft_model(make(base), config), seed, "lora_" if is_lora else "prompt_encoder")
    if not is_lora:
        model.prompt_encoder["default"].embedding.weight.data *= 4
    counts = list(model.get_nb_trainable_parameters())
    (save_adapter if is_lora else save_prefix)(model, out / name)
    again = PeftModel.from_pretrained(make(base), out / name).eval()
    assert torch.equal(logits_of(again, "left"), logits_of(model, "left"))
    tensors = {f"{case}.logits": logits_of(model, case) for case in ("full", "left")}
    assert (tensors["full.logits"] - logits_of(make(base), "full")).abs().max() > 0.1, "it does nothing"
    if not is_lora:  # the library needs no mask here, nor does it count one
        tensors["padded_target.logits"] = logits_of(model, "left", RIGHT) * RIGHT.unsqueeze(-1)
    write_tensors(out / f"{name}.outputs.safetensors", tensors)
    return counts


def record(root: Path) -> None:
    out, counts = root / "t5", {}
    fresh_folder(out)
    for name in MODELS:
        record_model(out, name)
    for seed, (name, (base, settings)) in enumerate(LORA.items(), start=90):
        config = LoraConfig(task_type="SEQ_2_SEQ_LM", **settings)
        counts[name] = record_adapter(out, base, name, config, seed)
    for seed, (name, base) in enumerate(PREFIXES.items(), start=100):
        layers = MODELS[base][2]["num_decoder_layers"]  # by itself PEFT takes the encoder's, and d_model
        shape = dict(num_layers=layers, token_dim=SMALL["num_heads"] * SMALL["d_kv"], num_attention_heads=2)
        config = PrefixTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=3, **shape)
        counts[name] = record_adapter(out, base, name, config, seed)
    write_json(out / "counts.json", counts)
