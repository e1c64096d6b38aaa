"""How many parameters, and how much memory: what to know before loading a model.

Chapter: docs/checkpoints.md
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from torch import nn

from minipoet.checks import expect


class Counts(NamedTuple):
    """Parameters that train, and all of them; a tied tensor counts once, an adapter's parameters count too."""

    trainable: int
    all: int

    @property
    def share(self) -> float:
        """Trainable per cent."""
        return 100 * self.trainable / self.all if self.all else 0.0


def count_parameters(model: nn.Module) -> Counts:
    """Counts from the shapes alone: a model on the meta device will do."""
    expect(model, nn.Module, "The model", "a model, as the first of what minipoet.load gives")
    parameters = list(model.parameters())
    return Counts(sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters))


def peak_memory() -> int:
    """The most memory, in bytes, that this process has held so far (its resident set); 0 where it cannot be known."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # macOS counts bytes, Linux KiB


def available_memory() -> int:
    """Bytes that a program may still take on this machine; its physical memory where nothing better is known."""
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
        return 1 << 62
