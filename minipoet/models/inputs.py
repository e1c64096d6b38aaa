"""How an id becomes the vector that a recurrent model reads: the four ways that were tried before one of them won.

    Label        the id itself, as one number              1 wide     "дом" is 0.31: it says that 0.32 is much like it
    OneHot       a 1 in the id's place, else 0             V wide     every two tokens are equally unlike
    Bag          the last `window` tokens, counted         V wide     and in which order they came is lost
    Embedding    a vector for each, which is learnt        C wide     tokens used alike come to be alike

`make_input` builds one by name, `read_inputs` reads with any of them; only an embedding, `layers.Embedding`, has
weights. A bag, and the windowed model of `window.py`, look at the tokens before: `preceding` finds them, `windows` does
so through a cache.

Chapter: docs/words.md
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from minipoet.checks import shown
from minipoet.models.layers import Embedding, check_ids
from minipoet.models.recurrent_cache import StateCache

INPUTS = ("embedding", "label", "one-hot", "bag")
NONE = -1  # in a window: the text had not begun


def preceding(
    ids: Tensor, window: int, past: Tensor | None = None, new: Tensor | None = None, real: Tensor | None = None
) -> Tensor:
    """The last `window` tokens of its text at each place, itself among them: (B, T) -> (B, T, window); NONE before it.

    past (B, window): the window before the first place, which is the last one, result[:, -1], of what was read before.
    new, real (B, T): what `follow` says of these tokens; None, both: nothing begins anew, and all are real. Padding is
    no token; its window is that of the token before it.
    """
    B, _ = ids.shape
    past = ids.new_full((B, window), NONE) if past is None else past.to(ids.dtype)
    if new is None or real is None:
        return torch.cat([past, ids], 1).unfold(1, window, 1)[:, 1:]
    # Push the real tokens of a row together, behind the past. Then the window after n of them begins in place n.
    read = torch.cat([past, ids.gather(1, (~real).byte().argsort(dim=1, stable=True))], 1)  # (B, window + T)
    count = real.cumsum(1)
    places = count[..., None] + torch.arange(window, device=ids.device)  # (B, T, window)
    begin = (count + window - 1).where(new, 0).cummax(1).values  # where the text of each place begins
    return read.gather(1, places.flatten(1)).view_as(places).where(places >= begin[..., None], NONE)


def windows(
    ids: Tensor, window: int, cache: StateCache | None = None, new: Tensor | None = None, real: Tensor | None = None
) -> Tensor:
    """`preceding` with the past of a cache, which is brought up to date but for its `advance`: -> (B, T, window)."""
    if cache is None:
        return preceding(ids, window, None, new, real)
    found = preceding(ids, window, cache.tensors.get("window"), new, real)
    if ids.shape[1]:
        cache.tensors["window"] = found[:, -1]
    return found


class Fixed(nn.Module):
    """An input without weights: ids in, numbers of `dtype` out."""

    weight = None  # where an embedding has its vectors

    def __init__(self, vocab_size: int):
        super().__init__()
        self.vocab_size = vocab_size


class Label(Fixed):
    """The id over the size of the vocabulary, from 0 to 1: the id itself would drive every tanh to ±1 at once."""

    def forward(self, ids: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """(B, T) -> (B, T, 1)."""
        return (ids / self.vocab_size).to(dtype)[..., None]


class OneHot(Fixed):
    """A 1 in the place of the id. What multiplies it picks one column of its matrix: an embedding, by a longer way."""

    def forward(self, ids: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """(B, T) -> (B, T, V)."""
        vectors = torch.zeros(*ids.shape, self.vocab_size, dtype=dtype, device=ids.device)
        return vectors.scatter_(2, ids[..., None].long(), 1)


class Bag(Fixed):
    """The share of each token among the last `window` ones, which sum to 1."""

    def __init__(self, vocab_size: int, window: int):
        super().__init__(vocab_size)
        self.window = window

    def forward(self, windows: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """(B, T, window) of ids, NONE where there is no token -> (B, T, V)."""
        real = windows != NONE
        shares = (real / real.sum(2, keepdim=True).clamp(min=1)).to(dtype)
        bag = torch.zeros(*windows.shape[:2], self.vocab_size, dtype=dtype, device=windows.device)
        return bag.scatter_add_(2, windows.clamp(min=0).long(), shares)


def make_input(kind: str, vocab_size: int, n_embd: int, window: int) -> nn.Module:
    """The input of that name. Raises ValueError for a name that is not in INPUTS."""
    check_input(kind)
    if kind == "embedding":
        return Embedding(vocab_size, n_embd)
    if kind == "bag":
        return Bag(vocab_size, window)
    return Label(vocab_size) if kind == "label" else OneHot(vocab_size)


def check_input(kind: str) -> None:
    """Raise ValueError for a name that is not in INPUTS."""
    if kind not in INPUTS:
        raise ValueError(f"inputs = {shown(kind)} must be one of {', '.join(INPUTS)}.")


def input_width(embed: nn.Module) -> int:
    """How many numbers it makes of a token."""
    if isinstance(embed, Embedding):
        return embed.embedding_dim
    assert isinstance(embed, Fixed)
    return 1 if isinstance(embed, Label) else embed.vocab_size


def read_inputs(
    embed: nn.Module,
    ids: Tensor,
    cache: StateCache | None = None,
    new: Tensor | None = None,
    real: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The vectors of (B, T) ids, by any input: (B, T, width). dtype: that of the weights which multiply them.

    new, real: see `preceding`. A bag reads on from the cache and brings it up to date, but for its `advance`.
    Raises ValueError for ids that the model has not.
    """
    if not isinstance(embed, Fixed):
        return embed(ids)
    check_ids(ids, embed.vocab_size)
    if isinstance(embed, Bag):
        ids = windows(ids, embed.window, cache, new, real)
    return embed(ids, dtype)
