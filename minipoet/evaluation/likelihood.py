"""How surprised is the model? Loss, perplexity and bits per character of texts that it has not learnt from.

Perplexity is per token, so it compares models of one tokenizer only; bits per character are fair across tokenizers.

Chapter: docs/training.md
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from minipoet.checks import expect_model, is_whole, shown
from minipoet.training.loss import batch_loss
from minipoet.training.packing import Batches
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
) -> Likelihood:
    """Measure the model on token ids of texts (each with its start and end tokens) of so many characters in all.

    Texts longer than `context` are cut at `breaks`, and each piece is read without the one before it. In fp32, unless
    asked otherwise, the figure does not depend on the machine. The model is put in evaluation mode for the time.
    Raises ValueError for no texts to measure on, or no characters, and texts that are not for this model.
    """
    expect_model(model)
    if not is_whole(characters, 1):
        raise ValueError(f"The texts to measure on must have one character or more in all, got {shown(characters)}.")
    batches = Batches(texts, context, rows, breaks=breaks)
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
