"""Adapters: teaching a small part of a model.

lora      low-rank matrices beside the frozen ones     targets   which layers they go on
prefix    a learnt beginning of the cache              switch    adapters by name, one in use
files     PEFT's format on disk, both ways (peft, lora_files, prefix_files)
"""

from minipoet.adapters.files import load_adapter, save_adapter
from minipoet.adapters.lora import (
    LoRAConfig,
    LoRALinear,
    add_lora,
    attach,
    lora_layers,
    merge_lora,
    remove_lora,
    unmerge_lora,
)
from minipoet.adapters.peft import AdapterError
from minipoet.adapters.prefix import Prefix, PrefixConfig, ProjectedPrefix, add_prefix, remove_prefix
from minipoet.adapters.switch import active_adapter, adapter_names, merged_adapter, set_adapter

__all__ = [
    "AdapterError",
    "LoRAConfig",
    "LoRALinear",
    "Prefix",
    "PrefixConfig",
    "ProjectedPrefix",
    "active_adapter",
    "adapter_names",
    "add_lora",
    "add_prefix",
    "attach",
    "load_adapter",
    "lora_layers",
    "merge_lora",
    "merged_adapter",
    "remove_lora",
    "remove_prefix",
    "save_adapter",
    "set_adapter",
    "unmerge_lora",
]
