"""The training loop: one explicit function. Read it from top to bottom; that is all there is.

A step is: count the tokens, add up the gradients of the batches, clip, set the learning rate, step. Now and then the
model is measured on texts that it does not learn from; the best is kept, and the run stops when it gets no better.

Chapter: docs/training.md
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from tqdm import tqdm

from minipoet.files import write_tensors_atomic
from minipoet.training.history import History, read_history
from minipoet.training.loss import batch_loss
from minipoet.training.optimizers import learning_rate, make_optimizers
from minipoet.training.packing import Batch
from minipoet.training.precision import autocast
from minipoet.training.settings import TrainSettings
from minipoet.training.state import load_state, save_state, trainable_tensors


class BatchSource(Protocol):
    """Anything that has the batch of a step: `training.Batches`, or a mixture of several."""

    def batch(self, step: int) -> Batch: ...


class TrainingDiverged(ArithmeticError):
    """The loss or the gradient became infinite or not a number; the message says where, and what to go back to."""


def train(
    model: nn.Module,
    batches: BatchSource,
    settings: TrainSettings,
    folder: str | Path,
    validate: Callable[[], float] | None = None,
    resume: bool = False,
    stop_after: int | None = None,
    quiet: bool = False,
) -> History:
    """Train what requires a gradient in the model. It is left with the best weights (the last ones without `validate`).

    validate() measures the model (lower is better). In `folder`: history.jsonl, last.safetensors (to resume from) and
    best.safetensors. With resume=True the run goes on from last.safetensors, if there is one, as if it had never
    stopped: to the bit, on one thread. stop_after ends the call early after so many steps in all (to resume later).
    Raises ValueError for nothing to train or a checkpoint of another run, TrainingDiverged, OSError for a full disk.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    last, best_file, history_file = (folder / name for name in ("last.safetensors", "best.safetensors", "history.jsonl"))
    optimizers = make_optimizers(model, settings)
    trainable = [p for p in model.parameters() if p.requires_grad]
    device = trainable[0].device
    progress: dict[str, Any] = {"step": 0, "tokens": 0, "best": math.inf, "best_step": 0, "waited": 0, "seconds": 0.0}
    if resume and last.exists():
        progress = load_state(last, model, optimizers, settings)
        history = read_history(history_file)
        history.rewind(progress["step"])
    else:
        for old in (last, best_file, history_file):
            old.unlink(missing_ok=True)
        history = History(history_file)
        torch.manual_seed(settings.seed)  # dropout draws from the global generator
    started = time.perf_counter() - progress["seconds"]
    bar = tqdm(total=settings.steps, initial=progress["step"], disable=quiet, unit="step", dynamic_ncols=True)

    def measure() -> None:
        """Validate, keep the best, count the waiting."""
        if validate is None:
            return
        model.eval()
        value = validate()
        history.add(step=progress["step"], validation=value)
        bar.write(f"step {progress['step']:>6}   validation {value:.4f}", end="\n") if not quiet else None
        if value < progress["best"]:
            write_tensors_atomic(best_file, trainable_tensors(model))
            progress.update(best=value, best_step=progress["step"], waited=0)
        else:
            progress["waited"] += 1

    def enough() -> bool:
        return bool(settings.patience) and progress["waited"] >= settings.patience

    if progress["step"] == 0:
        measure()
    while progress["step"] < min(settings.steps, stop_after or settings.steps) and not enough():
        step = progress["step"]
        model.train()
        parts = [batches.batch(step * settings.accumulation + i) for i in range(settings.accumulation)]
        tokens = sum(part.tokens() for part in parts)  # the loss is averaged over all of them, counted before backward
        loss = 0.0
        for part in parts:
            with autocast(device, settings.precision):
                part_loss = batch_loss(model, part.to(device)) / max(1, tokens)
            part_loss.backward()
            loss += part_loss.item()
        norm = float(nn.utils.clip_grad_norm_(trainable, settings.clip or math.inf))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingDiverged(_what_diverged(step, settings, loss, norm, best_file, last))
        factor = learning_rate(step, settings)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        progress["step"] += 1
        progress["tokens"] += tokens
        progress["seconds"] = time.perf_counter() - started
        speed = progress["tokens"] / progress["seconds"]
        history.add(step=step + 1, loss=loss, norm=norm, lr=settings.lr * factor, tokens=progress["tokens"])
        bar.set_postfix(loss=f"{loss:.3f}", best=f"{progress['best']:.3f}", tok_s=f"{speed:.0f}", refresh=False)
        bar.update()
        due = settings.evaluate_every and (step + 1) % settings.evaluate_every == 0
        if due or step + 1 == settings.steps:
            measure()
        if (step + 1) % (settings.save_every or settings.evaluate_every or settings.steps) == 0:
            save_state(last, model, optimizers, settings, progress)
    bar.close()
    if progress["step"] == stop_after:
        save_state(last, model, optimizers, settings, progress)
    elif best_file.exists():
        _load_weights(model, best_file)
    model.eval()
    return history


def _load_weights(model: nn.Module, path: Path) -> None:
    from safetensors.torch import load_file

    tensors = load_file(path)
    with torch.no_grad():
        for name, tensor in trainable_tensors(model).items():
            tensor.copy_(tensors[name])


def _what_diverged(step: int, settings: TrainSettings, loss: float, norm: float, best: Path, last: Path) -> str:
    first = step * settings.accumulation
    good = best if best.exists() else last if last.exists() else None
    back = f"the last good weights are in {good}" if good else "there is no checkpoint yet"
    return (
        f"Step {step + 1} (batches {first} to {first + settings.accumulation - 1} of seed {settings.seed}): "
        f"the loss is {loss}, the gradient's norm {norm}; {back}. "
        f"Try a smaller learning rate than {settings.lr:g}, a longer warm-up, or precision='fp32'."
    )
