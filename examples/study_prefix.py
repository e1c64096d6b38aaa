"""What do the length of a prefix, its start and its MLP do, and what does LoRA give for as many parameters?

    python examples/study_prefix.py --study length start lora --author Пушкин --corpus poems.jsonl --out runs/prefix

The road is that of study_lora.py, with its options: each run is examples/lora_pushkin.py (here with --prefix) and then
examples/copying.py, in a folder of its own, and a study that was interrupted goes on where it was. The rows are as long
as the longest prefix leaves room for in the embedded model (256 - 100), so that all runs are measured alike.
Chapter: docs/prefix.md
"""

from __future__ import annotations

from pathlib import Path

from study_lora import Point, Settings, Study, lora, main

from minipoet.command import run

LENGTHS = (1, 5, 15, 30, 100)
RATES = {False: 1e-1, True: 1e-3}  # without an MLP and with one: the best of those tried at 15 tokens (docs/results.md)


def prefix(tokens: int = 15, init: str = "text", projection: bool = False) -> Settings:
    """A prefix, with the rate that suits its kind."""
    options: Settings = {"prefix": tokens, "init": init, "lr": RATES[projection]}
    return options | ({"projection": True} if projection else {})


def equal(label: str, rank: int, targets: list[str]) -> Point:
    """LoRA with as many parameters as a prefix."""
    return Point(label, lora(rank, targets=targets), "LoRA")


STUDIES = {
    "length": Study(
        [Point(str(n), prefix(n), "plain") for n in LENGTHS]
        + [Point(f"{n}, MLP", prefix(n, projection=True), "by an MLP") for n in LENGTHS],
        "prefix", "virtual tokens", 10,
        note="All start at the first tokens of the training verse.",
    ),
    "start": Study(
        [Point(f"{init}{', MLP' if mlp else ''}", prefix(init=init, projection=mlp), "MLP" if mlp else "plain")
         for mlp in (False, True) for init in ("text", "random", "zero")],
        x_label="start of a prefix of 15 tokens",
    ),
    "lora": Study(
        [Point(f"prefix of {n}", prefix(n), "prefix") for n in LENGTHS]
        + [equal("LoRA, attn.out, rank 1", 1, ["attn.out"])]
        + [equal(f"LoRA, MLP, rank {rank}", rank, ["mlp.up", "mlp.down"]) for rank in (1, 3, 6, 20)],
        "trainable", "parameters that train", 10,
        note="In GPT-2's shape a virtual token costs 2 widths a block, a rank on attn.out 2, a rank on the block's "
        "MLP 10: so each LoRA has exactly the parameters of one of the prefixes.",
    ),
}  # fmt: skip


if __name__ == "__main__":
    run(lambda: main(STUDIES, __doc__, length=256 - max(LENGTHS), out=Path("runs/study_prefix")))
