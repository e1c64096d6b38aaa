"""Small pieces that several families share: the embedding, a norm, activations by published names, a model's errors.

Chapter: docs/gpt2.md
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Embedding(nn.Embedding):
    """`nn.Embedding` that says what is wrong with an id that it has not (on a CPU; a GPU stops the program).

    It draws no numbers for a tensor without memory: PyTorch takes a second to find that out.
    """

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()

    def forward(self, ids: Tensor) -> Tensor:
        """(B, T) -> (B, T, C)."""
        try:
            return super().forward(ids)
        except IndexError as error:
            raise ids_error(ids, self.num_embeddings) from error


class RMSNorm(nn.Module):
    """x / √(mean(x²) + ε) · weight: (..., C) -> (..., C). The length is taken in fp32; no mean is drawn off.

    Zhang & Sennrich 2019, https://arxiv.org/abs/1910.07467
    """

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        numbers = x.float()
        numbers = numbers * torch.rsqrt(numbers.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * numbers.to(x.dtype)


# gelu_new is 0.5x(1 + tanh(√(2/π)(x + 0.044715x³))) of Hendrycks & Gimpel, https://arxiv.org/abs/1606.08415
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The activation that a config names. Raises ValueError for one that no family of ours uses."""
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ValueError(f"Unknown activation {name!r} in the config; known are {', '.join(sorted(ACTIVATIONS))}.")
    return ACTIVATIONS[name]


def context_error(length: int, context: int) -> ValueError:
    """The error for a text that does not fit."""
    return ValueError(f"The text is {length} tokens long, but this model reads at most {context}: shorten it.")


def no_room_error(num_virtual_tokens: int, context: int) -> ValueError:
    """The error for a prefix that leaves no place for a text."""
    return ValueError(
        f"A prefix of {num_virtual_tokens} tokens leaves no room for a text: the model has {context} places in all, so "
        f"num_virtual_tokens can be {context - 1} at most."
    )


def ids_error(ids: Tensor, vocab_size: int) -> ValueError:
    """The error for ids that a model has not."""
    return ValueError(
        f"The ids go from {int(ids.min())} to {int(ids.max())}, but this model has 0 to {vocab_size - 1}: "
        f"encode with its own tokenizer."
    )


def check_ids(ids: Tensor, vocab_size: int | None = None) -> None:
    """Raise ValueError for anything but (B, T) whole numbers; on a CPU, given a vocab_size, for others than its ids."""
    if not isinstance(ids, Tensor):
        raise ValueError(f"A model reads a tensor of ids, (B, T), got {type(ids).__name__}: torch.tensor([ids]).")
    if ids.ndim != 2 or ids.is_floating_point():
        came = f"{tuple(ids.shape)} of {ids.dtype}"
        raise ValueError(f"A model reads whole numbers in two dimensions, (B, T), one row a text, got {came}.")
    if vocab_size is not None and ids.device.type == "cpu" and ids.numel():
        least, most = ids.aminmax()
        if least < 0 or most >= vocab_size:
            raise ids_error(ids, vocab_size)
