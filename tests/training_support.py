"""What the tests of training share: a tiny GPT-2, texts of random ids, and batches of them."""

import random
from collections.abc import Iterable

import torch

from minipoet.models.gpt2 import GPT2, GPT2Config
from minipoet.training import Batch, Batches

VOCABULARY, CONTEXT = 50, 16


def tiny_gpt2(dropout: float = 0.0, seed: int = 0, **options) -> GPT2:
    """Two layers of width 32 over 50 tokens; start values large enough for every part to matter."""
    torch.manual_seed(seed)
    sizes = {"vocab_size": VOCABULARY, "n_positions": CONTEXT, "n_embd": 32, "n_layer": 2, "n_head": 4}
    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
    return GPT2(GPT2Config(**(sizes | rates | {"initializer_range": 0.1} | options)))


def random_texts(count: int, shortest: int = 2, longest: int = CONTEXT + 1, seed: int = 0) -> list[list[int]]:
    """Texts of random ids of random lengths."""
    generator = random.Random(seed)
    lengths = [generator.randint(shortest, longest) for _ in range(count)]
    return [[generator.randrange(VOCABULARY) for _ in range(length)] for length in lengths]


def numbered_texts(lengths: Iterable[int]) -> list[list[int]]:
    """Texts in which no token comes twice: 0, 1, 2, …, then 1000, 1001, …"""
    return [[1000 * number + i for i in range(length)] for number, length in enumerate(lengths)]


def pairs(batch: Batch) -> list[tuple[int, int]]:
    """(token, target) wherever there is a target."""
    real = batch.targets != -100
    return list(zip(batch.ids[real].tolist(), batch.targets[real].tolist(), strict=True))


def tiny_batches(seed: int = 0, rows: int = 2) -> Batches:
    """Sixty random texts in rows of the model's context."""
    return Batches(random_texts(60), CONTEXT, rows, seed)
