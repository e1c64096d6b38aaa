"""LoRA adapters written by PEFT on gpt2/plain, the logits of the adapted and of the merged model, and the counts."""

import json
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from record_common import fresh_folder, padding_masks, random_ids, write_json, write_tensors
from record_gpt2 import LENGTH, logits_of, plain_model
from safetensors.torch import load_file

IDS, LEFT = random_ids(97, 2, LENGTH, seed=2), padding_masks(2, LENGTH)["left"]
OLD_KEYS = """base_model_name_or_path bias fan_in_fan_out inference_mode init_lora_weights lora_alpha lora_dropout
    modules_to_save peft_type r target_modules task_type"""
WIDE = ["c_attn", "c_proj", "c_fc"]
ADAPTERS = {
    "c_attn": dict(r=4, lora_alpha=8, target_modules=["c_attn"]),
    "wide_rslora": dict(r=4, lora_alpha=6, target_modules=WIDE, use_rslora=True),
    "patterns": dict(
        r=4,
        lora_alpha=8,
        target_modules=WIDE,
        rank_pattern={"mlp.c_proj": 2, "h.1.attn.c_attn": 3},
        alpha_pattern={"c_fc": 3, r"h\.0\.attn\.c_proj": 20},
    ),
    "dropout": dict(r=2, lora_alpha=8, target_modules=["c_attn"], lora_dropout=0.1),
    "regex": dict(r=2, lora_alpha=4, target_modules=r".*h\.1\.mlp\.c_(fc|proj)"),
    "layers": dict(r=2, lora_alpha=4, target_modules=["attn.c_proj"], layers_to_transform=[1]),
}
REFUSED = {
    "refused_dora": dict(r=1, lora_alpha=2, target_modules=["attn.c_proj"], use_dora=True),
    "refused_modules_to_save": dict(r=1, lora_alpha=2, target_modules=["attn.c_proj"], modules_to_save=["ln_f"]),
    "refused_bias": dict(r=1, lora_alpha=2, target_modules=["attn.c_proj"], bias="lora_only"),
}


def adapted(settings: dict, seed: int) -> PeftModel:
    """gpt2/plain with an adapter whose A and B are both random (PEFT's own B is zero: the adapter would do nothing)."""
    base = plain_model()
    base.name_or_path = base.config._name_or_path = "gpt2/plain"
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", fan_in_fan_out=True, **settings)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def save_adapter(model: PeftModel, folder: Path) -> None:
    model.save_pretrained(fresh_folder(folder))
    (folder / "README.md").unlink(missing_ok=True)  # a model card of 5 KB that says nothing
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(config["target_modules"], list):  # PEFT writes a set in arbitrary order
        config["target_modules"].sort()
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def left_logits(model: torch.nn.Module) -> torch.Tensor:
    """(B, T, V) of the left-padded batch, 0 at padding."""
    return logits_of(model, IDS, LEFT) * LEFT.unsqueeze(-1)


def record_one(settings: dict, seed: int, out: Path, name: str) -> dict[str, int]:
    """The adapter's folder, its logits, the merged ones and one merged weight; returns PEFT's own counts."""
    model = adapted(settings, seed)
    save_adapter(model, out / name)
    trainable, total = model.get_nb_trainable_parameters()
    logits = left_logits(model)
    assert torch.equal(logits, left_logits(PeftModel.from_pretrained(plain_model(), out / name).eval()))
    assert (logits - left_logits(plain_model())).abs().max() > 0.1, "the adapter does nothing"
    merged = left_logits(model.merge_and_unload().eval())
    tensors = {"ids": IDS, "mask": LEFT, "logits": logits, "merged_logits": merged}
    write_tensors(out / f"{name}.outputs.safetensors", tensors)
    return {"trainable": trainable, "all": total}


def record_old_bin(out: Path) -> None:
    """The adapter c_attn as PEFT wrote it before safetensors: adapter_model.bin, and a config of fewer keys."""
    folder = fresh_folder(out / "c_attn_old_bin")
    torch.save(load_file(out / "c_attn" / "adapter_model.safetensors"), folder / "adapter_model.bin")
    config = json.loads((out / "c_attn" / "adapter_config.json").read_text(encoding="utf-8"))
    write_json(folder / "adapter_config.json", {key: config[key] for key in OLD_KEYS.split()})
    one, two = (PeftModel.from_pretrained(plain_model(), out / name).eval() for name in ("c_attn", "c_attn_old_bin"))
    assert torch.equal(left_logits(one), left_logits(two))


def record(root: Path) -> None:
    out = root / "lora"
    counts = {name: record_one(kw, seed, out, name) for seed, (name, kw) in enumerate(ADAPTERS.items(), start=40)}
    write_json(out / "counts.json", counts)
    record_old_bin(out)
    for seed, (name, settings) in enumerate(REFUSED.items(), start=50):
        save_adapter(adapted(settings, seed), out / name)
