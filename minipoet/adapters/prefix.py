"""Prefix tuning: leave the model as it is, and learn the beginning of its cache.

A text that was read is, to the texts that go on from it, nothing but keys and values in the cache: 2·L·G·D numbers a
token. A prompt can only put there what some tokens give; a prefix of P "virtual tokens" may put there anything, and it
is found by gradient descent. A recurrent model keeps a state instead; there the prefix is a learnt first state.

`Prefix` holds the numbers themselves; `ProjectedPrefix` makes them by a small MLP (the paper's reparameterisation),
which is not needed any more when the training is over. `Prefixes` holds those of several adapters, by name.

Paper: Li & Liang 2021, "Prefix-Tuning", https://arxiv.org/abs/2101.00190. Chapter: docs/prefix.md
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minipoet.adapters.switch import Model, Switch, check_new, forget, note, refuse_merged, set_adapter
from minipoet.checks import as_ids, expect, expect_model, is_whole, shown
from minipoet.models.base import LanguageModel
from minipoet.models.layers import check_ids
from minipoet.models.linear import Linear

RANDOM, ZERO = "random", "zero"  # starts; a third one is the ids of a text
Shape = tuple[int, int, int, int]  # (P, rows, G, D)


@dataclass(frozen=True)
class PrefixConfig:
    """Settings of one prefix: P, and whether an MLP makes its numbers, and how wide that is inside (None: G·D).

    parts: where it stands besides the beginning of what is written, in a model that reads a source: "cross", before the
    source as the decoder sees it, and "encoder", before the source as it sees itself.
    """

    num_virtual_tokens: int = 15
    projection: bool = False
    hidden: int | None = None
    parts: tuple[str, ...] = ()

    def __post_init__(self):
        wrong = []
        if not is_whole(self.num_virtual_tokens, 1):
            came = shown(self.num_virtual_tokens)
            wrong.append(f"num_virtual_tokens must be a whole number of at least 1, got {came}")
        if not isinstance(self.projection, bool):
            wrong.append(f"projection must be True or False, got {shown(self.projection)}")
        if self.hidden is not None and not is_whole(self.hidden, 1):
            wrong.append(f"hidden must be None or a whole number of at least 1, got {shown(self.hidden)}")
        elif self.hidden is not None and self.projection is False:
            wrong.append("hidden is the width of the MLP: it needs projection=True")
        names = isinstance(self.parts, Collection) and not isinstance(self.parts, str)
        if not names or not all(isinstance(part, str) for part in self.parts) or len(set(self.parts)) < len(self.parts):
            wrong.append(f'parts must be a list of names, each once, ("cross", "encoder"), got {self.parts!r}')
        if wrong:
            raise ValueError(f"Prefix: {'; '.join(wrong)}.")
        object.__setattr__(self, "parts", tuple(self.parts))


class Prefix(nn.Module):
    """The numbers themselves, P × rows·G·D, in fp32 over any base: () -> (P, rows, G, D)."""

    def __init__(self, shape: Shape, device: torch.device | None = None, parts: tuple[str, ...] = ()):
        super().__init__()
        self.shape, self.parts = shape, parts
        P, rows, G, D = shape
        self.numbers = nn.Parameter(torch.empty(P, rows * G * D, device=device))

    def forward(self) -> Tensor:
        return self.numbers.view(self.shape)

    @torch.no_grad()
    def random(self, generator: torch.Generator) -> None:
        """N(0, 1), as PEFT starts: no text gives such keys, and the model is the worse for it at first."""
        self.numbers.copy_(torch.randn(self.numbers.shape, generator=generator))  # on the CPU: a seed is a seed

    @torch.no_grad()
    def begin(self, numbers: Tensor) -> None:
        """Start at these, (P, rows, G, D)."""
        self.numbers.copy_(numbers.flatten(1))


class ProjectedPrefix(nn.Module):
    """The numbers of P tokens by an MLP that they share: token -> tanh(up) -> down. () -> (P, rows, G, D).

    Its steps move all virtual tokens together, and by other amounts than the learning rate's.
    """

    def __init__(
        self,
        shape: Shape,
        hidden: int | None = None,
        device: torch.device | None = None,
        parts: tuple[str, ...] = (),
    ):
        super().__init__()
        self.shape, self.parts = shape, parts
        P, rows, G, D = shape
        self.tokens = nn.Parameter(torch.empty(P, G * D, device=device))
        self.up = Linear(G * D, hidden or G * D, device=device)
        self.down = Linear(hidden or G * D, rows * G * D, device=device)

    def inner(self) -> Tensor:
        """(P, hidden)."""
        return torch.tanh(self.up(self.tokens))

    def forward(self) -> Tensor:
        with torch.autocast(self.tokens.device.type, enabled=False) if not self.tokens.is_meta else nullcontext():
            return self.down(self.inner()).view(self.shape)

    @torch.no_grad()
    def random(self, generator: torch.Generator) -> None:
        """N(0, 1) for the tokens, U(−1/√in, 1/√in) for the MLP, as PEFT starts."""
        self.tokens.copy_(torch.randn(self.tokens.shape, generator=generator))
        for layer in (self.up, self.down):
            bound = layer.weight.shape[1] ** -0.5
            for parameter in (layer.weight, layer.bias):
                parameter.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))

    @torch.no_grad()
    def begin(self, numbers: Tensor) -> None:
        """Start at these, (P, rows, G, D): `down` becomes the least matrix that makes them of what `up` gives.

        There is one if the P rows that `up` gives are independent, for which it must be P wide at least.
        """
        inner = self.inner().double()
        if inner.shape[1] < len(inner):
            raise ValueError(
                f"A prefix of {len(inner)} tokens cannot start at a text through an MLP of width {inner.shape[1]}: "
                f"give hidden={len(inner)} or more, or no projection."
            )
        self.down.bias.zero_()
        self.down.weight.copy_((torch.linalg.pinv(inner) @ numbers.flatten(1).to(inner)).T)


class Prefixes(Switch):
    """The prefixes on a model, by name: () -> (P, rows, G, D) of the one in use, or None."""

    def __init__(self) -> None:
        super().__init__()
        self.by_name = nn.ModuleDict()

    def parts(self) -> nn.ModuleDict:
        """The prefixes, by name."""
        return self.by_name

    @property
    def in_use(self) -> Prefix | ProjectedPrefix | None:
        """The one with which texts begin now: the active one, or that of all rows of the batch."""
        name = self.active if self.rows is None else self.rows.only
        return self.by_name[name] if name is not None and name in self.by_name else None  # type: ignore[return-value]

    @property
    def length(self) -> int:
        """P of the one in use, or 0."""
        return 0 if self.in_use is None else self.in_use.shape[0]

    def forward(self) -> Tensor | None:
        return None if self.in_use is None else self.in_use()


def add_prefix(
    model: Model,
    num_virtual_tokens: int = 15,
    projection: bool = False,
    hidden: int | None = None,
    init: str | Sequence[int] = RANDOM,
    name: str = "default",
    seed: int = 0,
    parts: Sequence[str] = (),
) -> Model:
    """Let each text begin with a learnt prefix, make it active, and let nothing else train. Returns the model.

    projection: an MLP makes the numbers while they are learnt, `hidden` wide inside (None: as a token's keys).
    init: "random" (as PEFT), "zero", or the ids of a text, num_virtual_tokens of them: the untrained prefix then says
    exactly what that text would say as a prompt. (A recurrent model has one virtual token, and takes a text of any
    length.) A LoRA of the same name stays in use and trains beside it.
    parts: of a model that reads a source, where the prefix stands besides (`PrefixConfig`); it starts at no text.
    Raises ValueError for a prefix that the model has no place for, a text that does not fit it, and a taken name.
    """
    config = PrefixConfig(num_virtual_tokens, projection, hidden, parts)  # type: ignore[arg-type]
    ids = None if isinstance(init, str) else as_ids(init, "init")
    if ids is None and init not in (RANDOM, ZERO):
        raise ValueError(f'init must be "random", "zero" or the ids of a text (encode), got {shown(init)}.')
    prefix = make_prefix(model, config, name, seed)
    numbers = None if ids is None else _read(model, ids, prefix.shape)
    if not next(prefix.parameters()).is_meta:
        prefix.random(torch.Generator().manual_seed(seed))
        if init == ZERO:
            numbers = torch.zeros(prefix.shape)
        if numbers is not None:
            prefix.begin(numbers)
    return put(model, prefix, config, name)


def make_prefix(model: LanguageModel, config: PrefixConfig, name: str, seed: int = 0) -> Prefix | ProjectedPrefix:
    """A prefix without numbers in it, for this model. Raises ValueError if it could not be put there."""
    check_new(model, name, "prefix", seed)
    refuse_merged(model)
    if unknown := [part for part in config.parts if part not in model.prefix_parts]:
        there = ", ".join(model.prefix_parts) or "none: it reads no source"
        raise ValueError(f"A {type(model).__name__} has no place for a prefix called {unknown[0]!r}; it has {there}.")
    chosen = {"parts": config.parts} if config.parts else {}
    shape, device = model.beginning_shape(config.num_virtual_tokens, **chosen), next(model.parameters()).device
    if config.projection:
        return ProjectedPrefix(shape, config.hidden, device, config.parts)
    return Prefix(shape, device, config.parts)


def put(model: Model, prefix: nn.Module, config: PrefixConfig, name: str) -> Model:
    """Put a prefix on the model under this name, and make it active. Returns the model."""
    expect(config, PrefixConfig, "config", "a PrefixConfig(...)")
    if model.prefixes is None:
        model.prefixes = Prefixes()
    prefixes = model.prefixes
    assert isinstance(prefixes, Prefixes)
    prefixes.by_name[name] = prefix
    prefixes.train(model.training)
    note(model, name, "prefix", config)
    return set_adapter(model, name)


def remove_prefix(model: Model) -> Model:
    """The model without its prefixes. Returns the model."""
    expect_model(model)
    model.prefixes = None
    forget(model, "prefix")
    return model


@torch.no_grad()
def _read(model: LanguageModel, ids: list[int], shape: Shape) -> Tensor | None:
    """What the text leaves in the cache, (P, rows, G, D); None on the meta device. Raises ValueError for a misfit."""
    device = next(model.parameters()).device
    if not ids:
        raise ValueError("The text to start at is empty: give the ids of one token or more, as encode gives them.")
    if model.reads_source:
        raise ValueError(
            f'A {type(model).__name__} writes about a source, so a prefix cannot be what a text leaves: init="random" '
            'or "zero".'
        )
    text = torch.tensor([ids], dtype=torch.long)
    check_ids(text, model.config.vocab_size)
    former, training = model.prefixes, model.training
    model.prefixes = None  # the text is the beginning
    model.eval()
    try:
        cache = model.new_cache(1)
        model.states(text.to(device), cache)
        numbers = model.as_beginning(cache)
    finally:
        model.prefixes = former
        model.train(training)
    if tuple(numbers.shape) != shape:
        raise ValueError(
            f"The text to start at has {len(ids)} tokens, the prefix {shape[0]}: give num_virtual_tokens={len(ids)}, "
            f"or {shape[0]} of its tokens."
        )
    return None if numbers.is_meta else numbers.float()
