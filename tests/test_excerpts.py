"""Poems divided where a reader pauses (minipoet/text/excerpts.py)."""

import pytest

from minipoet.text import Poem
from minipoet.text.excerpts import excerpts, quatrains
from minipoet.text.split import group_by_work


def letters(texts):
    return [len(text) for text in texts]


def lines(texts):
    """Blank lines do not count."""
    return [1 for _ in texts]


def poem(*stanzas: int, **fields) -> Poem:
    """Of stanzas with so many lines; the lines are numbered: "1.1", "1.2", … "2.1"."""
    return Poem("\n\n".join("\n".join(f"{s}.{i}" for i in range(1, n + 1)) for s, n in enumerate(stanzas, 1)), **fields)


def first_and_last(parts: list[Poem]) -> list[tuple[str, str]]:
    return [(part.text.split("\n")[0], part.text.split("\n")[-1]) for part in parts]


@pytest.mark.parametrize(
    ("stanzas", "expected"),
    [((4,), 1), ((4, 4), 2), ((4,) * 21, 21), ((8,), None), ((4, 3), None), ((4, 4, 1), None), ((2, 2), None)],
)
def test_quatrains_are_counted_if_there_is_nothing_else(stanzas, expected):
    assert quatrains(poem(*stanzas).text) == expected


def test_blank_lines_may_have_spaces_and_be_several():
    assert quatrains("\na\nb\nc\nd\n \n\t\ne\nf\ng\nh\n\n") == 2
    assert quatrains("") is None


def test_poem_that_fits_is_left_as_it_is():
    whole = poem(4, 4)
    assert excerpts(whole, lines, 8) == ([whole], 0)


def test_poem_is_divided_at_ends_of_stanzas():
    assert first_and_last(excerpts(poem(4, 4, 4), lines, 10).poems) == [("1.1", "2.4"), ("3.1", "3.4")]


def test_no_tiny_rest_is_left():
    parts = excerpts(poem(4, 4, 4, 4, 4, 4), lines, 20).poems  # greedily it would be 20 lines and 4
    assert first_and_last(parts) == [("1.1", "3.4"), ("4.1", "6.4")]


def test_stanza_longer_than_the_room_is_divided_at_ends_of_lines_into_like_parts():
    parts = excerpts(poem(9), lines, 8).poems
    assert sorted(part.text.count("\n") + 1 for part in parts) == [4, 5]


def test_stanza_that_fits_stays_whole_beside_a_short_one():
    assert first_and_last(excerpts(poem(4, 14), lines, 15).poems) == [("1.1", "1.4"), ("2.1", "2.14")]


def test_division_is_the_cheapest_of_all():
    # Room 4, lines 1 2 3 | 4 5. [3][2]: (1/4)² + (2/4)² = 0.3125. [4][1] leaves 0 + (3/4)² and 0.4 for ending inside.
    assert first_and_last(excerpts(poem(3, 2), lines, 4).poems) == [("1.1", "1.3"), ("2.1", "2.2")]
    # Room 4, lines 1 | 2 3 4 5. [1][4]: (3/4)² + 0 = 0.5625. [3][2] would be 0.3125 + 0.4 for ending inside a stanza.
    assert first_and_last(excerpts(poem(1, 4), lines, 4).poems) == [("1.1", "1.1"), ("2.1", "2.4")]
    # Room 9, lines 1 | 2 … 10. [1][9]: (8/9)² = 0.79. [5][5]: 2 · (4/9)² + 0.4 = 0.795.
    assert first_and_last(excerpts(poem(1, 9), lines, 9).poems) == [("1.1", "1.1"), ("2.1", "2.9")]
    # Room 20, lines 1 | 2 … 21. [1][20]: (19/20)² = 0.9025. [10][11]: (10/20)² + (9/20)² + 0.4 = 0.8525.
    assert first_and_last(excerpts(poem(1, 20), lines, 20).poems) == [("1.1", "2.10"), ("2.11", "2.20")]


@pytest.mark.parametrize("room", [6, 11, 23, 60, 200])
def test_parts_fit_and_together_say_what_the_poem_says(room):
    whole = poem(4, 14, 1, 8, 30, 4, 4, 2)
    parts, cut = excerpts(whole, letters, room)
    assert cut == 0
    assert max(len(part.text) for part in parts) <= room
    assert [line for part in parts for line in part.text.split("\n") if line] == whole.text.replace("\n\n", "\n").split(
        "\n"
    )
    assert all(part.text == part.text.strip("\n") for part in parts)


def test_line_longer_than_the_room_is_cut_between_words_and_counted():
    whole = Poem("ab\nодин два три четыре\n\nпять шесть семь\nab")
    parts, cut = excerpts(whole, letters, 9)
    assert cut == 2
    assert [part.text for part in parts] == ["ab", "один два", "три", "четыре", "пять", "шесть", "семь\nab"]


def test_word_longer_than_the_room_is_told():
    with pytest.raises(
        ValueError, match="The word 'превысокомногорассмотрительствующий' alone takes 36, .* room for 20"
    ):
        excerpts(Poem("да превысокомногорассмотрительствующий"), letters, 20)


def test_parts_stay_together_in_a_split():
    long, other = poem(4, 4, 4, title="Элегия", author="А"), Poem("совсем другое\nи короткое", "Элегия", "А")
    parts = excerpts(long, lines, 4).poems
    assert {(part.title, part.author, part.work) for part in parts} == {("Элегия", "А", "Элегия")}
    groups = group_by_work([*parts, other])
    assert sorted(map(len, groups.values())) == [1, 3]


@pytest.mark.parametrize(
    ("fields", "work"),
    [({"title": "Лесная быль. Глава первая"}, "Лесная быль"), ({"work": "Лес", "title": "x"}, "Лес"), ({}, "1.1")],
)
def test_work_of_parts_is_that_of_the_poem_or_its_name(fields, work):
    assert {part.work for part in excerpts(poem(4, 4, **fields), lines, 4).poems} == {work}


def test_measure_is_asked_once():
    asked = []

    def measure(texts):
        asked.append(len(texts))
        return lines(texts)

    excerpts(poem(*[4] * 500), measure, 40)
    assert asked == [2000]


def test_careless_calls_are_told():
    with pytest.raises(ValueError, match=r"The poem must be a Poem\(text\), got 'текст'"):
        excerpts("текст", lines, 4)
    with pytest.raises(ValueError, match="room=0"):
        excerpts(poem(4), lines, 0)
    with pytest.raises(ValueError, match="The text must be a string"):
        quatrains(poem(4))
