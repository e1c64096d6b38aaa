"""The study of LoRA: which runs it makes, what it tells of them, and that it goes on where it was."""

import importlib.util
import json
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from test_examples import base, corpus, run_example  # noqa: F401  (two fixtures)

import minipoet
from minipoet.models.gpt2 import GPT2, GPT2Config

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
EXAMPLE = EXAMPLES / "study_lora.py"


def load_example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def study():
    return load_example("study_lora")


@pytest.fixture(scope="module")
def prefixes(study):
    return load_example("study_prefix")  # which imports the former


def arguments(study, monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["study_lora.py", "--study", "rank", *map(str, options)])
    return study.arguments()


def test_runs_that_studies_share_have_one_folder_and_others_have_their_own(study, monkeypatch):
    args = arguments(study, monkeypatch)
    points = [(name, point) for name, s in study.STUDIES.items() for point in s.points]
    runs = {}
    for name, point in points:
        settings = study.settings_of(point, 0, args)
        folder = study.folder_of(settings, Path("out"))
        told = {key: value for key, value in settings.items() if value is not None}
        assert runs.setdefault(folder, (told, set()))[0] == told
        runs[folder][1].add(name)
    middle = Path("out/runs/lora-rank16-alpha32-all-linear-lr0.002-poems_all-seed0")
    assert runs[middle][1] == {"rank", "targets", "full", "poems"}
    assert len(runs) == 24  # 6 ranks + 4 targets + 4 alphas + 1 full + 6 numbers of poems + 3 of alpha-lr


def test_scale_is_the_same_at_every_rank(study):
    points = study.STUDIES["rank"].points
    assert [(p.settings["rank"], p.settings["alpha"] / p.settings["rank"]) for p in points] == [
        (rank, 2) for rank in (1, 2, 4, 8, 16, 32)
    ]


def test_product_of_alpha_and_rate_stays_where_it_is_said_to(study, monkeypatch):
    args = arguments(study, monkeypatch, "--lr", 0.001)
    kept = [p for p in study.STUDIES["alpha-lr"].points if p.curve == "alpha · learning rate constant"]
    assert [study.settings_of(p, 0, args)["lr"] for p in kept] == [0.004, 0.001, 0.00025]


def test_attention_at_rank_64_has_as_many_parameters_as_all_layers_at_16(study):
    counts = set()
    for point in study.STUDIES["targets"].points[-2:]:
        with torch.device("meta"):
            model = GPT2(GPT2Config(vocab_size=64, n_positions=16, n_embd=64, n_layer=2, n_head=2))
        minipoet.add_lora(model, point.settings["rank"], point.settings["alpha"], point.settings["targets"])
        counts.add(minipoet.count_parameters(model).trainable)
    assert len(counts) == 1


def trainable(settings):
    """What trains in a model of poet-tiny's shape with these settings, by its parameters' count."""
    with torch.device("meta"):
        model = GPT2(GPT2Config(vocab_size=4096, n_positions=256, n_embd=320, n_layer=6, n_head=5))
    if "prefix" in settings:
        minipoet.add_prefix(model, settings["prefix"], settings.get("projection", False))
    else:
        minipoet.add_lora(model, settings["rank"], settings["alpha"], settings["targets"])
    return minipoet.count_parameters(model).trainable


def test_each_lora_of_the_prefix_study_has_the_parameters_of_one_of_the_prefixes(prefixes):
    counts = {"prefix": [], "LoRA": []}
    for point in prefixes.STUDIES["lora"].points:
        counts[point.curve].append(trainable(point.settings))
    assert counts["prefix"] == counts["LoRA"] == [3_840, 19_200, 57_600, 115_200, 384_000]


def test_runs_of_prefixes_have_a_folder_each_and_no_rate_of_lora(study, prefixes, monkeypatch):
    args = arguments(study, monkeypatch)
    runs = {}
    for point in [point for s in prefixes.STUDIES.values() for point in s.points]:
        settings = study.settings_of(point, 0, args)
        assert runs.setdefault(study.folder_of(settings, Path("out")), settings) == settings
        assert ("dropout" in settings) == ("rank" in settings)  # lora_pushkin.py takes neither with --prefix
    assert len(runs) == 10 + 4 + 5  # lengths, with an MLP and without; two more starts of each; LoRA


def figures(after, best_step, seconds, copied, resumed=False):
    copying = {who: {"mean": mean, "max": 2 * mean, "share_of_5": mean / 100}
               for who, mean in (("poet", 2.0), ("before", 1.0), ("after", copied))}  # fmt: skip
    return {"before": {"bits_per_character": 2.5}, "after": {"bits_per_character": after}, "best_step": best_step,
            "steps": 100, "trainable": 1000, "parameters": 8000, "train_cpu_seconds": seconds, "resumed": resumed,
            "peak_memory_gb": 1.5, "copying": copying}  # fmt: skip


def test_line_of_the_table_by_hand(study):
    runs = [figures(2.0, 50, 10, 3), figures(2.2, 75, 99, 4, resumed=True), figures(2.1, 50, 30, 5)]
    assert study.row("16", runs) == (
        "| 16 | 1,000 | 12.50 | 2.500 | 2.100 ± 0.100 | 50 of 100, 75 of 100, 50 of 100 | 20 | 1.50 "
        "| 2.00 / 1.00 / 4.00 | 10 | 4.0 |"
    )
    assert "| 2.200 | 75 of 100 | – |" in study.row("16", runs[1:2])  # no spread of one run, no time of a resumed one
    assert study.HEAD.count("|") == study.row("16", runs).count("|")


def run_study(study, monkeypatch, *options):
    """The exit code: 0, or that of SystemExit."""
    monkeypatch.setattr(sys, "argv", ["study_lora.py", *map(str, options)])
    try:
        study.run(study.main)
    except SystemExit as stop:
        return stop.code
    return 0


def test_what_a_run_lacks_is_made_and_no_more(study, monkeypatch, tmp_path):
    args = arguments(study, monkeypatch, "--out", tmp_path, "--copying", 5)
    settings = study.settings_of(study.STUDIES["full"].points[1], 2, args)
    folder = study.folder_of(settings, tmp_path)
    folder.mkdir(parents=True)

    def lacks():
        return [Path(command[1]).name for command in study.commands_of(settings, args)]

    assert lacks() == ["lora_pushkin.py", "copying.py"]
    (folder / "results.json").write_text(json.dumps({"settings": settings}), "utf-8")
    assert lacks() == ["copying.py"]
    assert study.commands_of(settings, args)[0][2:] == [str(folder), "--texts", "5"]
    assert study.finished(settings, args) is None
    for texts, done in ((4, False), (5, True)):  # a measurement in other texts does not count
        (folder / "copying.json").write_text(json.dumps({"settings": {"texts": texts}}), "utf-8")
        assert (study.finished(settings, args) is not None) is done


def python(code):
    """A command that starts at once: it imports nothing of ours."""
    return [sys.executable, "-S", "-c", code]


def test_commands_of_a_run_take_turns_in_one_log_and_none_follows_one_that_failed(study, tmp_path, capsys):
    good, bad = tmp_path / "good", tmp_path / "bad"
    told = json.dumps({"before": {"bits_per_character": 2.5}, "after": {"bits_per_character": 2.0}, "seconds": 7})
    first = (
        f"import os; open({str(good / 'results.json')!r}, 'w').write({told!r}); print(os.environ['OMP_NUM_THREADS'])"
    )
    jobs = {good: [python(first), python("print('two')")],
            bad: [python("import sys; print('verse'); sys.exit('no verse')"), python("print('never')")]}  # fmt: skip
    assert study.run_all(jobs, workers=1, threads=3) == [bad]
    assert (good / "log.txt").read_text("utf-8").split() == ["3", "two"]
    assert "never" not in (bad / "log.txt").read_text("utf-8")
    good_line, bad_line, *last = capsys.readouterr().out.splitlines()
    assert good_line == "good: 2.500 → 2.000 bits per character, 7 s; 1 runs to go"
    assert bad_line == f"bad: FAILED (exit code 1); its last lines, of {bad / 'log.txt'}:"
    assert sorted(last) == ["    no verse", "    verse"]


def test_runs_that_go_on_when_the_study_is_interrupted_are_ended(study, tmp_path, monkeypatch):
    started = []

    class Noted(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)

    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(study.subprocess, "Popen", Noted)
    monkeypatch.setattr(study.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        study.run_all({tmp_path: [python("import time; time.sleep(60)")]}, workers=1, threads=1)
    assert [process.poll() for process in started] == [-signal.SIGTERM]


class InThisProcess:
    """A subprocess.Popen for the examples, without the seconds that PyTorch takes to be imported."""

    ran: ClassVar[list[str]] = []

    def __init__(self, command, stdout, stderr, env):
        example = Path(command[1])
        self.ran.append(example.name)
        self.returncode = 0
        with open(stdout.name, "a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
            try:
                run_example(*command[2:], example=example)
            except SystemExit as stop:
                self.returncode = stop.code

    def poll(self):
        return self.returncode


def test_a_study_tells_a_failing_run_and_goes_on_where_it_was(base, corpus, tmp_path, study, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr(study.subprocess, "Popen", InThisProcess)
    ran = []
    monkeypatch.setattr(InThisProcess, "ran", ran)
    out = tmp_path / "study"
    options = ("--study", "full", "--base", base, "--corpus", corpus, "--out", out, "--seeds", 3, "--length", 64,
               "--rows", 2, "--evaluate-every", 2, "--copying", 2)  # fmt: skip
    broken = out / "runs" / "full-lr0.0005-poems_all-seed3" / "last.safetensors"
    broken.parent.mkdir(parents=True)
    broken.write_text("no checkpoint")
    assert run_study(study, monkeypatch, *options, "--steps", 4) == 2
    told = capsys.readouterr()
    assert "FAILED (exit code 2)" in told.out and "last.safetensors is broken" in told.out
    assert "1 runs failed: full-lr0.0005-poems_all-seed3" in told.err
    assert "Runs are missing: full fine-tuning (0 of 1)." in (out / "full.md").read_text("utf-8")
    assert ran == ["lora_pushkin.py", "lora_pushkin.py", "copying.py"]  # the broken one is not looked at for copies

    ran.clear()
    broken.unlink()
    assert run_study(study, monkeypatch, *options, "--steps", 4) == 0
    assert "2 runs, 1 of them finished before" in capsys.readouterr().out
    assert ran == ["lora_pushkin.py", "copying.py"]
    table = (out / "full.md").read_text("utf-8")
    assert "| LoRA, rank 16 |" in table and "| full fine-tuning |" in table and "missing" not in table
    assert (out / "full.png").read_bytes().startswith(b"\x89PNG")
    whole = json.loads((broken.parent / "results.json").read_text("utf-8"))
    assert whole["trainable"] == whole["parameters"]
    assert not broken.exists()  # what only serves to resume is gone
    assert json.loads((broken.parent / "copying.json").read_text("utf-8"))["settings"]["seed"] == 3

    (out / "full.md").unlink()
    assert run_study(study, monkeypatch, *options, "--steps", 4, "--report") == 0
    assert (out / "full.md").read_text("utf-8") == table
    assert run_study(study, monkeypatch, *options, "--steps", 6) == 2
    assert "other settings (steps was 4, is 6): choose another --out" in capsys.readouterr().err
    assert ran == ["lora_pushkin.py", "copying.py"]  # nothing more


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "0", "--copying", "0"], "--workers, --copying must be at least 1"),
        (["--corpus", "nowhere"], "nowhere: there is no such file or folder"),
        (["--report"], "no finished run of the study 'rank'"),
    ],
)
def test_a_mistake_gets_one_sentence_and_exit_code_2(study, monkeypatch, tmp_path, capsys, options, message):
    assert run_study(study, monkeypatch, "--study", "rank", "--out", tmp_path, *options) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
