"""What the benchmarks share: both sides in turn, fresh processes, models of known shapes, the table and its JSON.

    alternate           ours, theirs, ours, theirs, …: times drift on a shared machine, ratios of neighbours hardly do
    in_fresh_process    a function called by a new interpreter: for imports, peak memory, and the threads of Rust
    write_model         a folder that both libraries load, of poet-tiny or of ruGPT3-small's shape
    Row, told, report   a line of the table; the table, with the machine below it; --json

Nothing heavy is imported at the top: a child process measures what it imports itself.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
RUGPT3_SMALL = {"vocab_size": 50264, "n_positions": 2048, "n_embd": 768, "n_layer": 12, "n_head": 12}
RUGPT3_MEDIUM = {"vocab_size": 50257, "n_positions": 2048, "n_embd": 1024, "n_layer": 24, "n_head": 16}
SHAPES = ("poet-tiny", "rugpt3-small")  # what is measured unless asked otherwise
RANDOM = {"rugpt3-small": RUGPT3_SMALL, "rugpt3-medium": RUGPT3_MEDIUM}
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # read when transformers is imported, children too
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
Side = Callable[[int], Any]  # the number of the round -> what it measured


def parser(doc: str | None, rounds: int) -> argparse.ArgumentParser:
    """The options that every benchmark has; `doc` is the docstring of its file."""
    found = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--rounds", type=count, default=rounds, help="how often both sides run (default: %(default)s)")
    found.add_argument("--quick", action="store_true", help="tiny settings: only to see that all of it works")
    found.add_argument("--json", type=Path, metavar="FILE", help="also write all that was measured to this file")
    return found


def count(text: str) -> int:
    """The type of an option that is a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def start(main: Callable[[], None]) -> None:
    """Run a benchmark as the package's commands run: a user's mistake in one sentence, exit code 2."""
    from minipoet.command import run

    run(main)


def need(*libraries: str) -> None:
    """Raise ValueError if a library to compare with is not installed."""
    if missing := [library for library in libraries if _version(library) is None]:
        raise ValueError(
            f"This benchmark compares with {', '.join(libraries)}; not installed: {', '.join(missing)}. "
            'Do pip install -e ".[reference]", in an environment of its own.'
        )


def alternate(ours: Side, theirs: Side, rounds: int, warm_up: int = 1) -> tuple[list[Any], list[Any]]:
    """What ours(number) returned in each round, and what theirs(number) did; `warm_up` rounds before do not count."""
    results = [(ours(number), theirs(number)) for number in range(warm_up + rounds)][warm_up:]
    return [one for one, _ in results], [other for _, other in results]


def in_fresh_process(function: str, *arguments: Any, environment: Mapping[str, str] | None = None) -> Any:
    """What a function of a benchmark, named as "bench_bpe.train_ours", returns in a new interpreter; JSON both ways."""
    module = function.rpartition(".")[0]
    code = f"import json, sys, {module}; print(json.dumps({function}(*json.loads(sys.argv[1]))))"
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    child = subprocess.run(
        [sys.executable, "-c", code, json.dumps(arguments)],
        env={**os.environ, **(environment or {}), "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return json.loads(child.stdout.splitlines()[-1])


def peak_memory() -> int:
    """The most bytes that this process has held. (On Linux getrusage would begin with the peak of the parent.)"""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        from minipoet.models import peak_memory

        return peak_memory()


def write_model(shape: str, folder: Path, dropout: float = 0.0) -> Path:
    """Write poet-tiny, or random weights of a ruGPT3's shape with poet-tiny's tokenizer, in fp32; the folder again.

    Both libraries load it. `dropout` is the base's own, in all three places that GPT-2 has it.
    """
    from dataclasses import replace

    import torch

    import minipoet
    from minipoet.models.gpt2 import GPT2, GPT2Config

    model, tokenizer = minipoet.load("poet-tiny")
    if shape in RANDOM:
        model = GPT2(GPT2Config(**RANDOM[shape]))
        model.reset(torch.Generator().manual_seed(0))
        with torch.no_grad():  # with weights as small as at the start a greedy text would be one word for ever
            for parameter in model.blocks.parameters():
                parameter *= 4 if parameter.ndim == 2 else 1
    model.config = replace(model.config, resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout)
    minipoet.save(model, tokenizer, folder)
    return folder


@dataclass(frozen=True)
class Row:
    """One line of the table: what each round measured on both sides."""

    what: str
    unit: str  # tokens/s, MB/s: more is better; s, MB: less is
    ours: Sequence[float]
    theirs: Sequence[float]
    aim: str = ""
    note: str = ""

    def ratios(self) -> list[float]:
        """How many times better ours is, round by round."""
        pairs = zip(self.ours, self.theirs, strict=True)
        return [a / b if self.unit.endswith("/s") else b / a for a, b in pairs]

    def cells(self) -> list[str]:
        ratios = self.ratios()
        spread = f"{min(ratios):.2f}–{max(ratios):.2f}"
        numbers = (_number(median(self.ours)), _number(median(self.theirs)), f"**{median(ratios):.2f}**", spread)
        return [self.what, self.unit, *numbers, self.aim, self.note]


def told(row: Row) -> Row:
    """The row, after a word about it to standard error: a benchmark is long, and its table comes last."""
    print(f"{row.what}: {', '.join(f'{ratio:.2f}' for ratio in row.ratios())}", file=sys.stderr, flush=True)
    return row


def report(title: str, rows: Sequence[Row], theirs: str, args: argparse.Namespace, *notes: str) -> None:
    """Print the rows as a Markdown table, the notes and the machine; write --json."""
    columns = ["", "unit", "minipoet", theirs, "ratio", "least–most", "aim", "note"]
    machine = machine_line()
    print(f"\n### {title}\n")
    for cells in (columns, ["---"] * len(columns), *(row.cells() for row in rows)):
        print(f"| {' | '.join(cells)} |")
    quick = ["Settings too small to mean anything (--quick)."] if args.quick else []
    rounds = (
        f"Medians of {args.rounds} rounds, both sides in turn. Ratio: how many times better minipoet is in a round."
    )
    print("", rounds, *notes, machine, *quick, sep="\n")
    if args.json:
        from minipoet.files import write_json_atomic

        lines = [{**asdict(row), "ratio": median(row.ratios())} for row in rows]
        options = {name: value for name, value in vars(args).items() if name not in ("json", "corpus")}
        result = {"title": title, "machine": machine, "notes": notes, "options": options, "rows": lines}
        write_json_atomic(args.json, result)


def machine_line() -> str:
    """The processor, the threads and the versions that a result depends on."""
    import torch

    from minipoet.training import has_fast_bf16

    libraries = ("torch", "transformers", "peft", "tokenizers", "safetensors", "sacrebleu", "minipoet")
    versions = [f"{name} {found}" for name in libraries if (found := _version(name))]
    bf16 = "with" if has_fast_bf16("cpu") else "without"
    return (
        f"Machine: {_processor()}, {os.cpu_count()} cores, {bf16} bf16 arithmetic; torch threads "
        f"(OMP_NUM_THREADS): {torch.get_num_threads()}; Python {platform.python_version()}, {', '.join(versions)}."
    )


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
