"""Which architecture? A random search, or a plain grid, on little data; and then a look at what it is worth.

    python examples/search_architectures.py                         the embedded corpus, letters, two minutes
    python examples/search_architectures.py --candidates 32 --out runs/search --corpus poems.jsonl --author Пушкин
    python examples/search_architectures.py --grid LSTM             layers × batch size × optimiser
    python examples/search_architectures.py … --confirm 2           … then the best 2 of each type on all the verse

A candidate is a windowed MLP ("Linear"), an RNN, a GRU or an LSTM with a depth, a width, a learning rate, … drawn from
the table SPACE (the grid is the table GRID). Each learns from --poems poems for --epochs epochs (or --tokens tokens: a
budget that is the same on every machine, as seconds are not) and is validated after each epoch on held-out verse. In
--out: search.jsonl, a line a candidate, to which the same command adds what is missing; report.md, results.json, the
curves of each type, and a plot of all. --confirm measures what the ranking is worth, into confirm.jsonl: the best of
each type, and some others, on all the verse; the best of each type with other seeds, and at other learning rates.
Chapter: docs/search.md
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from search_report import draw_search, told_briefly, told_confirmed, told_search

from minipoet.checks import as_device
from minipoet.command import run
from minipoet.evaluation import Likelihood, Spelling, likelihood, unknown_cost
from minipoet.files import write_json_atomic, write_text_atomic
from minipoet.models import count_parameters
from minipoet.models.ngram import NGram
from minipoet.models.rnn import CELLS, RNNConfig
from minipoet.models.window import WindowMLP, WindowMLPConfig
from minipoet.text import corpus_sha256, drop_duplicates, read_corpus, split_by_work
from minipoet.tokenization import CharTokenizer, WordTokenizer, encode_texts
from minipoet.training import Batches, Streams, TrainingDiverged, TrainSettings, train
from minipoet.training.search import Trial, ranked, search
from minipoet.training.space import Candidate, Choice, Given, LogUniform, draw, grid

RECURRENT = {model.__name__: model for model in CELLS.values()}
TYPES = ("Linear", *RECURRENT)
SPACE = {  # candidate i is of type i mod 4, so that each type has its share
    "layer": Choice(*TYPES),
    "n_layer": Choice(1, 2),
    "n_hidden": Choice(32, 64, 96, 128),
    "n_embd": Choice(16, 32, 64),
    "window": Given("layer", {  # what a Linear sees; for the others: steps that a gradient goes back
        "Linear": Choice(4, 8, 16), **dict.fromkeys(RECURRENT, Choice(16, 32, 64))}),
    "dropout": Choice(0.0, 0.1, 0.2, 0.3, 0.5),
    "optimizer": Choice("adamw", "rmsprop", "sgd"),
    "lr": Given("optimizer", {  # SGD's steps have the size of the gradient: its rates are of another order
        "adamw": LogUniform(3e-4, 3e-2), "rmsprop": LogUniform(1e-4, 1e-2), "sgd": LogUniform(1e-2, 1.0)}),
    "rows": Choice(8, 16, 32),
}  # fmt: skip
GRID = {"n_layer": (1, 2), "rows": (8, 32), "optimizer": ("adamw", "sgd")}
REST = {"n_hidden": 64, "n_embd": 32, "dropout": 0.1}  # of a grid; its learning rates are the middles of SPACE's
WINDOW, RATE = {"Linear": 8}, {"adamw": 3e-3, "rmsprop": 1e-3, "sgd": 0.1}
LENGTH = 64  # tokens a row of a Linear's batches; a recurrent model's rows are as long as its window
MEASURE = {"context": 512, "rows": 64}  # of tokens that a model is measured on at a time
ORDER = 4  # of the n-gram that candidates are compared with
SEEDS, RATES = (1, 2), (1 / 3, 3)  # of the best of each type, with --confirm: other seeds, other learning rates


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--corpus", default="embedded", help='"embedded", "pushkin" (fetched once), or a path (default: %(default)s)')
    add("--author", help="only this author's poems of a .jsonl corpus")
    add("--out", type=Path, default=Path("runs/search"), help="folder for the results (default: %(default)s)")
    add("--unit", default="letters", choices=("letters", "words"), help="what a token is (default: %(default)s)")
    add("--candidates", type=int, default=8, help="of the random search (default: %(default)s)")
    add("--grid", choices=TYPES, metavar="TYPE", help=f"all of GRID for one type instead: {', '.join(TYPES)}")
    add("--poems", type=int, default=30, help="a candidate learns from so many, drawn by --seed (default: %(default)s)")
    add("--epochs", type=int, default=20, help="of each candidate (default: %(default)s)")
    add("--tokens", type=int, help="a candidate learns from so many, instead of --epochs")
    add("--confirm", type=int, default=0, metavar="K", help="then the best K of each type on all the verse")
    add("--others", type=int, default=4, help="and so many others, evenly from the ranking (default: %(default)s)")
    add("--times", type=float, default=2, help="there, so many times as many steps (default: %(default)g)")
    add("--validation", type=float, default=0.1, help="share of the verse that is held out (default: %(default)s)")
    add("--test", type=float, default=0.5, help="share of it that only --confirm measures on (default: %(default)s)")
    add("--split-seed", type=int, default=0, help="of the division of the verse")
    add("--seed", type=int, default=0, help="of the candidates, the poems and the training")
    add("--device", default="cpu", help="of the models (default: %(default)s)")
    add("--quick", action="store_true", help="four candidates, two epochs: only to see that all of it works")
    args = parser.parse_args()
    least = {"candidates": 1, "epochs": 1, "poems": 1, "confirm": 0, "others": 0, "seed": 0, "split_seed": 0}
    if args.tokens is not None:
        least["tokens"] = 1
    wrong = [f"--{name.replace('_', '-')} must be at least {least[name]}, got {getattr(args, name)}"
             for name in least if getattr(args, name) < least[name]]  # fmt: skip
    if not 0 < args.times < math.inf:
        wrong.append(f"--times must be a number above 0, got {args.times}")
    if not 0 < args.test < 1:
        wrong.append(f"--test is a share of the held-out verse, above 0 and below 1, got {args.test:g}")
    if wrong:
        raise ValueError(f"{'; '.join(wrong)}.")
    as_device(args.device)
    if args.quick:
        args.candidates, args.epochs, args.poems = min(args.candidates, 4), min(args.epochs, 2), min(args.poems, 4)
    return args


# Data


class Measured(NamedTuple):
    """Texts to measure on. spelt: nats that every model pays beside its own, to spell what the vocabulary lacks."""

    ids: list[list[int]]
    characters: int  # the end of each text counted
    spelt: float

    def by(self, model: torch.nn.Module, breaks: Sequence[int]) -> Likelihood:
        found = likelihood(model, self.ids, self.characters, breaks=breaks, **MEASURE)
        if not math.isfinite(found.nll):
            raise TrainingDiverged(f"The loss on held-out verse is {found.loss}: try a smaller learning rate.")
        return found

    def bits(self, found: Likelihood) -> float:
        return (found.nll + self.spelt) / (math.log(2) * self.characters)


class Data(NamedTuple):
    """What the candidates learn from, and are measured on; sha256 is of the whole corpus."""

    part: list[list[int]]
    all: list[list[int]]
    validation: Measured
    test: Measured
    vocab_size: int
    breaks: list[int]
    sha256: str


def read(args: argparse.Namespace) -> Data:
    """The verse, divided by work into training, validation and test, as ids."""
    poems, _ = drop_duplicates(read_corpus(args.corpus, args.author))
    split = split_by_work(poems, args.validation, args.split_seed)
    held_out = split_by_work(split.validation, args.test, args.split_seed)
    texts = [poem.text for poem in split.train]
    if args.poems > len(texts):
        raise ValueError(f"--poems must be at most {len(texts)}, all that there are to learn from; got {args.poems}.")
    words = args.unit == "words"
    tokenizer = WordTokenizer.from_texts(texts) if words else CharTokenizer.from_texts(texts, unk=True)
    rare = [word for text in texts for word in tokenizer.unknown(text)]
    spelling = Spelling(rare) if rare else None

    def measured(verse: list[str]) -> Measured:
        characters = sum(len(text) + 1 for text in verse)
        return Measured(encode_texts(tokenizer, verse), characters, unknown_cost(tokenizer, verse, spelling))

    part = random.Random(args.seed).sample(texts, args.poems)
    validation, test = ([poem.text for poem in side] for side in (held_out.train, held_out.validation))
    data = Data(encode_texts(tokenizer, part), encode_texts(tokenizer, texts), measured(validation), measured(test),
                tokenizer.vocab_size, tokenizer.encode("\n"), corpus_sha256(poems))  # fmt: skip
    print(f"corpus {args.corpus}: {len(part)} of {len(texts)} poems to learn from ({sum(map(len, part)):,} characters)"
          f", {len(validation)} to validate on ({data.validation.characters:,}), {len(test)} for the test "
          f"({data.test.characters:,}); {data.vocab_size:,} {args.unit}", flush=True)  # fmt: skip
    return data


# A candidate


def build(candidate: Candidate, vocab_size: int) -> torch.nn.Module:
    """The model of a candidate; its start values are its seed's."""
    torch.manual_seed(candidate["seed"])
    sizes = {name: candidate[name] for name in ("n_layer", "n_hidden", "n_embd", "dropout")}
    sizes["vocab_size"] = vocab_size
    if candidate["layer"] == "Linear":
        return WindowMLP(WindowMLPConfig(window=candidate["window"], **sizes))
    return RECURRENT[candidate["layer"]](RNNConfig(**sizes))


def evaluate(candidate: Candidate, data: Data, args: argparse.Namespace) -> dict[str, Any]:
    """Train it, measure it after each epoch of the part; what is told of it. `times` of a candidate: so much longer."""
    rows, seed, on_all = candidate["rows"], candidate["seed"], candidate["on"] == "all"

    def batches(ids: list[list[int]]) -> Batches | Streams:
        if candidate["layer"] == "Linear":
            return Batches(ids, LENGTH, rows, seed, data.breaks)
        return Streams(ids, candidate["window"], rows, seed)

    part = batches(data.part)
    epoch = part.steps_per_epoch()
    epochs = args.epochs if args.tokens is None else args.tokens / part.epoch_tokens()
    steps = max(1, round(epochs * epoch * candidate["times"]))
    settings = TrainSettings(
        steps=steps, lr=candidate["lr"], optimizer=candidate["optimizer"], warmup=min(20, steps // 10),
        evaluate_every=max(1, round(epoch * candidate["times"])), save_every=steps, precision="fp32", seed=seed,
    )  # fmt: skip
    model = build(candidate, data.vocab_size).to(args.device)
    found: list[Likelihood] = []

    def validate() -> float:
        found.append(data.validation.by(model, data.breaks))
        return found[-1].loss

    with tempfile.TemporaryDirectory() as folder:
        history = train(model, batches(data.all) if on_all else part, settings, folder, validate, quiet=True)
    at, _ = history.curve("validation")
    best = min(range(len(found)), key=lambda number: found[number].loss)
    told = {
        "score": data.validation.bits(found[best]), "perplexity": found[best].perplexity, "best_step": at[best],
        "steps": steps, "epoch": epoch, "parameters": count_parameters(model).all,
        "tokens": history.curve("tokens")[1][-1], "seconds": history.curve("seconds")[1][-1],
        "curve": {"step": at, "perplexity": [one.perplexity for one in found],
                  "bits_per_character": [data.validation.bits(one) for one in found]},
    }  # fmt: skip
    if on_all:
        told["test"] = data.test.bits(data.test.by(model, data.breaks))
    return told


def counted(ids: list[list[int]], data: Data) -> float:
    """Bits per character of a model that only counts, learnt from the same ids: what a candidate has to beat."""
    ngram = NGram(ORDER, data.vocab_size)
    ngram.learn(ids)
    nll = sum(map(ngram.nll, data.validation.ids)) + data.validation.spelt
    return nll / (math.log(2) * data.validation.characters)


# Which candidates


def candidates_of(args: argparse.Namespace) -> list[Candidate]:
    """All of the search, or of the grid."""
    more = {"seed": args.seed, "on": "part", "times": 1}
    if args.grid:
        window = WINDOW.get(args.grid, 32)
        axes = [{"layer": args.grid, **REST, **point, "window": window, "lr": RATE[point["optimizer"]]}
                for point in grid(GRID)]  # fmt: skip
    else:
        axes = [draw(SPACE | {"layer": Choice(TYPES[number % len(TYPES)])}, args.seed, number)
                for number in range(args.candidates)]  # fmt: skip
    return [{"number": number, **axis, **more} for number, axis in enumerate(axes)]


def to_confirm(trials: Sequence[Trial], args: argparse.Namespace) -> dict[str, list[Candidate]]:
    """What --confirm runs: on all the verse, with other seeds, at other learning rates."""
    order = ranked(trials)
    best = {layer: [trial for trial in order if trial.candidate["layer"] == layer] for layer in TYPES}
    chosen = [trial for layer in TYPES for trial in best[layer][: args.confirm]]
    rest = [trial for trial in order if trial not in chosen]
    few = min(args.others, len(rest))
    chosen += [rest[round((i + 0.5) * len(rest) / few - 0.5)] for i in range(few)]
    first = [trials[0].candidate for trials in best.values() if trials]
    return {
        "all": [trial.candidate | {"on": "all", "times": args.times} for trial in chosen],
        "seeds": [one | {"seed": args.seed + seed} for one in first for seed in SEEDS],
        "rates": [one | {"lr": float(f"{one['lr'] * times:.3g}")} for one in first for times in RATES],
    }


def about(args: argparse.Namespace, data: Data) -> dict[str, Any]:
    """All that a result depends on beside the candidate: another search has another file."""
    names = ("unit", "poems", "epochs", "tokens", "validation", "test", "split_seed", "seed")
    space = {"grid": args.grid} | GRID | REST if args.grid else SPACE
    space = {name: repr(values) for name, values in space.items()}
    return {name: getattr(args, name) for name in names} | {"corpus_sha256": data.sha256, "space": space}


def main() -> None:
    args = arguments()
    started = time.perf_counter()
    data = read(args)

    def tell(trial: Trial) -> None:
        seconds = f", {trial.found['seconds']:.0f} s" if trial.found else ""
        result = f"{trial.score:.3f} bits per character{seconds}" if trial.found else f"{trial.status}: {trial.reason}"
        print(f"{told_briefly(trial.candidate)} ({trial.candidate['layer']}): {result}", flush=True)

    def tried(candidates: list[Candidate], name: str) -> list[Trial]:
        return search(candidates, lambda one: evaluate(one, data, args), args.out / name, about(args, data), tell)

    trials = tried(candidates_of(args), "search.jsonl")
    if not ranked(trials):
        raise ValueError(f"None of the {len(trials)} candidates has a result; the first: {trials[0].reason}")
    baseline = {"part": counted(data.part, data)}
    text, figures = told_search(trials, baseline["part"]), {}
    files = ["search.jsonl", "report.md", "results.json", *draw_search(trials, args.unit, RATE, args.out)]
    if args.confirm:
        wanted = to_confirm(trials, args)
        confirmed = {kind: tried(candidates, "confirm.jsonl") for kind, candidates in wanted.items()}
        baseline["all"] = counted(data.all, data)
        told, figures = told_confirmed(trials, confirmed, baseline["all"], args.out / "confirm.png")
        text += "\n" + told
        files += ["confirm.jsonl", "confirm.png"]
    write_text_atomic(args.out / "report.md", text)
    settings = {name: value for name, value in vars(args).items() if name not in ("out", "quick")}
    order = [trial.candidate | {n: v for n, v in trial.found.items() if n != "curve"} for trial in ranked(trials)]
    write_json_atomic(args.out / "results.json", {
        "settings": settings, "about": about(args, data), "counted": baseline, "confirmed": figures,
        "ranking": order, "seconds": round(time.perf_counter() - started, 1),
    })  # fmt: skip
    print(f"\n{text}\n{args.out}: {', '.join(files)}; {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    run(main, "start the same command again: only the candidate in work is lost")
