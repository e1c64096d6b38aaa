"""The linear layer, y = x Wᵀ + b, by the fastest kernel that gives the same numbers.

Nearly all of a transformer's time goes into this one formula. In fp32 on a CPU `F.linear` calls Intel's MKL, which does
not use the widest instructions of other makers' processors, and only one core when x is a single token. oneDNN, the
other library inside PyTorch, uses both, and takes a half to a third of the time. PyTorch itself calls it for bfloat16
only, so `linear` asks for it by name; anywhere else, and where it is missing, `F.linear` does the work.

    linear    x, weight, bias -> y, with gradients
    Linear    nn.Linear that calls it

Chapter: docs/gpt2.md
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# The operator that torch.compile puts in a linear layer's place; it has no public name. None: not in this PyTorch.
_available = torch.backends.mkldnn.is_available()
onednn_linear: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if _available else None


class Linear(nn.Linear):
    """`nn.Linear`, (..., in) -> (..., out), by `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b: (..., in), (out, in), (out,) -> (..., out)."""
    if not _fits_onednn(x, weight):
        if (
            x.ndim > 2
        ):  # of (B, 1, C) cut out of (B, T, C) F.linear copies a whole bf16 weight; rows it takes as they are
            return F.linear(x.flatten(0, -2), weight, bias).view(*x.shape[:-1], len(weight))
        return F.linear(x, weight, bias)
    learning = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias))
    return _OneDNNLinear.apply(x, weight, bias) if learning else _product(x, weight, bias)


def _fits_onednn(x: Tensor, weight: Tensor) -> bool:
    """fp32 on a CPU, not under autocast, and rows to multiply."""
    return (
        onednn_linear is not None
        and x.dtype is torch.float32
        and weight.dtype is torch.float32
        and x.device.type == "cpu"
        and weight.device.type == "cpu"
        and x.ndim > 1
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
    )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return onednn_linear(x, weight, bias, "none", [], "")


class _OneDNNLinear(torch.autograd.Function):
    """y = x Wᵀ + b; ∂x = ∂y W; ∂W = ∂yᵀ x; ∂b = Σ ∂y. Each product by the same kernel, and only if it is needed."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight if ctx.needs_input_grad[0] else None)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        rows = grad.flatten(0, -2)  # (N, out)
        grad_x = _product(grad, weight.t()) if weight is not None else None
        grad_weight = _product(rows.t(), x.flatten(0, -2).t()) if x is not None else None
        return grad_x, grad_weight, rows.sum(0) if ctx.needs_input_grad[2] else None
