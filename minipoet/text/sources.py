"""Readers of two kinds of public files: an exported e-book of collected verse, and one long poem a file.

Raw files have what a corpus must not: the library's greetings, footnotes, editors' marks, prefaces. What each reader
relies on is the form, told here; a file of another form gives few poems or none, and then an error says so.

    collected verse   verse lines are indented by tabs; titles are not, and have three blank lines before them, or the
                      poem begins with a line "* * *"; «Стихотворения 1825 г» opens a section; a note stands where it
                      belongs, as "[7 - text]"; after the poems, greetings and the notes once more
    a long poem       lines of names (author, title), the parts, each under a line with its name («Песнь вторая»), notes

Chapter: docs/text.md.
"""

import re

from minipoet.text.clean import clean_text, clean_title, drop_footnotes
from minipoet.text.dedup import word_key
from minipoet.text.errors import CorpusError
from minipoet.text.poems import Poem
from minipoet.text.works import is_part_title

_SECTION = re.compile(r"Стихотворения 1\d{3}.*")
_END = re.compile(r"Спасибо, что скачали.*|notes|Примечания|Комментарии|Сноски", re.IGNORECASE)
_NOTE = re.compile(r"[ \t]*\[\d{1,3} - (?:[^\[\]]|\[[^\[\]]*\])*\]")
_DOUBT = re.compile(r"[ \t]*<[?\s–—-]*>")  # an editor's "<?>" and "< >"; other brackets hold the poet's words
_BRACKETS = re.compile(r"[<>\[\]{}]")
_STARS = re.compile(r"\*(?:\s*\*){2}")
_NUMERAL = re.compile(r"(?:[IVXLC]+|\d{1,3})(?:[.,]\s*(?:[IVXLC]+|\d{1,3}))*\.?")
_TITLE_NUMBER = re.compile(r"\d{1,3}\.\s+")
_PROSE = 100  # characters: no line of Russian verse is so long, and prose paragraphs are one line each
_TITLE_WITHIN = 6  # lines from the top in which a file of one poem has its title
_TITLE_LINES = 3  # lines of a title, up to a blank one; a longer paragraph is verse that begins at once


def read_collected_verse(text: str, author: str, source: str = "") -> list[Poem]:
    """The poems of an exported book of collected verse (see the head of this module), cleaned.

    Unindented lines are titles, or remarks and prose, which are left out; numbers («II.») and names of parts («Песнь
    вторая») stay in the poem. A remark in brackets under a title belongs to it. Poems in another language are left out.

    Raises:
        CorpusError: no poem is found.
    """
    poems: list[Poem] = []
    title, verse = "", []  # of the poem being read
    reading, blanks = False, 0
    for line in [*_without_notes(text).split("\n"), "notes"]:
        stripped, indented = line.strip(), line[:1] in ("\t", " ")
        if not stripped:
            blanks += 1
            verse.append("")
            continue
        section = not indented and bool(_SECTION.fullmatch(stripped))
        end = reading and not indented and bool(_END.fullmatch(stripped))
        inside = bool(_NUMERAL.fullmatch(stripped)) or is_part_title(stripped)
        begins = not indented and (bool(_STARS.fullmatch(stripped)) or (blanks >= 3 and not inside))
        if section or end or (reading and begins):
            poems += _poem(title, verse, author, source)
            title, verse = "" if section or _STARS.fullmatch(stripped) else stripped, []
            reading = (reading or section) and not end
        elif reading and (indented or inside):
            verse.append("" if stripped in ("—", "–", "-") else stripped)
        elif reading and stripped == "Перевод":
            verse.append("\0")  # what follows is an editor's translation
        elif reading and not any(verse) and title and re.fullmatch(r"\(.*\)", stripped):
            title = f"{title} {stripped}"
        blanks = 0
    if not poems:
        raise CorpusError(
            f"{source}: no poem found; expected an exported book with sections like «Стихотворения 1825 г»"
        )
    return poems


def _without_notes(text: str) -> str:
    """The text without its notes, nor the blank line that the export puts after each line that ends with one."""
    return _NOTE.sub("", re.sub(rf"{_NOTE.pattern}\n[ \t]*\n(?=\t)", "\n", text))


def _poem(title: str, verse: list[str], author: str, source: str) -> list[Poem]:
    """The poem of these lines, or none if they are empty, or mostly in another language."""
    text = clean_text(without_marks("\n".join(verse).split("\0")[0]))
    letters = [character for character in text if character.isalpha()]
    russian = sum("а" <= character.lower() <= "я" or character in "ёЁ" for character in letters)
    if 2 * russian <= len(letters):
        return []
    name = clean_title(_TITLE_NUMBER.sub("", without_marks(title)))
    return [Poem(text, name, author, source=source)]


def without_marks(text: str) -> str:
    """A text without an editor's marks: "[1]" and "<?>" go, of "[слово]" and "<слово>" only the brackets go."""
    return _BRACKETS.sub("", _DOUBT.sub("", drop_footnotes(text)))


def read_long_poem(text: str, work: str, author: str, source: str = "") -> list[Poem]:
    """The parts of a long poem as poems «Work. Part», or the one poem if it has no parts; cleaned.

    What stands before the title and before the first part is left out, and so are prefaces, epigraphs before a numbered
    first stanza, paragraphs of prose and the notes at the end.

    Raises:
        CorpusError: no verse is found.
    """
    lines = [line.strip() for line in without_marks(_without_notes(text)).split("\n")]
    ends = [number for number, line in enumerate(lines) if _END.match(line) and number > len(lines) // 2]
    parts: list[tuple[str, list[str]]] = [("", [])]
    for line in lines[_after_title(lines, work) : ends[0] if ends else None]:
        if is_part_title(line) or re.fullmatch(r"Предисловие|Отрывки из .{3,40}", line, re.IGNORECASE):
            parts.append((line, []))
        elif len(line) <= _PROSE and word_key(line) != "конец":
            parts[-1][1].append(_STARS.sub("\n\n", line))
    if len(parts) > 1:
        parts = [(name, verse) for name, verse in parts if name and word_key(name) != "предисловие"]
    poems = []
    for name, verse in parts:
        body = clean_text("\n".join(verse[_first_stanza(verse) :]))
        if body:
            title = clean_title(f"{work}. {name}" if name else work)
            poems.append(Poem(body, title, author, work if name else "", source))
    if not poems:
        raise CorpusError(f"{source}: no verse of «{work}» found in {len(text)} characters")
    return poems


def _after_title(lines: list[str], work: str) -> int:
    """The number of the line after the title, which may go on for `_TITLE_LINES`; 0 if there is none at the top."""
    words = word_key(work)
    seen = 0
    for number, line in enumerate(lines):
        if word_key(line).startswith(words):
            ends = [end for end in range(number + 1, number + 1 + _TITLE_LINES) if not any(lines[end : end + 1])]
            return ends[0] if ends else number + 1
        seen += bool(line)
        if seen == _TITLE_WITHIN:
            break
    return 0


def _first_stanza(verse: list[str]) -> int:
    """The number of the line «I» or «1» if it is near the top (an epigraph is above it), else 0."""
    numerals = [number for number, line in enumerate(verse[:40]) if _NUMERAL.fullmatch(line)]
    return numerals[0] if numerals else 0
