"""PEFT's parameter counts for the ruGPT3 family at full size, on meta tensors: nothing is allocated."""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from record_common import write_json
from transformers import GPT2Config, GPT2LMHeadModel

SHAPES = {  # public shapes of the ai-forever models
    "rugpt3-small": dict(n_layer=12, n_head=12, n_embd=768, vocab_size=50264, n_positions=2048),
    "rugpt3-medium": dict(n_layer=24, n_head=16, n_embd=1024, vocab_size=50257, n_positions=2048),
    "rugpt3-large": dict(n_layer=24, n_head=16, n_embd=1536, vocab_size=50257, n_positions=2048),
    "rugpt3.5-13b": dict(n_layer=40, n_head=40, n_embd=5120, vocab_size=50272, n_positions=2048),
}
TARGETS = {"c_attn": ["c_attn"], "c_attn,c_proj,c_fc": ["c_attn", "c_proj", "c_fc"]}
RANK = 8


def meta_model(shape: dict[str, int]) -> GPT2LMHeadModel:
    with torch.device("meta"):
        return GPT2LMHeadModel(GPT2Config(**shape))


def count(shape: dict[str, int], targets: list[str]) -> dict[str, int]:
    config = LoraConfig(task_type="CAUSAL_LM", r=RANK, target_modules=targets, fan_in_fan_out=True)
    model = get_peft_model(meta_model(shape), config, low_cpu_mem_usage=True)
    trainable, total = model.get_nb_trainable_parameters()
    return {"trainable": trainable, "all": total}


def record(root: Path) -> None:
    table = {}
    for name, shape in SHAPES.items():
        base = sum(parameter.numel() for parameter in meta_model(shape).parameters())
        table[name] = {"config": shape, "base": base, "rank": RANK}
        table[name]["lora"] = {label: count(shape, targets) for label, targets in TARGETS.items()}
    write_json(root / "lora" / "counts_full_size.json", table)
