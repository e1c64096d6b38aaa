"""Train `reviewer-tiny`, the embedded model that reads a source and writes about it, from nothing.

    python examples/train_reviewer_tiny.py --data DATA --out runs/reviewer-tiny

A small model of T5's shape (v1.1's gated MLP, v1.0's head). DATA holds prose.jsonl.gz and prose/pushkin/*.txt: Russian
classics, in the public domain. The model learns by span corruption, half of its batches as T5 did (15 % of the tokens,
runs of 3), half with much more to write (half of the tokens, runs of 24, as https://arxiv.org/abs/2205.05131 does too).
The vocabulary is learnt from the prose, and from the package's own reviews, whose words the classics had not. What came
of it: docs/denoising.md
"""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path

import torch
from train_poet_tiny import begin

import minipoet
from minipoet.command import run
from minipoet.models.t5 import GatedT5, T5Config
from minipoet.plots import plot_history
from minipoet.text import clean_text, read_records, read_reviews
from minipoet.text.records import read_text
from minipoet.tokenization import load_tokenizer, train_unigram
from minipoet.training import Denoising, Mixture, TrainSettings, completion_metrics, train

HELD_OUT = 40  # every so many works one is measured on


def read_prose(folder: Path) -> list[str]:
    """The works, a paragraph a line."""
    works = [record.text for record in read_records(folder / "prose.jsonl.gz")]
    works += [read_text(file) for file in sorted((folder / "prose" / "pushkin").glob("*.txt"))]
    return [re.sub(r"\n+", "\n", clean_text(work)) for work in works]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder with prose.jsonl.gz and prose/pushkin")
    add("--out", type=Path, default=Path("runs/reviewer-tiny"), help="folder to write to (default: %(default)s)")
    add("--vocabulary", type=int, default=4096, help="unigram tokens, sentinels included (default: %(default)s)")
    add("--layers", type=int, default=3, help="blocks of the encoder, and of the decoder (default: %(default)s)")
    add("--width", type=int, default=256)
    add("--inner", type=int, default=512, help="width of the gated MLP (default: %(default)s)")
    add("--heads", type=int, default=4)
    add("--length", type=int, default=192, help="tokens of a piece of text (default: %(default)s)")
    add("--rows", type=int, default=32, help="pieces a step (default: %(default)s)")
    add("--steps", type=int, default=2000, help="optimiser steps (default: %(default)s)")
    add("--lr", type=float, default=4e-3, help="AdamW's rate for the embedding, distances and vectors")
    add("--muon-lr", type=float, default=0.02, help="Muon's rate for the blocks' matrices")
    add("--threads", type=int, default=0, help="CPU threads (0: PyTorch's choice)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--resume", action="store_true", help="go on from the last checkpoint in --out")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    device = begin(args)

    works = read_prose(args.data)
    print(f"{len(works)} works, {sum(map(len, works)):,} characters")
    if args.resume and (args.out / "tokenizer.json").exists():
        tokenizer = load_tokenizer(args.out)
    else:
        reviews, _ = read_reviews("embedded-reviews")
        tokenizer = train_unigram([*works, *(review.text for review in reviews)], args.vocabulary)
        tokenizer.save(args.out)
    ids = tokenizer.encode_batch(works)
    held_out = ids[::HELD_OUT]
    learnt = [work for number, work in enumerate(ids) if number % HELD_OUT]
    print(f"{sum(map(len, learnt)):,} tokens to learn from, {sum(map(len, held_out)):,} to measure on")

    def denoising(texts: list[list[int]], seed: int, **options: float) -> Denoising:
        sentinels, start, end = tokenizer.sentinel_ids, tokenizer.pad_id, tokenizer.eos_id
        return Denoising(texts, args.length, args.rows, sentinels, start, end, seed, **options)

    much = {"density": 0.5, "run": 24.0}
    mixture = Mixture(
        {"as T5": denoising(learnt, 1), "much": denoising(learnt, 2, **much)},
        [(args.steps, {"as T5": 0.5, "much": 0.5})],
    )
    measured = {"as T5": denoising(held_out, 3), "much": denoising(held_out, 3, **much)}

    torch.manual_seed(0)
    config = T5Config(
        vocab_size=tokenizer.vocab_size, d_model=args.width, d_kv=args.width // args.heads, d_ff=args.inner,
        num_layers=args.layers, num_heads=args.heads, feed_forward_proj="gated-gelu", dropout_rate=0.0,
        decoder_start_token_id=tokenizer.pad_id,
    )  # fmt: skip
    model = GatedT5(config).to(device)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    settings = TrainSettings(
        steps=args.steps, lr=args.lr, warmup=100, schedule="linear", decay=0.6, optimizer="muon", muon_lr=args.muon_lr,
        weight_decay=0.1, betas=(0.9, 0.98), evaluate_every=100,
    )  # fmt: skip

    def validate(precision: str = "auto") -> float:
        return sum(completion_metrics(model, batches, precision).loss for batches in measured.values()) / 2

    history = train(model, mixture, settings, args.out, validate, resume=args.resume)
    for name, batches in measured.items():
        print(f"held-out prose, {name}: {completion_metrics(model, batches)}")
    plot_history(history, args.out / "loss.png", "reviewer-tiny", "nats a token of held-out prose")
    # Without dropout here, with it where it is taught: so is v1.1 published.
    model.config = replace(config, dropout_rate=0.1)
    minipoet.save(model.half(), tokenizer, args.out / "reviewer-tiny")
    print(f"{args.out / 'reviewer-tiny'}: the model, in fp16, for minipoet.load")


if __name__ == "__main__":
    run(main)
