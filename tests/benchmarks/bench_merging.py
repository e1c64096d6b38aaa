"""What merging a LoRA adapter costs and gains: writing with W + s·BA beside writing with the adapter next to W.

    python tests/benchmarks/bench_merging.py
    python tests/benchmarks/bench_merging.py --adapter runs/pushkin --corpus poems.jsonl --author Пушкин

Gains: new tokens a second, of poet-tiny and of ruGPT3-small's shape with an adapter of rank 16 on all linear layers.
Costs: the seconds of a merge, and rounding: how far logits and bits per character move, in fp32 and in bf16. The
corpus is read for the last of these; without --adapter the adapter is random, as large as a learnt one (--size).
"""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from bench_support import SHAPES, Row, alternate, count, parser, report, start, told, write_model

import minipoet
from minipoet.adapters import lora_layers
from minipoet.evaluation import likelihood
from minipoet.generation import SamplingSettings, generate_ids
from minipoet.models import LanguageModel
from minipoet.text import read_corpus
from minipoet.tokenization import Tokenizer, encode_texts

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def adapted(folder: Path, dtype: torch.dtype, args) -> tuple[LanguageModel, Tokenizer]:
    """The model of a folder with the adapter on it: --adapter, where it fits, or a random one."""
    model, tokenizer = minipoet.load(folder, dtype)
    if args.adapter and folder.name == "poet-tiny":
        return minipoet.load_adapter(model, args.adapter), tokenizer
    minipoet.add_lora(model, rank=16, alpha=32, targets="all-linear")
    generator = torch.Generator().manual_seed(0)
    for _, layer in lora_layers(model):
        delta = layer.delta("default")
        delta.B.data.normal_(generator=generator)
        delta.B.data *= args.size * layer.weight.float().std() / delta.matrix().std()
    return model, tokenizer


def speed(model: LanguageModel, prompts: list[list[int]], tokens: int) -> float:
    """New tokens a second."""
    started = time.perf_counter()
    generate_ids(model, prompts, SamplingSettings(max_new_tokens=tokens, temperature=0))
    return len(prompts) * tokens / (time.perf_counter() - started)


def main() -> None:
    options = parser(__doc__, rounds=5)
    options.add_argument("--adapter", type=Path, help="of poet-tiny, as examples/lora_pushkin.py leaves it")
    options.add_argument("--corpus", default="embedded", help="verse to measure on (default: %(default)s)")
    options.add_argument("--author", help="only this author's poems of a .jsonl corpus")
    options.add_argument("--size", type=float, default=0.1, help="of a random change, in parts of W (default: 0.1)")
    options.add_argument("--tokens", type=count, default=128, help="new tokens a poem (default: %(default)s)")
    args = options.parse_args()
    if args.quick:
        args.tokens, args.rounds = 8, 2
    poems = read_corpus(args.corpus, args.author)
    texts = [poem.text for poem in poems][: 2 if args.quick else 100]
    rows, notes = [], []
    with TemporaryDirectory() as temporary:
        for shape in SHAPES:
            folder = write_model(shape, Path(temporary) / shape)
            for name, dtype in TYPES.items():
                beside, tokenizer = adapted(folder, dtype, args)
                merged, _ = adapted(folder, dtype, args)
                started = time.perf_counter()
                minipoet.merge_lora(merged)
                cost = time.perf_counter() - started
                prompts = [ids[:32] for ids in encode_texts(tokenizer, texts)]
                for batch in (1, 8):
                    sides = [lambda _, m=m, p=prompts[:batch]: speed(m, p, args.tokens) for m in (merged, beside)]
                    rows.append(
                        told(Row(f"{shape}, {name}, batch {batch}", "tokens/s", *alternate(*sides, args.rounds)))
                    )
                notes.append(
                    f"{shape}, {name}: {rounding(beside, merged, tokenizer, texts, shape)}; merging takes {cost:.3f} s."
                )
    report("Merging", rows, "adapter beside", args, *notes)


def rounding(beside: LanguageModel, merged: LanguageModel, tokenizer: Tokenizer, texts: list[str], shape: str) -> str:
    """How far merging moves logits and, where the model can write, bits per character."""
    ids = encode_texts(tokenizer, texts)
    with torch.inference_mode():
        one, other = (model(torch.tensor([ids[0][:200]])).float() for model in (beside, merged))
    words = f"logits differ by {(one - other).abs().max():.1e} (the largest is {one.abs().max():.1f})"
    if shape != "poet-tiny":
        return words
    characters = sum(map(len, texts))
    bits = [likelihood(model, ids, characters, 256).bits_per_character for model in (beside, merged)]
    return f"{words}, bits per character {bits[0]:.5f} beside, {bits[1]:.5f} merged"


if __name__ == "__main__":
    start(main)
