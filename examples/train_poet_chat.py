"""Train `poet-chat`, the embedded model that writes verse when it is asked to, from nothing.

    python examples/train_poet_chat.py --data DATA --out runs/poet-chat

A small model of Qwen2's shape. DATA is that of train_poet_tiny.py. The verse of three poets, Pushkin, Lermontov and
Esenin, is left out, and so is what quotes them: to teach it their manner is to be a real experiment
(qwen_lora_poets.py). It reads prose as it is, and verse as a conversation: a request with a theme and a poet's name,
and the poem as the answer, of which alone it learns. What came of it: docs/poet-chat.md
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import torch
from train_poet_tiny import begin, read_data

import minipoet
from minipoet.command import run
from minipoet.evaluation import likelihood
from minipoet.models.qwen2 import Qwen2, Qwen2Config
from minipoet.plots import plot_history
from minipoet.text import Poem, Themes, genitive, request
from minipoet.tokenization import Tokenizer, load_tokenizer, train_bpe
from minipoet.tokenization.chat import PLAIN
from minipoet.training import Batches, Mixture, TrainSettings, train
from minipoet.training.instruction import Examples, examples, joined

LEFT_OUT = ("Пушкин", "Лермонтов", "Есенин")
END_OF_TEXT = "<|endoftext|>"
SPECIALS = (END_OF_TEXT, "<|im_start|>", "<|im_end|>")  # Qwen's


def surname(poem: Poem) -> str:
    """Александр Александрович Блок -> Блок."""
    return poem.author.split()[-1]


def conversations(poems: Sequence[Poem], themes: Themes, tokenizer: Tokenizer, length: int) -> Examples:
    """The poems of all poets as requests and answers."""
    by_poet = groupby(sorted(poems, key=surname), key=surname)
    return joined(examples(list(group), genitive(name), PLAIN, tokenizer, length, themes) for name, group in by_poet)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder with poems.jsonl.gz, prose.jsonl.gz, prose/pushkin")
    add("--out", type=Path, default=Path("runs/poet-chat"), help="folder to write to (default: %(default)s)")
    add("--vocabulary", type=int, default=4096, help="BPE tokens (default: %(default)s)")
    add("--layers", type=int, default=6)
    add("--width", type=int, default=256)
    add("--inner", type=int, default=704, help="width of the gated MLP (default: %(default)s)")
    add("--heads", type=int, default=4)
    add("--key-heads", type=int, default=2, help="key/value heads, each shared by heads / key-heads queries")
    add("--context", type=int, default=512, help="positions of the model (default: %(default)s)")
    add("--length", type=int, default=320, help="tokens a row in training (default: %(default)s)")
    add("--rows", type=int, default=32, help="rows a step (default: %(default)s)")
    add("--steps", type=int, default=2000, help="optimiser steps (default: %(default)s)")
    add("--turn", type=float, default=0.5, help="share of the steps before verse prevails")
    add("--lr", type=float, default=4e-3, help="AdamW's rate for embeddings and vectors")
    add("--muon-lr", type=float, default=0.02, help="Muon's rate for the blocks' matrices")
    add("--threads", type=int, default=0, help="CPU threads (0: PyTorch's choice)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--resume", action="store_true", help="go on from the last checkpoint in --out")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    device = begin(args)

    poems, held_out, prose = read_data(args.data, LEFT_OUT)
    if args.resume and (args.out / "tokenizer.json").exists():
        tokenizer = load_tokenizer(args.out)
    else:
        # Verse four times: its words are to be whole. So are those of a request, which the templates say often.
        tokenizer = train_bpe([poem.text for poem in poems] * 4 + prose + spoken(poems), args.vocabulary, SPECIALS)
        tokenizer.roles |= {"bos": END_OF_TEXT, "eos": "<|im_end|>", "pad": END_OF_TEXT}
        tokenizer.chat, tokenizer.more_eos = PLAIN, [END_OF_TEXT]
        tokenizer.save(args.out)
    themes = Themes.of(poems)
    asked, measured = (conversations(group, themes, tokenizer, args.length) for group in (poems, held_out))
    between = tokenizer.special_ids[END_OF_TEXT]
    works = [[between, *ids, between] for ids in tokenizer.encode_batch(prose)]
    sources = {
        "verse": Batches(asked.ids, args.length, args.rows, seed=1, prompts=asked.prompts),
        "prose": Batches(works, args.length, args.rows, seed=2, breaks=tokenizer.encode("\n")),
    }
    turn = int(args.turn * args.steps)
    mixture = Mixture(sources, [(turn, {"verse": 0.25, "prose": 0.75}), (args.steps, {"verse": 0.75, "prose": 0.25})])
    for name, batches in sources.items():
        epochs = mixture.taken()[name] / batches.steps_per_epoch()
        print(f"{name}: {batches.epoch_tokens():,} tokens to learn, {epochs:.1f} times")

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=tokenizer.vocab_size, hidden_size=args.width, intermediate_size=args.inner,
        num_hidden_layers=args.layers, num_attention_heads=args.heads, num_key_value_heads=args.key_heads,
        max_position_embeddings=args.context, rope_theta=10_000.0, tie_word_embeddings=True,
    )  # fmt: skip
    model = Qwen2(config).to(device)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    settings = TrainSettings(
        steps=args.steps, lr=args.lr, warmup=100, schedule="linear", decay=0.6, optimizer="muon", muon_lr=args.muon_lr,
        weight_decay=0.1, betas=(0.9, 0.98), evaluate_every=250,
    )  # fmt: skip
    characters = sum(map(len, measured.texts))

    def measure(precision: str = "fp32") -> minipoet.evaluation.Likelihood:
        rows, prompts = args.rows, measured.prompts
        return likelihood(model, measured.ids, characters, args.length, rows, precision=precision, prompts=prompts)

    def validate() -> float:
        return measure("auto").bits_per_character

    history = train(model, mixture, settings, args.out, validate, resume=args.resume)
    found = measure()
    print(f"held-out verse: {found.bits_per_character:.4f} bits per character, loss {found.loss:.4f} nats a token")
    plot_history(history, args.out / "loss.png", "poet-chat", "bits per character of held-out verse")
    minipoet.save(model.half(), tokenizer, args.out / "poet-chat")
    print(f"{args.out / 'poet-chat'}: the model, in fp16, for minipoet.load")


def spoken(poems: Sequence[Poem]) -> list[str]:
    """What stands around the poems in a conversation, for the vocabulary."""
    return [f"user\n{request(4, 'x', genitive(surname(poem)))}\nassistant\n" for poem in poems] * 4


if __name__ == "__main__":
    run(main)
