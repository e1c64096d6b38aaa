"""Writing with weights of four bits and of eight, beside bfloat16: single layers, then whole models.

    python tests/benchmarks/bench_quantized.py
    python tests/benchmarks/bench_quantized.py --measures layer
    python tests/benchmarks/bench_quantized.py --measures model --size 3B --blocks 4

layer       one token through a matrix of Qwen2.5-3B; each call reads another copy, so that none is found in a cache
model       new tokens a second of Qwen2.5's full shape (or of its first --blocks blocks) and the memory of the process,
            in a fresh process a side; the embedding, which is the head too, stays bfloat16. The other side has the same
            weights written out in bfloat16, as loaded, and in oneDNN's own order (`pack_weights`)

The note says how far the products are apart, and how many of the greedy ids agree.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Any

from bench_qwen import same
from bench_qwen_folder import BLOCK, CONFIG, SHAPES, numbers
from bench_qwen_sides import PROMPT, peak
from bench_support import Row, alternate, count, in_fresh_process, parser, report, start, told

LAYERS = ((2048, 11008), (11008, 2048), (2048, 2048))  # (in, out): up and gate, down, q and out
GROUP, SCALE = 128, 0.0043  # Codes 0 … 15 times this spread by 0.02, as weights do
BYTES = 200_000_000  # of copies of a matrix: more than any cache holds


def random_codes(n_in: int, n_out: int, seed: int, bits: int = 4, shuffled: bool = False) -> Any:
    """Codes of a random symmetric matrix, (out, in), as large as N(0, 0.02²); groups of 128, or of 8 bits one scale."""
    import torch

    from minipoet.quantization import Codes

    generator = torch.Generator().manual_seed(seed)
    group, middle = (min(GROUP, n_in), 8) if bits == 4 else (n_in, 128)
    q = torch.randint(0, 2 * middle, (n_out, n_in), dtype=torch.uint8, generator=generator)
    scales = (SCALE * 8 / middle * (0.5 + torch.rand(n_in // group, n_out, generator=generator))).half()
    g_idx = torch.arange(n_in, dtype=torch.int32) // group
    order = torch.randperm(n_in, generator=generator) if shuffled else slice(None)
    zeros = torch.full(scales.shape, middle, dtype=torch.uint8)
    return Codes(q, scales, zeros, g_idx[order], bits)


def compare_layers(args: argparse.Namespace) -> Iterator[Row]:
    """Milliseconds of one token, few bits beside bf16."""
    import torch
    import torch.nn.functional as F

    from minipoet.quantization.kernels import FastInt4, FastInt8

    kinds = {"int4": (4, False), "int4, act-order": (4, True), "int8": (8, False)}
    for n_in, n_out in [(256, 512)] if args.quick else LAYERS:
        x = torch.randn(1, n_in, generator=torch.Generator().manual_seed(0)).bfloat16()
        for kind, (bits, shuffled) in kinds.items():
            codes = random_codes(n_in, n_out, 0, bits, shuffled)
            weight = codes.dense(torch.bfloat16).contiguous()
            fast = (FastInt8 if bits == 8 else FastInt4).of(codes)
            ours = [partial(copy, x) for copy in copies(fast, args.bytes * 8 // (n_in * n_out * bits))]
            theirs = [partial(F.linear, x, copy) for copy in copies(weight, args.bytes // (n_in * n_out * 2))]
            apart = float((ours[0]() - theirs[0]()).norm() / theirs[0]().norm())
            times = alternate(lambda _, f=ours: fastest(f), lambda _, f=theirs: fastest(f), args.rounds)
            yield told(
                Row(f"{n_in} × {n_out}, {kind}", "ms", *times, aim="3" if bits == 4 else "", note=f"{apart:.4f} apart")
            )


def copies(one: Any, number: int) -> list[Any]:
    """Each in memory of its own."""
    return [deepcopy(one) for _ in range(max(2, number))]


def fastest(calls: list[Callable[[], Any]]) -> float:
    """Milliseconds of the fastest call, in three passes over all of them."""
    import torch

    with torch.inference_mode():
        return 1000 * min(timed(call) for _ in range(3) for call in calls)


def fill(model: Any, form: str) -> Any:
    """Random weights for a model on the meta device: "int4", "int8", or int4 written out as "bf16".

    Matrices of one shape are copies of one another, each in memory of its own: to draw three billion numbers would take
    longer than to measure.
    """
    import torch
    from torch import nn

    firsts: dict[tuple[int, int], nn.Module] = {}
    for name in [name for name, layer in model.blocks.named_modules() if isinstance(layer, nn.Linear)]:
        meta = model.blocks.get_submodule(name)
        sides = meta.in_features, meta.out_features
        if sides not in firsts:
            firsts[sides] = random_layer(*sides, form)
        layer = deepcopy(firsts[sides])
        if meta.bias is not None:
            bias = torch.zeros(sides[1], dtype=torch.bfloat16)
            layer.bias = bias if form != "bf16" else nn.Parameter(bias)
        model.blocks.set_submodule(name, layer)
    block = torch.randn(BLOCK, generator=torch.Generator().manual_seed(0))
    for name, parameter in list(model.named_parameters()):
        if parameter.is_meta:
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, nn.Parameter(numbers(block, name, parameter.shape)))
    model.tie()
    return model.requires_grad_(False).eval()


def random_layer(n_in: int, n_out: int, form: str) -> Any:
    """A layer without a bias."""
    import torch
    from torch import nn

    from minipoet.models.linear import Linear
    from minipoet.quantization.kernels import FastInt4, FastInt8

    codes = random_codes(n_in, n_out, n_out, 8 if form == "int8" else 4)
    if form != "bf16":
        return (FastInt8 if form == "int8" else FastInt4).of(codes)
    layer = Linear(n_in, n_out, bias=False, device="meta")
    layer.weight = nn.Parameter(codes.dense(torch.bfloat16).contiguous(), requires_grad=False)
    return layer


def qwen(size: str, blocks: int | None) -> Any:
    """Qwen2.5's shape on the meta device, with fewer blocks if asked."""
    import torch

    from minipoet.models.families import family, make_config

    shape = dict(SHAPES[size])
    shape["num_hidden_layers"] = blocks or shape["num_hidden_layers"]
    cls = family({"model_type": "qwen2"})
    with torch.device("meta"):
        return cls(make_config(cls, CONFIG | shape))


def write(form: str, size: str, blocks: int | None, tokens: int, times: int) -> dict[str, Any]:
    """In a fresh process: new tokens a second (a median; of the fastest text), their ids, and MB above the imports."""
    import torch

    import minipoet.quantization.kernels  # noqa: F401
    from minipoet.generation import SamplingSettings, generate_ids
    from minipoet.models import pack_weights

    with peak() as memory:
        model = fill(qwen(size, blocks), form.removesuffix(" packed"))
        if form.endswith("packed"):
            pack_weights(model)
        prompt = torch.randint(150_000, (PROMPT,), generator=torch.Generator().manual_seed(1)).tolist()
        settings, seconds = SamplingSettings(max_new_tokens=tokens + 1, temperature=0), []
        for _ in range(times):
            moments: list[float] = []
            found = generate_ids(
                model, [prompt], settings, on_token=lambda _, __, to=moments: to.append(time.perf_counter())
            )
            seconds.append(median(after - before for before, after in pairwise(moments)))
    return {"rate": 1 / min(seconds), "ids": [list(found[0].ids)]} | memory


def timed(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def compare_models(args: argparse.Namespace) -> Iterator[Row]:
    """Tokens a second, without the reading of the prompt, and the memory of the process above its imports."""
    rest = args.size, args.blocks, args.tokens, args.times
    shape = f"{args.size}, {args.blocks} blocks" if args.blocks else args.size
    for few, plain in args.pairs:
        ours, theirs = alternate(
            lambda _, form=few: in_fresh_process("bench_quantized.write", form, *rest),
            lambda _, form=plain: in_fresh_process("bench_quantized.write", form, *rest),
            args.rounds,
            warm_up=0,
        )
        rates, memory = ([[one[what] for one in side] for side in (ours, theirs)] for what in ("rate", "own"))
        note = same(ours[0]["ids"], theirs[0]["ids"]) if few == "int4" else ""
        yield told(
            Row(f"{shape}, {few} beside {plain}", "tokens/s", *rates, aim="2" if few == "int4" else "", note=note)
        )
        yield told(Row("its memory", "MB", *memory, aim="2.5" if (few, plain) == ("int4", "bf16") else ""))


def main() -> None:
    options = parser(__doc__, rounds=5)
    add = options.add_argument
    add("--measures", nargs="+", default=["layer", "model"], choices=["layer", "model"])
    add("--size", default="3B", choices=list(SHAPES))
    add("--blocks", type=count, help="of the model's blocks only so many (default: all)")
    add("--tokens", type=count, default=16, help="new tokens (default: %(default)s)")
    add("--times", type=count, default=3, help="texts a process, of which the fastest counts (default: %(default)s)")
    args = options.parse_args()
    args.bytes, args.pairs = BYTES, [("int4", "bf16"), ("int4", "bf16 packed"), ("int8", "bf16")]
    if args.quick:
        args.rounds, args.size, args.blocks, args.tokens, args.times, args.bytes = 1, "0.5B", 1, 4, 1, 1_000_000
    from minipoet.quantization.kernels import has_kernels

    if not has_kernels():
        raise ValueError(
            "This PyTorch has no int4 and int8 kernels that are fast on this processor: nothing to measure."
        )
    rows: list[Row] = []
    for measure in args.measures:
        rows += (compare_layers if measure == "layer" else compare_models)(args)
    report("Few bits beside bfloat16, one token at a time", rows, "bf16", args,
           f"Groups of {GROUP}; {args.tokens} tokens after a prompt of {PROMPT}.")  # fmt: skip


if __name__ == "__main__":
    start(main)
