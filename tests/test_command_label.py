"""`minipoet label`: one text at a time, every answer kept, no model named before the end."""

import io
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_command import minipoet_command

from minipoet.command import label as module
from minipoet.evaluation.labels import read_labels, read_samples, write_samples
from minipoet.evaluation.reviews import GeneratedReview

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def samples(tmp_path):
    """Six samples of two models; the file, whose answers are in samples.labels.jsonl."""
    reviews = [GeneratedReview(f"отзыв {n}", 1 + n % 2, (), f"просьба {n}", ("one", "two")[n // 3]) for n in range(6)]
    write_samples(tmp_path / "samples.jsonl", reviews)
    return tmp_path / "samples.jsonl"


@pytest.fixture
def judge(samples, monkeypatch, capsys):
    """Type these lines into the command; what it showed on standard output, and its exit code."""

    def run(lines: str, *options) -> tuple[str, int]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
        code = minipoet_command("label", samples, *options)
        return capsys.readouterr().out, code

    return run


def given(samples: Path, labels: str = "samples.labels.jsonl") -> dict:
    return read_labels(samples.parent / labels, read_samples(samples)).given


def order(samples: Path, seed: int = 0) -> list:
    return [sample.id for sample in read_samples(samples).shuffled(seed)]


def shown(output: str) -> list[str]:
    return [line for line in output.split("\n") if line.startswith("отзыв")]


def test_answers_are_recorded_for_the_texts_shown(samples, judge):
    output, code = judge("y\nn\nд\nНет\nyes\nДА\nq\n")
    assert code == 0
    assert given(samples) == dict(zip(order(samples), (True, False, True, False, True, True), strict=True))
    by_id = read_samples(samples).by_id
    assert shown(output) == [by_id[id].text for id in order(samples)]
    assert f"[{by_id[order(samples)[0]].request}]" in output and "--- 1 of 6 ---" in output
    assert "\nyes: 4 of 6 -> 0.30 to 0.90 (95 %)\n" in output


def test_which_model_wrote_a_text_and_how_it_stands_is_told_at_the_end_only(samples, judge):
    output, _ = judge("y\ny\ny\n")
    assert "one" not in output and "two" not in output and "->" in output and " of 3" not in output
    output, _ = judge("n\nn\nn\n")
    asked, _, summary = output.partition("That was the last one")
    assert "one" not in asked and "two" not in asked
    assert "  one: " in summary and "  two: " in summary and "  one less two: " in summary and "rating 1: " in summary


def test_same_command_goes_on_where_it_ended(samples, judge):
    judge("y\nn\nq\n")
    output, _ = judge("n\n")
    by_id = read_samples(samples).by_id
    assert shown(output) == [by_id[id].text for id in order(samples)[2:4]]
    assert "--- 3 of 6 ---" in output
    assert given(samples) == dict(zip(order(samples), (True, False, False), strict=False))


def test_back_shows_the_one_before_with_its_answer_and_takes_another(samples, judge):
    output, _ = judge("y\nb\nn\nq\n")
    texts = shown(output)
    assert texts[2] == texts[0] and texts[3] == texts[1]
    assert "(so far: yes)" in output
    assert given(samples) == {order(samples)[0]: False}


def test_back_reaches_answers_of_an_earlier_day_and_the_last_one(samples, judge):
    judge("y\ny\ny\nq\n")
    judge("b\nn\nq\n")
    assert given(samples)[order(samples)[2]] is False
    output, _ = judge("y\ny\ny\nb\nn\nq\n")
    assert given(samples)[order(samples)[5]] is False
    assert "yes: 4 of 6" in output


def test_back_at_the_first_stays_there(samples, judge):
    output, code = judge("b\ny\n")
    assert "this is the first" in output and code == 0
    assert given(samples) == {order(samples)[0]: True}


def test_skipped_text_comes_again_next_time(samples, judge):
    output, _ = judge("s\ny\ny\ny\ny\ny\nq\n")
    assert order(samples)[0] not in given(samples) and "yes:" not in output
    output, _ = judge("n\nq\n")
    assert len(shown(output)) == 1 and "yes: 5 of 6" in output


@pytest.mark.parametrize("key", ["", "x", "yess", "1", "\x1b[A", "y n"])
def test_other_keys_record_nothing_and_ask_again(samples, judge, key):
    output, code = judge(f"{key}\nn\n")
    assert "nothing was recorded" in output and code == 0
    assert given(samples) == {order(samples)[0]: False}
    assert len(shown(output)) == 2  # the first, not shown anew, and the second


def test_keys_of_the_russian_layout_that_say_nothing_else_are_understood(samples, judge):
    judge("ы\ny\nи\nn\nй\n")  # skip, yes, back, no, quit
    assert given(samples) == {order(samples)[1]: False}


def test_bytes_that_are_no_text_are_no_answer(samples, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe\ny\n")))
    assert minipoet_command("label", samples) == 0
    assert len(given(samples)) == 1


def test_seed_chooses_the_order(samples, judge):
    output, _ = judge("", "--seed", 5)
    assert order(samples, 5)[0] != order(samples)[0]
    assert shown(output) == [read_samples(samples).by_id[order(samples, 5)[0]].text]


def test_question_and_file_of_the_answers_are_chosen(samples, judge, capsys):
    output, _ = judge("y\n", "--labels", samples.parent / "fit.jsonl", "--question", "Верно?")
    assert "\nВерно?\n" in output and len(given(samples, "fit.jsonl")) == 1
    assert not samples.with_suffix(".labels.jsonl").exists()


def test_summary_asks_nothing(samples, judge):
    judge("y\nn\nq\n")
    output, code = judge("n\n", "--summary")
    assert code == 0 and len(given(samples)) == 2
    assert output.startswith(
        "\nCould a person have written this?\n2 of 6 are judged so far.\nyes: 1 of 2 -> 0.09 to 0.91"
    )


def test_text_is_wrapped_to_the_terminal_and_cannot_command_it(tmp_path, monkeypatch, capsys):
    (tmp_path / "s.jsonl").write_text(json.dumps({"text": "слово " * 30 + "\n\x1b[2Jконец\a"}) + '\n{"text": " "}\n')
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert minipoet_command("label", tmp_path / "s.jsonl") == 0
    output = capsys.readouterr().out
    assert "\x1b" not in output and "\a" not in output and "конец" in output and "(an empty text)" in output
    assert max(len(line) for line in output.split("\n") if "слово" in line) <= 40


# Mistakes, and a program that ends before its time


def test_samples_that_are_not_those_of_the_labels_are_one_sentence(samples, judge, capsys):
    judge("y\n")
    samples.write_text(samples.read_text().replace("отзыв 3", "отзыв III"))
    minipoet_command("label", samples)
    output, errors = capsys.readouterr()
    assert output == "" and errors.startswith("error: ") and "has answers about other samples" in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seed", "-1"], "--seed must be a whole number"),
        (["--summary"], "Nothing is judged yet"),
        (["--labels", "SAMPLES"], "is no file of labels"),
    ],
)
def test_mistake_is_one_sentence_and_code_2(samples, capsys, options, message):
    assert minipoet_command("label", samples, *(str(samples) if one == "SAMPLES" else one for one in options)) == 2
    errors = capsys.readouterr().err
    assert message in errors and errors.count("\n") == 1


def test_closed_standard_input_is_told(samples, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", None)
    assert minipoet_command("label", samples) == 2
    assert "there is nobody to ask" in capsys.readouterr().err


def test_answer_cut_short_is_told_and_asked_again(samples, judge, capsys):
    judge("y\ny\n")
    path = samples.with_suffix(".labels.jsonl")
    path.write_bytes(path.read_bytes()[:-5])
    minipoet_command("label", samples)
    assert "was cut short, so that answer is to be given again" in capsys.readouterr().err
    judge("n\n")
    assert given(samples) == dict(zip(order(samples), (True, False), strict=False))


def test_ctrl_c_in_a_terminal_keeps_all_answers(samples):
    """A real terminal, and a real interruption."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "minipoet", "label", str(samples)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "COLUMNS": "60"}
    program = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
        encoding="utf-8",
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.default_int_handler
        ),  # a job in the background ignores it
    )
    os.close(theirs)
    os.write(ours, b"y\n")
    for line in program.stdout:
        if line.startswith("y/n") and "-> yes" in line:
            break
    assert len(given(samples)) == 1  # while it waits for the next
    for line in program.stdout:
        if "--- 2 of 6" in line:
            break
    program.send_signal(signal.SIGINT)
    _, errors = program.communicate(timeout=60)
    os.close(ours)
    assert program.returncode == 130
    assert errors.endswith("interrupted; all answers are kept, and the same command goes on from here\n")
    assert list(given(samples).values()) == [True]


def test_keys_mean_one_thing_each():
    words = [word for own in module.KEYS.values() for word in own]
    assert len(words) == len(set(words))
