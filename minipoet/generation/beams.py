"""Beam search: of all texts the likeliest, or nearly so. Greedy takes the likeliest token each time, and may miss it.

    prompts -> Σ log p of each text and each next token -> the best of all beams -> read these tokens -> …

    search_beams        prompts -> the best texts of each, best first, with their scores
    best_continuations  the step: the largest sums, over all beams of a prompt and the whole vocabulary
    Beams               one prompt: the texts that go on, the beams, and the best of those that have ended

A text's score is Σ log p / lengthᵅ: length counts its new tokens, the end among them, and α is `length_penalty`. What
is searched, what is kept and when it is over is as in transformers, scores included. A prompt whose search is over
leaves the batch; equal prompts are searched once.

Paper: Wu et al. 2016, https://arxiv.org/abs/1609.08144 (section 7: why the length must be weighed)
Chapter: docs/generation.md
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterable, Sequence

import torch
from torch import Tensor

from minipoet.checks import is_whole, shown
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
from minipoet.generation.sampling import NEVER, penalise_repetition
from minipoet.generation.settings import SamplingSettings
from minipoet.models.base import LanguageModel


class Beams:
    """The search for one prompt (its number is for messages): at most `width` texts go on, and as many have ended.

    texts: the new ids of each beam; sums: its Σ log p; parents: the beam that it goes on from.
    """

    def __init__(self, number: int, limit: int, settings: SamplingSettings, eos_ids: Collection[int]):
        self.number, self.limit, self.settings, self.eos_ids = number, limit, settings, eos_ids
        self.width, self.length = settings.beams, 0
        self.texts: list[tuple[int, ...]] = [()]
        self.sums, self.parents = [0.0], [0]
        self.ended: list[tuple[float, tuple[int, ...], str]] = []  # score, new ids, why it ended; best first

    def step(self, candidates: Iterable[tuple[float, int, int]]) -> None:
        """Choose among the best continuations, best first: (Σ log p, the beam that it goes on from, the new id)."""
        before, self.length = self.texts, self.length + 1
        self.texts, self.sums, self.parents = [], [], []
        for place, (total, beam, id) in enumerate(candidates):
            if place == 0 and not math.isfinite(total):
                raise no_numbers(self.number, self.length)
            if total == NEVER:
                break  # the rest is forbidden
            if id in self.eos_ids or self.length == self.limit:
                if place < self.width:  # behind `width` texts that are better an end is not worth keeping
                    self._end(before[beam], id, self._score(total))
            elif len(self.texts) < self.width:
                self.texts.append((*before[beam], id))
                self.sums.append(total)
                self.parents.append(beam)
        if self.texts:  # they are fewer only at the start, with a tiny vocabulary: the other beams are dead
            missing = self.width - len(self.texts)
            self.texts += self.texts[:1] * missing
            self.parents += self.parents[:1] * missing
            self.sums += [NEVER] * missing

    @property
    def over(self) -> bool:
        """Is nothing better to be expected? What goes on is judged by its score of now, as if it could only fall."""
        if not self.texts:
            return True
        if len(self.ended) < self.width:
            return False
        return self.settings.early_stopping or self._score(self.sums[0]) <= self.ended[-1][0]

    def found(self) -> list[Continuation]:
        """The texts that ended, best first."""
        return [Continuation(ids, finish, score) for score, ids, finish in self.ended]

    def _end(self, ids: tuple[int, ...], id: int, score: float) -> None:
        finish = "end"
        if id not in self.eos_ids:
            ids, finish = (*ids, id), "length" if self.limit == self.settings.max_new_tokens else "context"
        self.ended.append((score, ids, finish))
        self.ended.sort(key=lambda text: -text[0])
        del self.ended[self.width :]

    def _score(self, total: float) -> float:
        return total / self.length**self.settings.length_penalty


def search_beams(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    settings: SamplingSettings,
    *,
    best: int = 1,
    eos_ids: Collection[int] = (),
    banned: Collection[int] = (),
    vocab_size: int | None = None,
    batch_size: int = 32,
    adapters: Sequence[str | None] | None = None,
) -> list[list[Continuation]]:
    """The `best` texts that settings.beams beams find for each prompt, best first, a list a prompt, always.

    They are fewer only where there are no more texts. A beam is a row of the batch, so batch_size // beams prompts are
    searched together, one at least. Other arguments and errors as for `generate_ids`.
    """
    expect_request(model, prompts, settings)
    wrong = []
    if settings.beams == 1:
        wrong.append("a search needs beams=2 or more, got 1")
    elif not is_whole(best, 1, settings.beams + 1):
        wrong.append(f"{settings.beams} beams find {settings.beams} texts, got best={shown(best)}: ask for 1 or more")
    adapters = check_request(model, prompts, eos_ids, banned, vocab_size, batch_size, adapters, wrong)
    keys = list(zip(adapters or [None] * len(prompts), map(tuple, prompts), strict=True))
    first: dict[Hashable, int] = {}  # equal prompts -> the number of the first of them
    for number, key in enumerate(keys):
        first.setdefault(key, number)
    different = list(first.values())
    writers = None if adapters is None else [adapters[number] for number in different]
    never = {*banned, *(() if settings.until_end else eos_ids)}
    most = limits(model, prompts, settings)
    found: dict[int, list[Continuation]] = {}
    for batch in batches(model, len(different), max(1, batch_size // settings.beams), writers):
        numbers = [different[place] for place in batch]
        searches = [Beams(number, most[number], settings, eos_ids) for number in numbers]
        names = None if adapters is None else [adapters[number] for number in numbers]
        _search(model, [prompts[number] for number in numbers], searches, settings, never, vocab_size, names)
        found |= {search.number: search.found() for search in searches}
    return [found[first[key]][:best] for key in keys]


@torch.inference_mode()
def _search(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    searches: Sequence[Beams],
    settings: SamplingSettings,
    never: Collection[int],
    vocab_size: int | None,
    adapters: Sequence[str | None] | None,
) -> None:
    """Go through with the searches for these prompts, which are one batch."""
    with evaluating(model), written_by(model, adapters) as writers:
        logits, cache, seen = read(model, prompts, adapters, settings.repetition_penalty != 1)
        forbidden = forbidden_ids(logits, never, vocab_size)
        # Each beam can end in as many ways as there are end tokens: of so many candidates `beams` are sure to go on.
        enough = settings.beams * (1 + max(1, len({*searches[0].eos_ids})))
        while searches:
            log_p = logits.float().log_softmax(-1)  # (B, V): a row a beam; each search begins with one
            if seen is not None:
                log_p = penalise_repetition(log_p, seen, settings.repetition_penalty)
            sums = torch.tensor([search.sums for search in searches], device=log_p.device)
            found = best_continuations(log_p.masked_fill_(forbidden, NEVER), sums, enough)
            for search, candidates in zip(searches, found, strict=True):
                search.step(candidates)
            W = sums.shape[1]
            rows = [n * W + beam for n, search in enumerate(searches) if not search.over for beam in search.parents]
            searches = [search for search in searches if not search.over]
            if searches:
                new = torch.tensor([[ids[-1]] for search in searches for ids in search.texts], device=log_p.device)
                if rows != list(range(len(log_p))):
                    moved = torch.tensor(rows, device=log_p.device)
                    cache.reorder(moved)
                    seen = None if seen is None else seen[moved]
                    if writers is not None:
                        writers.keep(rows)
                if seen is not None:
                    seen.scatter_(1, new, True)
                logits = model.head(model.states(new, cache))[:, -1]


def best_continuations(log_p: Tensor, sums: Tensor, number: int) -> list[list[tuple[float, int, int]]]:
    """The best (Σ log p, beam, id) of each search, best first: (N·W, V) log p of what follows the (N, W) sums."""
    (N, W), V = sums.shape, log_p.shape[1]
    totals = (log_p.view(N, W, V) + sums[:, :, None]).flatten(1)  # (N, W·V)
    best, places = totals.topk(min(number, W * V))
    rows = zip(best.tolist(), (places // V).tolist(), (places % V).tolist(), strict=True)
    return [list(zip(*row, strict=True)) for row in rows]
