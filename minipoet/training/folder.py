"""The folder of a run: what is in it, and how a run begins there, anew or where it was left.

Chapter: docs/training.md
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from minipoet.files import make_folder, remove
from minipoet.training.batch import BatchSource
from minipoet.training.carry import Carry
from minipoet.training.history import History, read_history
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


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Make the folder, and keep another run out of it as long as this one lasts, however it ends.

    Raises ValueError if there is another run. Where the system has no such locks, nothing is kept out.
    """
    handle = _lock(make_folder(folder))
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _lock(folder: Path) -> int | None:
    """An open file with a lock, which goes with it and with the process; None where that cannot be."""
    try:
        import fcntl  # not on Windows

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ValueError(f"Another run is writing to {folder}: wait for it, or choose another folder.") from None
    except OSError:  # some network file systems
        pass
    return handle


def refuse_unfinished(files: RunFiles) -> None:
    """Raise ValueError if there is an unfinished run in the folder: starting anew would destroy it."""
    if files.last.exists():
        former, its_settings = read_header(files.last)
        if not former.finished:
            raise ValueError(
                f"{files.last.parent} holds an unfinished run (step {former.step} of {its_settings['steps']}): go on "
                f"with it (resume=True, or --resume), choose another folder, or delete {files.last} to start anew."
            )


def start_anew(files: RunFiles) -> tuple[Progress, History]:
    """Take the folder over from a finished run. Raises ValueError if there is an unfinished one in it."""
    refuse_unfinished(files)
    for old in files:
        remove(old)
    return Progress(), History(files.history)


def go_on(
    files: RunFiles,
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    settings: TrainSettings,
    batches: BatchSource,
    carry: Carry,
) -> tuple[Progress, History]:
    """All as it was when last.safetensors was written: what happened since is forgotten, and will happen again.

    Raises ValueError for a checkpoint that is broken, or of another run.
    """
    progress = load_state(files.last, model, optimizers, settings, batches, carry)
    history = read_history(files.history) if files.history.exists() else History(files.history)
    history.rewind(progress.step)
    return progress, history
