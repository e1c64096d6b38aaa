"""What a careless caller is told: each door of the package asks once whether it was given what it expects.

    expect, expect_whole     a value of some type           as_path     a path
    each                     values of one type             as_ids      a list of token ids
    expect_model, expect_tokenizer                          as_device   a device that is there
    known_names              settings that there are        as_dtype    a type of real numbers
    is_whole, is_number, shown    for messages of one's own

All raise ValueError with one sentence: what was expected, what came, what to do. What is inside does not ask again.
Chapter: docs/contributing.md
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from numbers import Integral, Real
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
SEEDS = 2**64  # what PyTorch's generator takes, and ours


def shown(value: Any) -> str:
    """A value in a word or two: a number or a short string as it is written, anything else by its type."""
    if value is None or isinstance(value, str | int | float):
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    return type(value).__name__


def expect(value: Any, kind: type | tuple[type, ...], what: str, wanted: str, advice: str = "") -> None:
    """Raise ValueError, "{what} must be {wanted}, got …: {advice}.", for a value of another type."""
    if not isinstance(value, kind):
        raise ValueError(f"{what} must be {wanted}, got {shown(value)}{advice and ': ' + advice}.")


def is_whole(value: Any, least: int = 0, below: float = math.inf) -> bool:
    """Is it a whole number in [least, below)? True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) < below


def is_number(value: Any) -> bool:
    """Is it a finite real number? True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def expect_whole(least: int = 1, **values: Any) -> None:
    """Raise ValueError that names all of the values that are no whole number of at least so much."""
    wrong = [f"{name}={shown(value)}" for name, value in values.items() if not is_whole(value, least)]
    if wrong:
        raise ValueError(f"Expected whole numbers of at least {least}, got {', '.join(wrong)}.")


def each(values: Iterable[T], kind: type[T], what: str, wanted: str) -> Iterator[T]:
    """The values, one by one. Raises ValueError for one string, what is no list, and a value of another type."""
    if isinstance(values, str):
        raise ValueError(f"{what} must be a list of {wanted}, got one string: put it into a list.")
    if not isinstance(values, Iterable):
        raise ValueError(f"{what} must be a list of {wanted}, got {shown(values)}.")
    for number, value in enumerate(values):
        if not isinstance(value, kind):
            raise ValueError(f"{what} must be a list of {wanted}, but number {number} of it is {shown(value)}.")
        yield value


def as_ids(ids: Iterable[int], what: str = "The ids") -> list[int]:
    """Token ids, of a list, an array or a tensor, as Python's numbers. Raises ValueError for anything else."""
    try:
        return list(map(index, ids))
    except TypeError:
        raise ValueError(f"{what} must be a list of whole numbers, as encode gives them, got {shown(ids)}.") from None


def as_path(value: str | os.PathLike[str], what: str) -> Path:
    """A path. Raises ValueError for what is none, and for an empty string."""
    if not isinstance(value, str | os.PathLike) or not str(value):
        raise ValueError(f"{what} must be a path (a string or a pathlib.Path), got {shown(value)}.")
    return Path(value)


def as_device(device: str | int | torch.device) -> torch.device:
    """The device of that name, tried. Raises ValueError for one that is not there."""
    import torch  # here, as the rooms of texts and tokens need none of it

    try:
        torch.empty(1, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = (str(error).splitlines() or [""])[0].rstrip(".")
        name = device if isinstance(device, torch.device) else shown(device)
        raise ValueError(f"The device {name} cannot be used here ({reason}): 'cpu' always can.") from error


def as_dtype(dtype: torch.dtype | None) -> torch.dtype | None:
    """A type of a model's weights, or None. Raises ValueError for a name instead of a type, and for whole numbers."""
    import torch

    known = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    if dtype is not None and dtype not in known:
        came = dtype if isinstance(dtype, torch.dtype) else shown(dtype)
        raise ValueError(f"dtype must be None (the file's own) or one of {', '.join(map(str, known))}, got {came}.")
    return dtype


def expect_model(model: Any) -> None:
    """Raise ValueError unless it can do what a language model does (`models.base.LanguageModel`)."""
    if not (hasattr(model, "states") and hasattr(model, "head")):
        advice = "model, tokenizer = minipoet.load(name) gives two"
        raise ValueError(f"The model must be a language model, got {shown(model)}: {advice}.")


def expect_tokenizer(tokenizer: Any) -> None:
    """Raise ValueError unless it can do what a tokenizer does (`tokenization.Tokenizer`)."""
    if not (hasattr(tokenizer, "encode_batch") and hasattr(tokenizer, "special_ids")):
        advice = "model, tokenizer = minipoet.load(name) gives both, in this order"
        raise ValueError(f"The tokenizer must be one of minipoet's, got {shown(tokenizer)}: {advice}.")


def known_names(given: Iterable[str], known: Sequence[str], what: str) -> None:
    """Raise ValueError that lists the names that are unknown, each with the nearest known one, and those that are."""
    unknown = []
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            unknown.append(f"{name!r} (did you mean {near[0]!r}?)" if near else repr(name))
    if unknown:
        raise ValueError(f"{what} has no {', '.join(unknown)}; it has {', '.join(known)}.")
