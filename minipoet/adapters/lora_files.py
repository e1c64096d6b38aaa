"""LoRA adapters on disk, in PEFT's form.

What PEFT saved is read here and gives the same logits, and the other way round. The published names of the layers come
from the model's own table.

Chapter: docs/lora.md
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minipoet.adapters.lora import LoRAConfig, attach, lora_layers
from minipoet.adapters.peft import CONFIG, WEIGHTS, AdapterError, misfit, read_weights, write_adapter
from minipoet.models.base import LanguageModel

PREFIX = "base_model.model."


def save_lora(model: LanguageModel, folder: Path, name: str) -> None:
    """Write the LoRA of this name so that PEFT's `PeftModel.from_pretrained` reads it."""
    config: LoRAConfig = model.adapters[name]["lora"]
    table = model.name_table()
    tensors: dict[str, Tensor] = {}
    sizes: dict[str, tuple[int, float]] = {}  # (rank, alpha) by published name
    transposed = False
    for ours, layer in lora_layers(model):
        if name not in layer.deltas:
            continue
        found = table.published_module(ours)
        assert found is not None, f"{ours} is not in the family's table of names"
        published, transform = found
        transposed |= transform == "transpose"
        sizes[published] = config.of(ours, published)
        for matrix in ("A", "B"):
            tensors[f"{PREFIX}{published}.lora_{matrix}.weight"] = getattr(layer.delta(name), matrix)
    values = {
        "peft_type": "LORA",
        "task_type": model.task_type,
        "base_model_name_or_path": model.origin or None,
        "revision": model.revision or None,
        "inference_mode": True,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "use_rslora": config.rslora,
        "target_modules": list(sizes),
        "rank_pattern": {re.escape(n): rank for n, (rank, _) in sizes.items() if rank != config.rank},
        "alpha_pattern": {re.escape(n): alpha for n, (_, alpha) in sizes.items() if alpha != config.alpha},
        "fan_in_fan_out": transposed,
        "bias": "none",
        "init_lora_weights": True,
        "modules_to_save": None,
        "use_dora": False,
    }
    write_adapter(folder, values, {WEIGHTS: tensors})


def read_lora(model: LanguageModel, folder: Path, values: dict[str, Any]) -> Callable[[str], None]:
    """What puts the LoRA of a folder, with these settings in its config, on the model under a name.

    Raises AdapterError for one of another model, and for files that disagree; nothing is changed before the call.
    """
    weights = read_weights(folder)
    table = model.name_table()
    modules: dict[str, dict[str, Tensor]] = {}
    problems = []
    for key, tensor in weights.items():
        published, _, kind = key.removeprefix(PREFIX).removesuffix(".weight").rpartition(".lora_")
        ours = table.our_module(published) or table.our_module(getattr(model, "prefix", "") + published)
        if kind not in ("A", "B") or not key.endswith(".weight"):
            problems.append(f"{key} is not a LoRA matrix of a linear layer")
        elif ours is None or not _has(model, ours):
            problems.append(f"{published}: this model has no such layer")
        else:
            modules.setdefault(ours, {})[kind] = tensor
    for ours, pair in modules.items():
        layer = model.get_submodule(ours)
        n_out, n_in = layer.out_features, layer.in_features
        shapes = {kind: tuple(t.shape) for kind, t in pair.items()}
        if set(pair) != {"A", "B"} or shapes["A"][1:] != (n_in,) or shapes["B"] != (n_out, shapes["A"][0]):
            problems.append(f"{ours} is ({n_out}, {n_in}), but the adapter brings {shapes}")
    if problems or not modules:
        raise misfit(folder, problems or ["no LoRA matrices in it"], values)
    config = _settings(values, {ours: _published(model, ours) for ours in modules})
    for ours, pair in modules.items():
        rank, _ = config.of(_published(model, ours))
        if pair["A"].shape[0] != rank:
            problems.append(f"{ours}: rank {pair['A'].shape[0]}, but {rank} by the config")
    if problems:
        raise AdapterError(f"{folder}: its files disagree ({'; '.join(problems[:12])}): fetch the folder again.")

    @torch.no_grad()
    def put(name: str) -> None:
        attach(model, config, name)
        layers = dict(lora_layers(model))
        for ours, pair in modules.items():
            delta = layers[ours].delta(name)
            delta.A.copy_(pair["A"])
            delta.B.copy_(pair["B"])

    return put


def _settings(values: dict[str, Any], modules: dict[str, str]) -> LoRAConfig:
    """The adapter's settings, for modules (our name: published name). The file's patterns speak of published names."""
    try:
        theirs = LoRAConfig(
            rank=values.get("r", 8),
            alpha=values.get("lora_alpha", 8),
            dropout=values.get("lora_dropout", 0.0),
            rslora=values.get("use_rslora", False),
            rank_pattern=values.get("rank_pattern") or {},
            alpha_pattern=values.get("alpha_pattern") or {},
        )
        sizes = {re.escape(published): theirs.of(published) for published in modules.values()}
    except (TypeError, ValueError, AttributeError, re.error) as error:
        raise AdapterError(f"{CONFIG} holds a setting that cannot be used: {error}") from error
    return replace(
        theirs,
        targets=tuple(modules),
        rank_pattern={name: rank for name, (rank, _) in sizes.items() if rank != theirs.rank},
        alpha_pattern={name: alpha for name, (_, alpha) in sizes.items() if alpha != theirs.alpha},
    )


def _published(model: LanguageModel, ours: str) -> str:
    found = model.name_table().published_module(ours)
    assert found is not None, f"{ours} is not in the family's table of names"
    return found[0]


def _has(model: nn.Module, name: str) -> bool:
    try:
        return hasattr(model.get_submodule(name), "in_features")
    except AttributeError:
        return False
