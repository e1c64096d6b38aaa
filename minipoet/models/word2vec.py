"""word2vec: a vector for each word, from nothing but which words stand near which.

    train_word2vec    texts as ids -> (V, dim), a row a word
    nearest           the words whose vectors point most nearly the same way

Skip-gram with negative sampling. A word has two vectors: u as a centre, v as the context of others. For a pair (c, o)
that stands together in a text, and K words n₁ … n_K drawn from the noise P(w) ∝ count(w)^¾, the loss

    L = −log σ(u_c·v_o) − Σₖ log σ(−u_c·v_nₖ)

asks whether a pair is true or made up. With g = σ(u·v) − 1 for the true pair and g = σ(u·v) for a made-up one,

    ∂L/∂u_c = Σ g v   (over the true context and the noise)        ∂L/∂v = g u_c   (for each of them)

No autograd: these two lines, and `index_add_` into both tables, are all of the learning. The rows of u are the result.

Mikolov et al. 2013, https://arxiv.org/abs/1310.4546; derived in Goldberg & Levy 2014, https://arxiv.org/abs/1402.3722.
Chapter: docs/words.md
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from minipoet.checks import as_ids, expect, expect_whole, is_number, is_whole, shown

PART = 1 << 16  # pairs are made of so many words at a time, and shuffled among themselves
DRAWS = 1 << 22  # noise is drawn once, in a row, and read from random places: drawing is nearly as slow as learning
EPSILON = 1e-10  # of Adagrad, as in torch.optim


def train_word2vec(
    texts: Iterable[Sequence[int]],
    vocab_size: int,
    dim: int = 64,
    *,
    window: int = 5,
    negatives: int = 5,
    epochs: int = 10,
    lr: float = 0.5,
    subsample: float = 1e-3,
    ignored: Iterable[int] = (),
    batch: int = 4096,
    seed: int = 0,
    quiet: bool = True,
) -> Tensor:
    """Vectors of words, (V, dim) fp32; zeros for a word that does not occur.

    Args:
        texts: token ids; no pair crosses from one text into the next.
        window: the farthest context. Each centre draws its own reach, 1 … window: near words count for more.
        negatives: K, made-up pairs for each true one.
        epochs: how often the texts are read.
        lr: Adagrad's rate at first; it falls linearly to nothing.
        subsample: t; a word with a share f > t of the texts is left out with probability 1 − √(t / f), anew each epoch
            and before pairs are made, so that the others move closer. 0 leaves out none.
        ignored: ids to pass over as if they were not in the texts: specials, the unknown word, punctuation.
        batch: true pairs a step; their gradients are taken at one point and added.
        seed: of all that is drawn. On one thread the same seed gives the same vectors.
        quiet: show no progress bar.

    Raises:
        ValueError: settings that make no sense (all are listed), ids outside the vocabulary, texts without two words in
            a row, or a rate at which the vectors do not stay finite.
    """
    _check_settings(vocab_size, dim, window, negatives, epochs, lr, subsample, batch, seed)
    words, owners = _flat(texts, vocab_size, ignored)
    counts = torch.bincount(words, minlength=vocab_size)
    kept = keep_probabilities(counts, subsample)
    generator = torch.Generator().manual_seed(seed)
    noise = draw_noise(counts, DRAWS + batch * negatives, generator)
    centres = Table((torch.rand(vocab_size, dim, generator=generator) - 0.5) / dim)  # as in the paper's program
    contexts = Table(torch.zeros(vocab_size, dim))
    parts = math.ceil(len(words) / PART)
    with tqdm(total=epochs * parts, unit="part", dynamic_ncols=True, disable=quiet) as bar:
        for epoch in range(epochs):
            here = torch.rand(len(words), generator=generator) < kept[words]
            for part, pairs in enumerate(shuffled_pairs(words[here], owners[here], parts, window, generator)):
                rate = lr * (1 - (epoch + part / parts) / epochs)
                for centre, context in zip(*(ids.split(batch) for ids in pairs), strict=True):
                    first = int(torch.randint(DRAWS, (), generator=generator))
                    made_up = noise[first : first + len(centre) * negatives].view(-1, negatives)
                    learn(centres, contexts, centre, torch.cat([context[:, None], made_up], 1), rate)
                bar.update()
            if not (centres.rows.isfinite().all() and contexts.rows.isfinite().all()):
                raise ValueError(f"The vectors did not stay finite in epoch {epoch + 1}: give a smaller lr than {lr}.")
    return centres.rows * (counts > 0)[:, None]


class Table:
    """Vectors, (V, dim), that learn by Adagrad with one rate a row (Duchi et al. 2011).

    In a batch of thousands a common word comes up a hundred times and a rare one once. Plain descent cannot serve both:
    a rate that moves the rare row makes the sum for the common one explode. Divided by the root of all that it has
    received, a row of either kind takes large steps at first and ever smaller ones later.
    """

    def __init__(self, rows: Tensor):
        self.rows = rows
        self.squares = torch.full((len(rows),), EPSILON)

    def __getitem__(self, ids: Tensor) -> Tensor:
        """(...) -> (..., dim); ten times as fast as indexing `rows`."""
        return self.rows.index_select(0, ids.flatten()).view(*ids.shape, self.rows.shape[1])

    def descend(self, ids: Tensor, grads: Tensor, rate: float) -> None:
        """row −= rate · grad / √(Σ mean(grad²)): (N,), (N, dim). An id may come up often; its gradients add up."""
        self.squares.index_add_(0, ids, grads.square().mean(1))
        scale = self.squares.index_select(0, ids).rsqrt_().mul_(-rate)
        self.rows.index_add_(0, ids, grads * scale[:, None])


def learn(centres: Table, contexts: Table, ids: Tensor, others: Tensor, rate: float) -> None:
    """One step on a batch: centres (B,), and their true context and noise (B, 1 + K)."""
    grad_u, grad_v = gradients(centres[ids], contexts[others])
    centres.descend(ids, grad_u, rate)
    contexts.descend(others.flatten(), grad_v.flatten(0, 1), rate)


def gradients(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """∂L/∂u (B, dim) and ∂L/∂v (B, 1 + K, dim) of centres and of their contexts, the true one first."""
    g = (v * u[:, None]).sum(2).sigmoid()  # (B, 1 + K)
    g[:, 0] -= 1
    return (g[:, :, None] * v).sum(1), g[:, :, None] * u[:, None]


def draw_noise(counts: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """n ids, P(w) ∝ count(w)^¾: rare words come up more often than in the texts, absent ones never."""
    return torch.multinomial(counts.double() ** 0.75, n, replacement=True, generator=generator)


def keep_probabilities(counts: Tensor, subsample: float) -> Tensor:
    """√(t / f) for a word whose share f of the texts is above t = `subsample`, else 1: (V,) -> (V,)."""
    share = counts / counts.sum()
    return (subsample / share).sqrt().clamp(max=1) if subsample else torch.ones(len(counts))


def shuffled_pairs(
    words: Tensor, owners: Tensor, parts: int, window: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """All pairs of an epoch in so many parts, (2, N) centres and contexts each; the parts come in a random order.

    owners: the text of each word. A pair belongs to the part of its word on the left.
    """
    reach = torch.randint(1, window + 1, words.shape, generator=generator)
    bounds = [len(words) * part // parts for part in range(parts + 1)]
    for part in torch.randperm(parts, generator=generator).tolist():
        found = []
        for distance in range(1, window + 1):
            left = torch.arange(bounds[part], bounds[part + 1])
            left = left[left < len(words) - distance]
            left = left[owners[left] == owners[left + distance]]
            for centre, context in ((left, left + distance), (left + distance, left)):
                near = reach[centre] >= distance
                found.append(torch.stack([words[centre[near]], words[context[near]]]))
        pairs = torch.cat(found, 1)
        yield pairs[:, torch.randperm(pairs.shape[1], generator=generator)]


def nearest(vectors: Tensor, id: int, k: int = 10, among: Iterable[int] | None = None) -> list[tuple[int, float]]:
    """The k ids whose vectors have the largest cosine with that of `id`, and the cosines, largest first.

    among: the ids to choose from, say those of words that come up often: a word met five times has neighbours by
    chance. Words without a vector (all zeros) and the word itself are never among them; fewer than k may be left.

    Raises:
        ValueError: no table of vectors, an id outside it, or one without a vector.
    """
    expect(vectors, Tensor, "The vectors", "a tensor (V, dim), as train_word2vec gives it")
    if vectors.ndim != 2 or not vectors.is_floating_point():
        raise ValueError(f"The vectors must be real numbers, (V, dim), got {vectors.dtype}, {tuple(vectors.shape)}.")
    expect_whole(1, k=k)
    ids = [id] if among is None else [id, *as_ids(among, "among")]
    if outside := [i for i in ids if not is_whole(i, 0, len(vectors))]:
        raise ValueError(
            f"An id must be a whole number below {len(vectors)}, got {', '.join(map(shown, outside[:5]))}."
        )
    there = vectors.any(1)
    if not there[id]:
        raise ValueError(f"The word with the id {id} has no vector: it is not in the texts, or was ignored.")
    if among is not None:
        there &= torch.zeros_like(there).index_fill_(0, torch.tensor(ids[1:], dtype=torch.long), True)
    there[id] = False
    cosines = F.normalize(vectors, dim=1) @ F.normalize(vectors[id], dim=0)
    values, found = cosines.masked_fill(~there, -math.inf).topk(min(k, int(there.sum())))
    return list(zip(found.tolist(), values.tolist(), strict=True))


def _check_settings(vocab_size, dim, window, negatives, epochs, lr, subsample, batch, seed) -> None:
    whole = dict(vocab_size=vocab_size, dim=dim, window=window, negatives=negatives, epochs=epochs, batch=batch)
    wrong = [
        f"{name}={shown(value)} (expected a whole number ≥ 1)"
        for name, value in whole.items()
        if not is_whole(value, 1)
    ]
    if not is_number(lr) or lr <= 0:
        wrong.append(f"lr={shown(lr)} (expected a number > 0)")
    if not is_number(subsample) or not 0 <= subsample <= 1:
        wrong.append(f"subsample={shown(subsample)} (expected a share, 0 … 1; 0 leaves out none)")
    if not is_whole(seed, 0, 2**64):
        wrong.append(f"seed={shown(seed)} (expected a whole number, 0 ≤ seed < 2**64)")
    if wrong:
        raise ValueError(f"word2vec cannot be trained with {', '.join(wrong)}.")


def _flat(texts: Iterable[Sequence[int]], vocab_size: int, ignored: Iterable[int]) -> tuple[Tensor, Tensor]:
    """All words that are not ignored in one row, and the number of the text that each is from."""
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise ValueError(f"The texts must be lists of token ids, as encode_batch gives them, got {shown(texts)}.")
    words = [torch.zeros(0, dtype=torch.long)]
    for number, text in enumerate(texts):
        words.append(torch.tensor(_known(text, f"Text {number}", vocab_size), dtype=torch.long))
    flat = torch.cat(words)
    owners = torch.arange(len(words)).repeat_interleave(torch.tensor([len(text) for text in words]))
    kept = ~torch.isin(flat, torch.tensor(_known(ignored, "ignored", vocab_size), dtype=torch.long))
    flat, owners = flat[kept], owners[kept]
    if not (owners[1:] == owners[:-1]).any():
        raise ValueError(
            f"word2vec learns from words that stand together: expected a text of two or more, got {len(words) - 1} "
            f"text(s) of {len(flat)} word(s) in all, without those ignored ({int((~kept).sum())})."
        )
    return flat, owners


def _known(ids: Iterable[int], what: str, vocab_size: int) -> list[int]:
    """The ids as a list. Raises ValueError for what are none, and for one outside the vocabulary."""
    ids = as_ids(ids, what)
    if ids and not 0 <= min(ids) <= max(ids) < vocab_size:
        wrong = min(ids) if min(ids) < 0 else max(ids)
        advice = "give the vocab_size of the tokenizer that made the ids"
        raise ValueError(f"{what} has the id {wrong}, but the vocabulary is 0 … {vocab_size - 1}: {advice}.")
    return ids
