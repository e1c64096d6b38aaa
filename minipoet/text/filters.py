"""What a large collection brings besides verse, and how it is told from verse without reading it.

A site where everybody may publish holds prose, greetings in one line, poems in other languages, and whole novels. A
model learns what it is shown; with a hundred thousand texts nobody looks at each, so a few numbers have to: how long
the text is, in which letters, and how its lines are cut. Each number is a blunt tool, and each rejection has a name,
so that a report says which tool cut how much.

    VerseFilter   the bounds; `reason(text)` names the first that the text breaks
    VERSE         the usual ones
    is_russian    letters of Russian, and not of a neighbour that shares most of them

Chapter: docs/corpora.md.
"""

from dataclasses import dataclass, fields
from statistics import median

from minipoet.checks import expect, is_number
from minipoet.text.errors import CorpusError

RUSSIAN = frozenset("абвгдеёжзийклмнопрстуфхцчшщъыьэюя")
FOREIGN = 0.02  # share of Cyrillic letters that Russian has not; Ukrainian, Belarusian, Serbian, Kazakh: from 5 % on
HARD_SIGN = (
    0.005  # share of ъ; Russian verse of today's spelling has 0.02 %, Bulgarian and Russian before 1918 from 2 % on
)


@dataclass(frozen=True)
class VerseFilter:
    """The bounds within which a cleaned text counts as a Russian poem. All of them can be had otherwise.

    Lengths are in characters; lines without a character are counted in `blank_lines` only. The defaults keep verse
    from a couplet of couplets to some pages, with lines from a ladder's step to a long hexameter.
    """

    min_characters: int = 60
    max_characters: int = 4000
    min_lines: int = 4
    max_lines: int = 150
    median_line: tuple[int, int] = (8, 70)  # least and most; a hexameter has 40 to 60, prose has what the page holds
    longest_line: int = 120
    blank_lines: float = 0.4  # the largest share of all lines; a stanza of two lines makes 1/3
    russian: float = 0.9  # the least share of Russian letters among the letters; 0: any language

    def __post_init__(self):
        low, high = self.median_line if isinstance(self.median_line, tuple | list) else (None, None)
        numbers = [low, high, *(getattr(self, field.name) for field in fields(self) if field.name != "median_line")]
        if not all(is_number(number) and number >= 0 for number in numbers):
            raise CorpusError(f"expected numbers of at least 0, and two of them for median_line, got {self}")
        shares = [name for name in ("blank_lines", "russian") if getattr(self, name) > 1]
        if shares:
            came = ", ".join(f"{name}={getattr(self, name)}" for name in shares)
            raise CorpusError(f"VerseFilter: shares are from 0 to 1, got {came}")
        bounds = {
            "characters": (self.min_characters, self.max_characters),
            "lines": (self.min_lines, self.max_lines),
            "median_line": (low, high),
        }
        empty = [f"{name} from {least} to {most}" for name, (least, most) in bounds.items() if least > most]
        if empty:
            raise CorpusError(f"VerseFilter: nothing can be kept with {', '.join(empty)}; the least comes first")

    def reason(self, text: str) -> str:
        """Why a text is no poem: the first bound that it breaks, in a word or two; "" for one that is kept."""
        expect(text, str, "The text", "a string", "of a Poem give its text")
        every = text.split("\n")
        lengths = [len(line) for line in every if line.strip()]
        if len(text) < self.min_characters:
            return "too short"
        if len(text) > self.max_characters:
            return "too long"
        if self.russian and not is_russian(text, self.russian):
            return "not Russian"
        if len(lengths) < self.min_lines:
            return "too few lines"
        if len(lengths) > self.max_lines:
            return "too many lines"
        if max(lengths) > self.longest_line or median(lengths) > self.median_line[1]:
            return "lines of prose"
        if median(lengths) < self.median_line[0]:
            return "lines of a word"
        if len(every) - len(lengths) > self.blank_lines * len(every):
            return "too many blank lines"
        return ""


VERSE = VerseFilter()


def is_russian(text: str, share: float = 0.9) -> bool:
    """Are at least so many of the letters Russian, and do they not spell a neighbour's language?

    Two signs of a neighbour: letters that modern Russian has not (і ї є ґ ў ј љ ә қ ѣ …), and, for Bulgarian, which has
    none of those, ъ more often than ы and э together (Bulgarian has neither ы nor э; in Russian ъ is rare).
    """
    letters = [letter for letter in text.lower() if letter.isalpha()]
    russian = sum(letter in RUSSIAN for letter in letters)
    foreign = sum("Ѐ" <= letter <= "ӿ" and letter not in RUSSIAN for letter in letters)
    hard, vowels = letters.count("ъ"), letters.count("ы") + letters.count("э")
    if not letters or russian < share * len(letters) or foreign > FOREIGN * len(letters):
        return False
    return hard <= max(vowels, HARD_SIGN * len(letters))
