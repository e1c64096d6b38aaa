"""All that a poem depends on besides the model and the prompt, in one frozen record.

Chapter: docs/generation.md
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minipoet.checks import SEEDS, is_number, is_whole

COLDEST = 1e-6  # logits divided by less may become infinite in fp32
STEEPEST = 10  # length ** this is still a number


@dataclass(frozen=True)
class SamplingSettings:
    """How to go on from a prompt. Raises ValueError, with all that is wrong at once, for values that make no sense.

    The filters act in the order repetition_penalty, temperature, top_k, top_p, min_p; `sampling.py` has the formulae.
    """

    max_new_tokens: int = 80
    temperature: float = 0.8  # below 1 the likely becomes likelier; 0 takes the likeliest token each time (greedy)
    top_p: float = 0.9  # the likeliest tokens that together have this probability; 1 is off
    top_k: int = 0  # the k likeliest tokens; 0 is off
    min_p: float = 0.0  # tokens with at least this share of the likeliest one's probability; 0 is off
    repetition_penalty: float = 1.0  # above 1 what the prompt or the poem has already becomes less likely; 1 is off
    stop: str | Sequence[str] = ()  # strings at which the poem ends; they are cut off
    until_end: bool = True  # False: the end of the text is never drawn, so there are max_new_tokens always
    seed: int = 0
    beams: int = 1  # how many texts a beam search keeps; 1 is no search. A search draws nothing: temperature is 0
    length_penalty: float = 1.0  # a search compares Σ log p / length**this: 0 is for short texts, 2 for long ones
    early_stopping: bool = False  # True: a search is over when `beams` texts have ended, better ones in sight or not

    def __post_init__(self) -> None:
        stop = (self.stop,) if isinstance(self.stop, str) else self.stop
        rules = [
            ("max_new_tokens", is_whole(self.max_new_tokens, 1), "a whole number, 1 or more"),
            (
                "temperature",
                is_number(self.temperature) and (self.temperature == 0 or self.temperature >= COLDEST),
                f"0 (greedy) or a number from {COLDEST:g} up",
            ),
            ("top_p", is_number(self.top_p) and 0 < self.top_p <= 1, "above 0 and at most 1 (1 is off)"),
            ("top_k", is_whole(self.top_k), "a whole number, 0 (off) or more"),
            ("min_p", is_number(self.min_p) and 0 <= self.min_p <= 1, "from 0 (off) to 1"),
            (
                "repetition_penalty",
                is_number(self.repetition_penalty) and self.repetition_penalty > 0,
                "a number above 0 (1 is off)",
            ),
            ("stop", _strings(stop), "a string or a list of strings, none of them empty"),
            ("seed", is_whole(self.seed, 0, SEEDS), "a whole number from 0 to 2**64 - 1"),
            ("beams", is_whole(self.beams, 1), "a whole number, 1 (no search) or more"),
            (
                "length_penalty",
                is_number(self.length_penalty) and abs(self.length_penalty) <= STEEPEST,
                f"a number from -{STEEPEST} to {STEEPEST}",
            ),
            ("early_stopping", isinstance(self.early_stopping, bool), "True or False"),
        ]
        wrong = [f"{name} must be {rule}, got {getattr(self, name)!r}" for name, right, rule in rules if not right]
        wrong = wrong or self._contradictions()
        if wrong:
            raise ValueError(f"Sampling settings: {'; '.join(wrong)}.")
        object.__setattr__(self, "stop", tuple(stop))

    def _contradictions(self) -> list[str]:
        """What makes sense by itself, but not together: nothing that was asked for is passed over in silence."""
        if self.beams == 1:
            idle = [("length_penalty", self.length_penalty != 1), ("early_stopping", self.early_stopping)]
            return [f"{name} is for a beam search: give beams=4, say, with it" for name, told in idle if told]
        wrong = []
        if not self.greedy:
            wrong.append(f"beams={self.beams} means a search, which draws nothing: give temperature=0 with it")
        if self.stop:
            wrong.append("stop strings end one text as it grows, and a beam search has several: leave them out")
        return wrong

    @property
    def greedy(self) -> bool:
        """Is nothing drawn? Then the seed and the filters but for the penalty do not matter."""
        return self.temperature == 0


def _strings(values: Any) -> bool:
    return isinstance(values, Sequence) and all(isinstance(value, str) and value for value in values)
