"""word2vec: the gradient that is written by hand, which pairs are made, and what is learnt from them."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from minipoet.models.word2vec import (
    Table,
    draw_noise,
    gradients,
    keep_probabilities,
    learn,
    nearest,
    shuffled_pairs,
    train_word2vec,
)

SUN, SEA = range(1, 6), range(6, 11)  # two subjects, five words each; 0 and 11 are no words


@pytest.fixture(autouse=True)
def short_row_of_noise(monkeypatch):
    """Four million draws take longer than all that is learnt here."""
    monkeypatch.setattr("minipoet.models.word2vec.DRAWS", 1 << 14)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def two_subjects(texts=60, length=20):
    """Texts of one subject each, and a 0 at both ends."""
    luck = np.random.default_rng(0)
    return [[0, *luck.choice(topic, length).tolist(), 0] for _ in range(texts) for topic in (SUN, SEA)]


def vectors(texts=None, vocab_size=12, **options):
    options = {"dim": 8, "window": 2, "epochs": 3, "batch": 64, "subsample": 0, "ignored": [0], **options}
    return train_word2vec(two_subjects() if texts is None else texts, vocab_size, **options)


def pairs_of(texts, window, parts=1, seed=0):
    """(centre, context) of each pair of an epoch."""
    owners = torch.tensor([number for number, text in enumerate(texts) for _ in text])
    found = shuffled_pairs(torch.tensor([id for text in texts for id in text]), owners, parts, window, generator(seed))
    return [tuple(pair) for part in found for pair in part.t().tolist()]


class TestGradients:
    def test_by_hand(self):
        u, v = torch.tensor([[1.0, 2.0]]), torch.tensor([[[0.0, 0.0], [2.0, -1.0]]])  # both products are 0, σ(0) = ½
        grad_u, grad_v = gradients(u, v)
        assert grad_u.tolist() == [[1.0, -0.5]]  # −½ · (0, 0) + ½ · (2, −1)
        assert grad_v.tolist() == [[[-0.5, -1.0], [0.5, 1.0]]]

    @pytest.mark.parametrize("negatives", [1, 5])
    def test_equal_those_of_autograd(self, negatives):
        u = torch.randn(40, 7, dtype=torch.float64, generator=generator(1), requires_grad=True)
        v = torch.randn(40, 1 + negatives, 7, dtype=torch.float64, generator=generator(2), requires_grad=True)
        scores = torch.einsum("bkd,bd->bk", v, u)
        loss = -F.logsigmoid(scores[:, 0]).sum() - F.logsigmoid(-scores[:, 1:]).sum()
        expected = torch.autograd.grad(loss, (u, v))
        for ours, theirs in zip(gradients(u.detach(), v.detach()), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)

    def test_gradients_of_an_id_that_comes_up_twice_are_added_and_other_rows_stay(self):
        table = Table(torch.zeros(3, 2))
        table.descend(torch.tensor([1, 1]), torch.tensor([[3.0, 1.0], [1.0, 3.0]]), rate=0.5)
        # Σ mean(grad²) = 5 + 5; the step is −½ · (4, 4) / √10
        torch.testing.assert_close(table.rows, torch.tensor([[0.0, 0.0], [-2.0, -2.0], [0.0, 0.0]]) / 10**0.5)

    def test_the_second_step_of_a_row_is_shorter_by_what_it_has_received(self):
        table = Table(torch.zeros(1, 1))
        for grad in (3.0, 4.0):
            table.descend(torch.tensor([0]), torch.tensor([[grad]]), rate=1.0)
        assert table.rows.item() == pytest.approx(-3 / 3 - 4 / 5)

    def test_a_step_brings_true_pairs_together_and_drives_made_up_ones_apart(self):
        centres, contexts = (Table(torch.randn(6, 4, generator=generator(seed))) for seed in (0, 1))
        ids, others = torch.tensor([0, 1]), torch.tensor([[2, 3], [4, 5]])
        before = (contexts[others] * centres[ids][:, None]).sum(2)
        learn(centres, contexts, ids, others, rate=0.01)
        change = (contexts[others] * centres[ids][:, None]).sum(2) - before
        assert (change[:, 0] > 0).all() and (change[:, 1] < 0).all()


class TestPairs:
    def test_window_1_gives_each_word_its_neighbours(self):
        assert sorted(pairs_of([[1, 2, 3]], window=1)) == [(1, 2), (2, 1), (2, 3), (3, 2)]

    @pytest.mark.parametrize("parts", [1, 2, 4, 9])
    def test_no_pair_is_lost_or_doubled_between_parts(self, parts):
        texts = [[1, 2, 3], [], [4], [5, 6]]
        expected = [(1, 2), (2, 1), (2, 3), (3, 2), (5, 6), (6, 5)]
        assert sorted(pairs_of(texts, window=1, parts=parts)) == expected

    def test_pairs_never_cross_texts(self):
        luck = [pairs_of([[1, 2], [3, 4, 5], [6]], window=4, seed=seed) for seed in range(20)]
        text = {1: 0, 2: 0, 3: 1, 4: 1, 5: 1, 6: 2}
        assert all(text[centre] == text[context] for pairs in luck for centre, context in pairs)
        assert {pair for pairs in luck for pair in pairs} == {
            (1, 2), (2, 1), (3, 4), (4, 3), (4, 5), (5, 4), (3, 5), (5, 3)
        }  # fmt: skip

    def test_a_context_at_distance_d_of_window_w_comes_with_probability_w_less_d_plus_1_by_w(self):
        n, window = 30_000, 3
        found = pairs_of([list(range(n))], window)
        distances = np.bincount([abs(centre - context) for centre, context in found])
        np.testing.assert_allclose(distances[1:] / (2 * n), [3 / 3, 2 / 3, 1 / 3], atol=0.01)

    def test_both_sides_of_a_centre_have_the_same_reach(self):
        found = set(pairs_of([list(range(1000))], window=2))
        inner = range(2, 998)
        assert {(c, c - 2) in found for c in inner} == {True, False}
        assert all(((c, c - 2) in found) == ((c, c + 2) in found) for c in inner)


class TestNoise:
    def test_noise_follows_counts_to_the_power_three_quarters(self):
        counts = torch.tensor([0, 1, 16, 81, 256])  # to the ¾: 0, 1, 8, 27, 64
        drawn = torch.bincount(draw_noise(counts, 200_000, generator()), minlength=5) / 200_000
        torch.testing.assert_close(drawn, torch.tensor([0.0, 0.01, 0.08, 0.27, 0.64]), atol=4e-3, rtol=0)
        assert drawn[0] == 0

    def test_frequent_words_are_kept_with_the_root_of_t_over_f(self):
        counts = torch.tensor([0, 64, 32, 4])  # shares 0, 0.64, 0.32, 0.04
        assert keep_probabilities(counts, 0.16).tolist() == pytest.approx([1, 0.5, 0.5**0.5, 1])
        assert keep_probabilities(counts, 0).tolist() == [1, 1, 1, 1]

    def test_subsampling_leaves_out_what_is_frequent(self, monkeypatch):
        seen = []
        monkeypatch.setattr("minipoet.models.word2vec.learn", lambda _1, _2, ids, *_: seen.append(ids))
        vectors([[1] * 64 + [2] * 36] * 200, 3, subsample=0.04, ignored=[], epochs=1)  # kept: ¼ of 1, ⅓ of 2
        counts = torch.bincount(torch.cat(seen))
        assert (counts[1] / counts[2]).item() == pytest.approx(64 / 4 / (36 / 3), rel=0.1)


class TestLearning:
    def test_neighbours_come_from_the_own_subject(self):
        table = vectors()
        for topic in (SUN, SEA):
            for word in topic:
                assert {id for id, _ in nearest(table, word, 4)} == set(topic) - {word}

    def test_the_same_seed_gives_the_same_vectors_and_another_seed_others(self):
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            first, again, other = (vectors(seed=seed) for seed in (3, 3, 4))
        finally:
            torch.set_num_threads(threads)
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_the_global_generator_is_not_touched(self, monkeypatch):
        monkeypatch.setattr("minipoet.models.word2vec.PART", 100)
        torch.manual_seed(5)
        before = torch.get_rng_state()
        vectors(epochs=1)
        assert torch.equal(torch.get_rng_state(), before)

    def test_shape_type_and_zeros_for_what_does_not_occur(self):
        table = vectors(dim=3)
        assert table.shape == (12, 3) and table.dtype is torch.float32 and not table.requires_grad
        assert table.any(1).tolist() == [False] + [True] * 10 + [False]

    def test_ignored_ids_are_as_if_not_in_the_texts(self):
        texts = two_subjects(texts=20)
        without = [text[1:-1] for text in texts]
        scattered = [[id for word in text for id in (0, word, 11)] for text in without]
        expected = vectors(without, ignored=[])
        assert torch.equal(vectors(scattered, ignored=[0, 11]), expected)

    def test_arrays_and_tensors_are_texts_like_lists(self):
        texts = two_subjects(texts=5)
        assert torch.equal(vectors([np.array(t, dtype=np.int32) for t in texts]), vectors(texts))
        assert torch.equal(vectors(torch.tensor(text) for text in texts), vectors(texts))

    @pytest.mark.parametrize("batch", [1, 100_000])
    def test_any_batch_learns_something_finite(self, batch):
        texts = two_subjects(texts=4)
        table = vectors(texts, batch=batch, epochs=2, lr=1.0)
        assert table.isfinite().all() and table[1].any()

    def test_an_epoch_in_which_all_words_are_left_out_is_passed_over(self):
        assert vectors([[1, 1]], 2, subsample=1e-12, ignored=[]).isfinite().all()

    @pytest.mark.parametrize("lr", [0.5, 1.0])
    def test_the_rate_falls_in_a_line(self, lr, monkeypatch):
        rates = []
        monkeypatch.setattr("minipoet.models.word2vec.learn", lambda *arguments: rates.append(arguments[-1]))
        vectors(epochs=4, batch=10**6, lr=lr)
        assert rates == pytest.approx([lr, 0.75 * lr, 0.5 * lr, 0.25 * lr])


class TestNearest:
    table = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [3.0, 4.0], [0.0, 0.0], [-1.0, 0.0]])

    def test_by_hand(self):
        found = nearest(self.table, 0, 4)
        assert [id for id, _ in found] == [1, 3, 2, 5]
        assert [cosine for _, cosine in found] == pytest.approx([1, 0.6, 0, -1])

    def test_the_word_itself_and_words_without_a_vector_are_no_neighbours(self):
        assert sorted(id for id, _ in nearest(self.table, 3, 100)) == [0, 1, 2, 5]

    def test_among_chooses_from_some(self):
        assert [id for id, _ in nearest(self.table, 0, 3, among=[0, 5, 4, 2])] == [2, 5]
        assert nearest(self.table, 0, among=[]) == []

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (dict(id=4), "The word with the id 4 has no vector: it is not in the texts, or was ignored."),
            (dict(id=6), "An id must be a whole number below 6, got 6."),
            (dict(id="конь"), "An id must be a whole number below 6, got 'конь'."),
            (dict(among=[1, 7, -1]), "An id must be a whole number below 6, got 7, -1."),
            (dict(among=3), "among must be a list of whole numbers, as encode gives them, got 3."),
            (dict(k=0), "Expected whole numbers of at least 1, got k=0."),
            (dict(vectors=[[1.0]]), "The vectors must be a tensor (V, dim), as train_word2vec gives it, got list."),
            (dict(vectors=torch.ones(3)), "The vectors must be real numbers, (V, dim), got torch.float32, (3,)."),
        ],
    )
    def test_mistakes_are_named(self, change, message):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            nearest(**{"vectors": self.table, "id": 0, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(window=0), "window=0 (expected a whole number ≥ 1)"),
        (dict(dim=0, epochs=1.5, negatives=True, batch="9"), "dim=0"),
        (dict(dim=0, epochs=1.5, negatives=True, batch="9"), "negatives=True"),
        (dict(dim=0, epochs=1.5, negatives=True, batch="9"), "batch='9'"),
        (dict(lr=0), "lr=0 (expected a number > 0)"),
        (dict(lr=float("nan")), "lr=nan"),
        (dict(subsample=2), "subsample=2 (expected a share, 0 … 1; 0 leaves out none)"),
        (dict(seed=-1), "seed=-1"),
        (dict(vocab_size=5), "Text 1 has the id 10, but the vocabulary is 0 … 4"),
        (dict(texts=[[1, -1]]), "Text 0 has the id -1, but the vocabulary is 0 … 11"),
        (dict(ignored=[12]), "ignored has the id 12, but the vocabulary is 0 … 11"),
        (dict(ignored=0), "ignored must be a list of whole numbers"),
        (dict(texts="стихи"), "The texts must be lists of token ids, as encode_batch gives them, got 'стихи'."),
        (dict(texts=["стихи"]), "Text 0 must be a list of whole numbers, as encode gives them, got 'стихи'."),
        (dict(texts=[1, 2]), "Text 0 must be a list of whole numbers, as encode gives them, got 1."),
        (dict(texts=[]), "expected a text of two or more, got 0 text(s) of 0 word(s) in all"),
        (dict(texts=[[], [1], [2, 0]]), "got 3 text(s) of 2 word(s) in all, without those ignored (1)."),
        (dict(lr=1e39), "did not stay finite in epoch 1: give a smaller lr than 1e+39."),
    ],
)
def test_mistakes_are_named(change, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        vectors(**{"texts": [[0, 1, 2], [6, 7, 10]], **change})
    assert "\n" not in str(caught.value)
