"""Counts of types: numbers worked out by hand, and the smaller vocabularies against those that are learnt anew."""

from collections import Counter
from itertools import chain

import numpy as np
import pytest

from minipoet.evaluation import Frequencies, counts_by_size, frequencies
from minipoet.plots import plot_ranks, plot_rare, plot_rising, plot_vocabularies
from minipoet.text import read_corpus
from minipoet.tokenization import BPETokenizer, train_bpe

TEXTS = [["на", "дне", "на"], ["на", "реке", "на", "дне"], ["лёд"]]  # на 4, дне 2, реке 1, лёд 1


def test_counts_by_hand():
    found = frequencies(TEXTS, characters=16)
    assert found.counts == (4, 2, 1, 1)
    assert found.rising == (1, 1, 2, 4)
    assert (found.types, found.tokens, found.texts) == (4, 8, 3)
    assert (found.tokens_per_text, found.characters_per_token) == (8 / 3, 2)


def test_shares_by_hand():
    found = frequencies(TEXTS)
    assert [found.share_below(k) for k in (0, 1, 2, 3, 5)] == [0, 0, 0.5, 0.75, 1]
    assert [found.share_from(n) for n in (0, 1, 2, 4, 5)] == [1, 1, 0.5, 0.25, 0]
    assert [found.coverage(n) for n in (1, 2, 4, 5)] == [1, 6 / 8, 4 / 8, 0]
    assert [found.head(types) for types in (1, 2, 4, 9)] == [4 / 8, 6 / 8, 1, 1]
    assert [found.reached(share) for share in (0.25, 0.26, 0.5, 0.75, 1)] == [4, 2, 2, 1, 1]


def test_share_that_binary_fractions_miss_is_met():
    assert 0.07 * 100 > 7
    assert Frequencies((9,) * 7 + (5,) * 93).reached(0.07) == 9


def test_types_of_the_vocabulary_that_no_text_has_count_as_0_and_others_do_not_count():
    found = frequencies(TEXTS, vocabulary=["дне", "снег", "на", "дне"])
    assert found.counts == (4, 2, 0)
    assert (found.tokens, found.share_below(1), found.share_below(2)) == (6, 1 / 3, 1 / 3)
    assert found.coverage(1) == 1


def test_letters_of_strings_and_ids_are_counted_alike():
    assert frequencies(["ара", "а"]).counts == frequencies([[7, 3, 7], (7,)]).counts == (3, 1)
    assert frequencies(iter([np.array([7, 3, 7])])).counts == (2, 1)


def test_counts_may_come_in_any_order():
    assert Frequencies((1, 4, 0, 2)).counts == (4, 2, 1, 0)


def test_law_of_zipf_has_its_slope():
    assert Frequencies(tuple(5040 // rank for rank in (1, 2, 3, 4, 5, 6, 7))).zipf_slope() == pytest.approx(-1)
    assert Frequencies((64, 16, 4)).zipf_slope(1, 2) == pytest.approx(-2)
    assert Frequencies((64, 16, 16, 0)).zipf_slope(2) == pytest.approx(0)  # the type that was never seen has no rank


def test_slope_is_that_of_least_squares_by_hand():
    # log2 of the ranks 0, 1, 1.585 and of the counts 3, 2, 0: Sxy = -2.3084, Sxx = 1.2848
    assert Frequencies((8, 4, 1)).zipf_slope() == pytest.approx(-1.7967, abs=1e-4)


@pytest.fixture(scope="module")
def verse():
    return [poem.text for poem in read_corpus("embedded")]


def test_counts_of_smaller_vocabularies_by_hand():
    tokenizer = train_bpe(["ab"] * 4 + ["abc"] * 3 + ["bc"] * 3, 300)  # a·b, b·c, ab·c
    names = {tokenizer.decode([id]): id for id in range(3, tokenizer.vocab_size)}
    told = [
        {name: int(counts[id]) for name, id in names.items() if id < len(counts) and counts[id]}
        for counts in counts_by_size(tokenizer, ["abc", "ab", "bc", "abc"])
    ]
    assert told == [
        {"abc": 2, "ab": 1, "bc": 1},
        {"ab": 3, "bc": 1, "c": 2},
        {"ab": 3, "b": 1, "c": 3},
        {"a": 3, "b": 4, "c": 3},
    ]


def test_a_merge_of_equals_is_undone_to_two():
    tokenizer = train_bpe(["aa"] * 2, 260)
    a, aa = (tokenizer.encode(text)[0] for text in ("a", "aa"))
    with_it, without = (counts.copy() for counts in counts_by_size(tokenizer, ["aaa"]))
    assert (with_it[aa], with_it[a], without[a]) == (1, 1, 3)


def test_counts_of_smaller_vocabularies_are_those_of_learning_them_anew(verse):
    learnt, new = verse[:80], verse[80:]
    largest = train_bpe(learnt, 900)
    seen = 0
    for counts in counts_by_size(largest, new):
        if len(counts) in (259, 260, 400, 899, 900):
            ids = Counter(chain.from_iterable(train_bpe(learnt, len(counts)).encode_batch(new)))
            assert counts.tolist() == [ids[id] for id in range(len(counts))]
            seen += 1
    assert seen == 5


def test_a_vocabulary_in_another_order_is_refused():
    tokenizer = train_bpe(["ab"] * 4 + ["abc"] * 3, 300)
    vocab = dict(tokenizer.vocab)
    vocab["ab"], vocab["abc"] = vocab["abc"], vocab["ab"]
    other = BPETokenizer(vocab, tokenizer.merges, list(tokenizer.special_ids))
    with pytest.raises(ValueError, match="not its merges in their order"):
        next(counts_by_size(other, ["ab"]))


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda: frequencies([]), "no type to count"),
        (lambda: frequencies([[], []]), "no type to count"),
        (lambda: frequencies(TEXTS, vocabulary=[]), "no type to count"),
        (lambda: frequencies("на дне"), "must be a list of texts, each a list of types, got 'на дне'"),
        (lambda: frequencies([[1], 5]), "number 1 of them is 5"),
        (lambda: frequencies([[[1]]]), "number 0 of them is list"),
        (lambda: Frequencies((1, -1)), "whole numbers of 0 or more"),
        (lambda: Frequencies((1.5,)), "whole numbers of 0 or more"),
        (lambda: Frequencies((1,), texts=-1), "texts=-1"),
        (lambda: frequencies(TEXTS).characters_per_token, "give characters="),
        (lambda: Frequencies((1,)).tokens_per_text, "give texts="),
        (lambda: frequencies(TEXTS, vocabulary=["снег"]).coverage(1), "no type was seen"),
        (lambda: frequencies(TEXTS).share_below(0.5), "times=0.5"),
        (lambda: frequencies(TEXTS).share_from(-1), "times=-1"),
        (lambda: frequencies(TEXTS).head(0), "types=0"),
        (lambda: frequencies(TEXTS).reached(0), "above 0 and at most 1, got 0"),
        (lambda: frequencies(TEXTS).zipf_slope(3, 3), "two or more of 1 to 4, the types seen; got 3 to 3"),
        (lambda: frequencies(TEXTS).zipf_slope(1, 5), "got 1 to 5"),
        (lambda: Frequencies((3, 0)).zipf_slope(), "of 1 to 1, the types seen; got 1 to 1"),
        (lambda: next(counts_by_size("verse", ["а"])), "must be a BPETokenizer, got 'verse'"),
        (lambda: plot_ranks({}, "p.png"), "no counts to draw"),
        (lambda: plot_ranks([1], "p.png"), "curves must be Frequencies by label"),
        (lambda: plot_rare({"words": [1, 2]}, "p.png"), "The curve 'words' must be Frequencies, got list"),
        (lambda: plot_rising({"words": frequencies(TEXTS)}, None), "must be a path"),
        (lambda: plot_rare({"words": frequencies(TEXTS)}, "p.png", most=1), "most=1"),
        (lambda: plot_vocabularies({"BPE": []}, "p.png"), "no vocabulary to draw"),
        (lambda: plot_vocabularies([1], "p.png"), "points must be points by label"),
        (lambda: plot_vocabularies({"BPE": [(1, 2)]}, "p.png"), "must be (x, y, name), got tuple in 'BPE'"),
    ],
)
def test_a_mistake_gets_one_sentence(mistake, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as error:
        mistake()
    assert message in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    figures = []
    monkeypatch.setattr("minipoet.plots.figure.save_figure", lambda figure, path: figures.append(figure))
    return figures


def test_ranks_and_rising_counts_are_drawn_and_never_seen_types_leave_no_trace(drawn):
    curves = {"words": frequencies(TEXTS), "BPE": Frequencies((8, 2, 0))}
    plot_ranks(curves, "p.png", "Ранг")
    plot_rising(curves, "p.png")
    ranks, rising = (figure.axes[0] for figure in drawn)
    assert (ranks.get_title(), ranks.get_xscale(), ranks.get_yscale()) == ("Ранг", "log", "log")
    assert (rising.get_xscale(), rising.get_yscale()) == ("linear", "log")
    assert [line.get_label() for line in ranks.lines] == ["words", "BPE"]
    assert [list(data) for data in ranks.lines[0].get_data()] == [[1, 2, 3, 4], [4, 2, 1, 1]]
    assert [list(data) for data in rising.lines[0].get_data()] == [[25, 50, 75, 100], [1, 1, 2, 4]]
    for axes in (ranks, rising):  # a 0 has no place, not the one far below
        assert not np.isfinite(axes.transData.transform([[3.0, 0.0]])).all()


def test_share_of_rare_types_is_drawn_for_every_k(drawn):
    plot_rare({"words": frequencies(TEXTS)}, "p.png", most=5)
    (line,) = drawn[0].axes[0].lines
    assert [list(data) for data in line.get_data()] == [[1, 2, 3, 4, 5], [0, 50, 75, 75, 100]]


def test_vocabularies_are_drawn_as_points_with_names(drawn):
    points = {"BPE": [(1.0, 100.0, "300"), (2.0, 50.0, "1,000")], "words": [(4.0, 1.0, "words")]}
    plot_vocabularies(points, "p.png", "Выбор", "length", "share", enough=95)
    (axes,) = drawn[0].axes
    bpe, words, enough = axes.lines
    assert [list(data) for data in bpe.get_data()] == [[1, 2], [100, 50]]
    assert [list(data) for data in words.get_data()] == [[4], [1]]
    assert set(enough.get_ydata()) == {95}
    assert [text.get_text() for text in axes.texts] == ["300", "1,000", "words"]
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ("Выбор", "length", "share")
