"""Does the adapted model write or recite: the example, run as a user runs it on finished runs of lora_pushkin.py."""

import json
import runpy
import shutil

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_examples import EXAMPLE as TRAIN
from test_examples import base, run_example  # noqa: F401  (base is a fixture)

import minipoet
from minipoet.text import Poem

EXAMPLE = TRAIN.with_name("copying.py")
LETTERS = "абвгдежзиклм"
TOKENS = ("--texts", 8, "--tokens", 32)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Twelve poems, each of a letter of its own; two lines of three words stand in all of them."""
    folder = tmp_path_factory.mktemp("poems")
    for number, letter in enumerate(LETTERS):
        text = f"{letter * 3}\n" + "снег над рекой\n" * 2 + f"{letter} {letter}\n" * 12
        (folder / f"poem{number}.txt").write_text(text, "utf-8")
    return folder


@pytest.fixture(scope="module", params=["adapter", "full"])
def trained(request, base, corpus, tmp_path_factory):  # noqa: F811
    """A run that learnt two poems by heart."""
    out = tmp_path_factory.mktemp("run")
    how = ("--full", "--lr", 0.005) if request.param == "full" else ("--rank", 16, "--alpha", 64, "--lr", 0.02)
    run_example("--base", base, "--corpus", corpus, "--out", out, "--length", 64, "--tokens", 5, "--rows", 2,
                "--poems", 2, "--validation", 0.2, "--seed", 3, "--steps", 30, "--evaluate-every", 30,
                "--temperature", 0, "--prompts", "снег", "--device", "cpu", *how)  # fmt: skip
    return out


@pytest.fixture
def copied(trained, tmp_path):
    """The run, for a test that changes it."""
    return shutil.copytree(trained, tmp_path / "run")


def measure(*arguments):
    run_example(*arguments, example=EXAMPLE)


def test_what_was_learnt_by_heart_is_recited_and_the_base_and_the_poet_tell_what_is_not(trained, capsys):
    measure(trained, *TOKENS)
    found = json.loads((trained / "copying.json").read_text("utf-8"))
    printed = capsys.readouterr().out
    assert found["poet"] == {
        "texts": 8, "mean": 6, "max": 6, "share_of_5": 1, "longest": "снег над рекой снег над рекой",
    }  # fmt: skip
    assert found["before"]["mean"] < 2  # an untrained model
    assert found["after"]["mean"] > 10
    letter = found["after"]["longest"][0]
    assert found["after"]["longest"] == " ".join(letter * found["after"]["max"])
    assert f"«{found['after']['longest']}»; it stands in: poem{LETTERS.index(letter)}\n" in printed
    assert ["the", "poet", "6.00", "6", "100.0", "%"] in map(str.split, printed.splitlines())
    assert found["settings"] == {"texts": 8, "max_new_tokens": 32, "temperature": 0, "top_p": 0.95, "seed": 3,
                                 "weights": "best"}  # fmt: skip


def test_last_weights_are_those_of_the_last_step(copied, capsys):
    measure(copied, *TOKENS, "--last")
    found = json.loads((copied / "copying-last.json").read_text("utf-8"))
    assert found["settings"]["weights"] == "step 30"
    measure(copied, *TOKENS)
    best = json.loads((copied / "copying.json").read_text("utf-8"))
    assert found["after"] == best["after"]  # here the last step was the best one
    last = copied / "last.safetensors"
    with safe_open(last, framework="pt") as file:
        header = json.loads(file.metadata()["minipoet"])
    header["progress"]["step"] = 7
    zeros = {name: tensor.zero_() for name, tensor in load_file(last).items()}
    save_file(zeros, last, {"minipoet": json.dumps(header)})
    measure(copied, *TOKENS, "--last")
    found = json.loads((copied / "copying-last.json").read_text("utf-8"))
    assert found["settings"]["weights"] == "step 7"
    assert found["after"] != best["after"]
    last.unlink()
    with pytest.raises(SystemExit):
        measure(copied, "--last")
    assert "has no last.safetensors" in capsys.readouterr().err


def test_seed_is_that_of_the_run_unless_another_is_asked_for(copied):
    then = json.loads((copied / "results.json").read_text("utf-8"))
    then["settings"]["temperature"] = 1.0
    (copied / "results.json").write_text(json.dumps(then), "utf-8")
    means = []
    for seed in ((), ("--seed", 3), ("--seed", 4)):
        measure(copied, *TOKENS, *seed)
        means.append(json.loads((copied / "copying.json").read_text("utf-8"))["after"]["mean"])
    assert means[0] == means[1] != means[2]


def test_continuations_are_all_of_one_length(base, monkeypatch):  # noqa: F811
    monkeypatch.syspath_prepend(EXAMPLE.parent)
    openings = runpy.run_path(str(EXAMPLE))["openings"]
    model, tokenizer = minipoet.load(base)
    rest = "снег и река\n" * 40
    poems = [Poem("мало\nслов"), Poem("первая строка\n" + rest), Poem("длинная строка " * 20 + "\n" + rest)]
    prompts, poets = openings(poems, 2, 32, model, tokenizer)
    assert prompts == ["первая строка\n"] * 2  # the others: not 32 tokens after the first line, no room for them
    assert poets == [tokenizer.decode(tokenizer.encode(rest)[:32])] * 2


def test_a_first_line_that_just_leaves_room_is_continued_to_the_end(base, monkeypatch):  # noqa: F811
    monkeypatch.syspath_prepend(EXAMPLE.parent)
    openings = runpy.run_path(str(EXAMPLE))["openings"]
    model, tokenizer = minipoet.load(base)
    poem = Poem("снег\n" + "снег и река\n" * 40)
    most = model.context - len(tokenizer.encode("снег\n"))
    prompts, _ = openings([poem], 1, most, model, tokenizer)
    ((written,),) = minipoet.generation.generate_many(model, tokenizer, prompts, max_new_tokens=most, until_end=False)
    assert len(written.ids) == most
    with pytest.raises(ValueError, match="ask for fewer by --tokens"):
        openings([poem], 1, most + 1, model, tokenizer)


def lose_settings(run):
    (run / "results.json").write_text('{"before": {}, "after": {}}', "utf-8")


def change_corpus(run):
    then = json.loads((run / "results.json").read_text("utf-8"))
    other = shutil.copytree(then["settings"]["corpus"], run / "other")
    (other / "poem0.txt").write_text("другие\nстихи\n", "utf-8")
    then["settings"]["corpus"] = str(other)
    (run / "results.json").write_text(json.dumps(then), "utf-8")


@pytest.mark.parametrize("trained", ["adapter"], indirect=True)
@pytest.mark.parametrize(
    ("arguments", "change", "message"),
    [
        (["--texts", "0", "--tokens", "-1"], None, "--texts, --tokens must be at least 1"),
        (["--tokens", "96"], None, "None of the 2 held-out poems goes on for 96 tokens"),
        (["--tokens", "32", "--seed", "-1"], None, "seed must be"),
        ([], lambda run: (run / "results.json").unlink(), "no finished run of lora_pushkin.py"),
        ([], lose_settings, "no finished run of lora_pushkin.py"),
        ([], change_corpus, "has changed since the run"),
        (["--tokens", "32"], lambda run: (run / "adapter_config.json").unlink(), "not an adapter's folder"),
    ],
)
def test_a_mistake_gets_one_sentence_and_leaves_nothing(copied, capsys, arguments, change, message):
    (copied / "copying.json").unlink(missing_ok=True)
    if change:
        change(copied)
    with pytest.raises(SystemExit) as stop:
        measure(copied, *arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
    assert not (copied / "copying.json").exists()
