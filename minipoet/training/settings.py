"""All that a training run depends on besides the model and the texts, in one frozen record.

Chapter: docs/training.md
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minipoet.checks import SEEDS, is_number, is_whole
from minipoet.training.precision import PRECISIONS

# name: least value
_WHOLE = {"steps": 1, "accumulation": 1, "warmup": 0, "patience": 0, "save_every": 0, "seed": 0}
_REAL = ("lr", "muon_lr", "weight_decay", "clip", "final_lr", "decay")  # none is negative
_CHOICES = {
    "schedule": ("cosine", "linear", "constant"),
    "optimizer": ("adamw", "adafactor", "muon", "sgd", "rmsprop"),
    "precision": PRECISIONS,
}


@dataclass(frozen=True)
class TrainSettings:
    """How to train. Raises ValueError, with all that is wrong at once, for values that make no sense."""

    steps: int  # optimiser steps
    lr: float = 1e-3
    warmup: int = 20  # steps on which the learning rate rises to lr
    schedule: str = "cosine"  # or "linear" (flat, then down over the last `decay` share) or "constant"
    decay: float = 0.5  # share of the steps after the warm-up
    final_lr: float = 0.0  # share of lr at the end
    optimizer: str = "adamw"  # or "adafactor", "sgd", "rmsprop", "muon" (blocks' matrices by Muon, the rest by AdamW)
    muon_lr: float = 0.02
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0  # largest norm of the gradient; 0 does not clip
    accumulation: int = 1  # batches a step
    precision: str = "auto"  # "bf16" autocast, "fp32", or what the machine is fast at
    evaluate_every: int | Sequence[int] = 50  # steps, or which ones (`epoch_ends`); 0: only at the start and the end
    patience: int = 0  # evaluations without a better one after which to stop; 0 never stops
    metrics: bool = False  # note entropy, token accuracy and tokens seen at each step (docs/metrics.md)
    save_every: int = 0  # steps between resumable checkpoints; 0: one at each evaluation. The last step always has one
    seed: int = 0

    def __post_init__(self) -> None:
        value = self.__dict__
        wrong = [
            f"{name} must be a whole number of at least {least}, got {value[name]!r}"
            for name, least in _WHOLE.items()
            if isinstance(value[name], bool) or not isinstance(value[name], int) or value[name] < least
        ]
        wrong += [
            f"{name} must be a finite number and not negative, got {value[name]!r}"
            for name in _REAL
            if not is_number(value[name]) or value[name] < 0
        ]
        wrong += [
            f"{name} must be one of {', '.join(known)}, got {value[name]!r}"
            for name, known in _CHOICES.items()
            if value[name] not in known
        ]
        every = self.evaluate_every
        at = every if isinstance(every, tuple | list) else [1] if is_whole(every) else []
        if not at or not all(is_whole(step, 1) for step in at):
            wrong.append(f"evaluate_every must be a whole number of at least 0, or steps of at least 1, got {every!r}")
        elif is_whole(self.steps, 1) and max(at) > self.steps:
            wrong.append(f"evaluate_every names step {max(at)}, but there are {self.steps}")
        if is_number(self.decay) and not 0 < self.decay <= 1:
            wrong.append(f"decay must be in (0, 1], got {self.decay!r}")
        if is_number(self.final_lr) and self.final_lr > 1:
            wrong.append(f"final_lr must be at most 1, got {self.final_lr!r}")
        pair = isinstance(self.betas, tuple | list) and len(self.betas) == 2
        if not pair or not all(is_number(beta) and 0 <= beta < 1 for beta in self.betas):
            wrong.append(f"betas must be two numbers in [0, 1), got {self.betas!r}")
        if isinstance(self.seed, int) and self.seed >= SEEDS:
            wrong.append(f"seed must be less than 2**64, got {self.seed!r}")
        if not isinstance(self.metrics, bool):
            wrong.append(f"metrics must be True or False, got {self.metrics!r}")
        if self.patience and not self.evaluate_every:
            wrong.append("patience counts evaluations: it needs evaluate_every")
        if wrong:
            raise ValueError(f"Training settings: {'; '.join(wrong)}.")

    def evaluates(self, step: int) -> bool:
        """Is the model measured after this step, whether or not it is the last?"""
        every = self.evaluate_every
        return step in every if isinstance(every, Sequence) else every > 0 and step % every == 0

    def saves(self, step: int) -> bool:
        """Is there a checkpoint of this step, whether or not it is the last?"""
        return step % self.save_every == 0 if self.save_every else self.evaluates(step)
