"""The history of a run: one JSON object a line, appended as it happens, so that nothing is lost when a run is killed.

Chapter: docs/training.md
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from minipoet.files import write_text_atomic


class History:
    """Events with a `step`. Kept in memory (`events`), and in a file where one is given."""

    def __init__(self, path: Path | None = None):
        self.path = path
        self.events: list[dict[str, Any]] = []

    def add(self, **event: Any) -> None:
        """Note an event, e.g. add(step=10, loss=3.2)."""
        self.events.append(event)
        if self.path is not None:
            with open(self.path, "a", encoding="utf-8", newline="\n") as file:
                file.write(json.dumps(event, ensure_ascii=False) + "\n")

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
    """Read a history file; a last line cut short by a kill is left out, and one that is not there has no events.

    Raises ValueError for another kind of file. To go on writing after a kill, `rewind` first: it writes the file anew.
    """
    path = Path(path)
    history = History(path)
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            event = json.loads(line)
            event["step"]
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):  # there is no line end behind it
                continue
            raise ValueError(f"{path}, line {number}: not an event of a training history ({error}).") from error
        history.events.append(event)
    return history
