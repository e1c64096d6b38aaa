"""Keywords of a review: the words that are often in it and in few others, by tf–idf over stems.

    score(stem) = (1 + ln tf) · ln((1 + N) / max(df, RAREST · N, 1))

tf is how often the text has the stem, df how many of the N training texts have it. The logarithm of the first keeps a
word said five times from being all there is; the bound on the second keeps a word that three people ever wrote from
being five times as good as кофе: what one wants is a word that a user might give, and that a model has seen. Words of
fewer than `KNOWN` texts (names, misspellings) come last.
(Spärck Jones, "A Statistical Interpretation of Term Specificity and Its Application in Retrieval", 1972.)

There is no dictionary: stems are words without the endings of nouns and adjectives, and without -ся. A word that
stands behind prepositions is a noun, and nouns come before others; what does not, and ends as verbs do, is left out. A
keyword is written in the nominative where the other forms of a noun tell it, else in the commonest that may be one.

    Keywords.of(texts)      counts the training texts, and only these: what is held out must not be counted
    keywords.extract(text)  up to five words, the best first
    covers(keyword, text)   is the keyword in the text, in whatever form?
    stem                    "десерты", "десертом" -> "десерт"

Chapter: docs/reviews.md.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from math import log

from minipoet.checks import each, expect, expect_whole
from minipoet.text.stems import PREPOSITIONS, STOP, WORD, fold, without_ending, word_set
from minipoet.text.themes import ADJECTIVE, NOUN, is_adjective, nominative

RAREST = 0.02  # a word of fewer of the texts than this is not a better keyword for being rarer
KNOWN = 2  # texts that must have a word, else it comes after all others
SHORTEST = 3  # letters of a keyword
OTHERS = 0.7  # what the score of a word counts that is no noun: of кофе, уютно and вкусный the first comes first

_SAYS_NOTHING = word_set(  # besides STOP: what people write in every review, whatever it is about
    """абсолютно большое будем будете будут буквально быстро весной весьма вечер вечером вещь вместо вообще восемнадцать
    восемь восемьдесят восьми вполне время все-таки всякий вторая второе второй где-то год года году два двадцать дважды
    две двенадцать двести двоих девяносто девяти девять действительно делать день десяти десять дней днем дни дню дня
    довольны думать единственное ехать заодно запросто зато зимой именно иначе иногда итог кажется как-то какая-то
    какие-то какой-то когда-то кое-что кому-то конечно короче которая которого которое которой котором которому которую
    которые который которым которых кстати кто-то куда-то лет летом либо любой людей люди максимально месяц месяца минут
    минуту минуты можете мол наверное надеюсь например настолько насчет недели недель неделю некоторые немного несколько
    нигде никак никакие никаких никакого никакой никогда ничуть ночь ночью нужно общем общий обычно огромное одиннадцать
    осенью особенно особо остались остальное отзыв отзывы оттуда пара пару первая первое первый по-моему поверьте подряд
    полгода полностью половина половину полтора полчаса понравилась понравились понравилось понравился порядке поставил
    поставила потому-то почему-то поэтому правда практически представьте примерно притом причем просто прям прямо пятая
    пяти пятнадцать пятый пять пятьдесят пятьсот разные разный рекомендую руб рублей рубль рубля рядом самое самые
    сделали сделать сейчас семи семнадцать семь семьдесят скажу скорее слишком словно словом случайно совершенно советую
    совсем сорок спасибо сразу стал стала стали стало стоит сутки сюда типа третий третье третьего третью третья
    тридцать тринадцать триста трое туда тысяча тысячи тысячу ужасно утра утро утром хорошо хотелось хочется хочу час
    часа часов часу чего-то человек человека человеку чему четверо четвертый четыре четырнадцать числа что-то шести
    шестнадцать шесть шестьдесят явно"""
)
_ANY_WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*")
_REFLEXIVE = re.compile(r"(?<=[лтмшью])ся$|(?<=[лт][аоие])сь$|(?<=[ую])сь$")
_OBLIQUE = re.compile("(?:[аяыи]ми|[оеыи]м|[аяыи]х|[ая]м|[оеё]в|[оеь][юй]|[оеё]го|[ое]му|[уюе])$")
_VERB = re.compile(  # endings that few words have but verbs; what stands behind prepositions is none all the same
    "(?:[аеиоуыя]ть|[зс]ти|чь|[аеиуыя]л[аио]?|[аеуюя]ют|[аеуюя]ет|ешь|ишь|ит|[жчшщ]ат|[вдзлмнрст]ят|[вджзклмнрстчшщ]ут"
    "|[аеуя]ем|ете|ите|йте|[аеуюя]ю|[жчшщ]у|[аия]в|вши)$"
)


@dataclass(frozen=True)
class Keywords:
    """What so many training `texts` say of words.

    documents: stem -> in how many of them it is; written: stem -> the form that stands for it; nouns: those that stand
    behind prepositions and are not declined as adjectives; verbs: those that do not, and have endings of verbs.
    """

    texts: int
    documents: Counter[str] = field(repr=False)
    written: dict[str, str] = field(repr=False)
    nouns: frozenset[str] = field(repr=False)
    verbs: frozenset[str] = field(repr=False)

    @classmethod
    def of(cls, texts: Iterable[str]) -> Keywords:
        """Counted in one pass over the texts. Raises ValueError if there is none."""
        number, documents = 0, Counter[str]()
        words, behind = Counter[str](), Counter[str]()
        for text in each(texts, str, "The texts", "strings"):
            number += 1
            found = list(map(fold, WORD.findall(text)))
            words.update(found)
            behind.update([word for before, word in pairwise(found) if before in PREPOSITIONS])
            documents.update(set(map(_content, found)))
        if not number:
            raise ValueError("Keywords are told from texts to learn from, and there is none.")
        del documents[""]  # words without content
        forms: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for word, count in words.items():
            if content := _content(word):
                forms[content][word] = count
        kinds = {stem: _kind(of, behind) for stem, of in forms.items()}
        return cls(
            number,
            documents,
            {stem: (kinds[stem] == "noun" and nominative(stem, of)) or _nearest(of) for stem, of in forms.items()},
            frozenset(stem for stem, kind in kinds.items() if kind == "noun"),
            frozenset(stem for stem, kind in kinds.items() if kind == "verb"),
        )

    def extract(self, text: str, most: int = 5) -> tuple[str, ...]:
        """The keywords of a text, the best first (of equals the earlier); () where it has no word of content."""
        expect(text, str, "The text", "a string", "of a Review give its text")
        expect_whole(most=most)
        words = [
            (content, word)
            for word in map(fold, WORD.findall(text))
            if (content := _content(word)) and content not in self.verbs
        ]
        often, first = Counter(stem for stem, _ in words), dict(reversed(words))
        documents, rarest = self.documents, max(RAREST * self.texts, 1)

        def rank(stem: str) -> tuple[bool, float]:
            seen = documents[stem]
            salient = (1 + log(often[stem])) * log((1 + self.texts) / max(seen, rarest))
            return seen >= KNOWN, salient if stem in self.nouns else OTHERS * salient

        best = sorted(often, key=rank, reverse=True)[:most]  # a stable sort
        return tuple(self.written.get(stem) or first[stem] for stem in best)


def covers(keyword: str, text: str) -> bool:
    """Whether every word of the keyword is in the text, in whatever form: the stems are compared. Without a word: no.

    What is in other letters, or in digits ("wi-fi"), counts as it is written.
    """
    expect(keyword, str, "The keyword", "a string")
    expect(text, str, "The text", "a string")
    wanted = set(map(stem, _ANY_WORD.findall(keyword)))
    return bool(wanted) and wanted <= set(map(stem, _ANY_WORD.findall(text)))


def stem(word: str) -> str:
    """A word without its ending, and without -ся and -сь of verbs: "десертом" -> "десерт", "улыбались" -> "улыбал"."""
    return _stem(fold(word))


@lru_cache(maxsize=2**18)
def _stem(word: str) -> str:
    match = _REFLEXIVE.search(word, 4)
    return without_ending(word[: match.start()] if match else word)


@lru_cache(maxsize=2**18)
def _content(word: str) -> str:
    """The stem of a folded word, or "" for one that says nothing of what a text is about."""
    return "" if len(word) < SHORTEST or word in STOP or word in _SAYS_NOTHING else _stem(word)


def _kind(forms: Counter[str], behind: Counter[str]) -> str:
    """Whether words with these forms are a "noun", a "verb" or something else, "", by their places and endings."""
    total = forms.total()
    if sum(count for form, count in forms.items() if is_adjective(form)) >= ADJECTIVE * total:
        return ""
    if sum(behind[form] for form in forms) >= NOUN * total:
        return "noun"
    return "verb" if 2 * sum(count for form, count in forms.items() if _is_verb(form)) > total else ""


def _is_verb(word: str) -> bool:
    return bool(_REFLEXIVE.search(word, 4) or _VERB.search(word))


def _nearest(forms: Counter[str]) -> str:
    """The form nearest to that of a dictionary: none in an oblique case if there is another; then the commonest one.

    Of equals the shortest: вкусно before вкусный.
    """
    return min(forms, key=lambda form: (bool(_OBLIQUE.search(form, 3)), -forms[form], len(form), form))
