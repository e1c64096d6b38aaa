"""A text on its way through a model's blocks: what each block reads, what its layers read, and their Hessians.

    rows_of             texts -> rows of one length, and who belongs to whom
    first_readings      rows -> what the first block reads
    layers_by_input     which layers of a block read the same tensor
    hessians            what some of its layers read of the text

A block is run to see what it does, so nothing here knows a family; hooks look at what comes in, and stop a pass where
the rest of it is of no interest. Chapter: docs/gptq.md
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from minipoet.checks import as_ids
from minipoet.models.base import LanguageModel
from minipoet.quantization.gptq import Hessian

Readings = list[tuple[Tensor, tuple[Any, ...]]]  # for each batch of rows: what a block reads, and what else it is told

ROWS = 8  # rows of text that go through a block at once


class _Enough(Exception):
    """The rest of a pass is of no interest."""


def rows_of(texts: Iterable[Sequence[int]] | None, length: int) -> list[tuple[Tensor, Tensor]]:
    """The texts joined, and cut into batches of rows of one length: ids and segments, (B, T) each. No row is padded."""
    whole = [torch.tensor(as_ids(ids, "A calibration text"), dtype=torch.long) for ids in texts or ()]
    ids = torch.cat([*whole, torch.zeros(0, dtype=torch.long)])
    if not len(ids):
        raise ValueError(
            'method="gptq" needs calibration text: lists of token ids, of a few hundred poems or so, as '
            'encode_texts(tokenizer, texts) gives them. Without text: method="rtn" or "nf4".'
        )
    segments = torch.cat([torch.full_like(text, number) for number, text in enumerate(whole, start=1)])
    full = len(ids) // length * length
    cut = [t[:full].view(-1, length).split(ROWS) for t in (ids, segments)] if full else [(), ()]
    batches = list(zip(*cut, strict=True))
    return batches if full == len(ids) else [*batches, (ids[None, full:], segments[None, full:])]


def first_readings(model: LanguageModel, first: nn.Module, rows: list[tuple[Tensor, Tensor]]) -> Readings:
    """What the first block reads of each batch: (x, (past, mask, …)). The past is empty: it is good for all blocks."""
    readings: Readings = []

    def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        readings.append((inputs[0], inputs[1:]))
        raise _Enough

    device = next(model.embed.parameters()).device
    with _hooked({first: hook}):
        for ids, segments in rows:
            try:
                model.states(ids.to(device), None, segments.to(device))
            except _Enough:
                continue
    return readings


def layers_by_input(
    block: nn.Module, layers: dict[str, nn.Linear], reading: tuple[Tensor, tuple[Any, ...]]
) -> list[list[str]]:
    """Names of the layers in the order in which the block calls them; those that read the same tensor together."""
    sets: list[tuple[Tensor, list[str]]] = []

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor]) -> None:
            if sets and sets[-1][0] is inputs[0]:
                sets[-1][1].append(name)
            else:
                sets.append((inputs[0], [name]))

        return hook

    x, more = reading
    with _hooked({layer: note(name) for name, layer in layers.items()}):
        block(x, *more)
    return [names for _, names in sets]


def hessians(block: nn.Module, layers: dict[str, nn.Linear], readings: Readings) -> dict[str, Hessian]:
    """What these layers, in the order of their calls, read of the text. A pass ends at the last of them."""
    found = {name: Hessian(layer.in_features, layer.weight.device) for name, layer in layers.items()}
    last = list(layers)[-1]

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor]) -> None:
            found[name].add(inputs[0])
            if name == last:
                raise _Enough

        return hook

    with _hooked({layer: note(name) for name, layer in layers.items()}):
        for x, more in readings:
            try:
                block(x, *more)
            except _Enough:
                continue
    return found


@contextmanager
def _hooked(hooks: Mapping[nn.Module, Callable[..., None]]) -> Iterator[None]:
    """Each module's hook is called before it, for the time of the block."""
    handles = [module.register_forward_pre_hook(hook) for module, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout, for the time of the block."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
