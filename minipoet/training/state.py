"""A checkpoint to resume from: one safetensors file with all that the next step depends on.

Trainable weights, the optimisers' moments, the state that a stream of windows carries, the random states of the CPU and
of every CUDA device, and (as JSON in the file's header) the settings and the progress: the step, the early stopping,
and a checksum of the last batches. No pickle: a checkpoint from elsewhere can do no harm.

Chapter: docs/training.md
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from minipoet.checks import as_path, expect_model
from minipoet.files import write_tensors_atomic
from minipoet.training.batch import Batch, BatchSource
from minipoet.training.carry import Carry
from minipoet.training.settings import TrainSettings


@dataclass
class Progress:
    """How far a run has come."""

    step: int = 0  # optimiser steps made
    tokens: int = 0  # targets learnt from
    num_tokens: int = 0  # tokens seen, if they are counted (settings.metrics)
    seconds: float = 0.0  # spent in steps, not in evaluations
    best: float = math.inf  # least validation value
    best_step: int = 0
    waited: int = 0  # evaluations since the best
    checksum: int = 0  # of the last step's batches
    finished: bool = False  # all steps made, or out of patience


def checksum(batches: Iterable[Batch]) -> int:
    """A number that other texts, packing or seeds would give otherwise."""
    total = 0
    for batch in batches:
        for tensor in batch.tensors():
            total = zlib.crc32(tensor.cpu().numpy().tobytes(), total)
    return total


def trainable_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that training changes, by our names; a tied one comes once."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def load_weights(path: Path, model: nn.Module) -> None:
    """Put trainable tensors that `write_tensors_atomic` wrote back into the model. Raises ValueError for other ones."""
    _, tensors = _read(path)
    _fill(path, model, tensors)


def load_last_weights(path: str | Path, model: nn.Module) -> int:
    """Put a checkpoint's weights into the model, to look at them and not to train on; gives the step they are of.

    Raises ValueError for a file that is broken, another kind of file, or of another model.
    """
    expect_model(model)
    path = as_path(path, "The checkpoint")
    progress, _ = read_header(path)
    _, tensors = _read(path)
    _fill(path, model, _below("model.", tensors))
    return progress.step


def save_state(
    path: Path,
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    settings: TrainSettings,
    progress: Progress,
    carry: Carry,
) -> None:
    """Write the checkpoint, all or nothing."""
    tensors = {f"model.{name}": tensor for name, tensor in trainable_tensors(model).items()}
    for number, optimizer in enumerate(optimizers):
        for index, slots in optimizer.state_dict()["state"].items():
            for slot, value in slots.items():
                tensors[f"optimizer.{number}.{index}.{slot}"] = torch.as_tensor(value)
    tensors |= {f"carry.{name}": tensor for name, tensor in carry.tensors().items()}
    for device, state in _random_states().items():
        tensors[f"random.{device}"] = state
    header = {"progress": asdict(progress), "settings": asdict(settings)}
    write_tensors_atomic(path, tensors, {"minipoet": json.dumps(header)})


def read_header(path: Path) -> tuple[Progress, dict[str, Any]]:
    """(progress, settings) of a checkpoint. Raises ValueError for one that is broken, or another kind of file."""
    metadata, _ = _read(path, with_tensors=False)
    try:
        header = json.loads(metadata["minipoet"])
        progress, settings = Progress(**header["progress"]), dict(header["settings"])
        settings["steps"]  # whoever wrote the rest wrote this
        return progress, settings
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a training checkpoint of minipoet: delete it to start anew.") from error


def load_state(
    path: Path,
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    settings: TrainSettings,
    batches: BatchSource,
    carry: Carry,
) -> Progress:
    """Put the model, the optimisers, the carry and the generators back where they were, and return the progress.

    Raises ValueError, and changes nothing, for a checkpoint that is broken, or of another run: settings, weights, or
    the batches of the last step differ.
    """
    progress, then = read_header(path)
    now = json.loads(json.dumps(asdict(settings)))  # as JSON has it: a tuple is a list
    then = {"metrics": False} | then  # as runs were before there was that setting
    changed = [f"{key} was {then.get(key)!r}, is {now[key]!r}" for key in now if then.get(key) != now[key]]
    if changed:
        raise ValueError(f"{path} belongs to a run with other settings ({'; '.join(changed)}): choose another folder.")
    first = (progress.step - 1) * settings.accumulation
    if checksum(batches.batch(first + i) for i in range(settings.accumulation)) != progress.checksum:
        raise ValueError(
            f"{path} belongs to a run on other batches: its step {progress.step} read something else. Give it the same "
            f"texts, length, rows and seed, or another folder."
        )
    _, tensors = _read(path)
    _fill(path, model, _below("model.", tensors))
    for number, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _below(f"optimizer.{number}.", tensors).items():
            index, slot = name.split(".", 1)
            state.setdefault(int(index), {})[slot] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    carry.restore(model, _below("carry.", tensors))
    _restore_random(_below("random.", tensors))
    return progress


def _read(path: Path, with_tensors: bool = True) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys() if with_tensors else []
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no checkpoint {path}.") from error
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is broken or cut short ({error}): delete it to start anew.") from error


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _fill(path: Path, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    ours = trainable_tensors(model)
    if {n: (t.shape, t.dtype) for n, t in ours.items()} != {n: (t.shape, t.dtype) for n, t in tensors.items()}:
        raise ValueError(f"{path} belongs to another model: its trainable tensors differ in names, shapes or types.")
    for name, tensor in ours.items():
        tensor.copy_(tensors[name])  # detached: nothing is recorded


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
