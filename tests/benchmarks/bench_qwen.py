"""Qwen2.5 in its full size with random weights: loading, writing and a step of LoRA, beside transformers + PEFT.

    python tests/benchmarks/bench_qwen.py                                        the shape of 3B: 7 GB of disk
    python tests/benchmarks/bench_qwen.py --sizes 0.5B 1.5B 3B --measures step   memory of a step at three sizes

The folder is as published: the config.json of Qwen2.5-Instruct and bf16 safetensors in shards of at most 2 GB with an
index. The numbers are one random block (seed 0) laid down again and again, so that 6 GB are written in seconds. Every
measurement is a fresh process, ours and theirs in turn; --reference names the Python that has transformers and PEFT.
On a machine that others use too: OMP_NUM_THREADS=1 and --clock process_time, the processor's seconds.

load    seconds to the model and to its first logits, with the files in the page cache and without them (Linux).
write   new tokens a second in bf16, greedy, after 32 ids a poem; `packed`: ours with `pack_weights`.
step    seconds and peak memory of a step: LoRA of rank 8 on all seven linear layers, fp32, over bf16 weights, gradient
        checkpointing, bf16 autocast, AdamW, and the loss of every token but the first over 151,936. Losses must agree.

Memory is what the process has above its imports at its peak: *resident*, the mapped pages of the files included, which
the system may drop and read again; and *own*, which no file holds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from bench_qwen_folder import SHAPES, forget_pages, write_folder
from bench_support import HERE, Row, alternate, count, parser, report, start, told


def arguments() -> argparse.Namespace:
    options = parser(__doc__, rounds=3)
    add = options.add_argument
    add("--sizes", nargs="+", default=["3B"], choices=[size for size in SHAPES if size != "tiny"])
    add("--measures", nargs="+", default=["load", "write", "step"], choices=["load", "write", "step"])
    add("--reference", default=sys.executable, metavar="PYTHON", help="the one that has transformers and peft")
    add("--clock", default="perf_counter", choices=["perf_counter", "process_time"])
    add("--batches", type=count, nargs="+", default=[1, 4], help="poems at a time (default: 1 4)")
    add("--tokens", type=count, default=32, help="new tokens a poem (default: %(default)s)")
    add("--rows", type=count, default=1, help="rows a step (default: %(default)s)")
    add("--lengths", type=count, nargs="+", default=[256, 512], help="tokens a row (default: 256 512)")
    add("--steps", type=count, default=2, help="counted steps a round (default: %(default)s)")
    return options.parse_args()


def in_process(python: str, function: str, *arguments: Any) -> Any:
    """What a function of bench_qwen_sides.py returns in a new process of this Python."""
    code = (
        "import bench_qwen_sides as s, json, sys; print(json.dumps(getattr(s, sys.argv[1])(*json.loads(sys.argv[2]))))"
    )
    paths = [str(HERE), str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    child = subprocess.run(
        [python, "-W", "ignore", "-c", code, function, json.dumps(arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(child.stdout.splitlines()[-1])


class Pair:
    """Both sides over one folder, in turn; each measurement a new process."""

    def __init__(self, size: str, folder: Path, args: argparse.Namespace) -> None:
        self.size, self.folder, self.args = size, folder, args
        self.parameters = write_folder(size, folder)

    def both(
        self, function: str, *arguments: Any, before: Callable[[Path], None] = lambda _: None
    ) -> tuple[list, list]:
        """What a function measured in each round, on our side and on theirs."""

        def side(name: str, python: str) -> Any:
            before(self.folder)
            return in_process(python, function, name, str(self.folder), self.args.clock, *arguments)

        return alternate(
            lambda _: side("ours", sys.executable), lambda _: side("theirs", self.args.reference), self.args.rounds, 0
        )

    def row(self, what: str, unit: str, sides: tuple[list, list], field: str, note: str = "") -> Row:
        """One line of the table."""
        return told(Row(f"{self.size}, {what}", unit, *([found[field] for found in side] for side in sides), note=note))

    def load(self) -> Iterator[Row]:
        """From the disk, and from the page cache."""
        size = f"{2 * self.parameters / 1e6:,.0f} MB of weights"
        for state, before in (("from the disk", forget_pages), ("from the page cache", lambda _: None)):
            sides = self.both("load", before=before)
            for field in ("model", "logits"):
                yield self.row(f"{state}: to the {'model' if field == 'model' else 'first logits'}", "s", sides, field)
            for field in ("resident", "own"):
                yield self.row(f"{state}: {field} memory", "MB", sides, field, size)

    def write(self) -> Iterator[Row]:
        """As loaded; then ours packed beside theirs as it was."""
        options = self.args.batches, self.args.tokens
        plain = self.both("write", *options)
        arguments = "ours", str(self.folder), self.args.clock, *options, True
        packed = [in_process(sys.executable, "write", *arguments) for _ in range(self.args.rounds)], plain[1]
        for name, sides in (("bf16", plain), ("bf16 packed", packed)):
            for batch in map(str, self.args.batches):
                rates = [[found[batch]["rate"] for found in side] for side in sides]
                note = same(sides[0][0][batch]["ids"], sides[1][0][batch]["ids"])
                yield told(Row(f"{self.size}, writing, {name}, batch {batch}", "tokens/s", *rates, note=note))
            for field in ("resident", "own"):
                yield self.row(f"writing, {name}: {field} memory", "MB", sides, field)

    def step(self) -> Iterator[Row]:
        """The first step does not count in time; in memory it does."""
        for length in self.args.lengths:
            sides = self.both("step", self.args.rows, length, self.args.steps + 1)
            seconds = [[median(found["seconds"][1:]) for found in side] for side in sides]
            trained, every = sides[0][0]["parameters"]
            assert sides[1][0]["parameters"] == [trained, every], sides[1][0]["parameters"]
            gap = abs(sides[0][0]["losses"][0] - sides[1][0]["losses"][0])
            note = f"{trained:,} of {every:,} train; first losses differ by {gap:.1e}"
            what = f"a step of {self.args.rows} × {length}"
            yield told(Row(f"{self.size}, {what}", "s", *seconds, note=note))
            note = f"estimated: {self.estimate(length)}"
            yield self.row(f"{what}: resident memory", "MB", sides, "resident", note)
            yield self.row(f"{what}: own memory", "MB", sides, "own")

    def estimate(self, length: int) -> str:
        """What `training_memory` says, in MB."""
        import minipoet
        from minipoet.models import load_model
        from minipoet.models.memory import training_memory

        model = minipoet.add_lora(load_model(self.folder, device="meta"), rank=8, targets="all-linear")
        return f"{training_memory(model, self.args.rows, length).total / 1e6:,.0f} MB"


def same(ours: list[list[int]], theirs: list[list[int]]) -> str:
    """How many of the ids agree before the first that does not; in bf16 they part at near-ties."""
    equal = [next((i for i, (a, b) in enumerate(zip(*pair, strict=True)) if a != b), len(pair[0]))
             for pair in zip(ours, theirs, strict=True)]  # fmt: skip
    return f"first {sum(equal)} of {sum(map(len, ours))} ids equal"


def main() -> None:
    args = arguments()
    if args.quick:
        args.sizes, args.rounds, args.lengths, args.tokens, args.steps = ["tiny"], 1, [32], 4, 1
    reference = in_process(args.reference, "versions") if shutil.which(args.reference) else ""
    if not reference:
        raise ValueError(
            f"{args.reference} is no Python that has transformers and peft: name another by --reference, or do "
            'pip install -e ".[reference]" in an environment of its own.'
        )
    rows: list[Row] = []
    for size in args.sizes:
        with TemporaryDirectory() as folder:
            pair = Pair(size, Path(folder), args)
            for measure in args.measures:
                rows += getattr(pair, measure)()
    seconds = "the processor's" if args.clock == "process_time" else "the clock's"
    report("Qwen2.5's shapes, random bf16 weights", rows, "transformers + PEFT", args,
           f"Seconds are {seconds}. The other side: {reference}.")  # fmt: skip


if __name__ == "__main__":
    start(main)
