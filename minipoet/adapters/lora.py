"""LoRA: leave the matrix W as it is, and learn a small one beside it: y = W x + s · B A x.

A is (R, in), B is (out, R), and R is small: to change W = (out, in) by a matrix of rank R takes R · (in + out) numbers
instead of out · in. B starts at zero, so that the adapted model starts as the base; A starts at random, or else both
would have a zero gradient for ever. s = alpha / R (or alpha / √R, rsLoRA, which keeps large ranks from going quiet).

`LoRALinear` wraps a linear layer and holds any number of adapters by name; the functions below put them on a model and
merge one into the weights. Which one is in use: switch.py; several in one batch: rows.py.

Papers: Hu et al. 2021, https://arxiv.org/abs/2106.09685; rsLoRA: https://arxiv.org/abs/2312.03732
Chapter: docs/lora.md
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minipoet.adapters.switch import (
    Model,
    Switch,
    active_adapter,
    check_new,
    forget,
    merged_adapter,
    note,
    refuse_merged,
    set_adapter,
)
from minipoet.adapters.targets import find_targets
from minipoet.checks import expect, expect_model, is_number, is_whole, shown
from minipoet.models.base import LanguageModel
from minipoet.models.linear import linear
from minipoet.models.packed import PackedLinear


@dataclass(frozen=True)
class LoRAConfig:
    """Settings of one adapter; the patterns give some modules (regular expression on the name) a value of their own."""

    rank: int = 8
    alpha: float = 16
    dropout: float = 0.0
    rslora: bool = False
    targets: Sequence[str] | str = ("attn.qkv",)
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self):
        targets = (self.targets,) if isinstance(self.targets, str) else self.targets
        patterns = {name: getattr(self, name) for name in ("rank_pattern", "alpha_pattern")}
        wrong = [
            f"{name} must give values by patterns of names ({{pattern: value}}), got {shown(pattern)}"
            for name, pattern in patterns.items()
            if not isinstance(pattern, Mapping) or not all(map(_is_pattern, pattern))
        ]
        ranks, alphas = ([] if wrong else [*pattern.values()] for pattern in patterns.values())
        wrong += [
            f"rank must be a whole number of at least 1, got {shown(rank)}"
            for rank in (self.rank, *ranks)
            if not isinstance(rank, int) or not is_whole(rank, 1)
        ]
        wrong += [
            f"alpha must be a finite number, got {shown(alpha)}"
            for alpha in (self.alpha, *alphas)
            if not is_number(alpha)
        ]
        if not is_number(self.dropout) or not 0 <= self.dropout < 1:
            wrong.append(f"dropout must be in [0, 1), got {shown(self.dropout)}")
        if not isinstance(targets, Sequence) or not all(isinstance(target, str) for target in targets):
            wrong.append(f"targets must be names of layers (a string or a list of strings), got {shown(targets)}")
        if wrong:
            raise ValueError(f"LoRA: {'; '.join(wrong)}.")
        if not isinstance(self.targets, str):
            object.__setattr__(self, "targets", tuple(targets))

    def of(self, *names: str) -> tuple[int, float]:
        """(rank, alpha) of a module with these names (ours, published)."""
        rank = _by_pattern(self.rank_pattern, names, self.rank)
        return rank, _by_pattern(self.alpha_pattern, names, self.alpha)

    def scale(self, rank: int, alpha: float) -> float:
        """s."""
        return alpha / (math.sqrt(rank) if self.rslora else rank)


def _is_pattern(pattern: Any) -> bool:
    try:
        return bool(re.compile(pattern)) and isinstance(pattern, str)
    except (re.error, TypeError):
        return False


def _by_pattern(patterns: Mapping[str, Any], names: Sequence[str], default: Any) -> Any:
    for pattern, value in patterns.items():  # PEFT's rule: the first that matches the end of a name, at a dot
        if any(re.match(rf"(.*\.)?({pattern})$", name) for name in names):
            return value
    return default


class Delta(nn.Module):
    """s · B A x: what one adapter adds to one layer. A and B are fp32 also over a half-precision layer."""

    def __init__(self, n_in: int, n_out: int, rank: int, scale: float, dropout: float, device, generator):
        super().__init__()
        self.A = nn.Parameter(torch.empty(rank, n_in, device=device))
        self.B = nn.Parameter(torch.zeros(n_out, rank, device=device))
        self.scale = scale
        self.dropout = dropout
        bound = 1 / math.sqrt(n_in)  # kaiming_uniform(a=√5), as PEFT starts
        if self.A.device.type != "meta":
            start = torch.empty(rank, n_in).uniform_(-bound, bound, generator=generator)  # on the CPU: a seed is a seed
            self.A.data.copy_(start)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        if not torch.is_autocast_enabled(x.device.type):  # autocast would only cast it back
            x = x.to(self.A.dtype)
        x = F.dropout(x, self.dropout, self.training)
        return linear(linear(x, self.A) * self.scale, self.B)  # scaled where it is narrowest

    def matrix(self) -> Tensor:
        """s · B A, (out, in), in fp32: what merging adds to the weight."""
        return (self.B.float() @ self.A.float()) * self.scale


class LoRALinear(Switch):
    """A frozen linear layer with low-rank adapters beside it. At most one is active; one may be merged into it."""

    def __init__(self, base: nn.Module):
        super().__init__()
        self.base = base
        self.deltas = nn.ModuleDict()

    def parts(self) -> nn.ModuleDict:
        """The adapters, by name."""
        return self.deltas

    @property
    def weight(self) -> Tensor:
        """The base's own weight, so that the layer can stand where a plain one stood."""
        return self.base.weight  # type: ignore[return-value]

    @property
    def in_features(self) -> int:
        """Numbers in."""
        return self.base.in_features  # type: ignore[return-value]

    @property
    def out_features(self) -> int:
        """Numbers out."""
        return self.base.out_features  # type: ignore[return-value]

    @property
    def quantised(self) -> bool:
        """Does the base hold codes (minipoet/quantization) in the place of a weight that could be changed?"""
        return not isinstance(self.base, nn.Linear | PackedLinear)

    def delta(self, name: str) -> Delta:
        """The adapter of this name on this layer."""
        return cast(Delta, self.deltas[name])

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        if self.rows is not None:
            return self._by_row(x, self.base(x))
        if self.active is None or self.merged is not None:
            return self.base(x)
        change = self.deltas[self.active](x)  # first: what checkpointing computes again ends before the base's product
        y = self.base(x)
        return (y + change).to(y.dtype)  # added in fp32 and rounded once

    def _by_row(self, x: Tensor, y: Tensor) -> Tensor:
        """y with what each row's own adapter adds to it."""
        for name, rows in self.rows.of.items():
            if name in self.deltas:
                mine = y.index_select(0, rows)
                y = y.index_copy(0, rows, (mine + self.deltas[name](x.index_select(0, rows))).to(y.dtype))
        return y


def add_lora(
    model: Model,
    rank: int = 8,
    alpha: float = 16,
    targets: Sequence[str] | str = ("attn.qkv",),
    dropout: float = 0.0,
    rslora: bool = False,
    name: str = "default",
    seed: int = 0,
) -> Model:
    """Put a LoRA adapter on the model's linear layers, make it active, and let nothing else train. Returns the model.

    targets: ends of names ("attn.qkv", or the published "c_attn"), or "all-linear" (all but the head).
    Raises ValueError for a target that matches nothing or cannot be adapted, and for a name that is taken.
    """
    return attach(model, LoRAConfig(rank, alpha, dropout, rslora, targets), name, seed)


def attach(model: Model, config: LoRAConfig, name: str = "default", seed: int = 0) -> Model:
    """`add_lora` with all settings in one record."""
    expect(config, LoRAConfig, "config", "a LoRAConfig(rank=...)")
    check_new(model, name, "lora", seed)
    found = find_targets(model, config.targets)
    refuse_merged(model)
    generator = torch.Generator().manual_seed(seed)
    for ours, published in found:
        layer = model.get_submodule(ours)
        if not isinstance(layer, LoRALinear):
            layer = LoRALinear(layer)
            model.set_submodule(ours, layer)
        rank, alpha = config.of(ours, published)
        sizes = layer.in_features, layer.out_features, rank, config.scale(rank, alpha)
        device = next(chain(layer.base.parameters(), layer.base.buffers())).device
        layer.deltas[name] = Delta(*sizes, config.dropout, device, generator)
        layer.train(model.training)  # a new module is in training mode: its dropout would act
    note(model, name, "lora", config)
    return set_adapter(model, name)


def lora_layers(model: LanguageModel) -> Iterator[tuple[str, LoRALinear]]:
    """(our name, layer) of every layer that carries adapters. Raises ValueError for what is no model."""
    expect_model(model)
    for name, module in model.named_modules():
        if isinstance(module, LoRALinear):
            yield name, module


@torch.no_grad()
def merge_lora(model: Model) -> Model:
    """Add the active adapter to the weights, W += s · B A: then it costs nothing at generation. Returns the model.

    The sum is taken in fp32 and rounded to the weight's own type. Raises ValueError if no adapter is active, and for
    quantised weights.
    """
    if merged := merged_adapter(model):
        raise ValueError(f"The adapter {merged!r} is merged already.")
    if not any(layer.active for _, layer in lora_layers(model)):
        if name := active_adapter(model):
            raise ValueError(f"The adapter {name!r} is a prefix, which is no change of weights: it cannot be merged.")
        raise ValueError("There is no active adapter to merge: add_lora, load_adapter or set_adapter first.")
    if any(layer.active and layer.quantised for _, layer in lora_layers(model)):
        raise ValueError(
            "The adapter cannot be merged into quantised weights: the sum would have to be rounded to their few "
            "values, and most of what it learnt is smaller than that. Leave it beside them, where it acts as well, or "
            "make plain weights of them first: minipoet.dequantize(model)."
        )
    for name, layer in lora_layers(model):
        if layer.active:
            total = layer.weight.float() + layer.delta(layer.active).matrix()
            if not torch.isfinite(total).all():
                raise ValueError(
                    f"Merging {layer.active!r} into {name} gives values that are not finite; the adapter is broken."
                )
    for _, layer in lora_layers(model):
        if layer.active:
            layer.weight.copy_(layer.weight.float() + layer.delta(layer.active).matrix())
            layer.merged = layer.active
    return model


@torch.no_grad()
def unmerge_lora(model: Model) -> Model:
    """Take the merged adapter out of the weights again: equal to before up to rounding. Returns the model."""
    if merged_adapter(model) is None:
        raise ValueError("No adapter is merged into this model.")
    for _, layer in lora_layers(model):
        if layer.merged:
            layer.weight.copy_(layer.weight.float() - layer.delta(layer.merged).matrix())
            layer.merged = None
    return model


def remove_lora(model: Model) -> Model:
    """The model without its low-rank adapters; a merged one stays in the weights, for good. Returns the model."""
    for name, layer in list(lora_layers(model)):
        model.set_submodule(name, layer.base)
    forget(model, "lora")
    return model
