"""A windowed MLP: the next token from the last few, each in its own place, and from nothing before them.

    ids -> the last W -> embed, side by side -> n × Block -> head

`WindowMLPConfig`, `Block`, `WindowMLP`, and `NAMES`. The first neural language model, and the first to learn a vector
for each word: an n-gram that knows which words are alike. What lies W + 1 tokens back it cannot know; its cache is the
window itself. The paper's direct connections from the words to the output are left out.

Paper: Bengio et al. 2003, "A Neural Probabilistic Language Model"
Chapter: docs/search.md
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minipoet.checks import expect, is_number, is_whole, shown
from minipoet.models.base import UNLIMITED, LanguageModel
from minipoet.models.inputs import NONE, windows
from minipoet.models.layers import Embedding, activation, check_ids
from minipoet.models.linear import Linear
from minipoet.models.names import Row
from minipoet.models.recurrent_cache import StateCache, marks


@dataclass(frozen=True)
class WindowMLPConfig:
    """The sizes. `window` counts the tokens that a prediction sees, the last one among them."""

    vocab_size: int = 10000
    n_embd: int = 64
    n_hidden: int = 256
    n_layer: int = 1
    window: int = 8
    dropout: float = 0.0  # of what each hidden layer gives
    activation_function: str = "tanh"  # as in the paper

    def __post_init__(self):
        value = vars(self)
        wrong = [
            f"{name} = {shown(value[name])} must be a whole number of at least 1"
            for name in ("vocab_size", "n_embd", "n_hidden", "n_layer", "window")
            if not is_whole(value[name], 1)
        ]
        if not is_number(self.dropout) or not 0 <= self.dropout < 1:
            wrong.append(f"dropout = {shown(self.dropout)} must be a number from 0 to less than 1")
        if wrong:
            raise ValueError(f"Window MLP config: {'; '.join(wrong)}.")
        activation(self.activation_function)


class Block(nn.Module):
    """One hidden layer, applied to each place alone: (B, T, in) -> (B, T, n_hidden)."""

    def __init__(self, config: WindowMLPConfig, layer: int):
        super().__init__()
        self.up = Linear(config.n_hidden if layer else config.window * config.n_embd, config.n_hidden)
        self.activation = activation(config.activation_function)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.activation(self.up(x)))


# (published, ours, transform): nobody else publishes such models, so the names are our own.
NAMES: tuple[Row, ...] = tuple(
    (name, name, None)
    for name in ("embed.weight", "blocks.{i}.up.weight", "blocks.{i}.up.bias", "head.weight", "head.bias")
)


class WindowMLP(LanguageModel):
    """`logits = model(ids, cache, segments)`, (B, T) -> (B, T, V): see `models.base.LanguageModel` for the contract."""

    model_type = "minipoet-window"
    architecture = "MinipoetWindowMLP"
    config_class = WindowMLPConfig
    names = NAMES

    config: WindowMLPConfig

    def __init__(self, config: WindowMLPConfig):
        expect(config, WindowMLPConfig, "config", "a WindowMLPConfig(...)")
        super().__init__()
        self.config = config
        self.embed = Embedding(config.vocab_size, config.n_embd)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.head = Linear(config.n_hidden, config.vocab_size)
        self.reset()

    @property
    def context(self) -> int:
        """The longest text, in tokens: it may be of any length, though little of it is seen at a time."""
        return UNLIMITED

    @torch.no_grad()
    def reset(self, generator: torch.Generator | None = None) -> None:
        """Start values: N(0, 1) for the vectors of tokens, N(0, 1/√in) for the matrices; biases 0."""
        if self.embed.weight.is_meta:  # shapes only: there is nothing to set
            return
        for name, parameter in self.named_parameters():
            if name.endswith(".bias"):
                nn.init.zeros_(parameter)
            else:
                std = 1.0 if name == "embed.weight" else 1 / math.sqrt(parameter.shape[1])
                nn.init.normal_(parameter, 0.0, std, generator=generator)

    def new_cache(self, batch_size: int) -> StateCache:
        """An empty cache for batch_size texts."""
        return StateCache(batch_size)

    def states(self, ids: Tensor, cache: StateCache | None = None, segments: Tensor | None = None) -> Tensor:
        """(B, T) -> (B, T, n_hidden): what `head` turns into logits. A cache is read on from, and brought up to date.

        Before a text begins the vectors are zeros: nothing of them reaches the first layer.
        Raises ValueError for what is no (B, T) ids of the vocabulary.
        """
        check_ids(ids, self.config.vocab_size)
        new, real, last = marks(ids, cache, segments)
        seen = windows(ids, self.config.window, cache, new, real)  # (B, T, W)
        if cache is not None:
            cache.advance(ids.shape[1], last)
        x = self.embed(seen.clamp(min=0)).masked_fill((seen == NONE)[..., None], 0.0).flatten(2)  # (B, T, W·C)
        for block in self.blocks:
            x = block(x)
        return x
