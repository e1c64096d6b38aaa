"""What does a model do with a learnt prefix? The share of each head's attention that goes to it, drawn.

    python examples/attention_on_prefix.py                                   the embedded base and corpus, a minute
    python examples/attention_on_prefix.py --corpus poems.jsonl --author Пушкин --steps 200
    python examples/attention_on_prefix.py --adapter FOLDER                  one that is trained already

For each start (the first tokens of a poem, random numbers, zero) a prefix is put on the frozen base, and its share of
the attention is measured on held-out verse, before and after a short training. In --out: a picture of it, layers ×
heads and the course over the text; the adapters, each in a folder; results.json. How to read it: docs/prefix.md
"""

from __future__ import annotations

import argparse
import time
from itertools import chain, islice
from pathlib import Path

import torch
from char_rnn_yesenin import read

import minipoet
from minipoet.command import run
from minipoet.evaluation import PrefixMass, likelihood, prefix_mass
from minipoet.files import write_json_atomic
from minipoet.plots import plot_prefix_mass
from minipoet.tokenization import encode_texts
from minipoet.training import Batches, TrainSettings, train

STARTS = ("text", "random", "zero")
OF_TRAINING = ("starts", "tokens", "steps", "lr", "rows", "seed")  # mean nothing with --adapter


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--base", default="poet-tiny", help="poet-tiny, a model's folder, or its id on the hub (default: %(default)s)")
    corpora = '"embedded" (written for this package), "pushkin" (fetched once), or a folder of .txt, a .txt, a .jsonl'
    add("--corpus", default="embedded", help=corpora)
    add("--author", help="only this author's poems of a .jsonl corpus")
    add("--adapter", type=Path, help="a folder with a trained prefix: nothing is trained then")
    add("--out", type=Path, default=Path("runs/attention_on_prefix"), help="for the results (default: %(default)s)")
    add("--starts", nargs="+", default=["text", "random"], choices=STARTS, help="(default: text random)")
    add("--tokens", type=int, default=15, help="virtual tokens of the prefix (default: %(default)s)")
    add("--steps", type=int, default=40, help="of each training (default: %(default)s)")
    add("--lr", type=float, default=0.1, help="largest learning rate (default: %(default)s)")
    add("--rows", type=int, default=8, help="rows of packed poems a step (default: %(default)s)")
    add("--validation", type=float, default=0.1, help="share of the verse that is held out (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the random start and the training")
    add("--split-seed", type=int, default=0, help="of the division into training and held-out verse")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--quick", action="store_true", help="a few steps: only to see that all of it works")
    args = parser.parse_args()
    idle = [f"--{name}" for name in OF_TRAINING if args.adapter and getattr(args, name) != parser.get_default(name)]
    if idle:
        raise ValueError(f"With --adapter nothing is trained, so {', '.join(idle)} would do nothing: drop them.")
    if args.quick:
        args.steps, args.rows = min(args.steps, 2), 2
    return args


def main() -> None:
    args = arguments()
    started = time.perf_counter()
    model, tokenizer = minipoet.load(args.base, device=args.device)
    poems, held_out_poems, sha256 = read(args)
    texts, held_out = (encode_texts(tokenizer, [poem.text for poem in some]) for some in (poems, held_out_poems))
    characters, line_end = sum(len(poem.text) for poem in held_out_poems), tokenizer.encode("\n")
    found: dict[str, PrefixMass] = {}
    bits: dict[str, float] = {}

    def look(label: str) -> None:
        measured = likelihood(model, held_out, characters, model.context, breaks=line_end)
        bits[label] = measured.bits_per_character
        told = f"{label:<16} {bits[label]:.3f} bits a character"
        if model.prefix_length:
            found[label] = prefix_mass(model, [ids[:-1] for ids in held_out])  # at its end a text predicts nothing
            told += f", {100 * found[label].mean:.1f} % of the attention on the prefix"
        print(told)

    look("the base")
    if args.adapter:
        minipoet.load_adapter(model, args.adapter)
        look("with the prefix")
    for start in () if args.adapter else args.starts:
        begin = list(islice(chain.from_iterable(texts), args.tokens)) if start == "text" else start
        minipoet.add_prefix(model, args.tokens, init=begin, name=start, seed=args.seed)
        look(f"{start}, before")
        batches = Batches(texts, model.context, args.rows, args.seed, breaks=line_end)
        settings = TrainSettings(steps=args.steps, lr=args.lr, warmup=min(5, args.steps // 4), evaluate_every=0,
                                 seed=args.seed)  # fmt: skip
        train(model, batches, settings, args.out / start, quiet=True)
        minipoet.save_adapter(model, args.out / start)
        look(f"{start}, after")

    plot_prefix_mass(found, args.out / "prefix_attention.png")
    write_json_atomic(args.out / "results.json", {
        "settings": {name: value for name, value in vars(args).items() if name not in ("out", "adapter")},
        "corpus_sha256": sha256, "bits_per_character": bits,
        "mean": {label: mass.mean for label, mass in found.items()},
        "heads": {label: mass.heads.tolist() for label, mass in found.items()},
        "places": {label: mass.places.tolist() for label, mass in found.items()},
        "seconds": round(time.perf_counter() - started, 1),
    })  # fmt: skip
    print(f"{args.out}: prefix_attention.png, results.json; {time.perf_counter() - started:.0f} s in all")


if __name__ == "__main__":
    run(main)
