"""What a trainer reports of its steps, by the definitions of TRL 1.16: loss, gradient norm, entropy, tokens, accuracy.

    completion_metrics   loss, entropy and token accuracy of texts that are not learnt from
    logged               the rows that TRL would log of a history
    lab_table            the last of them, an author a line

The history of a run has them, a step an event, if `TrainSettings(metrics=True)` asks for them.

Chapter: docs/metrics.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from minipoet.checks import expect, expect_model, is_number, is_whole, shown
from minipoet.training.batch import Batch
from minipoet.training.denoising import Denoising
from minipoet.training.history import History
from minipoet.training.loss import batch_sums
from minipoet.training.packing import Batches
from minipoet.training.precision import autocast

Row = dict[str, Any]

# name in a history -> what TRL calls it, and how the steps since the last row become one number
_COLUMNS = {
    "loss": ("loss", "mean"),
    "norm": ("grad_norm", "last"),
    "lr": ("learning_rate", "last"),
    "entropy": ("entropy", "mean"),
    "num_tokens": ("num_tokens", "last"),
    "accuracy": ("mean_token_accuracy", "mean"),
}
# the columns of the lab's table
_LAB = {
    "loss": "{:.3f}", "grad_norm": "{:.3f}", "entropy": "{:.3f}", "num_tokens": "{:,}", "mean_token_accuracy": "{:.3f}",
}  # fmt: skip


@dataclass(frozen=True)
class SFTMetrics:
    """Means over the predicted `tokens`."""

    loss: float  # −ln p of the right token, in nats
    entropy: float  # −Σ p ln p of what the model expected, in nats
    accuracy: float  # share of tokens that were the likeliest
    tokens: int


def tokens_seen(batch: Batch) -> int:
    """All tokens of the texts in a batch: prompts and the last ones, which are only targets; padding not."""
    real = batch.segments > 0
    ends = real & (batch.segments != F.pad(batch.segments, (0, 1))[:, 1:])
    return int(real.sum() + ends.sum())


@torch.no_grad()
def completion_metrics(model: nn.Module, batches: Batches | Denoising, precision: str = "fp32") -> SFTMetrics:
    """Measure the model once on all texts of `batches`, on the tokens behind their prompts.

    The figures do not depend on how the texts are divided into batches. The model is put in evaluation mode for the
    time. Raises ValueError for what is no Batches, and texts that are not for this model.
    """
    expect_model(model)
    expect(batches, (Batches, Denoising), "batches", "Batches(texts, length, rows, prompts=...)")
    batches.check(model)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    sums, tokens = [0.0, 0.0, 0.0], 0
    try:
        for batch in batches.once():
            with autocast(device, precision):
                found = torch.stack(batch_sums(model, batch)).tolist()
            sums = [total + one for total, one in zip(sums, found, strict=True)]
            tokens += batch.tokens()
    finally:
        model.train(was_training)
    loss, entropy, right = sums
    return SFTMetrics(loss / tokens, entropy / tokens, right / tokens, tokens)


def logged(history: History, every: int = 1, epoch_steps: float | None = None) -> list[Row]:
    """The rows that TRL would log every so many steps, under TRL's names, and one of what is left at the end.

    Loss, entropy and accuracy are means over the steps since the row before; gradient norm and learning rate are those
    of the last step; num_tokens counts from the beginning. epoch_steps: optimiser steps in an epoch, for `epoch`.
    """
    expect(history, History, "history", "what train gives, or read_history")
    if not is_whole(every, 1):
        raise ValueError(f"every must be a whole number of steps, 1 or more, got {shown(every)}.")
    if epoch_steps is not None and not (is_number(epoch_steps) and epoch_steps > 0):
        raise ValueError(f"epoch_steps must be a number above 0, got {shown(epoch_steps)}.")
    rows: list[Row] = []
    since: list[Row] = []
    steps = [event for event in history.events if "loss" in event]
    for event in steps:
        since.append(event)
        if event["step"] % every == 0 or event is steps[-1]:
            rows.append(_row(since) | ({"epoch": event["step"] / epoch_steps} if epoch_steps else {}))
            since = []
    return rows


def _row(events: Sequence[Row]) -> Row:
    """One row of the steps since the one before."""
    last = events[-1]
    row = {"step": last["step"]}
    for ours, (theirs, how) in _COLUMNS.items():
        if ours in last:
            row[theirs] = last[ours] if how == "last" else fmean(event[ours] for event in events)
    return row


def lab_table(rows: Mapping[str, Sequence[Row]]) -> str:
    """The table of the lab, in Markdown: for each author the last row that `logged` made of his training.

    Raises ValueError, naming all of them, for authors without a row or without the metrics in it.
    """
    known = isinstance(rows, Mapping) and all(isinstance(of, Sequence) for of in rows.values())
    if not known or not rows:
        raise ValueError(f"lab_table needs the rows of each author ({{author: logged(history)}}), got {shown(rows)}.")
    wrong = [author for author, of in rows.items() if not of or any(name not in of[-1] for name in _LAB)]
    if wrong:
        raise ValueError(
            f"There are no metrics of the training of {', '.join(wrong)}: train with TrainSettings(metrics=True)."
        )
    head = ["author", "loss", "gradient norm", "entropy", "tokens", "mean token accuracy"]
    lines = [[author, *(form.format(of[-1][name]) for name, form in _LAB.items())] for author, of in rows.items()]
    name_width, *widths = (max(map(len, column)) for column in zip(head, *lines, strict=True))
    first, *body = (
        " | ".join([name.ljust(name_width), *(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))])
        for name, *cells in [head, *lines]
    )
    rule = "|".join(["-" * (name_width + 2), *("-" * (width + 1) + ":" for width in widths)])
    return "\n".join([f"| {first} |", f"|{rule}|", *(f"| {line} |" for line in body)])
