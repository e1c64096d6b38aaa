"""What a norm and a cache cost: the two parts of gpt2_to_qwen.py that need no training.

    measure_norms, measure_block    RMSNorm beside LayerNorm, and the whole block that they stand in: time and memory
    measure_cache                   a new token after a long text, with many key heads and with few

Times are processor time on one thread, the least of several. Chapter: docs/qwen2.md
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from minipoet import count_parameters
from minipoet.models.layers import RMSNorm
from minipoet.models.qwen2 import Qwen2, Qwen2Config

WIDTH = 2048  # of Qwen2.5-3B, whose block the defaults of Qwen2Config describe
HALF_B = {"hidden_size": 896, "intermediate_size": 4864, "num_attention_heads": 14}  # a layer of Qwen2.5-0.5B
KEY_HEADS = (14, 2, 1)
LAYERS, TIMED = 24, 2  # that it has, and that are timed


class LayerNormByHand(nn.Module):
    """`nn.LayerNorm` written as our RMSNorm is: a mean to take away and a bias to add are what it has more."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight, self.bias, self.eps = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        numbers = x.float()
        numbers = numbers - numbers.mean(-1, keepdim=True)
        numbers = numbers * torch.rsqrt(numbers.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * numbers.to(x.dtype) + self.bias


def cpu_seconds(jobs: Mapping[str, Callable[[], Any]], times: int) -> dict[str, float]:
    """The least processor time of each job. They take turns, so that other work on the machine meets all alike."""
    found = dict.fromkeys(jobs, math.inf)
    for _ in range(times + 1):  # the first finds no memory laid out
        for name, job in jobs.items():
            started = time.process_time()
            job()
            found[name] = min(found[name], time.process_time() - started)
    return found


def kept_bytes(job: Callable[[], Any]) -> int:
    """What autograd keeps of a computation for the way back, in bytes."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = job()  # while it lives, no other tensor takes its memory's address
    del y
    return sum(kept.values())


def measure_norms(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Both norms as one writes them, and PyTorch's LayerNorm, which is one kernel; beside them a whole block."""
    torch.manual_seed(0)
    x = torch.randn(1, args.tokens, WIDTH, requires_grad=True)
    grad = torch.randn_like(x)
    norms = {
        "LayerNorm by hand": LayerNormByHand(WIDTH, 1e-5), "RMSNorm by hand, ours": RMSNorm(WIDTH, 1e-6),
        "`nn.LayerNorm`": nn.LayerNorm(WIDTH), "`nn.RMSNorm`": nn.RMSNorm(WIDTH, 1e-6),
    }  # fmt: skip

    def forward(norm: nn.Module) -> None:
        with torch.no_grad():
            norm(x)

    jobs = {("forward", name): lambda norm=norm: forward(norm) for name, norm in norms.items()}
    jobs |= {("both", name): lambda norm=norm: norm(x).backward(grad) for name, norm in norms.items()}
    seconds = cpu_seconds(jobs, args.times)
    return [
        {"norm": name, "parameters": count_parameters(norm).all, "forward_ms": 1e3 * seconds["forward", name],
         "both_ms": 1e3 * seconds["both", name], "kept_mb": kept_bytes(lambda norm=norm: norm(x)) / 1e6}
        for name, norm in norms.items()
    ]  # fmt: skip


def measure_block(args: argparse.Namespace) -> float:
    """The same tokens through a whole block of Qwen2.5-3B, forward only: milliseconds."""
    model = Qwen2(Qwen2Config(vocab_size=1, num_hidden_layers=1)).eval()
    ids = torch.zeros(1, args.tokens, dtype=torch.long)

    @torch.inference_mode()
    def forward() -> None:
        model.states(ids)

    return 1e3 * cpu_seconds({"block": forward}, min(args.times, 2))["block"]


def measure_cache(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A new token of one text through a layer of Qwen2.5-0.5B: after `past` others, and as the first."""
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        jobs = {}
        for G in KEY_HEADS:
            config = Qwen2Config(vocab_size=1, num_hidden_layers=TIMED, num_key_value_heads=G, **HALF_B)
            model = Qwen2(config).to(dtype).eval()
            jobs |= {(G, past): reader(model, past) for past in (0, args.past)}
        seconds = cpu_seconds(jobs, args.times)
        for G in KEY_HEADS:
            first, after = (1e3 * seconds[G, past] / TIMED for past in (0, args.past))
            of_a_token = 2 * LAYERS * G * config.head_size * dtype.itemsize
            found.append({"type": str(dtype).removeprefix("torch."), "key_heads": G, "bytes_a_token": of_a_token,
                          "cache_mb": of_a_token * args.past / 1e6, "first_ms": first, "after_ms": after})  # fmt: skip
    return found


def reader(model: Qwen2, past: int) -> Callable[[], Any]:
    """A function that reads one token more, behind so many that were read before (random keys will do)."""
    _, G, D = model.cache_sizes
    cache, ids = model.new_cache(1), torch.zeros(1, 1, dtype=torch.long)
    if past:
        for layer in cache.layers:
            layer.store(*torch.randn(2, 1, G, past, D).to(model.embed.weight.dtype))
        cache.length = past

    @torch.inference_mode()
    def read_on() -> None:
        model.states(ids, cache)

    return read_on


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Markdown, with a number of any length on the right."""
    lines = [f"| {' | '.join(columns)} |", "|---" + "|---:" * (len(columns) - 1) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def norms_table(found: Mapping[str, Any]) -> str:
    rows = [
        (of["norm"], f"{of['parameters']:,}", *(f"{of[key]:.2f}" for key in ("forward_ms", "both_ms", "kept_mb")))
        for of in found["norms"]
    ]
    columns = ("", "parameters", "forward, ms", "forward and backward, ms", "kept for the way back, MB")
    return f"{table(columns, rows)}\n\nA block of Qwen2.5-3B, forward: {found['block_ms']:.0f} ms"


def cache_table(found: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (f"{of['type']}, G = {of['key_heads']}", f"{of['bytes_a_token']:,}", f"{of['cache_mb']:.1f}",
         f"{of['first_ms']:.2f}", f"{of['after_ms']:.2f}", f"{of['after_ms'] - of['first_ms']:.2f}")
        for of in found
    ]  # fmt: skip
    columns = ("", "bytes a token", "cache, MB", "first token, ms a layer", "after the past, ms", "difference")
    return table(columns, rows)
