"""Learning a BPE vocabulary: count pairs of neighbours, join the most frequent, again and again.

    train_bpe       texts -> BPETokenizer: count words, learn merges
    learn_merges    the loop, five lines of it
    _Corpus         every different word once, as a chain of symbols; joins a pair wherever it stands
    _PairQueue      how often each pair stands, where, and which is the most frequent

Counting all pairs anew for each merge would take vocab_size passes over the words. Instead a merge goes only to the
places where its pair stands, and reports which neighbouring pairs it broke and which it made. Example, the words
"ab" 3 times, "abc" twice and "bc" 2 times (specials and bytes aside):

    a+b stands 3 + 2 = 5 times, b+c 2 + 2 = 4 times   join a+b: in "abc" the pair b+c is broken (-2), ab+c made (+2)
    ab+c stands 2 times, b+c 4 - 2 = 2 times          a tie: the pair with the smaller ids, b+c, goes first
    ab+c stands 2 times                               join ab+c

The merges are exactly those of the `tokenizers` library's BpeTrainer, ties and oddities included; a test compares.
Sennrich et al. 2016, section 3.2. Chapter: docs/tokenization.md
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from minipoet.checks import each, expect_whole
from minipoet.tokenization.bpe import BPETokenizer, special_problems, unicode_error
from minipoet.tokenization.byte_level import byte_alphabet, split_words

Pair = tuple[int, int]
Places = NDArray[np.int32]

BORDER = -1  # stands between two words, and where a symbol was swallowed by its left neighbour
BORDER_BYTE = 0xFF  # occurs in no UTF-8 text


def train_bpe(
    texts: Iterable[str],
    vocab_size: int,
    special_tokens: Sequence[str] = ("<pad>", "<s>", "</s>"),
    min_frequency: int = 2,
) -> BPETokenizer:
    """Learn a byte-level BPE vocabulary of `vocab_size` tokens: the specials, the 256 bytes, then merges.

    A pair that stands fewer than `min_frequency` times is not joined, so a small corpus gives a smaller vocabulary
    than asked for. Raises ValueError if `vocab_size` has no room for specials and bytes, there is no text, or one is no
    Unicode.
    """
    special_tokens = list(each(special_tokens, str, "special_tokens", "strings"))
    expect_whole(0, vocab_size=vocab_size, min_frequency=min_frequency)
    smallest = len(special_tokens) + 256
    if vocab_size < smallest:
        raise ValueError(
            f"vocab_size is {vocab_size}, but {len(special_tokens)} special tokens and 256 bytes need {smallest}"
        )
    if isinstance(texts, str):
        raise ValueError("train_bpe takes several texts and got one string; write train_bpe([text], ...)")
    if problems := special_problems(special_tokens):
        raise ValueError("; ".join(problems))
    words = count_words(texts)
    if not words:
        raise ValueError("train_bpe has no text to learn from: the texts are empty, or there are none")
    tokens = [*special_tokens, *sorted(byte_alphabet().values())]
    merges = learn_merges(words, tokens, vocab_size, min_frequency, frozenset(special_tokens))
    return BPETokenizer({token: id for id, token in enumerate(tokens)}, merges, special_tokens)


def count_words(texts: Iterable[str]) -> Counter[str]:
    """Word -> how often it stands in the texts. All that follows costs as much as there are different words."""
    words: Counter[str] = Counter()
    for text in each(texts, str, "The texts", "strings"):
        words.update(split_words(text))
    return words


def learn_merges(
    words: Mapping[str, int],
    tokens: list[str],
    vocab_size: int,
    min_frequency: int = 2,
    forbidden: frozenset[str] = frozenset(),
) -> list[tuple[str, str]]:
    """Append the learnt tokens to `tokens` (which has the 256 bytes) and return the merges, first learnt first.

    No merge makes a token of `forbidden`: a text that spells a special token stays ordinary text.
    """
    id_of = {token: id for id, token in enumerate(tokens)}
    corpus = _Corpus(words, [id_of[symbol] for symbol in byte_alphabet().values()])
    queue = _PairQueue(corpus.pairs(), min_frequency)
    merges: list[tuple[str, str]] = []
    while len(tokens) < vocab_size and (best := queue.pop()):
        (left, right), places = best
        merge = (tokens[left], tokens[right])
        if "".join(merge) in forbidden:
            continue
        merges.append(merge)
        tokens.append("".join(merge))
        broken, made = corpus.join((left, right), places, new=len(tokens) - 1)
        queue.update(broken, made)
    return merges


class _Corpus:
    """All words in one row of symbols, borders between them, linked so that a swallowed symbol can be stepped over.

        place      0  1  2  3  4  5  6        after a+b -> ab      0  1  2  3  4  5  6
        symbol     |  a  b  |  a  b  c  |                          |  ab .  |  ab .  c  |
        following  1  2  3  4  5  6  7                             1  3  .  4  6  .  7

    Arrays hold one entry a place, so that a merge is joined at a hundred thousand places by a dozen numpy calls.
    """

    def __init__(self, words: Mapping[str, int], byte_ids: Sequence[int]) -> None:
        try:
            encoded = [word.encode() for word in words]
        except UnicodeEncodeError as error:
            raise unicode_error(error) from None
        border = bytes([BORDER_BYTE])
        row = np.frombuffer(border + b"".join(word + border for word in encoded), dtype=np.uint8)
        symbol_of = np.array(byte_ids, dtype=np.int32)
        symbol_of[BORDER_BYTE] = BORDER
        count = len(row)
        self.symbol = symbol_of[row]
        self.before = np.arange(-1, count - 1, dtype=np.int32)
        self.following = np.arange(1, count + 1, dtype=np.int32)
        word = np.cumsum(row == BORDER_BYTE) - 1
        self.frequency = np.array([*words.values(), 0], dtype=np.int64)[word]

    def pairs(self) -> Iterator[tuple[Pair, int, Places]]:
        """Each pair of neighbours, how often it stands in the texts, and its places."""
        left, right = self.symbol[:-1], self.symbol[1:]
        places = np.flatnonzero((left != BORDER) & (right != BORDER)).astype(np.int32)
        both = left[places].astype(np.int64) << 32 | right[places]
        for pair, count, group in self._group(both, places):
            yield (pair >> 32, pair & 0xFFFFFFFF), count, group

    def join(
        self, pair: Pair, places: Places, new: int
    ) -> tuple[list[tuple[Pair, int]], list[tuple[Pair, int, Places]]]:
        """Join a pair at its places; return the pairs beside it that are broken and those that are made."""
        left, right = pair
        places = self._valid(pair, places)
        swallowed = self.following[places]
        after = self.following[swallowed]
        before_was = self.symbol[self.before[places]]
        self.symbol[swallowed] = BORDER
        self.symbol[places] = new
        self.following[places] = after
        self.before[after] = places

        # To the left x+a was broken and x+ab made. In "abab" the right one of two ab finds that its x was b and is ab
        # by now; so the left one need not look to its right.
        inner = before_was != BORDER
        before_was, starts = before_was[inner], self.before[places[inner]]
        before_is = self.symbol[starts]
        made_left = list(self._group(before_is, starts))
        broken_left = made_left if np.array_equal(before_was, before_is) else self._group(before_was, starts)
        broken = [((x, left), count) for x, count, _ in broken_left]
        made = [((x, new), count, group) for x, count, group in made_left]

        # To the right b+y was broken and ab+y made.
        after_is = self.symbol[after]
        inner = (after_is != BORDER) & (after_is != new)
        for y, count, group in self._group(after_is[inner], places[inner]):
            broken.append(((right, y), count))
            made.append(((new, y), count, group))
        return broken, made

    def _valid(self, pair: Pair, places: Places) -> Places:
        """The places where the pair still stands. In "aaa" it stands twice, and the first takes the middle a."""
        left, right = pair
        places = places[self.symbol[places] == left]
        places = places[self.symbol[self.following[places]] == right]
        if left != right:
            return places
        kept, swallowed = [], -1
        for place, following in zip(places.tolist(), self.following[places].tolist(), strict=True):
            if place != swallowed:
                kept.append(place)
                swallowed = following
        return np.array(kept, dtype=np.int32)

    def _group(self, keys: NDArray[np.integer], places: Places) -> Iterator[tuple[int, int, Places]]:
        """Places by key, ascending: the key, how often its places stand in the texts, the places."""
        if len(keys) < 2:
            yield from zip(keys.tolist(), self.frequency[places].tolist(), [places], strict=False)
            return
        order = np.argsort(keys, kind="stable")
        keys, places = keys[order], places[order]
        first = np.ones(len(keys), dtype=bool)
        np.not_equal(keys[1:], keys[:-1], out=first[1:])
        starts = np.flatnonzero(first)
        counts = np.add.reduceat(self.frequency[places], starts).tolist()
        bounds = [*starts.tolist(), len(keys)]
        for i, key in enumerate(keys[starts].tolist()):
            yield key, counts[i], places[bounds[i] : bounds[i + 1]]


class _PairQueue:
    """The pairs by frequency, the most frequent first, of equals the one with the smaller ids.

    A pair is made once, by the merge that makes the younger of its two symbols (a token has only one way to arise:
    in a stretch of text that no merge crosses, merges go the same way wherever it stands). From then on its count
    only falls, so a pair that is too rare may be forgotten. A heap cannot change an entry inside; the true counts
    are kept beside it, and an entry that comes up with an old count goes back with the true one.
    """

    def __init__(self, pairs: Iterable[tuple[Pair, int, Places]], min_frequency: int) -> None:
        self._min_frequency = max(1, min_frequency)
        self._counts: dict[Pair, int] = {}
        self._places: dict[Pair, Places] = {}
        self._heap: list[tuple[int, Pair]] = []  # -count, pair
        self.update([], pairs)

    def update(self, broken: Iterable[tuple[Pair, int]], made: Iterable[tuple[Pair, int, Places]]) -> None:
        """Take in what a merge did."""
        for pair, count in broken:
            if pair in self._counts:
                self._counts[pair] -= count
        for pair, count, places in made:
            if count >= self._min_frequency:
                self._counts[pair] = count
                self._places[pair] = places
                heapq.heappush(self._heap, (-count, pair))

    def pop(self) -> tuple[Pair, Places] | None:
        """The most frequent pair and its places; None when no pair is frequent enough."""
        while self._heap:
            negative, pair = self._heap[0]
            count = self._counts[pair]
            if count == -negative:
                heapq.heappop(self._heap)
                return pair, self._places.pop(pair)
            if count >= self._min_frequency:
                heapq.heapreplace(self._heap, (-count, pair))
            else:
                heapq.heappop(self._heap)
                del self._counts[pair], self._places[pair]
        return None
