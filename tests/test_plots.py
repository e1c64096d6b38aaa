"""Plots: the file is there and shows what the history holds."""

import pytest

from minipoet.evaluation import wilson
from minipoet.plots import plot_history, plot_study, runs
from minipoet.plots.ratings import plot_ratings, plot_shares, rating_line
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
    for module in ("figure", "runs", "ratings"):
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


def test_run_by_epochs_has_their_means_and_the_best_in_the_legend(drawn):
    plot_history(example(), "loss.png", epochs=(4, 10, 15, 20))
    (axes,) = drawn[0].axes
    each, means, validation, best = axes.lines
    assert list(each.get_xdata())[:7] == pytest.approx([0.25, 0.5, 0.75, 1, 1 + 1 / 6, 1 + 2 / 6, 1.5])
    assert list(means.get_xdata()) == [0.5, 1.5, 2.5, 3.5]
    assert list(means.get_ydata()) == pytest.approx([4.75, 4.25, 3.7, 3.2])
    assert list(validation.get_xdata()) == pytest.approx([0, 1 + 1 / 6, 2, 3, 4])
    assert (list(best.get_xdata()), list(best.get_ydata())) == ([2.0], [4.0])
    assert (axes.texts[0].get_text(), axes.get_xlabel()) == ("4.000", "epoch")
    names = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert names == ["training, each step", "training, mean of the epoch", "validation", "best: epoch 2 of 4"]
    assert all(tick == int(tick) for tick in axes.get_xticks())


def test_run_that_stopped_in_the_middle_of_an_epoch_is_drawn(drawn):
    plot_history(example(), "loss.png", epochs=(8, 16, 24, 32))
    assert list(drawn[0].axes[0].lines[1].get_xdata()) == [0.5, 1.5, 2.5]
    names = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert names[-1] == "best: epoch 1.2 of 4"  # step 10, the second after the end of the first epoch


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


# --- ratings ------------------------------------------------------------------------------------------------------


RATINGS = [5] * 15 + [1] * 3 + [4] * 2  # no 2 and no 3


def test_ratings_have_a_bar_each_with_count_and_share(drawn):
    plot_ratings(RATINGS, "ratings.png", "Отзывы")
    (axes,) = drawn[0].axes
    assert [bar.get_height() for bar in axes.patches] == [3, 0, 0, 2, 15]
    assert [bar.get_center()[0] for bar in axes.patches] == pytest.approx([1, 2, 3, 4, 5])
    labels = [text.get_text() for text in axes.texts]
    assert labels == ["3\n15.0 %", "0\n0.0 %", "0\n0.0 %", "2\n10.0 %", "15\n75.0 %"]
    assert axes.get_title() == "Отзывы"


def test_ratings_fit_into_a_line_of_text():
    assert rating_line(RATINGS) == "1: 3 (15.0 %), 2: 0 (0.0 %), 3: 0 (0.0 %), 4: 2 (10.0 %), 5: 15 (75.0 %)"
    assert rating_line([1] * 12000).startswith("1: 12,000 (100.0 %)")


@pytest.mark.parametrize(
    ("ratings", "message"),
    [([], "no ratings"), ([5, 0, 6, True], "from 1 to 5, got 0, 6"), (["5"], "from 1 to 5, got '5'"),
     ([4.5], "from 1 to 5, got 4.5"), ("55", "list of whole numbers from 1 to 5, got '55'"), (5, "list .*, got 5")],
)  # fmt: skip
def test_what_is_no_rating_is_refused(ratings, message):
    for use in (rating_line, lambda given: plot_ratings(given, "ratings.png")):
        with pytest.raises(ValueError, match=message):
            use(ratings)


def test_shares_stand_side_by_side_with_their_whiskers(drawn):
    full, lora = {1: (0.8, 0.7, 0.85), 5: (1.0, 0.96, 1.0)}, {5: (0.5, 0.4, 0.6), 3: (0.0, *wilson(0, 10))}
    plot_shares({"full": full, "LoRA": lora}, "shares.png", "Оценки", chance=0.2)
    (axes,) = drawn[0].axes
    ours, theirs = axes.containers
    assert (list(ours[0].get_xdata()), list(ours[0].get_ydata())) == (pytest.approx([-0.08, 0.92]), [80.0, 100.0])
    assert list(theirs[0].get_xdata()) == pytest.approx([1.08, 2.08])
    assert [segment[:, 1].tolist() for segment in ours[2][0].get_segments()] == [
        pytest.approx([70, 85]), pytest.approx([96, 100]),
    ]  # fmt: skip
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "5", "3"]
    assert list(axes.lines[-1].get_ydata()) == [20.0, 20.0]
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["full", "LoRA"]


@pytest.mark.parametrize(
    ("shares", "message"),
    [({}, "no shares"), ({"full": {}}, "no shares"), ([1], "shares must be shares by model"),
     ({"full": [1]}, "The shares of 'full' must be"), ({"full": {1: 0.5}}, "got 0.5 for 1 of 'full'"),
     ({"full": {1: (50, 40, 60)}}, "between 0 and 1"), ({"full": {1: (0.5, 0.6, 0.7)}}, "between 0 and 1")],
)  # fmt: skip
def test_what_is_no_share_is_refused(shares, message):
    with pytest.raises(ValueError, match=message):
        plot_shares(shares, "shares.png")
