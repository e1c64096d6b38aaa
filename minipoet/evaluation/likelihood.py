"""How surprised is the model? Loss, perplexity and bits per character of texts that it has not learnt from.

    likelihood         of all texts together
    texts_likelihood   of each text: what intervals and comparisons are made of

Perplexity is per token, so it compares models of one tokenizer only; bits per character are fair across tokenizers.

Chapter: docs/training.md
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from minipoet.checks import expect_model, expect_whole, is_whole, shown
from minipoet.training.batch import IGNORED, filled
from minipoet.training.loss import batch_loss, chunk_for
from minipoet.training.packing import Batches, cut
from minipoet.training.precision import autocast


@dataclass(frozen=True)
class Likelihood:
    """nll: Σ −ln p in nats over `tokens` predicted tokens, which spell `characters` (line breaks counted)."""

    nll: float
    tokens: int
    characters: int

    @property
    def loss(self) -> float:
        """Nats a token."""
        return self.nll / self.tokens

    @property
    def perplexity(self) -> float:
        """exp of the loss: as uncertain as a fair choice between so many tokens."""
        return math.exp(min(self.loss, 700.0))

    @property
    def bits_per_character(self) -> float:
        """Bits to spell a character, the end of each text included."""
        return self.nll / (math.log(2) * self.characters)


@torch.no_grad()
def likelihood(
    model: nn.Module,
    texts: Iterable[Sequence[int]],
    characters: int,
    context: int,
    rows: int = 16,
    breaks: Iterable[int] = (),
    precision: str = "fp32",
    prompts: Sequence[int] | None = None,
    sources: Iterable[Sequence[int]] | None = None,
) -> Likelihood:
    """Measure the model on token ids of texts (each with its start and end tokens) of so many characters in all.

    Texts longer than `context` are cut at `breaks`, and each piece is read without the one before it. In fp32, unless
    asked otherwise, the figure does not depend on the machine. The model is put in evaluation mode for the time.
    prompts: how many tokens each text begins with that are read and not measured; such texts must fit the context, and
    the characters are those of the rest.
    sources: the ids of what each text is written about, for a model that reads a source. They are not measured; each
    must fit the context, and so must its text, which begins with the model's `start_id`.
    Raises ValueError for no texts to measure on, or no characters, and texts that are not for this model.
    """
    expect_model(model)
    if not is_whole(characters, 1):
        raise ValueError(f"The texts to measure on must have one character or more in all, got {shown(characters)}.")
    batches = Batches(texts, context, rows, breaks=breaks, prompts=prompts, sources=sources)
    batches.check(model)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    nll, tokens = 0.0, 0
    try:
        for batch in batches.once():
            with autocast(device, precision):
                nll += float(batch_loss(model, batch))
            tokens += batch.tokens()
    finally:
        model.train(was_training)
    return Likelihood(nll, tokens, characters)


@torch.no_grad()
def texts_likelihood(
    model: nn.Module,
    texts: Iterable[Sequence[int]],
    characters: Sequence[int],
    context: int,
    rows: int = 16,
    breaks: Iterable[int] = (),
    precision: str = "fp32",
    sources: Iterable[Sequence[int]] | None = None,
) -> list[Likelihood]:
    """Measure the model on each text, which spells so many characters. Together they are what `likelihood` gives.

    Texts of about one length are read together, `rows` at a time. Arguments and errors as for `likelihood`; a text
    that has nothing to predict is one more.
    """
    expect_model(model)
    texts, characters, breaks = list(texts), list(characters), list(breaks)
    wrong = [shown(count) for count in characters if not is_whole(count, 1)]
    if wrong or len(characters) != len(texts):
        came = f"{wrong[0]} among them" if wrong else f"{len(characters)} numbers for {len(texts)} texts"
        raise ValueError(f"Each text to measure on must have its number of characters, one or more; got {came}.")
    expect_whole(1, context=context, rows=rows)
    if sources is None:
        pieces = [(number, piece) for number, ids in enumerate(texts) for piece in cut(ids, context + 1, breaks)]
        if missing := sorted(set(range(len(texts))) - {number for number, _ in pieces}):
            raise ValueError(f"Text number {missing[0]} has fewer than two tokens: there is nothing to predict in it.")
        batches = Batches((piece.tolist() for _, piece in pieces), context, rows)
    else:
        batches = Batches(texts, context, rows, sources=sources)
        pieces = list(enumerate(batches.texts))
    batches.check(model)
    pieces.sort(key=lambda piece: -len(piece[1]))
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    nll, tokens = [0.0] * len(texts), [0] * len(texts)
    try:
        for first in range(0, len(pieces), rows):
            batch = pieces[first : first + rows]
            with autocast(device, precision):
                about = None if batches.sources is None else [batches.sources[number] for number, _ in batch]
                losses = _losses_by_row(model, [piece for _, piece in batch], about)
            for (number, piece), loss in zip(batch, losses, strict=True):
                nll[number] += loss
                tokens[number] += len(piece) - 1
    finally:
        model.train(was_training)
    return [Likelihood(*figures) for figures in zip(nll, tokens, characters, strict=True)]


def _losses_by_row(
    model: nn.Module, texts: Sequence[np.ndarray], sources: Sequence[np.ndarray] | None = None
) -> list[float]:
    """Σ −ln p of each text's tokens but the first. The head is called in chunks, as in training."""
    device = next(model.parameters()).device
    whole = [torch.from_numpy(text).long() for text in texts]
    ids = pad_sequence([text[:-1] for text in whole], batch_first=True).to(device)  # (B, T)
    targets = pad_sequence([text[1:] for text in whole], batch_first=True, padding_value=IGNORED).to(device)
    cache = None
    if sources is not None:  # all of a source is seen: so it is told what of it is padding
        source, segments = filled([[ids] for ids in sources])
        cache = model.new_cache(source.to(device), segments.to(device))  # type: ignore[operator]
    states = model.states(ids, cache)  # type: ignore[operator]  # padding stands behind: none that counts looks at it
    rows, places = (targets != IGNORED).nonzero(as_tuple=True)
    sums = torch.zeros(len(whole), dtype=torch.float32, device=device)
    few = chunk_for(model)
    for row, place in zip(rows.split(few), places.split(few), strict=True):
        logits: Tensor = model.head(states[row, place]).float()  # type: ignore[operator]
        sums.index_add_(0, row, F.cross_entropy(logits, targets[row, place], reduction="none"))
    return sums.tolist()
