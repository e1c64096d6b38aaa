"""How few bits can a poet's weights have? Two models in 8, 4, 3 and 2 bits, measured on verse they have not seen.

    python examples/compare_bits.py                                      the embedded models and corpus, some minutes
    python examples/compare_bits.py --corpus poems.jsonl --author Пушкин
    python examples/compare_bits.py --models FOLDER --bits 4 --group-sizes 32 128 -1

Each model is quantised by rounding to nearest (rtn), by GPTQ (calibrated on poems of the training part), by GPTQ with
act-order, in NF4 and in eight bits, and measured on the held-out poems: bits per character, the size of its file,
seconds to quantise, tokens per second. Both times are of one core's work (CPU time), so that it does not matter what
else the machine does. In --out: report.md, results.json, and a picture for each model. Chapter: docs/gptq.md
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import torch
from lora_pushkin import read

import minipoet
from minipoet.command import run
from minipoet.evaluation import likelihood
from minipoet.files import write_json_atomic, write_text_atomic
from minipoet.generation import SamplingSettings, generate_ids
from minipoet.models import LanguageModel
from minipoet.plots import plot_points
from minipoet.quantization import FewBitLinear, QuantConfig
from minipoet.quantization.calibrate import quantize
from minipoet.quantization.kernels import pack_for_speed
from minipoet.tokenization import Tokenizer, encode_texts

WINDOW = 256  # tokens in which held-out verse is read


@dataclass(frozen=True)
class Kind:
    """A row of the table: what is done to the model. method "": nothing."""

    name: str
    method: str = ""
    config: QuantConfig | None = None


@dataclass(frozen=True)
class Row:
    """What was measured. error: mean over the layers, as `quantize` tells it. fast: None where no kernel fits."""

    name: str
    bits_per_character: float
    megabytes: float
    seconds: float
    error: float
    tokens_per_second: float
    fast: float | None


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    models = ["poet-tiny", "poet-chat"]
    add("--models", nargs="+", default=models, help=f"names, folders or ids on the hub (default: {' '.join(models)})")
    corpora = '"embedded" (written for this package), "pushkin" (fetched once), or a folder of .txt, a .txt, a .jsonl'
    add("--corpus", "--data", default="embedded", help=corpora)
    add("--author", help="only this author's poems of a .jsonl corpus")
    add("--out", type=Path, default=Path("runs/compare_bits"), help="for the results (default: %(default)s)")
    add("--bits", type=int, nargs="+", default=[4, 3, 2], help="of rtn and GPTQ (default: 4 3 2)")
    add("--group-sizes", type=int, nargs="+", default=[64], help="inputs that share a scale; -1: all (default: 64)")
    add("--asym", action="store_true", help="grids from the least to the largest weight, not about 0")
    add("--mse", action="store_true", help="shrink each group's range where that loses less (slow)")
    add("--poems", type=int, help="calibrate on so many poems, drawn by --seed (default: 128, or all)")
    add("--held-out", type=int, default=200, help="measure on so many poems at most (default: %(default)s)")
    add("--tokens", type=int, default=64, help="written for the speed (default: %(default)s)")
    add("--validation", type=float, default=0.2, help="share of the verse that is held out (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the poems to calibrate on")
    add("--split-seed", type=int, default=0, help="of the division into training and validation")
    add("--quick", action="store_true", help="little text and one model: only to see that all of it works")
    args = parser.parse_args()
    wrong = [f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}"
             for name in ("held_out", "tokens") if getattr(args, name) < 1]  # fmt: skip
    if wrong:
        raise ValueError(f"{'; '.join(wrong)}.")
    if args.quick:
        args.models, args.bits, args.held_out, args.tokens = args.models[:1], args.bits[:1], 4, 4
    return args


def kinds(args: argparse.Namespace) -> list[Kind]:
    """The rows of the table. Raises ValueError for settings that make no sense, before anything is loaded."""
    rows = [Kind("as it is"), Kind("int8", "int8"), Kind("NF4", "nf4")]
    for bits, size in product(args.bits, args.group_sizes):
        config = {"bits": bits, "group_size": size, "sym": not args.asym, "mse": args.mse}
        name = f"{bits} bits, groups of {size}" if size != -1 else f"{bits} bits, one group"
        rows += [
            Kind(f"{name}: to nearest", "rtn", QuantConfig(**config)),
            Kind(f"{name}: GPTQ", "gptq", QuantConfig(**config)),
            Kind(f"{name}: GPTQ, act-order", "gptq", QuantConfig(**config, desc_act=True)),
        ]
    return rows


def measure(
    name: str, kind: Kind, learnt: Sequence[str], held_out: Sequence[str], args: argparse.Namespace
) -> Row:  # fmt: skip
    """Load the model, quantise it, and look what is left of it."""
    model, tokenizer = minipoet.load(name, dtype=torch.float32)
    errors: list[float] = []
    started = time.process_time()
    if kind.method:
        texts = encode_texts(tokenizer, learnt) if kind.method == "gptq" else None
        quantize(model, texts, kind.config, kind.method, told=lambda layer, error: errors.append(error))
    seconds = time.process_time() - started
    characters = sum(len(text) + 1 for text in held_out)
    context = min(WINDOW, model.context)
    found = likelihood(
        model, encode_texts(tokenizer, held_out), characters, context, breaks=tokenizer.encode("\n")
    ).bits_per_character
    speed, size = tokens_per_second(model, tokenizer, args.tokens), file_bytes(model) / 1e6
    fast = None
    if kind.method in ("", "rtn", "gptq", "int8"):  # NF4 has no kernel on a CPU
        fast = tokens_per_second(pack_for_speed(model.bfloat16()), tokenizer, args.tokens)
    row = Row(kind.name, found, size, seconds, sum(errors) / max(1, len(errors)), speed, fast)
    print(f"{name}, {kind.name}: {row.bits_per_character:.4f} bits per character, {row.megabytes:.2f} MB", flush=True)
    return row


def file_bytes(model: LanguageModel) -> int:
    """Of a file that holds the model: packed tensors as they are, all others in sixteen bits, a tied matrix once."""
    packed = {
        id(b) for m in model.modules() if isinstance(m, FewBitLinear) for n, b in m.named_buffers() if n != "bias"
    }
    tensors = {id(t): t for t in [*model.parameters(), *model.buffers()]}
    return sum(t.numel() * (t.element_size() if key in packed else 2) for key, t in tensors.items())


@torch.inference_mode()
def tokens_per_second(model: LanguageModel, tokenizer: Tokenizer, tokens: int) -> float:
    """Of one poem, in the CPU time of one core; the best of three."""
    threads, times = torch.get_num_threads(), []
    settings = SamplingSettings(max_new_tokens=tokens, temperature=0.0)
    torch.set_num_threads(1)
    try:
        for _ in range(3):
            started = time.process_time()
            generate_ids(model, [tokenizer.encode("Над рекой")], settings)  # without an end: exactly so many
            times.append(time.process_time() - started)
    finally:
        torch.set_num_threads(threads)
    return tokens / min(times)


def table(rows: Sequence[Row]) -> str:
    """Markdown: a kind a row."""
    lines = [
        "| | bits per character | more than as it is | error of the layers | MB | seconds to quantise "
        "| tokens/s, fp32 | tokens/s, bf16 kernels |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        more = row.bits_per_character - rows[0].bits_per_character
        fast = "" if row.fast is None else f"{row.fast:.0f}"
        cells = [row.name, f"{row.bits_per_character:.4f}", f"{more:+.4f}", f"{row.error:.5f}", f"{row.megabytes:.2f}",
                 f"{row.seconds:.1f}", f"{row.tokens_per_second:.0f}", fast]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(rows: Sequence[Row], path: Path, name: str) -> None:
    """Bits per character by the size of the file; each way to quantise has its colour."""
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        way = row.name.rpartition(": ")[2]
        points.setdefault(way, []).append((row.megabytes, row.bits_per_character))
    plot_points(points, path, f"{name} in fewer and fewer bits", "MB", "held-out verse, bits per character")


def main() -> None:
    args = arguments()
    wanted = kinds(args)
    asked, args.poems = args.poems, None
    train_poems, held_out_poems, sha256 = read(args)
    poems = [poem.text for poem in train_poems]
    count = min(128, len(poems)) if asked is None else asked
    if not 1 <= count <= len(poems):
        raise ValueError(f"--poems must be from 1 to {len(poems)}, all that there are; got {count}.")
    chosen = torch.randperm(len(poems), generator=torch.Generator().manual_seed(args.seed))[:count]
    learnt = [poems[number] for number in chosen.tolist()]
    held_out = [poem.text for poem in held_out_poems][: args.held_out]
    print(f"calibrated on {len(learnt)} poems, {sum(map(len, learnt)):,} characters; measured on {len(held_out)}, "
          f"{sum(map(len, held_out)):,} characters")  # fmt: skip
    found: dict[str, list[Row]] = {}
    for name in args.models:
        found[name] = [measure(name, kind, learnt, held_out, args) for kind in wanted]
        draw(found[name], args.out / f"{Path(name).name}.png", Path(name).name)
    text = "\n".join(f"# {name}\n\n{table(rows)}" for name, rows in found.items())
    write_text_atomic(args.out / "report.md", text)
    write_json_atomic(args.out / "results.json", {
        "settings": {key: value if key != "out" else None for key, value in vars(args).items()},
        "corpus_sha256": sha256, "calibration_poems": len(learnt), "held_out_poems": len(held_out),
        "rows": {name: [asdict(row) for row in rows] for name, rows in found.items()},
    })  # fmt: skip
    print(f"\n{text}\n{args.out}: report.md, results.json, pictures")


if __name__ == "__main__":
    run(main)
