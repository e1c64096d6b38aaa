"""Trackers are told the whole history, each event once a call, and none of them can stop a run that has begun."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from training_support import tiny_batches, tiny_gpt2

from minipoet.training import Batch, History, TrainSettings, read_history, train
from minipoet.training.state import read_header
from minipoet.training.telling import as_trackers
from minipoet.training.tracking import MLflow, Run, TensorBoard

SETTINGS = TrainSettings(steps=6, warmup=0, evaluate_every=2, save_every=2, precision="fp32")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Notes:
    """A tracker that remembers what it was told, and fails where it is told to."""

    def __init__(self, failing: Callable[[str, dict], bool] = lambda what, event: False):
        self.failing = failing
        self.runs: list[Run] = []
        self.events: list[dict] = []
        self.ends: list[tuple[list[str], bool]] = []

    def _fail(self, what: str, event: dict | None = None) -> None:
        if self.failing(what, event or {}):
            raise ConnectionError("the server is gone\nand so on")

    def begin(self, run: Run) -> None:
        self._fail("begin")
        self.runs.append(run)

    def event(self, event: dict) -> None:
        self._fail("event", event)
        self.events.append(event)

    def end(self, files, finished: bool) -> None:
        self._fail("end")
        self.ends.append((sorted(path.name for path in files if path.exists()), finished))


class Cut:
    """Batches that end the run before the one with this number, as a kill would."""

    def __init__(self, number: int):
        self.number = number

    def batch(self, step: int) -> Batch:
        if step == self.number:
            raise KeyboardInterrupt
        return tiny_batches().batch(step)


def run(folder: Path, track, batches=None, **options) -> History:
    options = {"validate": lambda: 1.0} | options
    return train(tiny_gpt2(), batches or tiny_batches(), SETTINGS, folder, quiet=True, track=track, **options)


# --- what is told -------------------------------------------------------------------------------------------------


def test_tracker_is_told_settings_and_counts_then_all_events_then_the_files(tmp_path):
    notes = Notes()
    history = run(tmp_path, notes)
    ((folder, settings, counts, resumed),) = notes.runs
    assert (folder, settings["steps"], settings["lr"], resumed) == (tmp_path, 6, 1e-3, False)
    parameters = sum(p.numel() for p in tiny_gpt2().parameters())
    assert counts == {"parameters": parameters, "trainable": parameters}
    assert notes.events == history.events == read_history(tmp_path / "history.jsonl").events
    assert notes.ends == [(["best.safetensors", "history.jsonl", "last.safetensors"], True)]


def test_events_are_told_while_the_run_goes_on(tmp_path):
    notes, seen = Notes(), []
    run(tmp_path, notes, validate=lambda: float(seen.append(len(notes.events)) or 1.0))
    assert seen == [0, 2, 5, 8]  # the start, then two steps and the evaluation before


def test_functions_and_trackers_may_be_mixed(tmp_path):
    notes, losses = Notes(), []
    history = run(tmp_path, [notes, lambda event: losses.append(event.get("loss"))])
    assert losses == [event.get("loss") for event in history.events]
    assert notes.events == history.events


def test_tracker_that_spoils_its_event_does_not_spoil_the_history(tmp_path):
    history = run(tmp_path, lambda event: event.clear())
    assert history.curve("loss")[0] == [1, 2, 3, 4, 5, 6]


def test_without_a_tracker_the_run_is_the_same(tmp_path):
    events = [run(tmp_path / str(number), track).events for number, track in enumerate((None, Notes()))]
    for event in [event for one in events for event in one]:
        event.pop("seconds", None)
    assert events[0] == events[1]


# --- going on -----------------------------------------------------------------------------------------------------


def test_resumed_run_tells_the_whole_history_once(tmp_path):
    first, second = Notes(), Notes()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, first, Cut(5))  # five steps are made, the checkpoint is of the fourth
    assert [event["step"] for event in first.events] == [0, 1, 2, 2, 3, 4, 4, 5]
    assert first.ends == [(["best.safetensors", "history.jsonl", "last.safetensors"], False)]
    history = run(tmp_path, second, resume=True)
    assert [event["step"] for event in second.events] == [0, 1, 2, 2, 3, 4, 4, 5, 6, 6]
    assert second.events == history.events
    assert second.runs[0].resumed


def test_run_that_is_stopped_is_not_told_to_be_finished(tmp_path):
    notes = Notes()
    run(tmp_path, notes, stop_after=3)
    run(tmp_path, notes, resume=True)
    assert [finished for _, finished in notes.ends] == [False, True]


def test_finished_run_can_be_told_later(tmp_path):
    former, notes = run(tmp_path, None), Notes()
    run(tmp_path, notes, resume=True)
    assert notes.events == former.events


# --- what breaks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failing", "step"),
    [(lambda what, event: event.get("step") == 3, 3), (lambda what, event: "validation" in event, 1),
     (lambda what, event: what == "end", 6)],
)  # fmt: skip
def test_tracker_that_fails_is_told_of_once_and_the_run_goes_on(tmp_path, failing, step):
    bad, good = Notes(failing), Notes()
    with pytest.warns(RuntimeWarning) as told:
        history = run(tmp_path, [bad, good])
    (message,) = (str(one.message) for one in told)
    start = f"Notes failed after step {step} (ConnectionError: the server is gone) and is told no more of this run"
    assert message.startswith(start)
    assert str(tmp_path / "history.jsonl") in message
    assert bad.ends == []
    assert good.events == history.events
    assert len(history.curve("loss")[0]) == 6
    assert good.ends[0][1]


def test_function_that_fails_is_named(tmp_path):
    def upload(event):
        raise RuntimeError

    with pytest.warns(RuntimeWarning, match=r"The tracker upload failed after step 1 \(RuntimeError: \)"):
        run(tmp_path, upload)


def test_tracker_that_cannot_begin_ends_the_run_before_its_first_step(tmp_path):
    good = Notes()
    with pytest.raises(ConnectionError):
        run(tmp_path, [good, Notes(lambda what, event: what == "begin")])
    assert not (tmp_path / "history.jsonl").exists()
    assert (good.events, good.ends) == ([], [([], False)])


def test_interrupt_in_a_tracker_is_none_of_its_failures(tmp_path):
    def interrupt(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, interrupt)


# --- careless callers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("track", "came"),
    [("tensorboard", "'tensorboard'"), ([print, 3], "3"), (TensorBoard, "TensorBoard without ()"), ({}, "dict")],
)
def test_what_is_no_tracker_is_refused_before_anything_is_done(tmp_path, track, came):
    with pytest.raises(ValueError, match=r"^track must be a function of an event, a tracker .*, got ") as error:
        run(tmp_path / "new", track)
    assert str(error.value).endswith(f"got {came}.")
    assert not (tmp_path / "new").exists()


def test_no_tracker_is_no_mistake():
    assert as_trackers(None) == as_trackers([]) == []


@pytest.mark.parametrize(
    ("make", "hidden", "message"),
    [(TensorBoard, "tensorboard", 'TensorBoard takes the package tensorboard, .*: pip install "minipoet[tensorboard]"'),
     (lambda: MLflow("reviews"), "mlflow", 'MLflow takes the package mlflow, .*: pip install "minipoet[mlflow]"')],
)  # fmt: skip
def test_missing_package_is_told_with_the_way_to_get_it(monkeypatch, make, hidden, message):
    for name in [name for name in sys.modules if name.split(".")[0] == hidden or name.startswith("torch.utils.tens")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, hidden, None)  # importing it fails
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        make()


@pytest.mark.parametrize("options", [{"experiment": ""}, {"experiment": None}, {"experiment": "a", "uri": 3},
                                     {"experiment": "a", "run_name": ""}])  # fmt: skip
def test_names_of_mlflow_must_be_strings(options):
    with pytest.raises(ValueError, match="must be a string that is not empty, got"):
        MLflow(**options)


# --- several figures of one evaluation ----------------------------------------------------------------------------


def test_several_figures_are_noted_and_validation_decides(tmp_path):
    values = iter([3.0, 1.0, 2.0, 4.0])

    def validate():
        value = next(values)
        return {"validation 5": -value, "validation": torch.tensor(value), "validation 1": 7}

    history = run(tmp_path, None, validate=validate)
    assert history.curve("validation") == ([0, 2, 4, 6], [3.0, 1.0, 2.0, 4.0])
    assert history.curve("validation 5") == ([0, 2, 4, 6], [-3.0, -1.0, -2.0, -4.0])
    assert history.curve("validation 1")[1] == [7.0] * 4
    header = json.loads((tmp_path / "history.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert header == {"step": 0, "validation 5": -3.0, "validation": 3.0, "validation 1": 7.0}
    assert read_header(tmp_path / "last.safetensors")[0].best_step == 2


@pytest.mark.parametrize(
    ("found", "message"),
    [({}, "name one 'validation', which decides, .*, got none"), ({"loss": 1.0}, "got 'loss'"),
     ({"validation": 1.0, "loss": 2.0}, "got 'validation', 'loss'"),
     ({"validation": 1.0, "validation 1": None}, "must give a number for 'validation 1', got None"),
     (None, r"must give a number, got None: of a Likelihood take \.loss")],
)  # fmt: skip
def test_figures_without_a_fitting_name_are_refused(tmp_path, found, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, None, validate=lambda: found)
