"""Plots: the file is there and shows what the history holds."""

import pytest

from minipoet.plots import plot_history, plot_study, runs
from minipoet.training import History


def example(validation: bool = True) -> History:
    history = History()
    for step in range(21):
        if step:
            history.add(step=step, loss=5 - step / 10)
        if validation and step % 5 == 0:
            history.add(step=step, validation=4 + (step - 10) ** 2 / 100)
    return history


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    figures = []
    for module in ("figure", "runs"):
        monkeypatch.setattr(f"minipoet.plots.{module}.save_figure", lambda figure, path: figures.append(figure))
    return figures


def test_plot_is_written_as_its_suffix_says(tmp_path):
    plot_history(example(), tmp_path / "new" / "loss.png", "Учение")
    assert (tmp_path / "new" / "loss.png").read_bytes().startswith(b"\x89PNG")
    plot_history(example(), tmp_path / "loss.svg")
    assert b"<svg" in (tmp_path / "loss.svg").read_bytes()


def test_losses_and_the_best_validation_are_drawn(drawn):
    plot_history(example(), "loss.png", "Учение")
    (axes,) = drawn[0].axes
    each, smoothed, validation, best = axes.lines
    assert axes.get_title() == "Учение"
    assert list(each.get_xdata()) == list(range(1, 21))
    assert each.get_ydata()[0] == pytest.approx(4.9)
    assert len(smoothed.get_ydata()) == 20
    assert list(validation.get_xdata()) == [0, 5, 10, 15, 20]
    assert (list(best.get_xdata()), list(best.get_ydata())) == ([10], [4.0])
    assert axes.texts[0].get_text() == "4.000 at step 10"


def test_validation_in_another_unit_has_an_axis_of_its_own(drawn):
    plot_history(example(), "loss.png", unit="bits per character")
    left, right = drawn[0].axes
    assert (left.get_ylabel(), right.get_ylabel()) == ("nats per token", "validation, bits per character")
    assert len(left.lines) == len(right.lines) == 2


def test_history_without_validation_is_drawn(drawn):
    plot_history(example(validation=False), "loss.png")
    assert len(drawn[0].axes[0].lines) == 2


def test_smoothing_is_a_weighted_mean_of_what_was():
    assert runs._smooth([1.0, 0.0]) == pytest.approx([1.0, 0.9 / 1.9])
    assert runs._smooth([3.0] * 5) == pytest.approx([3.0] * 5)


def test_history_without_steps_is_refused():
    history = History()
    history.add(step=0, validation=4.0)
    with pytest.raises(ValueError, match="no training step"):
        plot_history(history, "loss.png")


def test_format_that_cannot_be_written_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="xyz"):
        plot_history(example(), tmp_path / "loss.xyz")
    assert list(tmp_path.iterdir()) == []


def test_study_over_numbers_is_a_curve_with_error_bars_and_the_base(drawn):
    curves = {"LoRA": [(1, 2.10, 0.01), (8, 2.06, 0.02)], "full": [(8, 2.07, 0.0)]}
    plot_study(curves, "rank.png", "Ранг", "rank", "bits per character", base=2.14, log=2)
    (axes,) = drawn[0].axes
    lora, full = axes.containers
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ("Ранг", "rank", "bits per character")
    assert (axes.get_xscale(), list(axes.get_xticks())) == ("log", [1, 8])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "8"]
    assert (list(lora[0].get_xdata()), list(lora[0].get_ydata())) == ([1, 8], [2.10, 2.06])
    assert lora[2][0].get_segments()[1][:, 1] == pytest.approx([2.04, 2.08])
    assert (lora.get_label(), full.get_label()) == ("LoRA", "full")
    base = axes.lines[-1]
    assert (base.get_linestyle(), list(base.get_ydata())) == ("--", [2.14, 2.14])


def test_study_over_names_has_them_side_by_side(drawn):
    plot_study({"LoRA": [("attn", 2.0, 0.1), ("mlp", 1.9, 0.1)], "full": [("all", 1.8, 0.1)]}, "targets.png")
    (axes,) = drawn[0].axes
    lora, full = axes.containers
    assert [label.get_text() for label in axes.get_xticklabels()] == ["attn", "mlp", "all"]
    assert (list(lora[0].get_xdata()), list(full[0].get_xdata())) == ([0, 1], [2])
    assert lora[0].get_linestyle() == "None"


def test_study_without_runs_is_refused():
    with pytest.raises(ValueError, match="no run"):
        plot_study({"LoRA": []}, "rank.png")
