"""Byte-level BPE: a text as bytes, then the learnt merges, the earliest learnt first.

    BPETokenizer    encode, decode, save; made by `train_bpe` or read by `bpe_files.read_bpe`
    merge_word      the merges of one word, written for short words
    merge_long_word the same with a heap and a linked list, for a "word" of any length

Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units"; bytes as letters: GPT-2.
The ids are those of the `tokenizers` library on any text. Chapter: docs/tokenization.md
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from os import PathLike

from minipoet.checks import as_ids, each, expect
from minipoet.tokenization.byte_level import alphabet_bytes, byte_alphabet, split_words
from minipoet.tokenization.chat import ChatTemplate
from minipoet.tokenization.roles import ROLES, end_ids, well_known_roles

SHORT_WORD = 64  # bytes; up to here scanning a list for the best pair is faster than keeping a heap
CACHED_WORDS = 200_000  # some 30 MB; a novel has about 40 000 different words


class BPETokenizer:
    """A byte-level BPE vocabulary and its merges. See `Tokenizer` for the methods."""

    def __init__(
        self,
        vocab: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        special_tokens: Sequence[str] = (),
        bos: str | None = None,
        eos: str | None = None,
        pad: str | None = None,
        more_eos: Sequence[str] = (),
        chat: ChatTemplate | None = None,
    ) -> None:
        """Build from a vocabulary (token -> id), merges (first learnt first) and the names of the specials.

        Tokens are written in the byte alphabet, specials as they are. A role that is not given falls to a well-known
        string (`</s>` ends a text, `<pad>` fills up); `more_eos` end a text as well. chat: the form in which the model
        learns to talk, if it does. A merge that would spell a special token is left out: text must
        never yield a special id. Raises ValueError with every problem of the vocabulary at once.
        """
        problems = vocabulary_problems(vocab, merges, special_tokens)
        roles = well_known_roles(special_tokens) | {
            role: name for role, name in zip(ROLES, (bos, eos, pad), strict=True) if name is not None
        }
        problems += [
            f"the {role} token {name!r} is no special token"
            for role, name in roles.items()
            if name is not None and name not in special_tokens
        ]
        problems += [f"{name!r} of more_eos is no special token" for name in more_eos if name not in special_tokens]
        if problems:
            raise ValueError(f"this is no byte-level BPE vocabulary: {'; '.join(problems)}")
        self.vocab = dict(vocab)
        self.merges = [(left, right) for left, right in merges if left + right not in special_tokens]
        self.roles = roles
        self.more_eos = list(more_eos)
        self.chat, self.chat_text = chat, None if chat is None else chat.jinja
        self._special_ids = {name: self.vocab[name] for name in special_tokens}
        self._table = MergeTable(self.vocab, self.merges)
        self._byte_ids = [self.vocab[byte_alphabet()[byte]] for byte in range(256)]
        self._words = _WordCache(self._byte_ids, self._table)
        byte_of = alphabet_bytes()
        self._token_bytes = [b""] * len(self.vocab)
        for token, id in self.vocab.items():
            special = token in self._special_ids
            self._token_bytes[id] = token.encode() if special else bytes(byte_of[letter] for letter in token)

    @property
    def vocab_size(self) -> int:
        return len(self.vocab)

    @property
    def special_ids(self) -> dict[str, int]:
        return dict(self._special_ids)

    @property
    def spare_ids(self) -> list[int]:
        return []

    @property
    def bos_id(self) -> int | None:
        return self._role_id("bos")

    @property
    def eos_id(self) -> int | None:
        return self._role_id("eos")

    @property
    def eos_ids(self) -> list[int]:
        return end_ids(self.roles, self.more_eos, self._special_ids)

    @property
    def pad_id(self) -> int | None:
        return self._role_id("pad")

    def _role_id(self, role: str) -> int | None:
        name = self.roles[role]
        return None if name is None else self._special_ids[name]

    def encode(self, text: str) -> list[int]:
        """The ids of a text. A lone surrogate (no valid Unicode) is a ValueError."""
        expect(text, str, "The text", "a string", "for several use encode_batch")
        return list(chain.from_iterable(map(self._words.__getitem__, split_words(text))))

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text; the words seen once are remembered for all."""
        return [self.encode(text) for text in each(texts, str, "The texts", "strings")]

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of some ids; bytes that are no UTF-8 become U+FFFD. An unknown id is a ValueError."""
        ids = as_ids(ids)
        if skip_special:
            special = set(self._special_ids.values())
            ids = (id for id in ids if id not in special)
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")

    def token_bytes(self, id: int) -> bytes:
        """The bytes that an id stands for; a special token's are its name."""
        if not 0 <= id < len(self._token_bytes):
            raise ValueError(
                f"id {id} is none of this tokenizer's, which are 0 to {self.vocab_size - 1}; "
                "a model with more rows must mask the rest before it samples"
            )
        return self._token_bytes[id]

    def save(self, folder: str | PathLike[str]) -> None:
        """Write tokenizer.json, vocab.json, merges.txt and tokenizer_config.json; see `bpe_files`."""
        from minipoet.tokenization.bpe_files import write_bpe  # which imports this file

        write_bpe(self, folder)


def vocabulary_problems(
    vocab: Mapping[str, int], merges: Sequence[tuple[str, str]], special_tokens: Sequence[str]
) -> list[str]:
    """What keeps a vocabulary, merges and specials from being a byte-level BPE; empty if all is well."""
    problems = []
    if sorted(vocab.values()) != list(range(len(vocab))):
        problems.append(f"the ids of its {len(vocab)} tokens are not 0 to {len(vocab) - 1}, each once")
    if missing := [symbol for symbol in byte_alphabet().values() if symbol not in vocab]:
        problems.append(f"{len(missing)} of the 256 bytes are no tokens, the first {missing[0]!r}")
    if missing := [name for name in special_tokens if name not in vocab]:
        problems.append(f"the special tokens {missing} are not in the vocabulary")
    problems += special_problems(special_tokens)
    unknown = [pair for pair in merges if not {pair[0], pair[1], pair[0] + pair[1]} <= vocab.keys()]
    if unknown:
        problems.append(
            f"{len(unknown)} merges have a part or a product outside the vocabulary, the first {unknown[0]}"
        )
    strange = [token for token in vocab.keys() - set(special_tokens) if not set(token) <= alphabet_bytes().keys()]
    if strange:
        problems.append(f"{len(strange)} tokens are neither special nor in the byte alphabet, one is {min(strange)!r}")
    return problems


def unicode_error(error: UnicodeEncodeError) -> ValueError:
    """What to say of a text with half a surrogate pair in it, which Python's str allows and UTF-8 does not."""
    code = ord(error.object[error.start])
    return ValueError(
        f"the text has a lone surrogate, U+{code:04X}, which is no character and has no UTF-8 form; "
        'clean it first, e.g. text.encode("utf-8", "replace").decode()'
    )


class MergeTable:
    """The merges by ids: which pair has which rank (the lower, the earlier learnt), and what each rank makes."""

    def __init__(self, vocab: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> None:
        self.ranks = {(vocab[left], vocab[right]): rank for rank, (left, right) in enumerate(merges)}
        self.products = [vocab[left + right] for left, right in merges]


def special_problems(special_tokens: Sequence[str]) -> list[str]:
    """What keeps names from being special tokens; empty if all is well."""
    problems = []
    if clash := [name for name in special_tokens if not name or name in alphabet_bytes()]:
        problems.append(f"the special tokens {clash} are empty or single letters, any text may have them")
    if len(set(special_tokens)) != len(special_tokens):
        problems.append(f"a special token is named twice in {list(special_tokens)}")
    return problems


class _WordCache(dict[str, tuple[int, ...]]):
    """Word -> its ids, worked out when a word is first asked for. Looking up a known word runs at the speed of C."""

    def __init__(self, byte_ids: Sequence[int], table: MergeTable) -> None:
        super().__init__()
        self._byte_ids = byte_ids
        self._table = table

    def __missing__(self, word: str) -> tuple[int, ...]:
        try:
            symbols = [self._byte_ids[byte] for byte in word.encode()]
        except UnicodeEncodeError as error:
            raise unicode_error(error) from None
        if len(symbols) > SHORT_WORD:
            return tuple(merge_long_word(symbols, self._table))
        if len(self) >= CACHED_WORDS:
            self.clear()
        ids = self[word] = tuple(merge_word(symbols, self._table))
        return ids


def merge_word(symbols: list[int], table: MergeTable) -> list[int]:
    """Merge the pair that was learnt first, the leftmost such, until no pair is left that was learnt.

    Each step scans the word, so the time grows with the square of its length: right for words, wrong for "аааа…".
    """
    rank_of = table.ranks.get
    never = len(table.products)
    ranks = [rank_of(pair, never) for pair in zip(symbols, symbols[1:], strict=False)]
    while ranks and (rank := min(ranks)) != never:
        i = ranks.index(rank)
        symbols[i : i + 2] = [table.products[rank]]
        del ranks[i]
        if i > 0:
            ranks[i - 1] = rank_of((symbols[i - 1], symbols[i]), never)
        if i < len(ranks):
            ranks[i] = rank_of((symbols[i], symbols[i + 1]), never)
    return symbols


def merge_long_word(symbols: list[int], table: MergeTable) -> list[int]:
    """The same merges in the same order in n·log n: a heap of (rank, place), the symbols in a linked list.

    A merge makes the entries of the pairs beside it out of date. They are not looked for: an entry is checked when
    it comes up, and dropped if its two symbols are not there any more.
    """
    following = list(range(1, len(symbols) + 1))
    before = list(range(-1, len(symbols) - 1))
    heap: list[tuple[int, int, int, int]] = []  # rank, place, left symbol, right symbol

    def consider(place: int) -> None:
        if place < 0 or following[place] >= len(symbols):
            return
        pair = (symbols[place], symbols[following[place]])
        if pair in table.ranks:
            heapq.heappush(heap, (table.ranks[pair], place, *pair))

    for place in range(len(symbols) - 1):
        consider(place)
    while heap:
        rank, place, left, right = heapq.heappop(heap)
        gone = following[place]
        if symbols[place] != left or gone >= len(symbols) or symbols[gone] != right:
            continue
        symbols[place], symbols[gone] = table.products[rank], -1
        following[place] = following[gone]
        if following[gone] < len(symbols):
            before[following[gone]] = place
        consider(before[place])
        consider(place)
    return [symbol for symbol in symbols if symbol >= 0]
