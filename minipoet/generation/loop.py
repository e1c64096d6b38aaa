"""The loop that goes on from prompts, token by token. It knows ids and the model contract; it knows no text.

    prompts -> read once into the cache -> logits of the last token -> filter -> draw -> a token -> read it -> …

    generate_ids    prompts -> the new ids of each, and why it ended
    generate_steps  the same for one batch as an iterator over steps, for streaming

A poem that has ended leaves the batch, so that nothing is computed for it. Equal prompts are read once (prompts.py).
Chapter: docs/generation.md
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

import torch

from minipoet.checks import as_ids, shown
from minipoet.generation.beams import search_beams
from minipoet.generation.noise import poem_seed, step_keys
from minipoet.generation.prompts import (
    Continuation,
    batches,
    check_request,
    evaluating,
    expect_request,
    forbidden_ids,
    limits,
    no_numbers,
    read,
    written_by,
)
from minipoet.generation.sampling import NEVER, draw, filter_logits
from minipoet.generation.settings import SamplingSettings
from minipoet.models.base import LanguageModel

OnToken = Callable[[int, int], bool | None]  # (number of the poem, its new id) -> True: the poem ends here ("stop")


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
    With settings.beams the best text of each prompt (`search_beams`, which finds the next best too).
    Raises ValueError, with all that is wrong at once, for a prompt that is empty, longer than the model's context or
    has ids the model has not, and ArithmeticError if the model's logits are not numbers.
    """
    expect_request(model, prompts, settings)
    seeds = [poem_seed(settings.seed, i) for i in range(len(prompts))] if seeds is None else as_ids(seeds, "The seeds")
    wrong = []
    if len(seeds) != len(prompts):
        wrong.append(f"there are {len(prompts)} prompts and {len(seeds)} seeds")
    if settings.stop and on_token is None:
        wrong.append("stop strings are text, and here are only ids: look for them in on_token, or use generate_many")
    if on_token is not None and not callable(on_token):
        wrong.append(f"on_token must be a function of (poem, id), got {shown(on_token)}")
    elif on_token is not None and settings.beams > 1:
        wrong.append("on_token sees a poem grow, and a search with beams knows its text only at the end: leave it out")
    adapters = check_request(model, prompts, eos_ids, banned, vocab_size, batch_size, adapters, wrong)
    if settings.beams > 1:
        found = search_beams(
            model,
            prompts,
            settings,
            eos_ids=eos_ids,
            banned=banned,
            vocab_size=vocab_size,
            batch_size=batch_size,
            adapters=adapters,
        )
        return [texts[0] for texts in found]
    ids: list[list[int]] = [[] for _ in prompts]
    finish = [""] * len(prompts)
    for batch in batches(model, len(prompts), batch_size, adapters):

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
    assert settings.beams == 1, "a search has no steps to show"
    never = {*banned, *(() if settings.until_end else eos_ids)}
    with evaluating(model), written_by(model, adapters) as writers:
        most = limits(model, prompts, settings)
        logits, cache, seen = read(model, prompts, adapters, settings.repetition_penalty != 1)
        keys = None if settings.greedy else step_keys(seeds, max(most), logits.device)
        forbidden = forbidden_ids(logits, never, vocab_size)
        poems = list(range(len(prompts)))  # which poem does each row of the batch hold?
        for step in range(max(most)):
            logits = filter_logits(logits.float().masked_fill(forbidden, NEVER), settings, seen)
            new = draw(logits, None if keys is None else keys[:, step])  # (B,)
            tokens = [
                Token(poem, id, _finish(poem, id, step + 1, most[poem], settings, eos_ids, on_token))
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
        raise no_numbers(poem, length)
    if id in eos_ids:
        return "end"
    if on_token is not None and on_token(poem, id):
        return "stop"
    if length == limit:
        return "length" if length == settings.max_new_tokens else "context"
    return None
