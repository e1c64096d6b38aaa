"""Loading 125 million fp32 parameters (ruGPT3-small's shape): seconds and memory, minipoet beside transformers.

    python tests/benchmarks/bench_loading.py

Each round is a fresh process a side that imports its library, loads the folder and reads 8 tokens: weights may be
mapped rather than read, so a model is there only when it has answered. Peak memory is the resident set, mapped pages
included, less what the imports take (told in the note). Files come from the page cache: no disk is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench_support import Row, alternate, in_fresh_process, need, parser, peak_memory, report, start, told, write_model

UNITS = {"seconds to the model": "s", "seconds to its first logits": "s", "peak memory above the imports": "MB"}


def load_ours(folder: str) -> list[float]:
    """In a fresh process: seconds to the model and to its first logits, peak MB above the imports, MB of these."""
    import torch

    from minipoet.models import load_model

    with torch.inference_mode():
        return measure(lambda: load_model(folder), lambda model, ids: model(ids))


def load_theirs(folder: str) -> list[float]:
    """The same by transformers."""
    import torch
    from transformers import GPT2LMHeadModel

    with torch.inference_mode():
        return measure(lambda: GPT2LMHeadModel.from_pretrained(folder), lambda model, ids: model(ids).logits)


def measure(load: Callable[[], Any], read: Callable[[Any, Any], Any]) -> list[float]:
    """[seconds to load, seconds to have loaded and read 8 tokens, peak MB above what it was, what it was]."""
    import torch

    ids, before, started = torch.arange(8)[None], peak_memory(), time.perf_counter()
    model = load()
    loaded = time.perf_counter()
    assert torch.isfinite(read(model, ids)).all()
    return [loaded - started, time.perf_counter() - started, (peak_memory() - before) / 1e6, before / 1e6]


def write_both(temporary: str) -> dict[str, str]:
    """The folders by their kind of file: safetensors, and the same tensors as an old pytorch_model.bin."""
    import torch
    from safetensors.torch import load_file

    folder, old = write_model("rugpt3-small", Path(temporary) / "new"), Path(temporary) / "old"
    old.mkdir()
    torch.save(load_file(folder / "model.safetensors"), old / "pytorch_model.bin")
    (old / "config.json").write_bytes((folder / "config.json").read_bytes())
    return {"safetensors": str(folder), ".bin": str(old)}


def compare(kind: str, folder: str, rounds: int) -> list[Row]:
    """A row for each measure."""
    ours, theirs = alternate(
        lambda _: in_fresh_process("bench_loading.load_ours", folder),
        lambda _: in_fresh_process("bench_loading.load_theirs", folder),
        rounds,
    )
    columns = list(zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True))
    imports = " / ".join(f"{min(side):.0f}" for side in columns.pop())
    return [
        told(Row(f"{kind}: {what}", unit, *sides, note=f"imports: {imports} MB" if unit == "MB" else ""))
        for (what, unit), sides in zip(UNITS.items(), columns, strict=True)
    ]


def main() -> None:
    args = parser(__doc__, rounds=5).parse_args()
    need("transformers")
    if args.quick:
        args.rounds = 2
    with TemporaryDirectory() as temporary:
        folders = in_fresh_process("bench_loading.write_both", temporary)
        rows = [row for kind, folder in folders.items() for row in compare(kind, folder, args.rounds)]
    report("Loading ruGPT3-small's shape in fp32 (500 MB)", rows, "transformers", args)


if __name__ == "__main__":
    start(main)
