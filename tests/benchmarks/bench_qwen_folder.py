"""A folder of Qwen2.5 as it is published, of any of its sizes, with random weights: what bench_qwen.py measures.

write_folder    config.json, bf16 safetensors in shards of at most 2 GB, their index
forget_pages    the next to read the shards reads the disk
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SHAPES: Mapping[str, Mapping[str, int]] = {  # public: the fields of config.json in which the sizes differ
    size: dict(
        zip(("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"), shape, strict=True)
    )
    for size, shape in {
        "tiny": (64, 160, 2, 4),
        "0.5B": (896, 4864, 24, 14),
        "1.5B": (1536, 8960, 28, 12),
        "3B": (2048, 11008, 36, 16),
    }.items()
}
CONFIG = {  # of Qwen2.5-Instruct
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 32768,
    "max_window_layers": 70,
    "model_type": "qwen2",
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
SHARD = 2_000_000_000  # bytes
BLOCK = 1_000_003  # numbers; no row of a matrix begins where another does


def write_folder(size: str, folder: Path) -> int:
    """The config, the shards and their index, one shard in memory at a time; how many parameters."""
    import torch

    from minipoet.files import write_json_atomic, write_tensors_atomic
    from minipoet.models.families import family, make_config

    config = CONFIG | SHAPES[size]
    with torch.device("meta"):
        model = family({"model_type": "qwen2"})(make_config(family({"model_type": "qwen2"}), config))
    shapes = {model.name_table().published(name)[0]: p.shape for name, p in model.named_parameters()}
    shards: list[dict[str, torch.Size]] = [{}]
    room = SHARD if size != "tiny" else 2_000_000
    for name, shape in shapes.items():
        if shards[-1] and 2 * (sum(s.numel() for s in shards[-1].values()) + shape.numel()) > room:
            shards.append({})
        shards[-1][name] = shape
    block, weight_map = torch.randn(BLOCK, generator=torch.Generator().manual_seed(0)), {}
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {name: numbers(block, name, shape) for name, shape in names.items()}
        write_tensors_atomic(folder / file, tensors, {"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    parameters = sum(shape.numel() for shape in shapes.values())
    index = {"metadata": {"total_size": 2 * parameters}, "weight_map": weight_map}
    write_json_atomic(folder / "model.safetensors.index.json", index)
    write_json_atomic(folder / "config.json", config)
    return parameters


def numbers(block: Any, name: str, shape: Any) -> Any:
    """A tensor of N(0, 0.02) from the block, beginning at a place that depends on the name; norms are about 1."""
    import torch

    first = sum(map(ord, name)) * 7919 % BLOCK
    repeated = torch.cat([block[first:], block[:first]]).mul(0.02).bfloat16()
    flat = torch.empty(shape.numel(), dtype=torch.bfloat16)
    for begin in range(0, len(flat), BLOCK):
        flat[begin : begin + BLOCK] = repeated[: len(flat) - begin]
    return (flat + 1 if "norm" in name else flat).view(shape)


def forget_pages(folder: Path) -> None:
    """Let the system drop what it has of these files in memory (Linux), so that the next load reads the disk."""
    for path in folder.glob("*.safetensors"):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
