"""Which model, how large, at which learning rate? Candidates are drawn at random, or all of a grid; each is tried once.

    Choice, LogUniform, Given   what may be drawn
    draw, grid                  candidate i of a seed; all combinations
    search                      tries them one by one, and appends a line to a file as each ends
    ranked, rank_correlation    the best first; do two rankings agree?

With n candidates a random search tries n values of every setting, a grid of the same size only the few that it was
given; where one setting matters more than the others (it does), random wins. What a candidate is, and how it is tried,
is the caller's affair: nothing here knows a model.

Paper: Bergstra & Bengio 2012, "Random Search for Hyper-Parameter Optimization"
Chapter: docs/search.md
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from minipoet.checks import SEEDS, as_path, expect, is_number, is_whole, shown
from minipoet.files import reason, write_text_atomic
from minipoet.training.folder import alone

Candidate = dict[str, Any]  # settings by name, as JSON has them: numbers, strings, lists


class Choice:
    """One of some values, each as likely as the others."""

    def __init__(self, *values: Any):
        if not values:
            raise ValueError("A Choice needs at least one value: Choice(1, 2, 3).")
        self.values = values

    def draw(self, random: np.random.Generator, drawn: Candidate) -> Any:
        return self.values[int(random.integers(len(self.values)))]

    def __repr__(self) -> str:
        return f"Choice({', '.join(map(repr, self.values))})"


class LogUniform:
    """A number between two, any factor as likely as the others; of three digits, so that it can be read and typed."""

    def __init__(self, low: float, high: float):
        if not (is_number(low) and is_number(high) and 0 < low <= high):
            raise ValueError(f"LogUniform needs 0 < low ≤ high, got {shown(low)} and {shown(high)}.")
        self.low, self.high = low, high

    def draw(self, random: np.random.Generator, drawn: Candidate) -> float:
        return float(f"{math.exp(random.uniform(math.log(self.low), math.log(self.high))):.3g}")

    def __repr__(self) -> str:
        return f"LogUniform({self.low!r}, {self.high!r})"


class Given:
    """What may be drawn depends on a setting that was drawn before: Given("optimizer", {"sgd": …, "adamw": …})."""

    def __init__(self, name: str, cases: Mapping[Any, Choice | LogUniform]):
        expect(cases, Mapping, "The cases of Given", f"what to draw by values of {shown(name)}")
        self.name, self.cases = name, dict(cases)

    def draw(self, random: np.random.Generator, drawn: Candidate) -> Any:
        if self.name not in drawn or drawn[self.name] not in self.cases:
            came = f"{self.name} = {shown(drawn[self.name])}" if self.name in drawn else f"no {self.name} before it"
            raise ValueError(f"Given({self.name!r}) has cases for {', '.join(map(repr, self.cases))}; there is {came}.")
        return self.cases[drawn[self.name]].draw(random, drawn)

    def __repr__(self) -> str:
        return f"Given({self.name!r}, {self.cases!r})"


Space = Mapping[str, Choice | LogUniform | Given]


def draw(space: Space, seed: int, number: int) -> Candidate:
    """Candidate `number`, counted from 0, of a search: the same one for the same space, seed and number.

    So a longer search begins with the candidates of the shorter one. Raises ValueError for a space that is none.
    """
    if not (is_whole(seed, 0, SEEDS) and is_whole(number)):
        raise ValueError(f"seed and number must be whole numbers from 0, got {shown(seed)} and {shown(number)}.")
    expect(space, Mapping, "The space", "what may be drawn by name, {name: Choice(...)}")
    random, drawn = np.random.default_rng((seed, number)), Candidate()
    for name, values in space.items():
        expect(values, (Choice, LogUniform, Given), f"space[{name!r}]", "a Choice, a LogUniform or a Given")
        drawn[name] = values.draw(random, drawn)
    return drawn


def grid(axes: Mapping[str, Sequence[Any]]) -> list[Candidate]:
    """Every combination, the last axis changing fastest. Raises ValueError for an axis without values."""
    expect(axes, Mapping, "The grid", "values by name, {name: [value, ...]}")
    for name, values in axes.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise ValueError(f"The axis {name!r} of a grid must be a list of values, got {shown(values)}.")
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


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
    keyed = {_key(candidate): candidate for candidate in (candidates := list(candidates))}
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
    expect(candidate, dict, "A candidate", "settings by name, {name: value}")
    return _line(candidate, sort_keys=True)


def _line(value: Any, sort_keys: bool = False) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, sort_keys=sort_keys) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"A search is of plain values, numbers, strings and lists, that JSON can hold: {error}.") from error


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
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, ValueError) as error:
        why = reason(error, path) if isinstance(error, OSError) else "it is no text"
        raise type(error)(f"{path} cannot be read ({why}): expected the file of a search.") if isinstance(
            error, OSError
        ) else ValueError(f"{path} cannot be read ({why}): expected the file of a search.") from error
    whole = text[: text.rfind("\n") + 1]
    lines = [_parsed(path, number, line) for number, line in enumerate(whole.splitlines(), start=1)]
    if not lines:
        if text and not text.startswith('{"search"'):
            raise ValueError(f"{path} is not the file of a search: choose another.")
        write_text_atomic(path, _line(first))
        return []
    _refuse_other(path, lines[0], first)
    trials = [_trial(path, number, line) for number, line in enumerate(lines[1:], start=2)]
    if whole != text:
        write_text_atomic(path, whole)
    return trials


def _parsed(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: not JSON ({error}): it is no file of a search.") from error


def _trial(path: Path, number: int, line: Any) -> Trial:
    try:
        trial = Trial(**line)
        if trial.status in ("failed", "diverged") or (trial.status == "done" and is_number(trial.score)):
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
    flat = {}
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


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's ρ: 1 if two scores of the same things order them alike, −1 if the other way round, 0 if as chance does.

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
