"""The state that a stream of windows carries from batch to batch, and that a checkpoint has to hold.

Chapter: docs/letters.md
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from minipoet.training.batch import Batch


class Carry:
    """The cache that the last batch left, if batches go on from one another (`Batch.goes_on`)."""

    def __init__(self) -> None:
        self._cache: Any = None

    def cache_for(self, model: nn.Module, batch: Batch) -> Any:
        """What the batch reads on from: the cache of the batch before, without its gradient, or a new one, or None."""
        if batch.goes_on and self._cache is not None:
            self._cache.detach()
        else:
            self._cache = None if batch.goes_on is None else model.new_cache(len(batch.ids))  # type: ignore[operator]
        return self._cache

    def tensors(self) -> dict[str, Tensor]:
        """All that it holds, for a checkpoint."""
        if self._cache is None:
            return {}
        self._cache.detach()
        marks = {"length": torch.tensor(self._cache.length), "segment": self._cache.segment}
        held = {f"tensor.{name}": tensor.contiguous() for name, tensor in self._cache.tensors.items()}
        return held | {name: mark for name, mark in marks.items() if mark is not None}

    def restore(self, model: nn.Module, tensors: dict[str, Tensor]) -> None:
        """Hold again what `tensors` gave; nothing, if that was empty."""
        held = {name.removeprefix("tensor."): t for name, t in tensors.items() if name.startswith("tensor.")}
        self._cache = None
        if held:
            device = next(model.parameters()).device
            self._cache = model.new_cache(len(next(iter(held.values()))))  # type: ignore[operator]
            self._cache.tensors = {name: tensor.to(device) for name, tensor in held.items()}
            segment = tensors.get("segment")
            self._cache.advance(int(tensors["length"]), None if segment is None else segment.to(device))
