"""Telling the trackers what the history has and they were not told yet. One that fails is left out; the run goes on.

Chapter: docs/training.md
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from minipoet.checks import shown
from minipoet.training.folder import RunFiles
from minipoet.training.history import History
from minipoet.training.state import Progress
from minipoet.training.tracking import Event, Run, Track, Tracker, first_line


def as_trackers(track: Track | Sequence[Track] | None) -> list[Tracker]:
    """The trackers of a `track`. Raises ValueError for what is none."""
    given = list(track) if isinstance(track, list | tuple) else [] if track is None else [track]
    trackers: list[Tracker] = []
    for one in given:
        if isinstance(one, type) or not (isinstance(one, Tracker) or callable(one)):
            raise ValueError(
                f"track must be a function of an event, a tracker as TensorBoard(), or a list of such, got "
                f"{one.__name__ + ' without ()' if isinstance(one, type) else shown(one)}."
            )
        trackers.append(one if isinstance(one, Tracker) else _Function(one))
    return trackers


@contextmanager
def telling(
    trackers: Sequence[Tracker], run: Run, history: History, files: RunFiles, progress: Progress
) -> Iterator[Callable[[], None]]:
    """Begin, and give the function that tells the trackers what the history has that they were not told yet."""
    told, listening = 0, list[Tracker]()

    def to_all(tell: Callable[[Tracker], None]) -> None:
        for tracker in list(listening):
            try:
                tell(tracker)
            except Exception as error:  # whatever it is, it must not cost the training
                listening.remove(tracker)
                warnings.warn(_left_out(tracker, error, progress, files), RuntimeWarning, stacklevel=4)

    def tell() -> None:
        nonlocal told
        events, told = history.events[told:], len(history.events)
        to_all(lambda tracker: _tell(tracker, events))

    try:
        for tracker in trackers:
            tracker.begin(run)
            listening.append(tracker)
        yield tell
    finally:
        tell()
        to_all(lambda tracker: tracker.end(files, progress.finished))


def _tell(tracker: Tracker, events: Sequence[Event]) -> None:
    for event in events:
        tracker.event(dict(event))


def _left_out(tracker: Tracker, error: Exception, progress: Progress, files: RunFiles) -> str:
    return (
        f"{_name(tracker)} failed after step {progress.step} ({type(error).__name__}: {first_line(error)}) and is told "
        f"no more of this run, which goes on: {files.history} has everything. Resume the run later with the same "
        f"`track`, even when it is finished, and it is told what it missed."
    )


class _Function:
    """A function of an event as a tracker."""

    def __init__(self, function: Callable[[Event], Any]):
        self.function = function

    def begin(self, run: Run) -> None:
        """Nothing: it is told events only."""

    def event(self, event: Event) -> None:
        """Call it."""
        self.function(event)

    def end(self, files: RunFiles, finished: bool) -> None:
        """Nothing."""


def _name(tracker: Tracker) -> str:
    if isinstance(tracker, _Function):
        return f"The tracker {getattr(tracker.function, '__name__', type(tracker.function).__name__)}"
    return type(tracker).__name__
