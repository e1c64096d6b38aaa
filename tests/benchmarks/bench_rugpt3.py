"""ruGPT3 as its publishers ship it, with random weights: seconds and memory until the model has answered.

    python tests/benchmarks/bench_rugpt3.py --size medium

The folder: config.json, vocab.json and merges.txt with 50,257 pieces, and the weights with the tied head and the masks
among them, as a pytorch_model.bin of the form before PyTorch 1.6, as one of the zip form since, and as safetensors.
Each load is `minipoet.load` in a fresh process, and then 8 tokens: what is mapped is read only there. Seconds are the
processor's, which do not depend on who else works on the machine; what the disk takes comes on top. Peak memory is the
resident set above the imports, mapped pages included; "own" is what of it no other process can share. --size medium
needs 6 GB of disk and 3 GB of memory.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from bench_support import in_fresh_process, machine_line, parser, peak_memory, start

SHAPES: Mapping[str, dict[str, int]] = {
    "tiny": {"vocab_size": 50264, "n_embd": 8, "n_layer": 2, "n_head": 2},
    "small": {"vocab_size": 50264, "n_embd": 768, "n_layer": 12, "n_head": 12},
    "medium": {"vocab_size": 50257, "n_embd": 1024, "n_layer": 24, "n_head": 16},
}
PIECES = 50257
POSITIONS = 2048


def write_folders(size: str, temporary: str) -> int:
    """The three folders "old", "zip" and "new"; how many parameters."""
    import torch
    from safetensors.torch import save_file

    from minipoet.models import count_parameters
    from minipoet.models.gpt2 import GPT2, GPT2Config
    from minipoet.models.names import apply

    model = GPT2(GPT2Config(n_positions=POSITIONS, **SHAPES[size]))
    model.reset(torch.Generator().manual_seed(0))
    tensors = {}
    for name, parameter in model.named_parameters():
        published, transform = model.name_table().published(name)
        tensors[published] = apply(transform, parameter.detach()).contiguous()
    for folder in ("old", "zip", "new"):
        write_small_files(Path(temporary) / folder, size)
    save_file(tensors, Path(temporary) / "new" / "model.safetensors", {"format": "pt"})
    mask = torch.ones(POSITIONS, POSITIONS, dtype=torch.uint8).tril()[None, None]
    for layer in range(SHAPES[size]["n_layer"]):
        tensors[f"transformer.h.{layer}.attn.bias"] = mask.clone()
        tensors[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"]
    for folder, zipped in (("old", False), ("zip", True)):
        path = Path(temporary) / folder / "pytorch_model.bin"
        torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    return count_parameters(model).all


def write_small_files(folder: Path, size: str) -> None:
    """config.json with GPT-2's ids, which are wrong here; a vocabulary of specials, bytes, and pairs of bytes."""
    from minipoet.files import write_json_atomic, write_text_atomic
    from minipoet.tokenization.byte_level import alphabet_bytes

    alphabet = sorted(alphabet_bytes())
    pieces = ["<pad>", "<s>", "</s>", "<unk>", "<mask>", *alphabet]
    pairs = [(a, b) for a in alphabet for b in alphabet][: PIECES - len(pieces)]
    vocab = {piece: id for id, piece in enumerate([*pieces, *(a + b for a, b in pairs)])}
    config = {"model_type": "gpt2", "n_positions": POSITIONS, "n_ctx": POSITIONS, **SHAPES[size]}
    write_json_atomic(folder / "config.json", config | {"bos_token_id": 50256, "eos_token_id": 50256})
    write_json_atomic(folder / "vocab.json", vocab, indent=None)
    write_text_atomic(folder / "merges.txt", "\n".join(["#version: 0.2", *map(" ".join, pairs), ""]))


def load(folder: str) -> list[float]:
    """In a fresh process: processor seconds to the model and to its first logits, peak MB, and of it own MB."""
    import torch

    import minipoet

    before, own, started = peak_memory(), own_memory(), time.process_time()
    model, tokenizer = minipoet.load(folder)
    loaded = time.process_time()
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.vocab_size) == (0, 1, 2, PIECES)
    with torch.inference_mode():
        assert torch.isfinite(model(torch.arange(8)[None])).all()
    answered = time.process_time()
    return [loaded - started, answered - started, (peak_memory() - before) / 1e6, (own_memory() - own) / 1e6]


def own_memory() -> int:
    """Bytes of this process that are mapped from no file; 0 where the system does not tell."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            return next(1024 * int(line.split()[1]) for line in file if line.startswith("RssAnon:"))
    except (OSError, StopIteration):
        return 0


def rounds_of(folder: Path, cache: Path, rounds: int, forget: bool = False) -> list[list[float]]:
    """What `load` measured each time; with `forget` the converted copy is removed before each."""
    measured: list[list[float]] = []
    for _ in range(rounds):
        for copy in cache.rglob("*.safetensors") if forget else ():
            copy.unlink()
        measured.append(in_fresh_process("bench_rugpt3.load", str(folder), environment={"MINIPOET_CACHE": str(cache)}))
    return measured


def main() -> None:
    options = parser(__doc__, rounds=3)
    options.add_argument(
        "--size", choices=("small", "medium"), default="small", help="the shape (default: %(default)s)"
    )
    args = options.parse_args()
    size, rounds = ("tiny", 1) if args.quick else (args.size, args.rounds)
    rows: list[tuple[str, float, list[list[float]]]] = []
    with TemporaryDirectory() as temporary:
        parameters = in_fresh_process("bench_rugpt3.write_folders", size, temporary)
        root = Path(temporary)
        cache, file = root / "cache", root / "a file, not a folder"
        file.touch()
        for what, name, place, forget in (
            ("`.bin` before 1.6, the first time: read, a copy written", "old", cache, True),
            ("the same from then on: the copy mapped", "old", cache, False),
            ("the same where no copy can be written: read each time", "old", file, False),
            ("`.bin` in the zip form: mapped", "zip", cache, False),
            ("`model.safetensors`: mapped", "new", cache, False),
        ):
            weights = next(path for path in (root / name).iterdir() if path.suffix in (".bin", ".safetensors"))
            rows.append((what, weights.stat().st_size / 1e6, rounds_of(root / name, place, rounds, forget)))
    report(size, parameters, rows, args)


def report(size: str, parameters: int, rows: list[tuple[str, float, list[list[float]]]], args: Any) -> None:
    """The table, in Markdown; --json."""
    print(f"\n### Loading ruGPT3-{size}'s shape, {parameters:,} parameters in fp32\n")
    print("| weights | file, MB | CPU s to the model | CPU s to its first logits | peak, MB | of it own, MB |")
    print("| --- | --- | --- | --- | --- | --- |")
    for what, megabytes, measured in rows:
        model, logits, peak, own = (median(column) for column in zip(*measured, strict=True))
        print(f"| {what} | {megabytes:,.0f} | {model:.2f} | {logits:.2f} | {peak:,.0f} | {own:,.0f} |")
    print(f"\nMedians of {len(rows[0][2])}, each in a process of its own.", machine_line(), sep="\n")
    if args.json:
        from minipoet.files import write_json_atomic

        lines = [{"what": what, "file_mb": size, "measured": measured} for what, size, measured in rows]
        write_json_atomic(args.json, {"size": size, "parameters": parameters, "machine": machine_line(), "rows": lines})


if __name__ == "__main__":
    start(main)
