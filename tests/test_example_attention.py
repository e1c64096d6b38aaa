"""What a model does with a prefix: the example, run as a user runs it; and its picture."""

import json

import pytest
import torch
from test_examples import EXAMPLE as TRAIN
from test_examples import base, corpus, run_example  # noqa: F401  (fixtures)

import minipoet
from minipoet.evaluation import PrefixMass
from minipoet.plots import plot_prefix_mass

EXAMPLE = TRAIN.with_name("attention_on_prefix.py")


def shares(value, layers=2, heads=3, counts=(4, 4, 2, 1)):
    counts = torch.tensor(counts, dtype=torch.double)
    return PrefixMass(value * counts.expand(layers, heads, -1), counts, 5)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    figures = []
    monkeypatch.setattr("minipoet.plots.attention.save_figure", lambda figure, path: figures.append(figure))
    return figures


def test_prefixes_are_trained_measured_saved_and_looked_at_again(base, corpus, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "run"
    common = ("--base", base, "--corpus", corpus, "--device", "cpu")
    run_example(*common, "--out", out, "--tokens", 6, "--steps", 6, "--rows", 2, example=EXAMPLE)
    found = json.loads((out / "results.json").read_text("utf-8"))
    assert list(found["mean"]) == ["text, before", "text, after", "random, before", "random, after"]
    assert all(0 < share < 1 for table in found["heads"].values() for line in table for share in line)
    assert found["mean"]["text, before"] != found["mean"]["text, after"]
    assert found["bits_per_character"]["text, after"] < found["bits_per_character"]["text, before"]
    assert (out / "prefix_attention.png").read_bytes().startswith(b"\x89PNG")
    assert f"{100 * found['mean']['random, after']:.1f} % of the attention" in capsys.readouterr().out
    assert minipoet.load_adapter(minipoet.load(base)[0], out / "text").prefix_length == 6

    run_example(*common, "--out", tmp_path / "again", "--adapter", out / "text", example=EXAMPLE)
    again = json.loads((tmp_path / "again" / "results.json").read_text("utf-8"))
    assert again["mean"]["with the prefix"] == pytest.approx(found["mean"]["text, after"], rel=1e-4)
    assert list(again["bits_per_character"]) == ["the base", "with the prefix"]


def test_mistakes_are_told(base, corpus, tmp_path, capsys):  # noqa: F811
    common = ("--base", base, "--corpus", corpus, "--out", tmp_path / "run", "--device", "cpu")
    for arguments, message in (
        (("--adapter", tmp_path, "--steps", 3), "With --adapter nothing is trained, so --steps would do nothing"),
        (("--adapter", tmp_path / "none"), "does not exist"),
        (("--tokens", 200, "--starts", "zero"), "leaves no room"),
    ):
        with pytest.raises(SystemExit) as ended:
            run_example(*common, *arguments, example=EXAMPLE)
        assert ended.value.code == 2 and message in capsys.readouterr().err


def test_the_picture_has_a_table_for_each_and_its_course(drawn):
    plot_prefix_mass({"before": shares(0.2), "after": shares(0.5), "third": shares(0.25)}, "x.png")
    tables, (course,) = (part.axes for part in drawn[0].subfigs)
    assert [axes.get_title() for axes in tables] == ["before: 20 %", "after: 50 %", "third: 25 %"]
    assert [text.get_text() for text in tables[1].texts] == ["50"] * 6
    before, after, _, even = course.lines
    assert list(before.get_ydata()) == pytest.approx([20] * 3)  # the fourth place stands in one text of four
    assert list(after.get_ydata()) == pytest.approx([50] * 3)
    assert list(even.get_ydata()) == pytest.approx([100 * 5 / 6, 100 * 5 / 7, 100 * 5 / 8])


def test_a_large_model_has_colours_without_numbers(drawn):
    plot_prefix_mass({"": shares(0.1, 24, 16)}, "x.png")
    assert not drawn[0].subfigs[0].axes[0].texts


@pytest.mark.parametrize("found", [{}, {"a": 3}, [shares(0.1)]])
def test_what_are_no_shares_is_refused(found, tmp_path):
    with pytest.raises(ValueError, match=r"no shares|must be"):
        plot_prefix_mass(found, tmp_path / "x.png")
    assert not list(tmp_path.iterdir())
