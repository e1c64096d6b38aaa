"""The folder of a run: what is in it, and how a run begins there, anew or where it was left.

Chapter: docs/training.md
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from minipoet.training.history import History, read_history
from minipoet.training.packing import BatchSource
from minipoet.training.settings import TrainSettings
from minipoet.training.state import Progress, load_state, read_header


class RunFiles(NamedTuple):
    """The files that a run keeps."""

    last: Path  # all that is needed to go on
    best: Path  # the trainable weights that measured best
    history: Path

    @classmethod
    def of(cls, folder: Path) -> RunFiles:
        """The files of a folder."""
        return cls(folder / "last.safetensors", folder / "best.safetensors", folder / "history.jsonl")


def start_anew(files: RunFiles) -> tuple[Progress, History]:
    """Make the folder, or take it over from a finished run. Raises ValueError if there is an unfinished one in it."""
    files.last.parent.mkdir(parents=True, exist_ok=True)
    if files.last.exists():
        former, its_settings = read_header(files.last)
        if not former.finished:
            raise ValueError(
                f"{files.last.parent} holds an unfinished run (step {former.step} of {its_settings['steps']}): go on "
                f"with it (resume=True, or --resume), choose another folder, or delete {files.last} to start anew."
            )
    for old in files:
        old.unlink(missing_ok=True)
    return Progress(), History(files.history)


def go_on(
    files: RunFiles,
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    settings: TrainSettings,
    batches: BatchSource,
) -> tuple[Progress, History]:
    """All as it was when last.safetensors was written: what happened since is forgotten, and will happen again.

    Raises ValueError for a checkpoint that is broken, or of another run.
    """
    progress = load_state(files.last, model, optimizers, settings, batches)
    history = read_history(files.history)
    history.rewind(progress.step)
    return progress, history
