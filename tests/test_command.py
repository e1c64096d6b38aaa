"""How a command ends: silently, with one sentence and a code, or with the traceback of a fault of ours."""

import pytest

from minipoet.command import run
from minipoet.training import TrainingDiverged


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
