"""The loop: accumulation, exact resuming, early stopping, and what happens when something breaks."""

import errno
import io
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm
from training_support import CONTEXT, random_texts, tiny_batches, tiny_gpt2

from minipoet import files
from minipoet.adapters import add_lora
from minipoet.evaluation import likelihood
from minipoet.models.gpt2 import GPT2
from minipoet.training import (
    Batch,
    Batches,
    BatchSource,
    History,
    TrainingDiverged,
    TrainSettings,
    loop,
    read_history,
    train,
)
from minipoet.training.carry import Carry
from minipoet.training.state import checksum, read_header, trainable_tensors

Run = tuple[Path, nn.Module, History]  # its folder, the model that it left, and what happened
DROPOUT = 0.2
# Evaluations at 0, 3, 6, 9, 12; checkpoints at 4, 8, 12 and wherever the run is stopped.
OPTIONS = {
    "steps": 12, "lr": 3e-3, "warmup": 3, "weight_decay": 0.1, "accumulation": 2, "precision": "fp32",
    "evaluate_every": 3, "save_every": 4, "patience": 3,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Killed(Exception):
    """Stands for a kill."""


class Watched:
    """Batches that call `react` before they give the one with this number."""

    def __init__(self, number: int, react: Callable[[], None], batches: BatchSource | None = None):
        self.number, self.react, self.batches = number, react, batches or tiny_batches()

    def batch(self, step: int) -> Batch:
        if step == self.number:
            self.react()
        return self.batches.batch(step)


def kill() -> None:
    raise Killed


def settings(**options) -> TrainSettings:
    return TrainSettings(**(OPTIONS | options))


def run(folder: Path, batches: BatchSource | None = None, model: GPT2 | None = None, **options) -> tuple[GPT2, History]:
    """Train a fresh tiny model (other random numbers are drawn before: a run must not depend on that)."""
    model = model or tiny_gpt2(DROPOUT)
    torch.rand(17)
    held_out = random_texts(8, seed=99)
    arguments = {"validate": lambda: likelihood(model, held_out, 100, CONTEXT).loss, "quiet": True} | {
        name: options.pop(name) for name in ("validate", "resume", "stop_after", "quiet") if name in options
    }
    return model, train(model, batches or tiny_batches(), settings(**options), folder, **arguments)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def saved_weights(folder: Path) -> dict[str, Tensor]:
    """The weights in the checkpoint."""
    tensors = load_file(folder / "last.safetensors")
    return {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}


def untimed(history: History) -> list[dict]:
    return [{key: value for key, value in event.items() if key != "seconds"} for event in history.events]


def assert_equal_tensors(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def assert_same_end(folder: Path, model: nn.Module, history: History, expected: Run) -> None:
    """Same model, history, checkpoint (weights, moments, random states, progress) and best weights, to the bit."""
    former_folder, former_model, former_history = expected
    assert_equal_tensors(model.state_dict(), former_model.state_dict())
    assert untimed(history) == untimed(former_history)
    assert untimed(read_history(folder / "history.jsonl")) == untimed(former_history)
    for name in ("last.safetensors", "best.safetensors"):
        assert_equal_tensors(load_file(folder / name), load_file(former_folder / name))
    ours, theirs = (read_header(f / "last.safetensors")[0] for f in (folder, former_folder))
    ours.seconds = theirs.seconds = 0.0
    assert ours == theirs


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Callable[[str], Run]:
    """A run that was never stopped, for each optimiser."""
    done = {}

    def get(optimizer: str) -> Run:
        if optimizer not in done:
            folder = tmp_path_factory.mktemp(optimizer)
            done[optimizer] = (folder, *run(folder, optimizer=optimizer))
        return done[optimizer]

    return get


# --- one step -----------------------------------------------------------------------------------------------------


def gradient(parts: list[Batch]) -> tuple[float, float, dict[str, Tensor]]:
    model = tiny_gpt2()
    loss, norm, tokens, _ = loop._gradient(model, parts, settings(clip=0.0), Carry())
    assert tokens == sum(part.tokens() for part in parts)
    return loss, norm, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_gradient_of_four_small_batches_equals_that_of_a_large_one():
    small = [tiny_batches(rows=2).batch(i) for i in range(4)]
    large = tiny_batches(rows=8).batch(0)
    assert len({part.tokens() for part in small}) > 1  # a mean of means would be another number
    (loss, norm, several), (expected_loss, expected_norm, one) = gradient(small), gradient([large])
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert norm == pytest.approx(expected_norm, rel=1e-4)
    torch.testing.assert_close(several, one, rtol=1e-4, atol=1e-6)


def test_loss_is_the_mean_over_all_tokens_of_the_step():
    parts = [tiny_batches().batch(i) for i in range(3)]
    each = [gradient([part])[0] for part in parts]
    tokens = [part.tokens() for part in parts]
    mean = sum(loss * n for loss, n in zip(each, tokens, strict=True)) / sum(tokens)
    assert gradient(parts)[0] == pytest.approx(mean, rel=1e-5)


def test_gradient_is_clipped_to_the_norm_asked_for():
    model = tiny_gpt2()
    _, norm, *_ = loop._gradient(model, [tiny_batches().batch(0)], settings(clip=0.1), Carry())
    after = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters()))
    assert norm > 0.1
    assert after == pytest.approx(0.1, rel=1e-4)


def test_step_without_a_target_changes_nothing_and_gives_no_nan():
    empty = tiny_batches().batch(0)._replace(targets=torch.full_like(tiny_batches().batch(0).targets, -100))
    loss, norm, grads = gradient([empty])
    assert (loss, norm) == (0.0, 0.0)
    assert all((grad == 0).all() for grad in grads.values())


# --- a whole run --------------------------------------------------------------------------------------------------


def test_run_learns_what_can_be_learnt(tmp_path):
    counting = [[(start + 3 * i) % 50 for i in range(17)] for start in range(50)]
    options = {"steps": 30, "lr": 0.01, "optimizer": "muon", "validate": None, "patience": 0}
    _, history = run(tmp_path, Batches(counting, CONTEXT, 8), tiny_gpt2(), **options)
    losses = history.curve("loss")[1]
    assert losses[0] == pytest.approx(math.log(50), abs=0.5)  # knows nothing yet
    assert losses[-1] < 0.5


def test_run_tells_each_step(tmp_path):
    _, history = run(tmp_path, accumulation=1, patience=0)
    assert history.curve("loss")[0] == list(range(1, 13))
    assert history.curve("validation")[0] == [0, 3, 6, 9, 12]
    assert history.curve("lr")[1][:3] == pytest.approx([1e-3, 2e-3, 3e-3])
    tokens = [tiny_batches().batch(step).tokens() for step in range(12)]
    assert history.curve("tokens")[1] == [sum(tokens[: i + 1]) for i in range(12)]
    assert all(norm > 0 for norm in history.curve("norm")[1])


def test_last_step_is_measured_and_saved_whatever_the_intervals(tmp_path):
    _, history = run(tmp_path, steps=5, evaluate_every=3, save_every=4)
    assert history.curve("validation")[0] == [0, 3, 5]
    progress, _ = read_header(tmp_path / "last.safetensors")
    assert (progress.step, progress.finished) == (5, True)


def test_only_what_requires_a_gradient_changes_and_is_saved(tmp_path):
    model = add_lora(tiny_gpt2(), rank=2)
    before = weights(model)
    run(tmp_path, model=model, steps=3, validate=None, patience=0)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == set(trainable_tensors(model)) == saved_weights(tmp_path).keys()


def test_model_is_left_in_evaluation_mode_without_gradients(tmp_path):
    model, _ = run(tmp_path, steps=2)
    assert not model.training
    assert all(p.grad is None for p in model.parameters())


def test_left_over_gradients_do_not_count(tmp_path):
    model = tiny_gpt2(DROPOUT)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 100.0)
    _, ours = run(tmp_path / "a", model=model, steps=2)
    _, theirs = run(tmp_path / "b", steps=2)
    assert untimed(ours) == untimed(theirs)


def scripted(values: list[float], model: nn.Module, seen: list[dict[str, Tensor]]) -> Callable[[], float]:
    """A validation with these results, which keeps what it measured."""

    def validate() -> float:
        seen.append(weights(model))
        return values[len(seen) - 1]

    return validate


def test_patience_stops_the_run_and_the_best_weights_are_left(tmp_path):
    model, seen = tiny_gpt2(), []
    validate = scripted([5.0, 6.0, 3.0, 3.5, 3.0, 3.1, 0.0], model, seen)  # waits once, finds the best, waits anew
    _, history = run(tmp_path, model=model, steps=100, evaluate_every=2, validate=validate, patience=3)
    assert history.curve("validation") == ([0, 2, 4, 6, 8, 10], [5.0, 6.0, 3.0, 3.5, 3.0, 3.1])
    assert_equal_tensors(model.state_dict(), seen[2])
    best = load_file(tmp_path / "best.safetensors")
    assert_equal_tensors(best, {name: seen[2][name] for name in best})
    progress, _ = read_header(tmp_path / "last.safetensors")
    assert (progress.step, progress.best, progress.best_step, progress.waited) == (10, 3.0, 4, 3)
    assert progress.finished


def test_start_may_be_the_best(tmp_path):
    model, seen = tiny_gpt2(), []
    run(tmp_path, model=model, steps=3, validate=scripted([1.0, 2.0, 3.0, 4.0], model, seen), evaluate_every=1)
    assert_equal_tensors(model.state_dict(), seen[0])


def test_without_validation_the_last_weights_are_left(tmp_path):
    model, history = run(tmp_path, validate=None, patience=0, steps=5)
    assert history.curve("validation") == ([], [])
    assert_equal_tensors(dict(model.named_parameters()), saved_weights(tmp_path))
    assert not (tmp_path / "best.safetensors").exists()


def test_patience_without_validation_is_refused(tmp_path):
    with pytest.raises(ValueError, match="it needs validate"):
        run(tmp_path, validate=None)


def test_stopping_before_the_first_step_is_refused(tmp_path):
    with pytest.raises(ValueError, match="stop_after must be at least 1"):
        run(tmp_path, stop_after=0)


# --- resuming -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "muon"])
@pytest.mark.parametrize("stops", [[1], [3], [4], [5], [11], [2, 6, 7]])
def test_stopped_and_resumed_equals_never_stopped(tmp_path, undisturbed, optimizer, stops):
    for stop in stops:
        _, history = run(tmp_path, resume=True, stop_after=stop, optimizer=optimizer)
        assert history.events[-1]["step"] == stop
    assert_same_end(tmp_path, *run(tmp_path, resume=True, optimizer=optimizer), undisturbed(optimizer))


@pytest.mark.parametrize("number", [0, 1, 7, 8, 13, 17, 23])  # of the batch; two a step
def test_killed_between_checkpoints_and_resumed_equals_never_stopped(tmp_path, undisturbed, number):
    with pytest.raises(Killed):
        run(tmp_path, Watched(number, kill), optimizer="muon")
    assert_same_end(tmp_path, *run(tmp_path, resume=True, optimizer="muon"), undisturbed("muon"))


def test_killed_twice_equals_never_stopped(tmp_path, undisturbed):
    for number in (15, 21):
        with pytest.raises(Killed):
            run(tmp_path, Watched(number, kill), resume=True)
    assert_same_end(tmp_path, *run(tmp_path, resume=True), undisturbed("adamw"))


def test_killed_in_the_middle_of_a_backward_pass_the_same_model_can_go_on(tmp_path, undisturbed):
    model, calls = tiny_gpt2(DROPOUT), []

    def interrupt(gradient: Tensor) -> None:
        calls.append(1)
        if len(calls) == 12:  # the second batch of step 6
            raise Killed

    handle = model.positions.weight.register_hook(interrupt)
    with pytest.raises(Killed):
        run(tmp_path, model=model)
    handle.remove()
    assert_same_end(tmp_path, *run(tmp_path, model=model, resume=True), undisturbed("adamw"))


def test_early_stopping_goes_on_counting_after_a_resume(tmp_path):
    values = [5.0, 4.0, 4.5, 4.4, 4.3, 1.0]

    def validate_from(start: int) -> Callable[[], float]:
        left = iter(values[start:])
        return lambda: next(left)

    run(tmp_path, validate=validate_from(0), stop_after=7)  # measured at 0, 3, 6
    progress, _ = read_header(tmp_path / "last.safetensors")
    assert (progress.best, progress.best_step, progress.waited) == (4.0, 3, 1)
    model, history = run(tmp_path, validate=validate_from(3), resume=True)
    assert history.curve("validation") == ([0, 3, 6, 9, 12], values[:5])
    best = load_file(tmp_path / "best.safetensors")
    assert_equal_tensors(trainable_tensors(model), best)


def test_history_cut_short_does_no_harm_to_a_resumed_run(tmp_path, undisturbed):
    run(tmp_path, stop_after=5)
    with open(tmp_path / "history.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 6, "lo')
    assert_same_end(tmp_path, *run(tmp_path, resume=True), undisturbed("adamw"))


def test_resuming_without_a_checkpoint_starts_anew(tmp_path, undisturbed):
    (tmp_path / "history.jsonl").write_text('{"step": 1, "loss": 9}\n', encoding="utf-8")
    assert_same_end(tmp_path, *run(tmp_path, resume=True), undisturbed("adamw"))


def test_resuming_a_finished_run_returns_at_once(tmp_path):
    expected, former = run(tmp_path)
    written = [(tmp_path / f"{name}.safetensors").stat().st_mtime_ns for name in ("last", "best")]

    def never() -> float:
        raise AssertionError("there is nothing to measure")

    model, history = run(tmp_path, resume=True, validate=never)
    assert_equal_tensors(model.state_dict(), expected.state_dict())
    assert history.events == former.events
    assert [(tmp_path / f"{name}.safetensors").stat().st_mtime_ns for name in ("last", "best")] == written


def refused(folder: Path, match: str, batches: BatchSource | None = None, model: GPT2 | None = None, **options) -> None:
    """Assert that the call is refused with this message, and changes neither the model nor the folder."""
    model = model or tiny_gpt2(DROPOUT)
    before, on_disk = weights(model), {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match=match):
        run(folder, batches, model, **options)
    assert_equal_tensors(model.state_dict(), before)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == on_disk


def test_resuming_with_other_settings_is_refused_by_name(tmp_path):
    run(tmp_path, stop_after=5)
    refused(tmp_path, r"other settings \(lr was 0\.003, is 0\.1; seed was 0, is 1\)", resume=True, lr=0.1, seed=1)


@pytest.mark.parametrize("other", [{"seed": 1}, {"rows": 3}])
def test_resuming_on_other_batches_is_refused(tmp_path, other):
    run(tmp_path, stop_after=5)
    refused(tmp_path, "other batches: its step 5 read something else", tiny_batches(**other), resume=True)


def test_resuming_another_model_is_refused(tmp_path):
    run(tmp_path, stop_after=5)
    for model in (tiny_gpt2(n_layer=1), tiny_gpt2(n_inner=7), add_lora(tiny_gpt2()), tiny_gpt2().bfloat16()):
        refused(tmp_path, "belongs to another model", model=model, resume=True)


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("left", [0, 5, 100, -1])
def test_checkpoint_cut_short_is_told(tmp_path, left, resume):
    run(tmp_path, stop_after=2)
    last = tmp_path / "last.safetensors"
    last.write_bytes(last.read_bytes()[:left])
    refused(tmp_path, r"last\.safetensors is broken or cut short .*delete it to start anew", resume=resume)


@pytest.mark.parametrize("metadata", [None, {"minipoet": "{"}, {"minipoet": "{}"}, {"minipoet": "[]"}])
def test_another_kind_of_file_is_told(tmp_path, metadata):
    save_file({"a": torch.ones(1)}, tmp_path / "last.safetensors", metadata)
    refused(tmp_path, r"last\.safetensors is not a training checkpoint of minipoet", resume=True)


def test_unfinished_run_is_not_overwritten(tmp_path):
    run(tmp_path, stop_after=5)
    refused(tmp_path, r"unfinished run \(step 5 of 12\): go on with it .*delete")


def test_finished_run_is_replaced(tmp_path, undisturbed):
    run(tmp_path, steps=14, seed=3)
    assert_same_end(tmp_path, *run(tmp_path), undisturbed("adamw"))


def test_checksum_tells_batches_apart():
    one, two = tiny_batches().batch(0), tiny_batches().batch(1)
    assert checksum([one, two]) == checksum([one, two])
    assert len({checksum(parts) for parts in ([one], [two], [one, two], [two, one], [])}) == 5


def test_checkpoint_holds_no_pickle_and_all_that_the_next_step_needs(tmp_path):
    run(tmp_path, stop_after=5)
    with safe_open(tmp_path / "last.safetensors", "pt") as file:
        kinds = {name.split(".")[0] for name in file.keys()}  # noqa: SIM118
        slots = {name.rsplit(".", 1)[1] for name in file.keys() if name.startswith("optimizer.0")}  # noqa: SIM118
    assert kinds == {"model", "optimizer", "random"}
    assert slots == {"step", "exp_avg", "exp_avg_sq"}


# --- what breaks --------------------------------------------------------------------------------------------------


class Poison:
    """Makes the loss (or only the gradient) of one batch a number that is none, and remembers the weights before."""

    def __init__(self, model: GPT2, number: int, where: str, factor: float):
        self.model, self.on, self.before = model, False, weights(model)
        self.batches = Watched(number, self.react)
        self.factor = factor
        if where == "loss":
            model.norm.register_forward_hook(lambda module, args, output: output * self.now())
        else:
            model.positions.weight.register_hook(lambda gradient: gradient * self.now())

    def react(self) -> None:
        self.on, self.before = True, weights(self.model)

    def now(self) -> float:
        return self.factor if self.on else 1.0


@pytest.mark.parametrize(("where", "factor"), [("loss", math.nan), ("gradient", math.nan), ("gradient", math.inf)])
def test_diverged_step_is_told_and_does_not_touch_the_weights(tmp_path, where, factor):
    model = tiny_gpt2()
    poison = Poison(model, 9, where, factor)  # the second batch of step 5
    with pytest.raises(TrainingDiverged, match=r"^Step 5 \(batches 8 to 9\): the loss is ") as error:
        run(tmp_path, poison.batches, model)
    assert_equal_tensors(model.state_dict(), poison.before)
    message = str(error.value)
    assert f"of step 3, are in {tmp_path / 'best.safetensors'}" in message
    assert ("loss is nan" in message) == (where == "loss")
    assert "smaller learning rate than 0.003" in message
    progress, _ = read_header(tmp_path / "last.safetensors")
    assert progress.step == 4
    assert read_history(tmp_path / "history.jsonl").events[-1]["step"] == 4


def test_diverged_run_without_validation_names_the_last_checkpoint(tmp_path):
    for number, expected in ((9, "last checkpoint is"), (1, "no checkpoint yet")):
        model = tiny_gpt2()
        poison = Poison(model, number, "loss", math.nan)
        with pytest.raises(TrainingDiverged, match=expected):
            run(tmp_path / str(number), poison.batches, model, validate=None, patience=0)


def test_validation_that_is_no_number_is_told(tmp_path):
    values = iter([3.0, math.nan])
    with pytest.raises(TrainingDiverged, match=r"gave nan after step 3\. The last good weights, of step 0"):
        run(tmp_path, validate=lambda: next(values))


def test_full_disk_at_a_checkpoint_leaves_the_one_before(tmp_path, monkeypatch, undisturbed):
    save, calls = files.save_file, []

    def full(tensors, path, metadata=None):
        calls.append(path)
        if len(calls) > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(tensors, path, metadata)

    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(OSError, match="No space left on device"):
        run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.safetensors", "history.jsonl", "last.safetensors"]
    assert read_header(tmp_path / "last.safetensors")[0].step == 4
    monkeypatch.undo()
    assert_same_end(tmp_path, *run(tmp_path, resume=True), undisturbed("adamw"))


# --- what is shown ------------------------------------------------------------------------------------------------


def test_where_there_is_no_terminal_only_evaluations_are_told(tmp_path, capsys):
    values = iter([3.0, 3.5])
    run(tmp_path, steps=3, quiet=False, validate=lambda: next(values))
    lines = ["step      0   validation 3.0000   the best so far", "step      3   validation 3.5000", ""]
    assert capsys.readouterr() == ("\n".join(lines), "")


def test_quiet_run_tells_nothing(tmp_path, capsys):
    run(tmp_path, steps=3)
    assert capsys.readouterr() == ("", "")


def test_bar_shows_loss_best_rate_and_speed(tmp_path, monkeypatch):
    screen = io.StringIO()

    class Bar(tqdm):
        """A bar on a screen of ours."""

        def __init__(self, **options):
            super().__init__(**(options | {"file": screen, "disable": False, "dynamic_ncols": False, "ncols": 200}))

    monkeypatch.setattr(loop, "tqdm", Bar)
    _, history = run(tmp_path, steps=2)
    best = min(history.curve("validation")[1][:1])
    shown = screen.getvalue().split("\r")[-1]
    assert "2/2" in shown
    assert f"loss {history.curve('loss')[1][-1]:.3f}, best {best:.3f}, lr 2.0e-03, " in shown
    assert "tokens/s" in shown
