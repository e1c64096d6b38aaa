"""Cross-entropy in chunks: the logits of a whole batch are never there at once.

The logits of 4,096 tokens over 152,000 words are 2.5 GB in fp32, and their gradient as much. But the loss is a sum over
tokens; so each chunk of tokens is sent through the head, its loss *and its gradient* are taken at once, and its logits
die. What is left is the gradient of the states, and of the head's weights where they train.

    cross_entropy, batch_loss    Σ −ln p(target), of a head and its states; of a model and a batch
    token_sums, batch_sums       the same with the entropy and the right guesses, from the same logits

Chapters: docs/training.md, docs/metrics.md
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from minipoet.training.batch import IGNORED, Batch

CHUNK = 512  # tokens
LOGITS = 2**25  # numbers, 128 MiB of fp32: a chunk over a large vocabulary has fewer tokens
SLICE = 2**20  # numbers that are looked at together


class TokenSums(NamedTuple):
    """Sums over the predicted tokens, () each."""

    loss: Tensor  # −ln p(target)
    entropy: Tensor  # −Σ p ln p over the vocabulary, in nats: how surprised the model expected to be
    right: Tensor  # 1 where the target was the likeliest token


def cross_entropy(head: nn.Module, states: Tensor, targets: Tensor, chunk: int = CHUNK) -> Tensor:
    """Sum of −ln p(target) over targets that are not −100: (B, T, C), (B, T) -> (). Softmax in fp32.

    Gradients reach the states and the head's trainable parameters; there is no second derivative. The last operation
    of the head must not need its own result for its gradient, as a linear layer does not.
    """
    return token_sums(head, states, targets, chunk, metrics=False).loss


def token_sums(head: nn.Module, states: Tensor, targets: Tensor, chunk: int = CHUNK, metrics: bool = True) -> TokenSums:
    """`cross_entropy`, and what else the logits tell while they are there; 0 without `metrics`, and not computed.

    Only the loss has a gradient.
    """
    parameters = [p for p in head.parameters() if p.requires_grad]
    learning = torch.is_grad_enabled() and (states.requires_grad or bool(parameters))
    return TokenSums(*_ChunkedCrossEntropy.apply(head, states, targets, chunk, learning, metrics, *parameters))


def batch_loss(model: nn.Module, batch: Batch, chunk: int | None = None, cache: Any = None) -> Tensor:
    """The summed loss of a batch: divide by the tokens of the whole step. Arguments as for `batch_sums`."""
    return batch_sums(model, batch, chunk, cache, metrics=False).loss


def batch_sums(
    model: nn.Module, batch: Batch, chunk: int | None = None, cache: Any = None, metrics: bool = True
) -> TokenSums:
    """The `token_sums` of a batch: the one place where a batch meets a model.

    The batch is sent to the model's device. It is read on from `cache`, if one is given. chunk: tokens that go through
    the head at a time; None: `chunk_for`.
    """
    # Asked before it is sent, so that a GPU need not be waited for.
    one_text_a_row, one_source_a_row = _all_one(batch.segments), _all_one(batch.source_segments)
    batch = batch.to(next(model.parameters()).device)
    if batch.source is not None:
        source_segments = None if one_source_a_row else batch.source_segments
        cache = model.new_cache(batch.source, source_segments)  # type: ignore[operator]
    segments = None if one_text_a_row else batch.segments
    states = model.states(batch.ids, cache, segments)  # type: ignore[operator]
    return token_sums(model.head, states, batch.targets, chunk or chunk_for(model), metrics)  # type: ignore[arg-type]


def _all_one(segments: Tensor | None) -> bool:
    """Is there one text a row, and no padding?"""
    return segments is None or bool((segments == 1).all())


def chunk_for(model: nn.Module) -> int:
    """How many tokens to send through the model's head at a time."""
    vocabulary = getattr(getattr(model, "config", None), "vocab_size", 1)
    return max(1, min(CHUNK, LOGITS // vocabulary))


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Takes the gradients in the forward pass already; the backward pass only scales them by what comes in."""

    @staticmethod
    def forward(
        ctx,
        head: Callable,
        states: Tensor,
        targets: Tensor,
        chunk: int,
        learning: bool,
        metrics: bool,
        *parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        # Only tokens that have a target go through the head: padding and masked prompts cost nothing.
        where = (targets.flatten() != IGNORED).nonzero()[:, 0]
        flat, wanted = states.detach().flatten(0, 1), targets.flatten()[where]
        sums = torch.zeros(3, dtype=torch.float32, device=states.device)
        grad_states = torch.zeros_like(flat) if learning else None
        grads = [torch.zeros_like(p, dtype=torch.float32) for p in parameters] if learning else []
        parts = max(1, -(-len(where) // chunk))
        chunk = max(1, -(-len(where) // parts))  # chunks of one size: a short last one would cost nearly a whole one
        for rows, target in zip(where.split(chunk), wanted.split(chunk), strict=True):
            with torch.set_grad_enabled(learning):
                part = flat[rows].requires_grad_(learning)
                logits = head(part)
            sums += _look_at(logits.detach(), target, learning, metrics)
            if grad_states is not None:
                gradient = logits.detach()  # there it is now
                first, *others = torch.autograd.grad(logits, [part, *parameters], gradient)
                grad_states[rows] = first
                for sum_of_chunks, grad in zip(grads, others, strict=True):
                    sum_of_chunks += grad
            del logits  # before the next ones are made
        if grad_states is not None:
            of_parameters = [grad.to(p.dtype) for grad, p in zip(grads, parameters, strict=True)]
            ctx.save_for_backward(grad_states.view_as(states), *of_parameters)
        loss, entropy, right = (one.clone() for one in sums)  # not views, so that a caller may write `loss /= tokens`
        ctx.mark_non_differentiable(entropy, right)
        return loss, entropy, right

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss: Tensor, *_: Tensor):
        grad_states, *grads = ctx.saved_tensors
        return None, grad_states * grad_loss, None, None, None, None, *(grad * grad_loss for grad in grads)


def _look_at(logits: Tensor, target: Tensor, learning: bool, metrics: bool) -> Tensor:
    """(N, V), (N,) -> (3,): the sums of a chunk. Where the model learns, p − 1[target] takes the place of the logits:
    the gradient of the loss. A few rows at a time, so that what is made of them stays in the processor's cache."""
    few = max(1, SLICE // logits.shape[-1])
    sums = torch.zeros(3, dtype=torch.float32, device=logits.device)
    for rows, wanted in zip(logits.split(few), target.split(few), strict=True):
        p = rows.float()  # the same memory, if they are fp32
        if metrics:
            sums[2] += (p.argmax(-1) == wanted).sum()
        torch.log_softmax(p, -1, out=p)
        sums[0] -= p.gather(1, wanted[:, None]).sum()
        log_p = p.clone() if metrics else None
        if learning or metrics:
            p.exp_()
        if log_p is not None:
            sums[1] -= torch.dot(p.flatten(), log_p.flatten())
        if learning:
            p.scatter_add_(1, wanted[:, None], -torch.ones_like(p[:, :1]))
            rows.copy_(p)
    return sums
