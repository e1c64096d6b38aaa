"""A corpus that a model writes by itself: poem after poem from nothing but the token that begins a text.

    python examples/write_corpus.py --bytes 20000                              the embedded base, ten seconds
    python examples/write_corpus.py --adapter runs/pushkin --bytes 1000000     what lora_pushkin.py taught it

In --out: generated.json, {"settings": ..., "texts": [...]}. Started again with the same model and settings, nothing is
written anew. Poem number i is drawn with a seed of its own, so a larger corpus is a smaller one and more. What such a
corpus differs in from the poet's: examples/choose_vocabulary.py
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import torch
from lora_pushkin import TOP_P
from tqdm import tqdm

import minipoet
from minipoet.command import run
from minipoet.files import make_folder, read_json, write_json_atomic
from minipoet.generation import SamplingSettings, generate_ids, poem_seed
from minipoet.models import LanguageModel
from minipoet.quantization import few_bit_layers
from minipoet.tokenization import Tokenizer

BATCH = 32  # poems that are written at the same time


def writing_options(parser: argparse.ArgumentParser) -> None:
    """The options that `written_corpus` reads, but for the bytes and --out."""
    add = parser.add_argument
    add("--base", default="poet-tiny", help="the model that writes (default: %(default)s)")
    add("--adapter", type=Path, help="its LoRA adapter, a folder that lora_pushkin.py wrote (default: none)")
    add("--temperature", type=float, default=0.8)
    add("--top-p", type=float, default=TOP_P)
    add("--seed", type=int, default=0)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")


def written_corpus(args: argparse.Namespace, least: int) -> list[str]:
    """The model's texts, `least` bytes of UTF-8 or more: those of an earlier run of the same settings, or new ones."""
    if least < 1:
        raise ValueError(f"The model has to write 1 byte at least, got {least}.")
    make_folder(args.out)
    sampling = {"temperature": args.temperature, "top_p": args.top_p, "seed": args.seed}
    model, tokenizer = minipoet.load(args.base, device=args.device)
    if args.adapter:
        minipoet.load_adapter(model, args.adapter)
    settings = {"model_sha256": model_sha256(model), "bytes": least, "batch": BATCH, **sampling}
    path = args.out / "generated.json"
    then = read_json(path) if path.exists() else None
    if isinstance(then, dict) and then.get("settings") == settings:
        print(f"{path}: {len(then['texts'])} texts, of an earlier run with the same model and settings")
        return then["texts"]
    if args.adapter and not any(few_bit_layers(model)):
        minipoet.merge_lora(model)
    texts, size, started = [], 0, time.perf_counter()
    with tqdm(total=least, unit="B", unit_scale=True, disable=None) as bar:
        for text in poems(model, tokenizer, SamplingSettings(max_new_tokens=model.context, **sampling)):
            texts.append(text)
            size += len(text.encode())
            bar.update(len(text.encode()))
            if size >= least:
                break
    write_json_atomic(path, {"settings": settings, "texts": texts})
    print(f"{path}: {len(texts)} texts, {size:,} bytes, {size / (time.perf_counter() - started):,.0f} a second")
    return texts


def poems(model: LanguageModel, tokenizer: Tokenizer, sampling: SamplingSettings) -> Iterator[str]:
    """Poem after poem, without end; empty ones are left out."""
    start = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
    if start is None or tokenizer.eos_id is None:
        raise ValueError("This model's tokenizer names no token for the end of a text (eos): a poem could not end.")
    banned = set(tokenizer.special_ids.values()) - {tokenizer.eos_id}
    for first in count(step=BATCH):
        written = generate_ids(
            model, [[start]] * BATCH, sampling, eos_ids=[tokenizer.eos_id], banned=banned,
            vocab_size=tokenizer.vocab_size, seeds=[poem_seed(sampling.seed, first + i) for i in range(BATCH)],
        )  # fmt: skip
        texts = [text for poem in written if (text := tokenizer.decode(poem.ids).strip())]
        if not texts:
            raise ValueError(f"The model wrote {BATCH} empty poems in a row: try another --temperature or --top-p.")
        yield from texts


def model_sha256(model: LanguageModel) -> str:
    """The SHA-256 of the weights, an adapter's included."""
    digest = hashlib.sha256()
    for parameter in model.parameters():
        digest.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    writing_options(parser)
    parser.add_argument("--bytes", type=int, default=100_000, help="how much, as UTF-8 (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/write_corpus"), help="folder (default: %(default)s)")
    args = parser.parse_args()
    written_corpus(args, args.bytes)


if __name__ == "__main__":
    run(main)
