"""Luck that is computed, not drawn in a row: the number of (seed, step, token) is the same wherever it is asked for.

    splitmix        number n of the random sequence of a seed, for a whole tensor at once
    poem_seed       one seed, many poems: the seed of each
    step_keys       (B, steps): one key a poem and step
    gumbel_noise    the luck of each token under a key: splitmix and gumbel

A generator that is drawn from in a row gives a poem other numbers when its neighbours change or the device does. Here
nothing can shift them: they are a function of three whole numbers, made of whole numbers, equal on every device.

SplitMix64: Steele, Lea & Flood 2014, "Fast Splittable Pseudorandom Number Generators"; the constants are theirs.
Chapter: docs/generation.md
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15  # 2**64 divided by the golden ratio
WORD = 2**64


def splitmix(seed: Tensor, n: Tensor) -> Tensor:
    """Number n, from 0, of the sequence of each seed, 64 bits: int64 tensors that broadcast -> int64."""
    z = seed + (n + 1) * _signed(GOLDEN)  # int64 arithmetic is modulo 2**64
    z = (z ^ _shifted(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shifted(z, 31)


def poem_seed(seed: int, prompt: int = 0, sample: int = 0) -> int:
    """The seed of one poem among many: of prompt number `prompt`, sample number `sample`, counted from 0.

    The first poem's is `seed` itself. Pairs are numbered after Cantor, (0, 0), (1, 0), (0, 1), (2, 0), …, and poem
    number k gets the k-th state of SplitMix64: no two poems of a seed have the same, and small seeds share none.
    """
    number = (prompt + sample) * (prompt + sample + 1) // 2 + sample
    return (int(seed) + GOLDEN * number) % WORD


def step_keys(seeds: Sequence[int], steps: int, device: torch.device | str = "cpu") -> Tensor:
    """(B, steps) int64: the key of each step of each poem. Fewer steps are the beginning of more."""
    first = torch.tensor([[_signed(int(seed) % WORD)] for seed in seeds], device=device)
    return splitmix(splitmix(first, torch.zeros_like(first)), torch.arange(steps, device=device))


def gumbel_noise(keys: Tensor, ids: Tensor) -> Tensor:
    """The luck of each id under each key: int64 tensors that broadcast -> fp32. See `gumbel`."""
    return gumbel(splitmix(keys, ids))


def gumbel(bits: Tensor) -> Tensor:
    """64 random bits -> −log E, where E is spread exponentially: from −2.9 to 37.4, always finite.

    Added to logits it makes the largest sum a fair draw (Gumbel-max). fp32 is enough: it is E near 0 that wins, and
    there log1p is exact.
    """
    uniform = ((_shifted(bits, 11).float() + 0.5) * 2.0**-53).clamp(max=1 - 2.0**-24)
    return -torch.log(-torch.log1p(-uniform))


def _shifted(z: Tensor, bits: int) -> Tensor:
    """z >> bits as if z had no sign."""
    return (z >> bits) & (WORD // 2**bits - 1)


def _signed(value: int) -> int:
    """The int64 with the bits of a value below 2**64."""
    return value - WORD if value >= WORD // 2 else value
