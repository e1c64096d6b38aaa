"""The work of a part, told from titles."""

import pytest

from minipoet.text.poems import Poem
from minipoet.text.works import UNNAMED, is_part_title, work_of, works_of


@pytest.mark.parametrize(
    ("title", "work"),
    [
        ("Лесная быль. Глава первая", "Лесная быль"),
        ("Лесная быль — Песнь 2", "Лесная быль"),
        ("Лесная быль (часть III)", "Лесная быль"),
        ("Лесная быль. Песнь Х", "Лесная быль"),  # the Cyrillic letter for the number
        ("Лесная быль: вторая часть", "Лесная быль"),
        ("Лесная быль. Глава 4. Сон царевны", "Лесная быль"),
        ("Лесная быль. Часть первая. Глава II", "Лесная быль"),
        ("Лесная быль. Пролог", "Лесная быль"),
        ("Лесная быль. Посвящение", "Лесная быль"),
        ("Ночь. IV", "Ночь"),
        ("Ночь, 2", "Ночь"),
        ("Вторая глава", UNNAMED),
        ("Пролог", UNNAMED),
        ("Хор", UNNAMED),
        ("К ***", ""),
        ("Элегия", ""),
        ("Посвящение", ""),
        ("Песня", ""),
        ("12", ""),
        ("IV", ""),
        ("А. Д. 3...", ""),
        ("К Н. I", ""),
        ("В. Л. Снегову", ""),
        ("На Александра I.", ""),
        ("Плакаты, 1923", ""),
        ("19 октября", ""),
        ("Последняя часть философской поэмы", ""),
        ("", ""),
    ],
)
def test_work_of_a_title(title: str, work: str) -> None:
    assert work_of(Poem("Снег идёт.", title=title)) == work


def test_given_work_comes_first() -> None:
    assert work_of(Poem("Снег идёт.", title="Лесная быль. Глава первая", work="Были")) == "Были"


def test_known_work_draws_in_its_other_parts() -> None:
    titles = ["Лесная быль. Сон царевны", "Лесная быль. Глава I", "Лесная быль", "Лесная быль-небылица", "Степь. Сон"]
    works = works_of([Poem("Снег.", title=title, author="Ёлкин") for title in titles])
    assert works == [("елкин", "лесная быль"), ("елкин", "лесная быль"), ("", ""), ("", ""), ("", "")]


def test_works_of_two_authors_are_two() -> None:
    first, second = works_of([Poem("Снег.", title="Ночь. I", author=author) for author in ("А", "Б")])
    assert first != second


def test_part_titles() -> None:
    assert all(map(is_part_title, ["Песнь вторая", "ГЛАВА IV", "Часть 3. Зима", "Эпилог", "Посвящение"]))
    assert not any(map(is_part_title, ["Песнь о снеге", "Глава семьи", "I", "Часть дороги позади"]))
