"""Several adapters in one batch: each row of the batch has an adapter of its own, over the one base.

    with adapters_by_row(model, ["pushkin", "lermontov", None]) as rows: ...

The base reads all rows together, and each adapter adds what is its own to its rows alone. So poems of several poets
cost one pass over the weights, and no weight is copied. Low-rank adapters alone go together so: a prefix is the
beginning of the cache of a whole batch, and rows with different prefixes are batches of their own (`one_prefix`).

Serving many adapters so: Sheng et al. 2023, "S-LoRA", https://arxiv.org/abs/2311.03285. Chapter: docs/lora.md
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from minipoet.adapters.switch import adapter_names, refuse_merged, switches
from minipoet.checks import shown
from minipoet.models.base import LanguageModel


class Rows:
    """Whose row is which: `of` gives the rows of each adapter, (n,) integers. None stands for the plain base."""

    def __init__(self, names: Sequence[str | None], device: torch.device):
        self.names = list(names)
        self.device = device
        self.of = self._of()

    def _of(self) -> dict[str, Tensor]:
        found: dict[str, list[int]] = {}
        for row, name in enumerate(self.names):
            if name is not None:
                found.setdefault(name, []).append(row)
        return {name: torch.tensor(rows, device=self.device) for name, rows in found.items()}

    def keep(self, rows: Sequence[int]) -> None:
        """Row i becomes what row rows[i] was: finished poems leave, beams move."""
        self.names = [self.names[row] for row in rows]
        self.of = self._of()

    @property
    def only(self) -> str | None:
        """The one adapter of all rows, None if that is the plain base."""
        return self.names[0] if self.names else None


@contextmanager
def adapters_by_row(model: LanguageModel, names: Sequence[str | None]) -> Iterator[Rows]:
    """Within it, row i of each batch is written by the adapter names[i]; afterwards all is as it was.

    Tell what happens to the rows by `keep`. Raises ValueError for names that the model has not, a merged adapter, and
    different prefixes in one batch.
    """
    check_adapters(model, names)
    if len({one_prefix(model, name) for name in names}) > 1:
        raise ValueError("Rows with different prefixes cannot be one batch: generate with each of them by itself.")
    rows = Rows(names, next(model.parameters()).device)
    former = [(switch, switch.rows) for switch in switches(model)]
    for switch, _ in former:
        switch.rows = rows
    try:
        yield rows
    finally:
        for switch, its_rows in former:
            switch.rows = its_rows


def one_prefix(model: LanguageModel, name: str | None) -> Hashable:
    """The prefix that comes with an adapter, by its name; None if there is none in it."""
    return name if name is not None and "prefix" in model.adapters[name] else None


def check_adapters(model: LanguageModel, names: Sequence[str | None]) -> None:
    """Raise ValueError for names that the model has not, and for a merged adapter, which is in every row."""
    known = adapter_names(model)
    if strangers := sorted({shown(name) for name in names if name is not None and name not in known}):
        raise ValueError(f"There is no adapter {', '.join(strangers)} on this model; it has {known or 'none'}.")
    refuse_merged(model)
