"""Teach a recurrent model of words to write in the manner of a poet, and watch it run round in circles.

    python examples/word_lstm_pushkin.py                                            the embedded corpus, a minute or two
    python examples/word_lstm_pushkin.py --corpus poems.jsonl --author Пушкин --min-count 3 --epochs 10
    python examples/word_lstm_pushkin.py --cell gru --vectors word2vec

The poems are cut into words; a word that stands fewer than --min-count times is unknown. The model reads streams of
windows and carries its state from one to the next (training/streams.py). It is measured in perplexity, which only
models of one vocabulary may be compared by, and in fair bits per character, where an unknown word pays for its letters.
Then it goes on from first lines of held-out poems in several ways of sampling, and the repetition of each is set beside
the poet's own. In --out: model/, history.jsonl, loss.png, samples.md, repetition.md, repetition.png, results.json.
Chapter: docs/words.md
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import stdev
from typing import Any

import torch
from lora_pushkin import course, read
from torch import Tensor

import minipoet
from minipoet.checks import as_device
from minipoet.command import run
from minipoet.evaluation import Likelihood, Repetition, Spelling, fair_bits, likelihood, repetition, unknown_cost
from minipoet.files import write_json_atomic, write_text_atomic
from minipoet.generation import generate_many
from minipoet.models import LanguageModel
from minipoet.models.rnn import CELLS, RNNConfig
from minipoet.models.word2vec import train_word2vec
from minipoet.plots import plot_history, plot_study
from minipoet.text.dedup import word_key
from minipoet.tokenization import WordTokenizer, encode_texts, split_tokens
from minipoet.training import Streams, TrainSettings, train

PROMPTS = (
    "Мороз и солнце; день чудесный!\n",
    "Я вас любил: любовь ещё, быть может,\n",
    "Прощай, мой друг! Дорога ждёт.\n",
    "Над тихой речкой вечер поздний\n",
)
SAMPLINGS: dict[str, dict[str, float]] = {
    "greedy": {"temperature": 0},
    "T 0.3": {"temperature": 0.3, "top_p": 1},
    "T 0.5": {"temperature": 0.5, "top_p": 1},
    "T 0.8": {"temperature": 0.8, "top_p": 1},
    "T 1.0": {"temperature": 1, "top_p": 1},
    "T 1.0, top-p 0.9": {"temperature": 1, "top_p": 0.9},
    "greedy, penalty 1.2": {"temperature": 0, "repetition_penalty": 1.2},
    "greedy, penalty 2": {"temperature": 0, "repetition_penalty": 2},
    "T 0.5, penalty 1.2": {"temperature": 0.5, "top_p": 1, "repetition_penalty": 1.2},
}
POET = "the poet"
TOKENS_A_WORD = 2  # room for the signs and line breaks among so many words


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--corpus", default="embedded", help='"embedded", "pushkin" (fetched once), or a path (default: %(default)s)')
    add("--author", help="only this author's poems of a .jsonl corpus")
    add("--out", type=Path, default=Path("runs/word_lstm_pushkin"), help="for the results (default: %(default)s)")
    add("--min-count", type=int, default=2, help="a word that stands so often is known (default: %(default)s)")
    add("--cell", default="lstm", choices=CELLS, help="(default: %(default)s)")
    add("--width", type=int, default=256, help="of vectors and state (default: %(default)s)")
    add("--layers", type=int, default=2)
    add("--dropout", type=float, default=0.4, help="between the layers (default: %(default)s)")
    add("--vectors", choices=("random", "word2vec"), default="random", help="what the embedding starts from")
    add("--freeze", action="store_true", help="word2vec's vectors stay as they are; the head has a matrix of its own")
    add("--epochs", type=float, default=20, help="readings of the corpus, at most (default: %(default)s)")
    add("--lr", type=float, default=2e-3, help="largest learning rate (default: %(default)s)")
    add("--rows", type=int, default=16, help="texts read side by side (default: %(default)s)")
    add("--length", type=int, default=32, help="tokens a window, which the gradient goes back (default: %(default)s)")
    add("--evaluate-every", type=int, help="steps between evaluations (default: an epoch)")
    add("--patience", type=int, default=2, help="evaluations with none better before stopping (default: %(default)s)")
    add("--validation", type=float, default=0.1, help="share of the verse that is held out (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the training and of the samples")
    add("--split-seed", type=int, default=0, help="of the division into training and validation")
    add("--prompts", nargs="+", default=list(PROMPTS), help="first lines that the model continues")
    add("--texts", type=int, default=32, help="texts of each way of sampling (default: %(default)s)")
    add("--window", type=int, default=50, help="words of each in which repetition is measured (default: %(default)s)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--quick", action="store_true", help="a few steps and texts: only to see that all of it works")
    add("--resume", action="store_true", help="go on with an interrupted run in --out")
    args = parser.parse_args()
    wrong = [f"--{name} must be at least {least}, got {getattr(args, name)}"
             for name, least in (("texts", 1), ("window", 4), ("rows", 1), ("length", 1))
             if getattr(args, name) < least]  # fmt: skip
    if args.min_count < 2:
        wrong.append(
            f"--min-count must be at least 2, or no unknown word would be met in training; got {args.min_count}"
        )
    if not 0 < args.epochs < float("inf"):
        wrong.append(f"--epochs must be above 0, got {args.epochs}")
    if args.freeze and args.vectors == "random":
        wrong.append("--freeze would keep random vectors: give --vectors word2vec too, or drop it")
    if wrong:
        raise ValueError(f"{'; '.join(wrong)}.")
    if args.quick:
        args.epochs, args.texts, args.prompts = min(args.epochs, 0.5), min(args.texts, 4), args.prompts[:2]
    args.poems = None  # `read` gives all
    return args


# Words


def check_prompts(tokenizer: WordTokenizer, prompts: Sequence[str]) -> None:
    """Tell which words of the prompts are unknown. Raises ValueError for prompts without a known word."""
    mute = []
    for prompt in prompts:
        unknown = tokenizer.unknown(prompt)
        words = [piece for piece in split_tokens(prompt) if piece[0].isalpha()]
        if not prompt.strip() or (words and set(words) <= set(unknown)):
            mute.append(prompt.strip())
        elif unknown:
            print(f"note: «{prompt.strip()}»: the model reads {', '.join(unknown)} as <unk>")
    if mute:
        raise ValueError(
            f"The vocabulary knows no word of {len(mute)} of the prompts: {'; '.join(f'«{line}»' for line in mute)}. "
            "Give --prompts with words of the corpus, or a smaller --min-count."
        )


def word_vectors(tokenizer: WordTokenizer, texts: Sequence[Sequence[int]], dim: int, seed: int) -> Tensor:
    """word2vec's vectors of the words, (V, dim); zeros for signs, `<unk>` and the like."""
    no_words = [id for token, id in tokenizer.vocab.items() if not token[0].isalpha()]
    return train_word2vec(texts, tokenizer.vocab_size, dim, ignored=no_words, seed=seed)


@torch.no_grad()
def start_from(model: LanguageModel, vectors: Tensor, freeze: bool) -> None:
    """Begin with these vectors, as long in the mean as those that the model began with; signs keep theirs."""
    lengths = vectors.norm(dim=1)
    there = lengths > 0
    weight = model.embed.weight
    weight[there] = (vectors[there] / lengths[there].mean()).to(weight)
    weight.requires_grad_(not freeze)


# Measuring


def measure(
    model: LanguageModel, tokenizer: WordTokenizer, texts: Sequence[str], context: int | None = None, rows: int = 4
) -> Likelihood:
    """The likelihood of texts, each read whole, or in pieces of `context` tokens."""
    ids = encode_texts(tokenizer, texts)
    characters = sum(len(text) + 1 for text in texts)
    return likelihood(model, ids, characters, context or max(map(len, ids)), rows, breaks=tokenizer.encode("\n"))


def figures(found: Likelihood, tokenizer: WordTokenizer, texts: Sequence[str], spelling: Spelling) -> dict[str, float]:
    """What is told of a model. Bits are per character: of the tokens, of the letters of unknown words, and both."""
    letters = Likelihood(unknown_cost(tokenizer, texts, spelling), found.tokens, found.characters).bits_per_character
    fair = fair_bits(found, tokenizer, texts, spelling)
    return {"loss": found.loss, "perplexity": found.perplexity, "bits_of_tokens": fair - letters,
            "bits_of_unknown_letters": letters, "fair_bits_per_character": fair}  # fmt: skip


def unknown_words(tokenizer: WordTokenizer, texts: Sequence[str]) -> list[str]:
    """The words and signs of texts that the vocabulary lacks."""
    return [word for text in texts for word in tokenizer.unknown(text)]


# Repetition


def openings(texts: Sequence[str], number: int, window: int) -> tuple[list[str], list[str]]:
    """`number` first lines of poems, over again if there are fewer, and what the poet wrote after each of these lines.

    A poem serves if `window` words follow its first line.
    """
    parted = [text.partition("\n") for text in texts]
    found = [(first + "\n", rest) for first, _, rest in parted if len(word_key(rest).split()) >= window]
    if not found:
        raise ValueError(
            f"None of the {len(texts)} held-out poems goes on for {window} words after its first line: ask for fewer "
            "by --window."
        )
    return [found[i % len(found)][0] for i in range(number)], [rest for _, rest in found[:number]]


def repetition_row(texts: Sequence[str], window: int) -> dict[str, Any]:
    """Shares in %, with the standard error over the texts; what has fewer words than the window is only counted."""
    long = [text for text in texts if len(word_key(text).split()) >= window]
    if not long:
        return {"texts": 0, "short": len(texts)}
    found = repetition(long, window)
    ngrams = {f"{n}-grams": (100 * found.ngrams(n), standard_error(found, n)) for n in (1, 2, 3, 4)}
    return {"texts": len(long), "short": len(texts) - len(long), **ngrams,
            "words in loops": (100 * found.loops, standard_error(found)),
            "lines": (100 * found.lines, 0.0), "texts with a loop": (100 * found.looping, 0.0)}  # fmt: skip


def standard_error(found: Repetition, n: int | None = None) -> float:
    """Of the share of repeated n-grams, or of the words in loops, in %."""
    values = [100 * (text.loops if n is None else text.ngrams[n - 1]) for text in found.texts]
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def repetition_table(rows: dict[str, dict[str, Any]], window: int) -> str:
    """Markdown: a way of sampling a row."""
    columns = ("1-grams", "2-grams", "3-grams", "4-grams", "lines", "words in loops", "texts with a loop")
    lines = [f"| repeated in {window} words, % | {' | '.join(columns)} | texts (too short) |",
             "|---" + "|---:" * (len(columns) + 1) + "|"]  # fmt: skip
    for name, row in rows.items():
        cells = [f"{row[column][0]:.1f}" if column in row else "–" for column in columns]
        lines.append(f"| {name} | {' | '.join(cells)} | {row['texts']} ({row['short']}) |")
    return "\n".join(lines) + "\n"


def draw_repetition(rows: dict[str, dict[str, Any]], path: Path, title: str) -> None:
    """The shares that tell most, of every way of sampling that wrote enough words."""
    names = {name: name.replace(", ", "\n") for name, row in rows.items() if row["texts"]}
    curves = {
        label: [(names[name], *rows[name][column]) for name in names]
        for label, column in (("pairs of words", "2-grams"), ("four words", "4-grams"), ("in loops", "words in loops"))
    }
    plot_study(curves, path, title, "way of sampling", "repeated, %")


def samples_of(prompts: Sequence[str], poems: dict[str, list[str]]) -> str:
    """Markdown: for each prompt a poem of each way of sampling."""
    parts = ["# One model, several ways of sampling\n"]
    for number, prompt in enumerate(prompts):
        parts.append(f"## {prompt.strip()}\n")
        for name, written in poems.items():
            parts.append(f"**{name}**\n\n" + "\n".join(f"> {line}" for line in written[number].split("\n")) + "\n")
    return "\n".join(parts)


def main() -> None:
    args = arguments()
    started = time.perf_counter()
    train_poems, held_out_poems, sha256 = read(args)
    learnt, held_out = ([poem.text for poem in side] for side in (train_poems, held_out_poems))
    tokenizer = WordTokenizer.from_texts(learnt, args.min_count)
    train_ids, tokens = encode_texts(tokenizer, learnt), sum(map(len, tokenizer.encode_batch(held_out)))
    unknown = {"train": unknown_words(tokenizer, learnt), "held_out": unknown_words(tokenizer, held_out)}
    print(f"vocabulary: {tokenizer.vocab_size:,} words and signs that stand {args.min_count} times or more; unknown: "
          f"{100 * len(unknown['train']) / sum(map(len, train_ids)):.1f} % of the training tokens, "
          f"{100 * len(unknown['held_out']) / tokens:.1f} % of the held-out ones")  # fmt: skip
    check_prompts(tokenizer, args.prompts)
    lines, poets = openings(held_out, args.texts, args.window)
    spelling = Spelling(unknown["train"])
    batches = Streams(train_ids, args.length, args.rows, args.seed)

    torch.manual_seed(args.seed)
    model = CELLS[args.cell](RNNConfig(
        vocab_size=tokenizer.vocab_size, n_embd=args.width, n_hidden=args.width, n_layer=args.layers,
        dropout=args.dropout, tie_word_embeddings=not args.freeze,
    )).to(as_device(args.device))  # fmt: skip
    if args.vectors == "word2vec":
        start_from(model, word_vectors(tokenizer, train_ids, args.width, args.seed), args.freeze)
    counts = minipoet.count_parameters(model)
    an_epoch = batches.steps_per_epoch()
    steps = max(1, round(args.epochs * an_epoch))
    print(f"{args.cell}: {counts.trainable:,} of {counts.all:,} parameters train; {an_epoch} steps an epoch")
    settings = TrainSettings(
        steps=steps, lr=args.lr, warmup=min(20, steps // 4), evaluate_every=args.evaluate_every or min(an_epoch, steps),
        patience=args.patience, seed=args.seed,
    )  # fmt: skip
    cpu = time.process_time()
    history = train(model, batches, settings, args.out, lambda: measure(model, tokenizer, held_out).loss, args.resume)
    train_cpu = time.process_time() - cpu
    minipoet.save(model, tokenizer, args.out / "model")
    told = figures(measure(model, tokenizer, held_out), tokenizer, held_out, spelling)

    length = {"max_new_tokens": TOKENS_A_WORD * args.window, "seed": args.seed}
    poems, rows = {}, {POET: repetition_row(poets, args.window)}
    for name, sampling in SAMPLINGS.items():
        written = generate_many(model, tokenizer, args.prompts, **sampling, **length)
        poems[name] = [found[0].text for found in written]
        written = generate_many(model, tokenizer, lines, until_end=False, **sampling, **length)
        rows[name] = repetition_row([found[0].continuation for found in written], args.window)
    table = repetition_table(rows, args.window)

    plot_history(history, args.out / "loss.png", f"{args.cell} of words on {Path(args.corpus).name}")
    draw_repetition(rows, args.out / "repetition.png", f"{args.cell} of words: repetition in {args.window} words")
    write_text_atomic(args.out / "samples.md", samples_of(args.prompts, poems))
    write_text_atomic(args.out / "repetition.md", table)
    write_json_atomic(args.out / "results.json", {
        "settings": {name: value for name, value in vars(args).items() if name not in ("out", "resume", "poems")},
        "corpus_sha256": sha256, "train_poems": len(learnt), "vocabulary": tokenizer.vocab_size,
        "unknown_share": len(unknown["held_out"]) / tokens, "held_out": told, "repetition": rows,
        "trainable": counts.trainable, "parameters": counts.all, **course(history),
        "train_cpu_seconds": round(train_cpu, 1), "seconds": round(time.perf_counter() - started, 1),
    })  # fmt: skip

    print(f"\n{samples_of(args.prompts[:1], poems)}\n{table}")
    for name, value in told.items():
        print(f"{name.replace('_', ' '):<28} {value:9.3f}")
    print(f"\n{args.out}: model/, history.jsonl, loss.png, samples.md, repetition.md, repetition.png, results.json; "
          f"{time.perf_counter() - started:.0f} s in all")  # fmt: skip


if __name__ == "__main__":
    run(main)
