"""Readers of public files, on invented books of exactly their form."""

import pytest

from minipoet.text.errors import CorpusError
from minipoet.text.sources import read_collected_verse, read_long_poem, without_marks

BOOK = """Спасибо, что скачали книгу

Все книги автора: http://example.org



Пётр Снегов

Собрание стихотворений



Стихотворения 1901 г


* * *

\t\tLa neige tombe sur les toits
\t\tEt tout est blanc dans la cit&#233;.


Перевод

\t\tСнег падает на крыши,
\t\tИ город бел.



Соседу

(Из письма)

Эпиграф[1 - Откуда он.]

\t\tМой друг, когда тебя <за> [домом]
\t\tЗастанет вечер<?> над рекой,[2 - В рукописи [иначе] – так.]

\t\tЗажги огонь &#8211; и будь знакомым
\t\tС моей… с моею тишиной.



Былина



Песнь первая

О том, как начался снег

\t\tНачался снег с утра.


II.

\t\tИ кончился он вдруг.
\t\t—
\t\tИ вышел он.


* * *

\t\tА ты молчишь, а я пою.



Стихотворения 1902 г



<7. В альбом>

\t\tПишу тебе, <М. М.>, в альбом.

\t\t< >

\t\tПрости меня.



Проза поэта

Он вышел из дому и долго стоял.



Спасибо, что скачали книгу



notes

Примечания



2

\t\tСтихи из примечаний.
"""

TALE = """
Пётр Снегов

Сказка о снеге и о том,
как он растаял

Жил-был снег.[1]
Он лежал – и растаял.

Конец

Примечания
1
Зимой.
"""

POEM = """Пётр Снегов
Лесная быль

Эпиграф ко всему

ПРЕДИСЛОВИЕ

Длинное объяснение.

Посвящение

Тебе, мой лес.

Глава первая

«Лес шумит».
Песня

I

Шумит мой лес
* * *Весной зелёной.

II

И замолчал.

Глава вторая
Он снова зашумел.
{prose}

Примечания к «Лесной были»
Глава первая. Шумит: слово поэта.
"""


def test_collected_verse_is_divided_into_poems() -> None:
    poems = read_collected_verse(BOOK, "Снегов", "книга.txt")
    assert [poem.title for poem in poems] == ["Соседу (Из письма)", "Былина", "", "В альбом"]
    assert {(poem.author, poem.source) for poem in poems} == {("Снегов", "книга.txt")}


def test_notes_marks_and_remarks_leave_the_verse() -> None:
    neighbour = read_collected_verse(BOOK, "")[0]
    assert neighbour.text == (
        "Мой друг, когда тебя за домом\nЗастанет вечер над рекой,\n"
        "Зажги огонь — и будь знакомым\nС моей... с моею тишиной."
    )


def test_names_of_parts_and_numbers_stay_in_the_poem() -> None:
    epic = read_collected_verse(BOOK, "")[1]
    assert epic.text == "Песнь первая\n\nНачался снег с утра.\n\nII.\n\nИ кончился он вдруг.\n\nИ вышел он."


def test_gap_of_the_manuscript_ends_a_stanza() -> None:
    assert read_collected_verse(BOOK, "")[3].text == "Пишу тебе, М. М., в альбом.\n\nПрости меня."


def test_file_of_another_form_is_an_error() -> None:
    with pytest.raises(CorpusError, match=r"a\.txt: no poem found; expected .* sections"):
        read_collected_verse("Просто текст.\n", "", "a.txt")


def test_marks_of_editors() -> None:
    assert without_marks("Ждан<ный> [мой] {друг} <?>, <на -> всё<?>.") == "Жданный мой друг, на - всё."


def test_poem_without_parts_is_one_poem() -> None:
    (tale,) = read_long_poem(TALE, "Сказка о снеге", "Снегов", "т.txt")
    assert (tale.title, tale.work, tale.text) == ("Сказка о снеге", "", "Жил-был снег.\nОн лежал — и растаял.")


def test_verse_right_under_the_title_is_kept() -> None:
    verse = "Жил-был снег.\nОн летел.\nОн лежал.\nОн растаял."
    assert read_long_poem(f"Сказка\n{verse}\n", "Сказка", "")[0].text == verse


def test_parts_of_a_long_poem_are_poems_of_one_work() -> None:
    parts = read_long_poem(POEM.format(prose="Слово за слово. " * 20), "Лесная быль", "Снегов")
    assert [(part.title, part.text) for part in parts] == [
        ("Лесная быль. Посвящение", "Тебе, мой лес."),
        ("Лесная быль. Глава первая", "I\n\nШумит мой лес\n\nВесной зелёной.\n\nII\n\nИ замолчал."),
        ("Лесная быль. Глава вторая", "Он снова зашумел."),
    ]
    assert {part.work for part in parts} == {"Лесная быль"}


def test_long_poem_without_verse_is_an_error() -> None:
    with pytest.raises(CorpusError, match="no verse of «Лесная быль» found"):
        read_long_poem("Лесная быль\n", "Лесная быль", "", "a.txt")
