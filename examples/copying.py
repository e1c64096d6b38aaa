"""Does the adapted model write, or does it recite?

    python examples/lora_pushkin.py --out runs/pushkin    a run, and then
    python examples/copying.py runs/pushkin
    python examples/copying.py runs/pushkin --last        and if nobody had looked at held-out verse?

The base and the adapted model continue first lines of the poems that the run held out, and of each continuation the
longest run of words is found that stands in a poem which the run learnt from. What is long, the poet tells himself:
his own continuations are measured like theirs, cut to the same length. The adapted model is the best one, by held-out
verse; --last takes the weights of the last step. In the run's folder: copying.json or copying-last.json. How runs of
words are found, and what they mean: minipoet/evaluation/copying.py
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from lora_pushkin import TOP_P, read

import minipoet
from minipoet.command import run
from minipoet.evaluation import CopyIndex, Copying
from minipoet.files import read_json, write_json_atomic
from minipoet.generation import generate_many
from minipoet.models import LanguageModel
from minipoet.text import Poem
from minipoet.tokenization import Tokenizer
from minipoet.training import load_last_weights


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("run", type=Path, help="--out of a finished run of lora_pushkin.py", metavar="RUN")
    add("--texts", type=int, default=96, help="continuations of each writer (default: %(default)s)")
    add("--tokens", type=int, default=64, help="tokens of each continuation (default: %(default)s)")
    add("--seed", type=int, help="of the models' continuations (default: the run's)")
    add("--device", help="of the models (default: the run's)")
    add("--last", action="store_true", help="the weights of the last step (RUN/last.safetensors), not the best ones")
    args = parser.parse_args()
    small = [f"--{name}" for name in ("texts", "tokens") if getattr(args, name) < 1]
    if small:
        raise ValueError(f"{', '.join(small)} must be at least 1.")
    return args


def read_run(folder: Path) -> tuple[argparse.Namespace, str]:
    """The settings of a finished run, and the SHA-256 of its corpus."""
    path = folder / "results.json"
    found = read_json(path) if path.exists() else {}
    if not {"settings", "corpus_sha256"} <= set(found):
        raise ValueError(f"{folder} holds no finished run of lora_pushkin.py: no results.json with the run's settings.")
    return argparse.Namespace(**found["settings"]), found["corpus_sha256"]


def openings(
    poems: list[Poem], number: int, tokens: int, model: LanguageModel, tokenizer: Tokenizer
) -> tuple[list[str], list[str]]:
    """`number` first lines of poems, over again if there are fewer, and what the poet wrote after them: `tokens` each.

    A poem serves if it is long enough and its first line leaves the models the room to write as much.
    """
    found = []
    for poem in poems:
        first, _, rest = poem.text.partition("\n")
        ids = tokenizer.encode(rest)[:tokens]
        if len(ids) == tokens and len(tokenizer.encode(first + "\n")) + tokens <= model.context:
            found.append((first + "\n", tokenizer.decode(ids)))
    if not found:
        raise ValueError(
            f"None of the {len(poems)} held-out poems goes on for {tokens} tokens after its first line, and fits with "
            f"them into the model's context of {model.context}: ask for fewer by --tokens."
        )
    found = [found[i % len(found)] for i in range(number)]
    return [first for first, _ in found], [rest for _, rest in found]


def main() -> None:
    args = arguments()
    then, learnt_from = read_run(args.run)
    if args.last and not (args.run / "last.safetensors").exists():
        raise ValueError(f"{args.run} has no last.safetensors, the weights of its last step: leave out --last.")
    train_poems, held_out, sha256 = read(then)
    if sha256 != learnt_from:
        raise ValueError(
            f"{then.corpus} has changed since the run, whose corpus had the SHA-256 {learnt_from[:16]}…: bring that "
            "one back, or run lora_pushkin.py again."
        )
    verse = CopyIndex(poem.text for poem in train_poems)
    device, seed = args.device or then.device, then.seed if args.seed is None else args.seed
    # As lora_pushkin.py loads it, so that it is the model of the run.
    model, tokenizer = minipoet.load(then.base, dtype=torch.float32 if then.full else None, device=device)
    prompts, poets = openings(held_out, args.texts, args.tokens, model, tokenizer)
    sampling = {"max_new_tokens": args.tokens, "temperature": then.temperature, "top_p": TOP_P, "seed": seed}

    def measure() -> Copying:
        rows = generate_many(model, tokenizer, prompts, until_end=False, **sampling)
        return verse.copying([poems[0].continuation for poems in rows])

    poet, before = verse.copying(poets), measure()
    if then.full:
        model, _ = minipoet.load(args.run / "model", device=device)
    else:
        minipoet.load_adapter(model, args.run)
    which = "best"
    if args.last:
        which = f"step {load_last_weights(args.run / 'last.safetensors', model)}"
    after = measure()

    settings = {"texts": args.texts, **sampling, "weights": which}
    summaries = {"poet": summary(poet), "before": summary(before), "after": summary(after)}
    file = args.run / ("copying-last.json" if args.last else "copying.json")
    write_json_atomic(file, {"settings": settings} | summaries)
    print(f"\n{args.texts} texts of {args.tokens} tokens: the longest run of words shared with the training verse\n")
    print("                    mean   most   5 or more")
    for name, copying in (("the poet", poet), ("the base", before), ("the adapted model", after)):
        print(f"{name:<18} {copying.mean:5.2f} {copying.longest.words:6} {100 * copying.share():9.1f} %")
    if after.longest.source is not None:
        poem = train_poems[after.longest.source]
        title = poem.title or poem.text.splitlines()[0]
        print(f"\nThe adapted model's longest: «{after.longest.text}»; it stands in: {title}")
    print(f"\n{file}")


def summary(copying: Copying) -> dict[str, Any]:
    """Copying, for copying.json."""
    return {"texts": len(copying.runs), "mean": copying.mean, "max": copying.longest.words,
            "share_of_5": copying.share(), "longest": copying.longest.text}  # fmt: skip


if __name__ == "__main__":
    run(main)
