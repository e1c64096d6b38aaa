"""Small pieces that several families share: the embedding, activations by their published names, a model's errors.

Chapter: docs/gpt2.md
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn


class Embedding(nn.Embedding):
    """`nn.Embedding` that draws no numbers for a tensor without memory: PyTorch takes a second to find that out."""

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()


# gelu_new is 0.5x(1 + tanh(√(2/π)(x + 0.044715x³))) of Hendrycks & Gimpel, https://arxiv.org/abs/1606.08415
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The activation that a config names. Raises ValueError for one that no family of ours uses."""
    if name not in ACTIVATIONS:
        raise ValueError(f"Unknown activation {name!r} in the config; known are {', '.join(sorted(ACTIVATIONS))}.")
    return ACTIVATIONS[name]


def context_error(length: int, context: int) -> ValueError:
    """The error for a text that does not fit."""
    return ValueError(
        f"The text is {length} tokens long, but this model reads at most {context}: shorten the prompt, "
        f"or ask for fewer new tokens."
    )
