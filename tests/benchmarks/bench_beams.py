"""Beam search, in new tokens per second: minipoet's search_beams beside transformers' generate with num_beams.

    python tests/benchmarks/bench_beams.py
    python tests/benchmarks/bench_beams.py --beams 8 --tokens 64

poet-tiny       The embedded model, 4,096 ids: its own texts, several prompts at a time.
rugpt3-small    ruGPT3-small's shape with random weights: the largest sums are sought among 4 · 50,264.

Both sides read the same fp32 weights, keep a cache and the same number of beams, and write exactly --tokens tokens a
prompt, as no end is known to them. A prompt has 32 ids. The last column says whether the best texts are the same.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from bench_generation import Pair, compare, same
from bench_support import SHAPES, count, need, parser, report, start, write_model

from minipoet.generation import SamplingSettings, search_beams


def arguments() -> argparse.Namespace:
    options = parser(__doc__, rounds=5)
    add = options.add_argument
    add("--tokens", type=count, default=32, help="new tokens a prompt (default: %(default)s)")
    add("--batches", type=count, nargs="+", default=[1, 8], help="prompts at a time (default: 1 8)")
    add("--beams", type=count, default=4, help="beams a prompt, 2 or more (default: %(default)s)")
    add("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    return options.parse_args()


class Searches(Pair):
    """One folder, loaded by both libraries, and the search of each."""

    beams: int

    def our_ids(self, batch: int) -> list[list[int]]:
        settings = SamplingSettings(max_new_tokens=self.tokens, temperature=0, beams=self.beams)
        found = search_beams(self.model, self.ids[:batch], settings, batch_size=batch * self.beams)
        return [list(texts[0].ids) for texts in found]

    def their_search(self, batch: int) -> list[list[int]]:
        """The best texts by transformers."""
        self.their_model.generation_config.num_beams = self.beams
        return self.their_ids(batch)


def main() -> None:
    args = arguments()
    need("transformers")
    if args.quick:
        args.tokens, args.rounds, args.batches, args.shapes = 6, 2, [1, 2], ["poet-tiny"]
    rows = []
    with TemporaryDirectory() as temporary:
        for shape in args.shapes:
            pair = Searches(write_model(shape, Path(temporary) / shape), "fp32", args.tokens)
            pair.beams = args.beams
            for batch in args.batches:
                sides = (lambda b=batch, p=pair: p.our_ids(b)), (lambda b=batch, p=pair: p.their_search(b))
                note, name = same(sides[0](), sides[1]()), f"{shape}, {args.beams} beams, {batch} prompts"
                rows.append(compare(name, *sides, batch * args.tokens, args.rounds, note=note))
    report("Beam search", rows, "transformers", args)


if __name__ == "__main__":
    start(main)
