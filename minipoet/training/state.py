"""A checkpoint to resume from: one safetensors file with all that the next step depends on.

Trainable weights, the optimisers' moments, the random states of every device, and (as JSON in the file's header) the
step, the settings, and the state of early stopping. No pickle: a checkpoint from elsewhere can do no harm.

Chapter: docs/training.md
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from minipoet.files import write_tensors_atomic
from minipoet.training.settings import TrainSettings


def trainable_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that training changes, by our names; a tied one comes once."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def save_state(
    path: Path,
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    settings: TrainSettings,
    progress: dict[str, Any],
) -> None:
    """Write the checkpoint, all or nothing. `progress` is what the loop keeps: step, best, patience, …"""
    tensors = {f"model.{name}": tensor for name, tensor in trainable_tensors(model).items()}
    for number, optimizer in enumerate(optimizers):
        for index, slots in optimizer.state_dict()["state"].items():
            for slot, value in slots.items():
                tensors[f"optimizer.{number}.{index}.{slot}"] = torch.as_tensor(value)
    for device, state in _random_states().items():
        tensors[f"random.{device}"] = state
    header = {"progress": progress, "settings": asdict(settings)}
    write_tensors_atomic(path, tensors, {"minipoet": json.dumps(header)})


def load_state(
    path: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer], settings: TrainSettings
) -> dict[str, Any]:
    """Put the model, the optimisers and the generators back where they were, and return `progress`.

    Raises ValueError for a checkpoint that is broken, or of another run (settings or weights differ).
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["minipoet"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a training checkpoint of minipoet ({error}): delete it to start anew.") from error
    then, now = header["settings"], json.loads(json.dumps(asdict(settings)))
    changed = [f"{key} was {then.get(key)!r}, is {now[key]!r}" for key in now if then.get(key) != now[key]]
    if changed:
        raise ValueError(f"{path} belongs to a run with other settings ({'; '.join(changed)}): use them, or another folder.")
    ours = trainable_tensors(model)
    saved = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    if {n: t.shape for n, t in ours.items()} != {n: t.shape for n, t in saved.items()}:
        raise ValueError(f"{path} belongs to another model: its trainable tensors differ in names or shapes.")
    with torch.no_grad():
        for name, tensor in ours.items():
            tensor.copy_(saved[name])
    for number, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith(f"optimizer.{number}."):
                _, _, index, slot = name.split(".", 3)
                state.setdefault(int(index), {})[slot] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    _restore_random({name.removeprefix("random."): t for name, t in tensors.items() if name.startswith("random.")})
    return header["progress"]


def _random_states() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda:{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def _restore_random(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    for device, state in states.items():
        if device.startswith("cuda:") and int(device[5:]) < torch.cuda.device_count():
            torch.cuda.set_rng_state(state, device)
