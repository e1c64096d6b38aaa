"""What a search may draw: a setting by name, and how its values are drawn.

    Choice       one of some values          draw    candidate i of a seed
    LogUniform   a number, any factor alike  grid    all combinations
    Given        it depends on another setting

With n candidates drawn at random every setting is tried at n values, in a grid of n only at the few that it was given.
Where one setting matters more than the others (it does), random wins.

Paper: Bergstra & Bengio 2012, "Random Search for Hyper-Parameter Optimization"
Chapter: docs/search.md
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from minipoet.checks import SEEDS, expect, is_number, is_whole, shown

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
