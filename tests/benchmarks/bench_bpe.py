"""Byte-level BPE: learning merges and encoding, minipoet (Python, numpy) beside the tokenizers library (Rust).

    python tests/benchmarks/bench_bpe.py --corpus prose.jsonl.gz
    python tests/benchmarks/bench_bpe.py                              # invented words, see bench_texts.py

training   From texts in memory to a tokenizer; the same cut into words, alphabet, specials and min_frequency. Each
           round is a fresh process a side, with one thread of Rust (RAYON_NUM_THREADS=1) and with as many as it takes
           by itself. Wall seconds, and CPU seconds of all threads. The merges are compared, ties included.
encoding   All the texts to lists of ids, MB of UTF-8 a CPU second, both sides in one thread of one process, in turn.
           cold: a tokenizer that has just been loaded; warm: the same once more. Beside the library's encode, text by
           text, and its encode_batch_fast, which keeps no offsets. The ids are compared.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench_support import Row, alternate, count, in_fresh_process, need, parser, report, start, told
from bench_texts import read_texts

SPECIALS = ("<pad>", "<s>", "</s>")
METHODS = {  # ours, theirs: (tokenizer, texts) -> the ids of each
    "encode": (
        lambda tokenizer, texts: [tokenizer.encode(text) for text in texts],
        lambda tokenizer, texts: [tokenizer.encode(text).ids for text in texts],
    ),
    "batch": (
        lambda tokenizer, texts: tokenizer.encode_batch(texts),
        lambda tokenizer, texts: [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)],
    ),
}
ONE_THREAD = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def arguments() -> argparse.Namespace:
    options = parser(__doc__, rounds=3)
    add = options.add_argument
    add("--corpus", type=Path, help="a .txt, a .jsonl or a .jsonl.gz (default: invented words)")
    add("--megabytes", type=float, default=12, help="of it, in UTF-8 (default: %(default)s)")
    add(
        "--train",
        type=int,
        nargs="*",
        default=[1_410, 8_000, 32_000],
        help="sizes of vocabularies (default: %(default)s)",
    )
    add("--encode", type=count, nargs="*", default=[4_096, 32_000], help="likewise")
    return options.parse_args()


def train_ours(texts_file: str, vocab_size: int, folder: str | None = None) -> list[Any]:
    """In a fresh process: [wall seconds, CPU seconds, merges]; the tokenizer is saved if a folder is given."""
    from minipoet.tokenization import train_bpe

    texts = json.loads(Path(texts_file).read_text(encoding="utf-8"))
    seconds, tokenizer = timed(lambda: train_bpe(texts, vocab_size, SPECIALS))
    if folder is not None:
        tokenizer.save(folder)
    return [*seconds, tokenizer.merges]


def train_theirs(texts_file: str, vocab_size: int) -> list[Any]:
    """The same by the library."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    texts = json.loads(Path(texts_file).read_text(encoding="utf-8"))

    def train() -> Tokenizer:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size, min_frequency=2, special_tokens=list(SPECIALS), initial_alphabet=alphabet,
            show_progress=False,
        )  # fmt: skip
        tokenizer.train_from_iterator(texts, trainer)
        return tokenizer

    seconds, tokenizer = timed(train)
    return [*seconds, json.loads(tokenizer.to_str())["model"]["merges"]]


def timed(work: Callable[[], Any]) -> tuple[list[float], Any]:
    """([wall seconds, CPU seconds of all threads], what work() returned)."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return [time.perf_counter() - wall, time.process_time() - cpu], result


def compare_training(texts_file: str, vocab_size: int, rounds: int) -> list[Row]:
    """Wall and CPU seconds of both, with one thread and with the library's own choice."""
    rows = []
    for threads, environment in (("one thread", ONE_THREAD), ("default threads", {})):
        ours, theirs = alternate(
            lambda _, e=environment: in_fresh_process("bench_bpe.train_ours", texts_file, vocab_size, environment=e),
            lambda _, e=environment: in_fresh_process("bench_bpe.train_theirs", texts_file, vocab_size, environment=e),
            rounds, warm_up=0,
        )  # fmt: skip
        note = same_merges(ours[0][2], theirs[0][2])
        for i, clock in enumerate(("wall", "CPU")):
            name = f"training, {vocab_size:,} tokens, {threads}, {clock}"
            rows.append(told(Row(name, "s", [r[i] for r in ours], [r[i] for r in theirs], aim="1", note=note)))
    return rows


def same_merges(ours: Sequence[Sequence[str]], theirs: Sequence[Sequence[str]]) -> str:
    """Whether two lists of merges are the same, or where they part."""
    pairs = enumerate(zip(map(tuple, ours), map(tuple, theirs), strict=False), start=1)
    for number, (one, other) in pairs:
        if one != other:
            return f"merge {number:,} differs: {one} / {other}"
    return f"{len(ours):,} equal merges" if len(ours) == len(theirs) else f"{len(ours):,} / {len(theirs):,} merges"


def encode_both(texts_file: str, folder: str, method: str, rounds: int) -> dict[str, Any]:
    """In a fresh process of one thread: for "cold" and "warm" MB/s of ours and of theirs; "equal": are the ids?"""
    from tokenizers import Tokenizer

    from minipoet.tokenization import load_tokenizer

    texts = json.loads(Path(texts_file).read_text(encoding="utf-8"))
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    different = set()

    def twice(load: Callable[[], Any], encode: Callable[[Any, list[str]], list[list[int]]]) -> list[float]:
        tokenizer, rates = load(), []
        for _ in ("cold", "warm"):
            (_, seconds), ids = timed(lambda: encode(tokenizer, texts))
            rates.append(megabytes / seconds)
            different.add(sha256(json.dumps(ids).encode()).hexdigest())
        return rates

    our_encode, their_encode = METHODS[method]
    sides = alternate(
        lambda _: twice(lambda: load_tokenizer(folder), our_encode),
        lambda _: twice(lambda: Tokenizer.from_file(f"{folder}/tokenizer.json"), their_encode),
        rounds, warm_up=0,
    )  # fmt: skip
    cold, warm = ([[rates[i] for rates in side] for side in sides] for i in (0, 1))
    return {"cold": cold, "warm": warm, "equal": len(different) == 1}


def compare_encoding(texts_file: str, vocab_size: int, folder: str, rounds: int) -> list[Row]:
    """MB/s of both, by either method, cold and warm."""
    in_fresh_process("bench_bpe.train_ours", texts_file, vocab_size, folder)
    rows = []
    for method in METHODS:
        found = in_fresh_process("bench_bpe.encode_both", texts_file, folder, method, rounds, environment=ONE_THREAD)
        note = "equal ids" if found["equal"] else "THE IDS DIFFER"
        for state in ("cold", "warm"):
            name = f"encoding, {vocab_size:,} tokens, {method}, {state}"
            rows.append(told(Row(name, "MB/s", *found[state], aim="2", note=note)))
    return rows


def main() -> None:
    args = arguments()
    need("tokenizers")
    if args.quick:
        args.megabytes, args.rounds, args.train, args.encode = 0.5, 2, [1_410, 3_000], [3_000]
    texts = read_texts(args.corpus, int(1e6 * args.megabytes))
    rows = []
    with TemporaryDirectory() as temporary:
        texts_file = str(Path(temporary) / "texts.json")
        Path(texts_file).write_text(json.dumps(texts), encoding="utf-8")
        for size in args.train:
            rows += compare_training(texts_file, size, args.rounds)
        for size in args.encode:
            rows += compare_encoding(texts_file, size, f"{temporary}/{size}", args.rounds)
    size = sum(len(text.encode()) for text in texts) / 1e6
    note = f"{args.corpus.name if args.corpus else 'pseudo-Russian'}: {size:.1f} MB in {len(texts):,} texts."
    report("Byte-level BPE", rows, "tokenizers", args, note)


if __name__ == "__main__":
    start(main)
