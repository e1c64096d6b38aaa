"""Adapters by name: which there are on a model, and which of them is in use.

An adapter is a name, and under it a LoRA, a prefix, or both; at most one name is in use at a time, and all that stands
under it trains. Each module that holds parts of adapters is a `Switch`, and nothing else knows who is active.

Chapter: docs/lora.md
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from torch import nn

from minipoet.checks import SEEDS, expect_model, is_whole, shown
from minipoet.models.base import LanguageModel
from minipoet.models.packed import PACKED, is_packed

Model = TypeVar("Model", bound=LanguageModel)


class Switch(nn.Module):
    """A module with the parts of several adapters, by name; at most one is active, but for a batch with `rows`."""

    def __init__(self) -> None:
        super().__init__()
        self.active: str | None = None
        self.rows: Any = None  # rows.py: for a while, each row of the batch has an adapter of its own
        self.merged: str | None = None  # this adapter is inside the weights now

    def parts(self) -> nn.ModuleDict:
        """The parts, by the adapters' names."""
        raise NotImplementedError


def switches(model: LanguageModel) -> Iterator[Switch]:
    """All that holds parts of adapters. Raises ValueError for what is no model."""
    expect_model(model)
    return (module for module in model.modules() if isinstance(module, Switch))


def adapter_names(model: LanguageModel) -> list[str]:
    """Names of the adapters on the model. Raises ValueError for what is no model."""
    expect_model(model)
    return list(model.adapters)


def merged_adapter(model: LanguageModel) -> str | None:
    """The adapter that is merged into the weights, if one is."""
    return next((switch.merged for switch in switches(model) if switch.merged), None)


def active_adapter(model: LanguageModel) -> str | None:
    """The adapter that is in use, if one is."""
    return next((switch.active for switch in switches(model) if switch.active), None)


def set_adapter(model: Model, name: str | None) -> Model:
    """Use this adapter (None: the plain base), and let only it train. Raises ValueError for an unknown name."""
    if name is not None and name not in adapter_names(model):
        raise ValueError(f"There is no adapter {name!r} on this model; it has {adapter_names(model) or 'none'}.")
    refuse_merged(model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for switch in switches(model):
        switch.active = name if name is not None and name in switch.parts() else None
        if switch.active:
            switch.parts()[switch.active].requires_grad_(True)
    return model


def refuse_merged(model: LanguageModel) -> None:
    """Raise ValueError if an adapter is merged into the weights: no other can be put on or taken then."""
    if merged := merged_adapter(model):
        raise ValueError(f"The adapter {merged!r} is merged into the weights: unmerge_lora(model) first.")


def check_new(model: LanguageModel, name: str, kind: str, seed: int) -> None:
    """Raise ValueError if an adapter of this kind cannot be put on the model under this name."""
    if not isinstance(name, str) or not name or "." in name or hasattr(nn.ModuleDict(), name):
        raise ValueError(
            f"An adapter's name must be a string, not empty, without a dot, and no word of PyTorch's (keys, train, …), "
            f"got {shown(name)}: take another name."
        )
    if not is_whole(seed, 0, SEEDS):
        raise ValueError(f"seed must be a whole number from 0 to 2**64 - 1, got {shown(seed)}.")
    expect_model(model)
    if kind in model.adapters.get(name, {}):
        what = {"lora": "an adapter", "prefix": "a prefix"}[kind]
        raise ValueError(f"The model has {what} named {name!r} already: choose another name.")
    if is_packed(model):
        raise ValueError(PACKED)


def note(model: LanguageModel, name: str, kind: str, config: Any) -> None:
    """Write down the settings of what was put on the model."""
    model.adapters = {**model.adapters, name: {**model.adapters.get(name, {}), kind: config}}


def forget(model: LanguageModel, kind: str) -> None:
    """Strike out all settings of a kind, and the names that have nothing left."""
    rest = {name: {k: c for k, c in kinds.items() if k != kind} for name, kinds in model.adapters.items()}
    model.adapters = {name: kinds for name, kinds in rest.items() if kinds}
