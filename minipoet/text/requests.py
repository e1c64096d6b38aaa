"""What a model is asked for, in the words of the laboratory.

    Напиши стихотворение из 4 четверостиший на тему 'осень' в стиле поэта Пушкина

    request      the sentence, for a number of quatrains, a theme and a poet
    genitive     Пушкин → Пушкина, Цветаева → Цветаевой, by the endings of surnames
    parse_poet   "Бродский" or "Щербина/Щербины": a name and its genitive, as a command is given them
    LAB_THEMES   the themes that the laboratory compares its poets on

Training and generation ask in the same words: a model that was taught one sentence is asked that sentence.
Chapter: docs/instruction.md
"""

import re

from minipoet.checks import expect, expect_whole, shown

LAB_THEMES = ("вдохновение", "осень", "грусть", "радость", "дружба")

_CYRILLIC_NAME = re.compile(r"[А-ЯЁа-яё]+(?:-[А-ЯЁа-яё]+)*")
_ENDINGS = (  # (how the name ends, letters taken off, what is put on); the first that fits decides
    (r"[оеёэиыую]|[иы]х", 0, ""),  # Шевченко, Гёте, Гюго, Черных: never declined
    (r"[оеё]ва|[иы]на", 1, "ой"),  # Ахматова, Цветаева, Павлова, Ильина
    (r"ая", 2, "ой"),  # Гиппиус-Мережковская
    (r"яя", 2, "ей"),
    (r"[гкхжшщч]а|я", 1, "и"),  # Глинка → Глинки
    (r"а", 1, "ы"),  # Окуджава → Окуджавы
    (r"[жшщчн]ий", 2, "его"),  # Крайний
    (r"[гкх]ий|ый", 2, "ого"),  # Маяковский, Горький, Белый
    (r"(?<=[аеёиоуыэюя]).+ой", 2, "ого"),  # Толстой, of two syllables: Цой → Цоя
    (r"й|ь", 1, "я"),  # Гоголь → Гоголя, Вергилий → Вергилия
)


def request(quatrains: int | None, theme: str, poet: str | None) -> str:
    """The laboratory's sentence.

    Args:
        quatrains: how many stanzas of four lines; None says nothing of them.
        theme: what the poem is about; the sentence puts it into '…', so an apostrophe in it becomes ’.
        poet: the poet's name in the genitive ("Пушкина", see `genitive`); None leaves the manner open.

    Raises:
        ValueError: a number that is no whole number of at least 1; a theme or poet that is empty or not one line.
    """
    if quatrains is not None:
        expect_whole(quatrains=quatrains)
    wanted = f" из {quatrains} {_of_quatrains(quatrains)}" if quatrains is not None else ""
    manner = f" в стиле поэта {_one_line(poet, 'The poet')}" if poet is not None else ""
    return f"Напиши стихотворение{wanted} на тему '{_one_line(theme, 'The theme').replace(chr(39), '’')}'{manner}"


def _of_quatrains(number: int) -> str:
    """What stands after «из N»: 1 четверостишия, 2 четверостиший, 11 четверостиший, 21 четверостишия."""
    return "четверостишия" if number % 10 == 1 and number % 100 != 11 else "четверостиший"


def _one_line(text: str, what: str) -> str:
    expect(text, str, what, "a string")
    if not text.strip() or len(text.splitlines()) > 1:
        raise ValueError(f"{what} must be some words on one line, got {shown(text)}.")
    return text.strip()


def genitive(surname: str) -> str:
    """The genitive of a surname by its ending: Пушкин → Пушкина, Достоевский → Достоевского, Ахматова → Ахматовой.

    Each part of a double name is declined (Салтыков-Щедрин → Салтыкова-Щедрина). What no ending tells: a woman's name
    that ends in a consonant is not declined (стихи Марии Шкапской, but Веры Инбер), a man's is, and a man's is taken
    for granted; a man called Щербина is taken for a woman. Then say the genitive yourself (`parse_poet`).

    Raises:
        ValueError: what is not one word in Cyrillic letters.
    """
    expect(surname, str, "The poet", "a surname")
    if not _CYRILLIC_NAME.fullmatch(surname.strip()):
        raise ValueError(
            f"The poet must be a surname of Cyrillic letters, got {shown(surname)}: "
            'write the genitive behind it to be free of the rules ("Name/Genitive").'
        )
    return "-".join(map(_decline, surname.strip().split("-")))


def _decline(name: str) -> str:
    for ending, taken, put in _ENDINGS:
        if re.search(f"(?:{ending})$", name, re.IGNORECASE):
            return name[: len(name) - taken] + put
    return name + "а"  # a consonant: Пушкин, Блок, Фет


def parse_poet(text: str) -> tuple[str, str]:
    """("Бродский", "Бродского") for "Бродский" or for "Бродский/Бродского": a name, and its genitive if one says it.

    Raises:
        ValueError: an empty name or genitive, more than one "/", or a name that `genitive` cannot decline.
    """
    expect(text, str, "The poet", 'a name, or "Name/Genitive"')
    name, *rest = (part.strip() for part in text.split("/"))
    if not name or len(rest) > 1 or rest == [""]:
        raise ValueError(f'The poet must be a name, or "Name/Genitive", as in Бродский/Бродского; got {shown(text)}.')
    return name, rest[0] if rest else genitive(name)
