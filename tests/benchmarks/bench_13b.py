"""ruGPT-3.5-13B on paper and in pieces: what its shape takes in each form, and what a few real blocks of it do in int4.

    python tests/benchmarks/bench_13b.py
    python tests/benchmarks/bench_13b.py --blocks 1 3

On paper: the whole shape on the meta device, parameters counted, bytes by the form of the weights.
In pieces: models of the real sizes but with few blocks, random weights, each in a fresh process. Two of them, of a and
b blocks, tell what a block costs and what is there besides (embedding, head): the whole is besides + 40 · block.
Measured: new tokens a second, tokens of a prompt a second, seconds and memory of a step of LoRA (rank 8 on all linear
layers, gradient checkpointing, AdamW). Extrapolated values say so.
"""

from __future__ import annotations

import argparse
from typing import Any

from bench_quantized import fill, timed
from bench_qwen_sides import peak
from bench_support import count, in_fresh_process, machine_line, parser, start

RUGPT35 = {"vocab_size": 50272, "n_positions": 2048, "n_embd": 5120, "n_layer": 40, "n_head": 40}
QUICK = {"vocab_size": 512, "n_positions": 512, "n_embd": 256, "n_layer": 40, "n_head": 4}
BITS = {  # of a weight in a block, scales and the like besides
    "fp32": 32.0,
    "bf16": 16.0,
    "int8 a column": 8.0,
    "int4, as filed": 4 + (16 + 4) / 128,
    "int4, for speed": 4 + (16 + 8 + 32) / 128,
    "int3, as filed": 3 + (16 + 3) / 128,
}


def shape(blocks: int, quick: bool) -> Any:
    """The model on the meta device, with so many blocks."""
    import torch

    from minipoet.models.gpt2 import GPT2, GPT2Config

    sizes = (QUICK if quick else RUGPT35) | {"n_layer": blocks}
    with torch.device("meta"):
        return GPT2(GPT2Config(**sizes, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0))


def on_paper(quick: bool) -> list[list[str]]:
    """Form, GB of the whole, GB of a block, and parameters in the first line's note."""
    import torch

    model = shape(RUGPT35["n_layer"], quick)
    every = sum(p.numel() for p in model.parameters())
    packed = sum(layer.weight.numel() for layer in model.blocks.modules() if isinstance(layer, torch.nn.Linear))
    print(f"{every:,} parameters, {packed:,} of them in the blocks' matrices, {every - packed:,} besides\n")
    rows = []
    for form, bits in BITS.items():
        rest = (4 if form == "fp32" else 2) * (every - packed)
        size = bits * packed / 8
        rows.append([form, f"{bits:.3g}", f"{(size + rest) / 1e9:.2f}", f"{size / len(model.blocks) / 1e9:.3f}"])
    return rows


def write(blocks: int, context: int, tokens: int, quick: bool) -> dict[str, float]:
    """Seconds of a new token after `context` others, and of reading these; the memory, in MB."""
    import torch

    from minipoet.quantization.kernels import has_kernels  # noqa: F401

    with peak() as memory, torch.inference_mode():
        model = fill(shape(blocks, quick), "int4")
        ids, seconds = torch.arange(context)[None] % 500, []
        reading = min(timed(lambda: model.head(model.states(ids, model.new_cache(1))[:, -1])) for _ in range(2))
        cache = model.new_cache(1)
        model.states(ids, cache)
        for _ in range(tokens):
            seconds.append(timed(lambda: model(ids[:, :1], cache)))
    return {"a new token": min(seconds), "reading the prompt": reading} | {"MB of writing": memory["own"]}


def step(blocks: int, length: int, quick: bool) -> dict[str, float]:
    """Seconds of a step of LoRA on one text, the second of two, and the memory of model and steps, in MB."""
    import torch

    import minipoet
    from minipoet.training import Batch, batch_loss
    from minipoet.training.batch import IGNORED

    with peak() as memory:
        model = fill(shape(blocks, quick), "int4")
        minipoet.add_lora(model, rank=8, targets="all-linear").train()
        model.gradient_checkpointing = True
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, 1e-4, weight_decay=0.0)
        ids = torch.arange(length)[None] % 500
        targets = torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], IGNORED)], dim=1)

        def learn() -> None:
            with torch.autocast("cpu", torch.bfloat16):
                loss = batch_loss(model, Batch(ids, torch.ones_like(ids), targets)) / (length - 1)
            loss.backward()
            assert all(p.grad is not None for p in trained) and torch.isfinite(loss)
            optimizer.step()
            optimizer.zero_grad()

        seconds = [timed(learn) for _ in range(2)]
    return {"a step of LoRA": seconds[-1], "MB of a step": memory["own"], "trained": sum(p.numel() for p in trained)}


def extrapolated(few: dict[str, float], more: dict[str, float], blocks: list[int]) -> list[list[str]]:
    """What, with a blocks, with b, of one block, of the rest, of all 40."""
    rows = []
    for what, first in few.items():
        block = (more[what] - first) / (blocks[1] - blocks[0])
        besides = first - block * blocks[0]
        numbers = (first, more[what], block, besides, besides + RUGPT35["n_layer"] * block)
        rows.append([what, *(f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3f}" for number in numbers)])
    return rows


def table(columns: list[str], rows: list[list[str]]) -> None:
    for cells in (columns, ["---"] * len(columns), *rows):
        print(f"| {' | '.join(cells)} |")
    print()


def best(function: str, blocks: int, rounds: int, *arguments: Any) -> dict[str, float]:
    """The least of each measure over fresh processes: other work on the machine only adds."""
    found = [in_fresh_process(f"bench_13b.{function}", blocks, *arguments) for _ in range(rounds)]
    return {what: min(one[what] for one in found) for what in found[0]}


def measure(args: argparse.Namespace) -> None:
    columns = ["", *(f"{n} blocks" for n in args.blocks), "of a block", "besides", "of all 40"]
    for function, rest in (("write", (args.context, args.tokens)), ("step", (args.length,))):
        few, more = (best(function, n, args.rounds, *rest, args.quick) for n in args.blocks)
        rows = extrapolated(few, more, args.blocks)
        table(columns, rows)
        if function == "write":
            token, prompt = (float(row[-1].replace(",", "")) for row in rows[:2])
            print(f"All 40: {1 / token:.2f} new tokens a second, {args.context / prompt:.1f} of a prompt's.\n")


def main() -> None:
    options = parser(__doc__, rounds=2)
    add = options.add_argument
    add("--blocks", type=count, nargs=2, default=[1, 3], metavar="N", help="of the two models (default: 1 3)")
    add("--context", type=count, default=128, help="tokens of the prompt (default: %(default)s)")
    add("--tokens", type=count, default=8, help="new tokens (default: %(default)s)")
    add("--length", type=count, default=256, help="tokens of a text in training (default: %(default)s)")
    args = options.parse_args()
    if args.blocks[0] >= args.blocks[1]:
        raise ValueError(f"--blocks takes a smaller number and a larger one, got {args.blocks[0]} {args.blocks[1]}.")
    if args.quick:
        args.rounds, args.context, args.tokens, args.length = 1, 32, 2, 32
    from minipoet.quantization.kernels import has_kernels

    if not has_kernels():
        raise ValueError("This PyTorch has no int4 kernel that is fast on this processor: nothing to measure.")
    print("\n### ruGPT-3.5-13B's shape\n")
    table(["form", "bits a weight", "GB", "GB a block"], on_paper(args.quick))
    measure(args)
    print("Seconds, and MB above the imports; random weights.", machine_line(), sep="\n")
    if args.quick:
        print("Settings too small to mean anything (--quick).")


if __name__ == "__main__":
    start(main)
