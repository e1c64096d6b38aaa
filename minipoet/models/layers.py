"""Small formulae that several families share: activations by their published names, and the errors of a model.

Chapter: docs/gpt2.md
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor

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
