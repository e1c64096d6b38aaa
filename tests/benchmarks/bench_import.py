"""What `import minipoet` costs above `import torch`, which it cannot do without.

    python tests/benchmarks/bench_import.py

Each round is two fresh interpreters, one a side. The clock stands around the import alone; the first round, which
writes the .pyc files and fills the page cache, does not count.
"""

from __future__ import annotations

import importlib
import time
from statistics import median

from bench_support import Row, alternate, in_fresh_process, parser, report, start, told


def import_seconds(library: str) -> float:
    """In a fresh process: seconds that importing a library takes."""
    started = time.perf_counter()
    importlib.import_module(library)
    return time.perf_counter() - started


def main() -> None:
    args = parser(__doc__, rounds=15).parse_args()
    if args.quick:
        args.rounds = 3
    ours, torch = alternate(
        lambda _: in_fresh_process("bench_import.import_seconds", "minipoet"),
        lambda _: in_fresh_process("bench_import.import_seconds", "torch"),
        args.rounds,
    )
    difference = median(a - b for a, b in zip(ours, torch, strict=True))
    row = Row("import", "s", ours, torch, aim="+0.3 s at most", note=f"median difference {difference:+.2f} s")
    report("Importing", [told(row)], "torch alone", args)


if __name__ == "__main__":
    start(main)
