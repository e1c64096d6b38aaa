"""Published names <-> ours, both ways, from a family's table of (published, ours, transform) rows.

A row may hold `{i}` for the number of a layer. The same rows name tensors ("h.{i}.attn.c_attn.weight") and, without
their last word, modules ("h.{i}.attn.c_attn"), so adapters find the published name of the layer they sit on.

Chapter: docs/checkpoints.md
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import Tensor

Row = tuple[str, str, str | None]


class NameTable:
    """Looks names up in a family's table. Every method gives None for a name that is not in it."""

    def __init__(self, rows: Sequence[Row]):
        self._from_published = [(_pattern(published), ours, transform) for published, ours, transform in rows]
        self._from_ours = [(_pattern(ours), published, transform) for published, ours, transform in rows]
        weights = [row for row in rows if row[1].endswith(".weight")]
        self._modules_from_published = [(_pattern(_stem(p)), _stem(o), t) for p, o, t in weights]
        self._modules_from_ours = [(_pattern(_stem(o)), _stem(p), t) for p, o, t in weights]

    def ours(self, published: str) -> tuple[str, str | None] | None:
        """(our name, transform) of a published tensor."""
        return _look_up(self._from_published, published)

    def published(self, ours: str) -> tuple[str, str | None] | None:
        """(published name, transform) of one of our tensors."""
        return _look_up(self._from_ours, ours)

    def our_module(self, published: str) -> str | None:
        """Our name of a published module."""
        found = _look_up(self._modules_from_published, published)
        return found[0] if found else None

    def published_module(self, ours: str) -> tuple[str, str | None] | None:
        """(published name, transform of its weight) of one of our modules."""
        return _look_up(self._modules_from_ours, ours)


def apply(transform: str | None, tensor: Tensor) -> Tensor:
    """What turns a published tensor into ours; each is its own inverse."""
    if transform is None:
        return tensor
    assert transform == "transpose", transform
    return tensor.t()


def _stem(name: str) -> str:
    return name.rsplit(".", 1)[0]


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(r"\{i\}", r"(\d+)"))


def _look_up(rows: list[tuple[re.Pattern[str], str, str | None]], name: str) -> tuple[str, str | None] | None:
    for pattern, other, transform in rows:
        if match := pattern.fullmatch(name):
            number = match.group(1) if match.groups() else ""
            return other.replace("{i}", number), transform
    return None
