"""Why not words, why not letters, and how large a vocabulary? Frequencies of types, and a rule that chooses a size.

    python examples/choose_vocabulary.py                                 the embedded base and corpus, a minute
    python examples/choose_vocabulary.py --corpus poems.jsonl --author Пушкин --adapter runs/pushkin
    python examples/choose_vocabulary.py --sizes 300 1410 4000 --n 50    other sizes, another rule

Counted are the words of the poet; the words of a corpus that a model writes by itself (--adapter: what
lora_pushkin.py taught it; without one the base); and the tokens of BPE vocabularies of several sizes, with letters and
words as their two ends. The size chosen is the largest of which --enough of the learnt tokens are seen --n times or
more in the training verse: the shortest texts of which each token is still known. In --out: report.md, results.json,
four plots, and generated.json, the model's corpus, used again by a run with the same model and settings.
Chapter: docs/vocabulary.md
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain, islice
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, NamedTuple

import numpy as np
from lora_pushkin import read
from numpy.typing import NDArray
from write_corpus import writing_options, written_corpus

from minipoet.command import run
from minipoet.evaluation import Frequencies, counts_by_size, frequencies
from minipoet.files import write_json_atomic, write_text_atomic
from minipoet.plots import plot_ranks, plot_rare, plot_rising, plot_vocabularies
from minipoet.text.dedup import word_key
from minipoet.tokenization import BPETokenizer, train_bpe
from minipoet.tokenization.byte_level import split_words

SIZES = (300, 500, 1000, 1410, 2000, 4000, 8000)  # of which those are measured that the corpus gives
GIVEN = 259  # ids 0 to 258 are specials and bytes, in every vocabulary; those after them are learnt
OTHER_NS = (10, 30, 100, 300, 1000)  # for which the rule is told as well
RANKS, HEAD = (10, 1000), 100  # of words: over which Zipf's slope is taken, and how many are called the head
DRAWS = 5  # of as many words from the larger corpus as the smaller one has


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--corpus", default="embedded", help='"embedded", "pushkin" (fetched once), or a path (default: %(default)s)')
    add("--author", help="only this author's poems of a .jsonl corpus")
    add("--out", type=Path, default=Path("runs/choose_vocabulary"), help="for the results (default: %(default)s)")
    add("--sizes", type=int, nargs="+", help=f"BPE vocabularies (default: {', '.join(map(str, SIZES))})")
    add("--n", type=int, default=100, help="a token that is seen so often is known (default: %(default)s)")
    add("--enough", type=float, default=0.95, help="share of the learnt tokens to be known (default: %(default)s)")
    add("--validation", type=float, default=0.1, help="share of the verse that is held out (default: %(default)s)")
    add("--split-seed", type=int, default=0, help="of the division into training and held-out verse")
    add("--generated-bytes", type=int, help="the model writes so much (default: a million; embedded: 100,000)")
    writing_options(parser)
    add("--quick", action="store_true", help="little is written: only to see that all of it works")
    args = parser.parse_args()
    if args.generated_bytes is None:
        args.generated_bytes = 100_000 if args.corpus == "embedded" else 1_000_000
    small = [f"--{name.replace('_', '-')}" for name in ("generated_bytes", "n") if getattr(args, name) < 1]
    wrong = [f"{', '.join(small)} must be at least 1"] if small else []
    if not 0 < args.enough <= 1:
        wrong.append(f"--enough is a share, above 0 and at most 1, got {args.enough:g}")
    if min(args.sizes or SIZES) <= GIVEN:
        wrong.append(f"--sizes must be above {GIVEN}, the bytes and specials that each has, got {min(args.sizes)}")
    if wrong:
        raise ValueError(f"{'; '.join(wrong)}.")
    if args.quick:
        args.generated_bytes = min(args.generated_bytes, 10_000)
    args.poems = None  # `read` gives all
    return args


# Words


def draw(texts: Sequence[str], number: int, seed: int) -> Frequencies:
    """The words of whole texts in a random order, the last one cut, so many in all."""
    order = random.Random(seed).sample(texts, len(texts))
    words = chain.from_iterable(word_key(text).split() for text in order)
    return frequencies([islice(words, number)])


def compare_words(corpora: dict[str, list[str]], seed: int) -> tuple[dict[str, Any], dict[str, Frequencies]]:
    """What words corpora have, at equal numbers of running words, as types grow with the text; and one draw of each.

    Of each figure the mean and the standard deviation over the draws; the smallest corpus is drawn whole.
    """
    sizes = {name: sum(len(word_key(text).split()) for text in texts) for name, texts in corpora.items()}
    number = min(sizes.values())
    told: dict[str, Any] = {"running_words": number, "of": sizes}
    drawn = {name: [draw(texts, number, seed + i) for i in range(DRAWS)] for name, texts in corpora.items()}
    if min(found.types for draws in drawn.values() for found in draws) <= RANKS[0]:
        raise ValueError(f"{number} running words are too few to compare: bring more verse, or more --generated-bytes.")
    for name, draws in drawn.items():
        rows = list(map(word_row, draws))
        told[name] = {key: (fmean(row[key] for row in rows), pstdev(row[key] for row in rows)) for key in rows[0]}
    return told, {f"words of {name}": draws[0] for name, draws in drawn.items()}


def word_row(found: Frequencies) -> dict[str, float]:
    """What is told of words."""
    first, last = RANKS
    return {
        "types": found.types,
        "types seen once, %": 100 * found.share_below(2),
        "types seen fewer than 10 times, %": 100 * found.share_below(10),
        f"text covered by the {HEAD} most frequent, %": 100 * found.head(HEAD),
        f"slope of Zipf's law, ranks {first} to {last}": found.zipf_slope(first, min(last, found.types)),
    }


def unknown_words(learnt_from: Sequence[str], texts: Sequence[str]) -> float:
    """Share of the running words of texts, in %, that the training verse does not have."""
    known = {word for text in learnt_from for word in word_key(text).split()}
    words = [word for text in texts for word in word_key(text).split()]
    return 100 * sum(word not in known for word in words) / len(words)


# Vocabularies


class Vocabulary(NamedTuple):
    """How often each id stands in the training and in the held-out verse; ids from `first` on are learnt.

    unknown: tokens of the held-out verse that have no id.
    """

    name: str
    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    first: int = 0
    unknown: int = 0


def bpe_vocabularies(
    largest: BPETokenizer, sizes: Sequence[int], train: Sequence[str], held_out: Sequence[str]
) -> list[Vocabulary]:
    """The beginnings of the largest vocabulary that have these sizes."""
    sides = [
        {len(counts): counts.copy() for counts in counts_by_size(largest, texts) if len(counts) in sizes}
        for texts in (train, held_out)
    ]
    return [Vocabulary("BPE", *(side[size] for side in sides), first=GIVEN) for size in sizes]


def end(name: str, parts: Callable[[str], list[str]], train: Sequence[str], held_out: Sequence[str]) -> Vocabulary:
    """The vocabulary of all parts that stand in the training verse: its letters, or its words."""
    found, new = (Counter(chain.from_iterable(map(parts, texts))) for texts in (train, held_out))
    counts = [np.array([side[part] for part in found]) for side in (found, new)]
    return Vocabulary(name, *counts, unknown=new.total() - int(counts[1].sum()))


def choose(largest: BPETokenizer, texts: Sequence[str], ns: Sequence[int], enough: float) -> dict[int, int | None]:
    """For each n the largest size of which the share `enough` of the learnt tokens is seen n times; None: no size."""
    sizes: dict[int, int | None] = dict.fromkeys(ns)
    for counts in counts_by_size(largest, texts):
        for n in [n for n, size in sizes.items() if size is None and len(counts) > GIVEN]:
            if np.mean(counts[GIVEN:] >= n) >= enough:
                sizes[n] = len(counts)
    return sizes


def vocabulary_row(
    vocabulary: Vocabulary, train: Sequence[str], held_out: Sequence[str], n: int, enough: float
) -> dict[str, Any]:
    """What is told of a vocabulary. On the held-out verse, which is shorter, so much fewer times are as often as n."""
    characters = [sum(map(len, side)) for side in (train, held_out)]
    less = max(1, round(n * characters[1] / characters[0]))
    there = Frequencies(tuple(vocabulary.train.tolist()), len(train), characters[0])
    new = Frequencies((*vocabulary.held_out.tolist(), vocabulary.unknown), len(held_out), characters[1])
    learnt = Frequencies(tuple(vocabulary.train[vocabulary.first :].tolist()))
    learnt_new = Frequencies(tuple(vocabulary.held_out[vocabulary.first :].tolist()))
    known = vocabulary.held_out[vocabulary.train >= n].sum() / new.tokens
    return {
        "vocabulary": vocabulary.name,
        "size": there.types,
        "tokens a text": there.tokens_per_text,
        "characters a token": there.characters_per_token,
        "seen once or never, %": 100 * learnt.share_below(2),
        "fewer than 10 times, %": 100 * learnt.share_below(10),
        f"{n} times or more, %": 100 * learnt.share_from(n),
        f"{100 * enough:g} % reach": learnt.reached(enough),
        "held out: tokens a text": new.tokens_per_text,
        "held out: characters a token": new.characters_per_token,
        f"held out: {less} times or more, %": 100 * learnt_new.share_from(less),
        "held out: text of known tokens, %": 100 * float(known),
        "held out: text without a token, %": 100 * vocabulary.unknown / new.tokens,
    }


# What is told


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of equal keys in Markdown."""
    cells = [
        [f"{v:,.2f}" if isinstance(v, float) else f"{v:,}" if isinstance(v, int) else v for v in row.values()]
        for row in rows
    ]
    lines = [list(rows[0]), ["---", *["---:"] * (len(rows[0]) - 1)], *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def report(words: dict[str, Any], rows: Sequence[dict[str, Any]], rule: str) -> str:
    """report.md: the words of the corpora, the vocabularies, the choice."""
    told = list(words["of"])
    compared = [
        {f"{words['running_words']:,} running words": key, **{f"of {name}": spread(*words[name][key]) for name in told}}
        for key in words[told[0]]
    ]
    missing = ", ".join(f"{share:.1f} % of the words of {name}" for name, share in words["unknown, %"].items())
    return (
        f"# Words\n\n{table(compared)}\n\nThe training verse does not have {missing}.\n\n"
        f"# Vocabularies\n\n{table(rows)}\n\n{rule}\n"
    )


def spread(mean: float, deviation: float) -> str:
    """Mean ± standard deviation; without it for what was drawn whole."""
    digits = 0 if mean >= 1000 else 2
    return f"{mean:,.{digits}f}" + (f" ± {deviation:,.{digits}f}" if deviation else "")


def main() -> None:
    args = arguments()
    started = time.perf_counter()
    poems, held_out_poems, sha256 = read(args)
    train, held_out = ([poem.text for poem in side] for side in (poems, held_out_poems))
    largest = train_bpe(train, max(args.sizes or SIZES))
    sizes = {size for size in args.sizes or SIZES if size <= largest.vocab_size}
    if largest.vocab_size == GIVEN or len(sizes) < len(set(args.sizes or ())):
        raise ValueError(
            f"--sizes asks for {max(args.sizes or SIZES)}, but this corpus gives {largest.vocab_size} tokens, and then "
            "no pair stands twice: ask for fewer, or bring more text."
        )
    written = written_corpus(args, args.generated_bytes)

    words, curves = compare_words({"the poet": train, "the model": written}, args.seed)
    others = {"the held-out verse": held_out, "the model": written}
    words["unknown, %"] = {name: unknown_words(train, texts) for name, texts in others.items()}

    by_n = choose(largest, train, sorted({args.n, *OTHER_NS}), args.enough)
    chosen = by_n[args.n]
    sizes |= {chosen} if chosen else {largest.vocab_size}
    vocabularies = [
        end("letters", list, train, held_out),
        *bpe_vocabularies(largest, sorted(sizes), train, held_out),
        end("words", split_words, train, held_out),
    ]
    rows = [vocabulary_row(vocabulary, train, held_out, args.n, args.enough) for vocabulary in vocabularies]
    rule = told_choice(by_n, args.n, args.enough, largest.vocab_size)
    text = report(words, rows, rule)
    write_text_atomic(args.out / "report.md", text)
    settings = {name: value for name, value in vars(args).items() if name not in ("out", "poems", "quick")}
    write_json_atomic(args.out / "results.json", {
        "settings": settings | {"adapter": args.adapter and str(args.adapter)}, "corpus_sha256": sha256,
        "train_poems": len(train), "words": words, "vocabularies": rows, "chosen": chosen, "chosen_by_n": by_n,
        "seconds": round(time.perf_counter() - started, 1),
    })  # fmt: skip
    draw_all(args, vocabularies, rows, curves, chosen or min(sizes))
    print(f"\n{text}\n{args.out}: report.md, results.json, generated.json, ranks.png, rising.png, rare.png, "
          f"vocabularies.png; {time.perf_counter() - started:.0f} s in all")  # fmt: skip


def told_choice(by_n: dict[int, int | None], n: int, enough: float, largest: int) -> str:
    """The rule and what it chooses, in sentences."""
    rule = f"of which at least {100 * enough:g} % of the learnt tokens are seen {n} times or more in the training verse"
    if by_n[n] is None:
        first = f"No vocabulary is chosen: there is none {rule}. Bring more text, or lower --n."
    else:
        first = f"Chosen: {by_n[n]:,} tokens, the largest vocabulary {rule}."
        if by_n[n] == largest:
            first += " It is the largest that was learnt: ask for larger --sizes, if the corpus gives them."
    others = ", ".join(f"n = {m}: {f'{size:,}' if size else 'none'}" for m, size in by_n.items())
    return f"{first}\nBy the same rule for {others}."


def draw_all(
    args: argparse.Namespace, vocabularies: Sequence[Vocabulary], rows: Sequence[dict[str, Any]],
    curves: dict[str, Frequencies], chosen: int,
) -> None:  # fmt: skip
    """The four plots: counts of words, letters and the BPE vocabularies from the chosen one on; and the choice."""
    points: dict[str, list[tuple[float, float, str]]] = {}
    share = f"{args.n} times or more, %"
    for vocabulary, row in zip(vocabularies, rows, strict=True):
        bpe, size = vocabulary.name == "BPE", row["size"]
        if not bpe or size == chosen or abs(size - chosen) > 0.05 * chosen:  # names side by side cannot be read
            name = f"{size:,}" if bpe else vocabulary.name
            points.setdefault(vocabulary.name, []).append((row["characters a token"], row[share], name))
        if vocabulary.name == "letters" or (bpe and size >= chosen):
            name = f"BPE {size:,}" if bpe else vocabulary.name
            curves[name] = Frequencies(tuple(vocabulary.train[vocabulary.first :].tolist()))
    plot_ranks(curves, args.out / "ranks.png", "Rank and frequency")
    plot_rising(curves, args.out / "rising.png", "Counts in rising order")
    plot_rare(curves, args.out / "rare.png", "Types seen fewer than k times")
    plot_vocabularies(
        points, args.out / "vocabularies.png", "What a larger vocabulary buys, and what it costs",
        "characters a token", f"learnt tokens seen {share}", 100 * args.enough,
    )  # fmt: skip


if __name__ == "__main__":
    run(main)
