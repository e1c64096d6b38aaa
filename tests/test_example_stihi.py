"""The laboratory of prefix tuning, run as a user runs it, on a tiny base; interrupted, resumed, and given mistakes."""

import argparse
import json
import runpy
import shutil

import pytest
import torch
from safetensors.torch import load_file
from test_examples import EXAMPLE as LORA
from test_examples import base, run_example  # noqa: F401  (base is a fixture)

import minipoet
from minipoet import training
from minipoet.evaluation import BETTER
from minipoet.training import History

EXAMPLE = LORA.with_name("prefix_stihi.py")
SIZES = ("--length", 48, "--tokens", 12, "--rows", 2, "--virtual-tokens", 4, "--validation", 0.25, "--lr", 0.03,
         "--steps", 8, "--more-steps", 6, "--evaluate-every", 2, "--prompts", "снег и дом\n",
         "--device", "cpu")  # fmt: skip


def poem(number):
    return "\n".join(f"{first}{number} снег {last}{number} дом" for first in "абвг" for last in "деж")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Twenty poems of twelve lines, no line in two of them."""
    folder = tmp_path_factory.mktemp("poems")
    for number in range(20):
        (folder / f"poem{number}.txt").write_text(poem(number), "utf-8")
    return folder


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """Sixty such poems as a collection comes: one line of JSON each, some broken, some no verse."""
    file = tmp_path_factory.mktemp("collection") / "poems.jsonl"
    verse = "\n".join(["Над тихой рекою гаснет {} свет,", "И ветер уснул за {} горой,"] * 4)
    words = [a + b + c for a in "бвгд" for b in "аоуы" for c in "лмнр"]
    lines = [json.dumps({"text": verse.replace("{}", word), "title": word}, ensure_ascii=False) for word in words[:60]]
    file.write_text("\n".join([lines[0], '{"text": ', '{"text": "нет"}', *lines[1:]]) + "\n", "utf-8")
    return file


def study(*arguments):
    run_example(*SIZES, *arguments, example=EXAMPLE)


@pytest.fixture(scope="module")
def done(base, corpus, tmp_path_factory):  # noqa: F811
    """A finished run."""
    out = tmp_path_factory.mktemp("runs") / "run"
    study("--base", base, "--corpus", corpus, "--out", out)
    return out


@pytest.fixture
def copied(done, tmp_path):
    """The run, for a test that changes it."""
    return shutil.copytree(done, tmp_path / "run")


def validation(folder):
    events = [json.loads(line) for line in (folder / "history.jsonl").read_text("utf-8").splitlines()]
    return {event["step"]: event["validation"] for event in events if "validation" in event}


def test_run_leaves_what_it_promises(done, base):  # noqa: F811
    results = json.loads((done / "results.json").read_text("utf-8"))
    assert list(results["figures"]) == ["the base", "tuned", "tuned further"]
    for figures in results["figures"].values():
        assert list(figures) == [*BETTER, "letters"]
        assert all(found["low"] <= found["value"] <= found["high"] for found in figures.values())
    assert results["figures"]["tuned"]["perplexity"]["value"] < results["figures"]["the base"]["perplexity"]["value"]
    assert 0 < results["figures"]["tuned"]["chrF"]["from_base"]["p"] <= 1
    report, samples = ((done / name).read_text("utf-8") for name in ("report.md", "samples.md"))
    assert f"| tuned further | {results['figures']['tuned further']['chrF']['value'] / 100:.4f} |" in report
    assert "|the base|tuned|tuned further|the poet|" in samples
    assert (done / "loss.png").read_bytes().startswith(b"\x89PNG")
    ids = torch.arange(8)[None]
    plain = minipoet.load(base)[0](ids)
    for stage in ("tuned", "further"):
        assert not torch.equal(minipoet.load_adapter(minipoet.load(base)[0], done / stage)(ids), plain)


def test_second_stage_begins_where_the_first_was_best(done):
    assert validation(done / "further")[0] == pytest.approx(min(validation(done / "tuned").values()), rel=1e-5)


@pytest.mark.parametrize("stage", ["tuned", "further"])
def test_run_that_was_cut_off_in_either_stage_ends_as_if_it_had_not(done, base, corpus, tmp_path, monkeypatch, stage):  # noqa: F811
    train, out = training.train, tmp_path / "run"

    def interrupted(model, batches, settings, folder, *more, **options):
        if folder.name != stage:
            return train(model, batches, settings, folder, *more, **options)
        train(model, batches, settings, folder, *more, **options, stop_after=4)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", interrupted)
    with pytest.raises(SystemExit) as stop:
        study("--base", base, "--corpus", corpus, "--out", out)
    assert stop.value.code == 130
    monkeypatch.undo()
    measured = (out / "base" / "answers.json").stat().st_mtime_ns
    study("--base", base, "--corpus", corpus, "--out", out, "--resume")
    assert (out / "base" / "answers.json").stat().st_mtime_ns == measured  # not again
    figures = [json.loads((folder / "results.json").read_text("utf-8"))["figures"] for folder in (done, out)]
    assert figures[0] == figures[1]
    for name in ("tuned", "further"):
        ours, theirs = (load_file(folder / name / "adapter_model.safetensors") for folder in (done, out))
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_mlp_goes_on_in_the_second_stage_and_comes_back_with_resume(base, corpus, tmp_path, capsys):  # noqa: F811
    options = ("--base", base, "--corpus", corpus, "--out", tmp_path, "--projection", "--hidden", 6, "--lr", 0.003)
    study(*options, "--init", "random")
    assert validation(tmp_path / "further")[0] == pytest.approx(min(validation(tmp_path / "tuned").values()), rel=1e-5)
    results = (tmp_path / "results.json").read_text("utf-8")
    study(*options, "--init", "random", "--resume")
    again = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert again["figures"] == json.loads(results)["figures"]


def read(**options):
    argv = {"author": None, "collection": False, "poems": None, "held_out": 1000, "held_out_from": None,
            "validation": 0.25, "split_seed": 0, "seed": 0}  # fmt: skip
    return runpy.run_path(str(EXAMPLE))["read"](argparse.Namespace(**argv | options))


def test_held_out_poems_do_not_depend_on_how_many_are_learnt_from(corpus, collection, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLE.parent)
    for options in ({"corpus": str(corpus)}, {"corpus": str(collection), "collection": True}):
        learnt, held_out, chosen_by = read(held_out=3, **options)
        few, same, _ = read(held_out=3, poems=2, **options)
        assert (len(few), len(held_out)) == (2, 3)
        assert same == held_out
        assert len(learnt) > 2 and not set(learnt) & set(held_out)
        assert chosen_by and not set(chosen_by) & (set(held_out) | set(learnt))
        everything = read(**options)
        assert everything[2] == everything[1]  # no other poems are held out


def test_collection_is_read_with_its_broken_and_prosaic_rows(base, collection, tmp_path, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setenv("MINIPOET_CACHE", str(tmp_path / "cache"))
    study("--base", base, "--corpus", collection, "--collection", "--out", tmp_path / "run", "--steps", 2,
          "--more-steps", 2, "--virtual-tokens", 2, "--tokens", 4, "--length", 96)  # fmt: skip
    assert "62 read, 60 kept" in capsys.readouterr().out
    assert list((tmp_path / "cache" / "tokens").iterdir())


def test_quick_runs_on_the_embedded_base_and_corpus(tmp_path, capsys):
    run_example("--quick", "--steps", 1, "--more-steps", 1, "--rows", 1, "--length", 32, "--tokens", 6, "--held-out", 2,
                "--out", tmp_path, example=EXAMPLE)  # fmt: skip
    assert "57,600 of 8,848,640 parameters train (0.6509 %)" in capsys.readouterr().out
    assert "Прошла гроза" in (tmp_path / "samples.md").read_text("utf-8")


def test_stages_are_drawn_as_one_course(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLE.parent)
    joined = runpy.run_path(str(EXAMPLE.with_name("stihi_report.py")))["joined"]
    first, second = History(), History()
    for step in (1, 2):
        first.add(step=step, loss=3.0 - step)
    second.add(step=1, loss=0.5)
    assert joined([first, second]).curve("loss") == ([1, 2, 3], [2.0, 1.0, 0.5])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--corpus", "nowhere"], "nowhere"),
        (["--base", "nowhere"], "nowhere"),
        (["--poems", "0"], "--poems must be at least 1, got 0"),
        (["--virtual-tokens", "0", "--tokens", "0"], "--virtual-tokens must be at least 1, got 0; --tokens must be"),
        (["--virtual-tokens", "96"], "leaves no room"),
        (["--virtual-tokens", "80"], "ask for fewer --tokens or --virtual-tokens"),
        (["--held-out", "1"], "--held-out must be at least 2"),
        (["--validation", "1"], "--validation must be between 0 and 1"),
        (["--init", "zero", "--init-text", "снег"], "--init-text needs --init text"),
        (["--init-text", "с"], "--init-text has"),
        (["--hidden", "8"], "it needs --projection"),
        (["--projection", "--hidden", "2"], "hidden=4 or more"),
        (["--lr", "-1"], "lr"),
        (["--rows", "0"], "--rows must be at least 1, got 0"),
        (["--collection", "--author", "Фет"], "a collection is read whole"),
        (["--temperature", "-1"], "temperature"),
        (["--prompts", "снег", " "], "--prompts has an empty one"),
    ],
)
def test_a_mistake_gets_one_sentence_and_exit_code_2(base, corpus, tmp_path, capsys, arguments, message):  # noqa: F811
    with pytest.raises(SystemExit) as stop:
        study("--base", base, "--corpus", corpus, "--out", tmp_path / "out", *arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()  # it is told before the work begins


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        study(*arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_overlap_of_training_and_evaluation_is_refused(base, corpus, tmp_path, capsys):  # noqa: F811
    other = tmp_path / "other"
    other.mkdir()
    for number in (7, 30, 31):
        (other / f"{number}.txt").write_text(poem(number), "utf-8")
    options = ("--base", base, "--corpus", corpus, "--held-out-from", other, "--out", tmp_path / "out")
    assert "1 of 3 held-out poems are among the 20 training poems" in refused(capsys, *options)
    (other / "7.txt").unlink()
    study(*options, "--steps", 1, "--more-steps", 1)
    assert json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))["held_out_poems"] == 2


def test_folder_of_another_or_an_unfinished_run_is_refused(base, corpus, copied, capsys):  # noqa: F811
    options = ("--base", base, "--corpus", corpus, "--out", copied)
    assert "virtual_tokens was 4, is 5" in refused(capsys, *options, "--resume", "--virtual-tokens", 5)
    (copied / "results.json").unlink()
    assert "holds an unfinished run: go on with it (--resume)" in refused(capsys, *options)
    before = (copied / "tuned" / "last.safetensors").read_bytes()
    study(*options, "--resume")
    assert (copied / "results.json").exists()
    assert (copied / "tuned" / "last.safetensors").read_bytes() == before
