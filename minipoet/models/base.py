"""What every language model of the package is: the contract that training, generation and evaluation rely on.

    logits = model(ids, cache=None, segments=None)        (B, T) -> (B, T, V), = model.head(model.states(...))
    cache = model.new_cache(batch_size)                   what was read so far

A family's class brings the class attributes below, its layers, `states`, `new_cache` and `context`; and, so that
a prefix can be learnt for it, `beginning_shape` and `as_beginning`: what a text leaves in its cache, as one tensor.

Chapter: docs/contributing.md
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from minipoet.models.names import NameTable, Row

UNLIMITED = 2**31 - 1  # the context of a model without a longest text: it carries a state, or knows distances only


class LanguageModel(nn.Module):
    """(B, T) token ids in, (B, T, V) logits of the next token out; the same for every family, adapted or not."""

    model_type: ClassVar[str]  # of config.json
    architecture: ClassVar[str]  # the class that transformers calls it by
    task_type: ClassVar[str] = "CAUSAL_LM"  # the word that PEFT has for it
    reads_source: ClassVar[bool] = (
        False  # True: it writes about a source (encoder_decoder.py), which a cache begins with
    )
    prefix_parts: ClassVar[tuple[str, ...]] = ()  # where a prefix can stand besides the cache of what is written
    config_class: ClassVar[type]
    names: ClassVar[tuple[Row, ...]]  # (published, ours, transform)
    prefix: ClassVar[str] = ""  # of published names; old files leave it out
    ignored: ClassVar[tuple[str, ...]] = ()  # patterns of published tensors that hold nothing learnt
    unsupported: ClassVar[Mapping[str, Any]] = {}  # config keys that would change the result: the value that is fine

    config: Any
    embed: nn.Module
    head: nn.Module

    def __init__(self) -> None:
        super().__init__()
        self.origin = ""  # where it was loaded from
        self.revision = ""  # the commit, of a model from the hub
        self.adapters: dict[str, dict[str, Any]] = {}  # by name: {"lora": its settings, "prefix": its settings}
        self.prefixes: nn.Module | None = None  # adapters/prefix.py puts learnt beginnings here
        self.gradient_checkpointing = False

    @classmethod
    def for_config(cls, values: Mapping[str, Any]) -> type[LanguageModel]:
        """The class for this config.json: kinds of one model_type may differ in their tensors' names."""
        return cls

    @classmethod
    def settled(cls, config: Any, tensors: Mapping[str, Tensor]) -> Any:
        """The config, by what the file with the published `tensors` really holds."""
        return config

    @classmethod
    def published_config(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values of a config.json under the names that config_class has; publishers have renamed some."""
        return dict(values)

    @classmethod
    def name_table(cls) -> NameTable:
        """Published names <-> ours."""
        return NameTable(cls.names)

    @property
    def context(self) -> int:
        """The longest text, in tokens."""
        raise NotImplementedError

    def tie(self) -> None:
        """Make the head read the embedding's own rows, if the config says so (again: loading replaces tensors)."""
        if getattr(self.config, "tie_word_embeddings", False):
            self.head.weight = self.embed.weight

    def start_deviation(self, name: str) -> float:
        """The standard deviation of this matrix's start values."""
        return self.config.initializer_range

    def step_scale(self, name: str) -> float:
        """The share of Muon's steps that this matrix takes: they do not know how small it began, or has to stay."""
        return 1.0

    @torch.no_grad()
    def reset(self, generator: torch.Generator | None = None) -> None:
        """Start values: N(0, start_deviation²) for matrices, 0 for biases; norms stay at 1."""
        if next(self.parameters()).is_meta:  # shapes only: there is nothing to set
            return
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, 0.0, self.start_deviation(name), generator=generator)
            elif name.endswith(".bias"):
                nn.init.zeros_(parameter)

    def new_cache(self, batch_size: int) -> Any:
        """An empty cache for batch_size texts."""
        raise NotImplementedError

    def beginning(self) -> Tensor | None:
        """The learnt prefix that is in use, (P, rows, G, D), with which each text begins; None if there is none."""
        return None if self.prefixes is None else self.prefixes()

    @property
    def prefix_length(self) -> int:
        """P, the tokens that the prefix in use stands for; 0 if there is none."""
        return 0 if self.prefixes is None else self.prefixes.length  # type: ignore[return-value]

    def beginning_shape(self, num_virtual_tokens: int) -> tuple[int, int, int, int]:
        """(P, rows, G, D): the shape of a prefix of so many tokens. Raises ValueError if there is no place for it.

        A model with `prefix_parts` takes a choice of those besides.
        """
        name = type(self).__name__
        raise ValueError(f"A {name} keeps nothing of a text that a prefix could stand for: teach it by LoRA instead.")

    def as_beginning(self, cache: Any) -> Tensor:
        """What one text left in a cache, as (P, rows, G, D): the prefix that says what the text said."""
        raise NotImplementedError

    def states(self, ids: Tensor, cache: Any = None, segments: Tensor | None = None) -> Tensor:
        """(B, T) -> (B, T, C): what `head` turns into logits. A cache is read on from, and brought up to date."""
        raise NotImplementedError

    def forward(self, ids: Tensor, cache: Any = None, segments: Tensor | None = None) -> Tensor:
        """Logits of the next token after each of these: (B, T) -> (B, T, V)."""
        return self.head(self.states(ids, cache, segments))
