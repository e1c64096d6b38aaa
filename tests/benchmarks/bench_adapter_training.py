"""Training an adapter on poems, in tokens of text per second: minipoet beside transformers + PEFT.

    python tests/benchmarks/bench_adapter_training.py --corpus pushkin
    python tests/benchmarks/bench_adapter_training.py --shapes poet-tiny --modes as-it-comes --rounds 9
    python tests/benchmarks/bench_adapter_training.py --prefix 15 --length 240       a prefix instead of LoRA

as-it-comes   Each as it is used. minipoet as in examples/lora_pushkin.py: poems packed into rows, bf16 where the
              machine is fast at it. PEFT: the same poems one a row, padded to the longest of the batch, fp32.
full-fp32     Like for like: the same rows of equal length, no padding, nothing to gain by packing, fp32 on both sides.
full-bf16     The same under bf16 autocast on both sides.

Equal everywhere: weights, rank, alpha, all linear layers, no dropout, the start of the adapter, AdamW, clipping at 1,
and the texts of each step: PEFT's batch is ours, unpacked. So a step is a step on both sides, with the same number of
tokens of text (targets of the loss; padding does not count). Poems are cut at line ends to --length tokens first.

A round is a fresh optimiser and --steps + 1 steps, of which the first does not count. minipoet runs its own loop,
`train`; PEFT a bare one, without what Trainer adds. All shapes read poet-tiny's tokens; ruGPT3's have random weights.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from bench_support import SHAPES, Row, alternate, count, need, parser, report, start, told, write_model
from torch import Tensor, nn

import minipoet
from minipoet.models import LanguageModel
from minipoet.text import drop_duplicates, read_corpus
from minipoet.tokenization import Tokenizer, encode_texts
from minipoet.training import Batch, Batches, BatchSource, TrainSettings, autocast, batch_loss, cut, train
from minipoet.training.batch import IGNORED

MODES = {  # precision of ours, of theirs; the aim
    "as-it-comes": ("auto", "fp32", "3"),
    "full-fp32": ("fp32", "fp32", "1"),
    "full-bf16": ("bf16", "bf16", "1"),
}
LR, BETAS, CLIP = 1e-3, (0.9, 0.95), 1.0


def arguments() -> argparse.Namespace:
    options = parser(__doc__, rounds=5)
    add = options.add_argument
    add("--corpus", default="embedded", help='"embedded", "pushkin", or a folder of .txt, a .txt, a .jsonl(.gz)')
    add("--author", help="only this author's poems of a .jsonl corpus")
    add("--shapes", nargs="+", default=list(SHAPES), choices=[*SHAPES, "rugpt3-medium"])
    add("--modes", nargs="+", default=list(MODES), choices=list(MODES))
    add("--rank", type=count, default=8)
    add("--alpha", type=float, default=16)
    add("--prefix", type=count, metavar="TOKENS", help="a prefix of so many virtual tokens instead of LoRA")
    add("--dropout", type=float, default=0.0, help="the base's own, on both sides; above 0 the losses are not compared")
    add("--length", type=count, default=256, help="tokens a row (default: %(default)s)")
    add("--rows", type=count, default=8, help="rows a step (default: %(default)s)")
    add("--steps", type=count, default=4, help="counted steps a round (default: %(default)s)")
    return options.parse_args()


def read_pieces(tokenizer: Tokenizer, args: argparse.Namespace) -> list[Sequence[int]]:
    """The poems as ids, each between its start and end, in pieces of at most --length tokens."""
    poems, _ = drop_duplicates(read_corpus(args.corpus, args.author))
    texts = encode_texts(tokenizer, [poem.text for poem in poems])
    return [piece for ids in texts for piece in cut(ids, args.length, tokenizer.encode("\n"))]


class FullRows:
    """Batches of rows that the poems, one after another, fill to the last token: one segment, no padding."""

    def __init__(self, pieces: Sequence[Sequence[int]], length: int, rows: int, first: int) -> None:
        stream = torch.cat([torch.as_tensor(piece, dtype=torch.long) for piece in pieces])
        stream = stream.repeat(-(-rows * length // len(stream)))  # of a tiny corpus
        self.batches = stream[: len(stream) // (rows * length) * rows * length].view(-1, rows, length)
        self.first = first

    def batch(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""
        ids = self.batches[(self.first + step) % len(self.batches)]
        nothing = torch.full_like(ids[:, :1], IGNORED)
        return Batch(ids, torch.ones_like(ids), torch.cat([ids[:, 1:], nothing], dim=1))


def texts_of(batch: Batch) -> Iterator[Tensor]:
    """The texts of a packed batch, one by one."""
    for ids, segments, targets in zip(batch.ids, batch.segments, batch.targets, strict=True):
        for number in range(1, int(segments.max()) + 1):
            here = segments == number
            text = torch.cat([ids[here][:1], targets[here]])
            yield text[text != IGNORED]


def padded(batch: Batch) -> dict[str, Tensor]:
    """What a collator gives a model of transformers: the texts one a row, filled up on the right, labels −100 there."""
    texts = list(texts_of(batch))
    ids = nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=0)
    labels = nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=IGNORED)
    full = bool((labels != IGNORED).all())
    return {"input_ids": ids, "labels": labels} | ({} if full else {"attention_mask": (labels != IGNORED).long()})


def train_ours(model: nn.Module, source: BatchSource, steps: int, precision: str) -> tuple[float, list[float]]:
    """(tokens of text per second, the loss of each step), by the package's own loop and its own clock."""
    settings = TrainSettings(
        steps, LR, warmup=0, schedule="constant", betas=BETAS, clip=CLIP, precision=precision, evaluate_every=0
    )
    with TemporaryDirectory() as folder:
        events = train(model, source, settings, folder, quiet=True).events
    first, last = events[0], events[-1]
    return (last["tokens"] - first["tokens"]) / (last["seconds"] - first["seconds"]), [e["loss"] for e in events]


def train_theirs(model: nn.Module, source: BatchSource, steps: int, precision: str) -> tuple[float, list[float]]:
    """The same of a plain loop around a model of transformers."""
    model.train()
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, LR, BETAS, weight_decay=0.0)
    batches = [source.batch(step) for step in range(steps)]
    inputs, tokens, losses = [padded(batch) for batch in batches], 0, []
    for step in range(steps):
        if step == 1:
            started = time.perf_counter()
        with autocast("cpu", precision):
            loss = model(**inputs[step], use_cache=False).loss
        loss.backward()
        nn.utils.clip_grad_norm_(trainable, CLIP)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        tokens += batches[step].tokens() if step else 0
    return tokens / (time.perf_counter() - started), losses


def load_both(folder: Path, args: argparse.Namespace) -> tuple[LanguageModel, nn.Module]:
    """The model of the folder with the same fresh adapter, in minipoet and in PEFT."""
    from peft import PeftModel, PrefixTuningConfig, get_peft_model
    from transformers import GPT2LMHeadModel

    model, _ = minipoet.load(folder)
    base = GPT2LMHeadModel.from_pretrained(folder)
    if not args.prefix:
        minipoet.add_lora(model, args.rank, args.alpha, "all-linear")
        minipoet.save_adapter(model, folder / "adapter")
        return model, PeftModel.from_pretrained(base, folder / "adapter", is_trainable=True)
    # PEFT does not go on training a prefix that was saved: its own is made, and set to ours.
    minipoet.add_prefix(model, args.prefix)
    theirs = get_peft_model(base, PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=args.prefix))
    numbers = model.beginning()
    assert numbers is not None
    with torch.no_grad():
        theirs.prompt_encoder["default"].embedding.weight.copy_(numbers.flatten(1))
    return model, theirs


def compare(shape: str, mode: str, folder: Path, pieces: Sequence[Sequence[int]], args: argparse.Namespace) -> Row:
    """Train both in turn, a round of each on the same batches."""
    ours, theirs = load_both(folder, args)
    if args.length > ours.context:
        raise ValueError(f"--length is {args.length}, but {shape} reads at most {ours.context} tokens.")
    our_precision, their_precision, aim = MODES[mode]

    def source(number: int) -> BatchSource:
        if mode == "as-it-comes":
            return Batches(pieces, args.length, args.rows, seed=number)
        return FullRows(pieces, args.length, args.rows, first=number * (args.steps + 1))

    note = check(ours, theirs, source(0)) if args.dropout == 0 else ""
    results = alternate(
        lambda number: train_ours(ours, source(number), args.steps + 1, our_precision),
        lambda number: train_theirs(theirs, source(number), args.steps + 1, their_precision),
        args.rounds,
        warm_up=0,
    )
    if args.dropout == 0:
        gap = max(abs(a - b) for a, b in zip(results[0][0][1], results[1][0][1], strict=True))
        note += f", over the {args.steps + 1} steps of the first round ≤ {gap:.1e}"
    rates = [[rate for rate, _ in side] for side in results]
    name = f"{shape}, {mode} ({our_precision} / {their_precision})"
    return told(Row(name, "tokens/s", *rates, aim=aim, note=note))


@torch.no_grad()
def check(ours: nn.Module, theirs: nn.Module, source: BatchSource) -> str:
    """How far the two losses of the first batch differ in fp32, and how much of their rows is text."""
    batch = source.batch(0)
    inputs = padded(batch)
    loss = batch_loss(ours.eval(), batch) / batch.tokens()
    gap = abs(float(loss - theirs.eval()(**inputs).loss))
    fill = (inputs["labels"] != IGNORED).float().mean(), (batch.segments != 0).float().mean()
    return f"rows filled {fill[1]:.0%} / {fill[0]:.0%} (first step); losses differ in fp32 by {gap:.1e}"


def main() -> None:
    args = arguments()
    need("transformers", "peft")
    if args.quick:
        args.length, args.rows, args.steps, args.rounds = 48, 2, 2, 2
    rows = []
    with TemporaryDirectory() as temporary:
        for shape in args.shapes:
            folder = write_model(shape, Path(temporary) / shape, args.dropout)
            pieces = read_pieces(minipoet.load_tokenizer(folder), args)
            rows += [compare(shape, mode, folder, pieces, args) for mode in args.modes]
    adapter = f"a prefix of {args.prefix}" if args.prefix else f"rank {args.rank}, alpha {args.alpha:g}"
    step = f"{args.rows} rows of {args.length} tokens a step, {adapter}"
    report(
        "Prefix training" if args.prefix else "LoRA training",
        rows,
        "transformers + PEFT",
        args,
        f"{Path(args.corpus).name}: {step}.",
    )


if __name__ == "__main__":
    start(main)
