"""Words for what PyTorch counts: types of numbers as people write them, and sizes in bytes."""

from __future__ import annotations

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def dtype_word(dtype: torch.dtype) -> str:
    """torch.float16 -> "fp16"; a type that has no short word keeps PyTorch's, "int64"."""
    return next((word for word, known in DTYPES.items() if known == dtype), str(dtype).removeprefix("torch."))


def size_word(size: float) -> str:
    """17589536 -> "17.6 MB". Units of 1000, as on a disk."""
    if size < 1000:
        return f"{size} bytes"
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.95:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"


def count_word(number: int, thing: str) -> str:
    """(1, "file") -> "1 file", (2, "file") -> "2 files"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
