"""What a poem is about, in a word or two: its title if that says it, else the nouns that stand out in it.

    Themes.of(poems)    what a corpus teaches: which words are nouns, in how many poems they are, what is a name
    themes.theme(poem)  the title if it is a theme, else the most salient noun, or two

A word stands out if it is often in this poem and in few others: term frequency times inverse document frequency
(Spärck Jones, "A Statistical Interpretation of Term Specificity and Its Application in Retrieval", 1972). There is no
dictionary: endings are taken off, so that the forms of a word are counted together; a noun is what stands behind
prepositions and is not declined as an adjective; and its other forms tell which one is the nominative.
Chapter: docs/instruction.md
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import log

from minipoet.checks import each, expect
from minipoet.text.dedup import word_key
from minipoet.text.poems import Poem
from minipoet.text.stems import PREPOSITIONS, STOP, WORD, fold, without_ending, word_set
from minipoet.text.works import work_of

LONGEST = 5  # words of a title that can be a theme
NOUN = 0.05  # the share of a noun's places that are behind a preposition, at least
ADJECTIVE = 0.1  # the share of an adjective's places where only an adjective has that ending, at least
COMMON = 0.03  # the share of the nominative among the forms of a noun, at least
RAREST = 0.02  # a word that is in fewer of the poems than this is not more salient for being rarer
ALMOST = 0.85  # how salient a second word must be, compared with the first, to be named beside it


_GENRES = word_set(  # and what stands beside them in titles that say nothing of the poem
    """альбом альбома баллада вариация вариант вступление глава дифирамб дополнение заключение записка импровизация
    книга куплеты мадригал мелодия надпись набросок начало ода окончание октава октавы ответ отрывок отрывки памяти
    пародия перевод песенка песни песнь песня письмо подражание посвящение послание поэма предисловие примечание пролог
    разговор романс сонет сонеты станс стансы стих стихи стихотворение стихотворения стишки строки строфы терцины
    триолет хор цикл часть черновик четверостишие экспромт элегия эпиграмма эпилог эпитафия эскиз этюд
    заглавия названия другая другое другой неоконченное новая новое продолжение русская старая старинная
    две два три первая вторая третья первое второе третье первый второй третий"""
)
_ONLY_ADJECTIVE = re.compile(
    "(?:ый|ые|ых|ым|ыми|ого|его|ому|ему|ая|яя|ую|юю|ое|[гкхжшщч](?:ий|ие|их|им|ими)|нн[а-я]{0,3}|[ую]щ[а-я]{1,3}|вш[а-я]{1,3})$"
)


@dataclass(frozen=True)
class Themes:
    """What a corpus of so many `poems` says of words.

    documents: stem -> in how many poems it is; nouns: the stem of a noun -> its nominative; small: words that are
    written with a small letter somewhere; names: words that are not, and have a capital inside a line.
    """

    poems: int
    documents: Counter[str] = field(repr=False)
    nouns: dict[str, str] = field(repr=False)
    small: frozenset[str] = field(repr=False)
    names: frozenset[str] = field(repr=False)

    @classmethod
    def of(cls, poems: Iterable[Poem]) -> Themes:
        """Counted in time linear in the length of the corpus. Raises ValueError if there is no poem in it."""
        number, documents, behind = 0, Counter[str](), Counter[str]()
        forms: defaultdict[str, Counter[str]] = defaultdict(Counter)
        small, large = set[str](), set[str]()
        for poem in each(poems, Poem, "The poems", "Poem(text)"):
            number += 1
            stems: set[str] = set()
            for line in poem.text.split("\n"):
                before = ""
                for written in WORD.findall(line):
                    word = fold(written)
                    stem = without_ending(word)
                    stems.add(stem)
                    if word not in STOP:
                        forms[stem][word] += 1
                        behind[stem] += before in PREPOSITIONS
                    if written[0].islower():
                        small.add(word)
                    elif before:
                        large.add(word)
                    before = word
            documents.update(stems)
        if not number:
            raise ValueError("Themes are told from a corpus, and there is no poem in this one.")
        nouns = {
            stem: word
            for stem, found in forms.items()
            if behind[stem] >= NOUN * found.total()
            and sum(n for form, n in found.items() if is_adjective(form)) < ADJECTIVE * found.total()
            and (word := nominative(stem, found))
        }
        return cls(number, documents, nouns, frozenset(small), frozenset(large - small))

    def theme(self, poem: Poem) -> str:
        """The title if it is a theme (`title_theme`), else what stands out in the text (`salient`)."""
        expect(poem, Poem, "The poem", "a Poem(text)")
        return self.title_theme(poem) or self.salient(poem.text)

    def salient(self, text: str) -> str:
        """The noun that stands out in a text, or two ("море, ветер"), in the nominative; names with a capital.

        The score is (1 + ln tf) · ln(1/share), share being that of the poems that have the word. The earlier word comes
        first among equals. A text without a known noun gives its first word that is no pronoun or particle.
        """
        words = [word for word in map(fold, WORD.findall(text)) if word.partition("-")[0] not in STOP]
        often = Counter(stem for stem in map(without_ending, words) if stem in self.nouns and len(stem) > 2)
        if not often:
            return next((word for word in words if len(word) > 2), "жизнь")
        rare = {stem: -log(max(self.documents[stem] / self.poems, RAREST)) for stem in often}
        scores = {stem: (1 + log(often[stem])) * rare[stem] for stem in often}
        best = sorted(scores, key=scores.__getitem__, reverse=True)[:2]  # a stable sort: the earlier first
        return ", ".join(self._written(self.nouns[stem]) for stem in best if scores[stem] >= ALMOST * scores[best[0]])

    def title_theme(self, poem: Poem) -> str:
        """The title as a theme, or "" for one that is none.

        It is none if it is longer than `LONGEST` words; has a figure, a full stop, a star, an initial or a Latin letter
        in it («К ***», «19 октября», «Одиссея. Песнь II»); names a form («Элегия») or what was its occasion («Из
        письма…»); addresses a person («К Наталье», «Друзьям», «Ответ Катенину»); is that of a work of which this is a
        part; or repeats the first line. Brackets and quotation marks are taken off, and the first letter is made small
        but in names.
        """
        title = re.sub("[«»\"'„“”]", "", re.sub(r"\s*[(\[].*?[)\]]", "", poem.title)).strip(" .,:;!?—-")
        words = [fold(word) for word in WORD.findall(title)]
        if (
            not words
            or len(title.split()) > LONGEST
            or re.search(r"[\d.…*A-Za-z]|(?<=.)\b[А-ЯЁ]\b", title)
            or poem.title.rstrip().endswith(("...", "…"))
            or work_of(poem)
            or self._says_nothing(words)
            or self._addresses(title, words)
            or (len(words) > 2 and word_key(poem.text).startswith(word_key(title)))
        ):
            return ""
        title = title.lower() if title.isupper() else title
        return title if words[0] in self.names else title[0].lower() + title[1:]

    def _says_nothing(self, words: list[str]) -> bool:
        """A form («Песня»), or a form and what it is about, to or from («Ответ на…», «Из письма»)."""
        empty = _GENRES | STOP | PREPOSITIONS
        return words[0] == "из" or set(words) <= empty or (words[0] in _GENRES and words[1] in PREPOSITIONS)

    def _addresses(self, title: str, words: list[str]) -> bool:
        """«К морю», «Друзьям», «На Каченовского», «Екатерине Павловне Пешковой», «Ответ Катенину»."""
        capital = [word[0].isupper() for word in WORD.findall(title)]
        if title.isupper():
            capital = [True] + [False] * (len(words) - 1)
        names = [word for word, large in zip(words, capital, strict=True) if large and word not in self.small]
        return (
            words[0] in ("к", "ко", "князю", "графу", "графине", "княгине")
            or (words[0] in ("на", "в", "по", "при") and len(capital) > 1 and capital[1])
            or (len(words) == 1 and bool(re.search("(?:[ую]|[ая]м|[ое]му)$", words[0])))
            or sum(capital[1:]) > 1
            or any(re.search("(?:[ую]|(?<![иь])е|ому|ой|ым)$", name) for name in names)
        )

    def _written(self, word: str) -> str:
        return word[0].upper() + word[1:] if word in self.names else word


def is_adjective(word: str) -> bool:
    """Whether a word has an ending that, at this place, only adjectives have."""
    return bool(_ONLY_ADJECTIVE.search(word, 3))


def nominative(stem: str, forms: Counter[str]) -> str:
    """The nominative singular of a noun, told from the forms in which a corpus has it; "" if they do not tell it.

    The instrumental is what tells genders apart: осенью → осень, рукой → рука, домом → дом, окном → окно, морем → море.
    """

    def count(*endings: str) -> int:
        return sum(forms[stem + ending] for ending in endings)

    if len(stem) == 3 and forms.total() == count(""):  # too short for endings to be taken off: бой, сон, имя
        return "" if stem[-1] in "уюиые" else stem
    masculine, hard_feminine = count("ом", "ем", "ов", "ев"), count("ой", "ою", "ею")
    feminine = hard_feminine + count("ей") * stem.endswith("ц")
    soft = count("ью", "ем") or (count("ь") > count("я", "ю") and not stem.endswith("т"))  # неделя has недель, too
    rules = (  # (ending, whether it is that of the nominative); the first that fits and is common enough
        ("ья", count("ья") > count("ье") and count("ьи", "ьей", "ьею") > count("ьем", "ий")),
        ("ье", count("ье") > count("ие") and count("ья", "ью", "ьем")),
        ("ие", count("ие") and count("ия", "ию", "ием")),
        ("ия", count("ия") and count("ии", "ию", "ией")),
        ("ь", soft and count("ь", "ью") > hard_feminine + count("ом", "ов")),
        ("й", count("й") and count("я", "ю", "ем")),
        ("о", count("о", "ом") > feminine + count("") and count("о")),
        ("е", count("е") > count("", "и", "ы") and count("ем") > count("ом") + feminine),
        ("", masculine > feminine or (masculine == feminine and count("") > count("а", "я", "у", "ю") > 0)),
        ("а", feminine >= max(masculine, 1) and count("а") > count("я")),
        ("я", hard_feminine >= masculine and count("ей", "ею")),
    )
    if len(forms) == 1:
        return ""
    common = COMMON * forms.total()
    return next((stem + ending for ending, fits in rules if fits and count(ending) >= common), "")
