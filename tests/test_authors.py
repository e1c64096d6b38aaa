"""The judge of authors: by hand, on authors whose truth is known, and on verse that he has not read."""

import math
import random

import pytest

from minipoet.evaluation import authors
from minipoet.evaluation.authors import AuthorJudge, pieces, spread, words
from minipoet.evaluation.samples import wilson
from minipoet.text import read_corpus, split_by_work

TWO = {"А": ["ааа", "ааа"], "Б": ["ббб", "ббб"]}


def syllables(favourite: str, texts: int, of: int, seed: int) -> list[str]:
    """Texts of invented words; one in twelve is of an author's favourite syllables."""
    draw = random.Random(seed)

    def word() -> str:
        source = favourite if draw.random() < 1 / 12 else "бавилоденужатехо"
        return "".join(source[i : i + 2] for i in (2 * draw.randrange(len(source) // 2) for _ in range(2)))

    return [" ".join(word() for _ in range(of)) for _ in range(texts)]


@pytest.fixture(scope="module")
def invented() -> AuthorJudge:
    return AuthorJudge.fit({"жи": syllables("жиши", 120, 20, 1), "ча": syllables("чаща", 120, 20, 2)})


# What he reads


def test_words_are_all_that_is_read():
    assert words("Мороз — и «солнце»;\n\nЁлка! 1830 adieu") == " мороз и солнце елка "


def test_typography_tells_nothing(invented):
    text = "бави лоде жиши, чаще"
    reprinted = "БАВИ — «лодё»\n\nжиши... Чаще!"
    assert invented.scores(text) == invented.scores(reprinted)


def test_runs_are_numbers_by_hand():
    # " аб ": the space is 1, а 2, б 3, in base 34
    assert authors._runs(" аб ", (1, 2)).tolist() == [1, 2, 3, 1, 34 + 2, 2 * 34 + 3, 3 * 34 + 1]


def test_different_runs_are_different_numbers():
    said = words(read_corpus("embedded")[0].text)
    lengths = (1, 2, 3, 12)
    runs = {said[i : i + n] for n in lengths for i in range(len(said) - n + 1)}
    assert len(set(authors._runs(said, lengths).tolist())) == len(runs)


def test_pieces_are_even_and_end_with_lines():
    assert pieces("аааа\nбб\nвв\nгггг", 8) == ["аааа\nбб", "вв\nгггг"]
    assert pieces("а\n\nб", 400) == ["а\n\nб"]
    assert pieces("одна очень длинная строка", 5) == ["одна очень длинная строка"]
    assert pieces(" \n\n", 5) == []


def test_pieces_lose_no_line():
    text = read_corpus("embedded")[3].text
    found = pieces(text, 90)
    assert len(found) > 2
    assert [line for piece in found for line in piece.split("\n") if line] == [x for x in text.split("\n") if x]


def test_spread_pieces_are_mixed_and_have_words():
    texts = [f"{letter * 9}\n{letter * 9}" for letter in "абвг"] + ["* * *"]
    found = spread(texts, 9)
    assert sorted(found) == sorted(letter * 9 for letter in "ааббввгг")
    assert spread(reversed(texts), 9) == found


# What he makes of it


def test_scores_by_hand():
    judge = AuthorJudge.fit(TWO, orders=(1,), smoothing=1)
    # " ааа ааа ": 3 spaces and 6 «а», so p(а | А) = 7/12 and p(а | Б) = 1/12. In " аа " two of four letters speak for
    # А, the evidence differs by 2 · ln 7 / 4, and √4 times that is ln 7.
    scores = judge.scores("аа")
    assert scores["А"] / scores["Б"] == pytest.approx(7**judge.sureness)
    assert sum(scores.values()) == pytest.approx(1)
    assert judge.scores("аб") == pytest.approx({"А": 0.5, "Б": 0.5})
    assert judge.letters == (9, 9)


def test_runs_that_nobody_used_speak_for_nobody():
    judge = AuthorJudge.fit(TWO, orders=(1,))
    assert judge.scores("яяяя") == pytest.approx({"А": 0.5, "Б": 0.5})


def test_a_judge_without_a_mistake_is_not_certain():
    scores = AuthorJudge.fit(TWO, orders=(1,)).scores("ааа")
    assert 0.6 < scores["А"] < 0.999


def test_the_same_texts_give_the_same_judge(invented):
    again = AuthorJudge.fit({"жи": syllables("жиши", 120, 20, 1), "ча": syllables("чаща", 120, 20, 2)})
    assert again.scores("бави жичи ноде") == invented.scores("бави жичи ноде")


def test_probabilities_are_as_often_right_as_they_say(invented):
    unread = {"жи": syllables("жиши", 300, 20, 3), "ча": syllables("чаща", 300, 20, 4)}
    said = [max(invented.scores(text).values()) for own in unread.values() for text in own]
    right = invented.accuracy(unread).value
    assert 0.6 < right < 0.95
    assert sum(said) / len(said) == pytest.approx(right, abs=0.05)


def test_who_wrote_more_is_not_favoured():
    same = syllables("жиши", 330, 20, 5)
    judge = AuthorJudge.fit({"much": same[:300], "little": same[300:]})
    taken = judge.confusion({"much": syllables("жиши", 200, 20, 6)})["much"]
    assert 60 < taken["much"] < 140


def test_authors_who_do_not_differ_are_not_told_apart():
    judge = AuthorJudge.fit({name: syllables("жиши", 60, 20, seed) for seed, name in enumerate("абв")})
    found = [max(judge.scores(text).values()) for text in syllables("жиши", 50, 20, 9)]
    assert sum(found) / len(found) < 0.5


def test_poets_are_told_apart_on_verse_that_was_not_read():
    names = {"Пушкин": "embedded", "Лермонтов": "embedded-lermontov"}
    halves = {poet: split_by_work(read_corpus(name), 0.5) for poet, name in names.items()}
    judge = AuthorJudge.fit({poet: [poem.text for poem in half.train] for poet, half in halves.items()})
    unread = {poet: [poem.text for poem in half.validation][:25] for poet, half in halves.items()}
    assert judge.accuracy(unread).low > 0.5


# What is counted of his answers


def test_confusion_and_accuracy_by_hand():
    judge = AuthorJudge.fit(TWO, orders=(1,))
    texts = {"А": ["аа", "ааб", "ббб"], "Б": ["б"]}
    assert judge.confusion(texts) == {"А": {"А": 2, "Б": 1}, "Б": {"А": 0, "Б": 1}}
    assert judge.accuracy(texts) == (0.75, *wilson(3, 4))
    assert judge.author("ббба") == "Б"


# What a careless caller is told


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({}, "takes two or more, got none"),
        ({"Пушкин": ["а", "б"]}, "takes two or more, got Пушкин"),
        ({"Пушкин": ["а", "б"], "Фет": []}, "two texts with Russian words or more of each author; Фет has 0"),
        ({"Пушкин": ["а", "..."], "Фет": ["а", "* * *", "1"]}, "Пушкин has 1, Фет has 1"),
        ({"Пушкин": "а", "Фет": ["а", "б"]}, "The texts of Пушкин must be a list of strings, got one string"),
        ({"Пушкин": ["а", 1], "Фет": ["а", "б"]}, "number 1 of it is 1"),
        (["а", "б"], "must be a mapping, got list"),
    ],
)
def test_texts_that_no_judge_can_learn_from(texts, message):
    with pytest.raises(ValueError, match=message):
        AuthorJudge.fit(texts)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"orders": ()}, "from 1 to 12"),
        ({"orders": (0, 1)}, "from 1 to 12"),
        ({"orders": (13,)}, "from 1 to 12"),
        ({"orders": 4}, "from 1 to 12"),
        ({"smoothing": 0}, "smoothing, .* above 0, got 0"),
        ({"smoothing": math.nan}, "smoothing, .* above 0, got nan"),
        ({"characters": 0}, "characters=0"),
    ],
)
def test_settings_that_make_no_judge(settings, message):
    with pytest.raises(ValueError, match=message):
        AuthorJudge.fit(TWO, **settings)


@pytest.mark.parametrize("text", ["", " \n", "... — !", "adieu 1830"])
def test_texts_without_a_word_have_no_author(text):
    judge = AuthorJudge.fit(TWO)
    for ask in (judge.author, judge.scores):
        with pytest.raises(ValueError, match="Russian words, and there are none"):
            ask(text)


@pytest.mark.parametrize("texts", [{}, {"А": []}, {"Фет": ["а"]}])
def test_texts_of_strangers_and_of_nobody_have_no_accuracy(texts):
    with pytest.raises(ValueError, match="The judge knows А, Б, and wants one text at least of each author; got"):
        AuthorJudge.fit(TWO).accuracy(texts)
