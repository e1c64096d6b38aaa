"""Curves of several runs in one picture, light and dark."""

import io

import pytest

from minipoet.plots import curves
from minipoet.plots.curves import curve_pictures, plot_curves, smooth
from minipoet.training import History


def history(start: float, steps: int = 30, **keys: float) -> History:
    found = History()
    for step in range(1, steps + 1):
        found.add(step=step, loss=start - step / 100, **keys)
    return found


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were drawn, (figure, dark)."""
    figures, draw = [], curves._draw

    def noted(histories, key, dark):
        figures.append((draw(histories, key, dark), dark))
        return figures[-1][0]

    monkeypatch.setattr(curves, "_draw", noted)
    return figures


def test_mean_of_the_neighbours_does_not_lag():
    assert smooth([1.0, 2.0, 6.0, 3.0], 1) == [1.5, 3.0, 11 / 3, 4.5]
    assert smooth([1.0, 2.0, 3.0, 4.0, 5.0], 1)[1:-1] == [2.0, 3.0, 4.0]


def test_each_metric_is_a_picture_for_light_and_dark(drawn):
    runs = {"Пушкин": history(3, entropy=2.0), "Лермонтов": history(4, entropy=1.5)}
    pictures = curve_pictures(runs, ("loss", "entropy"))
    assert [dark for _, dark in drawn] == [False, True] * 2
    assert [figure.axes[0].get_ylabel() for figure, _ in drawn[::2]] == ["loss, nats per token", "entropy, nats"]
    assert pictures[0].alt == (
        "Loss, nats per token, against steps: Пушкин from 2.990 at step 1 to 2.700 at step 30; "
        "Лермонтов from 3.990 at step 1 to 3.700 at step 30."
    )
    assert pictures[0].png != pictures[0].dark


def test_each_author_has_a_faint_and_a_strong_line_and_a_name(drawn):
    curve_pictures({"Пушкин": history(3), "Лермонтов": history(4, steps=10)}, ("loss",))
    (axes,) = drawn[0][0].axes
    faint, strong, short = axes.lines
    assert list(faint.get_ydata()) == pytest.approx([3 - step / 100 for step in range(1, 31)])
    assert list(strong.get_ydata())[1:-1] == pytest.approx([3 - step / 100 for step in range(2, 30)])
    assert len(short.get_xdata()) == 10
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["Пушкин", "Лермонтов"]
    assert faint.get_color() == strong.get_color() != short.get_color()


def test_pictures_have_no_ground_and_few_bytes():
    from PIL import Image

    picture = curve_pictures({"Пушкин": history(3)}, ("loss",))[0]
    for png in (picture.png, picture.dark):
        image = Image.open(io.BytesIO(png)).convert("RGBA")
        assert (image.size, image.getpixel((0, 0))[3]) == ((880, 600), 0)
        assert len(png) < 60_000


def test_a_metric_that_some_have_is_drawn_for_them_and_one_that_none_has_is_refused(drawn):
    runs = {"Пушкин": history(3), "Лермонтов": history(4, entropy=1.5)}
    assert "Пушкин" not in curve_pictures(runs, ("entropy",))[0].alt
    assert [text.get_text() for text in drawn[0][0].axes[0].get_legend().get_texts()] == ["Лермонтов"]
    with pytest.raises(ValueError, match="No history has 'accuracy', 'grad'"):
        curve_pictures(runs, ("loss", "accuracy", "grad"))
    with pytest.raises(ValueError, match="no history to draw"):
        curve_pictures({})
    with pytest.raises(ValueError, match="history of 'Пушкин' must be a History, got dict"):
        curve_pictures({"Пушкин": {}})


def test_a_file_is_written_as_its_suffix_says(tmp_path):
    plot_curves({"Пушкин": history(3)}, tmp_path / "loss.svg", title="Учение")
    assert b"<svg" in (tmp_path / "loss.svg").read_bytes()
