"""Telling others how a run goes: one small callback, and two that are ready, for TensorBoard and for MLflow.

    train(..., track=print)                                   a function is called with each event of the history
    train(..., track=[TensorBoard(), MLflow("reviews")])      a `Tracker` is also told how the run began and ended

history.jsonl is the book, a tracker a reader of it: each call of `train` tells it the whole history, from the first
event on. So what a kill, a full disk or a server that was away kept from it is told when the run is resumed, and each
step is shown once. A tracker that fails does not stop the training: the run goes on without it (telling.py).

Chapter: docs/training.md
"""

from __future__ import annotations

import importlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from minipoet.checks import as_path, expect, shown
from minipoet.files import make_folder, read_json, write_json_atomic
from minipoet.training.folder import RunFiles

Event = Mapping[str, Any]


class Run(NamedTuple):
    """What is known of a run before its first step."""

    folder: Path
    settings: Mapping[str, Any]  # TrainSettings, by name
    counts: Mapping[str, int]  # numbers in the model: "parameters", and "trainable" ones
    resumed: bool  # it goes on with what is in the folder


@runtime_checkable
class Tracker(Protocol):
    """What a tracker is told. An error of `begin` ends the run before its first step; a later one only the telling."""

    def begin(self, run: Run) -> None:
        """Before the first step."""
        ...

    def event(self, event: Event) -> None:
        """Each event of the history, in order; when a run is resumed, from the first one on."""
        ...

    def end(self, files: RunFiles, finished: bool) -> None:
        """At the end, however it came. finished: all steps are made, or patience is at its end."""
        ...


Track = Tracker | Callable[[Event], Any]


class TensorBoard:
    """Writes a run for `tensorboard --logdir FOLDER`; takes the package tensorboard.

    folder: where to; None: tensorboard/ in the folder of each run, so that --logdir runs shows all of them. about: what
    else is to be known of the run, {"rank": 4}. Raises ValueError where the package is missing, OSError for a folder
    that cannot be made.
    """

    def __init__(self, folder: str | Path | None = None, about: Mapping[str, Any] | None = None):
        _need("TensorBoard", "tensorboard", "tensorboard", "torch.utils.tensorboard")
        self.folder = None if folder is None else make_folder(as_path(folder, "The folder of TensorBoard"))
        self.about = _checked_about(about)
        self._writer: Any = None

    def begin(self, run: Run) -> None:
        """Hide what an earlier call told, if there was one: all of it comes again."""
        from torch.utils.tensorboard import SummaryWriter

        folder = make_folder(self.folder or run.folder / "tensorboard")
        self._writer = SummaryWriter(str(folder), purge_step=0, max_queue=1000, flush_secs=10)
        rows = (f"| {name} | {value} |" for name, value in _known(run, self.about).items())
        self._writer.add_text("settings", "\n".join(["| | |", "|---|---|", *rows]), 0)

    def event(self, event: Event) -> None:
        """A point for each number."""
        for name, value in _numbers(event):
            self._writer.add_scalar(name, value, event["step"])

    def end(self, files: RunFiles, finished: bool) -> None:
        """Write what is still in memory."""
        self._writer.flush()  # tells of a full disk, where close keeps silent
        self._writer.close()


class MLflow:
    """Notes a run in an experiment of MLflow; takes the package mlflow (or mlflow-skinny, sqlalchemy and alembic).

    uri: where to, as MLflow writes it ("sqlite:///runs/mlflow.db", "http://localhost:5000"); None: mlflow.db in the
    working folder, where `mlflow ui` looks. Nothing goes to a server but to the one that is named. run_name: None takes
    the name of the run's folder. about: what else is to be known of the run, {"rank": 4}. `run_id` and `client` are
    there for more: client.log_artifact(run_id, path). Raises ValueError where a package is missing or the name of the
    experiment will not do, OSError where the place cannot be used.
    """

    SECONDS = 5.0  # between two sendings: a call takes milliseconds, or more on a network

    def __init__(
        self,
        experiment: str,
        uri: str | None = None,
        run_name: str | None = None,
        about: Mapping[str, Any] | None = None,
    ):
        for what, value in {"experiment": experiment, "uri": uri, "run_name": run_name}.items():
            if not (isinstance(value, str) and value) and (value is not None or what == "experiment"):
                raise ValueError(f"{what} must be a string that is not empty, got {shown(value)}.")
        self.experiment, self.run_name, self.about = experiment, run_name, _checked_about(about)
        self.uri = "sqlite:///mlflow.db" if uri is None else uri
        database = re.split(r"[:+]", self.uri)[0] in ("sqlite", "mysql", "postgresql", "mssql")
        # Before it is imported: it reports its use to its makers, and tries to reach a server for five minutes.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
        _need("MLflow", "mlflow", "mlflow", "mlflow.tracking", *(("sqlalchemy", "alembic") if database else ()))
        self.client, self._experiment_id = self._connect()
        self.run_id: str | None = None

    def _connect(self) -> tuple[Any, str]:
        """(client, the experiment's id); the experiment is made if it is not there."""
        from mlflow.tracking import MlflowClient

        artifacts = None  # where the server says
        if self.uri.startswith("sqlite:///"):
            folder = make_folder(Path(self.uri.removeprefix("sqlite:///")).parent)
            artifacts = str(folder.resolve() / "mlruns")
        try:
            client = MlflowClient(tracking_uri=self.uri)
            there = client.get_experiment_by_name(self.experiment)
            return client, there.experiment_id if there else client.create_experiment(self.experiment, artifacts)
        except Exception as error:  # MLflow's own, and those of what lies below it
            raise OSError(
                f"MLflow cannot use the experiment {self.experiment!r} at {self.uri} ({first_line(error)}): choose "
                f"another uri, as 'sqlite:///runs/mlflow.db', or see whether the server runs."
            ) from error

    def begin(self, run: Run) -> None:
        """Go on with the run that was begun for this folder, or begin one; what it has already is not sent again."""
        from mlflow.entities import Metric, Param

        self._metric = Metric
        note = run.folder / "mlflow.json"  # {experiment: run id}
        runs = dict(read_json(note)) if note.exists() else {}
        former = self._former(runs.get(self.experiment)) if run.resumed else None
        if former is None:
            former = self.client.create_run(self._experiment_id, run_name=self.run_name or run.folder.resolve().name)
            write_json_atomic(note, runs | {self.experiment: former.info.run_id})
        self.run_id = former.info.run_id
        self._there = {
            (name, point.step)
            for name in former.data.metrics
            for point in self.client.get_metric_history(self.run_id, name)
        }
        known = [Param(name, str(value)) for name, value in _known(run, self.about).items()]
        self.client.log_batch(self.run_id, params=[param for param in known if param.key not in former.data.params])
        self.client.update_run(self.run_id, status="RUNNING")
        self._waiting: list[Any] = []
        self._sent = time.monotonic()

    def _former(self, run_id: str | None) -> Any:
        """The run of that id in the experiment; None if there is none any more."""
        from mlflow.exceptions import MlflowException

        try:
            run = self.client.get_run(run_id) if run_id else None
        except MlflowException:  # of another place, or deleted for good
            return None
        is_ours = run and run.info.experiment_id == self._experiment_id and run.info.lifecycle_stage == "active"
        return run if is_ours else None

    def event(self, event: Event) -> None:
        """A metric for each number, sent with those of the next seconds."""
        for name, value in _numbers(event):
            name = re.sub(r"[^\w\-. :/]", "_", name)  # what MLflow allows
            if (name, event["step"]) not in self._there:
                self._waiting.append(self._metric(name, value, int(time.time() * 1000), event["step"]))
        if time.monotonic() - self._sent > self.SECONDS:
            self._send()

    def _send(self) -> None:
        while self._waiting:
            self.client.log_batch(self.run_id, metrics=self._waiting[:1000])  # the most that it takes
            del self._waiting[:1000]
        self._sent = time.monotonic()

    def end(self, files: RunFiles, finished: bool) -> None:
        """Send the rest and the history itself."""
        self._send()
        if files.history.exists():
            self.client.log_artifact(self.run_id, str(files.history))
        self.client.set_terminated(self.run_id, "FINISHED" if finished else "KILLED")


def _numbers(event: Event) -> Iterator[tuple[str, float]]:
    """The figures of an event by name, but for its step."""
    return ((name, float(value)) for name, value in event.items() if isinstance(value, Real) and name != "step")


def _known(run: Run, about: Mapping[str, Any]) -> dict[str, Any]:
    """All that is known of a run before it begins."""
    return {**run.settings, **run.counts, **about}


def _checked_about(about: Mapping[str, Any] | None) -> dict[str, Any]:
    """A copy. Raises ValueError for what has no names."""
    expect(about or {}, Mapping, "about", "values by name, {'rank': 4}")
    return dict(about or {})


def _need(who: str, package: str, extra: str, *modules: str) -> None:
    """Raise ValueError, with the way to get it, if one of the modules is not there."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            missing = package if package in module else module
            raise ValueError(
                f'{who} takes the package {missing}, which is not installed: pip install "minipoet[{extra}]"'
            ) from error


def first_line(error: Exception) -> str:
    """What an error says, or the beginning of it, without its full stop."""
    line = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    return line if len(line) <= 200 else f"{line[:199]}…"
