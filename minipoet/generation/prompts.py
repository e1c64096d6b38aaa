"""Prompts, until the first new token: checked, put into batches, read. The loop and the search share it.

    expect_request, check_request    what can be wrong with prompts of ids, and what comes with them
    batches         which prompts are continued together
    limits          how many tokens may follow each
    read            prompts -> logits after each, the cache of the batch, the ids that each has already
    forbidden_ids   what no text may hold

A decoder reads the prompt and goes on from it. An encoder–decoder (`model.reads_source`) reads it as its *source*, in
`new_cache`; what it writes begins with `model.start_id`, an empty text.
Chapter: docs/generation.md
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minipoet.adapters.rows import Rows, adapters_by_row, check_adapters, one_prefix
from minipoet.checks import as_ids, expect, expect_model, expect_whole, is_whole, shown
from minipoet.generation.sampling import seen_ids
from minipoet.generation.settings import SamplingSettings
from minipoet.models.base import LanguageModel


@dataclass(frozen=True)
class Continuation:
    """The new ids of one poem, and why there are no more.

    finish is "end" (the model ended the text; the end token is not among the ids), "stop" (on_token said so),
    "length" (max_new_tokens) or "context" (the model cannot read a longer text). score: what a beam search went by
    (beams.py), None of what was drawn.
    """

    ids: tuple[int, ...]
    finish: str
    score: float | None = None


def expect_request(model: LanguageModel, prompts: Sequence[Sequence[int]], settings: SamplingSettings) -> None:
    """Raise ValueError for what is no model, no list of prompts, no settings."""
    expect_model(model)
    expect(settings, SamplingSettings, "settings", "SamplingSettings(...)")
    if not isinstance(prompts, Sized) or isinstance(prompts, str):
        raise ValueError(f"The prompts must be a list of lists of ids, got {shown(prompts)}.")


def check_request(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    eos_ids: Collection[int],
    banned: Collection[int],
    vocab_size: int | None,
    batch_size: int,
    adapters: Sequence[str | None] | None,
    also: Sequence[str] = (),
) -> list[str | None] | None:
    """The adapter of each prompt, or None. Raises ValueError with all that is wrong at once, and with `also`."""
    wrong = list(also)
    if not is_whole(batch_size, 1):
        wrong.append(f"batch_size must be at least 1, got {shown(batch_size)}")
    special = {*as_ids(eos_ids, "eos_ids"), *as_ids(banned, "banned")}
    if strangers := sorted(id for id in special if not 0 <= id < model.config.vocab_size):
        wrong.append(f"eos_ids and banned have {strangers}, but the model has 0 to {model.config.vocab_size - 1}")
    if (names := as_adapters(adapters, len(prompts))) is not None:
        check_adapters(model, names)
    check_prompts(model, prompts, vocab_size, wrong)
    return names


def as_adapters(adapters: Sequence[str | None] | None, prompts: int) -> list[str | None] | None:
    """The adapter of each prompt. Raises ValueError for anything but a name, or None, for each of them."""
    if adapters is None:
        return None
    if isinstance(adapters, str) or not isinstance(adapters, Sequence) or len(adapters) != prompts:
        several = isinstance(adapters, Sequence) and not isinstance(adapters, str)
        came = f"{len(adapters)}" if several else shown(adapters)
        raise ValueError(f"adapters must name the adapter, or None, of each of the {prompts} prompts, got {came}.")
    return list(adapters)


def check_prompts(
    model: LanguageModel, prompts: Sequence[Sequence[int]], vocab_size: int | None = None, also: Sequence[str] = ()
) -> None:
    """Raise one ValueError for all prompts that the model cannot read, and for what is wrong besides."""
    wrong = list(also)
    vocab_size = model.config.vocab_size if vocab_size is None else vocab_size
    expect_whole(1, vocab_size=vocab_size)
    for i, prompt in enumerate(prompts):
        ids = as_ids(prompt, f"Prompt {i}")
        if not ids:
            wrong.append(f"prompt {i} is empty: give at least the token that begins a text")
        elif len(ids) > model.context and not model.reads_source:
            wrong.append(
                f"prompt {i} is {len(ids)} tokens long, but this model reads at most {model.context}: "
                f"shorten it by {len(ids) - model.context}"
            )
        if strangers := [id for id in ids if not 0 <= id < vocab_size]:
            wrong.append(f"prompt {i} has the id {strangers[0]}, but the vocabulary has 0 to {vocab_size - 1}")
    if wrong:
        raise ValueError(f"Cannot generate: {'; '.join(wrong)}.")


def batches(
    model: LanguageModel, number: int, size: int, adapters: Sequence[str | None] | None
) -> Iterator[Sequence[int]]:
    """Which prompts go together, `size` at most: in order, but for different prefixes, which cannot be one batch."""
    groups: dict[Hashable, list[int]] = {}
    for prompt in range(number):
        groups.setdefault(None if adapters is None else one_prefix(model, adapters[prompt]), []).append(prompt)
    for group in groups.values():
        yield from (group[first : first + size] for first in range(0, len(group), size))


def limits(model: LanguageModel, prompts: Sequence[Sequence[int]], settings: SamplingSettings) -> list[int]:
    """How many tokens may follow each prompt.

    The model reads at most `context` of them, the prompt's or the start's among them; the last new one is not read.
    """
    read = [1 if model.reads_source else len(ids) for ids in prompts]
    return [min(settings.max_new_tokens, model.context - length + 1) for length in read]


def read(
    model: LanguageModel, prompts: Sequence[Sequence[int]], adapters: Sequence[str | None] | None, want_seen: bool
) -> tuple[Tensor, Any, Tensor | None]:
    """Logits (B, V) after each prompt, the cache of the B rows, and which ids each text has, (B, V) bool, if wanted.

    Prompts of different length are filled up on the left, so that all end at the same place. Equal ones are read once.
    """
    device = next(model.parameters()).device
    rows_of = list(zip(adapters or [None] * len(prompts), map(tuple, prompts), strict=True))
    different = {key: row for row, key in enumerate(dict.fromkeys(rows_of))}
    width = max(len(ids) for _, ids in different)
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for _, row in different], device=device)  # (U, T)
    segments = None
    if any(len(row) < width for _, row in different):
        lengths = torch.tensor([len(row) for _, row in different], device=device)
        segments = (torch.arange(width, device=device) >= width - lengths[:, None]).long()
    with written_by(model, None if adapters is None else [name for name, _ in different]):
        if model.reads_source:
            writer: Any = model  # the contract's encoder–decoders (models/encoder_decoder.py)
            cache = writer.new_cache(ids, segments)
            ids, segments = ids.new_full((len(ids), 1), writer.start_id), None
        else:
            cache = model.new_cache(len(ids))
        logits = model.head(model.states(ids, cache, segments)[:, -1:])[:, -1]
    seen = seen_ids(ids, segments, logits.shape[-1]) if want_seen else None
    if len(different) < len(prompts):
        rows = torch.tensor([different[key] for key in rows_of], device=device)
        cache.reorder(rows)
        logits, seen = logits[rows], None if seen is None else seen[rows]
    return logits, cache, seen


def forbidden_ids(logits: Tensor, never: Collection[int], vocab_size: int | None) -> Tensor:
    """(V,) bool: the ids that are never taken, and the rows of the vocabulary that no token has."""
    forbidden = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
    forbidden[torch.tensor(sorted(never), dtype=torch.long, device=logits.device)] = True
    if vocab_size is not None:
        forbidden[vocab_size:] = True
    return forbidden


def no_numbers(poem: int, length: int) -> ArithmeticError:
    """The error for logits from which no token can be taken, at a poem's new token number `length`."""
    return ArithmeticError(
        f"The logits of poem {poem} are not finite numbers at its new token {length}: the weights are broken, "
        "every token is forbidden, or the numbers outgrew half precision (try fp32 or bf16)."
    )


@contextmanager
def written_by(model: LanguageModel, adapters: Sequence[str | None] | None) -> Iterator[Rows | None]:
    """Within it each row is written by its adapter; None: the active one writes all."""
    if adapters is None:
        yield None
    else:
        with adapters_by_row(model, adapters) as rows:
            yield rows


@contextmanager
def evaluating(model: LanguageModel) -> Iterator[None]:
    """Without dropout; afterwards each module is as it was."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
