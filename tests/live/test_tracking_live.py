"""What TensorBoard and MLflow were told, read back by their own readers."""

import re
from pathlib import Path

import pytest
import torch
from training_support import tiny_batches, tiny_gpt2

from minipoet.training import History, TrainSettings, train
from minipoet.training.tracking import MLflow, TensorBoard

SETTINGS = TrainSettings(steps=6, warmup=0, evaluate_every=2, precision="fp32")
KEYS = ("loss", "norm", "lr", "tokens", "validation", "validation 1")


class Cut:
    """Batches that end the run before the one with this number."""

    def __init__(self, number: int):
        self.number = number

    def batch(self, step: int):
        if step == self.number:
            raise KeyboardInterrupt
        return tiny_batches().batch(step)


def run(folder: Path, track, batches=None, settings=SETTINGS, **options) -> History:
    def validate() -> dict[str, float]:
        return {"validation": float(model.embed.weight.detach().norm()), "validation 1": 0.5}

    torch.set_num_threads(1)
    model = tiny_gpt2()
    return train(model, batches or tiny_batches(), settings, folder, validate, quiet=True, track=track, **options)


def curves(history: History) -> dict[str, list[tuple[int, float]]]:
    return {key: list(zip(*history.curve(key), strict=True)) for key in KEYS}


def in_single(points: dict[str, list[tuple[int, float]]]) -> dict[str, list[tuple[int, float]]]:
    """As float32 has them."""
    return {key: [(step, float(torch.tensor(value))) for step, value in of] for key, of in points.items()}


# --- TensorBoard --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def accumulator():
    return pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def read_board(accumulator, folder: Path) -> dict[str, list[tuple[int, float]]]:
    found = accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    return {key: [(point.step, point.value) for point in found.Scalars(key)] for key in KEYS}


def test_tensorboard_reads_every_step_and_the_settings(tmp_path, accumulator):
    history = run(tmp_path / "run", TensorBoard(about={"rank": 4}))
    assert read_board(accumulator, tmp_path / "run" / "tensorboard") == in_single(curves(history))
    found = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    found.Reload()
    (table,) = found.Tensors("settings/text_summary")[0].tensor_proto.string_val
    for row in ("| lr | 0.001 |", "| steps | 6 |", "| trainable | 27584 |", "| rank | 4 |"):
        assert row in table.decode("utf-8")


@pytest.mark.parametrize("number", [0, 1, 3, 5])
def test_tensorboard_shows_a_resumed_run_as_if_it_had_never_stopped(tmp_path, accumulator, number):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", TensorBoard(tmp_path / "board"), Cut(number))
    history = run(tmp_path / "run", TensorBoard(tmp_path / "board"), resume=True)
    assert read_board(accumulator, tmp_path / "board") == in_single(curves(history))


def test_tensorboard_shows_the_run_that_replaced_another(tmp_path, accumulator):
    run(tmp_path / "run", TensorBoard(), settings=TrainSettings(steps=9, evaluate_every=1, precision="fp32"))
    history = run(tmp_path / "run", TensorBoard())
    assert read_board(accumulator, tmp_path / "run" / "tensorboard") == in_single(curves(history))


# --- MLflow -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """One for all: to make a database takes seconds."""
    for name in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(name)
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def to(store, request) -> tuple[str, str]:
    """An experiment of the test's own, and where it is."""
    return request.node.name, f"sqlite:///{store}/new/mlflow.db"


def read_runs(tracker: MLflow) -> list[tuple[object, dict[str, list[tuple[int, float]]]]]:
    """(run, its curves), the latest first."""
    experiment = tracker.client.get_experiment_by_name(tracker.experiment)
    runs = tracker.client.search_runs([experiment.experiment_id])
    return [
        (one, {key: sorted((p.step, p.value) for p in tracker.client.get_metric_history(one.info.run_id, key))
               for key in KEYS})
        for one in runs
    ]  # fmt: skip


def test_mlflow_reads_every_step_the_settings_and_the_history(tmp_path, to, store):
    tracker = MLflow(*to, run_name="full", about={"rank": 4})
    history = run(tmp_path / "run", tracker)
    ((found, points),) = read_runs(tracker)
    assert points == curves(history)
    assert (found.info.run_id, found.info.run_name, found.info.status) == (tracker.run_id, "full", "FINISHED")
    assert {"lr": "0.001", "steps": "6", "trainable": "27584", "rank": "4"}.items() <= found.data.params.items()
    assert [file.path for file in tracker.client.list_artifacts(tracker.run_id)] == ["history.jsonl"]
    kept = Path(found.info.artifact_uri.removeprefix("file://"), "history.jsonl")
    assert kept.is_relative_to(store / "new")  # beside the database, not in the working folder
    assert kept.read_bytes() == (tmp_path / "run" / "history.jsonl").read_bytes()


@pytest.mark.parametrize("seconds", [0.0, 5.0])
def test_mlflow_shows_a_resumed_run_as_if_it_had_never_stopped(tmp_path, to, seconds, monkeypatch):
    monkeypatch.setattr(MLflow, "SECONDS", seconds)
    for number in (1, 3, 5):
        tracker = MLflow(*to)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run", tracker, Cut(number), resume=number > 1)
        assert read_runs(tracker)[0][0].info.status == "KILLED"
    history = run(tmp_path / "run", MLflow(*to), resume=True)
    found = read_runs(tracker)
    assert found[0][1] == curves(history)
    assert found[0][0].info.status == "FINISHED"
    assert found[0][0].info.run_name == "run"
    assert len(found) == 2  # without a checkpoint (number 1) the next call began anew


def test_mlflow_gets_what_a_broken_connection_kept_from_it(tmp_path, to, monkeypatch):
    monkeypatch.setattr(MLflow, "SECONDS", 0.0)
    tracker = MLflow(*to)
    log_batch = tracker.client.log_batch

    def gone(run_id, metrics=(), params=()):
        if any(metric.step == 3 for metric in metrics):
            raise ConnectionError("gone")
        log_batch(run_id, metrics, params)

    monkeypatch.setattr(tracker.client, "log_batch", gone)
    with pytest.warns(RuntimeWarning, match=r"MLflow failed after step 3 \(ConnectionError: gone\)"):
        run(tmp_path / "run", tracker)
    monkeypatch.setattr(tracker.client, "log_batch", log_batch)
    assert read_runs(tracker)[0][1]["loss"][-1][0] == 2
    history = run(tmp_path / "run", tracker, resume=True)  # it is finished: nothing is trained, all is told
    ((found, points),) = read_runs(tracker)
    assert (points, found.info.status) == (curves(history), "FINISHED")


def test_mlflow_run_that_was_deleted_is_begun_anew(tmp_path, to):
    tracker = MLflow(*to)
    run(tmp_path / "run", tracker, stop_after=4)
    tracker.client.delete_run(tracker.run_id)
    history = run(tmp_path / "run", tracker, resume=True)
    ((_, points),) = read_runs(tracker)
    assert points == curves(history)


def test_mlflow_takes_any_name_of_a_figure(tmp_path, to):
    tracker = MLflow(*to)
    figures = {"validation": 1.0, "validation ★5": 2.0, "validation пять": float("nan")}
    train(tiny_gpt2(), tiny_batches(), SETTINGS, tmp_path / "run", lambda: figures, quiet=True, track=tracker)
    assert {"validation _5", "validation пять"} <= tracker.client.get_run(tracker.run_id).data.metrics.keys()


def test_mlflow_sends_more_than_it_takes_at_once(tmp_path, to):
    tracker = MLflow(*to)
    history = run(tmp_path / "run", tracker, settings=TrainSettings(steps=210, evaluate_every=0, precision="fp32"))
    ((_, points),) = read_runs(tracker)
    assert points == curves(history)


@pytest.mark.parametrize("uri", ["ftp://nowhere", "runs/mlruns"])
def test_mlflow_place_that_cannot_be_used_is_told_before_anything_is_trained(tmp_path, uri, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match=rf"^MLflow cannot use the experiment 'reviews' at {re.escape(uri)} \(.*sqlite"):
        MLflow("reviews", uri)


def test_mlflow_sends_nothing_to_its_makers(to):
    MLflow(*to)
    from mlflow.telemetry.utils import is_telemetry_disabled

    assert is_telemetry_disabled()
