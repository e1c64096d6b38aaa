"""How should a word come into a recurrent model? The same LSTM with six inputs, on the same verse.

    python examples/compare_inputs.py                                               the embedded corpus, two minutes
    python examples/compare_inputs.py --corpus poems.jsonl --author Пушкин --max-words 3000 --steps 600
    python examples/compare_inputs.py --vectors-corpus FOLDER_OF_PROSE              word2vec reads prose too

A number (label), a 1 in the word's place (one-hot), the last words counted (bag), a vector that is learnt (embedding),
and one that word2vec has learnt before, left as it is or trained further. State, head, steps, batches and seeds are the
same; the head has a matrix of its own everywhere, as the first three have none to share. word2vec reads the training
verse only (and prose, from which held-out lines are taken out). In --out: report.md, results.json, curves.png, and a
folder for each run. What an input is: minipoet/models/inputs.py. Chapter: docs/words.md
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

import torch
from lora_pushkin import read
from torch import Tensor
from word_lstm_pushkin import figures, measure, start_from, unknown_words, word_vectors

import minipoet
from minipoet.checks import as_device
from minipoet.command import run
from minipoet.evaluation import Spelling
from minipoet.files import write_json_atomic, write_text_atomic
from minipoet.models.rnn import LSTM, RNNConfig
from minipoet.models.word2vec import nearest
from minipoet.plots import plot_study
from minipoet.text import Quotations, read_prose_corpus
from minipoet.tokenization import WordTokenizer, encode_texts
from minipoet.training import Streams, TrainSettings, batch_loss, train

WORDS = ("ночь", "друг", "любовь", "море", "день", "сердце")  # whose neighbours are shown; those that are known
OFTEN = 10  # a neighbour stands so often in the training verse: what is met less has neighbours by chance
PIECE = 256  # tokens in which held-out verse is read: whole epics of V-wide vectors would fill the memory


class Kind(NamedTuple):
    """inputs of the RNNConfig; whether the embedding starts from word2vec's vectors, and whether these are frozen."""

    inputs: str
    vectors: bool = False
    freeze: bool = False


KINDS = {
    "label": Kind("label"),
    "one-hot": Kind("one-hot"),
    "bag": Kind("bag"),
    "embedding": Kind("embedding"),
    "word2vec, frozen": Kind("embedding", vectors=True, freeze=True),
    "word2vec, trained further": Kind("embedding", vectors=True),
}


class Run(NamedTuple):
    """What a run gave: figures of the best weights, the validation curve, the vectors that it ended with."""

    told: dict[str, float]
    curve: tuple[list[int], list[float]]
    vectors: Tensor | None


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--corpus", default="embedded", help='"embedded", "pushkin" (fetched once), or a path (default: %(default)s)')
    add("--author", help="only this author's poems of a .jsonl corpus")
    add("--vectors-corpus", help='prose that word2vec reads too: "embedded", "pushkin-prose", or a path')
    add("--out", type=Path, default=Path("runs/compare_inputs"), help="for the results (default: %(default)s)")
    add("--inputs", nargs="+", choices=KINDS, default=list(KINDS), metavar="INPUT", help="some of: %(choices)s")
    add("--seeds", type=int, nargs="+", default=[0, 1], help="a run of each input each (default: 0 1)")
    add("--min-count", type=int, default=2, help="a word that stands so often is known (default: %(default)s)")
    add("--max-words", type=int, default=3000, help="words and signs, at most (default: %(default)s)")
    add("--width", type=int, default=64, help="of an embedding (default: %(default)s)")
    add("--hidden", type=int, default=128, help="of the state (default: %(default)s)")
    add("--bag", type=int, default=8, help="words in a bag (default: %(default)s)")
    add("--dropout", type=float, default=0.2)
    add("--steps", type=int, default=150, help="optimiser steps of each run (default: %(default)s)")
    add("--lr", type=float, default=5e-3, help="largest learning rate (default: %(default)s)")
    add("--rows", type=int, default=16, help="texts read side by side (default: %(default)s)")
    add("--length", type=int, default=32, help="tokens a window, which the gradient goes back (default: %(default)s)")
    add(
        "--evaluations", type=int, default=6, help="points of a validation curve after its start (default: %(default)s)"
    )
    add("--validation", type=float, default=0.1, help="share of the verse that is held out (default: %(default)s)")
    add("--split-seed", type=int, default=0, help="of the division into training and validation")
    add("--words", nargs="+", default=list(WORDS), help="words whose neighbours are shown")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--quick", action="store_true", help="a few steps: only to see that all of it works")
    add("--resume", action="store_true", help="go on with interrupted runs in --out, and keep finished ones")
    args = parser.parse_args()
    wrong = [f"--{name} must be at least 1, got {getattr(args, name)}"
             for name in ("steps", "evaluations", "rows", "length") if getattr(args, name) < 1]  # fmt: skip
    if args.min_count < 2:
        wrong.append(
            f"--min-count must be at least 2, or no unknown word would be met in training; got {args.min_count}"
        )
    if wrong:
        raise ValueError(f"{'; '.join(wrong)}.")
    if args.quick:
        args.steps, args.evaluations, args.seeds = min(args.steps, 4), 1, args.seeds[:1]
    args.poems, args.seed = None, 0  # `read` gives all
    return args


def prose_for_vectors(corpus: str, held_out: Sequence[str]) -> list[str]:
    """Prose without the lines that quote the held-out verse."""
    quoted = Quotations(held_out)
    parts = [quoted.drop(work.text) for work in read_prose_corpus(corpus)]
    texts = [text for text, _ in parts]
    print(f"word2vec also reads {len(texts)} works of prose, {sum(map(len, texts)):,} characters; "
          f"{sum(lines for _, lines in parts)} lines that quote held-out verse were left out")  # fmt: skip
    return texts


def make_model(kind: Kind, tokenizer: WordTokenizer, vectors: Tensor | None, seed: int, args: argparse.Namespace):
    """The LSTM with this input, as it begins."""
    torch.manual_seed(seed)
    model = LSTM(RNNConfig(
        vocab_size=tokenizer.vocab_size, n_embd=args.width, n_hidden=args.hidden, n_layer=1, dropout=args.dropout,
        inputs=kind.inputs, window=args.bag,
    )).to(as_device(args.device))  # fmt: skip
    if kind.vectors:
        assert vectors is not None
        start_from(model, vectors, kind.freeze)
    return model


def one_run(
    name: str, seed: int, tokenizer: WordTokenizer, sides: tuple[Sequence[str], Sequence[str]], vectors: Tensor | None,
    spelling: Spelling, args: argparse.Namespace,
) -> Run:  # fmt: skip
    """Train with one input and seed, and measure."""
    learnt, held_out = sides
    model = make_model(KINDS[name], tokenizer, vectors, seed, args)
    batches = Streams(encode_texts(tokenizer, learnt), args.length, args.rows, seed)
    counts = minipoet.count_parameters(model)
    milliseconds = step_milliseconds(model, batches)
    settings = TrainSettings(
        steps=args.steps, lr=args.lr, warmup=min(20, args.steps // 4), seed=seed,
        evaluate_every=max(1, args.steps // args.evaluations),
    )  # fmt: skip

    def loss() -> float:
        return measure(model, tokenizer, held_out, PIECE).loss

    folder = args.out / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
    history = train(model, batches, settings, folder, loss, args.resume, quiet=True)
    told = figures(measure(model, tokenizer, held_out, PIECE), tokenizer, held_out, spelling)
    at, values = history.curve("validation")
    told |= {"trainable": counts.trainable, "parameters": counts.all, "milliseconds": milliseconds,
             "best_step": at[values.index(min(values))]}  # fmt: skip
    print(f"{name}, seed {seed}: perplexity {told['perplexity']:.2f}, fair bits "
          f"{told['fair_bits_per_character']:.4f}, best at step {told['best_step']}", flush=True)  # fmt: skip
    embedding = model.embed.weight.detach().cpu() if KINDS[name].inputs == "embedding" else None
    return Run(told, (at, values), embedding)


def step_milliseconds(model: LSTM, batches: Streams, steps: int = 5) -> float:
    """CPU time of the gradient of a batch, the least of several: what else the machine does matters little."""
    times = []
    for number in range(steps):
        batch = batches.batch(number)
        started = time.process_time()
        batch_loss(model, batch, cache=model.new_cache(len(batch.ids))).backward()
        times.append(time.process_time() - started)
    model.zero_grad(set_to_none=True)
    return 1000 * min(times)


# What is told


def table(runs: dict[str, list[Run]]) -> str:
    """Markdown: an input a row; means over the seeds, and standard deviations where there are several."""
    lines = [
        "| input | parameters, trained | perplexity a token | fair bits per character | best step | CPU ms a step |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, found in runs.items():
        told = [one.told for one in found]
        cells = [name, f"{told[0]['parameters']:,}, {told[0]['trainable']:,}",
                 spread([row["perplexity"] for row in told], 2),
                 spread([row["fair_bits_per_character"] for row in told], 4),
                 ", ".join(str(row["best_step"]) for row in told),
                 f"{fmean(row['milliseconds'] for row in told):.0f}"]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def spread(values: Sequence[float], digits: int) -> str:
    """Mean ± standard deviation; a single value as it is."""
    more = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{more}"


def neighbours(
    stages: dict[str, Tensor], words: Sequence[str], tokenizer: WordTokenizer, often: Sequence[int]
) -> tuple[str, dict[str, dict[str, list[tuple[str, float]]]]]:
    """Markdown and values: of each word its nearest ones in each table of vectors, among those that come often."""
    token = {id: token for token, id in tokenizer.vocab.items()}
    lines = [f"| word | {' | '.join(stages)} |", "|---" * (len(stages) + 1) + "|"]
    found: dict[str, dict[str, list[tuple[str, float]]]] = {}
    for word in words:
        found[word] = {
            stage: [(token[id], cosine) for id, cosine in nearest(vectors, tokenizer.vocab[word], 5, often)]
            for stage, vectors in stages.items()
        }
        cells = [", ".join(f"{near} {cosine:.2f}" for near, cosine in row) for row in found[word].values()]
        lines.append(f"| {word} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n", found


def frequent_words(tokenizer: WordTokenizer, texts: Sequence[str]) -> list[int]:
    """Ids of the words, not signs, that stand OFTEN times or more; the most frequent first."""
    counts = Counter(chain.from_iterable(tokenizer.encode_batch(texts)))
    return [id for token, id in tokenizer.vocab.items() if token[0].isalpha() and counts[id] >= OFTEN]


def draw_curves(runs: dict[str, list[Run]], path: Path, title: str) -> None:
    """Validation by steps: mean and standard deviation of the seeds; without the start, where all know nothing."""
    curves = {}
    for name, found in runs.items():
        steps = found[0].curve[0][1:]
        values = list(zip(*(one.curve[1][1:] for one in found), strict=True))
        curves[name] = [
            (step, fmean(at), stdev(at) if len(at) > 1 else 0.0) for step, at in zip(steps, values, strict=True)
        ]
    plot_study(curves, path, title, "step", "held-out verse, nats per token")


def main() -> None:
    args = arguments()
    started = time.perf_counter()
    train_poems, held_out_poems, sha256 = read(args)
    learnt, held_out = sides = tuple([poem.text for poem in side] for side in (train_poems, held_out_poems))
    tokenizer = WordTokenizer.from_texts(learnt, args.min_count, args.max_words)
    V, batch = tokenizer.vocab_size, args.rows * args.length
    print(f"vocabulary: {V:,} words and signs; {len(unknown_words(tokenizer, held_out)):,} of the held-out verse are "
          f"unknown. A batch of ids is {batch:,} numbers, one of vectors as wide as the vocabulary {batch * V:,} "
          f"({4 * batch * V / 1e6:.1f} MB)")  # fmt: skip
    often = frequent_words(tokenizer, learnt)
    words = [word for word in args.words if tokenizer.vocab.get(word) in often]
    if rare := [word for word in args.words if word not in words]:
        print(f"note: no neighbours of {', '.join(rare)}: seen fewer than {OFTEN} times in the training verse")
    spelling = Spelling(unknown_words(tokenizer, learnt))

    vectors = None
    if any(KINDS[name].vectors for name in args.inputs):
        prose = prose_for_vectors(args.vectors_corpus, held_out) if args.vectors_corpus else []
        vectors = word_vectors(tokenizer, encode_texts(tokenizer, [*learnt, *prose]), args.width, seed=0)
    runs: dict[str, list[Run]] = {name: [] for name in args.inputs}
    for seed in args.seeds:
        for name, found in runs.items():
            found.append(one_run(name, seed, tokenizer, sides, vectors, spelling, args))
    stages = {name: found[0].vectors for name, found in runs.items() if found[0].vectors is not None and name in (
        "embedding", "word2vec, trained further")}  # fmt: skip
    stages |= {} if vectors is None else {"word2vec, before": vectors}
    near_table, near = neighbours(dict(sorted(stages.items())), words, tokenizer, often)

    text = f"# Inputs\n\n{table(runs)}\n# Neighbours among the words that stand {OFTEN} times or more\n\n{near_table}"
    write_text_atomic(args.out / "report.md", text)
    draw_curves(runs, args.out / "curves.png", f"One LSTM, {len(runs)} inputs: {Path(args.corpus).name}")
    write_json_atomic(args.out / "results.json", {
        "settings": {name: value for name, value in vars(args).items() if name not in ("out", "resume", "poems")},
        "corpus_sha256": sha256, "train_poems": len(learnt), "vocabulary": V,
        "runs": {name: [one.told | {"curve": one.curve} for one in found] for name, found in runs.items()},
        "neighbours": near, "seconds": round(time.perf_counter() - started, 1),
    })  # fmt: skip
    print(f"\n{text}\n{args.out}: report.md, results.json, curves.png; {time.perf_counter() - started:.0f} s in all")


if __name__ == "__main__":
    run(main)
