"""The training loop: one explicit function, `train`. Read it from top to bottom; its steps are the helpers below it.

A step is: count the tokens, add up the gradients of the batches, clip, set the learning rate, step. Now and then the
model is measured on texts that it does not learn from; the best is kept, and the run stops when it gets no better.

Chapter: docs/training.md
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from numbers import Real
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from minipoet.checks import as_path, expect, expect_model, is_whole, shown
from minipoet.files import write_tensors_atomic
from minipoet.training.batch import Batch, BatchSource, check_batches
from minipoet.training.carry import Carry
from minipoet.training.folder import RunFiles, alone, go_on, start_anew
from minipoet.training.history import History
from minipoet.training.loss import batch_sums
from minipoet.training.metrics import tokens_seen
from minipoet.training.optimizers import learning_rate, make_optimizers
from minipoet.training.precision import autocast
from minipoet.training.settings import TrainSettings
from minipoet.training.state import Progress, checksum, load_weights, save_state, trainable_tensors
from minipoet.training.telling import as_trackers, telling
from minipoet.training.tracking import Run, Track

Validate = Callable[[], float | Mapping[str, float]]


class TrainingDiverged(ArithmeticError):
    """The loss or the gradient became infinite or not a number; the message says where, and what to go back to."""


def train(
    model: nn.Module,
    batches: BatchSource,
    settings: TrainSettings,
    folder: str | Path,
    validate: Validate | None = None,
    resume: bool = False,
    stop_after: int | None = None,
    quiet: bool = False,
    track: Track | Sequence[Track] | None = None,
) -> History:
    """Train what requires a gradient in the model. It is left with the best weights (the last ones without `validate`).

    validate() measures the model (lower is better): a number, or several by name, of which "validation" decides and the
    others ("validation 1", ...) are noted. In `folder`: history.jsonl, last.safetensors (to resume from) and
    best.safetensors. With resume=True the run goes on from last.safetensors, if there is one, as if it had never
    stopped: to the bit, on one thread. Without it a finished run in the folder is replaced, an unfinished one refused.
    stop_after ends the call early, with the last weights, after so many steps in all (to resume later). track: who else
    is told each event of the history, one or a list: a function, or what `training.tracking` has.
    Raises ValueError for arguments that do not fit each other, nothing to train, an unfinished run, another run that is
    writing there, or a checkpoint that is broken or of another run; TrainingDiverged; OSError for a full disk.
    """
    _check(model, batches, settings, validate, stop_after)
    trackers = as_trackers(track)
    end = settings.steps if stop_after is None else min(stop_after, settings.steps)
    files = RunFiles.of(as_path(folder, "The folder of a run"))
    optimizers, carry = make_optimizers(model, settings), Carry()
    model.zero_grad(set_to_none=True)  # left by a call that was broken off
    with alone(files.last.parent):
        resume = resume and files.last.exists()
        if resume:
            progress, history = go_on(files, model, optimizers, settings, batches, carry)
        else:
            progress, history = start_anew(files)
            torch.manual_seed(settings.seed)  # dropout draws from the global generator
        hide = quiet or None  # None: hidden unless on a terminal
        run = Run(files.last.parent, asdict(settings), _counts(model), resume)
        with (
            telling(trackers, run, history, files, progress) as tell,
            tqdm(total=settings.steps, initial=progress.step, unit="step", dynamic_ncols=True, disable=hide) as bar,
        ):
            if progress.step == 0:
                _evaluate(model, validate, progress, history, files, quiet)
            while progress.step < end and not progress.finished:
                started = time.perf_counter()
                first = progress.step * settings.accumulation
                parts = [batches.batch(first + i) for i in range(settings.accumulation)]
                loss, norm, tokens, noted = _gradient(model, parts, settings, carry)
                if not (math.isfinite(loss) and math.isfinite(norm)):
                    raise TrainingDiverged(_what_diverged(progress, settings, loss, norm, files))
                factor = learning_rate(progress.step, settings)
                _update(optimizers, factor)
                progress.step += 1
                progress.tokens += tokens
                progress.seconds += time.perf_counter() - started
                progress.checksum = checksum(parts)
                if settings.metrics:
                    progress.num_tokens += sum(map(tokens_seen, parts))
                    noted["num_tokens"] = progress.num_tokens
                lr, seconds = settings.lr * factor, round(progress.seconds, 3)
                event = {"loss": loss, "norm": norm, "lr": lr, "tokens": progress.tokens, "seconds": seconds}
                history.add(step=progress.step, **event, **noted)
                _show(bar, loss, lr, progress)
                last_step = progress.step == settings.steps
                if last_step or settings.evaluates(progress.step):
                    _evaluate(model, validate, progress, history, files, quiet)
                progress.finished = last_step or 0 < settings.patience <= progress.waited
                if progress.finished or progress.step == end or settings.saves(progress.step):
                    save_state(files.last, model, optimizers, settings, progress, carry)
                tell()
    if progress.finished and progress.best < math.inf:
        load_weights(files.best, model)
    model.eval()
    return history


def _check(
    model: nn.Module,
    batches: BatchSource,
    settings: TrainSettings,
    validate: Validate | None,
    stop_after: int | None,
) -> None:
    """Raise ValueError for arguments that make no sense, alone or together."""
    expect_model(model)
    expect(settings, TrainSettings, "settings", "TrainSettings(steps=...)")
    if validate is not None and not callable(validate):
        raise ValueError(f"validate must be a function that gives a number, got {shown(validate)}: lambda: ...")
    if settings.patience and validate is None:
        raise ValueError("settings.patience counts evaluations without a better one: it needs validate.")
    if stop_after is not None and not is_whole(stop_after, 1):
        raise ValueError(f"stop_after must be at least 1, got {shown(stop_after)}.")
    check_batches(batches, model)


def _gradient(
    model: nn.Module, parts: list[Batch], settings: TrainSettings, carry: Carry
) -> tuple[float, float, int, dict[str, float]]:
    """Leave the gradient of the loss, the mean over all tokens of the parts, in the model; clip it.

    Gives (loss, norm before clipping, tokens, means over the parts of their entropy and accuracy, where these are
    asked for). Each part's sum is divided by the tokens of the whole step, counted before: so it does not matter how
    the texts are divided among the parts, nor that one has more tokens than another. A part that goes on from the one
    before begins with its state.
    """
    model.train()
    trainable = [p for p in model.parameters() if p.requires_grad]
    device = trainable[0].device
    tokens = [part.tokens() for part in parts]
    total, means = torch.zeros((), device=device), torch.zeros(2, device=device)
    for part, count in zip(parts, tokens, strict=True):
        with autocast(device, settings.precision):
            sums = batch_sums(model, part, cache=carry.cache_for(model, part), metrics=settings.metrics)
        loss = sums.loss / max(1, sum(tokens))
        loss.backward()
        total += loss.detach()
        if settings.metrics:
            means += torch.stack([sums.entropy, sums.right]) / max(1, count) / len(parts)
    norm = nn.utils.clip_grad_norm_(trainable, settings.clip or math.inf)
    noted = dict(zip(("entropy", "accuracy"), means.tolist(), strict=True)) if settings.metrics else {}
    return total.item(), norm.item(), sum(tokens), noted


def _update(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """One step at this factor of each group's own learning rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _evaluate(
    model: nn.Module,
    validate: Validate | None,
    progress: Progress,
    history: History,
    files: RunFiles,
    quiet: bool,
) -> None:
    """Validate, keep the best, count the waiting."""
    if validate is None:
        return
    model.eval()
    found = validate()
    figures = found if isinstance(found, Mapping) else {"validation": found}
    _check_figures(figures)
    figures = {name: float(value) for name, value in figures.items()}
    value = figures["validation"]
    if math.isnan(value):
        raise TrainingDiverged(f"validate() gave {value} after step {progress.step}. {_go_back(progress, files)}")
    history.add(step=progress.step, **figures)
    better = value < progress.best
    if better:
        write_tensors_atomic(files.best, trainable_tensors(model))
        progress.best, progress.best_step, progress.waited = value, progress.step, 0
    else:
        progress.waited += 1
    if not quiet:
        tqdm.write(f"step {progress.step:>6}   validation {value:.4f}{'   the best so far' if better else ''}")


def _check_figures(figures: Mapping[str, float]) -> None:
    """Raise ValueError unless they are numbers by name, one of them "validation", the others beginning so."""
    for name, value in figures.items():
        if not isinstance(value, Real | Tensor):
            what = "a number" if name == "validation" else f"a number for {name!r}"
            raise ValueError(f"validate() must give {what}, got {shown(value)}: of a Likelihood take .loss.")
    if "validation" not in figures or not all(str(name).startswith("validation") for name in figures):
        raise ValueError(
            f"Of several figures validate() must name one 'validation', which decides, and the others so that they "
            f"begin with it ('validation 1'), got {', '.join(map(repr, figures)) or 'none'}."
        )


def _counts(model: nn.Module) -> dict[str, int]:
    parameters = list(model.parameters())
    return {
        "parameters": sum(p.numel() for p in parameters),
        "trainable": sum(p.numel() for p in parameters if p.requires_grad),
    }


def _show(bar: tqdm, loss: float, lr: float, progress: Progress) -> None:
    best = f"best {progress.best:.3f}, " if progress.best < math.inf else ""  # there may be no validation
    speed = progress.tokens / max(progress.seconds, 1e-9)
    bar.set_postfix_str(f"loss {loss:.3f}, {best}lr {lr:.1e}, {speed:,.0f} tokens/s", refresh=False)
    bar.update()


def _what_diverged(progress: Progress, settings: TrainSettings, loss: float, norm: float, files: RunFiles) -> str:
    first = progress.step * settings.accumulation
    return (
        f"Step {progress.step + 1} (batches {first} to {first + settings.accumulation - 1}): the loss is {loss}, the "
        f"gradient's norm {norm}; the weights were not changed by it. {_go_back(progress, files)} "
        f"Try a smaller learning rate than {settings.lr:g}, a longer warm-up, or precision='fp32', in another folder."
    )


def _go_back(progress: Progress, files: RunFiles) -> str:
    if files.best.exists():
        return f"The last good weights, of step {progress.best_step}, are in {files.best}."
    if files.last.exists():
        return f"The last checkpoint is {files.last}."
    return "There is no checkpoint yet."
