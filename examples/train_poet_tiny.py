"""Train `poet-tiny`, the base model that comes with the package, from nothing.

    python examples/train_poet_tiny.py --data DATA --out runs/poet-tiny

DATA holds poems.jsonl.gz and prose.jsonl.gz (author, title, text a line) and prose/pushkin/*.txt. Pushkin's verse is
left out, and so are passages of others that quote a line of it: teaching it Pushkin is to be a real experiment. The
vocabulary is learnt first (`tokenization.train_bpe`), then the model: prose with some verse, then verse with some
prose while the learning rate falls. What came of it: docs/poet-tiny.md
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

import minipoet
from minipoet.checks import as_device, expect_whole
from minipoet.command import run
from minipoet.evaluation import likelihood
from minipoet.files import make_folder
from minipoet.models.gpt2 import GPT2, GPT2Config
from minipoet.plots import plot_history
from minipoet.text import Poem, Quotations, clean_text, drop_duplicates, read_poems, read_records, split_by_work
from minipoet.text.records import read_text
from minipoet.tokenization import encode_texts, load_tokenizer, train_bpe
from minipoet.training import Batches, Mixture, TrainSettings, train
from minipoet.training.folder import RunFiles, refuse_unfinished

LEFT_OUT = ("Пушкин",)
PROSE_LEFT_OUT = "egipetskie_nochi.txt"  # it holds his verse


def read_data(folder: Path, left_out: Sequence[str] = LEFT_OUT) -> tuple[list[Poem], list[Poem], list[str]]:
    """(verse to learn, verse to measure on, prose), without the verse of these poets and what quotes it."""
    poems = read_poems(folder / "poems.jsonl.gz", drama=True)
    theirs = {poem: any(name in poem.author for name in left_out) for poem in poems}
    quoted = Quotations(poem.text for poem in poems if theirs[poem])
    others, dropped = drop_duplicates([poem for poem in poems if not theirs[poem]])
    split = split_by_work(others, validation=0.05, seed=0)
    prose = [clean_text(record.text) for record in read_records(folder / "prose.jsonl.gz")]
    files = sorted((folder / "prose" / "pushkin").glob("*.txt"))
    prose += [clean_text(read_text(file)) for file in files if file.name != PROSE_LEFT_OUT]
    parts = {"train": split.train, "held out": split.validation, "prose": [Poem(text) for text in prose]}
    for name, group in parts.items():
        kept = [(poem, *quoted.drop(poem.text)) for poem in group]
        parts[name] = [replace(poem, text=text) for poem, text, _ in kept if text.strip()]
        lines, characters = sum(n for *_, n in kept), sum(len(poem.text) for poem in parts[name])
        print(f"{name}: {len(parts[name])} texts, {characters:,} characters; {lines} lines that quote were left out")
    print(f"{len(dropped)} duplicates were dropped")
    return parts["train"], parts["held out"], [work.text for work in parts["prose"]]


def begin(args: argparse.Namespace) -> torch.device:
    """The folder, the threads and the device of a training from nothing. Raises ValueError for an unfinished run."""
    expect_whole(0, threads=args.threads)
    device = as_device(args.device)
    make_folder(args.out)
    if not args.resume:
        refuse_unfinished(RunFiles.of(args.out))  # now, before its vocabulary is replaced
    if args.threads:
        torch.set_num_threads(args.threads)
    return device


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with poems.jsonl.gz, prose.jsonl.gz, prose/pushkin"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/poet-tiny"), help="folder to write to (default: %(default)s)"
    )
    parser.add_argument("--vocabulary", type=int, default=4096, help="BPE tokens (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--heads", type=int, default=5)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument(
        "--rows", type=int, default=32, help="rows of the context's length a step (default: %(default)s)"
    )
    parser.add_argument("--steps", type=int, default=2800, help="optimiser steps (default: %(default)s)")
    parser.add_argument("--turn", type=float, default=0.55, help="share of the steps before verse prevails")
    parser.add_argument("--lr", type=float, default=4e-3, help="AdamW's rate for embeddings and vectors")
    parser.add_argument("--muon-lr", type=float, default=0.02, help="Muon's rate for the blocks' matrices")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (0: PyTorch's choice)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    args = parser.parse_args()
    device = begin(args)

    train_poems, held_out_poems, prose = read_data(args.data)
    verse, held_out = ([poem.text for poem in poems] for poems in (train_poems, held_out_poems))
    if args.resume and (args.out / "tokenizer.json").exists():
        tokenizer = load_tokenizer(args.out)
    else:
        # Verse four times: the words of verse are to be whole.
        tokenizer = train_bpe(verse * 4 + prose, args.vocabulary)
        tokenizer.save(args.out)
    line_end = tokenizer.encode("\n")
    sources = {
        "verse": Batches(encode_texts(tokenizer, verse), args.context, args.rows, seed=1, breaks=line_end),
        "prose": Batches(encode_texts(tokenizer, prose), args.context, args.rows, seed=2, breaks=line_end),
    }
    turn = int(args.turn * args.steps)
    mixture = Mixture(sources, [(turn, {"verse": 0.25, "prose": 0.75}), (args.steps, {"verse": 0.7, "prose": 0.3})])
    for name, batches in sources.items():
        epochs = mixture.taken()[name] / batches.steps_per_epoch()
        print(f"{name}: {batches.epoch_tokens():,} tokens, to be read {epochs:.1f} times")

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=tokenizer.vocab_size, n_positions=args.context, n_embd=args.width, n_layer=args.layers,
        n_head=args.heads, resid_pdrop=args.dropout, embd_pdrop=args.dropout, attn_pdrop=0.0,
    )  # fmt: skip
    model = GPT2(config).to(device)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    settings = TrainSettings(
        steps=args.steps, lr=args.lr, warmup=100, schedule="linear", decay=0.6, optimizer="muon", muon_lr=args.muon_lr,
        weight_decay=0.1, betas=(0.9, 0.98), evaluate_every=250,
    )  # fmt: skip
    texts, characters = encode_texts(tokenizer, held_out), sum(map(len, held_out))

    def validate() -> float:
        found = likelihood(model, texts, characters, args.context, args.rows, line_end, precision="auto")
        return found.bits_per_character

    history = train(model, mixture, settings, args.out, validate, resume=args.resume)
    found = likelihood(model, texts, characters, args.context, args.rows, line_end)
    print(f"held-out verse: {found.bits_per_character:.4f} bits per character, loss {found.loss:.4f} nats a token")
    plot_history(history, args.out / "loss.png", "poet-tiny", "bits per character of held-out verse")
    minipoet.save(model.half(), tokenizer, args.out / "poet-tiny")
    print(f"{args.out / 'poet-tiny'}: the model, in fp16, for minipoet.load")


if __name__ == "__main__":
    run(main)
