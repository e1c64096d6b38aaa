"""The grammar of written reviews: what it makes, counted by hand; its mistakes; and the reviews of the package."""

import re
from collections import Counter
from itertools import product

import pytest

from minipoet.text.errors import CorpusError
from minipoet.text.reviews import RATINGS, count_ratings, read_reviews
from minipoet.text.variations import PUBLIC, how_many, split_written, vary
from minipoet.text.written import parse_written, read_written

CAFE = """# придумано
= Кафе

* 5 Кафе «Липа»
начало: {Зашли|Заглянули} сюда {вечером|утром}.
кухня: {Суп|Борщ} горячий.\\n
цены: Недорого.

* 5 Кафе «Клён»
кухня: Пирог {лёгкий|нежный|сладкий}.
цены: {Всё|Обед} по карману.

* 2 Кафе «Ясень»
кухня: Пирог сухой.
"""


@pytest.fixture
def cafe(tmp_path):
    path = tmp_path / "cafe.txt"
    path.write_text(CAFE, encoding="utf-8")
    return read_written(path)


def test_review_is_read_as_it_was_written(cafe):
    assert [(one.rubric, one.rating, one.name) for one in cafe] == [
        ("Кафе", 5, "Кафе «Липа»"), ("Кафе", 5, "Кафе «Клён»"), ("Кафе", 2, "Кафе «Ясень»"),
    ]  # fmt: skip
    assert cafe[0].text() == "Зашли сюда вечером. Суп горячий.\nНедорого."
    assert cafe[0].source == "cafe.txt:4"
    assert cafe[1].review().rubrics == ("Кафе",)


def test_number_of_possible_texts_is_the_product_of_sums(cafe):
    # липа: начало 2·2 = 4; кухня 2 + 3 = 5; цены 1 + 2 = 3: 60. клён: 5·3 = 15. ясень: 1.
    assert how_many(cafe) == 76
    assert how_many([*cafe, cafe[1]]) == 76  # the same again makes nothing new


def test_all_possible_texts_are_found_and_no_other(cafe):
    kitchen = [
        *(f"{a} горячий.\n" for a in ("Суп", "Борщ")),
        *(f"Пирог {a}. " for a in ("лёгкий", "нежный", "сладкий")),
    ]
    prices = ["Недорого.", "Всё по карману.", "Обед по карману."]
    begin = [f"{a} сюда {b}. " for a in ("Зашли", "Заглянули") for b in ("вечером", "утром")]
    fives = {"".join(parts) for parts in [*product(begin, kitchen, prices), *product(kitchen, prices)]}
    assert len(fives) == 75
    assert {review.text for review in vary(cafe, 75, ratings={5: 1})} == fives
    assert [review.text for review in vary(cafe, 1, ratings={2: 1})] == ["Пирог сухой."]


def test_varied_review_keeps_rubric_rating_and_name(cafe):
    for review in vary(cafe, 30, ratings={5: 1}):
        assert (review.rubrics, review.rating) == (("Кафе",), 5)
        assert review.name == ("Кафе «Липа»" if " сюда " in review.text else "Кафе «Клён»")


def test_variations_depend_on_the_seed_alone(cafe):
    assert vary(cafe, 20, seed=3, ratings={5: 1}) == vary(cafe, 20, seed=3, ratings={5: 1})
    assert vary(cafe, 20, seed=3, ratings={5: 1}) != vary(cafe, 20, seed=4, ratings={5: 1})


def test_more_than_there_can_be_is_refused_with_the_numbers(cafe):
    with pytest.raises(ValueError, match=r"2 of rating 2, of which 1 written reviews make 1"):
        vary(cafe, 4, ratings={2: 1, 5: 1})
    with pytest.raises(ValueError, match=r"of rating 1, of which 0 written reviews make 0; .* of rating 3"):
        vary(cafe, 100)
    for wrong in ({6: 1}, {5: -1}, {5: 0}, {}):
        with pytest.raises(ValueError, match="how many there are of each from 1 to 5"):
            vary(cafe, 1, ratings=wrong)


MISTAKES = """кухня: до всего
* 5 Кафе «Раз»
кухня: {Суп|Борщ горячий.
цены: {Суп} горячий.
обслуживание: {Суп|} горячий.
обстановка: {Суп|{Борщ|Щи}} горячий.
чистота: Суп | борщ.
кофе: {Суп|Суп} горячий.
начало:
конец: Раз\\nдва.
* 6 Кафе «Два»
кухня: Раз.
кухня: Два.
* 4
обслуживнаие: Раз.
просто предложение
* 3 Кафе «Три»
обслуживание: Два.
= Кафе
* 3 Кафе «Четыре»
= Бар
"""


def test_all_mistakes_of_a_file_are_told_with_their_lines(tmp_path):
    found = dict(mistake.split(": ", 1) for mistake in parse_written(MISTAKES, "x.txt")[1])
    expected = {
        1: "a sentence before the first review", 3: "unbalanced or nested braces", 4: "at least two alternatives",
        5: "an empty alternative in {Суп|}", 6: "unbalanced or nested braces", 7: "a | outside of braces",
        8: "no two of them equal", 9: "an empty sentence", 10: "a backslash", 11: "a rating of 1 to 5",
        13: "the aspect «кухня» a second time", 14: "a review begins as `* 5 name`",
        15: "unknown aspect «обслуживнаие»: did you mean «обслуживание»?", 16: "expected `aspect: sentence`",
        19: "a second rubric", 20: "a review without a sentence", 21: "a second rubric",
    }  # fmt: skip
    assert sorted(found, key=lambda place: int(place[6:])) == [f"x.txt:{number}" for number in expected]
    assert all(told in found[f"x.txt:{number}"] for number, told in expected.items())


def test_mistakes_of_all_files_are_one_error(tmp_path):
    (tmp_path / "a.txt").write_text("= Кафе\n* 9 Раз\nкухня: Раз.\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("* 5 Раз\nкухня: Раз.\n", encoding="utf-8")
    (tmp_path / "c.txt").write_bytes("= Кафе".encode("cp1251"))
    with pytest.raises(CorpusError, match=r"3 mistake\(s\)(.|\n)*a.txt:2: .*\n.*b.txt:1: no rubric.*\n.*c.txt: cannot"):
        read_written(tmp_path)
    with pytest.raises(CorpusError, match="no written reviews there"):
        read_written(tmp_path / "nothing")


# The reviews of the package.

WRITTEN = read_written()
SIDES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def test_package_has_enough_written_reviews_of_every_rating_in_every_kind():
    assert len(WRITTEN) >= 300
    kinds = Counter((one.rubric, one.rating) for one in WRITTEN)
    rubrics = {rubric for rubric, _ in kinds}
    assert len(rubrics) >= 12
    assert [(rubric, rating) for rubric in rubrics for rating in RATINGS if not kinds[rubric, rating]] == []


def test_no_written_review_no_place_and_no_sentence_stands_twice():
    for what in (
        [one.text() for one in WRITTEN],
        [(one.rubric, one.name) for one in WRITTEN],
        [(one.rubric, sentence.text()) for one in WRITTEN for sentence in one.sentences],
    ):
        assert [value for value, count in Counter(what).items() if count > 1] == []


def test_every_form_of_every_sentence_is_well_formed():
    spaces = re.compile(r"  |^ | $|\s[,.!?:;]|[(«]\s|\s[)»]|,[^\s\d»)]|[{}|\\]|\.\.\.\.|,,")
    wrong = []
    for one in WRITTEN:
        for sentence in one.sentences:
            longest = max(map(len, sentence.stretches))
            for choice in range(longest):  # every alternative in some form
                form = "".join(stretch[min(choice, len(stretch) - 1)] for stretch in sentence.stretches)
                if spaces.search(form.rstrip("\n")) or form[0].islower():
                    wrong.append((one.source, sentence.aspect, form))
    assert wrong == []


def test_embedded_reviews_are_ten_thousand_as_unequal_as_the_public_ones():
    reviews, report = read_reviews("embedded-reviews")
    assert (len(reviews), report.read, report.kept) == (10_000, 10_000, 10_000)
    assert len({review.text for review in reviews}) == 10_000
    # 10,000 · 34,351 / 499,800 = 687.3, 241.9, 433.9, 823.5, 7813.4: rounded, 9,999; the largest rest is that of 4
    assert count_ratings(reviews) == {1: 687, 2: 242, 3: 434, 4: 824, 5: 7813}
    assert sum(PUBLIC.values()) == 499_800
    assert read_reviews("embedded-reviews", limit=7)[0] == reviews[:7]


def test_sides_of_the_written_reviews_have_no_sentence_in_common_when_varied():
    sides = split_written(WRITTEN, SIDES)
    assert sorted(one.source for side in sides.values() for one in side) == sorted(one.source for one in WRITTEN)
    said = {
        name: {(one.rubric, sentence) for one in side for sentence in one.sentences} for name, side in sides.items()
    }
    assert not said["train"] & said["validation"] and not said["train"] & said["test"]
    assert not said["validation"] & said["test"]
    texts = {name: {review.text for review in vary(side, 100)} for name, side in sides.items()}
    assert not texts["train"] & (texts["validation"] | texts["test"])


def test_reviews_with_a_sentence_in_common_are_on_one_side():
    text = "= Кафе\n" + "".join(f"* 5 Кафе {n}\nкухня: Суп {n}.\nцены: Обед {n % 7}.\n" for n in range(20))
    alike = parse_written(text, "x.txt")[0]  # 0, 7 and 14 have the same words on prices, and so on
    for seed in range(5):
        sides = split_written(alike, {"train": 0.5, "test": 0.5}, seed)
        prices = [{one.sentences[1] for one in side} for side in sides.values()]
        assert not prices[0] & prices[1] and len(prices[0] | prices[1]) == 7


def test_sides_have_their_shares_of_every_rating():
    sides, all_ = split_written(WRITTEN, SIDES), Counter(one.rating for one in WRITTEN)
    for name, side in sides.items():
        counts = Counter(one.rating for one in side)
        assert all(abs(counts[rating] - SIDES[name] * all_[rating]) < 1 for rating in RATINGS)
    kinds = {one.rubric for one in WRITTEN}
    assert {one.rubric for one in sides["train"]} == kinds
