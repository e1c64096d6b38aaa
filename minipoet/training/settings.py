"""All that a training run depends on besides the model and the texts, in one frozen record.

Chapter: docs/training.md
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainSettings:
    """How to train. Raises ValueError, with all that is wrong at once, for values that make no sense."""

    steps: int  # optimiser steps
    lr: float = 1e-3
    warmup: int = 20  # steps
    schedule: str = "cosine"  # or "linear" (flat, then down over the last `decay` share) or "constant"
    decay: float = 0.5
    final_lr: float = 0.0  # share of lr at the end
    optimizer: str = "adamw"  # or "muon" (blocks' matrices by Muon, the rest by AdamW)
    muon_lr: float = 0.02
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0  # largest norm of the gradient; 0 does not clip
    accumulation: int = 1  # batches a step
    precision: str = "auto"  # "bf16" autocast, "fp32", or what the machine is fast at
    evaluate_every: int = 50  # steps; 0 never
    patience: int = 0  # evaluations without a better one after which to stop; 0 never stops
    save_every: int = 0  # steps between resumable checkpoints; 0: one at each evaluation
    seed: int = 0

    def __post_init__(self):
        wrong = [f"{n} must be at least 1, got {getattr(self, n)}" for n in ("steps", "accumulation") if getattr(self, n) < 1]
        counts = ("lr", "warmup", "weight_decay", "clip", "evaluate_every", "patience", "save_every", "final_lr", "muon_lr")
        wrong += [f"{n} must not be negative, got {getattr(self, n)}" for n in counts if not getattr(self, n) >= 0]
        choices = {
            "schedule": ("cosine", "linear", "constant"),
            "optimizer": ("adamw", "muon"),
            "precision": ("auto", "bf16", "fp32"),
        }
        wrong += [
            f"{n} must be one of {', '.join(known)}, got {getattr(self, n)!r}"
            for n, known in choices.items()
            if getattr(self, n) not in known
        ]
        if not 0 < self.decay <= 1:
            wrong.append(f"decay must be in (0, 1], got {self.decay}")
        if wrong:
            raise ValueError(f"Training settings: {'; '.join(wrong)}.")
