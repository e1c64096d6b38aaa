"""Cleaning: each kind of noise by a small example, and what holds for every text."""

import random

import pytest

from minipoet.text.clean import clean_text, clean_title


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("снег\r\nлёг\rспать", "снег\nлёг\nспать"),
        ("и\u0306од и е\u0308лка", "йод и ёлка"),
        ("тихий\u00a0снег\u2009идёт\tс утра", "тихий снег идёт с утра"),
        ("\ufeffсло\u00adво\u200b\u2060", "слово"),
        ("  ступенькой\n      вниз  ", "ступенькой\nвниз"),
        ("строфа\n\n\n \n\nстрофа", "строфа\n\nстрофа"),
        ("за\u0301мок, замо\u0301к", "замок, замок"),
        ("снег<br>лёг<BR/>спать", "снег\nлёг\nспать"),
        ("<p>снег</p><p>лёг</p>", "снег\n\nлёг"),
        ("<i>снег</i> <a href='x'>лёг</a><!-- нет -->", "снег лёг"),
        ("снег&nbsp;&mdash; это&#8230;", "снег — это..."),
        ("снег&amp;nbsp;лёг", "снег лёг"),
        ("снег[1] лёг [23]<sup>4</sup>", "снег лёг"),
        ("Mоpе шумит", "Море шумит"),
        ("- Куда - спросил - идёшь?", "— Куда — спросил — идёшь?"),
        ("снег--это", "снег—это"),
        ("снег. . . . . . и……", "снег... и..."),
    ],
)
def test_noise_is_removed(dirty: str, clean: str) -> None:
    assert clean_text(dirty) == clean


@pytest.mark.parametrize(
    "text",
    [
        "Снег идёт.\nОн ляжет.\n\nТы придёшь?..",
        "а < б и 3 > 2",
        "«<Другу>», — сказал [он]",
        "из-за кое-где",
        "в 1830–1831 годах",
        "café à la mode",
        "XIV век, том IXв",
        "Rosa и роза",
        "Хорошо?.. Нет!..",
    ],
)
def test_what_is_no_noise_stays(text: str) -> None:
    assert clean_text(text) == text


def test_cleaning_is_idempotent() -> None:
    pieces = [
        "снег",
        " ",
        "\n",
        "<br>",
        "&amp;",
        "lt;",
        "&lt;",
        "p>",
        "-",
        "–",
        ".",
        "…",
        "а\u0301",
        "e",
        "[",
        "1",
        "]",
        "\u00a0",
    ]
    generator = random.Random(0)
    for _ in range(500):
        once = clean_text("".join(generator.choices(pieces, k=15)))
        assert clean_text(once) == once


def test_title_is_one_line() -> None:
    assert clean_title(" Зимний<br>вечер [2]\n") == "Зимний вечер"


def test_a_latin_e_with_dots_in_a_russian_word_is_yo():
    assert clean_text("ид\u00ebт, \u00cbлка, ид\u0065\u0308т") == "идёт, Ёлка, идёт"
