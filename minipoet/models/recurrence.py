"""Through time: a cell's steps over a whole text, and the gradient back along them (BPTT, Werbos 1990).

What does not depend on the past is done for all places at once: x = W_x·inputs + b_x is one matrix product before the
loop, and the gradient of W_h one product after it. In the loop remain h·W_hᵀ and the cell. Autograd would write down a
dozen nodes a step and add up W_h's gradient T times; here the way back is written by hand.

    through_time    (T, B, G·C) of x -> the state after each step, (T, B, C)

Chapter: docs/cells.md
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from minipoet.models.cells import Cell, State
from minipoet.models.linear import linear


def through_time(
    cell: Cell,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    state: State,
    new: Tensor | None = None,
    real: Tensor | None = None,
    start: State | None = None,
) -> tuple[Tensor, State]:
    """(T, B, G·C) of x, weight (G·C, C), bias (G·C,), state before (B, C) each -> outputs (T, B, C), the state after.

    new (T, B): places that forget the state before them, and read `start` instead, (C,) each, or zeros if it is None.
    real (T, B): places that are no padding, where the state stays as it is. None: there are none.
    Time comes first, so that what a step reads and writes lies in one piece.
    """
    # A sum of hundreds of steps wants all its digits. (There is no autocast to switch off where there are no numbers.)
    with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
        x, *parts = (part.to(weight.dtype) for part in (x, *state, *(start or ())))
        outputs, *last = _ThroughTime.apply(cell, new, real, x, weight, bias, *parts)
    return outputs, (outputs[-1], *last) if len(x) else tuple(parts[: cell.states])


class _ThroughTime(torch.autograd.Function):
    """The two loops. Per step: forget, multiply, let the cell make the state, keep the old one where it is padding."""

    @staticmethod
    def forward(
        ctx,
        cell: Cell,
        new: Tensor | None,
        real: Tensor | None,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        *state_and_start: Tensor,
    ) -> tuple[Tensor, ...]:
        T, B, C = x.shape[0], x.shape[1], weight.shape[1]
        state, start = state_and_start[: cell.states], state_and_start[cell.states :]
        begin = start or [weight.new_zeros(C)] * cell.states
        # states[part][t] is the state before step t, the start at new places; states[part][T] the last one.
        states = [x.new_empty(T + 1, B, C) for _ in range(cell.states)]
        kept = x.new_empty(T, B, cell.kept * C)
        for part, first in zip(states, state, strict=True):
            part[0] = first
        outputs = states[0][1:] if new is None else x.new_empty(T, B, C)
        forget, padding = (None if new is None else new[..., None]), (None if real is None else ~real[..., None])
        steps = _steps(states)
        for t, (x_t, kept_t) in enumerate(zip(x, kept, strict=True)):
            before, after = steps[t], steps[t + 1]
            if forget is not None:
                for part, anew in zip(before, begin, strict=True):
                    torch.where(forget[t], anew, part, out=part)
            cell.forward(x_t, linear(before[0], weight, bias), before, after, kept_t)
            if padding is not None:
                for part, old in zip(after, before, strict=True):
                    torch.where(padding[t], old, part, out=part)
            if new is not None:  # the next step may forget what is put out here
                outputs[t] = after[0]
        ctx.cell, ctx.forget, ctx.padding, ctx.starts = cell, forget, padding, len(start)
        ctx.save_for_backward(weight, kept, *states)
        return (outputs, *(part[T] for part in states[1:]))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_outputs: Tensor, *grad_last: Tensor):
        cell, forget, padding = ctx.cell, ctx.forget, ctx.padding
        weight, kept, *states = ctx.saved_tensors
        T, B, C = grad_outputs.shape
        grad_x = kept.new_empty(T, B, cell.gates * C)
        grad_r = grad_x if cell.summed else torch.empty_like(grad_x)
        steps, grads = _steps(states), list(zip(grad_outputs, kept, grad_x, grad_r, strict=True))
        grad: State = (grad_outputs.new_zeros(B, C), *grad_last)
        grad_start = [grad_outputs.new_zeros(B, C) for _ in range(ctx.starts)]  # nothing to add up without a start
        for t in range(T - 1, -1, -1):
            grad_h, kept_t, grad_x_t, grad_r_t = grads[t]
            grad = (grad[0] + grad_h, *grad[1:])
            stayed = None
            if padding is not None:
                stayed = [part.where(padding[t], 0) for part in grad]
                grad = tuple(part.masked_fill(padding[t], 0) for part in grad)
            direct = cell.backward(grad, steps[t], kept_t, grad_x_t, grad_r_t)
            grad = (direct[0] + linear(grad_r_t, weight.t()), *direct[1:])
            if stayed is not None:
                grad = tuple(part + old for part, old in zip(grad, stayed, strict=True))
            if forget is not None:
                for total, part in zip(grad_start, grad, strict=False):
                    total += part.where(forget[t], 0)
                grad = tuple(part.masked_fill(forget[t], 0) for part in grad)
        rows = grad_r.flatten(0, 1)  # (T·B, G·C)
        grad_weight = linear(states[0][:T].flatten(0, 1).t(), rows.t()).t() if ctx.needs_input_grad[4] else None
        grad_bias = rows.sum(0) if ctx.needs_input_grad[5] else None
        return None, None, None, grad_x, grad_weight, grad_bias, *grad, *(total.sum(0) for total in grad_start)


def _steps(states: Sequence[Tensor]) -> list[State]:
    """The state before each step, and after the last one: views of (T + 1, B, C) each."""
    return list(zip(*states, strict=True))
