"""Qwen2 and Qwen3 checkpoints written by transformers, the logits that belong to them, and PEFT's adapters on them."""

import json
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, PrefixTuningConfig, get_peft_model
from record_adapters import save_adapter
from record_common import fresh_folder, padding_masks, random_ids, write_json, write_tensors
from record_gpt2 import LENGTH, cached_logits_of, logits_of
from record_prefix import save_prefix
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

SMALL = dict(
    vocab_size=47, hidden_size=24, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=32, pad_token_id=0, bos_token_id=1, eos_token_id=2,
)  # fmt: skip
MODELS = {  # thetas so small that all pairs turn within 12 tokens
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, dict(tie_word_embeddings=True, rope_theta=50.0)),
    "qwen2_untied": (Qwen2ForCausalLM, Qwen2Config, dict(rope_theta=300.0, num_hidden_layers=1, rms_norm_eps=1e-3)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, dict(tie_word_embeddings=True, rope_theta=100.0, head_dim=8)),
}
SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
GRADIENTS = ("model.layers.0.self_attn.k_proj.weight", "model.embed_tokens.weight")
IDS = random_ids(SMALL["vocab_size"], 2, LENGTH, seed=2)
MASKS = padding_masks(2, LENGTH)


@torch.no_grad()
def loud(model: torch.nn.Module, seed: int, only: str = "") -> torch.nn.Module:
    """Random numbers for the parameters whose names hold `only`: norms near 1, biases and matrices far from 0."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if only in name:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.3 * noise if "norm" in name else 0.3 * noise)
    return model.eval()


def make(name: str) -> torch.nn.Module:
    model_class, config_class, settings = MODELS[name]
    model = loud(model_class(config_class(**(SMALL | settings))), seed=30 + list(MODELS).index(name))
    model.name_or_path = model.config._name_or_path = f"qwen/{name}"
    return model


def padded_logits(model: torch.nn.Module, case: str) -> torch.Tensor:
    """(B, T, V), 0 at padding."""
    return logits_of(model, IDS, MASKS[case]) * MASKS[case].unsqueeze(-1)


def outputs(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    tensors = {"ids": IDS, "left.cached_logits": cached_logits_of(model, IDS, MASKS["left"])}
    tensors["left.cached_logits"] *= MASKS["left"].unsqueeze(-1)
    for case, mask in MASKS.items():
        tensors |= {f"{case}.mask": mask, f"{case}.logits": padded_logits(model, case)}
    assert tensors["full.logits"].std(dim=-1).mean() > 0.5, "the logits are near-constant"
    return tensors


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Mean cross-entropy of the next tokens, two gradients and the L2 norm of all of them."""
    model.zero_grad()
    loss = model(IDS, labels=IDS).loss
    loss.backward()
    named = dict(model.named_parameters())
    norm = torch.stack([parameter.grad.norm() for parameter in named.values()]).norm()
    return {"loss": loss, "grad_norm": norm} | {f"grad.{name}": named[name].grad for name in GRADIENTS}


def write_old_config(folder: Path) -> None:
    """The config as transformers 4 wrote it: rope_theta and torch_dtype by themselves, and an unused window."""
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    values |= {"rope_theta": values.pop("rope_parameters")["rope_theta"], "torch_dtype": values.pop("dtype")}
    values |= {"sliding_window": 8, "max_window_layers": 1}
    del values["layer_types"]
    write_json(folder / "config.json", values)


def record_model(out: Path, name: str) -> None:
    model = make(name)
    model.save_pretrained(fresh_folder(out / name))
    (out / name / "generation_config.json").unlink(missing_ok=True)
    if name == "qwen2_untied":
        write_old_config(out / name)
    again = AutoModelForCausalLM.from_pretrained(out / name, attn_implementation="eager").eval()
    torch.testing.assert_close(padded_logits(again, "left"), padded_logits(model, "left"), atol=1e-5, rtol=1e-5)
    write_tensors(out / f"{name}.outputs.safetensors", outputs(model))
    write_tensors(out / f"{name}.gradients.safetensors", gradients(model))


def record_adapter(out: Path, base: str, name: str, config: LoraConfig | PrefixTuningConfig, seed: int) -> list[int]:
    """The folder, and the logits with it for each padding; returns PEFT's counts while it is learnt."""
    only = "lora_" if isinstance(config, LoraConfig) else "prompt_encoder"
    model = loud(get_peft_model(make(base), config), seed, only)
    counts = list(model.get_nb_trainable_parameters())
    (save_adapter if only == "lora_" else save_prefix)(model, out / name)
    again = PeftModel.from_pretrained(make(base), out / name).eval()
    assert torch.equal(padded_logits(again, "left"), padded_logits(model, "left"))
    tensors = {f"{case}.logits": padded_logits(model, case) for case in ("full", "left")}
    assert (tensors["full.logits"] - padded_logits(make(base), "full")).abs().max() > 0.1, "it does nothing"
    write_tensors(out / f"{name}.outputs.safetensors", tensors)
    return counts


def record(root: Path) -> None:
    out, counts = root / "qwen", {}
    fresh_folder(out)
    for name in MODELS:
        record_model(out, name)
    for seed, base in enumerate(("qwen2", "qwen3"), start=70):
        lora = LoraConfig(task_type="CAUSAL_LM", r=2, lora_alpha=4, target_modules=SEVEN)
        prefix = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
        counts[f"{base}_lora"] = record_adapter(out, base, f"{base}_lora", lora, seed)
        counts[f"{base}_prefix"] = record_adapter(out, base, f"{base}_prefix", prefix, seed + 10)
    write_json(out / "counts.json", counts)
