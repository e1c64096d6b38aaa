"""Train `reviewer-tiny`, the embedded model that reads a source and writes about it, from nothing.

    python examples/train_reviewer_tiny.py --data DATA --out runs/reviewer-tiny

A small model of T5's shape (v1.1's gated MLP, v1.0's head). DATA holds prose.jsonl.gz and prose/pushkin/*.txt: Russian
classics, in the public domain. The model learns from three kinds of batch: span corruption as T5 did (15 % of the
tokens, runs of 3), span corruption with much more to write (half of the tokens, runs of 24, as
https://arxiv.org/abs/2205.05131 does too), and requests: the author and some words of a passage, and the passage. The
vocabulary is learnt from the prose, and from the package's own reviews, whose words the classics had not. What came of
it: docs/denoising.md
"""

from __future__ import annotations

import argparse
import random
import re
from dataclasses import replace
from pathlib import Path

import torch
from train_poet_tiny import begin

import minipoet
from minipoet.command import run
from minipoet.models.t5 import GatedT5, T5Config
from minipoet.plots import plot_history
from minipoet.text import Keywords, clean_text, read_records, read_reviews
from minipoet.text.records import read_text
from minipoet.tokenization import load_tokenizer, train_unigram
from minipoet.training import Batches, Denoising, Mixture, TrainSettings, completion_metrics, encode_pairs, train

HELD_OUT = 40  # every so many works one is measured on
AUTHORS = {  # as requests name them
    "Blok": "Блок", "Bryusov": "Брюсов", "Chekhov": "Чехов", "Dostoevsky": "Достоевский", "Gogol": "Гоголь",
    "Gorky": "Горький", "Herzen": "Герцен", "Lermontov": "Лермонтов", "Tolstoy": "Толстой", "Turgenev": "Тургенев",
}  # fmt: skip
SHORTEST, LONGEST = 60, 260  # characters of a passage
KEYWORDS = 6  # of a passage, at most
MEASURED = 500  # held-out requests
EXCERPT = 6000  # tokens of each held-out work

_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+(?=[—«А-ЯЁA-Z])")
_WHOLE = re.compile(r"[—«А-ЯЁA-Z].*[.!?…»]")

Work = tuple[str, str]  # its author and its text
Pair = tuple[str, str]  # a request and what is written on it


def read_prose(folder: Path) -> list[Work]:
    """The works, a paragraph a line."""
    works = [(AUTHORS.get(r.author, r.author), r.text) for r in read_records(folder / "prose.jsonl.gz")]
    works += [("Пушкин", read_text(file)) for file in sorted((folder / "prose" / "pushkin").glob("*.txt"))]
    return [(author, re.sub(r"\n+", "\n", clean_text(text))) for author, text in works]


def passages(text: str) -> list[str]:
    """Sentences that follow one another in a paragraph, as many as are not too long; halves of sentences are left."""
    found = []
    for paragraph in text.split("\n"):
        passage = ""
        for sentence in _SENTENCE_END.split(paragraph):
            if passage and len(passage) + 1 + len(sentence) > LONGEST:
                found.append(passage)
                passage = sentence
            else:
                passage = f"{passage} {sentence}" if passage else sentence
        found.append(passage)
    return [passage for passage in found if SHORTEST <= len(passage) <= LONGEST and _WHOLE.fullmatch(passage)]


def requests(works: list[Work], keywords: Keywords, seed: int) -> list[Pair]:
    """("автор: Чехов; слова: мать, письмо", the passage): of each passage one word or some."""
    draw = random.Random(seed)
    pairs = []
    for author, text in works:
        for passage in passages(text):
            if words := keywords.extract(passage, draw.randint(1, KEYWORDS)):
                pairs.append((f"автор: {author}; слова: {', '.join(words)}", passage))
    return pairs


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
    add("--length", type=int, default=96, help="tokens of a row (default: %(default)s)")
    add("--rows", type=int, default=64, help="rows a step (default: %(default)s)")
    add("--steps", type=int, default=2400, help="optimiser steps (default: %(default)s)")
    add("--reading", type=float, default=0.4, help="share of the steps, the first ones, with requests alone")
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
    texts = [text for _, text in works]
    print(f"{len(works)} works, {sum(map(len, texts)):,} characters")
    if args.resume and (args.out / "tokenizer.json").exists():
        tokenizer = load_tokenizer(args.out)
    else:
        reviews, _ = read_reviews("embedded-reviews")
        tokenizer = train_unigram([*texts, *(review.text for review in reviews)], args.vocabulary)
        tokenizer.save(args.out)

    torch.manual_seed(0)
    config = T5Config(
        vocab_size=tokenizer.vocab_size, d_model=args.width, d_kv=args.width // args.heads, d_ff=args.inner,
        num_layers=args.layers, num_heads=args.heads, feed_forward_proj="gated-gelu", dropout_rate=0.0,
        decoder_start_token_id=tokenizer.pad_id,
    )  # fmt: skip
    model = GatedT5(config).to(device)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")

    def denoising(ids: list[list[int]], seed: int, **options: float) -> Denoising:
        sentinels, start, end = tokenizer.sentinel_ids, tokenizer.pad_id, tokenizer.eos_id
        return Denoising(ids, args.length, args.rows, sentinels, start, end, seed, **options)

    def requested(pairs: list[Pair]) -> Batches:
        encoded = encode_pairs(model, tokenizer, *zip(*pairs, strict=True), args.length)
        return Batches(encoded.targets, args.length, args.rows, seed=3, sources=encoded.sources)

    ids = tokenizer.encode_batch(texts)
    held_out = [work[:EXCERPT] for work in ids[::HELD_OUT]]
    learnt = [work for number, work in enumerate(ids) if number % HELD_OUT]
    print(f"{sum(map(len, learnt)):,} tokens to learn from, {sum(map(len, held_out)):,} to measure on")
    of_learnt = [work for number, work in enumerate(works) if number % HELD_OUT]
    keywords = Keywords.of(passage for _, text in of_learnt for passage in passages(text))
    asked, asked_held_out = (requests(part, keywords, seed=0) for part in (of_learnt, works[::HELD_OUT]))
    print(f"{len(asked):,} passages to learn from, {len(asked_held_out):,} to measure on, such as {asked[0]}")

    much = {"density": 0.5, "run": 24.0}
    sources = {"requests": requested(asked), "as T5": denoising(learnt, 1), "much": denoising(learnt, 2, **much)}
    phases = [(round(args.reading * args.steps), {"requests": 1.0})] if args.reading else []
    phases.append((args.steps, {"requests": 0.6, "as T5": 0.2, "much": 0.2}))
    chosen = random.Random(0).sample(asked_held_out, min(MEASURED, len(asked_held_out)))
    measured = {
        "requests": requested(chosen), "as T5": denoising(held_out, 3), "much": denoising(held_out, 3, **much)
    }  # fmt: skip
    settings = TrainSettings(
        steps=args.steps, lr=args.lr, warmup=100, schedule="linear", decay=0.6, optimizer="muon", muon_lr=args.muon_lr,
        weight_decay=0.1, betas=(0.9, 0.98), evaluate_every=100,
    )  # fmt: skip

    def validate() -> dict[str, float]:
        losses = {name: completion_metrics(model, batches, "auto").loss for name, batches in measured.items()}
        whole = sum(losses.values()) / len(losses)
        return {"validation": whole} | {f"validation {name}": loss for name, loss in losses.items()}

    history = train(model, Mixture(sources, phases), settings, args.out, validate, resume=args.resume)
    for name, batches in measured.items():
        print(f"held-out prose, {name}: {completion_metrics(model, batches)}")
    plot_history(history, args.out / "loss.png", "reviewer-tiny", "nats a token of held-out prose")
    # Without dropout here, with it where it is taught: so is v1.1 published.
    model.config = replace(config, dropout_rate=0.1)
    minipoet.save(model.half(), tokenizer, args.out / "reviewer-tiny")
    print(f"{args.out / 'reviewer-tiny'}: the model, in fp16, for minipoet.load")


if __name__ == "__main__":
    run(main)
