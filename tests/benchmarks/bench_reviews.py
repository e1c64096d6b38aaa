"""Half a million reviews from a file to requests: seconds and memory of each stage, on invented words.

    python tests/benchmarks/bench_reviews.py

There is no other side to compare with: the aim is to read the file in a minute. It has exactly the form and about the
size of geo-reviews-dataset-2023.tskv (500,000 lines, its counts of ratings, ratings written "5.", `\\n` in texts,
lines without a name, emoji), with copies, variants and broken lines sprinkled in; its words are those of
`bench_texts`, drawn by Zipf's law. Each packing is read in a fresh process, and the peak of the resident set is set
back before each stage, so that a stage's figure holds what the stages before it left.
"""

from __future__ import annotations

import gzip
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench_support import in_fresh_process, machine_line, parser, peak_memory, start
from bench_texts import pseudo_russian

LINES, QUICK_LINES = 500_000, 5_000
RATINGS = {0: 200, 1: 34_351, 2: 12_088, 3: 21_686, 4: 41_160, 5: 390_515}
RUBRICS = (
    "Кафе",
    "Ресторан",
    "Бар, паб",
    "Магазин продуктов",
    "Гостиница",
    "Салон красоты",
    "Аптека",
    "Жилой комплекс",
)


def invented(lines: int) -> Iterator[str]:
    """Lines of such a file, without their ends."""
    source = random.Random(0)
    pool = pseudo_russian(8_000_000)
    ratings = [rating for rating, count in RATINGS.items() for _ in range(count * lines // 500_000)]
    ratings += [5] * (lines - len(ratings))
    source.shuffle(ratings)
    seen: list[str] = []
    for rating in ratings:
        kind, words = source.random(), max(3, int(source.lognormvariate(3.3, 0.75)))
        text = ""
        while text.count(" ") < words:
            text += source.choice(pool) + source.choice((" ", " ", " ", "\\n", "  ", "!!!!! ", " 👍🏻 "))
        if kind < 0.01 and seen:
            text = source.choice(seen)
        elif kind < 0.015 and seen:
            text = source.choice(seen).upper().replace(".", "!")
        elif len(seen) < 5000:
            seen.append(text)
        rubrics = ";".join(source.sample(RUBRICS, source.choice((1, 1, 2, 3))))
        place = f"address=Город, улица {source.choice(pool)[:40]}, {source.randrange(200)}"
        name = "" if kind > 0.998 else f"\tname_ru={source.choice(pool)[:20]}"
        yield f"{place}{name}\trating={rating}.\trubrics={rubrics}\ttext={text if kind < 0.9995 else ''}"


def write_files(folder: str, lines: int) -> list[int]:
    """Write reviews.tskv and reviews.tskv.gz; their sizes in bytes."""
    plain, packed = Path(folder) / "reviews.tskv", Path(folder) / "reviews.tskv.gz"
    with open(plain, "w", encoding="utf-8", newline="\n") as file, gzip.open(packed, "wb", compresslevel=1) as zipped:
        for line in invented(lines):
            file.write(f"{line}\n")
            zipped.write(f"{line}\n".encode())
    return [plain.stat().st_size, packed.stat().st_size]


def walk(path: str, all_stages: bool) -> dict[str, Any]:
    """In a fresh process: all stages on one file."""
    from minipoet.text.keywords import Keywords
    from minipoet.text.review_sets import resample, split_reviews
    from minipoet.text.reviews import read_reviews, review_request, stream_reviews

    stages: list[tuple[str, float, float, float, str]] = []

    def stage(name: str, work: Callable[[], Any], told: Callable[[Any], str]) -> Any:
        with suppress(OSError):  # where there is none, a stage shows the peak so far
            Path("/proc/self/clear_refs").write_text("5")
        started, worked = time.perf_counter(), time.process_time()
        result = work()
        seconds = time.perf_counter() - started, time.process_time() - worked
        stages.append((name, *seconds, peak_memory() / 1e6, told(result)))
        return result

    imports = peak_memory() / 1e6
    stage("read as a stream, keep nothing", lambda: sum(1 for _ in stream_reviews(path)), lambda n: f"{n:,} reviews")
    if not all_stages:
        return {"imports": imports, "stages": stages}
    reviews = stage("read", lambda: read_reviews(path), lambda r: str(r[1]).split(": ", 1)[1].split("\n")[0])[0]
    shares = {"train": 0.98, "validation": 0.01, "test": 0.01}
    sides = stage(
        "split", lambda: split_reviews(reviews, shares), lambda s: ", ".join(f"{len(v):,} {k}" for k, v in s.items())
    )
    train = sides["train"]
    counted = stage("count words", lambda: Keywords.of(r.text for r in train), lambda k: f"{len(k.documents):,} stems")
    stage(
        "requests with keywords",
        lambda: [review_request(r.rubrics, r.rating, counted.extract(r.text)) for r in train],
        lambda r: f"{sum(map(len, r)):,} letters",
    )
    stage("resample", lambda: resample([r.rating for r in train], 0.5), lambda r: f"{len(set(r)):,} different rows")
    return {"imports": imports, "stages": stages}


def main() -> None:
    args = parser(__doc__, rounds=1).parse_args()
    lines = QUICK_LINES if args.quick else LINES
    with TemporaryDirectory() as temporary:
        sizes = in_fresh_process("bench_reviews.write_files", temporary, lines)
        results = {
            f"{name} ({size / 1e6:.0f} MB)": in_fresh_process("bench_reviews.walk", f"{temporary}/{name}", number == 0)
            for number, (name, size) in enumerate(zip(("reviews.tskv", "reviews.tskv.gz"), sizes, strict=True))
        }
    for name, result in results.items():
        print(f"\n### {name}\n\n| stage | s | of the processor | peak, MB | |\n| --- | --- | --- | --- | --- |")
        for stage, seconds, worked, memory, told in result["stages"]:
            print(f"| {stage} | {seconds:.1f} | {worked:.1f} | {memory:,.0f} | {told} |")
        print(f"\nBefore the first stage: {result['imports']:,.0f} MB.")
    print("", machine_line(), *(["Settings too small to mean anything (--quick)."] if args.quick else []), sep="\n")
    if args.json:
        from minipoet.files import write_json_atomic

        write_json_atomic(args.json, {"machine": machine_line(), "lines": lines, "files": results})


if __name__ == "__main__":
    start(main)
