"""The matrix product: minipoet's `linear` and packed weights beside PyTorch's own `F.linear`.

    python tests/benchmarks/bench_linear.py

All matrices of ruGPT3-small's shape, one after another, 124 million weights: what a model spends nearly all its time
on. One row of x is a token being written, many are a prompt or a batch in training. A first line says how fast this
machine reads memory at all: no product of one row can be faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from bench_support import RUGPT3_SMALL, Row, alternate, parser, report, start, told
from torch import Tensor

from minipoet.models.linear import linear
from minipoet.models.packed import PackedLinear, can_pack

TOKENS = (1, 8, 128, 1024)


def matrices(dtype: torch.dtype, transposed: bool = False) -> list[Tensor]:
    """Random matrices of all linear layers; `transposed`: they lie in memory as in the published files."""
    C, V = RUGPT3_SMALL["n_embd"], RUGPT3_SMALL["vocab_size"]
    shapes = [(3 * C, C), (C, C), (4 * C, C), (C, 4 * C)] * RUGPT3_SMALL["n_layer"] + [(V, C)]
    found = [torch.randn(*shape).to(dtype) for shape in shapes]
    return [weight.t().contiguous().t() for weight in found] if transposed else found


def seconds(layers: list[Callable[[Tensor], Tensor]], inputs: list[Tensor], learn: bool = False) -> float:
    """Time of all products, and with `learn` of the gradients of x and the weights too."""
    started = time.perf_counter()
    with torch.set_grad_enabled(learn):
        for layer, x in zip(layers, inputs, strict=True):
            y = layer(x)
            if learn:
                y.backward(y.detach())
    return time.perf_counter() - started


def packed(weight: Tensor) -> PackedLinear:
    """A packed layer with this matrix."""
    plain = torch.nn.Linear(*weight.shape[::-1], bias=False, device="meta")
    plain.weight = torch.nn.Parameter(weight)
    return PackedLinear(plain)


def main() -> None:
    args = parser(__doc__, rounds=7).parse_args()
    rows = []

    def compare(what: str, ours: list, theirs: list, inputs: list[Tensor], learn: bool = False) -> None:
        sides = (lambda _: seconds(ours, inputs, learn)), (lambda _: seconds(theirs, inputs, learn))
        rows.append(told(Row(what, "s", *alternate(*sides, args.rounds))))

    for tokens in TOKENS[:1] if args.quick else TOKENS:
        for kind, dtype, lies in (("fp32", torch.float32, False), ("fp32, transposed", torch.float32, True),
                                  ("bf16, packed", torch.bfloat16, False)):  # fmt: skip
            weights = matrices(dtype, lies)
            inputs = [torch.randn(tokens, weight.shape[1]).to(dtype) for weight in weights]
            if kind != "bf16, packed":
                ours = [lambda x, w=w: linear(x, w) for w in weights]
            elif can_pack():
                ours = [packed(weight) for weight in weights]
            else:
                continue
            compare(f"{kind}, {tokens} tokens", ours, [lambda x, w=w: F.linear(x, w) for w in weights], inputs)
    weights = [weight.requires_grad_() for weight in matrices(torch.float32)]
    inputs = [torch.randn(128, weight.shape[1], requires_grad=True) for weight in weights]
    sides = [[lambda x, w=w, f=f: f(x, w) for w in weights] for f in (linear, F.linear)]
    compare("fp32 with gradients, 128 tokens", *sides, inputs, learn=True)
    report("The matrix product", rows, "F.linear", args, reading_speed(sum(w.numel() for w in weights)))


def reading_speed(numbers: int) -> str:
    """How fast memory is read: the sum of so many fp32 numbers."""
    memory, times = torch.ones(numbers), []
    for _ in range(7):
        started = time.perf_counter()
        memory.sum()
        times.append(time.perf_counter() - started)
    size = 4e-9 * numbers
    return f"Reading {size:.2f} GB (their sum): {median(times):.4f} s, {size / median(times):.0f} GB/s."


if __name__ == "__main__":
    start(main)
