"""How a command ends: silently, with one sentence and a code, or with the traceback of a fault of ours."""

import configparser
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from minipoet.__main__ import main
from minipoet.command import run, show, tell
from minipoet.command.units import count_word, dtype_word, size_word
from minipoet.training import TrainingDiverged

ROOT = Path(__file__).resolve().parents[1]


def minipoet_command(*arguments) -> int:
    """Run `minipoet` with these arguments, in this process; its exit code."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def raising(error: BaseException):
    def main() -> None:
        raise error

    return main


def test_command_that_did_its_work_returns(capsys):
    run(lambda: print("done"))
    assert capsys.readouterr() == ("done\n", "")


@pytest.mark.parametrize("error", [ValueError, OSError, TrainingDiverged, UnicodeError, FileNotFoundError])
def test_users_mistake_is_one_sentence_and_code_2(capsys, error):
    with pytest.raises(SystemExit) as stop:
        run(raising(error("the file poems.txt is empty")))
    assert stop.value.code == 2
    assert capsys.readouterr() == ("", "error: the file poems.txt is empty\n")


def test_interruption_is_code_130(capsys):
    with pytest.raises(SystemExit) as stop:
        run(raising(KeyboardInterrupt()))
    assert stop.value.code == 130
    assert capsys.readouterr().err.startswith("interrupted")


@pytest.mark.parametrize("error", [RuntimeError, KeyError, AssertionError])
def test_fault_of_ours_keeps_its_traceback(error):
    with pytest.raises(error):
        run(raising(error("bug")))


@pytest.mark.parametrize("say", [show, print])  # at once, and held back until the end
def test_reader_that_has_gone_ends_a_command_quietly(monkeypatch, capsys, say):
    reader, writer = os.pipe()
    os.close(reader)  # as head does in `| head -1`
    with os.fdopen(writer, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        with pytest.raises(SystemExit) as stop:
            run(lambda: say("a line"))
        output.flush()  # what Python does at its end: it must not fail any more
    assert stop.value.code == 141  # 128 + SIGPIPE, as of any command in a shell
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
@pytest.mark.parametrize("say", [show, print])
def test_full_disk_under_the_output_is_one_sentence(monkeypatch, capsys, say):
    with open("/dev/full", "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        with pytest.raises(SystemExit) as stop:
            run(lambda: say("a line"))
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: Could not write to standard output: No space left on device.\n"


def test_closed_standard_output_is_told(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", None)
    assert minipoet_command("info", "poet-tiny") == 2
    assert "Standard output is closed" in capsys.readouterr().err


def test_note_never_goes_to_standard_output(monkeypatch, capsys):
    tell("a note")
    monkeypatch.setattr(sys, "stderr", None)
    tell("nobody hears this")
    assert capsys.readouterr() == ("", "a note\n")


def test_no_command_shows_what_there_is(capsys):
    assert minipoet_command() == 2
    help_text = capsys.readouterr().err
    assert all(command in help_text for command in ("write", "info", "convert", "label"))


@pytest.mark.parametrize("command", ["write", "info", "convert", "label"])
def test_each_command_has_help_with_examples(capsys, command):
    assert minipoet_command(command, "--help") == 0
    assert f"\nexamples:\n  minipoet {command} " in capsys.readouterr().out


def test_console_script_and_module_are_one_command():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    name, _, target = config["options.entry_points"]["console_scripts"].strip().partition(" = ")
    module, _, function = target.partition(":")
    assert (name, getattr(importlib.import_module(module), function)) == ("minipoet", main)
    done = subprocess.run([sys.executable, "-m", "minipoet", "--version"], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout.split()[0], done.stderr) == (0, "minipoet", "")


@pytest.mark.parametrize(
    ("size", "word"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (17_589_536, "17.6 MB"), (999_949_999, "999.9 MB"),
     (999_950_000, "1.0 GB"), (5.8e9, "5.8 GB"), (4.2e12, "4.2 TB"), (4.2e15, "4200.0 TB")],
)  # fmt: skip
def test_sizes_in_words(size, word):
    assert size_word(size) == word


def test_types_and_counts_in_words():
    words = [dtype_word(dtype) for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.int64)]
    assert words == ["fp16", "bf16", "fp32", "int64"]
    assert [count_word(number, "file") for number in (0, 1, 1200)] == ["0 files", "1 file", "1,200 files"]
