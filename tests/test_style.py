"""How often the asked poet comes out: dividing the verse, counting, comparing."""

import pytest

from minipoet.evaluation.authors import AuthorJudge
from minipoet.evaluation.samples import wilson
from minipoet.evaluation.style import NOBODY, how_often, quatrains_asked, split_for_judge
from minipoet.text import CorpusError, Poem, check_apart, read_corpus


@pytest.fixture(scope="module")
def judge() -> AuthorJudge:
    return AuthorJudge.fit({"А": ["ааа", "ааа"], "Б": ["ббб", "ббб"]}, orders=(1,))


@pytest.fixture(scope="module")
def poems() -> dict[str, list[Poem]]:
    return {"Пушкин": read_corpus("embedded"), "Лермонтов": read_corpus("embedded-lermontov")}


# Dividing


def test_three_parts_share_no_work_and_lose_no_poem(poems):
    parts = split_for_judge(poems, judge=0.3, test=0.2)
    for author, own in poems.items():
        generator, learnt = parts.generator[author], parts.judge[author]
        test = [poem for poem in own if poem not in generator and poem not in learnt]
        assert len(generator) + len(learnt) + len(test) == len(own)
        for one, other in ((generator, learnt), (generator, test), (learnt, test)):
            check_apart(one, other)
        lines = {line for poem in test for line in poem.text.split("\n")}
        assert {line for piece in parts.test[author] for line in piece.split("\n")} <= lines


def test_shares_are_as_asked(poems):
    parts = split_for_judge(poems, judge=0.3, test=0.2)
    for author, own in poems.items():
        total = sum(len(poem.text) for poem in own)
        assert sum(len(poem.text) for poem in parts.judge[author]) / total == pytest.approx(0.3, abs=0.05)
        assert sum(len(poem.text) for poem in parts.generator[author]) / total == pytest.approx(0.5, abs=0.05)


def test_test_has_as_many_pieces_of_each_author_and_of_the_asked_length(poems):
    short, long = (split_for_judge(poems, characters=n).test for n in (100, 400))
    assert len({len(own) for own in short.values()}) == 1
    assert len(short["Пушкин"]) > 2 * len(long["Пушкин"])
    lengths = [len(piece) for own in short.values() for piece in own]
    assert sum(lengths) / len(lengths) == pytest.approx(100, rel=0.3)


def test_division_is_a_function_of_the_seed(poems):
    assert split_for_judge(poems, seed=1) == split_for_judge(poems, seed=1)
    assert split_for_judge(poems, seed=1).judge != split_for_judge(poems, seed=2).judge


def test_authors_with_too_few_poems_are_told_together():
    few = {"Пушкин": read_corpus("embedded")[:19], "Фет": [], "Лермонтов": read_corpus("embedded-lermontov")}
    with pytest.raises(ValueError, match="at least 20 poems of each author.*; Пушкин has 19, Фет has 0: bring more"):
        split_for_judge(few)
    with pytest.raises(ValueError, match="there are none"):
        split_for_judge({})


def test_poems_of_one_work_are_not_divided():
    chapters = [Poem(f"Строка {n} поэмы,\nдругая {n}.", work="Поэма") for n in range(30)]
    with pytest.raises(CorpusError, match="belong together"):
        split_for_judge({"Фет": chapters})


@pytest.mark.parametrize("shares", [(0, 0.1), (0.5, 0.5), (0.3, -0.1), ("a", 0.1)])
def test_shares_that_leave_nothing(poems, shares):
    with pytest.raises(ValueError, match="above 0, and below 1 together"):
        split_for_judge(poems, *shares)


# Counting


def test_report_by_hand(judge):
    report = how_often(judge, {"А": ["ааа", "а б а", "бб", "..."], "Б": ["бб", "ббба"]})
    assert report.taken == {"А": ("А", "А", "Б", NOBODY), "Б": ("Б", "Б")}
    assert report.by_author == {"А": (0.5, *wilson(2, 4)), "Б": (1.0, *wilson(2, 2))}
    assert report.all == (4 / 6, *wilson(4, 6))
    assert report.confusion == {"А": {"nobody": 1, "А": 2, "Б": 1}, "Б": {"Б": 2}}
    assert report.hits == [True, True, False, False, True, True]


def test_base_and_adapted_are_compared_prompt_by_prompt(judge):
    base = how_often(judge, {"А": ["б"] * 8, "Б": ["б"] * 8})
    adapted = how_often(judge, {"А": ["а"] * 8, "Б": ["б"] * 8})
    difference = adapted.against(base)
    assert difference.value == 0.5
    # As McNemar's exact test: of 8 poems that differ, all 8 one way, 2 / 2 ** 8
    assert difference.p == pytest.approx(2 / 2**8, abs=0.008)
    assert adapted.against(adapted).p == 1


def test_what_was_asked_differently_is_not_compared(judge):
    one, other = how_often(judge, {"А": ["а"]}), how_often(judge, {"Б": ["а"]})
    with pytest.raises(ValueError, match="prompt by prompt"):
        one.against(other)
    with pytest.raises(ValueError, match="a StyleReport, got list"):
        one.against([True])


@pytest.mark.parametrize("poems", [{}, {"А": []}, {"Фет": ["а"], "А": ["а"]}])
def test_poems_of_strangers_and_of_nobody_are_not_judged(judge, poems):
    with pytest.raises(ValueError, match="The judge knows А, Б, and wants"):
        how_often(judge, poems)


def test_a_string_is_no_list_of_poems(judge):
    with pytest.raises(ValueError, match="The poems of А must be a list of strings, got one string"):
        how_often(judge, {"А": "ааа"})


def test_quatrains_by_hand():
    four, three = "а\nа\nа\nа", "а\nа\nа"
    texts = ["\n\n".join([four] * n) for n in (4, 4, 2)] + ["\n\n".join([four, four, three, four]), "а"]
    found = quatrains_asked(texts)
    assert found.share == (2 / 5, *wilson(2, 5))
    assert found.mean == (4 + 4 + 2 + 3 + 0) / 5
    assert quatrains_asked(texts, asked=2).share.value == 1 / 5


def test_no_quatrains_in_nothing():
    with pytest.raises(ValueError, match="got none"):
        quatrains_asked([])
    with pytest.raises(ValueError, match="asked=0"):
        quatrains_asked(["а"], asked=0)
