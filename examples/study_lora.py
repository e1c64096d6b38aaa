"""What do rank, targets, alpha and the number of poems do to LoRA, and what does full fine-tuning give and cost?

    python examples/study_lora.py --study rank targets --author Пушкин --corpus poems.jsonl --out runs/study
    python examples/study_lora.py --study rank targets --author Пушкин --corpus poems.jsonl --out runs/study --report

Each run is examples/lora_pushkin.py, and then examples/copying.py, in processes of their own, so that the peak memory
is the run's own, and in a folder that is named by its settings, so that a run which two studies share is made once. A
study that was interrupted goes on where it was: start it again (but one command at a time in one --out). In --out:
runs/, and for each study a table (<study>.md), a plot (<study>.png) of the mean and the standard deviation over the
seeds, and the course of the first seed's runs (<study>-curves.png). The studies are the table STUDIES; those of the
prefix, over the same road, are in study_prefix.py. Chapter: docs/lora.md
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from minipoet.command import run
from minipoet.files import read_json, write_text_atomic
from minipoet.plots import plot_study, plot_trials
from minipoet.training import read_history

TRAIN, COPYING = Path(__file__).with_name("lora_pushkin.py"), Path(__file__).with_name("copying.py")
Settings = dict[str, Any]  # of lora_pushkin.py, by the names of its options


class Point(NamedTuple):
    """A setting of a study: its name, what it asks of lora_pushkin.py, and the curve of the plot that it is on."""

    label: str
    settings: Settings
    curve: str = "LoRA"


class Study(NamedTuple):
    """Points, what the x axis is (a key of the run's settings or figures; "" for names), and how to read the table."""

    points: list[Point]
    x: str = ""
    x_label: str = ""
    log: int = 0  # base of the x axis' logarithm; 0: an even axis
    note: str = ""


def lora(rank: int = 16, alpha: float | None = None, targets: Sequence[str] = ("all-linear",), **more: Any) -> Settings:
    """An adapter. alpha = 2 · rank unless it is given, so that the scale alpha / rank is the same at every rank."""
    return {"rank": rank, "alpha": 2.0 * rank if alpha is None else alpha, "targets": list(targets), **more}


SHARED = ("base", "corpus", "author", "steps", "rows", "length", "evaluate_every", "patience", "device")
FULL: Settings = {"full": True}
POEMS = (10, 50, 200, None)  # None: all

STUDIES = {
    "rank": Study([Point(str(r), lora(r)) for r in (1, 2, 4, 8, 16, 32)], "rank", "rank (alpha = 2 · rank)", 2),
    "targets": Study(
        [
            Point("attn.qkv", lora(targets=["attn.qkv"])),
            Point("attn", lora(targets=["attn.qkv", "attn.out"])),
            Point("mlp", lora(targets=["mlp.up", "mlp.down"])),
            Point("all-linear", lora()),
            Point("attn.qkv, rank 64", lora(64, targets=["attn.qkv"])),
        ],
        x_label="layers with an adapter of rank 16",
        note="In GPT-2's shape a rank costs 4 widths in attn.qkv and 16 in all layers of a block, so attn.qkv at "
        "rank 64 has as many parameters as all-linear at rank 16.",
    ),
    "alpha": Study(
        [Point(f"{a:g}", lora(8, a)) for a in (2.0, 8.0, 16.0, 32.0, 64.0)], "alpha", "alpha (rank 8)", 2,
        note="The learning rate is the same at every alpha. B starts at 0 and Adam's steps have the size of the "
        "learning rate, so the first change of the weights grows as alpha / rank · learning rate: alpha acts like a "
        "second learning rate (the study alpha-lr keeps the product).",
    ),
    "alpha-lr": Study(
        [Point(f"{a:g}", lora(8, a), "one learning rate") for a in (4.0, 16.0, 64.0)]
        + [Point(f"{a:g}, rate × {16 / a:g}", lora(8, a, lr_times=16 / a), "alpha · learning rate constant")
           for a in (4.0, 16.0, 64.0)],
        "alpha", "alpha (rank 8)", 2,
    ),
    "full": Study([Point("LoRA, rank 16", lora()), Point("full fine-tuning", FULL, "full")], x_label="what trains"),
    "poems": Study(
        [Point(f"LoRA, {n or 'all'} poems", lora(poems=n)) for n in POEMS]
        + [Point(f"full, {n or 'all'} poems", FULL | {"poems": n}, "full fine-tuning") for n in POEMS],
        "train_poems", "training poems", 10,
    ),
}  # fmt: skip


def arguments(studies: Mapping[str, Study] = STUDIES, doc: str | None = __doc__, **defaults: Any) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--study", nargs="+", choices=studies, required=True, help="one or several: %(choices)s", metavar="STUDY")
    add("--base", default="poet-tiny", help="as for lora_pushkin.py (default: %(default)s)")
    add("--corpus", default="embedded", help="as for lora_pushkin.py (default: %(default)s)")
    add("--author", help="as for lora_pushkin.py")
    add("--out", type=Path, default=Path("runs/study_lora"), help="folder for the results (default: %(default)s)")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="a run of each setting each (default: 0 1 2)")
    add("--steps", type=int, default=200, help="optimiser steps (default: %(default)s)")
    add("--lr", type=float, default=2e-3, help="of LoRA (default: %(default)s)")
    add("--full-lr", type=float, default=5e-4, help="of full fine-tuning (default: %(default)s)")
    add("--rows", type=int, default=8, help="of packed poems a step (default: %(default)s)")
    add("--length", type=int, default=256, help="tokens a row (default: %(default)s)")
    add("--evaluate-every", type=int, default=25, help="steps (default: %(default)s)")
    add("--patience", type=int, default=3, help="evaluations without a better one (default: %(default)s)")
    add("--copying", type=int, default=96, help="--texts of copying.py (default: %(default)s)")
    add("--device", default="cpu", help="of every run (default: %(default)s)")
    add("--workers", type=int, default=2, help="runs at the same time (default: %(default)s)")
    add("--threads", type=int, default=1, help="CPU threads of each (default: %(default)s)")
    add("--report", action="store_true", help="only tables and plots of the runs that are there")
    parser.set_defaults(studies=studies, **defaults)
    args = parser.parse_args()
    small = [f"--{name}" for name in ("workers", "threads", "copying") if getattr(args, name) < 1]
    if small:
        raise ValueError(f"{', '.join(small)} must be at least 1.")
    if args.corpus not in ("embedded", "pushkin") and not Path(args.corpus).exists():
        raise ValueError(f"--corpus {args.corpus}: there is no such file or folder.")
    return args


def settings_of(point: Point, seed: int, args: argparse.Namespace) -> Settings:
    """All that a run of this point is asked for."""
    settings: Settings = {name: getattr(args, name) for name in SHARED} | {"tokens": 60, "seed": seed}
    if "prefix" not in point.settings:  # a point of a prefix brings its own rate
        settings |= {"lr": args.full_lr} if "full" in point.settings else {"lr": args.lr, "dropout": 0.0}
    settings |= point.settings
    settings["lr"] *= settings.pop("lr_times", 1)
    return settings


def folder_of(settings: Settings, out: Path) -> Path:
    """Where a run is: out/runs/<what tells it from the other runs of the studies>."""
    if "full" in settings:
        parts = ["full"]
    elif "prefix" in settings:
        parts = [f"prefix{settings['prefix']}", settings["init"], *["mlp"] * settings.get("projection", 0)]
    else:
        parts = ["lora", f"rank{settings['rank']}", f"alpha{settings['alpha']:g}", "+".join(settings["targets"])]
    return out / "runs" / "-".join([*parts, f"lr{settings['lr']:g}", f"poems{settings.get('poems') or '_all'}",
                                    f"seed{settings['seed']}"])  # fmt: skip


def finished(settings: Settings, args: argparse.Namespace) -> dict[str, Any] | None:
    """The figures of a run, None if it or its copying is not done. Raises ValueError for a run with other settings."""
    folder = folder_of(settings, args.out)
    results, copying = folder / "results.json", folder / "copying.json"
    if not results.exists():
        return None
    figures = read_json(results)
    then = figures["settings"]
    changed = [f"{name} was {then.get(name)!r}, is {value!r}"
               for name, value in settings.items() if then.get(name) != value]  # fmt: skip
    if changed:
        raise ValueError(f"{folder} holds a run with other settings ({'; '.join(changed)}): choose another --out.")
    figures["copying"] = read_json(copying) if copying.exists() else None
    return figures if figures["copying"] and figures["copying"]["settings"]["texts"] == args.copying else None


def commands_of(settings: Settings, args: argparse.Namespace) -> list[list[str]]:
    """The command lines of what a run lacks; a training that was begun goes on where it was left."""
    folder = folder_of(settings, args.out)
    train = [sys.executable, str(TRAIN), "--out", str(folder), "--resume"]
    for name, value in settings.items():
        option = "--" + name.replace("_", "-")
        if value is True:
            train.append(option)
        elif value is not None:
            train += [option, *map(str, value if isinstance(value, list) else [value])]
    copying = [sys.executable, str(COPYING), str(folder), "--texts", str(args.copying)]
    return [copying] if (folder / "results.json").exists() else [train, copying]


def run_all(jobs: Mapping[Path, list[list[str]]], workers: int, threads: int) -> list[Path]:
    """Run the commands of each job in turn, `workers` jobs at a time, and tell how it went. Gives those that failed."""
    waiting, failed = list(jobs), list[Path]()
    commands = {folder: list(lines) for folder, lines in jobs.items()}
    running: dict[Path, subprocess.Popen] = {}
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                folder = waiting.pop(0)
                folder.mkdir(parents=True, exist_ok=True)
                with open(folder / "log.txt", "ab") as log:
                    command = commands[folder].pop(0)
                    running[folder] = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            time.sleep(0.1)
            for folder in [folder for folder, process in running.items() if process.poll() is not None]:
                code = running.pop(folder).returncode
                if code:
                    failed.append(folder)
                    lines = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
                    told = f"{folder.name}: FAILED (exit code {code}); its last lines, of {folder / 'log.txt'}:"
                    print(told, *lines[-3:], sep="\n    ", flush=True)
                elif commands[folder]:
                    waiting.insert(0, folder)
                else:
                    (folder / "last.safetensors").unlink(missing_ok=True)  # only good to resume from, and large
                    figures = read_json(folder / "results.json")
                    before, after = (bits(figures, when) for when in ("before", "after"))
                    print(f"{folder.name}: {before:.3f} → {after:.3f} bits per character, {figures['seconds']:.0f} s; "
                          f"{len(waiting) + len(running)} runs to go", flush=True)  # fmt: skip
    finally:  # Ctrl-C ends the runs too; they go on another time
        for process in running.values():
            process.terminate()
            process.wait()
    return failed


def bits(figures: dict[str, Any], when: str) -> float:
    return figures[when]["bits_per_character"]


def mean_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (of a sample: n − 1; 0 for one value)."""
    return fmean(values), stdev(values) if len(values) > 1 else 0.0


HEAD = (
    "| setting | parameters | share, % | bits per character, before | after | best step | CPU seconds "
    "| peak memory, GB | longest copied run, words: poet / base / adapted | the longest "
    "| texts with 5 words or more, % |"
)


def row(label: str, runs: list[dict[str, Any]]) -> str:
    """A line of the table: means over the seeds, ± the standard deviation."""
    after, deviation = mean_sd([bits(figures, "after") for figures in runs])
    spread = f" ± {deviation:.3f}" if len(runs) > 1 else ""
    undisturbed = [figures["train_cpu_seconds"] for figures in runs if not figures["resumed"]]
    seconds = f"{fmean(undisturbed):.0f}" if undisturbed else "–"  # what a resumed run took before is not known
    copied = [fmean(figures["copying"][who]["mean"] for figures in runs) for who in ("poet", "before", "after")]
    trainable = runs[0]["trainable"]
    cells = [
        label, f"{trainable:,}", f"{100 * trainable / runs[0]['parameters']:.2f}",
        f"{fmean(bits(figures, 'before') for figures in runs):.3f}", f"{after:.3f}{spread}",
        ", ".join(f"{figures['best_step']} of {figures['steps']}" for figures in runs), seconds,
        f"{fmean(figures['peak_memory_gb'] for figures in runs):.2f}", " / ".join(f"{mean:.2f}" for mean in copied),
        str(max(figures["copying"]["after"]["max"] for figures in runs)),
        f"{100 * fmean(figures['copying']['after']['share_of_5'] for figures in runs):.1f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def report(name: str, args: argparse.Namespace) -> str:
    """Write the table and the plot of a study from the runs that are there; gives the table."""
    study = args.studies[name]
    rows, befores, hashes, missing = [], [], set(), []
    curves: dict[str, list[tuple[float | str, float, float]]] = {}
    for point in study.points:
        wanted = [settings_of(point, seed, args) for seed in args.seeds]
        runs = [figures for settings in wanted if (figures := finished(settings, args))]
        if len(runs) < len(wanted):
            missing.append(f"{point.label} ({len(runs)} of {len(wanted)})")
        if not runs:
            continue
        rows.append(row(point.label, runs))
        x = (runs[0] | runs[0]["settings"])[study.x] if study.x else point.label
        curves.setdefault(point.curve, []).append((x, *mean_sd([bits(figures, "after") for figures in runs])))
        befores += [bits(figures, "before") for figures in runs]
        hashes |= {figures["corpus_sha256"] for figures in runs}
    if not rows:
        raise ValueError(f"{args.out} has no finished run of the study {name!r} with these settings: run it first.")
    if len(hashes) > 1:
        raise ValueError(f"The runs in {args.out} learnt from different corpora ({len(hashes)}): choose another --out.")
    seeds = ", ".join(map(str, args.seeds))
    words = [f"Seeds {seeds}; at most {args.steps} steps; corpus SHA-256 {hashes.pop()[:16]}… "
             f"Time and memory are of the training with its evaluations. {study.note}".strip()]  # fmt: skip
    if missing:
        words.append(f"Runs are missing: {', '.join(missing)}.")
    table = "\n".join([HEAD, "|---" * (HEAD.count("|") - 1) + "|", *rows])
    text = f"# {name}\n\n{table}\n\n" + "\n\n".join(words) + "\n"
    write_text_atomic(args.out / f"{name}.md", text)
    title = name + (f", {args.author}" if args.author else "") + f", seeds {seeds}"
    plot_study(curves, args.out / f"{name}.png", title, study.x_label,
               "bits per character of held-out verse", fmean(befores), study.log)  # fmt: skip
    courses = {point.label: course(settings_of(point, args.seeds[0], args), args) for point in study.points}
    courses = dict(sorted((pair for pair in courses.items() if pair[1]), key=lambda pair: min(y for _, y in pair[1])))
    plot_trials(courses, args.out / f"{name}-curves.png", f"{name}, seed {args.seeds[0]}", "step",
                "validation, nats per token", len(courses))  # fmt: skip
    return text


def course(settings: Settings, args: argparse.Namespace) -> list[tuple[float, float]]:
    """(step, validation loss) of a finished run; nothing for one that is not."""
    file = folder_of(settings, args.out) / "history.jsonl"
    done = file.exists() and finished(settings, args) is not None
    return list(zip(*read_history(file).curve("validation"), strict=True)) if done else []


def main(studies: Mapping[str, Study] = STUDIES, doc: str | None = __doc__, **defaults: Any) -> None:
    args = arguments(studies, doc, **defaults)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a kill ends the runs as Ctrl-C does
    failed: list[Path] = []
    if not args.report:
        wanted = [settings_of(point, seed, args)
                  for seed in args.seeds for name in args.study for point in studies[name].points]  # fmt: skip
        jobs = {folder_of(settings, args.out): settings for settings in wanted}
        todo = {folder: commands_of(settings, args)
                for folder, settings in jobs.items() if finished(settings, args) is None}  # fmt: skip
        print(f"{len(jobs)} runs, {len(jobs) - len(todo)} of them finished before", flush=True)
        failed = run_all(todo, args.workers, args.threads)
        if len(failed) == len(jobs):
            raise ValueError(f"All {len(failed)} runs failed: see above.")
    for name in args.study:
        print(f"\n{report(name, args)}")
    print(f"{args.out}: " + ", ".join(f"{name}.md, {name}.png, {name}-curves.png" for name in args.study))
    if failed:
        raise ValueError(f"{len(failed)} runs failed: {', '.join(folder.name for folder in failed)}.")


if __name__ == "__main__":
    run(main)
