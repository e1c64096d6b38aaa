"""word2vec: a vector for each word, from nothing but which words stand near which.

    train_word2vec    texts as ids -> (V, dim), a row a word
    nearest           the words whose vectors point the same way

Skip-gram with negative sampling. A word has two vectors: u as a centre, v as the context of others. For each pair (c, o)
that stand at most `window` words apart, and K words n₁ … n_K drawn from the noise P(w) ∝ count(w)^¾, the loss

    L = −log σ(u_c·v_o) − Σₖ log σ(−u_c·v_nₖ)

asks whether a pair is true or made up. With g = σ(u·v) − 1 for the true pair and g = σ(u·v) for a made-up one,

    ∂L/∂u_c = Σ g v   (over the true context and the noise)        ∂L/∂v = g u_c   (for each of them)

and these two lines, with `index_add_` into both tables, are all the training there is: no autograd. After it the rows
of u are the words. Mikolov et al. 2013, https://arxiv.org/abs/1310.4546; the derivation in Goldberg & Levy 2014,
https://arxiv.org/abs/1402.3722. Chapter: docs/words.md
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

CENTRES = 1 << 17  # pairs are made for so many centres at a time, and shuffled among themselves


def train_word2vec(
    texts: Iterable[Sequence[int]],
    vocab_size: int,
    dim: int = 64,
    *,
    window: int = 5,
    negatives: int = 5,
    epochs: int = 5,
    lr: float = 0.25,
    subsample: float = 1e-3,
    ignored: Iterable[int] = (),
    batch: int = 4096,
    seed: int = 0,
    quiet: bool = True,
) -> Tensor:
    texts = [torch.as_tensor(text, dtype=torch.long) for text in texts]
    ids = torch.cat(texts)
    owner = torch.repeat_interleave(torch.arange(len(texts)), torch.tensor([len(t) for t in texts]))
    keep = ~torch.isin(ids, torch.tensor(list(ignored), dtype=torch.long))
    ids, owner = ids[keep], owner[keep]
    counts = torch.bincount(ids, minlength=vocab_size)
    generator = torch.Generator().manual_seed(seed)
    centres = (torch.rand(vocab_size, dim, generator=generator) - 0.5) / dim
    contexts = torch.zeros(vocab_size, dim)
    squares = torch.zeros(2, vocab_size)
    noise = noise_table(counts)
    kept = keep_probability(counts, subsample)
    for epoch in range(epochs):
        here = torch.rand(len(ids), generator=generator) < kept[ids]
        words, owners = ids[here], owner[here]
        for part, pairs in pairs_of(words, owners, window, generator):
            rate = lr * max(1e-4, 1 - (epoch + part) / epochs)
            for c, o in zip(pairs[0].split(batch), pairs[1].split(batch), strict=True):
                n = draw(noise, len(c) * negatives, generator).view(len(c), negatives)
                others = torch.cat([o[:, None], n], 1)
                grad_u, grad_v = gradients(centres[c], contexts[others])
                step(centres, squares[0], c, grad_u, rate)
                step(contexts, squares[1], others.flatten(), grad_v.flatten(0, 1), rate)
    centres[counts == 0] = 0
    return centres


def gradients(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    g = torch.sigmoid(v @ u[:, :, None]).squeeze(2)
    g[:, 0] -= 1
    return (g[:, None] @ v).squeeze(1), g[:, :, None] * u[:, None]


def step(table, squares, rows, grads, rate):
    squares.index_add_(0, rows, grads.square().mean(1))
    table.index_add_(0, rows, grads * (-rate / (squares[rows] + 1e-10).sqrt())[:, None])


def noise_table(counts):
    return (counts.double() ** 0.75).cumsum(0)


def draw(table, n, generator):
    return torch.searchsorted(table, torch.rand(n, dtype=torch.float64, generator=generator) * table[-1], right=True)


def keep_probability(counts, subsample):
    share = counts / counts.sum()
    return ((subsample / share).sqrt()).clamp(max=1)


def pairs_of(words, owners, window, generator):
    widths = torch.randint(1, window + 1, (len(words),), generator=generator)
    starts = range(0, len(words), CENTRES)
    for k, index in enumerate(torch.randperm(len(starts), generator=generator).tolist()):
        at = torch.arange(starts[index], min(starts[index] + CENTRES, len(words)))
        c, o = [], []
        for d in range(-window, window + 1):
            if d:
                near = at[(widths[at] >= abs(d)) & (at + d >= 0) & (at + d < len(words))]
                near = near[owners[near] == owners[near + d]]
                c.append(words[near]), o.append(words[near + d])
        cc, oo = torch.cat(c), torch.cat(o)
        order = torch.randperm(len(cc), generator=generator)
        yield k / len(starts), (cc[order], oo[order])


def nearest(vectors: Tensor, id: int, k: int = 10, among: Iterable[int] | None = None) -> list[tuple[int, float]]:
    unit = torch.nn.functional.normalize(vectors, dim=1)
    cosine = unit @ unit[id]
    cosine[id] = -2
    values, indices = cosine.topk(k)
    return list(zip(indices.tolist(), values.tolist(), strict=True))
