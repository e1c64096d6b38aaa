"""The study of LoRA beside full fine-tuning on a T5: what its formulas say of the first step, and that it runs."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from test_examples import EXAMPLE as TRAIN
from test_examples import run_example
from test_study import load_example

import minipoet
from minipoet.adapters import lora_layers
from minipoet.models.t5 import GatedT5, T5Config
from minipoet.tokenization import train_unigram
from minipoet.training import Batches

EXAMPLE = TRAIN.with_name("study_t5_lora.py")
WIDTH = 64


@pytest.fixture(scope="module")
def study():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLE.parent))  # it imports review_data.py, which is beside it
        return load_example("study_t5_lora")


def tiny(vocab_size=200):
    torch.manual_seed(0)
    sizes = {"d_model": WIDTH, "d_kv": 32, "d_ff": 96, "num_layers": 1, "num_heads": 2}
    return GatedT5(T5Config(vocab_size=vocab_size, feed_forward_proj="gated-gelu", dropout_rate=0.0, **sizes))


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    texts = [[0, *torch.randint(1, 200, (30,), generator=generator).tolist(), 1] for _ in range(16)]
    return Batches(texts, 32, 16, sources=[text[1:20] for text in texts]).batch(0)


def of(study, rank, alpha):
    return next(kind for kind in study.KINDS if (kind.rank, kind.alpha) == (rank, alpha))


def test_steps_of_the_labs_two_settings_differ_64_times_in_scale_32_in_size_and_16_in_gain(study):
    one, other = of(study, 4, 16), of(study, 16, 1)
    assert (one.alpha / one.rank) / (other.alpha / other.rank) == 64
    assert one.first_change(256) / other.first_change(256) == pytest.approx(32)
    assert one.first_gain(256) / other.first_gain(256) == pytest.approx(16)


def test_first_change_by_hand(study):
    """A = U(−1/√3, 1/√3) where in = 3: its variance is 1/9. s = 6/2; two of them in a sum: 3 · √(2/9) = √2."""
    assert study.Kind("", (1,), rank=2, alpha=6).first_change(3) == pytest.approx(math.sqrt(2))
    assert study.KINDS[0].first_change(3) == study.KINDS[0].first_gain(3) == 1


def test_a_full_step_changes_each_number_by_the_rate_and_one_of_lora_as_the_formulas_say(study, batch):
    model = tiny()
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    change, gain = study.first_step(model, batch, study.KINDS[0], 1e-3, 0)
    assert change == pytest.approx(1e-3, rel=1e-2) and gain > 0
    for kind in study.KINDS[2:]:
        by_lora, gain_by_lora = study.first_step(model, batch, kind, 1e-3, 0)
        assert by_lora / change == pytest.approx(kind.first_change(WIDTH), rel=0.1)
        assert gain_by_lora / gain == pytest.approx(kind.first_gain(WIDTH), rel=0.3)
    assert all(torch.equal(start[name], tensor) for name, tensor in model.state_dict().items())


def test_what_a_kind_teaches_and_nothing_else_trains(study):
    def trained(kind):
        model = study.prepare(tiny(), kind, 0)
        return {name for name, parameter in model.named_parameters() if parameter.requires_grad}

    everything, some, beside = (trained(kind) for kind in study.KINDS[:3])
    places = ("encoder.blocks.0.attn", "decoder.blocks.0.attn", "decoder.blocks.0.cross")
    letters = [f"{place}.{letter}" for place in places for letter in "qv"]
    assert everything == {name for name, _ in tiny().named_parameters()}
    assert some == {f"{name}.weight" for name in letters} == {f"{name}.weight" for name in study.looked_at(tiny())}
    assert beside == {f"{name}.deltas.default.{half}" for name in letters for half in "AB"}


@pytest.mark.parametrize("number", [0, 2])
def test_share_that_q_moved_by_is_told_whether_it_was_learnt_in_the_matrix_or_beside(study, number):
    model = tiny()
    before = study.looked_at(model)
    study.prepare(model, study.KINDS[number], 0)
    layers = dict(lora_layers(model))
    for name, weight in before.items():
        if name.endswith(".q"):
            if layers:  # s · B A = weight / 4 in its first row
                delta = layers[name].delta("default")
                delta.A.data[0], delta.B.data[0, 0] = weight[0], 1 / 4 / delta.scale
            else:
                model.get_submodule(name).weight.data[0] *= 1.25
    rows = [(weight[0].square().sum(), weight.square().sum()) for name, weight in before.items() if name.endswith(".q")]
    share = 0.25 * math.sqrt(sum(row for row, _ in rows) / sum(whole for _, whole in rows))
    assert study.moved(model, before) == {"q": pytest.approx(share, rel=1e-5), "v": 0}


def test_table_by_hand(study):
    assert study.table("| who | a | b |", [["one", 0.0361, 4], ["two", 123456.0, "1.500"]]) == (
        "| who | a | b |\n|---|---:|---:|\n| one | 0.036 | 4 |\n| two | 1.2e+05 | 1.500 |"
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    tokenizer = train_unigram(["Кафе понравилось, кофе вкусный, вернёмся ещё. " * 3, "категория рейтинг слова"], 400)
    minipoet.save(tiny(tokenizer.vocab_size), tokenizer, folder)
    return folder


def test_the_study_runs_and_goes_on_where_it_was(study, base, tmp_path, capsys):
    out = tmp_path / "study"
    options = ("--base", base, "--reviews", 20, "--epochs", 1, "--out", out, "--workers", 1, "--kinds", 1, 3)
    run_example(*options, example=EXAMPLE)
    whole, low = study.KINDS[1], study.KINDS[3]
    points = [(kind.label, times) for kind in (whole, low) for times in kind.times]
    found = json.loads((out / "results.json").read_text("utf-8"))
    assert [(figures["asked"]["kind"], figures["asked"]["times"]) for figures in found["runs"]] == points
    for figures in found["runs"]:
        assert figures["validation"][0] == found["runs"][0]["validation"][0]  # the base itself
        assert figures["validation: v moved"][0] == [0, 0]
    by_point = dict(zip(points, found["runs"], strict=True))
    moved = {kind: by_point[kind.label, 1]["validation: v moved"][-1][1] for kind in (whole, low)}
    assert moved[whole] > 20 * moved[low] > 0  # the lab's mistake
    assert {file.name for file in out.glob("*.png")} == {"rate.png", "first.png", "moved.png"}
    assert not list(out.rglob("*.safetensors"))
    text = (out / "study.md").read_text("utf-8")
    assert text.count(f"\n| {low.label} |") == 1 + len(low.times) and text in capsys.readouterr().out

    run_example(*options, example=EXAMPLE)
    assert f"{low.label}, rate" not in capsys.readouterr().out  # nothing was trained again
    assert (out / "study.md").read_text("utf-8") == text


def test_a_folder_of_another_study_is_refused(study, tmp_path):
    args = SimpleNamespace(out=tmp_path, base="b", data="d", reviews=1, epochs=1, lr=1.0, rows=1, seed=0)
    file = tmp_path / "runs" / "kind0-times2" / "results.json"
    file.parent.mkdir(parents=True)
    asked = {"kind": study.KINDS[0].label, "times": 2, "base": "b", "data": "d", "reviews": 1, "epochs": 1, "lr": 1.0}
    file.write_text(json.dumps({"asked": asked | {"rows": 1, "seed": 0}}), "utf-8")
    assert study.teach((study.KINDS[0], 2), {}, args)["asked"]["reviews"] == 1
    args.epochs = 3
    with pytest.raises(ValueError, match="other settings .*choose another --out"):
        study.teach((study.KINDS[0], 2), {}, args)


def test_a_mistake_gets_one_sentence_and_exit_code_2(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run_example("--workers", 0, "--reviews", 0, "--out", tmp_path, example=EXAMPLE)
    assert stop.value.code == 2
    assert "reviews" in (error := capsys.readouterr().err) and "workers" in error and "Traceback" not in error
