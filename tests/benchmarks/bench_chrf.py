"""chrF of a thousand texts of 400 letters, beside sacrebleu; and what the intervals cost.

    python tests/benchmarks/bench_chrf.py
    python tests/benchmarks/bench_chrf.py --corpus poems.jsonl --author Пушкин

Each text is measured against the next one of the corpus: as much in common as verse has with other verse. The last
column says whether the figures are equal. Corpus level, chrF and chrF++; then the whole comparison of two models, with
1,000 resamples for the intervals of both and as many random swaps for p (sacrebleu's approximate randomisation).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice

from bench_support import Row, alternate, count, need, parser, report, start, told

from minipoet.evaluation import chrf, chrf_rows, compare
from minipoet.text import read_corpus

RESAMPLES = 1000


def read_texts(corpus: str, author: str | None, texts: int, letters: int) -> list[str]:
    """One text more than `texts`, each of so many letters, from the corpus again and again."""
    verse = "\n".join(poem.text for poem in read_corpus(corpus, author))
    verse *= 1 + (texts + 1) * letters // len(verse)
    return list(islice((verse[first : first + letters] for first in range(0, len(verse), letters)), texts + 1))


def seconds(function: Callable[[], object]) -> float:
    """Of CPU time: both sides work on one core, and others may use the machine."""
    started = time.process_time()
    function()
    return time.process_time() - started


def main() -> None:
    options = parser(__doc__, rounds=7)
    options.add_argument("--corpus", default="embedded", help="verse to measure (default: %(default)s)")
    options.add_argument("--author", help="only this author's poems of a .jsonl corpus")
    options.add_argument("--texts", type=count, default=1000, help="how many (default: %(default)s)")
    options.add_argument("--letters", type=count, default=400, help="of each (default: %(default)s)")
    args = options.parse_args()
    need("sacrebleu")
    from sacrebleu.metrics import CHRF
    from sacrebleu.significance import PairedTest

    if args.quick:
        args.texts, args.rounds = 20, 2
    texts = read_texts(args.corpus, args.author, args.texts, args.letters)
    ours, theirs = texts[:-1], texts[1:]
    rows = []
    for name, order in (("chrF", 0), ("chrF++", 2)):
        same = abs(chrf(ours, theirs, order) - CHRF(word_order=order).corpus_score(ours, [theirs]).score) < 1e-9
        sides = alternate(
            lambda _, order=order: seconds(lambda: chrf(ours, theirs, order)),
            lambda _, order=order: seconds(lambda: CHRF(word_order=order).corpus_score(ours, [theirs])),
            args.rounds,
        )
        rows.append(told(Row(f"{name}, {args.texts} texts", "s", *sides, "1 ×", "equal" if same else "NOT EQUAL")))

    shifted = [text[::-1] for text in ours]  # another "model"

    def our_comparison() -> None:
        one, other = chrf_rows(shifted, theirs), chrf_rows(ours, theirs)
        one.interval(resamples=RESAMPLES), other.interval(resamples=RESAMPLES)
        compare(one, other, resamples=RESAMPLES)

    def their_comparison() -> None:
        systems = [("one", ours), ("other", shifted)]
        PairedTest(systems, {"chrF": CHRF()}, [theirs], "ar", RESAMPLES, n_ar_confidence=RESAMPLES)()

    sides = alternate(lambda _: seconds(our_comparison), lambda _: seconds(their_comparison), max(1, args.rounds // 3))
    rows.append(told(Row("comparing two models", "s", *sides, "1 ×", "ours also an interval of the difference")))
    report("chrF", rows, "sacrebleu", args)


if __name__ == "__main__":
    start(main)
