"""What the trainer reports of its steps: by hand, as TRL logged the same steps, and nothing at all where not asked."""

import json
import math
from pathlib import Path

import pytest
import torch
from reference_data import load_json, load_tensors, reference
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from training_support import CONTEXT, random_texts, tiny_batches, tiny_gpt2

import minipoet
from minipoet.models import load_model, save_model
from minipoet.models.base import LanguageModel
from minipoet.training import Batch, Batches, History, Streams, TrainSettings, loop, train
from minipoet.training.loss import TokenSums, batch_sums, token_sums
from minipoet.training.metrics import completion_metrics, lab_table, logged, tokens_seen

CASES = ("padded", "packed")


class Recorded:
    """The micro-batches that TRL had, each as [ids, tokens of the prompt] of its texts."""

    def __init__(self, batches: list[list[tuple[list[int], int]]]):
        self.batches = batches

    def batch(self, step: int) -> Batch:
        return next(iter(self.of(self.batches[step]).once()))

    @staticmethod
    def of(texts: list[tuple[list[int], int]]) -> Batches:
        """All of them as one batch of one row."""
        ids, prompts = zip(*texts, strict=True)
        return Batches(ids, length=sum(map(len, ids)), rows=1, prompts=prompts)


def start(case: str) -> LanguageModel:
    """What TRL trained: the whole tiny model, or the adapter on it."""
    model = load_model(reference("qwen/qwen2"))
    return model if case == "padded" else minipoet.load_adapter(model, reference("qwen/qwen2_lora"))


def settings(**options) -> TrainSettings:
    of_trl = load_json("sft/runs")["settings"]
    own = {"lr": of_trl["learning_rate"], "clip": of_trl["max_grad_norm"], "betas": (0.9, of_trl["adam_beta2"])}
    flat = {"warmup": 0, "schedule": "constant", "precision": "fp32", "metrics": True}
    return TrainSettings(**({k: of_trl[k] for k in ("steps", "accumulation")} | own | flat | options))


@pytest.fixture(scope="module", params=CASES)
def run(request, tmp_path_factory) -> tuple[str, dict, LanguageModel, History]:
    """(case, what TRL recorded, our model after the same steps, our history)."""
    recorded, model = load_json("sft/runs")[request.param], start(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    history = train(model, Recorded(recorded["batches"]), settings(), folder, quiet=True)
    return request.param, recorded, model, history


def test_rows_are_what_trl_logged(run):
    _, recorded, _, history = run
    steps_per_epoch = 1 / recorded["logs"]["1"][0]["epoch"]
    for every, rows in recorded["logs"].items():
        ours = logged(history, int(every), steps_per_epoch)[: len(rows)]
        assert [row.keys() for row in ours] == [row.keys() for row in rows]
        assert ours == [pytest.approx(row, rel=1e-4) for row in rows]


def assert_same_way(ours: dict[str, Tensor], theirs: dict[str, Tensor], begun: dict[str, Tensor]) -> None:
    """They went the same way from where they began, to a thousandth of it. Number by number would ask too much: Adam
    makes as large a step of a gradient that is nothing but rounding as of any other."""
    assert ours.keys() == theirs.keys() == begun.keys()
    apart, way = (
        math.sqrt(sum((one[name] - theirs[name]).square().sum().item() for name in theirs)) for one in (ours, begun)
    )
    assert way > 0.1
    assert apart < 1e-3 * way


def test_trained_weights_are_those_of_trl(run, tmp_path):
    case, _, model, _ = run
    for name, one in (("begun", start(case)), ("ours", model)):
        if case == "padded":
            save_model(one, tmp_path / name)
        else:
            minipoet.save_adapter(one, tmp_path / name)
    file = "model.safetensors" if case == "padded" else "adapter_model.safetensors"
    ours, begun = (load_file(tmp_path / name / file) for name in ("ours", "begun"))
    assert_same_way(ours, load_tensors(f"sft/{case}"), begun)


def test_metrics_of_held_out_completions_are_what_trl_reports_of_one_batch(run):
    _, recorded, model, _ = run
    found = completion_metrics(model, Recorded.of(recorded["eval"]["texts"]))
    theirs = recorded["eval"]["6"]
    assert (found.loss, found.entropy) == pytest.approx((theirs["loss"], theirs["entropy"]), rel=1e-4)
    assert found.accuracy == pytest.approx(theirs["mean_token_accuracy"], rel=1e-4)
    assert found.tokens == sum(len(ids) - prompt for ids, prompt in recorded["eval"]["texts"])


def test_trls_mean_of_batches_of_one_text_is_another_number(run):
    _, recorded, model, _ = run
    each = [completion_metrics(model, Recorded.of([text])) for text in recorded["eval"]["texts"]]
    theirs = recorded["eval"]["1"]
    assert sum(one.loss for one in each) / 6 == pytest.approx(theirs["loss"], rel=1e-4)
    assert sum(one.entropy for one in each) / 6 == pytest.approx(theirs["entropy"], rel=1e-4)
    assert theirs["loss"] != pytest.approx(recorded["eval"]["6"]["loss"], rel=1e-2)


# --- the sums -----------------------------------------------------------------------------------------------------


def head_of(*logits: float) -> nn.Linear:
    """A head that gives these logits whatever it is shown."""
    head = nn.Linear(2, len(logits))
    nn.init.zeros_(head.weight)
    head.bias.data.copy_(torch.tensor(logits))
    return head


def sums(head: nn.Module, targets: list[int], **options) -> list[float]:
    found = token_sums(head, torch.ones(1, len(targets), 2), torch.tensor([targets]), **options)
    return [value.item() for value in found]


def test_entropy_of_equal_chances_is_the_logarithm_of_their_number():
    expected = [2 * math.log(8), 2 * math.log(8), 1]  # of equals the first is the likeliest
    assert sums(head_of(*[0.0] * 8), [3, 0, -100]) == pytest.approx(expected)


def test_entropy_and_right_guesses_of_three_to_one_by_hand():
    # −¾ ln ¾ − ¼ ln ¼ = 0.562335 a token; ln 4/3 = 0.287682 for the likely one, ln 4 = 1.386294 for the other
    found = sums(head_of(math.log(3), 0.0), [0, 0, 1, 0], chunk=3)
    assert found == pytest.approx([3 * 0.287682 + 1.386294, 4 * 0.562335, 3], abs=1e-5)


def test_a_certain_model_has_no_entropy():
    assert sums(head_of(200.0, 0.0, 0.0), [0, 1]) == pytest.approx([200.0, 0.0, 1], abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("few", [20, 1000])
def test_sums_equal_pytorchs_distributions(dtype, few, monkeypatch):
    monkeypatch.setattr("minipoet.training.loss.SLICE", few)
    torch.manual_seed(0)
    head, states, targets = nn.Linear(8, 11).to(dtype), torch.randn(3, 9, 8).to(dtype), torch.randint(11, (3, 9))
    targets[:, ::4] = -100
    found = token_sums(head, states, targets, chunk=5)
    told = torch.distributions.Categorical(logits=head(states)[targets != -100].float())
    wanted = targets[targets != -100]
    expected = (-told.log_prob(wanted).sum(), told.entropy().sum(), (told.logits.argmax(-1) == wanted).sum().float())
    assert found.right > 0
    torch.testing.assert_close(found, TokenSums(*expected), rtol=1e-5, atol=1e-5)


def test_asking_for_metrics_changes_neither_loss_nor_gradient():
    torch.manual_seed(0)
    head, states, targets = nn.Linear(8, 11), torch.randn(3, 9, 8, requires_grad=True), torch.randint(11, (3, 9))
    with_them, without = (token_sums(head, states, targets, 4, metrics=on) for on in (True, False))
    assert with_them.loss == without.loss
    assert not with_them.entropy.requires_grad and not with_them.right.requires_grad
    assert (without.entropy, without.right) == (0, 0)
    grads = [torch.autograd.grad(found.loss, [states, *head.parameters()]) for found in (with_them, without)]
    assert all(torch.equal(one, other) for one, other in zip(*grads, strict=True))


# --- in the loop --------------------------------------------------------------------------------------------------


OPTIONS = {"steps": 6, "lr": 1e-2, "warmup": 0, "accumulation": 2, "precision": "fp32", "evaluate_every": 0}


def trained(folder: Path, batches=None, model=None, **options) -> tuple[nn.Module, History]:
    arguments = {name: options.pop(name) for name in ("resume", "stop_after") if name in options}
    model = model or tiny_gpt2()
    chosen = TrainSettings(**(OPTIONS | {"metrics": True} | options))
    return model, train(model, batches or tiny_batches(), chosen, folder, quiet=True, **arguments)


def without_seconds(history: History) -> list[dict]:
    return [{name: value for name, value in event.items() if name != "seconds"} for event in history.events]


def test_a_step_has_the_plain_mean_of_its_micro_batches_but_a_loss_over_all_tokens(tmp_path):
    model = tiny_gpt2()
    parts = [Batches([[7, 3, 3, 9, 2]], 16, 1).batch(0), Batches(random_texts(30), 16, 2).batch(0)]
    of_parts = [(torch.stack(batch_sums(model, part)) / part.tokens()).tolist() for part in parts]

    class Both:
        def batch(self, step):
            return parts[step % 2]

    _, history = trained(tmp_path, Both(), model, steps=1)
    event = history.events[0]
    counts = [part.tokens() for part in parts]
    assert counts[0] * 3 < counts[1]
    assert event["entropy"] == pytest.approx((of_parts[0][1] + of_parts[1][1]) / 2, rel=1e-5)
    assert event["accuracy"] == pytest.approx((of_parts[0][2] + of_parts[1][2]) / 2, rel=1e-5)
    weighted = sum(count * values[0] for count, values in zip(counts, of_parts, strict=True)) / sum(counts)
    assert event["loss"] == pytest.approx(weighted, rel=1e-5)
    assert event["num_tokens"] == sum(map(tokens_seen, parts)) == 5 + tokens_seen(parts[1])


def test_a_micro_batch_without_targets_counts_as_zero(tmp_path):
    full = tiny_batches().batch(0)
    empty = full._replace(targets=torch.full_like(full.targets, -100))

    class Both:
        def batch(self, step):
            return empty if step % 2 else full

    model = tiny_gpt2()
    entropy = batch_sums(model, full).entropy.item() / full.tokens()
    _, history = trained(tmp_path, Both(), model, steps=1)
    assert history.events[0]["entropy"] == pytest.approx(entropy / 2, rel=1e-5)


def test_without_metrics_none_are_noted_and_the_training_is_the_same(tmp_path):
    one, noted = trained(tmp_path / "with")
    other, plain = trained(tmp_path / "without", metrics=False)
    extra = {"entropy", "accuracy", "num_tokens"}
    assert all(extra <= event.keys() for event in noted.events)
    kept = [{name: value for name, value in event.items() if name not in extra} for event in without_seconds(noted)]
    assert kept == without_seconds(plain)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("metrics", [True, False])
def test_metrics_are_computed_only_where_they_are_asked_for(metrics, tmp_path, monkeypatch):
    asked = []

    def spy(*arguments, **options):
        asked.append(options["metrics"])
        return batch_sums(*arguments, **options)

    monkeypatch.setattr(loop, "batch_sums", spy)
    trained(tmp_path, metrics=metrics)
    assert asked == [metrics] * 12


def test_a_resumed_run_goes_on_counting(tmp_path):
    _, whole = trained(tmp_path / "whole")
    trained(tmp_path / "parts", stop_after=4)
    _, parts = trained(tmp_path / "parts", resume=True)
    assert without_seconds(parts) == without_seconds(whole)
    seen = [sum(tokens_seen(tiny_batches().batch(i)) for i in range(2 * step)) for step in range(1, 7)]
    assert [event["num_tokens"] for event in whole.events] == seen


def test_metrics_cannot_be_switched_on_in_the_middle_of_a_run(tmp_path):
    trained(tmp_path, stop_after=4, metrics=False)
    with pytest.raises(ValueError, match="other settings .*metrics was False, is True"):
        trained(tmp_path, resume=True)


def test_a_checkpoint_from_before_there_were_metrics_is_read(tmp_path):
    _, whole = trained(tmp_path / "whole", metrics=False)
    trained(tmp_path / "old", metrics=False, stop_after=4)
    path = tmp_path / "old/last.safetensors"
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["minipoet"])
    del header["settings"]["metrics"], header["progress"]["num_tokens"]
    save_file(load_file(path), path, {"minipoet": json.dumps(header)})
    _, parts = trained(tmp_path / "old", metrics=False, resume=True)
    assert without_seconds(parts) == without_seconds(whole)


def test_metrics_must_be_true_or_false():
    with pytest.raises(ValueError, match="metrics must be True or False, got 'yes'"):
        TrainSettings(steps=1, metrics="yes")


# --- tokens seen --------------------------------------------------------------------------------------------------


def test_tokens_seen_are_all_of_the_texts_and_no_padding():
    texts = [[1, 5, 6, 7, 2], [1, 8, 2], [4, 9]]
    for rows, length in ((1, 7), (2, 6), (3, 4)):  # two rows of 6 and 1, one of 7, three
        batches = list(Batches(texts, length, rows, prompts=[3, 1, 1]).once())
        assert sum(map(tokens_seen, batches)) == 10
    assert max(batch.segments.eq(0).sum() for batch in batches) > 0  # there was padding


def test_a_window_of_a_stream_counts_as_a_piece():
    batch = Streams([[1, 5, 6, 7, 2], [1, 8, 2]], length=3, rows=1).batch(0)
    assert batch.segments.tolist() == [[1, 1, 1]]
    assert tokens_seen(batch) == 4


# --- held-out completions -----------------------------------------------------------------------------------------


def test_prompts_are_not_measured_and_batching_does_not_matter():
    model, texts = tiny_gpt2().eval(), random_texts(12, shortest=6)
    prompts = [2 + number % 3 for number in range(12)]
    measured = [completion_metrics(model, Batches(texts, CONTEXT, rows, prompts=prompts)) for rows in (1, 3)]
    assert measured[0].tokens == sum(map(len, texts)) - sum(prompts)
    told, wanted = [], []
    for ids, prompt in zip(texts, prompts, strict=True):
        told.append(model(torch.tensor([ids[:-1]]))[0, prompt - 1 :])
        wanted += ids[prompt:]
    chances = torch.distributions.Categorical(logits=torch.cat(told))
    right = (chances.logits.argmax(-1) == torch.tensor(wanted)).float().mean().item()
    expected = (-chances.log_prob(torch.tensor(wanted)).mean().item(), chances.entropy().mean().item(), right)
    for found in measured:
        assert (found.loss, found.entropy, found.accuracy) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_the_model_as_it_was(training):
    model = tiny_gpt2(dropout=0.5).train(training)
    batches = Batches(random_texts(4), CONTEXT, 2)
    assert completion_metrics(model, batches) == completion_metrics(model, batches)
    assert model.training is training


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ([[1, 2, 3]], r"batches must be .*Batches\(texts, length, rows, prompts=\.\.\.\)"),
        (Batches([[1, 999]], 4, 1), "the id 999"),
        (Batches([[1] * 40], 64, 1), "reads at most 16"),
    ],
)
def test_what_cannot_be_measured_is_told(wrong, told):
    with pytest.raises(ValueError, match=told):
        completion_metrics(tiny_gpt2(), wrong)


# --- rows and the table -------------------------------------------------------------------------------------------


def by_hand() -> History:
    """Five steps, with an evaluation between them."""
    history = History()
    for step in range(1, 6):
        figures = {"loss": 1.0 + step, "norm": 10.0 * step, "lr": 0.1 / step, "tokens": 3 * step, "seconds": 0.5}
        history.add(step=step, **figures, entropy=2.0 + step, accuracy=step / 10, num_tokens=1000 * step)
        history.add(step=step, validation=3.0)
    return history


def test_rows_by_hand():
    # loss, entropy and accuracy: means of steps 1 and 2, 3 and 4, and of 5, which is left; the rest is of the last one
    assert logged(by_hand(), every=2, epoch_steps=4) == [
        {"step": 2, "loss": 2.5, "grad_norm": 20.0, "learning_rate": 0.05, "entropy": 3.5, "num_tokens": 2000,
         "mean_token_accuracy": pytest.approx(0.15), "epoch": 0.5},
        {"step": 4, "loss": 4.5, "grad_norm": 40.0, "learning_rate": 0.025, "entropy": 5.5, "num_tokens": 4000,
         "mean_token_accuracy": pytest.approx(0.35), "epoch": 1.0},
        {"step": 5, "loss": 6.0, "grad_norm": 50.0, "learning_rate": 0.02, "entropy": 7.0, "num_tokens": 5000,
         "mean_token_accuracy": pytest.approx(0.5), "epoch": 1.25},
    ]  # fmt: skip


def test_rows_of_a_run_without_metrics_have_what_there_is():
    history = History()
    history.add(step=1, loss=2.0, norm=0.5, lr=0.1, tokens=7, seconds=1.0)
    assert logged(history) == [{"step": 1, "loss": 2.0, "grad_norm": 0.5, "learning_rate": 0.1}]
    assert logged(History()) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (([],), "history must be"),
        ((History(), 0), "every must be a whole number of steps, 1 or more, got 0"),
        ((History(), 1, -2.0), "epoch_steps must be a number above 0, got -2.0"),
    ],
)
def test_rows_of_nonsense_are_refused(arguments, told):
    with pytest.raises(ValueError, match=told):
        logged(*arguments)


def test_table_by_hand():
    rows = logged(by_hand(), every=2)
    assert lab_table({"Пушкин": rows, "Есенин": rows[:1]}) == (
        "| author |  loss | gradient norm | entropy | tokens | mean token accuracy |\n"
        "|--------|------:|--------------:|--------:|-------:|--------------------:|\n"
        "| Пушкин | 6.000 |        50.000 |   7.000 |  5,000 |               0.500 |\n"
        "| Есенин | 2.500 |        20.000 |   3.500 |  2,000 |               0.150 |"
    )


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ({"Пушкин": [], "Фет": [{"loss": 1.0}], "Есенин": logged(by_hand())}, r"of Пушкин, Фет: .*metrics=True"),
        ({}, r"lab_table needs the rows of each author"),
        ([1], r"lab_table needs the rows of each author .* got"),
        ({"Пушкин": by_hand()}, r"lab_table needs the rows of each author"),
    ],
)  # fmt: skip
def test_a_table_of_nothing_is_refused(rows, told):
    with pytest.raises(ValueError, match=told):
        lab_table(rows)
