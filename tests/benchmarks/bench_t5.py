"""T5 of public shapes, with random weights, beside transformers: a step of training, a source read and written about.

    OMP_NUM_THREADS=2 python tests/benchmarks/bench_t5.py
    python tests/benchmarks/bench_t5.py --shapes rut5-small --measures step packed

step      forward and backward of --rows pairs of 128 and 64 tokens, all parameters learning, with dropout; in fp32 and
          in bf16 autocast. Tokens a second, of both sides. Ours sends the head its tokens in chunks.
lora      the same of a LoRA (r = 4 on q and v), by PEFT on their side.
packed    a step over pairs of many lengths: ours packs them into rows, theirs pads them to the longest of their batch.
write     64 new tokens, greedy, about sources of 128, one at a time and eight; fp32, and bf16 with our packed weights.
memory    the peak of a fresh process above its imports: the model, and two steps in fp32.

Both sides hold the same weights; in fp32 the losses must agree and the greedy ids are counted.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from bench_support import Row, alternate, count, in_fresh_process, need, parser, peak_memory, report, start, told
from torch import Tensor, nn

import minipoet
from minipoet.generation import SamplingSettings, generate_ids
from minipoet.models import load_model, pack_weights, save_model
from minipoet.models.packed import can_pack
from minipoet.models.t5 import T5, GatedT5, T5Config
from minipoet.training import Batch, Batches, autocast, batch_loss

GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "scale_decoder_outputs": False}
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"vocab_size": 200, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2},
    "t5-small": {"vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8},
    "rut5-small": {"vocab_size": 20100, "d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_heads": 6,
                   **GATED},
}  # fmt: skip
MEASURES = ("step", "lora", "packed", "write", "memory")
SOURCE, TARGET, PAIRS = 128, 64, 24  # tokens; pairs of many lengths, on average half as long


def arguments() -> argparse.Namespace:
    options = parser(__doc__, rounds=5)
    add = options.add_argument
    add("--shapes", nargs="+", choices=list(SHAPES)[1:], default=list(SHAPES)[1:])
    add("--measures", nargs="+", choices=MEASURES, default=list(MEASURES))
    add("--rows", type=count, default=8, help="pairs a step (default: %(default)s)")
    return options.parse_args()


def write_folder(shape: str, folder: Path) -> Path:
    """Random weights of this shape that both libraries read."""
    torch.manual_seed(0)
    save_model((GatedT5 if "feed_forward_proj" in SHAPES[shape] else T5)(T5Config(**SHAPES[shape])), folder)
    return folder


def read_theirs(folder: Path | str) -> nn.Module:
    from transformers import AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM.from_pretrained(folder)


def pairs(lengths: list[tuple[int, int]], vocabulary: int) -> Batches:
    """Random sources and targets of these lengths."""
    source = np.random.default_rng(0)
    sources = [source.integers(3, vocabulary, n).tolist() for n, _ in lengths]
    targets = [[0, *source.integers(3, vocabulary, n - 1).tolist(), 1] for _, n in lengths]
    return Batches(targets, max(map(max, lengths)), len(lengths), sources=sources)


def even(shape: str, rows: int) -> Batch:
    """One pair a row, all of one length: no padding, no packing."""
    batches = pairs([(SOURCE, TARGET)] * rows, SHAPES[shape]["vocab_size"])
    return batches._tensors([[row] for row in range(rows)])


def our_step(model: nn.Module, batch: Batch, precision: str) -> float:
    """The mean loss; gradients are made."""
    model.zero_grad(set_to_none=True)
    with autocast(torch.device("cpu"), precision):
        loss = batch_loss(model, batch) / batch.tokens()
    loss.backward()
    return float(loss)


def their_step(model: nn.Module, ids: Tensor, mask: Tensor, labels: Tensor, precision: str) -> float:
    model.zero_grad(set_to_none=True)
    with autocast(torch.device("cpu"), precision):
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    loss.backward()
    return float(loss)


def timed(run: Callable[[], Any], tokens: int) -> float:
    """Tokens a second."""
    started = time.perf_counter()
    run()
    return tokens / (time.perf_counter() - started)


def steps(name: str, folder: Path, shape: str, args: argparse.Namespace, lora: bool) -> list[Row]:
    """Both precisions, of all parameters or of a LoRA."""
    batch, rows = even(shape, args.rows), []
    tokens = batch.ids.numel() + batch.source.numel()  # type: ignore[union-attr]
    theirs_batch = batch.source, torch.ones_like(batch.source), batch.targets  # type: ignore[arg-type]
    ours, theirs = load_model(folder), read_theirs(folder)
    if lora:
        from peft import LoraConfig, get_peft_model

        minipoet.add_lora(ours, rank=4, targets=("q", "v"))
        theirs = get_peft_model(theirs, LoraConfig(task_type="SEQ_2_SEQ_LM", r=4, target_modules=["q", "v"]))
    losses = our_step(ours.eval(), batch, "fp32"), their_step(theirs.eval(), *theirs_batch, "fp32")
    note = f"losses {losses[0]:.5f}, {losses[1]:.5f} without dropout"
    ours.train()
    theirs.train()
    for precision in ("fp32", "bf16"):
        rates = alternate(
            lambda _, p=precision: timed(lambda: our_step(ours, batch, p), tokens),
            lambda _, p=precision: timed(lambda: their_step(theirs, *theirs_batch, p), tokens),
            args.rounds,
        )
        rows.append(told(Row(f"{name}, {precision}", "tokens/s", *rates, note=note if precision == "fp32" else "")))
    return rows


def packed_steps(name: str, folder: Path, shape: str, args: argparse.Namespace) -> list[Row]:
    """Pairs of many lengths: real tokens a second."""
    draw = np.random.default_rng(1)
    lengths = [(int(draw.integers(8, SOURCE + 1)), int(draw.integers(8, TARGET + 1))) for _ in range(PAIRS)]
    batches = pairs(lengths, SHAPES[shape]["vocab_size"])
    (batch,) = batches.once()
    tokens, rows = int((batch.segments > 0).sum() + (batch.source_segments > 0).sum()), []  # type: ignore[operator]
    alone = batches._tensors([[index] for index in range(PAIRS)])
    parts = [slice(first, first + args.rows) for first in range(0, PAIRS, args.rows)]
    ours, theirs = load_model(folder).train(), read_theirs(folder).train()

    def their_steps(precision: str) -> None:
        for part in parts:
            ids, mask = alone.source[part], alone.source_segments[part]  # type: ignore[index]
            width, height = int(mask.sum(1).max()), int(alone.segments[part].sum(1).max())
            their_step(theirs, ids[:, :width], mask[:, :width], alone.targets[part, :height].contiguous(), precision)

    for precision in ("fp32", "bf16"):
        rates = alternate(
            lambda _, p=precision: timed(lambda: our_step(ours, batch, p), tokens),
            lambda _, p=precision: timed(lambda: their_steps(p), tokens),
            args.rounds,
        )
        shape_of = f"{len(batch.ids)} rows of {batch.source.shape[1]} and {batch.ids.shape[1]}"  # type: ignore[union-attr]
        rows.append(told(Row(f"{name}, {precision}", "tokens/s", *rates, note=shape_of)))
    return rows


def writing(name: str, folder: Path, shape: str, args: argparse.Namespace, new: int) -> list[Row]:
    """New tokens a second, the reading of the source included."""
    rows = []
    for kind, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        ours, theirs = load_model(folder, dtype=dtype), read_theirs(folder).to(dtype).eval()
        packed = kind == "bf16" and can_pack()
        ours = pack_weights(ours) if packed else ours
        for many in (1, 8):
            source = even(shape, many).source
            assert source is not None
            settings = SamplingSettings(max_new_tokens=new, temperature=0)

            def our_ids(model=ours, source=source, settings=settings) -> list[list[int]]:
                return [list(text.ids) for text in generate_ids(model, source.tolist(), settings)]

            def their_ids(model=theirs, source=source) -> list[list[int]]:
                options: dict[str, Any] = {"do_sample": False, "max_new_tokens": new, "eos_token_id": None}
                found = model.generate(source, attention_mask=torch.ones_like(source), pad_token_id=0, **options)
                return found[:, 1:].tolist()

            ids = our_ids(), their_ids()
            equal = sum(a == b for pair in zip(*ids, strict=True) for a, b in zip(*pair, strict=True))
            note = f"{equal} of {many * new} ids equal" + (", ours packed" if packed else "")
            rates = alternate(
                lambda _, run=our_ids, n=many * new: timed(run, n),
                lambda _, run=their_ids, n=many * new: timed(run, n),
                args.rounds,
            )
            rows.append(told(Row(f"{name}, {kind}, {many} at a time", "tokens/s", *rates, note=note)))
    return rows


def step_memory(side: str, folder: str, shape: str, rows: int) -> float:
    """In a fresh process: the peak in MB of loading and two steps, above the imports."""
    if side == "theirs":
        from transformers import AutoModelForSeq2SeqLM  # noqa: F401
    batch = even(shape, rows)
    before = peak_memory()
    model = load_model(folder).train() if side == "ours" else read_theirs(folder).train()
    for _ in range(2):
        if side == "ours":
            our_step(model, batch, "fp32")
        else:
            assert batch.source is not None
            their_step(model, batch.source, torch.ones_like(batch.source), batch.targets, "fp32")
    return (peak_memory() - before) / 1e6


def main() -> None:
    args = arguments()
    need("transformers", "peft")
    new = TARGET
    if args.quick:
        args.shapes, args.rounds, args.rows, new = ["tiny"], 2, 2, 6
    rows: list[Row] = []
    with TemporaryDirectory() as temporary:
        for shape in args.shapes:
            folder = write_folder(shape, Path(temporary) / shape)
            if "step" in args.measures:
                rows += steps(f"{shape}: step", folder, shape, args, lora=False)
            if "lora" in args.measures:
                rows += steps(f"{shape}: LoRA step", folder, shape, args, lora=True)
            if "packed" in args.measures:
                rows += packed_steps(f"{shape}: many lengths", folder, shape, args)
            if "write" in args.measures:
                rows += writing(f"{shape}: writing", folder, shape, args, new)
            if "memory" in args.measures:
                sides = [
                    [in_fresh_process("bench_t5.step_memory", side, str(folder), shape, args.rows)]
                    for side in ("ours", "theirs")
                ]
                rows.append(told(Row(f"{shape}: memory of a step, fp32", "MB", *sides)))
    report("T5", rows, "transformers", args, f"{args.rows} pairs of {SOURCE} and {TARGET} tokens a step.")


if __name__ == "__main__":
    start(main)
