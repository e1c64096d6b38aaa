"""Which model, how large, at which learning rate? Candidates are tried one by one, and what came of each is noted.

    search              tries what its file has not, and appends a line as each ends
    ranked              the best first
    explained           how much of the spread is one setting's doing?
    rank_correlation    do two rankings agree?

What a candidate is, and how it is tried, is the caller's affair: nothing here knows a model. `space.py` draws them.
Chapter: docs/search.md
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from minipoet.checks import as_path, each, expect, is_number, shown
from minipoet.files import reason, write_text_atomic
from minipoet.training.folder import alone
from minipoet.training.space import Candidate


@dataclass(frozen=True)
class Trial:
    """A candidate and what came of it: `found` if it is "done", `reason` if it has "failed" or "diverged"."""

    candidate: Candidate
    status: str
    found: dict[str, Any] = field(default_factory=dict)  # its "score", lower is better, and all else that was noted
    reason: str = ""

    @property
    def score(self) -> float:
        """Infinite for a candidate that did not come to its end."""
        return self.found["score"] if self.status == "done" else math.inf


def search(
    candidates: Iterable[Candidate],
    evaluate: Callable[[Candidate], dict[str, Any]],
    path: str | Path,
    about: Mapping[str, Any],
    tell: Callable[[Trial], None] | None = None,
) -> list[Trial]:
    """Try the candidates that the file has not; the trials of all of them, in their order.

    evaluate(candidate) gives {"score": …, …}, of plain values. A candidate that has no result (ValueError, an
    arithmetic error such as TrainingDiverged, too little memory) is noted with the reason, and the search goes on;
    what else goes wrong ends it. The file, JSON lines: `about`, then a trial a line, appended when it ends; an
    interruption loses only the one in work. about: all that the result depends on beside the candidates (the corpus,
    the epochs, …); a file about something else is refused. tell(trial) is called for each that was run.
    Raises ValueError for another file or search, or one that runs there now; OSError if it cannot be read or written.
    """
    path = as_path(path, "The file of a search")
    if not callable(evaluate):
        raise ValueError(f"evaluate must be a function that tries a candidate, got {shown(evaluate)}.")
    expect(about, Mapping, "about", "what the search is about, {name: value}")
    candidates = list(each(candidates, dict, "The candidates", "settings by name, {name: value}"))
    keyed = {_key(candidate): candidate for candidate in candidates}
    with alone(path.parent):
        done = {_key(trial.candidate): trial for trial in _begin(path, json.loads(_line({"search": dict(about)})))}
        for key, candidate in keyed.items():
            if key not in done:
                done[key] = _try(candidate, evaluate)
                _append(path, _line(asdict(done[key])))
                if tell is not None:
                    tell(done[key])
    return [done[_key(candidate)] for candidate in candidates]


def _key(candidate: Candidate) -> str:
    """The same text for the same candidate. Raises ValueError for one that JSON cannot hold."""
    return _line(candidate, sort_keys=True)


def _line(value: Any, sort_keys: bool = False) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, sort_keys=sort_keys) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"A search is of plain values, numbers, strings and lists, that JSON can hold: {error}."
        ) from error


def _try(candidate: Candidate, evaluate: Callable[[Candidate], dict[str, Any]]) -> Trial:
    """Run it; a reason instead of a result where the candidate is to blame."""
    try:
        found = evaluate(dict(candidate))
    except ArithmeticError as error:
        return Trial(candidate, "diverged", reason=str(error) or type(error).__name__)
    except ValueError as error:
        return Trial(candidate, "failed", reason=str(error))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error).lower():  # how PyTorch says it, on any device
            raise
        return Trial(candidate, "failed", reason=f"out of memory: {(str(error) or 'MemoryError').splitlines()[0]}")
    expect(found, dict, "What evaluate gives", 'a dictionary with a "score"')
    if not isinstance(found.get("score"), int | float):
        raise ValueError(f'evaluate must give {{"score": a number}}, got score = {shown(found.get("score"))}.')
    if not math.isfinite(found["score"]):
        return Trial(candidate, "diverged", reason=f"the score is {found['score']}")
    return Trial(candidate, "done", found)


def _begin(path: Path, first: dict[str, Any]) -> list[Trial]:
    """The trials that the file has; a new file gets its first line. A last line that a kill cut short is taken off."""
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise type(error)(f"{path} cannot be read ({reason(error, path)}): expected the file of a search.") from error
    whole = content[: content.rfind(b"\n") + 1]
    lines = [_parsed(path, number, line) for number, line in enumerate(whole.split(b"\n")[:-1], start=1)]
    if not content:
        write_text_atomic(path, _line(first))
        return []
    _refuse_other(path, lines[0] if lines else None, first)
    trials = [_trial(path, number, line) for number, line in enumerate(lines[1:], start=2)]
    if whole != content:
        write_text_atomic(path, whole.decode())
    return trials


def _parsed(path: Path, number: int, line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: not JSON ({error}): it is no file of a search.") from error


def _trial(path: Path, number: int, line: Any) -> Trial:
    try:
        trial = Trial(**line)
        failed = trial.status in ("failed", "diverged")
        if isinstance(trial.candidate, dict) and (failed or (trial.status == "done" and is_number(trial.score))):
            return trial
    except (TypeError, KeyError):
        pass
    raise ValueError(f"{path}, line {number}: not a trial of a search.")


def _refuse_other(path: Path, then: Any, now: dict[str, Any]) -> None:
    """Raise ValueError if the file is about another search, and say in what."""
    if not isinstance(then, dict) or not isinstance(then.get("search"), dict):
        raise ValueError(f"{path} is not the file of a search: choose another.")
    before, after = _flat(then["search"]), _flat(now["search"])
    changed = [
        f"{name} was {before.get(name, 'not set')}, is {after.get(name, 'not set')}"
        for name in dict.fromkeys([*before, *after])
        if name not in before or name not in after or before[name] != after[name]
    ]
    if changed:
        raise ValueError(f"{path} is of another search ({'; '.join(changed)}): choose another folder, or delete it.")


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """{"space": {"lr": 1}} -> {"space.lr": 1}: what changed is told by its own name."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _append(path: Path, line: str) -> None:
    try:
        with open(path, "a", encoding="utf-8", newline="\n") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        why = reason(error, path)
        raise OSError(f"Could not write {path}: {why}; free some space, then start the search again.") from error


def ranked(trials: Iterable[Trial]) -> list[Trial]:
    """Those that came to their end, the best first."""
    return sorted((trial for trial in trials if trial.status == "done"), key=lambda trial: trial.score)


def explained(groups: Sequence[Any], scores: Sequence[float]) -> float:
    """The share of the spread of the scores' places that lies between groups and not within them: η² of the places.

    By chance alone k groups of n scores have (k − 1) / (n − 1). Raises ValueError for scores that are all equal, and
    for lists that are not of one length.
    """
    if len(groups) != len(scores):
        raise ValueError(f"Each score needs a group, got {len(groups)} groups and {len(scores)} scores.")
    places = np.array(_places(scores)) - (len(scores) - 1) / 2
    if not places.any():
        raise ValueError("Scores that are all equal have no spread to explain.")
    members = [places[[one == group for one in groups]] for group in dict.fromkeys(groups)]
    return float(sum(len(some) * some.mean() ** 2 for some in members) / (places * places).sum())


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's ρ: 1 if two scores of the same things order them alike, −1 if the other way round, 0 by chance.

    Equal values share the mean of their places. Raises ValueError for lists that are not of one length, or too short,
    and for scores that are all equal.
    """
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(f"Rankings must be of the same two or more things, got {len(first)} and {len(second)} scores.")
    a, b = (np.array(_places(values)) - (len(values) - 1) / 2 for values in (first, second))
    if not a.any() or not b.any():
        raise ValueError("Scores that are all equal make no ranking.")
    return float((a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum()))


def _places(values: Sequence[float]) -> list[float]:
    order = sorted(values)
    places: dict[float, list[int]] = {}
    for place, value in enumerate(order):
        places.setdefault(value, []).append(place)
    return [fmean(places[value]) for value in values]
