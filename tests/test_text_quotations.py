"""What quotes another poet is found by its words, and taken out with the verse around it."""

from minipoet.text import Quotations

QUOTED = Quotations(["Над крышей кот гуляет важно,\nОн чёрен весь.\nИ хвост его торчит отважно"])


def test_a_line_is_found_whatever_its_print():
    assert QUOTED.quotes("НАД КРЫШЕЙ КОТ ГУЛЯЕТ ВАЖНО!")
    assert QUOTED.quotes("Он сказал: «и хвост его торчит отважно» и умолк.")
    assert not QUOTED.quotes("Над крышей кот гуляет тихо")


def test_a_line_of_fewer_than_four_words_is_nobodys():
    assert not QUOTED.quotes("Он чёрен весь.")
    assert Quotations(["Он чёрен весь."], min_words=3).quotes("и он черен весь")


def test_the_verse_around_a_quoted_line_goes_with_it_and_long_prose_stays():
    prose = "Тут он умолк и долго глядел в окно, за которым шёл дождь, а потом заговорил о другом."
    text = f"{prose}\nНад крышей кот гуляет важно,\nОн чёрен весь.\n{prose}\n\nДругая строчка"
    assert QUOTED.drop(text) == (f"{prose}\n{prose}\n\nДругая строчка", 2)


def test_a_text_that_quotes_nothing_is_unchanged():
    assert QUOTED.drop("Одна строка\n\nДругая строка, тоже не отсюда") == (
        "Одна строка\n\nДругая строка, тоже не отсюда", 0,
    )  # fmt: skip
