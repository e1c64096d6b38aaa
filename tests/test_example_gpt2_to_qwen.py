"""The example that measures Qwen's changes one by one, run as a user runs it; its models and measures, by hand."""

import json
import math
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace

import pytest
import torch
from test_example_vocabulary import load_example
from test_examples import corpus, run_example  # noqa: F401  (a fixture)

from minipoet import count_parameters
from minipoet.models.gpt2 import GPT2, GPT2Config
from minipoet.models.qwen2 import Qwen2

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "gpt2_to_qwen.py"
SIZES = SimpleNamespace(width=24, heads=6, key_heads=2, layers=2, length=16)
SMALL = ("--steps", 3, "--width", 12, "--layers", 1, "--heads", 2, "--key-heads", 1, "--length", 16, "--rows", 2)
QUICK = ("--seeds", 0, 1, "--tokens", 4, "--past", 8, "--times", 1)
IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [5, 3, 5, 8, 9, 7, 9, 3]])
SEGMENTS = torch.tensor([[1, 1, 1, 2, 2, 2, 2, 0], [0, 1, 1, 1, 1, 2, 2, 2]])


@pytest.fixture(scope="module")
def example():
    return load_example(EXAMPLE)


@pytest.fixture(scope="module")
def costs():
    """What needs no training stands in a file of its own."""
    return load_example(EXAMPLE.with_name("gpt2_to_qwen_costs.py"))


@pytest.fixture(autouse=True)
def threads():
    """The example asks for one thread; the tests after it get theirs back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def shaken(model):
    """Every number drawn, those of norms and biases too: then no part can be missing unseen."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.3)
    return model.eval()


def test_without_a_change_it_is_gpt2(example):
    """The same weights, put where GPT-2 has them, give the same logits, in packed and padded rows too."""
    ours = shaken(example.build((), 40, 11, SIZES))
    theirs = GPT2(GPT2Config(11, n_positions=32, n_embd=24, n_layer=2, n_head=6, n_inner=40)).eval()
    weights = ours.state_dict()
    for layer in range(2):
        for kind in ("weight", "bias"):
            parts = [weights.pop(f"blocks.{layer}.attn.{part}.{kind}") for part in "qkv"]
            weights[f"blocks.{layer}.attn.qkv.{kind}"] = torch.cat(parts)
    weights["positions.weight"] = weights.pop("table.weight")
    theirs.load_state_dict(weights)
    with torch.inference_mode():
        for segments in (None, SEGMENTS):
            expected = theirs(IDS, segments=segments)
            found = ours(IDS, segments=segments)
            assert (found - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))


def test_with_all_changes_it_is_qwen2(example):
    ours = shaken(example.build(example.CHANGES, 40, 11, SIZES))
    theirs = Qwen2(ours.config).eval()
    theirs.load_state_dict(ours.state_dict())
    with torch.inference_mode():
        assert torch.equal(ours(IDS), theirs(IDS))


def test_each_form_has_one_part_of_gpt2_and_no_other(example):
    """By the names and shapes of the parameters, against those of Qwen2."""
    shapes = {
        name: {key: tuple(value.shape) for key, value in example.build(changes, 40, 11, SIZES).named_parameters()}
        for name, changes in example.FORMS.items()
    }
    base = shapes["Qwen2"].items()
    gone = {name: {key for key, _ in base - of.items()} for name, of in shapes.items()}
    new = {name: {key for key, _ in of.items() - base} for name, of in shapes.items()}

    def of_blocks(*names):
        return {f"blocks.{layer}.{name}" for layer in range(2) for name in names}

    assert new["with LayerNorm"] == of_blocks("norm1.bias", "norm2.bias") | {"norm.bias"}
    assert new["with a table of places"] == {"table.weight"}
    keys = of_blocks("attn.k.weight", "attn.k.bias", "attn.v.weight", "attn.v.bias")
    assert new["with all key heads"] == gone["with all key heads"] == keys
    assert gone["without a gate"] == of_blocks("mlp.gate.weight") and not new["without a gate"]
    assert new["with all biases"] == of_blocks("attn.out.bias", "mlp.up.bias", "mlp.gate.bias", "mlp.down.bias")
    assert not (gone["with LayerNorm"] or gone["with a table of places"] or gone["with all biases"])
    assert shapes["Qwen2"]["blocks.0.attn.k.weight"] == (2 * 4, 24)


def test_a_form_without_its_own_places_reads_them_by_the_table(example):
    """Row p of the table is added at place p, whatever the place in the batch."""
    model = shaken(example.build((), 40, 11, SIZES))
    x, ((cos, sin),) = model.enter(IDS[:, :2], torch.tensor([[0, 5], [3, 1]]))
    assert torch.equal(x[0, 1], model.embed.weight[1] + model.table.weight[5])
    assert torch.equal(x[1, 0], model.embed.weight[5] + model.table.weight[3])
    assert (cos == 1).all() and not sin.any()


@pytest.mark.parametrize("form", ["Qwen2", "with LayerNorm", "with all key heads", "without a gate", "with all biases"])
def test_blocks_have_as_many_parameters_as_those_of_gpt2(example, form):
    """To half a column of the MLP's matrices."""

    def count(changes, inner):
        return count_parameters(example.build(changes, inner, 11, SIZES).blocks).all

    changes = example.FORMS[form]
    inner = example.fair_inner(changes, 11, SIZES)
    column = count(changes, inner + 1) - count(changes, inner)
    assert inner != 96
    assert abs(count(changes, inner) - count((), 4 * 24)) <= column / 2


def test_the_loss_by_place_is_that_of_the_letter_after_it(example):
    """A model whose logits say only what it reads: letter i is followed by i with p = e/(e + 2), else 1/(e + 2)."""

    def model(ids):
        return torch.nn.functional.one_hot(ids, 3).float()

    likely, other = math.log(math.e + 2) - 1, math.log(math.e + 2)
    windows = torch.tensor([[0, 0, 1, 1], [2, 2, 2, 0]])
    found = example.losses_by_place(model, windows)
    assert found == pytest.approx([likely, (likely + other) / 2, (likely + other) / 2])
    many = example.losses_by_place(model, windows.repeat(50, 1))  # more than are read at once
    assert many == pytest.approx(found)


def test_begun_anew_the_late_places_are_read_as_early_ones(example):
    """A model that errs at places past the third: read whole the last four letters suffer, begun anew only two."""

    def model(ids):
        good = torch.nn.functional.one_hot(ids, 3) * torch.tensor([1, 1, 1, -1, -1, -1, -1, -1])[: ids.shape[1], None]
        return 20.0 * good

    windows = torch.ones(2, 9, dtype=torch.long)
    assert example.losses_by_place(model, windows) == pytest.approx([0] * 3 + [20.69] * 5, abs=0.01)
    assert example.losses_anew(model, windows) == pytest.approx([0, 20.69] * 2, abs=0.01)


def test_layer_norm_by_hand_is_layer_norm(costs):
    ours, theirs = shaken(costs.LayerNormByHand(8, 1e-5)), torch.nn.LayerNorm(8, eps=1e-5)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 8) * 5 + 2
    assert torch.allclose(ours(x), theirs(x), atol=1e-5)


def test_what_is_kept_is_counted_once(costs):
    """exp keeps its result, sin what it was given: 2 × 10 numbers of 4 bytes; the third use of x adds nothing."""
    x = torch.randn(10, requires_grad=True)
    assert costs.kept_bytes(lambda: x.exp()) == 40
    assert costs.kept_bytes(lambda: x.exp() + x.sin() + x.cos()) == 80


def test_the_least_time_of_each_job_counts_and_they_take_turns(costs, monkeypatch):
    clock, order = iter([0.0, 9.0, 10.0, 19.0, 20.0, 23.0, 30.0, 31.0, 40.0, 45.0, 50.0, 52.0]), []
    monkeypatch.setattr(costs.time, "process_time", lambda: next(clock))
    jobs = {name: lambda name=name: order.append(name) for name in "ab"}
    assert costs.cpu_seconds(jobs, 2) == {"a": 3.0, "b": 1.0}
    assert order == ["a", "b"] * 3


def test_a_reader_reads_behind_the_past(example, costs):
    model = shaken(example.build((), 40, 11, SIZES))
    keys, places = [], []
    model.blocks[1].register_forward_pre_hook(lambda block, given: keys.append(given[1].length))
    model.table.register_forward_pre_hook(lambda table, given: places.append(given[0].item()))
    for past in (0, 5):
        read_on = costs.reader(model, past)
        read_on(), read_on()
    assert keys == places == [0, 1, 5, 6]


def test_the_example_leaves_what_it_promises(corpus, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "run"
    run_example("--parts", "models", "--corpus", corpus, "--out", out, *SMALL, *QUICK, example=EXAMPLE)
    printed = capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["places.png", "results.json"]
    assert (out / "places.png").read_bytes().startswith(b"\x89PNG")
    told = json.loads((out / "results.json").read_text("utf-8"))
    assert told["settings"]["steps"] == 3 and set(told) == {"settings", "torch", "models"}
    forms = told["models"]["forms"]
    assert list(forms) == [
        "Qwen2", "with LayerNorm", "with a table of places", "with all key heads", "without a gate", "with all biases",
        "GPT-2",
    ]  # fmt: skip
    for name, of in forms.items():
        assert len(of["bits"]) == 2 and of["bits"][0] != of["bits"][1]
        assert [len(run) for run in of["places"]] == [32, 32]
        difference = fmean(of["bits"]) - fmean(forms["Qwen2"]["bits"])
        assert f"| {name} | {of['parameters']:,} | {of['inner']} | {fmean(of['bits']):.3f} ± " in printed
        assert f"| {difference:+.3f} |" in printed
        first = fmean(fmean(run[:8]) for run in of["places"])
        assert f"| {name} | {first:.3f} ± " in printed
        assert [len(run) for run in of["anew"]] == [16, 16]
        last = fmean(fmean(run[8:]) for run in of["anew"])
        assert f"| {last:.3f} ± " in printed
    assert "|  | 1 to 8 | 9 to 16 | 17 to 24 | 25 to 32 | 17 to 24 anew | 25 to 32 anew |" in printed


def test_norms_and_cache_need_no_corpus(example, tmp_path, capsys, monkeypatch):
    run_example("--parts", "norms", "cache", "--corpus", "nowhere", "--out", tmp_path, *QUICK, example=EXAMPLE)
    told = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert [of["parameters"] for of in told["norms"]["norms"]] == [4096, 2048, 4096, 2048]
    kept = {of["norm"]: of["kept_mb"] for of in told["norms"]["norms"]}
    assert kept["`nn.LayerNorm`"] < kept["RMSNorm by hand, ours"]
    rows = [(of["type"], of["key_heads"], of["bytes_a_token"]) for of in told["cache"]]
    assert rows == [
        ("float32", 14, 172_032), ("float32", 2, 24_576), ("float32", 1, 12_288),
        ("bfloat16", 14, 86_016), ("bfloat16", 2, 12_288), ("bfloat16", 1, 6_144),
    ]  # fmt: skip
    assert "| bfloat16, G = 2 | 12,288 | 0.1 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--corpus", "nowhere"], "nowhere"),
        (["--past", "0", "--rows", "-1"], "--past, --rows must be at least 1"),
        (["--length", "2"], "--length must be an even number of at least 4, since it is halved, got 2"),
        (["--length", "15"], "got 15"),
        (["--length", "5000"], "--length can be "),
        (["--key-heads", "3"], "cannot be shared out among 3 key heads"),
        (["--heads", "5"], "cannot be divided into 5 heads"),
        (["--lr", "-1"], "lr must be"),
        (["--forms", "GPT-3"], "invalid choice: 'GPT-3'"),
    ],
)
def test_a_mistake_gets_one_sentence_and_exit_code_2(corpus, tmp_path, capsys, arguments, message):  # noqa: F811
    with pytest.raises(SystemExit) as stop:
        run_example("--corpus", corpus, "--out", tmp_path / "out", *SMALL, *arguments, example=EXAMPLE)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in error
    assert "Traceback" not in error
    assert not list((tmp_path / "out").glob("*"))


def test_a_folder_that_cannot_be_is_told_before_the_training(corpus, tmp_path, capsys):  # noqa: F811
    (tmp_path / "file").write_text("here", "utf-8")
    with pytest.raises(SystemExit) as stop:
        run_example("--corpus", corpus, "--out", tmp_path / "file" / "out", *SMALL, example=EXAMPLE)
    told = capsys.readouterr()
    assert stop.value.code == 2 and "Could not make the folder" in told.err
    assert "seed" not in told.out


def test_forms_can_be_chosen_and_are_compared_with_the_first(corpus, tmp_path, capsys):  # noqa: F811
    forms = ("--forms", "with a table of places", "GPT-2", "--seeds", 0)
    run_example("--parts", "models", *forms, "--corpus", corpus, "--out", tmp_path, *SMALL, example=EXAMPLE)
    told = json.loads((tmp_path / "results.json").read_text("utf-8"))["models"]["forms"]
    assert list(told) == ["with a table of places", "GPT-2"]
    printed = capsys.readouterr().out
    assert "| against with a table of places |" in printed
    assert f"| {told['GPT-2']['bits'][0] - told['with a table of places']['bits'][0]:+.3f} |" in printed


def test_the_greatest_length_that_is_told_works(corpus, tmp_path, capsys):  # noqa: F811
    with pytest.raises(SystemExit):
        run_example("--corpus", corpus, "--out", tmp_path, *SMALL, "--length", 5000, example=EXAMPLE)
    most = capsys.readouterr().err.split("--length can be ")[1].split(".")[0]
    arguments = (*SMALL, "--length", most, "--steps", 1, "--seeds", 0, "--parts", "models")
    run_example("--corpus", corpus, "--out", tmp_path, *arguments, example=EXAMPLE)
    with pytest.raises(SystemExit):
        run_example("--corpus", corpus, "--out", tmp_path, *arguments, "--length", int(most) + 2, example=EXAMPLE)


def test_quick_runs_on_the_embedded_corpus(tmp_path, capsys):
    run_example("--quick", "--out", tmp_path, example=EXAMPLE)
    printed = capsys.readouterr().out
    assert "| without a gate |" in printed and "| float32, G = 1 |" in printed
