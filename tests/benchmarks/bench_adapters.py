"""Poems of several adapters over one base: in one batch, and one adapter after another.

    python tests/benchmarks/bench_adapters.py
    python tests/benchmarks/bench_adapters.py --adapters 8 --each 1

beside PEFT        New tokens a second of a batch in which each row has an adapter of its own; PEFT's `adapter_names`.
beside itself      The same batch beside as many batches as there are adapters, each with one of them active.

ruGPT3-small's shape with random weights, adapters of rank 8 on all linear layers, greedy, exactly --tokens tokens a
poem. In fp32 the ids must be equal on all sides.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from bench_support import Row, alternate, count, need, parser, report, start, told, write_model

import minipoet
from minipoet.adapters import save_adapter, set_adapter
from minipoet.generation import SamplingSettings, generate_ids

PROMPT = [5, 17, 99, 4, 8, 256, 31, 77]


def arguments() -> argparse.Namespace:
    options = parser(__doc__, rounds=5)
    add = options.add_argument
    add("--adapters", type=count, default=3, help="how many (default: %(default)s)")
    add("--each", type=count, default=2, help="poems of each adapter (default: %(default)s)")
    add("--tokens", type=count, default=64, help="new tokens a poem (default: %(default)s)")
    args = options.parse_args()
    if args.quick:
        args.tokens, args.rounds = 4, 1
    return args


def adapted(folder: Path, names: list[str]) -> minipoet.models.LanguageModel:
    """The base with all adapters, each with numbers of its own, and each saved beside it."""
    model, _ = minipoet.load(folder, dtype=torch.float32)
    for seed, name in enumerate(names):
        minipoet.add_lora(model, rank=8, targets="all-linear", name=name, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            if parameter.requires_grad and not parameter.any():
                parameter.data.normal_(0, 0.05, generator=generator)
        save_adapter(model, folder / name)
    return model


def measure(args: argparse.Namespace, folder: Path) -> list[Row]:
    from peft import PeftModel
    from transformers import GPT2LMHeadModel

    write_model("rugpt3-small", folder)
    names = [f"poet{number}" for number in range(args.adapters)]
    model = adapted(folder, names)
    base = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
    base.generation_config.eos_token_id = None
    theirs = PeftModel.from_pretrained(base, folder / names[0], adapter_name=names[0]).eval()
    for name in names[1:]:
        theirs.load_adapter(folder / name, adapter_name=name)
    rows = [name for name in names for _ in range(args.each)]
    # Prompts that differ: equal ones would be read once.
    prompts = [[*PROMPT, 100 + number] for number in range(len(rows))]
    settings = SamplingSettings(max_new_tokens=args.tokens, temperature=0)
    written: dict[str, list[list[int]]] = {}

    def mixed(_: int) -> float:
        started = time.perf_counter()
        written["mixed"] = [list(c.ids) for c in generate_ids(model, prompts, settings, adapters=rows)]
        return len(rows) * args.tokens / (time.perf_counter() - started)

    def in_turn(_: int) -> float:
        started = time.perf_counter()
        written["in turn"] = []
        for number, name in enumerate(names):
            set_adapter(model, name)
            own = prompts[number * args.each : (number + 1) * args.each]
            written["in turn"] += [list(c.ids) for c in generate_ids(model, own, settings)]
        return len(rows) * args.tokens / (time.perf_counter() - started)

    def peft(_: int) -> float:
        started = time.perf_counter()
        ids = torch.tensor(prompts)
        found = theirs.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), adapter_names=rows, max_new_tokens=args.tokens,
            min_new_tokens=args.tokens, do_sample=False, pad_token_id=0,
        )  # fmt: skip
        written["PEFT"] = found[:, ids.shape[1] :].tolist()
        return len(rows) * args.tokens / (time.perf_counter() - started)

    found = []
    for label, other in (("beside PEFT's adapter_names", peft), ("beside one adapter after another", in_turn)):
        ours, others = alternate(mixed, other, args.rounds)
        same = "equal ids" if written["mixed"] == written["PEFT" if other is peft else "in turn"] else "OTHER IDS"
        what = f"{args.adapters} adapters, {args.each} poems each, {label}"
        found.append(told(Row(what, "tokens/s", ours, others, note=same)))
    return found


def main() -> None:
    args = arguments()
    need("transformers", "peft")
    with TemporaryDirectory() as folder:
        rows = measure(args, Path(folder))
    report("Several adapters in one batch", rows, "the other way", args, f"{args.tokens} new tokens a poem.")


if __name__ == "__main__":
    start(main)
