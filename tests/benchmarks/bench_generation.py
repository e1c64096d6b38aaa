"""Generation with the cache, in new tokens per second: minipoet beside transformers' generate.

    python tests/benchmarks/bench_generation.py
    python tests/benchmarks/bench_generation.py --tokens 256 --rounds 9

ids         generate_ids beside generate: a prompt of 32 ids, greedy, ruGPT3-small's shape with random weights.
text        The same from text to text: minipoet's generate_many beside transformers' tokenizer, generate and decode.
packed      ids in bf16 once more, with minipoet's weights packed for writing (`pack_weights`), where there is oneDNN.
poet-tiny   Text to text, sampled at temperature 0.8 and top-p 0.9. The draws differ: each side has its own generator.

Both sides read the same weights in the same type, keep a cache, and write exactly --tokens tokens a poem: the end of a
text is never drawn by ours, and is unknown to theirs. Reading the prompt counts. In fp32 the greedy ids must be equal.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from bench_support import Row, alternate, count, need, parser, report, start, told, write_model

import minipoet
from minipoet.generation import SamplingSettings, generate_ids, generate_many
from minipoet.models import pack_weights
from minipoet.models.packed import can_pack
from minipoet.text import read_corpus

PROMPT = 32  # tokens
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
AIMS = {("fp32", 1): "2.5", ("bf16", 1): "1.6"}


def arguments() -> argparse.Namespace:
    options = parser(__doc__, rounds=5)
    add = options.add_argument
    add("--tokens", type=count, default=128, help="new tokens a poem (default: %(default)s)")
    add("--batches", type=count, nargs="+", default=[1, 8], help="poems at a time (default: 1 8)")
    add("--types", nargs="+", default=list(TYPES), choices=list(TYPES))
    return options.parse_args()


class Pair:
    """One folder, loaded by both libraries in one type, and what each does with it."""

    def __init__(self, folder: Path, type_name: str, tokens: int) -> None:
        from transformers import AutoTokenizer, GPT2LMHeadModel

        self.tokens = tokens
        self.model, self.tokenizer = minipoet.load(folder, dtype=TYPES[type_name])
        self.their_model = GPT2LMHeadModel.from_pretrained(folder, dtype=TYPES[type_name]).eval()
        self.their_tokenizer = AutoTokenizer.from_pretrained(folder)
        self.their_model.generation_config.eos_token_id = None
        texts = [poem.text for poem in read_corpus("embedded")]
        self.ids = [ids[:PROMPT] for ids in self.tokenizer.encode_batch(texts) if len(ids) >= PROMPT]
        self.texts = [self.tokenizer.decode(ids) for ids in self.ids]

    def our_ids(self, batch: int) -> list[list[int]]:
        """The new ids of each of the first `batch` prompts."""
        settings = SamplingSettings(max_new_tokens=self.tokens, temperature=0)
        return [list(found.ids) for found in generate_ids(self.model, self.ids[:batch], settings)]

    def their_ids(self, batch: int) -> list[list[int]]:
        """The same by transformers."""
        ids = torch.tensor(self.ids[:batch])
        return self._generate(ids, torch.ones_like(ids))[:, PROMPT:].tolist()

    def our_text(self, batch: int, temperature: float) -> list[str]:
        """The whole texts from the first `batch` prompts."""
        settings: dict[str, Any] = {"max_new_tokens": self.tokens, "temperature": temperature, "until_end": False}
        found = generate_many(self.model, self.tokenizer, self.texts[:batch], start=False, top_p=0.9, **settings)
        return [poems[0].text for poems in found]

    def their_text(self, batch: int, temperature: float) -> list[str]:
        """The same by transformers."""
        read = self.their_tokenizer(self.texts[:batch], return_tensors="pt", padding=True, padding_side="left")
        how = {"do_sample": True, "temperature": temperature, "top_p": 0.9, "top_k": 0} if temperature else {}
        return self.their_tokenizer.batch_decode(self._generate(read.input_ids, read.attention_mask, **how))

    def _generate(self, ids: torch.Tensor, mask: torch.Tensor, **how: Any) -> torch.Tensor:
        new = self.their_model.generate(
            ids, attention_mask=mask, max_new_tokens=self.tokens, use_cache=True, pad_token_id=0, **how
        )
        assert new.shape[1] == ids.shape[1] + self.tokens, f"transformers stopped after {new.shape[1]} tokens"
        return new


def compare(
    name: str, ours: Callable, theirs: Callable, tokens: int, rounds: int, aim: str = "", note: str = ""
) -> Row:
    """New tokens per second of both, in turn."""

    def rate(write: Callable) -> float:
        started = time.perf_counter()
        write()
        return tokens / (time.perf_counter() - started)

    rates = alternate(lambda _: rate(ours), lambda _: rate(theirs), rounds)
    return told(Row(name, "tokens/s", *rates, aim=aim, note=note))


def same(ours: list[list[int]], theirs: list[list[int]]) -> str:
    """How many of the ids agree before the first that does not, and how many different ids there are."""
    equal = [next((i for i, (a, b) in enumerate(zip(*pair, strict=True)) if a != b), len(pair[0]))
             for pair in zip(ours, theirs, strict=True)]  # fmt: skip
    different = len({id for ids in ours for id in ids})
    return f"first {sum(equal)} of {sum(map(len, ours))} ids equal ({different} different ones)"


def main() -> None:
    args = arguments()
    need("transformers")
    if args.quick:
        args.tokens, args.rounds, args.batches = 12, 2, [1, 2]
    rows = []
    with TemporaryDirectory() as temporary:
        folder = write_model("rugpt3-small", Path(temporary) / "small")
        for kind in args.types:
            pair = Pair(folder, kind, args.tokens)
            for batch in args.batches:
                name, tokens = f"{kind}, batch {batch}", batch * args.tokens
                note = same(pair.our_ids(batch), pair.their_ids(batch))
                sides = (lambda b=batch, p=pair: p.our_ids(b)), (lambda b=batch, p=pair: p.their_ids(b))
                rows.append(compare(f"ids, {name}", *sides, tokens, args.rounds, AIMS.get((kind, batch), ""), note))
                sides = (lambda b=batch, p=pair: p.our_text(b, 0)), (lambda b=batch, p=pair: p.their_text(b, 0))
                rows.append(compare(f"text, {name}", *sides, tokens, args.rounds))
            if kind == "bf16" and can_pack():
                pack_weights(pair.model)
                for batch in args.batches:
                    sides = (lambda b=batch, p=pair: p.our_ids(b)), (lambda b=batch, p=pair: p.their_ids(b))
                    name, aim = f"ids, bf16 packed, batch {batch}", AIMS.get((kind, batch), "")
                    rows.append(compare(name, *sides, batch * args.tokens, args.rounds, aim))
        pair = Pair(write_model("poet-tiny", Path(temporary) / "tiny"), "fp32", args.tokens)
        for batch in args.batches:
            sides = (lambda b=batch, p=pair: p.our_text(b, 0.8)), (lambda b=batch, p=pair: p.their_text(b, 0.8))
            rows.append(compare(f"poet-tiny, sampled, batch {batch}", *sides, batch * args.tokens, args.rounds))
    report("Generation", rows, "transformers", args, f"{args.tokens} new tokens a poem.")


if __name__ == "__main__":
    start(main)
