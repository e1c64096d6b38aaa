"""Adapters: teaching a small part of a model.

lora      low-rank matrices beside the frozen ones     targets   which layers they go on
files     PEFT's format on disk, both ways
"""

from minipoet.adapters.files import AdapterError, load_adapter, save_adapter
from minipoet.adapters.lora import (
    LoRAConfig,
    LoRALinear,
    active_adapter,
    adapter_names,
    add_lora,
    attach,
    lora_layers,
    merge_lora,
    merged_adapter,
    remove_lora,
    set_adapter,
    unmerge_lora,
)

__all__ = [
    "AdapterError",
    "LoRAConfig",
    "LoRALinear",
    "active_adapter",
    "adapter_names",
    "add_lora",
    "attach",
    "load_adapter",
    "lora_layers",
    "merge_lora",
    "merged_adapter",
    "remove_lora",
    "save_adapter",
    "set_adapter",
    "unmerge_lora",
]
