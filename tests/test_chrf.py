"""chrF: worked by hand, as sacrebleu answers (tests/reference/record_chrf.py), and what must always hold."""

import random

import numpy as np
import pytest
from reference_data import load_json

from minipoet.evaluation import ChrF, chrf, chrf_rows, compare, sentence_chrf

RECORDED = load_json("chrf")
METRICS = RECORDED["metrics"]
LETTERS = "абв гдё\n.,!"


def random_texts(seed: int, count: int = 30) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices(LETTERS, k=draw.randint(0, 30))) for _ in range(count)]


def test_counts_by_hand():
    one, other, both = [2, 1, 0, 0, 0, 0], [3, 2, 1, 0, 0, 0], [2, 1, 0, 0, 0, 0]
    assert chrf_rows(["аб"], ["абв"]).rows.tolist() == [one + other + both]


@pytest.mark.parametrize(
    ("hypothesis", "reference", "expected"),
    [
        # one letter of nine: 8 of 9 letters match, 6 of 8 pairs, 4 of 7, 2 of 6, 1 of 5, 0 of 4
        ("кот учёный", "кот ученый", 100 * (8 / 9 + 6 / 8 + 4 / 7 + 2 / 6 + 1 / 5) / 6),
        # precision 1 and 1, recall 2/3 and 1/2: 5 · 1 · 7/12 / (4 · 1 + 7/12)
        ("аб", "абв", 100 * 7 / 11),
        # the other way precision and recall change places, and precision counts less
        ("абв", "аб", 100 * 5 * 7 / 12 / (4 * 7 / 12 + 1)),
        # «а» comes three times here, once there: one match. Pairs and threes are not in the reference
        ("ааа", "а", 100 * 5 * (1 / 3) / (4 / 3 + 1)),
        ("снег", "снег", 100),
        ("снег", "дом", 0),
        ("", "дом", 0),
        ("дом", "", 0),
        ("", "", 0),
    ],
)
def test_one_text_by_hand(hypothesis, reference, expected):
    assert sentence_chrf(hypothesis, reference) == pytest.approx(expected, abs=1e-12)


def test_a_corpus_is_counted_together_and_no_mean():
    ours, theirs = ["кот учёный", "аб"], ["кот ученый", "абв"]
    # letters 10 of 11 (12), pairs 7 of 9 (10), threes 4 of 7 (8: «абв» has one), then as with the first pair alone
    precision = (10 / 11 + 7 / 9 + 4 / 7 + 2 / 6 + 1 / 5) / 6
    recall = (10 / 12 + 7 / 10 + 4 / 8 + 2 / 6 + 1 / 5) / 6
    assert chrf(ours, theirs) == pytest.approx(100 * 5 * precision * recall / (4 * precision + recall), abs=1e-12)
    assert chrf(ours, theirs) == pytest.approx(43.478522, abs=1e-6)


def test_words_by_hand():
    # letters: 7 of 8 (7), 6 of 7 (6), 5 of 6, 4 of 5, 3 of 4, 2 of 3; words «кот», «спит», «.»: 2 of 3 (2), 1 of 2 (1)
    precision = (7 / 8 + 6 / 7 + 5 / 6 + 4 / 5 + 3 / 4 + 2 / 3 + 2 / 3 + 1 / 2) / 8
    assert sentence_chrf("кот спит.", "кот спит", word_order=2) == pytest.approx(500 * precision / (4 * precision + 1))


@pytest.mark.parametrize(
    ("hypothesis", "words"),
    [
        ("(вот)", "(вот )"),
        ("(вот", "( вот"),
        ("вот...", "вот.. ."),
        ("...вот", ". ..вот"),
        ("«вот»", "«вот»"),
        (".", "."),
    ],
)
def test_one_mark_at_the_edge_of_a_word_is_a_word(hypothesis, words):
    alone = ChrF(word_order=1).grams(hypothesis)[-1]
    assert alone == {(word,): 1 for word in words.split()}


@pytest.mark.parametrize("name", METRICS)
def test_figures_of_sacrebleu(name):
    options, pairs = METRICS[name]["options"], RECORDED["pairs"]
    ours, theirs, seconds = zip(*pairs, strict=True)
    assert chrf_rows(ours, theirs, **options).by_text == pytest.approx(METRICS[name]["sentence"], abs=1e-9)
    assert chrf(ours, theirs, **options) == pytest.approx(METRICS[name]["corpus"], abs=1e-9)
    both = list(zip(theirs, seconds, strict=True))
    assert chrf(ours, both, **options) == pytest.approx(METRICS[name]["corpus_two_references"], abs=1e-9)
    many = [sentence_chrf(text, several, **options) for text, several in RECORDED["many"]]
    assert many == pytest.approx(METRICS[name]["many"], abs=1e-9)


def test_white_space_and_line_breaks_never_matter_to_letters():
    assert sentence_chrf("ночь ти\nха", " но чь\tтиха\u00a0") == 100


def test_of_several_references_the_best_counts():
    assert sentence_chrf("снег", ["дом", "снег", "сне"]) == 100
    assert chrf(["снег", "дом"], [["дом", "снег"], "дом"]) == 100


def test_the_formula_reads_many_rows_at_once():
    sampled = chrf_rows(random_texts(0), random_texts(1), word_order=2)
    rows = sampled.rows.reshape(5, 6, -1)
    one_by_one = [[float(sampled.formula(row)) for row in few] for few in rows]
    assert np.array_equal(sampled.formula(rows), one_by_one)


def test_the_order_of_the_texts_does_not_matter():
    ours, theirs = random_texts(0), random_texts(1)
    assert chrf(ours[::-1], theirs[::-1], word_order=2) == chrf(ours, theirs, word_order=2)


@pytest.mark.parametrize("beta", [0.5, 1, 2, 3])
def test_the_figure_lies_between_precision_and_recall(beta):
    ours, theirs = random_texts(2), random_texts(3)
    almost_precision, almost_recall = chrf(ours, theirs, beta=1e-6), chrf(ours, theirs, beta=1e6)
    assert min(almost_precision, almost_recall) <= chrf(ours, theirs, beta=beta) <= max(almost_precision, almost_recall)


def test_two_models_are_compared_by_their_rows():
    verse = random_texts(0)
    spoilt = [text.replace("а", "я") for text in verse]
    found = compare(chrf_rows(verse, verse), chrf_rows(spoilt, verse))
    assert found.value == pytest.approx(chrf(verse, verse) - chrf(spoilt, verse))
    assert 0 < found.low < found.value < found.high and found.p == 1 / 1001


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("а", ["а"]), "hypotheses must be a list of strings, got one string"),
        ((["а"], "а"), "references must be a list, one for each hypothesis, got 'а'"),
        ((["а"], None), "references must be a list"),
        ((["а", "б"], ["а"]), "Each hypothesis needs its reference, but there are 2 and 1"),
        (([], []), "no text to compare"),
        ((["а", 1], ["а", "б"]), "number 1 of it is 1"),
        ((["а"], [1]), "References number 0 must be a list of strings, got 1"),
        ((["а"], [["а", 2]]), "References number 0 must be a list of strings, but number 1 of it is 2"),
        ((["а"], [[]]), "Hypothesis number 0 has no reference"),
        ((["а"], ["а"], -1), "word_order=-1"),
        ((["а"], ["а"], 0, 0), "char_order=0"),
        ((["а"], ["а"], 0, 6, 0), "beta must be a number above 0, got 0"),
    ],
)
def test_wrong_arguments_are_told(arguments, message):
    with pytest.raises(ValueError, match=message):
        chrf(*arguments)


def test_a_list_is_no_single_text():
    with pytest.raises(ValueError, match="hypothesis must be a string, got list: chrf takes a list"):
        sentence_chrf(["а"], ["а"])
