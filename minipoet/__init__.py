"""minipoet: verse in the manner of a poet, from scratch in PyTorch, to be read.

    import minipoet

    model, tokenizer = minipoet.load("poet-tiny")
    print(minipoet.generate(model, tokenizer, "Мороз и солнце", seed=1))

A poem goes in as text, comes out as text, and every room it passes is one chapter of the course: text, tokenization,
models, adapters, quantization, training, generation, evaluation. How the house is laid out: docs/contributing.md
"""

from minipoet import adapters, evaluation, generation, models, quantization, text, tokenization, training
from minipoet.adapters import (
    add_lora,
    add_prefix,
    load_adapter,
    merge_lora,
    remove_lora,
    remove_prefix,
    save_adapter,
    set_adapter,
    unmerge_lora,
)
from minipoet.api import load, save
from minipoet.generation import chat, generate
from minipoet.models import count_parameters
from minipoet.quantization import dequantize, quantize
from minipoet.tokenization import load_tokenizer

__version__ = "0.1.0"

__all__ = [
    "adapters",
    "add_lora",
    "add_prefix",
    "chat",
    "count_parameters",
    "dequantize",
    "evaluation",
    "generate",
    "generation",
    "load",
    "load_adapter",
    "load_tokenizer",
    "merge_lora",
    "models",
    "quantization",
    "quantize",
    "remove_lora",
    "remove_prefix",
    "save",
    "save_adapter",
    "set_adapter",
    "text",
    "tokenization",
    "training",
    "unmerge_lora",
]
