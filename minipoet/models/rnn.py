"""Recurrent language models: a text is read token by token into a state of fixed size.

    ids -> embed -> n × Block, each over the states of the one below -> head -> logits

`RNNConfig`, `Block`, `NAMES`, and one model a cell: `RNN` (Elman's), `GRU`, `LSTM`. The cells are in `cells.py`, the
way through time in `recurrence.py`, other inputs than an embedding in `inputs.py`. The cache is the state.

Papers: Mikolov et al. 2010, "Recurrent neural network based language model"; Zaremba et al. 2014,
https://arxiv.org/abs/1409.2329 (where to drop out); Press & Wolf 2017, https://arxiv.org/abs/1608.05859 (tied output)
Chapter: docs/cells.md
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from minipoet.checks import expect, is_number, is_whole, shown
from minipoet.models import cells
from minipoet.models.base import UNLIMITED, LanguageModel
from minipoet.models.cells import Cell, State
from minipoet.models.inputs import check_input, input_width, make_input, read_inputs
from minipoet.models.layers import check_ids
from minipoet.models.linear import Linear
from minipoet.models.names import Row
from minipoet.models.recurrence import through_time
from minipoet.models.recurrent_cache import StateCache, marks


@dataclass(frozen=True)
class RNNConfig:
    """The sizes; they do not say which cell: the model's class does."""

    vocab_size: int = 10000
    n_embd: int = 128
    n_hidden: int = 256
    n_layer: int = 2
    dropout: float = 0.0  # of what goes up from layer to layer, the embedding and the last one included; never in time
    tie_word_embeddings: bool = False  # the head's matrix is the embedding's: n_embd = n_hidden
    inputs: str = "embedding"  # or "label", "one-hot", "bag": see inputs.py
    window: int = 8  # of the bag

    def __post_init__(self):
        value = vars(self)
        wrong = [
            f"{name} = {shown(value[name])} must be a whole number of at least 1"
            for name in ("vocab_size", "n_embd", "n_hidden", "n_layer", "window")
            if not is_whole(value[name], 1)
        ]
        if not is_number(self.dropout) or not 0 <= self.dropout < 1:
            wrong.append(f"dropout = {shown(self.dropout)} must be a number from 0 to less than 1")
        if self.tie_word_embeddings and (self.inputs != "embedding" or self.n_embd != self.n_hidden):
            wrong.append(
                f"tie_word_embeddings needs an embedding as wide as the state, got inputs = {shown(self.inputs)}, "
                f"n_embd = {shown(self.n_embd)} and n_hidden = {shown(self.n_hidden)}"
            )
        if wrong:
            raise ValueError(f"RNN config: {'; '.join(wrong)}.")
        check_input(self.inputs)


class Block(nn.Module):
    """One layer through time, (T, B, in) -> (T, B, n_hidden). Time comes first in here; see `through_time`."""

    def __init__(self, cell: Cell, n_input: int, n_hidden: int):
        super().__init__()
        self.cell = cell
        self.input = Linear(n_input, cell.gates * n_hidden)
        self.recurrent_weight = nn.Parameter(torch.empty(cell.gates * n_hidden, n_hidden))
        self.recurrent_bias = nn.Parameter(torch.empty(cell.gates * n_hidden))

    def forward(
        self, x: Tensor, state: State, new: Tensor | None, real: Tensor | None, start: State | None = None
    ) -> tuple[Tensor, State]:
        """Also returns the state after the last step, (B, n_hidden) each, for the cache."""
        weight, bias = self.recurrent_weight, self.recurrent_bias
        return through_time(self.cell, self.input(x), weight, bias, state, new, real, start)

    @torch.no_grad()
    def reset(self, generator: torch.Generator | None = None) -> None:
        """Glorot for what comes in; orthogonal for what comes back (Saxe et al. 2013): a state that is turned, and not
        stretched, lives longer. Biases 0, but the forget gate's 1 (Jozefowicz et al. 2015): remember, unless taught.
        """
        C = self.recurrent_weight.shape[1]
        nn.init.zeros_(self.recurrent_bias)
        nn.init.zeros_(self.input.bias)
        for gate in range(self.cell.gates):
            rows = slice(gate * C, (gate + 1) * C)
            nn.init.xavier_uniform_(self.input.weight[rows], generator=generator)
            nn.init.orthogonal_(self.recurrent_weight[rows], generator=generator)
        if self.cell is cells.LSTM:
            self.input.bias[C : 2 * C] = 1.0


# (published, ours, transform): nobody else publishes such models, so the names are our own.
NAMES: tuple[Row, ...] = tuple(
    (name, name, None)
    for name in (
        "embed.weight",
        "blocks.{i}.input.weight",
        "blocks.{i}.input.bias",
        "blocks.{i}.recurrent_weight",
        "blocks.{i}.recurrent_bias",
        "head.weight",
        "head.bias",
    )
)


class RecurrentModel(LanguageModel):
    """`logits = model(ids, cache, segments)`, (B, T) -> (B, T, V): see `models.base.LanguageModel` for the contract."""

    cell: ClassVar[Cell]
    config_class = RNNConfig
    names = NAMES

    config: RNNConfig
    head: Linear

    def __init__(self, config: RNNConfig):
        expect(config, RNNConfig, "config", "an RNNConfig(...)")
        super().__init__()
        self.config = config
        self.embed = make_input(config.inputs, config.vocab_size, config.n_embd, config.window)
        widths = [input_width(self.embed), *[config.n_hidden] * (config.n_layer - 1)]
        self.blocks = nn.ModuleList(Block(self.cell, width, config.n_hidden) for width in widths)
        self.dropout = nn.Dropout(config.dropout)
        self.head = Linear(config.n_hidden, config.vocab_size)
        self.tie()
        self.reset()

    @property
    def context(self) -> int:
        """The longest text, in tokens: there is none."""
        return UNLIMITED

    @torch.no_grad()
    def reset(self, generator: torch.Generator | None = None) -> None:
        """Start values: vectors of tokens of length about 1, see `Block.reset` for the rest; the head's bias 0."""
        if self.head.weight.is_meta:  # shapes only: there is nothing to set
            return
        for weight in (self.head.weight, self.embed.weight):
            if isinstance(weight, Tensor):
                nn.init.normal_(weight, 0.0, 1 / math.sqrt(weight.shape[1]), generator=generator)
        nn.init.zeros_(self.head.bias)
        for block in self._blocks():
            block.reset(generator)

    def _blocks(self) -> list[Block]:
        return list(self.blocks)  # type: ignore[arg-type]

    def new_cache(self, batch_size: int) -> StateCache:
        """An empty cache for batch_size texts."""
        return StateCache(batch_size)

    def beginning_shape(self, num_virtual_tokens: int) -> tuple[int, int, int, int]:
        """(1, rows, 1, n_hidden): a state, rows = n_layer · parts of the cell's state, layer by layer.

        Raises ValueError for another number of tokens than 1, and for a model that also sees a window of tokens.
        """
        kind = type(self).__name__
        if num_virtual_tokens != 1:
            came = shown(num_virtual_tokens)
            raise ValueError(f"This {kind} carries one state of fixed size: give num_virtual_tokens=1, not {came}.")
        if self.config.inputs == "bag":
            raise ValueError(
                f'This {kind} has inputs="bag": beside its state it sees the last tokens themselves, which a learnt '
                f"state cannot stand for; prefixes need another kind of input."
            )
        return 1, self.config.n_layer * self.cell.states, 1, self.config.n_hidden

    def as_beginning(self, cache: StateCache) -> Tensor:
        """The state that one text left in a cache, (1, rows, 1, n_hidden), without its gradient.

        Raises ValueError for a cache of several texts, or of none, and where `beginning_shape` does.
        """
        shape = self.beginning_shape(1)
        if cache.batch_size != 1:
            raise ValueError(f"A beginning is the state that one text leaves, got a cache of {cache.batch_size} texts.")
        if cache.length == 0 or (cache.segment is not None and not cache.segment.any()):
            raise ValueError("A beginning is the state that a text leaves: give a text of at least one token.")
        parts = [f"{layer}.{part}" for layer in range(self.config.n_layer) for part in range(self.cell.states)]
        return torch.cat([cache.tensors[name].detach() for name in parts]).view(shape)

    def states(self, ids: Tensor, cache: StateCache | None = None, segments: Tensor | None = None) -> Tensor:
        """(B, T) -> (B, T, n_hidden): what `head` turns into logits. A cache is read on from, and brought up to date.

        Raises ValueError for what is no (B, T) ids of the vocabulary.
        """
        check_ids(ids)
        new, real, last = marks(ids, cache, segments)
        x = read_inputs(self.embed, ids, cache, new, real, dtype=self._blocks()[0].recurrent_weight.dtype)
        x = self.dropout(x).transpose(0, 1).contiguous()
        new, real = (None if mark is None else mark.t() for mark in (new, real))
        for layer, (block, start) in enumerate(zip(self._blocks(), self._starts(), strict=True)):
            state = self._past(cache, layer, x, start)
            if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
                x, state = checkpoint(block, x, state, new, real, start, use_reentrant=False)
            else:
                x, state = block(x, state, new, real, start)
            if cache is not None:
                cache.tensors |= {f"{layer}.{part}": tensor for part, tensor in enumerate(state)}
            x = self.dropout(x)
        if cache is not None:
            cache.advance(ids.shape[1], last)
        return x.transpose(0, 1)

    def _starts(self) -> list[State] | list[None]:
        """The state, (n_hidden,) each, with which a text begins in each layer; None: zeros."""
        n_layer, beginning = self.config.n_layer, self.beginning()
        if beginning is None:
            return [None] * n_layer
        return [layer.unbind() for layer in beginning.reshape(n_layer, self.cell.states, self.config.n_hidden)]

    def _past(self, cache: StateCache | None, layer: int, x: Tensor, start: State | None) -> State:
        """The state of a layer before the first step: what the cache has, or that with which a text begins."""
        names = [f"{layer}.{part}" for part in range(self.cell.states)]
        if cache is not None and names[0] in cache.tensors:
            return tuple(cache.tensors[name] for name in names)
        B, C = x.shape[1], self.config.n_hidden
        if start is not None:
            return tuple(part.expand(B, C) for part in start)
        return tuple(self._blocks()[layer].recurrent_weight.new_zeros(B, C) for _ in names)


class RNN(RecurrentModel):
    """Elman's network."""

    model_type = "minipoet-rnn"
    architecture = "MinipoetRNN"
    cell = cells.Elman


class GRU(RecurrentModel):
    """With gated recurrent units."""

    model_type = "minipoet-gru"
    architecture = "MinipoetGRU"
    cell = cells.GRU


class LSTM(RecurrentModel):
    """With long short-term memory."""

    model_type = "minipoet-lstm"
    architecture = "MinipoetLSTM"
    cell = cells.LSTM


CELLS: dict[str, type[RecurrentModel]] = {"rnn": RNN, "gru": GRU, "lstm": LSTM}  # as a command names them
