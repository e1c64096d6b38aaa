"""The history of a run: one JSON object a line, appended as it happens, so that nothing is lost when a run is killed.

Chapter: docs/training.md
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from minipoet.checks import as_path, is_whole
from minipoet.files import reason, write_text_atomic


class History:
    """Events with a `step`. Kept in memory (`events`), and in a file where one is given."""

    def __init__(self, path: str | Path | None = None):
        self.path = None if path is None else as_path(path, "The file of a history")
        self.events: list[dict[str, Any]] = []

    def add(self, **event: Any) -> None:
        """Note an event, e.g. add(step=10, loss=3.2). Raises OSError, with what to do, for a full disk."""
        line = json.dumps(event, ensure_ascii=False) + "\n"
        self.events.append(event)
        if self.path is None:
            return
        try:
            with open(self.path, "a", encoding="utf-8", newline="\n") as file:
                file.write(line)
        except OSError as error:
            why = reason(error, self.path)
            raise OSError(f"Could not write {self.path}: {why}; free some space, then resume the run.") from error

    def rewind(self, step: int) -> None:
        """Forget what happened after a step: a resumed run writes it again."""
        self.events = [event for event in self.events if event["step"] <= step]
        if self.path is not None:
            lines = (json.dumps(event, ensure_ascii=False) + "\n" for event in self.events)
            write_text_atomic(self.path, "".join(lines))

    def curve(self, key: str) -> tuple[list[int], list[float]]:
        """(steps, values) of the events that have the key."""
        points = [(event["step"], event[key]) for event in self.events if key in event]
        return [step for step, _ in points], [value for _, value in points]


def read_history(path: str | Path) -> History:
    """Read a history file; a last line cut short by a kill is left out.

    Raises ValueError for another kind of file, OSError for one that cannot be read. To go on writing after a kill,
    `rewind` first: it writes the file anew.
    """
    path = as_path(path, "The file of a history")
    history = History(path)
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        why = reason(error, path)
        raise type(error)(f"{path} cannot be read ({why}): expected the history.jsonl of a run.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            event = json.loads(line)
        except ValueError:
            if number == len(lines) and line.startswith(b"{"):  # there is no line end behind it
                continue
            event = None
        if not isinstance(event, dict) or not is_whole(event.get("step")):
            raise ValueError(f"{path}, line {number}: not an event of a training history, an object with its step.")
        history.events.append(event)
    return history
