"""Letters, words, subwords; counting, recurrence, attention: all on the same held-out verse, in bits per character.

    python examples/compare_models.py                                  the embedded corpus, small models, some minutes
    python examples/compare_models.py --corpus poems.jsonl --author Пушкин --adapter runs/pushkin
    python examples/compare_models.py --load letters-lstm=runs/char_rnn/model     a model that was trained elsewhere

Bits per character are the only unit that is fair across vocabularies: the denominator is every character, line breaks
and the end of each text included, and a word model pays for an unknown word with −log p(<unk>) and its letters under a
letter model (docs/words.md). A model that is in --out or given by --load is measured as it is; any other is trained for
--steps first. In --out: the models, table.md, results.json, and a picture.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import torch

import minipoet
from minipoet.command import run
from minipoet.evaluation import Likelihood, Spelling, fair_bits, likelihood, unknown_cost
from minipoet.files import write_json_atomic, write_text_atomic
from minipoet.models.ngram import NGram
from minipoet.models.rnn import CELLS, RNNConfig
from minipoet.plots import plot_bars
from minipoet.text import drop_duplicates, read_corpus, split_by_work
from minipoet.tokenization import CharTokenizer, Tokenizer, WordTokenizer, encode_texts, split_tokens, train_bpe
from minipoet.training import Streams, TrainSettings, train

RECURRENT = ("letters-rnn", "letters-gru", "letters-lstm", "words-gru", "words-lstm", "bpe-lstm")
WINDOWS = {"letters": (64, 1024), "words": (32, 256), "bpe": (64, 256)}  # tokens in training and in measuring


@dataclass(frozen=True)
class Row:
    """A model of the table. unknown: share of the held-out tokens; unknown_bits: what they add, part of `bits`."""

    model: str
    parameters: int | None
    vocabulary: int
    perplexity: float
    unknown: float
    unknown_bits: float
    bits: float


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    corpora = '"embedded" (written for this package), "pushkin" (fetched once), or a folder of .txt, a .txt, a .jsonl'
    add("--corpus", default="embedded", help=corpora)
    add("--author", help="only this author's poems of a .jsonl corpus")
    add("--out", type=Path, default=Path("runs/compare_models"), help="folder for the results (default: %(default)s)")
    add("--models", nargs="*", default=list(RECURRENT), choices=RECURRENT, help="those to train (default: all)")
    add("--orders", type=int, nargs="*", default=[1, 3, 5], help="of the n-grams of letters (default: 1 3 5)")
    add(
        "--load",
        nargs="*",
        default=[],
        metavar="NAME=FOLDER",
        help="models that were trained elsewhere",
    )
    add("--adapter", help="LoRA adapter of poet-tiny, learnt on the same training part (examples/lora_pushkin.py)")
    add("--steps", type=int, default=300, help="iterations a model, at most (default: %(default)s)")
    add("--patience", type=int, default=5, help="evaluations with none better before stopping (default: %(default)s)")
    add("--evaluate-every", type=int, default=50, help="iterations (default: %(default)s)")
    add("--hidden", type=int, default=192, help="numbers in the state of each of 2 layers (default: %(default)s)")
    add("--dropout", type=float, default=0.3)
    add("--lr", type=float, default=5e-3)
    add("--rows", type=int, default=32, help="lanes, read side by side (default: %(default)s)")
    add("--min-count", type=int, default=2, help="words that stand less often are unknown (default: %(default)s)")
    add("--bpe", type=int, default=1410, help="size of the BPE vocabulary (default: %(default)s)")
    add("--validation", type=float, default=0.1, help="share of the verse that is held out (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the weights and the training")
    add("--split-seed", type=int, default=0, help="of the division into training and validation")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--quick", action="store_true", help="a few steps: only to see that all of it works")
    args = parser.parse_args()
    if args.quick:
        args.steps, args.evaluate_every, args.hidden = min(args.steps, 6), 3, 32
    wrong = [entry for entry in args.load if not all(entry.partition("="))]
    if wrong:
        raise ValueError(f"--load takes NAME=FOLDER, such as letters-lstm=runs/char_rnn/model, got {wrong}.")
    return args


def make_tokenizer(unit: str, texts: list[str], args: argparse.Namespace) -> Tokenizer:
    """Of letters, words or subwords, learnt on the training texts alone."""
    if unit == "letters":
        return CharTokenizer.from_texts(texts, unk=True)
    if unit == "words":
        return WordTokenizer.from_texts(texts, min_count=args.min_count)
    return train_bpe(texts, args.bpe)


def unit_of(tokenizer: Tokenizer) -> str:
    """Letters, words or subwords: what it cuts a text into."""
    return (
        "letters"
        if isinstance(tokenizer, CharTokenizer)
        else "words"
        if isinstance(tokenizer, WordTokenizer)
        else "bpe"
    )


class Verse:
    """The texts to learn from and to measure on, and how a model is measured on them."""

    def __init__(self, train_texts: list[str], held_out: list[str]):
        self.train, self.held_out = train_texts, held_out
        self.characters = sum(len(text) + 1 for text in held_out)

    def nll(self, model, tokenizer: Tokenizer) -> Likelihood:
        """Of a model of the contract; it reads pieces of at most its context, and each without the one before."""
        context = min(model.context, WINDOWS[unit_of(tokenizer)][1])
        ids = encode_texts(tokenizer, self.held_out)
        return likelihood(model, ids, self.characters, context, breaks=tokenizer.encode("\n"))

    def row(self, name: str, found: Likelihood, tokenizer: Tokenizer, parameters: int | None) -> Row:
        """What a likelihood comes to when it has paid for what the vocabulary lacks."""
        spelling = None
        if isinstance(tokenizer, WordTokenizer):
            rare = [word for text in self.train for word in tokenizer.unknown(text)]
            spelling = Spelling(rare or [word for text in self.train for word in split_tokens(text)])
        bits = fair_bits(found, tokenizer, self.held_out, spelling)
        cost = unknown_cost(tokenizer, self.held_out, spelling) / found.nll
        unknown = sum(len(tokenizer.unknown(text)) for text in self.held_out) if hasattr(tokenizer, "unknown") else 0
        return Row(name, parameters, tokenizer.vocab_size, found.perplexity, unknown / found.tokens,
                   bits * cost / (1 + cost), bits)  # fmt: skip


def learn(name: str, verse: Verse, args: argparse.Namespace):
    """A recurrent model of the table and its tokenizer, trained, or as it lies in --out from before."""
    folder = args.out / name
    if (folder / "model" / "config.json").exists():
        print(f"{name}: as it is in {folder / 'model'}")
        return minipoet.load(folder / "model", device=args.device)
    unit, cell = name.split("-")
    tokenizer = make_tokenizer(unit, verse.train, args)
    torch.manual_seed(args.seed)
    model = CELLS[cell](RNNConfig(
        vocab_size=tokenizer.vocab_size, n_embd=args.hidden, n_hidden=args.hidden, dropout=args.dropout,
        tie_word_embeddings=unit == "words",
    )).to(args.device)  # fmt: skip
    streams = Streams(encode_texts(tokenizer, verse.train), WINDOWS[unit][0], args.rows, args.seed)
    settings = TrainSettings(
        steps=args.steps, lr=args.lr, warmup=min(50, args.steps // 4), evaluate_every=args.evaluate_every,
        patience=args.patience, precision="fp32", seed=args.seed,
    )  # fmt: skip
    print(f"{name}: {streams.steps_per_epoch()} iterations an epoch")
    train(model, streams, settings, folder, lambda: verse.nll(model, tokenizer).loss, resume=True)
    minipoet.save(model, tokenizer, folder / "model")
    return model, tokenizer


def count(order: int, verse: Verse) -> Row:
    """An n-gram of letters."""
    tokenizer = make_tokenizer("letters", verse.train, argparse.Namespace())
    ngram = NGram(order, tokenizer.vocab_size)
    ngram.learn(encode_texts(tokenizer, verse.train))
    ids = encode_texts(tokenizer, verse.held_out)
    found = Likelihood(sum(map(ngram.nll, ids)), sum(len(text) - 1 for text in ids), verse.characters)
    return verse.row(f"letters, {order}-gram", found, tokenizer, None)


def as_markdown(rows: list[Row]) -> str:
    """The table, the best last."""
    names = ("model", "parameters", "vocabulary", "perplexity a token", "unknown", "bits per character", "for spelling")
    lines = [f"| {' | '.join(names)} |", "|---|" + "---:|" * (len(names) - 1)]
    for row in sorted(rows, key=lambda row: -row.bits):
        parameters = "–" if row.parameters is None else f"{row.parameters:,}"
        lines.append(f"| {row.model} | {parameters} | {row.vocabulary:,} | {row.perplexity:.1f} | {row.unknown:.1%} | "
                     f"{row.bits:.3f} | {row.unknown_bits:.3f} |")  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    args = arguments()
    started = time.perf_counter()
    poems, _ = drop_duplicates(read_corpus(args.corpus, args.author))
    split = split_by_work(poems, args.validation, args.split_seed)
    verse = Verse([poem.text for poem in split.train], [poem.text for poem in split.validation])
    print(f"corpus {args.corpus}: {len(split.train)} poems to learn from, {len(split.validation)} held out "
          f"({verse.characters:,} characters)")  # fmt: skip

    rows = [count(order, verse) for order in args.orders]
    given = dict(entry.split("=", 1) for entry in args.load)
    names = [*given, *(name for name in args.models if name not in given)]
    for name in names:
        model, tokenizer = minipoet.load(given[name], device=args.device) if name in given else learn(name, verse, args)
        parameters = minipoet.count_parameters(model).all
        rows.append(verse.row(name, verse.nll(model, tokenizer), tokenizer, parameters))
    model, tokenizer = minipoet.load("poet-tiny", device=args.device)
    for name in ("poet-tiny", *["poet-tiny + LoRA"] * bool(args.adapter)):
        if name != "poet-tiny":
            minipoet.load_adapter(model, args.adapter)
        rows.append(verse.row(name, verse.nll(model, tokenizer), tokenizer, minipoet.count_parameters(model).all))

    table = as_markdown(rows)
    write_text_atomic(args.out / "table.md", table)
    plot_bars({row.model: row.bits for row in sorted(rows, key=lambda row: -row.bits)}, args.out / "models.png",
              f"Held-out verse of {Path(args.corpus).name}", "bits per character")  # fmt: skip
    write_json_atomic(args.out / "results.json", {
        "settings": {name: value for name, value in vars(args).items() if name != "out"},
        "characters": verse.characters, "rows": [vars(row) for row in rows],
        "seconds": round(time.perf_counter() - started, 1),
    })  # fmt: skip
    print(f"\n{table}\n{args.out}: table.md, models.png, results.json, the models that were trained; "
          f"{time.perf_counter() - started:.0f} s in all")  # fmt: skip


if __name__ == "__main__":
    run(main)
