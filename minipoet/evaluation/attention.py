"""What does the attention do with a prefix: which share of it goes to the learnt beginning, head by head?

    prefix_mass    the shares, measured on texts
    PrefixMass     of each layer and head, and of each place in the text

Attention takes a mean of values with the weights softmax(q kᵀ · scale). The weights of the prefix's keys are what it
gives if each value of the prefix is 1 and every other one 0. So the models need not tell their weights: each call of
the kernel is made a second time, in fp32, with such values.

Idea: He et al. 2022, "Towards a Unified View of Parameter-Efficient Transfer Learning",
https://arxiv.org/abs/2110.04366. Chapter: docs/prefix.md
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.overrides import TorchFunctionMode

from minipoet.checks import as_ids, expect, expect_model, expect_whole
from minipoet.models.base import LanguageModel


@dataclass(frozen=True)
class PrefixMass:
    """The shares that a prefix of `length` slots gets: their sums over texts, (L, H, T) for the T places of a text, and
    how many texts have each place, (T,)."""

    sums: Tensor
    counts: Tensor
    length: int

    @property
    def heads(self) -> Tensor:
        """(L, H): the mean over all tokens."""
        return self.sums.sum(-1) / self.counts.sum()

    @property
    def places(self) -> Tensor:
        """(T,): the mean over layers and heads at each place in the text."""
        return self.sums.mean((0, 1)) / self.counts

    @property
    def even(self) -> Tensor:
        """(T,): what the prefix would get at each place if all keys were equal."""
        return self.length / (self.length + 1 + torch.arange(len(self.counts), dtype=torch.double))

    @property
    def mean(self) -> float:
        """Over layers, heads and tokens."""
        return float(self.heads.mean())


@torch.no_grad()
def prefix_mass(
    model: LanguageModel, texts: Iterable[Sequence[int]], context: int | None = None, rows: int = 16
) -> PrefixMass:
    """The share of the attention that goes to the prefix in use, on the token ids of texts.

    Of each text the first `context` tokens are read (None: as many as the model takes), `rows` texts at a time. The
    model is put in evaluation mode for the time. Raises ValueError if there is no prefix in use, for a model that has
    no attention, and for texts that are none.
    """
    expect_model(model)
    if model.reads_source:
        raise ValueError(
            f"The attention is looked at in models that go on from a text; a {type(model).__name__} is none."
        )
    if not model.prefix_length:
        raise ValueError("No prefix is in use on this model: add_prefix, load_adapter or set_adapter first.")
    expect(texts, Iterable, "texts", "a list of the token ids of texts")
    expect_whole(1, context=model.context if context is None else context, rows=rows)
    length = min(model.context, model.context if context is None else context)
    read = [torch.tensor(as_ids(text, "A text")[:length], dtype=torch.long) for text in texts]
    if not read or not all(map(len, read)):
        raise ValueError("There must be texts to look at the attention on, each of one token or more.")
    read.sort(key=len, reverse=True)  # those of about one length are read together
    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    sums, counts = None, torch.zeros(len(read[0]), dtype=torch.double)
    try:
        for first in range(0, len(read), rows):
            batch = read[first : first + rows]
            ids = pad_sequence(batch, batch_first=True)
            real = pad_sequence([torch.ones_like(text) for text in batch], batch_first=True)  # (B, T)
            with _Watch(model.prefix_length) as watch:
                model.states(ids.to(device), None, real.to(device))
            if not watch.shares:
                raise ValueError(f"A {type(model).__name__} has no attention: its prefix is the state it begins with.")
            found = torch.stack(watch.shares).double().sum(1).cpu()  # (L, H, T); padding sees only itself, and adds 0
            sums = torch.zeros_like(found) if sums is None else sums  # the longest texts come first
            sums[..., : found.shape[-1]] += found
            counts[: found.shape[-1]] += real.sum(0)
    finally:
        model.train(was_training)
    assert sums is not None
    return PrefixMass(sums, counts, model.prefix_length)


class _Watch(TorchFunctionMode):
    """Sees each attention of a forward pass, layer by layer: (B, H, T) shares of the first `length` keys."""

    def __init__(self, length: int):
        super().__init__()
        self.length = length
        self.shares: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is F.scaled_dot_product_attention:
            q, k, _, mask, *rest = args
            ones = torch.zeros(*k.shape[:3], 1, device=k.device)
            ones[:, :, : self.length] = 1
            mask = None if mask is None else mask.float()
            self.shares.append(func(q.float(), k.float(), ones, mask, *rest, **(kwargs or {}))[..., 0])
        elif func is Tensor.softmax:  # `attend_plainly`, which bf16 takes on a CPU: here the weights can be seen
            self.shares.append(result[..., : self.length].float().sum(-1))
        return result
