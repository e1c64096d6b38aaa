"""A hundred thousand poems from a file to batches: seconds and memory of each stage, on invented verse.

    python tests/benchmarks/bench_corpus.py

There is no other side to compare with: the aim is a few minutes and less than 2 GB. The verse is that of
`bench_texts`, drawn by Zipf's law, in the form in which stihi_ru is published (JSON lines in zstd; the same as
parquet), with what such files have besides poems sprinkled in: broken lines, other languages, prose, copies,
variants, one poem reposted 40 times.

Each road is a fresh process that goes through all stages; the peak of the resident set is set back before each stage,
so a stage's figure holds what the stages before it left in memory, and Python with PyTorch (told in the note).
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench_support import in_fresh_process, machine_line, parser, peak_memory, start
from bench_texts import pseudo_russian

RUGPT3_PIECES = 50_257
POEMS, QUICK_POEMS = 100_000, 2_000
LENGTH, ROWS = 256, 16


def invented(poems: int) -> Iterator[bytes]:
    """Lines of a file with so many poems and some 15 % of other things, in the fields of stihi_ru."""
    source = random.Random(0)
    words = " ".join(pseudo_russian(8_000_000)).lower().replace(".", "").replace(",", "").split()
    seen: list[str] = []
    liked = verse(source, words)
    for number in range(poems + poems // 6):
        kind, text = source.random(), verse(source, words)
        fields: dict[str, Any] = {"id": str(number), "title": text.split("\n")[0].title(), "genre": "лирика"}
        fields |= {"topic": "без рубрики", "author": f"Автор {source.randrange(9999)}"}
        if kind < 0.03 and seen:  # the same poem in another print
            text = source.choice(seen).upper().replace("Ё", "Е")
        elif kind < 0.06 and seen:  # and without its last stanza
            text = source.choice(seen).rpartition("\n\n")[0] or text
        elif kind < 0.08:
            text = text.replace("и", "і").replace("ы", "ї")
        elif kind < 0.09:
            text = " ".join(source.choices(words, k=90))
        elif kind < 0.11:
            text = text[:40]
        elif kind < 0.12:
            text = "\n".join(["<br>".join(text.split("\n")), "The rest is silence, as they say in other lands " * 9])
        elif poems > 1000 and number % (poems // 40) == 7:
            lines = liked.split("\n")
            text = "\n".join([*lines[: source.randrange(12, len(lines))], " ".join(source.choices(words, k=4))])
        if len(seen) < 5000:
            seen.append(text)
        line = json.dumps(fields | {"text": text}, ensure_ascii=False).encode()
        if 0.12 <= kind < 0.125:
            line = source.choice([line[:60], line.replace("о".encode(), b"\xee", 1), b'{"text": 5}', b'{"title": "?"}'])
        yield line


def verse(source: random.Random, words: list[str]) -> str:
    """Two to eight stanzas of four lines of four to six words: some 500 letters, as the poems of stihi_ru have."""
    stanzas = source.choice((2, 3, 3, 4, 4, 4, 5, 6, 8))
    lines = [" ".join(source.choices(words, k=source.randint(3, 5))).capitalize() for _ in range(4 * stanzas)]
    return "\n\n".join("\n".join(lines[start : start + 4]) for start in range(0, len(lines), 4))


def write_files(folder: str, poems: int) -> list[int]:
    """Write poems.jsonl.zst and poems.parquet; their sizes in bytes."""
    import pyarrow
    import pyarrow.parquet
    import zstandard

    lines = list(invented(poems))
    packed, columns = Path(folder) / "poems.jsonl.zst", Path(folder) / "poems.parquet"
    with open(packed, "wb") as file, zstandard.ZstdCompressor().stream_writer(file) as writer:
        for line in lines:
            writer.write(line + b"\n")
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        rows.append({name: str(row.get(name, "")) for name in ("id", "text", "title", "genre", "topic", "author")})
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), columns, row_group_size=20_000)
    return [packed.stat().st_size, columns.stat().st_size]


def write_tokenizer(folder: str) -> int:
    """A byte-level BPE of ruGPT3's size as its publishers have it, vocab.json and merges.txt; its size."""
    from tokenizers import ByteLevelBPETokenizer

    library = ByteLevelBPETokenizer()
    lines = pseudo_russian(12_000_000)
    library.train_from_iterator(lines, RUGPT3_PIECES, special_tokens=["<pad>", "<s>", "</s>", "<unk>", "<mask>"])
    library.save_model(folder)
    return int(library.get_vocab_size())


def walk(path: str, tokenizer_folder: str, cache: str, count: int) -> dict[str, Any]:
    """In a fresh process: all stages on one file with one tokenizer ("" is poet-tiny's)."""
    import minipoet
    from minipoet.text import check_apart, drop_duplicates, read_stihi, split_by_poem
    from minipoet.tokenization import load_tokenizer, tokenized
    from minipoet.training import Batches

    tokenizer = load_tokenizer(tokenizer_folder) if tokenizer_folder else minipoet.load("poet-tiny")[1]
    stages: list[tuple[str, float, float, float, str]] = []

    def stage(name: str, work: Callable[[], Any], told: Callable[[Any], str] = lambda _: "") -> Any:
        reset_peak()
        started, worked = time.perf_counter(), time.process_time()
        result = work()
        seconds = time.perf_counter() - started, time.process_time() - worked
        stages.append((name, *seconds, peak_memory() / 1e6, told(result)))
        return result

    def tail(report: Any) -> str:
        return str(report).split(": ", 1)[1].partition(", the first")[0]

    def epoch(batches: Any) -> int:
        return sum(batches.batch(step).tokens() for step in range(batches.steps_per_epoch()))

    def divide(poems: list[Any]) -> list[str]:
        split = stage(
            "split", lambda: split_by_poem(poems), lambda s: f"{len(s.train):,} and {len(s.validation):,} poems"
        )
        stage("check that they are apart", lambda: check_apart(split.train, split.validation))
        return [poem.text for poem in split.train]

    imports = peak_memory() / 1e6
    poems = stage("read, clean, filter", lambda: read_stihi(path, first=count), lambda r: tail(r[1]))[0]
    poems = stage("drop duplicates", lambda: drop_duplicates(poems), lambda r: f"{len(r[1]):,} dropped")[0]
    texts = divide(poems)
    for name in ("tokenise into the cache", "open the cache again"):
        store = stage(name, lambda: tokenized(tokenizer, texts, cache), lambda s: f"{s.tokens:,} {s.ids.dtype}")
    batches = stage("make batches of it", lambda: Batches(store, LENGTH, ROWS), lambda b: f"{len(b.texts):,} pieces")
    stage("one epoch of batches", lambda: epoch(batches), lambda tokens: f"{tokens:,} targets")
    return {"imports": imports, "stages": stages, "size": store.path.stat().st_size}


def reset_peak() -> None:
    """Let the peak of the resident set begin anew (Linux)."""
    with suppress(OSError):  # then a stage shows the peak so far
        Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    args = parser(__doc__, rounds=1).parse_args()
    poems = QUICK_POEMS if args.quick else POEMS
    with TemporaryDirectory() as temporary:
        sizes = in_fresh_process("bench_corpus.write_files", temporary, poems)
        big = Path(temporary) / "big"
        big.mkdir()
        pieces = in_fresh_process("bench_corpus.write_tokenizer", str(big))
        roads = {
            f"JSON lines in zstd ({sizes[0] / 1e6:.0f} MB), poet-tiny's tokenizer": ("poems.jsonl.zst", ""),
            f"parquet ({sizes[1] / 1e6:.0f} MB), a tokenizer of {pieces:,} pieces": ("poems.parquet", str(big)),
        }
        results = {}
        for name, (file, tokenizer) in roads.items():
            cache = str(Path(temporary) / f"cache of {file}")
            results[name] = in_fresh_process("bench_corpus.walk", str(Path(temporary) / file), tokenizer, cache, poems)
    for name, result in results.items():
        print(f"\n### {name}\n\n| stage | s | of the processor | peak, MB | |\n| --- | --- | --- | --- | --- |")
        for stage, seconds, worked, memory, told in result["stages"]:
            print(f"| {stage} | {seconds:.1f} | {worked:.1f} | {memory:,.0f} | {told} |")
        columns = list(zip(*result["stages"], strict=True))
        print(f"| **all** | **{sum(columns[1]):.0f}** | **{sum(columns[2]):.0f}** | **{max(columns[3]):,.0f}** | |")
        print(f"\nBefore the first stage: {result['imports']:,.0f} MB. The cache: {result['size'] / 1e6:.0f} MB.")
    print("", machine_line(), *(["Settings too small to mean anything (--quick)."] if args.quick else []), sep="\n")
    if args.json:
        from minipoet.files import write_json_atomic

        write_json_atomic(args.json, {"machine": machine_line(), "poems": poems, "roads": results})


if __name__ == "__main__":
    start(main)
