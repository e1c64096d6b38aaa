"""The sentence of the laboratory, and the genitive of a poet's name (minipoet/text/requests.py)."""

import pytest

from minipoet.text.requests import LAB_THEMES, genitive, parse_poet, request


def test_request_is_the_sentence_of_the_laboratory():
    assert request(4, "осень", "Пушкина") == (
        "Напиши стихотворение из 4 четверостиший на тему 'осень' в стиле поэта Пушкина"
    )
    assert LAB_THEMES == ("вдохновение", "осень", "грусть", "радость", "дружба")


@pytest.mark.parametrize(
    ("quatrains", "expected"),
    [(1, "из 1 четверостишия"), (2, "из 2 четверостиший"), (5, "из 5 четверостиший"), (11, "из 11 четверостиший"),
     (21, "из 21 четверостишия"), (111, "из 111 четверостиший"), (101, "из 101 четверостишия")],
)  # fmt: skip
def test_number_and_noun_agree(quatrains, expected):
    assert request(quatrains, "осень", None) == f"Напиши стихотворение {expected} на тему 'осень'"


def test_what_is_not_wanted_is_not_said():
    assert request(None, "осень", "Фета") == "Напиши стихотворение на тему 'осень' в стиле поэта Фета"
    assert request(None, "осень", None) == "Напиши стихотворение на тему 'осень'"


def test_theme_cannot_end_its_quotation_marks():
    assert request(None, "Жанна д'Арк", None) == "Напиши стихотворение на тему 'Жанна д’Арк'"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, "осень", None), "quatrains=0"),
        ((True, "осень", None), "quatrains=True"),
        ((2.0, "осень", None), "quatrains=2.0"),
        ((4, " ", None), "The theme must be some words on one line, got ' '"),
        ((4, "осень\nзима", None), "The theme must be some words on one line"),
        ((4, None, None), "The theme must be a string, got None"),
        ((4, "осень", ""), "The poet must be some words"),
        ((4, "осень", 7), "The poet must be a string, got 7"),
    ],
)
def test_careless_requests_are_told(arguments, message):
    with pytest.raises(ValueError, match=message):
        request(*arguments)


@pytest.mark.parametrize(
    ("name", "expected"),
    [line.split() for line in """
        Пушкин Пушкина
        Лермонтов Лермонтова
        Соловьёв Соловьёва
        Птицын Птицына
        Достоевский Достоевского
        Жуковский Жуковского
        Полоцкий Полоцкого
        Горький Горького
        Долгий Долгого
        Крайний Крайнего
        Белый Белого
        Толстой Толстого
        Цой Цоя
        Цветаева Цветаевой
        Ахматова Ахматовой
        Павлова Павловой
        Бунина Буниной
        Толстая Толстой
        Крайняя Крайней
        Глинка Глинки
        Окуджава Окуджавы
        Блок Блока
        Дельвиг Дельвига
        Гоголь Гоголя
        Вергилий Вергилия
        Бабай Бабая
        Данте Данте
        Гюго Гюго
        Шевченко Шевченко
        Черных Черных
        Салтыков-Щедрин Салтыкова-Щедрина
        БЛОК БЛОКа
    """.strip().split("\n")],
)  # fmt: skip
def test_genitive_follows_the_ending(name, expected):
    assert genitive(name) == expected


@pytest.mark.parametrize("name", ["", " ", "Pushkin", "Анна Ахматова", "Пушкин1", "Блок-"])
def test_genitive_refuses_what_is_no_surname(name):
    with pytest.raises(ValueError, match='a surname of Cyrillic letters.*"Name/Genitive"'):
        genitive(name)


def test_poet_is_parsed_with_a_genitive_or_gets_one():
    assert parse_poet("Бродский") == ("Бродский", "Бродского")
    assert parse_poet("Щербина / Щербины") == ("Щербина", "Щербины")
    assert parse_poet("Анна Ахматова/Анны Ахматовой") == ("Анна Ахматова", "Анны Ахматовой")
    assert parse_poet("Frost/Фроста") == ("Frost", "Фроста")


@pytest.mark.parametrize("text", ["", "/", "/Блока", "Блок/", "Блок/Блока/x"])
def test_poet_that_is_half_said_is_refused(text):
    with pytest.raises(ValueError, match='a name, or "Name/Genitive"'):
        parse_poet(text)
