"""bfloat16 where the machine multiplies it fast: matrix products in half the bits, sums and weights in fp32.

Chapter: docs/training.md
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

PRECISIONS = ("auto", "bf16", "fp32")


def has_fast_bf16(device: torch.device | str) -> bool:
    """Does this device multiply bfloat16 natively? (A CPU without it emulates, slower than fp32.)"""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":  # PyTorch has no public question for it
        ask = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
        return any(question() for question in ask if question is not None)
    return False


def autocast(device: torch.device | str, precision: str = "auto") -> AbstractContextManager:
    """The context for a forward pass. precision: "bf16", "fp32" (no autocast), or "auto" (bf16 where it is fast).

    Raises ValueError for another word.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}.")
    if precision == "bf16" or (precision == "auto" and has_fast_bf16(device)):
        return torch.autocast(torch.device(device).type, torch.bfloat16)
    return nullcontext()
