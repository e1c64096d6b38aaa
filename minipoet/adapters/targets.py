"""Which layers an adapter goes on: ends of names, ours or the published ones.

Rules: PEFT's `check_target_module_exists`. Chapter: docs/lora.md
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

from minipoet.models.base import LanguageModel

ALL_LINEAR = "all-linear"


def find_targets(model: LanguageModel, targets: Sequence[str] | str) -> list[tuple[str, str]]:
    """(our name, published name) of the layers that the targets name, in the order of the model.

    A list entry matches a module whose whole name, or the end of it at a dot, it is. A string is a regular expression
    for whole names, but "all-linear" is every linear layer except the head.
    Raises ValueError that lists every target that matches nothing, or only what cannot be adapted.
    """
    layers = _linear_layers(model)
    if isinstance(targets, str):
        try:
            re.compile(targets)
        except re.error as error:
            raise ValueError(f"LoRA targets: {targets!r} is no regular expression ({error}).") from error
    if targets == ALL_LINEAR or list(targets) == [ALL_LINEAR]:
        return [pair for pair in layers if pair[0] != "head"]
    if not targets:
        raise ValueError(f"No targets were given. {_choices(model, layers)}")
    chosen: set[str] = set()
    problems = []
    for target in [targets] if isinstance(targets, str) else targets:
        hits = [ours for ours, published in layers if _matches(target, isinstance(targets, str), ours, published)]
        if not hits:
            problems.append(_why_not(model, target))
        chosen.update(hits)
    if "head" in chosen and _is_tied(model):
        problems.append(
            "the head shares its matrix with the embedding (they are tied), so an adapter on one would change "
            "what the other means when it is merged: leave it out"
        )
    if problems:
        raise ValueError(f"LoRA targets: {'; '.join(problems)}. {_choices(model, layers)}")
    return [pair for pair in layers if pair[0] in chosen]


def _linear_layers(model: LanguageModel) -> list[tuple[str, str]]:
    names = model.name_table()
    pairs = []
    for name, module in model.named_modules():
        if name.endswith(".base") or name.startswith("prefixes.") or not _is_linear(module):
            continue
        published = names.published_module(name)
        pairs.append((name, published[0] if published else name))
    return pairs


def _is_linear(module: nn.Module) -> bool:
    return hasattr(module, "in_features") and hasattr(module, "out_features")  # plain, packed, or with adapters already


def _matches(target: str, is_pattern: bool, *names: str) -> bool:
    if is_pattern:
        return any(re.fullmatch(target, name) for name in names)
    return any(name == target or name.endswith(f".{target}") for name in names)


def _why_not(model: LanguageModel, target: str) -> str:
    table = model.name_table()
    for name, module in model.named_modules():
        published = table.published_module(name)
        if name and _matches(target, False, name, published[0] if published else name):
            return f"{target!r} is a {type(module).__name__}, not a linear layer; its weights cannot carry LoRA here"
    return f"{target!r} matches no layer"


def _is_tied(model: LanguageModel) -> bool:
    return any(parameter is model.embed.weight for parameter in model.head.parameters())


def _choices(model: LanguageModel, layers: list[tuple[str, str]]) -> str:
    free = [pair for pair in layers if pair[0] != "head" or not _is_tied(model)]
    ends = {".".join(name.split(".")[-2:]): ".".join(published.split(".")[-2:]) for name, published in free}
    return "This model has " + ", ".join(f"{ours} ({theirs})" for ours, theirs in ends.items()) + "."
