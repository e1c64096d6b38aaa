"""What every language model of the package is: the contract that training, generation and evaluation rely on.

    logits = model(ids, cache=None, segments=None)        (B, T) -> (B, T, V), = model.head(model.states(...))
    cache = model.new_cache(batch_size)                   what was read so far

A family's class brings the class attributes below, its layers, `states`, `new_cache`, `tie` and `context`.

Chapter: docs/contributing.md
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from minipoet.models.names import NameTable, Row


class LanguageModel(nn.Module):
    """(B, T) token ids in, (B, T, V) logits of the next token out; the same for every family, adapted or not."""

    model_type: ClassVar[str]  # of config.json
    architecture: ClassVar[str]  # the class that transformers calls it by
    task_type: ClassVar[str] = "CAUSAL_LM"  # the word that PEFT has for it
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
        self.adapters: dict[str, Any] = {}  # settings of the LoRA adapters on it, by name
        self.gradient_checkpointing = False

    @classmethod
    def name_table(cls) -> NameTable:
        """Published names <-> ours."""
        return NameTable(cls.names)

    @property
    def context(self) -> int:
        """The longest text, in tokens."""
        raise NotImplementedError

    def tie(self) -> None:
        """Make what the config ties share one tensor (again: loading replaces tensors)."""

    def new_cache(self, batch_size: int) -> Any:
        """An empty cache for batch_size texts."""
        raise NotImplementedError

    def states(self, ids: Tensor, cache: Any = None, segments: Tensor | None = None) -> Tensor:
        """(B, T) -> (B, T, C): what `head` turns into logits. A cache is read on from, and brought up to date."""
        raise NotImplementedError

    def forward(self, ids: Tensor, cache: Any = None, segments: Tensor | None = None) -> Tensor:
        """Logits of the next token after each of these: (B, T) -> (B, T, V)."""
        return self.head(self.states(ids, cache, segments))
