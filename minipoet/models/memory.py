"""How many parameters, and how much memory: what to know before loading a model, and before teaching it.

    count_parameters     of any model, from its shapes
    available_memory     what may still be taken; peak_memory: what this process has taken
    training_memory      what a step of training will take at its peak, counted from the shapes

Chapter: docs/checkpoints.md
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from minipoet.checks import expect, expect_whole, shown

LOGITS = 2**25  # numbers that training takes through the head at a time (training/loss.py)
HOLES = {True: 0.3, False: 1.0}  # with checkpointing or not: what of a block's numbers the heap keeps besides, as
# holes; measured with glibc's heap, whose large blocks are not given back as long as a small one lies behind them
BESIDES = 130_000_000  # bytes that PyTorch takes for libraries and buffers when it first trains: measured
PROC, CGROUPS = Path("/proc/self"), Path("/sys/fs/cgroup")
V2 = ("memory.max", "memory.current")
NO_LIMIT = 1 << 62


class Counts(NamedTuple):
    """Parameters that train, and all of them; a tied tensor counts once, an adapter's parameters count too."""

    trainable: int
    all: int

    @property
    def share(self) -> float:
        """Trainable per cent."""
        return 100 * self.trainable / self.all if self.all else 0.0


def count_parameters(model: nn.Module) -> Counts:
    """Counts from the shapes alone: a model on the meta device will do. Packed weights count as what they stand for."""
    expect(model, nn.Module, "The model", "a model, as the first of what minipoet.load gives")
    parameters = list(model.parameters())
    packed = sum(layer.packed_numbers for layer in _packed(model))
    return Counts(sum(p.numel() for p in parameters if p.requires_grad), packed + sum(p.numel() for p in parameters))


class MemoryEstimate(NamedTuple):
    """Bytes at the peak of one step of training, by what they are for."""

    weights: int  # that do not train; mapped from their file, if it has their type
    trained: int  # parameters that train, their gradients, AdamW's two means, and the copies that autocast makes
    kept: int  # of the forward pass for the backward pass: with checkpointing what goes into each block; and holes
    block: int  # the block that goes back: what it computes again, and gradients
    logits: int  # of the tokens that are taken through the head at a time
    besides: int = BESIDES

    @property
    def total(self) -> int:
        """The peak: a block's gradients and the logits are never there together."""
        return self.weights + self.trained + self.kept + max(self.block, self.logits) + self.besides

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in self._asdict().items())
        return f"{self.total / 1e9:.2f} GB ({parts})"


def training_memory(
    model: nn.Module, rows: int, length: int, checkpointing: bool = True, bits: int = 16
) -> MemoryEstimate:
    """What a step on (rows, length) tokens takes at its peak: by AdamW, with attention that keeps no T × T scores.

    The model may be on the meta device: `load_model(folder, device="meta")`, then `add_lora`. bits: of the numbers that
    flow through it: 16 under bf16 autocast, else 32. docs/checkpoints.md has it beside what was measured.
    Raises ValueError for a model that is no stack of blocks.
    """
    expect(model, nn.Module, "The model", "a model, as the first of what minipoet.load gives")
    expect_whole(1, rows=rows, length=length)
    if bits not in (16, 32):
        raise ValueError(f"bits must be 16 (bf16 autocast) or 32, got {shown(bits)}.")
    blocks, head = getattr(model, "blocks", None), getattr(model, "head", None)
    if not blocks or head is None:
        raise ValueError(
            f"The memory of a step is estimated for one stack of blocks, a {type(model).__name__} is none."
        )
    size, tokens, (vocabulary, width) = bits // 8, rows * length, head.weight.shape
    parameters = list(model.parameters())
    weights = sum(p.numel() * p.element_size() for p in parameters if not p.requires_grad)
    weights += sum(b.numel() * b.element_size() for layer in _packed(model) for b in layer.buffers())
    written = size * max((layer.in_features * layer.out_features for layer in _packed(model)), default=0)  # one, whole
    trained = sum(p.numel() * (4 * p.element_size() + (2 if bits == 16 else 0)) for p in parameters if p.requires_grad)
    # Of one block: into and out of each matrix, and two norms in fp32.
    block = tokens * (size * sum(map(sum, _matrices(blocks[0]))) + 2 * 4 * width)
    kept = (tokens * size * width if checkpointing else block) + int(HOLES[checkpointing] * block)
    logits = size * min(tokens, max(1, LOGITS // vocabulary)) * vocabulary
    return MemoryEstimate(weights, trained, len(blocks) * kept, 3 * block // 2 + written, logits)


def _packed(model: nn.Module) -> Iterator[Any]:
    """The layers whose weights are packed in few bits (minipoet/quantization): buffers, no parameters."""
    return (layer for layer in model.modules() if hasattr(layer, "packed_numbers"))


def _matrices(block: nn.Module) -> Iterator[tuple[int, int]]:
    """(in, out) of each of the block's linear layers; an adapter's own are too small to count."""
    for layer in block.modules():
        if isinstance(layer, nn.Linear) or hasattr(layer, "packed_numbers"):
            yield int(layer.in_features), int(layer.out_features)  # type: ignore[arg-type]


def peak_memory() -> int:
    """The most memory, in bytes, that this process has held so far (its resident set); 0 where it cannot be known."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # macOS counts bytes, Linux KiB


def available_memory(device: torch.device | str = "cpu") -> int:
    """Bytes that a program may still take, on a GPU or on this machine; all of it where nothing better is known.

    What only caches files counts as available. A container's limit counts.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(_machine_memory(), *_cgroup_memory(), NO_LIMIT)


def _machine_memory() -> int:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return 1024 * int(line.split()[1])
    except OSError:
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return NO_LIMIT


def _cgroup_memory() -> Iterator[int]:
    """What each limit that this process stands under still leaves: of its own control group, and of those around it.

    Version 2 (https://docs.kernel.org/admin-guide/cgroup-v2.html#memory) and, where it is still in use, version 1.
    """
    try:
        lines = [line.split(":", 2) for line in (PROC / "cgroup").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return
    for _, controllers, path in lines:
        if controllers and "memory" not in controllers.split(","):
            continue
        root = CGROUPS / "memory" if controllers else CGROUPS
        limit, used = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else V2
        group = root / path.strip("/")  # in a container it may not be there, but the root is its own
        for folder in (group, *group.parents[: len(group.parts) - len(root.parts)]):
            try:
                numbers = [int((folder / name).read_text(encoding="ascii")) for name in (limit, used)]
                stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
            except (OSError, ValueError):  # not there, or no limit: "max"
                continue
            files = sum(int(stat.get(f"{kind}_file", 0)) for kind in ("active", "inactive"))  # can be dropped
            yield max(0, numbers[0] - numbers[1] + files)
