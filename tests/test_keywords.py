"""Keywords: scores by hand, stems, and which form of a word is written."""

from math import log

import pytest

from minipoet.text.keywords import OTHERS, Keywords, covers, stem

# Four texts; behind prepositions: кофе, десерт, столик, парк.
TEXTS = [
    "Зашли за кофе. Кофе вкусный, столик у окна.",
    "Пили кофе с десертом, десерты вкусные.",
    "За десертом сюда! Десерт свежий, столики в саду, столиков мало.",
    "Парк большой, гуляли у парка, за столиком в парке сидели. Вкусно. Парк!",
]


@pytest.fixture(scope="module")
def keywords() -> Keywords:
    return Keywords.of(TEXTS)


def test_documents_are_counted_once_a_text_by_stems(keywords):
    counts = {word: keywords.documents[stem(word)] for word in ("кофе", "десерт", "столик", "парк", "вкусно")}
    assert counts == {"кофе": 2, "десерт": 2, "столик": 3, "парк": 1, "вкусно": 3}
    assert "" not in keywords.documents and "за" not in keywords.documents


def test_best_keyword_is_often_here_and_rare_elsewhere(keywords):
    # (1 + ln 2) · ln(5/2) = 1.55 for кофе, ln(5/2) = 0.92 for десерт, ln(5/3) = 0.51 for столик, 0.7 · 0.51 for вкусно
    assert (1 + log(2)) * log(5 / 2) > log(5 / 2) > log(5 / 3) > OTHERS * log(5 / 3)
    text = "Вкусно. Столики, десерты, кофе. И ещё кофе!"
    assert keywords.extract(text) == ("кофе", "десерт", "столик", "вкусно")
    assert keywords.extract(text, most=2) == ("кофе", "десерт")


def test_earlier_word_comes_first_among_equals(keywords):
    assert keywords.extract("кофе, десерт") == ("кофе", "десерт")
    assert keywords.extract("десерт, кофе") == ("десерт", "кофе")


def test_word_that_no_two_texts_have_comes_last(keywords):
    # парк is in one text, кофейня in none (it counts as one), столик in three
    assert keywords.extract("парк, парк, кофейня, столик") == ("столик", "парк", "кофейня")


def test_rarer_word_is_better_to_a_limit():
    many = Keywords.of([*["чай"] * 3, *["мёд"] * 2, *["сыр"] * 8, *["да"] * 187])  # 3, 2 and 8 of 200: the limit is 4
    assert many.extract("чай, мёд") == ("чай", "мед")
    assert many.extract("сыр, чай") == ("чай", "сыр")


def test_keyword_is_written_in_the_nominative_or_else_as_it_is_mostly_met(keywords):
    assert keywords.extract("десертами") == ("десерт",)
    assert keywords.extract("у столика") == ("столик",)
    assert keywords.written[stem("вкусный")] == "вкусно"  # вкусный, вкусные, вкусно once each: the shortest, then а–я


def test_verbs_and_empty_words_are_no_keywords(keywords):
    assert keywords.extract("Очень довольны, спасибо! Пили, сидели, гуляли. Рекомендую, 10 из 10") == ()
    assert keywords.extract("") == keywords.extract("👍 :)") == ()


def test_noun_with_the_ending_of_a_verb_is_told_by_prepositions():
    assert Keywords.of(["Персонал хороший, к персоналу вопросов нет."] * 2).extract("персонал") == ("персонал",)
    assert Keywords.of(["Он сделал хорошо, сделали быстро."] * 2).extract("сделал") == ()


def test_keywords_do_not_depend_on_the_order_of_the_texts(keywords):
    assert Keywords.of(TEXTS[::-1]) == keywords


def test_no_text_to_count_and_no_string_are_told():
    with pytest.raises(ValueError, match="there is none"):
        Keywords.of([])
    with pytest.raises(ValueError, match="one string"):
        Keywords.of("текст")
    with pytest.raises(ValueError, match="most=0"):
        Keywords.of(["чай"]).extract("чай", most=0)


@pytest.mark.parametrize(
    ("word", "expected"),
    [("десертом", "десерт"), ("Десерты", "десерт"), ("Тёплой", "тепл"), ("кофе", "коф"), ("уютная", "уютн"),
     ("уютно", "уютн"), ("улыбались", "улыбал"), ("улыбалась", "улыбал"), ("улыбаются", "улыбают"), ("лось", "лос"),
     ("ось", "ось"), ("Wi-Fi", "wi-fi")],
)  # fmt: skip
def test_stem_is_the_word_without_its_ending(word, expected):
    assert stem(word) == expected


def test_keyword_is_covered_in_any_form_and_any_order():
    assert covers("десерт", "Чудесные ДЕСЕРТЫ!")
    assert covers("тёплый свет", "свет теплых ламп")
    assert covers("wi-fi", "Есть Wi-Fi.")
    assert not covers("десерт", "десертный")
    assert not covers("тёплый свет", "тёплых ламп")
    assert not covers("", "что угодно") and not covers("?", "что угодно")
