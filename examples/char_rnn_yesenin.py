"""Letter by letter: a recurrent network that learns to spell, and then to sound like a poet.

    python examples/char_rnn_yesenin.py                                      the embedded corpus, two or three minutes
    python examples/char_rnn_yesenin.py --corpus poems.jsonl --author Есенин     5,000 iterations on a real poet
    python examples/char_rnn_yesenin.py --cell rnn                           Elman's cell instead of an LSTM

The poems are laid into lanes and read in windows that follow one another; the hidden state is carried from window to
window (docs/letters.md). Then the network reads the prompt and goes on from it, at several temperatures. In --out: the
model (for `minipoet write --base`), the history and a plot of it, the poems, and how many of their words are words.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch

import minipoet
from minipoet.command import run
from minipoet.evaluation import likelihood, unknown_cost
from minipoet.files import write_json_atomic, write_text_atomic
from minipoet.generation import generate_many
from minipoet.models.rnn import CELLS, RNNConfig
from minipoet.plots import plot_history
from minipoet.text import Poem, corpus_sha256, drop_duplicates, read_corpus, split_by_work
from minipoet.text.dedup import word_key
from minipoet.tokenization import CharTokenizer, encode_texts
from minipoet.training import Streams, TrainSettings, train

PROMPT = "пускай я порою от спирта вымок"  # Yesenin, quoted
TEMPERATURES = (0.3, 0.5, 0.8, 1.0)
WINDOW = 1024  # letters that are read at a stretch when the model is measured
MEMORIES = (4, 16, 64, 256)  # and, to see what it remembers: when its state is thrown away after so many


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    corpora = '"embedded" (written for this package), "pushkin" (fetched once), or a folder of .txt, a .txt, a .jsonl'
    add("--corpus", default="embedded", help=corpora)
    add("--author", help="only this author's poems of a .jsonl corpus")
    add("--out", type=Path, default=Path("runs/char_rnn"), help="folder for the results (default: %(default)s)")
    add("--cell", default="lstm", choices=sorted(CELLS))
    add("--hidden", type=int, default=256, help="numbers in the state of a layer (default: %(default)s)")
    add("--layers", type=int, default=2)
    add("--dropout", type=float, default=0.3, help="between layers (default: %(default)s)")
    add("--steps", type=int, default=5000, help="iterations, at most (default: %(default)s)")
    add("--lr", type=float, default=5e-3, help="largest learning rate (default: %(default)s)")
    add("--rows", type=int, default=32, help="lanes, read side by side (default: %(default)s)")
    add("--length", type=int, default=64, help="letters in a window (default: %(default)s)")
    add("--evaluate-every", type=int, default=100, help="iterations (default: %(default)s)")
    add("--patience", type=int, default=8, help="evaluations with none better before stopping (default: %(default)s)")
    add("--validation", type=float, default=0.1, help="share of the verse that is held out (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the weights, the training and the poems")
    add("--split-seed", type=int, default=0, help="of the division into training and validation")
    add("--prompt", default=PROMPT, help="read before the first letter is written (default: %(default)s)")
    add("--temperature", type=float, default=0.5, help="of the poem on the screen (default: %(default)s)")
    add("--letters", type=int, default=400, help="new letters a poem, at most (default: %(default)s)")
    add("--samples", type=int, default=20, help="poems at each temperature (default: %(default)s)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--quick", action="store_true", help="a few steps and short poems: only to see that all of it works")
    add("--resume", action="store_true", help="go on with an interrupted run in --out")
    args = parser.parse_args()
    if args.quick:
        args.steps, args.evaluate_every, args.letters, args.samples = min(args.steps, 20), 10, 60, 2
    return args


def read(args: argparse.Namespace) -> tuple[list[Poem], list[Poem], str]:
    """Poems to learn from, poems to measure on, and the SHA-256 of the whole corpus; and a word about them."""
    poems, dropped = drop_duplicates(read_corpus(args.corpus, args.author))
    split, sha256 = split_by_work(poems, args.validation, args.split_seed), corpus_sha256(poems)
    print(f"corpus {args.corpus}: {len(split.train)} poems to learn from, {len(split.validation)} held out, "
          f"{len(dropped)} duplicates dropped, SHA-256 {sha256[:16]}…")  # fmt: skip
    if args.corpus == "embedded":
        print(
            "(this corpus was written for the package in Pushkin's manner; for Yesenin: --corpus FILE --author Есенин)"
        )
    return split.train, split.validation, sha256


def known_words(poems: list[str], vocabulary: set[str]) -> float:
    """Share of the words of the poems that the poet has used."""
    words = [word for poem in poems for word in word_key(poem).split()]
    return sum(word in vocabulary for word in words) / max(1, len(words))


def as_markdown(poems: dict[float, list[str]]) -> str:
    """The poems under their temperatures."""
    parts = []
    for temperature, written in poems.items():
        parts += [f"## temperature {temperature:g}\n", *("> " + poem.replace("\n", "\n> ") + "\n" for poem in written)]
    return "\n".join(parts)


def main() -> None:
    args = arguments()
    started = time.perf_counter()
    train_poems, held_out, sha256 = read(args)
    texts, held_out_texts = [poem.text for poem in train_poems], [poem.text for poem in held_out]
    tokenizer = CharTokenizer.from_texts(texts, unk=True)  # <unk>: for a letter that only the held-out verse has
    if strangers := sorted(set(tokenizer.unknown(args.prompt))):
        raise ValueError(f"The prompt has letters that the corpus lacks: {' '.join(strangers)}. Write it with others.")
    streams = Streams(encode_texts(tokenizer, texts), args.length, args.rows, args.seed)
    held_out_ids = encode_texts(tokenizer, held_out_texts)
    characters = sum(len(text) + 1 for text in held_out_texts)  # line breaks and the end of each text are counted
    unknown = unknown_cost(tokenizer, held_out_texts)

    torch.manual_seed(args.seed)
    config = RNNConfig(
        vocab_size=tokenizer.vocab_size, n_hidden=args.hidden, n_layer=args.layers, dropout=args.dropout
    )  # fmt: skip
    model = CELLS[args.cell](config).to(args.device)
    parameters = minipoet.count_parameters(model).all
    print(f"{args.cell}: {parameters:,} parameters, {tokenizer.vocab_size} letters and signs, "
          f"{streams.epoch_tokens():,} letters to learn, {streams.steps_per_epoch()} iterations an epoch")  # fmt: skip

    def bits(window: int = WINDOW) -> float:
        found = likelihood(model, held_out_ids, characters, window, breaks=tokenizer.encode("\n"))
        return (found.nll + unknown) / (math.log(2) * characters)  # `fair_bits`, whose texts are always the same here

    settings = TrainSettings(
        steps=args.steps, lr=args.lr, warmup=min(50, args.steps // 4), evaluate_every=args.evaluate_every,
        patience=args.patience, precision="fp32", seed=args.seed,
    )  # fmt: skip
    history = train(model, streams, settings, args.out, bits, resume=args.resume)
    minipoet.save(model, tokenizer, args.out / "model")
    plot_history(history, args.out / "loss.png", f"{args.cell} on {Path(args.corpus).name}", "bits per character")

    words = {word for text in texts for word in word_key(text).split()}
    poems = {
        temperature: [
            poem.text for poem in generate_many(
                model, tokenizer, [args.prompt], samples=args.samples, max_new_tokens=args.letters,
                temperature=temperature, top_p=1.0, until_end=False, seed=args.seed,
            )[0]
        ]
        for temperature in sorted({*TEMPERATURES, args.temperature})
    }  # fmt: skip
    known = {
        temperature: known_words([poem.removeprefix(args.prompt) for poem in written], words)
        for temperature, written in poems.items()
    }
    memory = {letters: bits(letters) for letters in (*MEMORIES, WINDOW)}
    write_text_atomic(args.out / "samples.md", as_markdown(poems))
    at, values = history.curve("validation")
    write_json_atomic(args.out / "results.json", {
        "settings": {name: value for name, value in vars(args).items() if name not in ("out", "resume")},
        "corpus_sha256": sha256, "parameters": parameters, "letters": tokenizer.vocab_size,
        "steps": history.curve("loss")[0][-1], "best_step": at[values.index(min(values))],
        "bits_per_character": min(values), "words_known": {f"{t:g}": share for t, share in known.items()},
        "bits_by_memory": memory, "step_seconds": history.curve("seconds")[1][-1],
        "seconds": round(time.perf_counter() - started, 1),
    })  # fmt: skip

    print(f"\n{poems[args.temperature][0]}\n\ntemperature   words that the poet has used")
    for temperature, share in known.items():
        print(f"{temperature:11g}   {100 * share:.1f} %")
    print("\nletters that it may remember   bits per character of held-out verse")
    for letters, value in memory.items():
        print(f"{letters:28}   {value:.3f}")
    print(f"\n{args.out}: model/ (minipoet write --base "
          f"{args.out / 'model'} …), history.jsonl, loss.png, samples.md, results.json; "
          f"{time.perf_counter() - started:.0f} s in all")  # fmt: skip


if __name__ == "__main__":
    run(main)
