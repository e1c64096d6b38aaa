"""Cross-entropy in chunks: the logits of a whole batch are never there at once.

The logits of 4,096 tokens over 50,000 words are 800 MB in fp32, and their gradient as much again. But the loss is a sum
over tokens; so each chunk of tokens is sent through the head, its loss *and its gradient* are taken at once, and its
logits die. What is left is the gradient of the states, and of the head's weights where they train.

Chapter: docs/training.md
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from minipoet.training.packing import IGNORED, Batch

CHUNK = 512  # tokens; at 50,000 words 100 MB of fp32 logits


def cross_entropy(head: nn.Module, states: Tensor, targets: Tensor, chunk: int = CHUNK) -> Tensor:
    """Sum of −ln p(target) over targets that are not −100: (B, T, C), (B, T) -> (). Softmax in fp32.

    Gradients reach the states and the head's trainable parameters; there is no second derivative.
    """
    parameters = [p for p in head.parameters() if p.requires_grad]
    learning = torch.is_grad_enabled() and (states.requires_grad or bool(parameters))
    return _ChunkedCrossEntropy.apply(head, states, targets, chunk, learning, *parameters)


def batch_loss(model: nn.Module, batch: Batch, chunk: int = CHUNK, cache: Any = None) -> Tensor:
    """The summed loss of a batch (divide by the tokens of the whole step): the one place where a batch meets a model.

    The batch is sent to the model's device. It is read on from `cache`, if one is given.
    """
    one_text_a_row = bool((batch.segments == 1).all())  # asked before it is sent: a GPU need not be waited for
    batch = batch.to(next(model.parameters()).device)
    segments = None if one_text_a_row else batch.segments
    if batch.source is not None:
        cache = model.new_cache(batch.source, batch.source_segments)  # type: ignore[operator]
    states = model.states(batch.ids, cache, segments)  # type: ignore[operator]
    return cross_entropy(model.head, states, batch.targets, chunk)  # type: ignore[arg-type]


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Takes the gradients in the forward pass already; the backward pass only scales them by what comes in."""

    @staticmethod
    def forward(
        ctx, head: Callable, states: Tensor, targets: Tensor, chunk: int, learning: bool, *parameters: Tensor
    ) -> Tensor:
        # Only tokens that have a target go through the head: padding and masked prompts cost nothing.
        where = (targets.flatten() != IGNORED).nonzero()[:, 0]
        flat, wanted = states.detach().flatten(0, 1), targets.flatten()[where]
        total = torch.zeros((), dtype=torch.float32, device=states.device)
        grad_states = torch.zeros_like(flat) if learning else None
        grads = [torch.zeros_like(p, dtype=torch.float32) for p in parameters] if learning else []
        for rows, target in zip(where.split(chunk), wanted.split(chunk), strict=True):
            with torch.set_grad_enabled(learning):
                part = flat[rows].requires_grad_(learning)
                loss = F.cross_entropy(head(part).float(), target, reduction="sum")
            total += loss.detach()
            if grad_states is not None:
                first, *others = torch.autograd.grad(loss, [part, *parameters])
                grad_states[rows] = first
                for sum_of_chunks, grad in zip(grads, others, strict=True):
                    sum_of_chunks += grad
        if grad_states is not None:
            of_parameters = [grad.to(p.dtype) for grad, p in zip(grads, parameters, strict=True)]
            ctx.save_for_backward(grad_states.view_as(states), *of_parameters)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_total: Tensor):
        grad_states, *grads = ctx.saved_tensors
        return None, grad_states * grad_total, None, None, None, *(grad * grad_total for grad in grads)
