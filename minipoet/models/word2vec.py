"""word2vec: a vector for each word, from nothing but which words stand near which.

    train_word2vec    texts as ids -> (V, dim), a row a word
    nearest           the words whose vectors point most nearly the same way

Skip-gram with negative sampling. A word has two vectors: u as a centre, v as the context of others. For each pair (c, o)
that stand near each other in a text, and K words n₁ … n_K drawn from the noise P(w) ∝ count(w)^¾, the loss

    L = −log σ(u_c·v_o) − Σₖ log σ(−u_c·v_nₖ)

asks whether a pair is true or made up. With g = σ(u·v) − 1 for the true pair and g = σ(u·v) for a made-up one,

    ∂L/∂u_c = Σ g v   (over the true context and the noise)        ∂L/∂v = g u_c   (for each of them)

There is no autograd here: these two lines, and `index_add_` into both tables, are all of the learning. What is kept of it
is u. Mikolov et al. 2013, https://arxiv.org/abs/1310.4546; derived in Goldberg & Levy 2014, https://arxiv.org/abs/1402.3722.
Chapter: docs/words.md
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from minipoet.checks import as_ids, expect, expect_whole, is_number, is_whole, shown

PART = 1 << 17  # pairs are made of so many words at a time, and shuffled among themselves
DRAWS = 1 << 22  # noise is drawn once, in a long row, and read from random places: drawing takes longer than learning
START = 1e-2


def train_word2vec(
    texts: Iterable[Sequence[int]],
    vocab_size: int,
    dim: int = 64,
    *,
    window: int = 5,
    negatives: int = 5,
    epochs: int = 5,
    lr: float = 0.5,
    subsample: float = 1e-3,
    ignored: Iterable[int] = (),
    batch: int = 4096,
    seed: int = 0,
    quiet: bool = True,
) -> Tensor:
    """Vectors of words, (V, dim) fp32; zeros for a word that does not occur or is ignored.

    A centre is paired with the words at most r away, r drawn from 1 … `window` anew each time: the near count for more.

    Args:
        texts: token ids; no pair crosses from one text into the next.
        window: small for words of the same use (два, три), large for words of the same subject.
        negatives: K, made-up pairs for each true one.
        epochs: how often the texts are read.
        lr: the first step's size; it falls linearly to nothing.
        subsample: t; a word that makes up a share f > t of the texts is left out with probability 1 − √(t / f), anew
            each epoch, before pairs are made. 0: all are kept.
        ignored: ids that are no words (specials, the unknown word, punctuation): neither centres nor contexts nor noise,
            as if they were not in the texts.
        batch: true pairs a step. Their gradients are taken at the same point.
        seed: of all that is drawn. One thread repeats itself to the bit.
        quiet: show no progress bar.

    Raises:
        ValueError: ids beyond the vocabulary, no two words next to each other, settings that make no sense, or a
            rate of learning with which the vectors do not stay finite.
    """
    _check_settings(vocab_size, dim, window, negatives, epochs, lr, subsample, batch, seed)
    words, owners = _flat(texts, vocab_size, ignored)
    counts = torch.bincount(words, minlength=vocab_size)
    generator = torch.Generator().manual_seed(seed)
    centres = Table(torch.rand(vocab_size, dim, generator=generator).sub_(0.5).div_(dim))
    contexts = Table(torch.zeros(vocab_size, dim))
    noise = draw_noise(counts, max(DRAWS, 2 * batch * negatives), generator)
    kept = keep_probabilities(counts, subsample)
    with tqdm(total=epochs * len(words), unit="word", unit_scale=True, disable=quiet) as bar:
        for _ in range(epochs):
            left = torch.rand(len(words), generator=generator) < kept[words]
            for share, pairs in pairs_in_parts(words[left], owners[left], window, generator):
                rate = lr * (1 - bar.n / bar.total)
                for centre, context in zip(*(ids.split(batch) for ids in pairs), strict=True):
                    start = int(torch.randint(len(noise) - len(centre) * negatives, (), generator=generator))
                    made_up = noise[start : start + len(centre) * negatives].view(-1, negatives)
                    learn(centres, contexts, centre, torch.cat([context[:, None], made_up], 1), rate)
                bar.update(round(share * len(words)))
    return centres.rows


class Table:
    def __init__(self, rows: Tensor):
        self.rows, self.squares = rows, torch.full((len(rows),), START)

    def descend(self, ids: Tensor, grads: Tensor, rate: float) -> None:
        self.squares.index_add_(0, ids, grads.square().mean(1))
        scale = self.squares.index_select(0, ids).rsqrt_().mul_(-rate)
        self.rows.index_add_(0, ids, grads * scale[:, None])


def learn(centres: Table, contexts: Table, ids: Tensor, others: Tensor, rate: float) -> None:
    u = centres.rows.index_select(0, ids)
    v = contexts.rows.index_select(0, others.flatten()).view(*others.shape, -1)
    grad_u, grad_v = gradients(u, v)
    centres.descend(ids, grad_u, rate)
    contexts.descend(others.flatten(), grad_v.flatten(0, 1), rate)


def gradients(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """∂L/∂u and ∂L/∂v of each pair, by the formula above: (B, dim), (B, 1 + K, dim), the true context first -> the same."""
    g = (v * u[:, None]).sum(2).sigmoid_()  # (B, 1 + K)
    g[:, 0] -= 1
    return (g[:, :, None] * v).sum(1), g[:, :, None] * u[:, None]


def draw_noise(counts: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """n ids, independent, P(w) ∝ count(w)^¾: rare words come up more often than in texts, absent ones never."""
    return torch.multinomial(counts.double() ** 0.75, n, replacement=True, generator=generator)


def keep_probabilities(counts: Tensor, subsample: float) -> Tensor:
    """√(t / f) for the words with a share f > t of the texts, 1 for the others: (V,) -> (V,)."""
    if not subsample:
        return torch.ones(len(counts))
    return (subsample * counts.sum() / counts).sqrt().clamp(max=1)


def pairs_in_parts(words, owners, window, generator) -> Iterator[tuple[float, Tensor]]:
    reach = torch.randint(1, window + 1, words.shape, generator=generator)
    parts = -(-len(words) // PART)
    for part in torch.randperm(parts, generator=generator).tolist():
        found = []
        for d in range(1, window + 1):
            left = torch.arange(part * PART, max(part * PART, min((part + 1) * PART, len(words) - d)))
            left = left[owners[left] == owners[left + d]]
            for centre, context in ((left, left + d), (left + d, left)):
                near = reach[centre] >= d
                found.append(torch.stack([words[centre[near]], words[context[near]]]))
        pairs = torch.cat(found, 1)
        yield 1 / parts, pairs[:, torch.randperm(pairs.shape[1], generator=generator)]


def nearest(vectors: Tensor, id: int, k: int = 10, among: Iterable[int] | None = None) -> list[tuple[int, float]]:
    unit = F.normalize(vectors, dim=1)
    cosine = unit @ unit[id]
    cosine[id] = -2
    values, indices = cosine.topk(k)
    return list(zip(indices.tolist(), values.tolist(), strict=True))


def _check_settings(*a): ...


def _flat(texts, vocab_size, ignored):
    texts = [torch.as_tensor(text, dtype=torch.long) for text in texts]
    ids = torch.cat(texts)
    owner = torch.repeat_interleave(torch.arange(len(texts)), torch.tensor([len(t) for t in texts]))
    keep = ~torch.isin(ids, torch.tensor(list(ignored), dtype=torch.long))
    return ids[keep], owner[keep]
