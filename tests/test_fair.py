"""Fair bits per character, by hand: one count of characters for all, and unknown words and letters paid for."""

import math

import pytest

from minipoet.evaluation import Likelihood, Spelling, fair_bits, unknown_cost
from minipoet.evaluation.spelling import CODE_POINTS
from minipoet.tokenization import CharTokenizer, WordTokenizer, train_bpe

TEXTS = ["дом а\nдом", "дом"]  # 9 + 1 and 3 + 1 characters
CHARACTERS = 14


def bits(nats: float) -> float:
    return nats / math.log(2) / CHARACTERS


def test_ends_of_texts_are_characters_and_all_tokenizers_have_one_count():
    for tokenizer, tokens in (
        (CharTokenizer.from_texts(TEXTS), 14),
        (WordTokenizer.from_texts(TEXTS, min_count=1), 7),  # дом а \n дом, дом, and two ends
        (train_bpe(TEXTS, 259), 24),  # no merge: 16 + 6 bytes and two ends
    ):
        for characters in (1, 12):  # what was said there does not matter
            found = Likelihood(28 * math.log(2), tokens, characters)
            assert fair_bits(found, tokenizer, TEXTS) == pytest.approx(2)


def test_unknown_words_pay_for_their_letters():
    tokenizer = WordTokenizer.from_texts(["дом дом\n"], min_count=1)
    spelling = Spelling(["а"], order=1)  # а 5/12, end 5/12, any other letter 1/6
    texts = ["дом а\nя", "дом"]  # unknown: а, я; 8 + 4 characters
    found = Likelihood(3.0, 7, 1)
    cost = -math.log(5 / 12 * 5 / 12) - math.log(1 / 6 / CODE_POINTS * 5 / 12)
    assert unknown_cost(tokenizer, texts, spelling) == pytest.approx(cost)
    assert fair_bits(found, tokenizer, texts, spelling) == pytest.approx((3 + cost) / math.log(2) / 12)


def test_a_word_of_one_letter_is_no_letter():
    tokenizer = WordTokenizer.from_texts(["дом"], min_count=1)
    with pytest.raises(ValueError, match="lacks 1 words of these texts, the first is 'я': give a Spelling"):
        unknown_cost(tokenizer, ["я дом"])
    assert unknown_cost(tokenizer, ["дом дом"]) == 0


def test_unknown_letters_pay_for_the_choice_among_all():
    tokenizer = CharTokenizer.from_texts(["ааб"], min_count=2)
    assert unknown_cost(tokenizer, ["абв", "а"]) == pytest.approx(2 * math.log(CODE_POINTS))
    found = Likelihood(0.0, 6, 1)
    assert fair_bits(found, tokenizer, ["абв", "а"]) == pytest.approx(2 * math.log2(CODE_POINTS) / 6)


def test_a_vocabulary_that_knows_all_costs_nothing_more():
    assert unknown_cost(CharTokenizer.from_texts(TEXTS), TEXTS) == 0
    assert unknown_cost(train_bpe(TEXTS, 300), ["Ъ 🌲"]) == 0
    assert unknown_cost(WordTokenizer.from_texts(TEXTS), TEXTS[1:], Spelling(["а"])) == 0


@pytest.mark.parametrize(
    ("tokens", "texts", "message"),
    [
        (13, TEXTS, "is of 13 tokens, but these texts have 14, their ends counted"),
        (14, TEXTS[:1], "but these texts have 10"),
        (0, [], "but these texts have 0"),
        (14, "дом", "must be a list of strings, got one string"),
    ],
)
def test_a_likelihood_of_other_texts_is_refused(tokens, texts, message):
    with pytest.raises(ValueError, match=message):
        fair_bits(Likelihood(1.0, tokens, 14), CharTokenizer.from_texts(TEXTS), texts)


def test_what_is_no_likelihood_or_spelling_is_told():
    tokenizer = CharTokenizer.from_texts(TEXTS)
    with pytest.raises(ValueError, match="The likelihood must be a Likelihood, got 2.5"):
        fair_bits(2.5, tokenizer, TEXTS)
    with pytest.raises(ValueError, match="spelling must be a Spelling or None, got list"):
        unknown_cost(tokenizer, TEXTS, ["а"])
