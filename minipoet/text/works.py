"""Which larger work a poem is a part of, told from its title.

A chapter of a novel in verse is a record of its own, but its neighbours tell its story, its names and its stanza: with
one chapter in training and another in validation, the test is no longer of something new. So parts of a work stay
together.

Some corpora say the work of each record (`Poem.work`). Where they do not, titles do: «Лесная быль. Глава первая»,
«Лесная быль — Песнь 2», «Лесная быль (часть III)», «Ночь. IV», and in the company of these «Лесная быль. Сон царевны».
Poems that only have a title in common («К ***», «Элегия») are different poems and stay apart.

Chapter: docs/text.md.
"""

import re
from collections.abc import Sequence

from minipoet.checks import expect
from minipoet.text.dedup import word_key
from minipoet.text.poems import Poem

UNNAMED = "без названия"  # the work of «Глава первая» or «Хор», titles that are the name of a part alone

_ORDINAL = (
    r"(?:перв|втор|трет|четв[её]рт|пят|шест|седьм|восьм|девят|десят|одиннадцат|двенадцат|\w+надцат|двадцат|тридцат|последн)"
    r"(?:ый|ой|ий|ая|яя|ое|ее|ья|ье|ия|ие)"
)
_NUMBER = rf"(?:{_ORDINAL}|[IVXLCХ]+|\d{{1,3}}(?:-?(?:я|ая|й|ый|е|ое))?)"  # the Cyrillic Х often stands for the Latin X
_UNIT = r"(?:глава|песн[ья]|часть|книга|канто|canto|действие|сцена|картина|явление|тетрадь)"
_NAMED_PART = r"(?:пролог|эпилог|вступление|введение|посвящение|предисловие|послесловие|заключение|интермедия)"
_NUMBERED_PART = rf"(?:{_UNIT}\s+(?:№\s*)?{_NUMBER}|{_NUMBER}\s+{_UNIT})"
_BREAK = r"(?:\s*[.:;,|/(\[—–]+\s*|\s+-+\s+)"
_REST = r"(?:\s*[.:;,()\[\]—–-].*)?"

_NUMBERED = re.compile(rf"(?P<work>.*?\w.*?)(?:{_BREAK}|\s+){_NUMBERED_PART}(?:\W.*)?", re.IGNORECASE)
_NAMED = re.compile(rf"(?P<work>.*?\w.*?){_BREAK}{_NAMED_PART}{_REST}", re.IGNORECASE)
_BARE_NUMBER = re.compile(rf"(?P<work>.*?\w{{3,}}[»\"!?]*){_BREAK}(?:[IVXL]+|\d{{1,2}})[.)\]]*")
_PART_TITLE = re.compile(rf"(?:{_NUMBERED_PART}|{_NAMED_PART}){_REST}", re.IGNORECASE)
_UNNAMED = re.compile(rf"(?:{_NUMBERED_PART}|пролог|эпилог|хор){_REST}", re.IGNORECASE)


def work_of(poem: Poem) -> str:
    """The name of the work of which the poem is a part, judged by itself; "" if it stands alone.

    `Poem.work` decides if given. Else the title: a work and a numbered part (chapter, song, part, book, canto, …), or a
    named one (prologue, dedication, …), or a number after a full stop, comma, dash or bracket. A title that is only the
    name of a part («Вторая глава», «Пролог», «Хор») belongs to `UNNAMED`; a bare number or «Посвящение» says too
    little.
    """
    expect(poem, Poem, "The poem", "a Poem(text)")
    if poem.work:
        return poem.work
    title = poem.title.strip()
    if _UNNAMED.fullmatch(title):
        return UNNAMED
    for pattern in (_NUMBERED, _NAMED, _BARE_NUMBER):
        match = pattern.fullmatch(title)
        if match:
            return match["work"].strip()
    return ""


def is_part_title(line: str) -> bool:
    """Whether a line is the name of a part and nothing else: «Песнь вторая», «Часть 3. Зима», «Эпилог»."""
    return bool(_PART_TITLE.fullmatch(line.strip()))


def works_of(poems: Sequence[Poem]) -> list[tuple[str, str]]:
    """For each poem (author, work) in a form fit for comparison, or ("", "") if it stands alone.

    What `work_of` says, and one thing that only the company tells: once «Лесная быль. Глава первая» has shown that
    «Лесная быль» is a work of its author, «Лесная быль. Сон царевны» is a part of it too.
    """
    works = [(word_key(poem.author), word_key(work)) if (work := work_of(poem)) else ("", "") for poem in poems]
    known = set(works)
    for number, poem in enumerate(poems):
        if works[number][1]:
            continue
        for match in re.finditer(_BREAK, poem.title):
            prefix = (word_key(poem.author), word_key(poem.title[: match.start()]))
            if prefix[1] and prefix in known:
                works[number] = prefix
                break
    return works
