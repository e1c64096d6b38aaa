"""The loop that goes on from prompts, token by token. It knows ids and the model contract; it knows no text.

    prompts -> read once into the cache -> logits of the last token -> filter -> draw -> a token -> read it -> …

    generate_ids    prompts -> the new ids of each, and why it ended
    generate_steps  the same for one batch as an iterator over steps, for streaming

A poem that has ended leaves the batch, so that nothing is computed for it. Equal prompts are read once.
Chapter: docs/generation.md
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from minipoet.adapters.rows import Rows, adapters_by_row, check_adapters, one_prefix
from minipoet.checks import as_ids, expect, expect_model, expect_whole, is_whole, shown
from minipoet.generation.noise import poem_seed, step_keys
from minipoet.generation.sampling import NEVER, draw, filter_logits, seen_ids
from minipoet.generation.settings import SamplingSettings
from minipoet.models.base import LanguageModel

OnToken = Callable[[int, int], bool | None]  # (number of the poem, its new id) -> True: the poem ends here ("stop")


@dataclass(frozen=True)
class Continuation:
    """The new ids of one poem, and why there are no more.

    finish is "end" (the model ended the text; the end token is not among the ids), "stop" (on_token said so),
    "length" (max_new_tokens) or "context" (the model cannot read a longer text).
    """

    ids: tuple[int, ...]
    finish: str


class Token(NamedTuple):
    """A new id of a poem (its place among the prompts), and why it is the last one, or None."""

    poem: int
    id: int
    finish: str | None


def generate_ids(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    settings: SamplingSettings,
    *,
    eos_ids: Collection[int] = (),
    banned: Collection[int] = (),
    vocab_size: int | None = None,
    seeds: Sequence[int] | None = None,
    batch_size: int = 32,
    on_token: OnToken | None = None,
    adapters: Sequence[str | None] | None = None,
) -> list[Continuation]:
    """Go on from each prompt, a list of ids. For several poems of one prompt name it several times.

    eos_ids end a poem, `banned` ids are never drawn, nor are ids from vocab_size up (spare rows of the model).
    seeds: one a poem; else `poem_seed(settings.seed, i)`. A poem depends on its prompt, its seed and the settings only.
    on_token(poem, id) is called for each new id but the end; if it returns True, the poem ends with this id.
    adapters: the name of each poem's adapter, None for the plain base; else the active one writes all of them. Poems of
    several adapters are written together (adapters/rows.py), but for those with a prefix.
    Raises ValueError, with all that is wrong at once, for a prompt that is empty, longer than the model's context or
    has ids the model has not, and ArithmeticError if the model's logits are not numbers.
    """
    expect_model(model)
    expect(settings, SamplingSettings, "settings", "SamplingSettings(...)")
    if not isinstance(prompts, Sized) or isinstance(prompts, str):
        raise ValueError(f"The prompts must be a list of lists of ids, got {shown(prompts)}.")
    seeds = [poem_seed(settings.seed, i) for i in range(len(prompts))] if seeds is None else as_ids(seeds, "The seeds")
    wrong = []
    if len(seeds) != len(prompts):
        wrong.append(f"there are {len(prompts)} prompts and {len(seeds)} seeds")
    if not is_whole(batch_size, 1):
        wrong.append(f"batch_size must be at least 1, got {shown(batch_size)}")
    special = {*as_ids(eos_ids, "eos_ids"), *as_ids(banned, "banned")}
    if strangers := sorted(id for id in special if not 0 <= id < model.config.vocab_size):
        wrong.append(f"eos_ids and banned have {strangers}, but the model has 0 to {model.config.vocab_size - 1}")
    if settings.stop and on_token is None:
        wrong.append("stop strings are text, and here are only ids: look for them in on_token, or use generate_many")
    if on_token is not None and not callable(on_token):
        wrong.append(f"on_token must be a function of (poem, id), got {shown(on_token)}")
    if (adapters := as_adapters(adapters, len(prompts))) is not None:
        check_adapters(model, adapters)
    check_prompts(model, prompts, vocab_size, wrong)
    ids: list[list[int]] = [[] for _ in prompts]
    finish = [""] * len(prompts)
    for batch in _batches(model, len(prompts), batch_size, adapters):

        def told(poem: int, id: int, batch: Sequence[int] = batch) -> bool | None:
            return on_token(batch[poem], id) if on_token is not None else None

        steps = generate_steps(
            model,
            [prompts[poem] for poem in batch],
            [seeds[poem] for poem in batch],
            settings,
            eos_ids,
            banned,
            vocab_size,
            told,
            None if adapters is None else [adapters[poem] for poem in batch],
        )
        for tokens in steps:
            for token in tokens:
                if token.finish is not None:
                    finish[batch[token.poem]] = token.finish
                if token.finish != "end":
                    ids[batch[token.poem]].append(token.id)
    return [Continuation(tuple(new), why) for new, why in zip(ids, finish, strict=True)]


@torch.inference_mode()
def generate_steps(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    settings: SamplingSettings,
    eos_ids: Collection[int] = (),
    banned: Collection[int] = (),
    vocab_size: int | None = None,
    on_token: OnToken | None = None,
    adapters: Sequence[str | None] | None = None,
) -> Iterator[list[Token]]:
    """One batch, step by step: yields the new tokens of the poems that go on. Arguments as for `generate_ids`."""
    never = sorted({*banned, *(() if settings.until_end else eos_ids)})
    with _evaluating(model), _written_by(model, adapters) as writers:
        # The model reads at most `context` tokens; the last new one is drawn, but not read.
        limits = [min(settings.max_new_tokens, model.context - len(ids) + 1) for ids in prompts]
        logits, cache, seen = _read(model, prompts, adapters, settings.repetition_penalty != 1)
        keys = None if settings.greedy else step_keys(seeds, max(limits), logits.device)
        forbidden = _forbidden(logits, never, vocab_size)
        poems = list(range(len(prompts)))  # which poem does each row of the batch hold?
        for step in range(max(limits)):
            logits = filter_logits(logits.float().masked_fill(forbidden, NEVER), settings, seen)
            new = draw(logits, None if keys is None else keys[:, step])  # (B,)
            tokens = [
                Token(poem, id, _finish(poem, id, step + 1, limits[poem], settings, eos_ids, on_token))
                for poem, id in zip(poems, new.tolist(), strict=True)
            ]
            yield tokens
            going = [row for row, token in enumerate(tokens) if token.finish is None]
            if not going:
                return
            if len(going) < len(poems):
                rows = torch.tensor(going, device=new.device)
                cache.reorder(rows)
                if writers is not None:
                    writers.keep(going)
                poems = [poems[row] for row in going]
                new = new[rows]
                keys, seen = (None if t is None else t[rows] for t in (keys, seen))
            if seen is not None:
                seen.scatter_(1, new[:, None], True)
            logits = model.head(model.states(new[:, None], cache))[:, -1]


def _batches(
    model: LanguageModel, poems: int, batch_size: int, adapters: Sequence[str | None] | None
) -> Iterator[Sequence[int]]:
    """Which poems are written together: in order, but for rows with different prefixes, which cannot be one batch."""
    groups: dict[Hashable, list[int]] = {}
    for poem in range(poems):
        groups.setdefault(None if adapters is None else one_prefix(model, adapters[poem]), []).append(poem)
    for group in groups.values():
        yield from (group[first : first + batch_size] for first in range(0, len(group), batch_size))


def _read(
    model: LanguageModel, prompts: Sequence[Sequence[int]], adapters: Sequence[str | None] | None, want_seen: bool
) -> tuple[Tensor, Any, Tensor | None]:
    """Logits (B, V) after each prompt, the cache of the B rows, and which ids each prompt has, (B, V) bool, if wanted.

    Prompts of different length are filled up on the left, so that all end at the same place.
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
    with _written_by(model, None if adapters is None else [name for name, _ in different]):
        cache = model.new_cache(len(ids))
        logits = model.head(model.states(ids, cache, segments)[:, -1:])[:, -1]
    seen = seen_ids(ids, segments, logits.shape[-1]) if want_seen else None
    if len(different) < len(prompts):
        rows = torch.tensor([different[key] for key in rows_of], device=device)
        cache.reorder(rows)
        logits, seen = logits[rows], None if seen is None else seen[rows]
    return logits, cache, seen


@contextmanager
def _written_by(model: LanguageModel, adapters: Sequence[str | None] | None) -> Iterator[Rows | None]:
    """Within it each row is written by its adapter; None: the active one writes all."""
    if adapters is None:
        yield None
    else:
        with adapters_by_row(model, adapters) as rows:
            yield rows


def _forbidden(logits: Tensor, never: Sequence[int], vocab_size: int | None) -> Tensor:
    """(V,) bool: the ids that are never drawn, and the rows of the vocabulary that no token has."""
    forbidden = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
    forbidden[torch.tensor(never, dtype=torch.long, device=logits.device)] = True
    if vocab_size is not None:
        forbidden[vocab_size:] = True
    return forbidden


def _finish(
    poem: int,
    id: int,
    length: int,
    limit: int,
    settings: SamplingSettings,
    eos_ids: Collection[int],
    on_token: OnToken | None,
) -> str | None:
    """Why is this, the poem's new token number `length`, its last one? None if it is not."""
    if id < 0:
        raise ArithmeticError(
            f"The logits of poem {poem} are not finite numbers at its new token {length}: the weights are broken, "
            "every token is forbidden, or the numbers outgrew half precision (try fp32 or bf16)."
        )
    if id in eos_ids:
        return "end"
    if on_token is not None and on_token(poem, id):
        return "stop"
    if length == limit:
        return "length" if length == settings.max_new_tokens else "context"
    return None


@contextmanager
def _evaluating(model: LanguageModel) -> Iterator[None]:
    """Without dropout; afterwards each module is as it was."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


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
        elif len(ids) > model.context:
            wrong.append(
                f"prompt {i} is {len(ids)} tokens long, but this model reads at most {model.context}: "
                f"shorten it by {len(ids) - model.context}"
            )
        if strangers := [id for id in ids if not 0 <= id < vocab_size]:
            wrong.append(f"prompt {i} has the id {strangers[0]}, but the vocabulary has 0 to {vocab_size - 1}")
    if wrong:
        raise ValueError(f"Cannot generate: {'; '.join(wrong)}.")
