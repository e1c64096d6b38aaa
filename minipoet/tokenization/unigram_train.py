"""Learning a unigram vocabulary in T5's form; the `tokenizers` library's UnigramTrainer does the learning.

It begins with all pieces of words that stand in the texts more than once, gives each a probability (expectation and
maximisation over all ways to cut each word), and throws away, a quarter at a time, those without which the texts lose
least. The library's loop is Kudo's; what is ours is the form around it: <pad> 0, </s> 1, <unk> 2, pieces, sentinels.
Kudo 2018, https://arxiv.org/abs/1804.10959, section 3.2. Chapter: docs/unigram.md
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from minipoet.checks import each, expect_whole
from minipoet.tokenization.bpe import unicode_error
from minipoet.tokenization.published import PublishedTokenizer
from minipoet.tokenization.sentencepiece import (
    T5_SPECIALS,
    Piece,
    SentencePieceModel,
    sentinel_pieces,
    unigram_spec,
)

# What sentencepiece calls nmt_nfkc, as near as the library comes without its table: both halves are the library's own.
NMT_NFKC = {
    "type": "Sequence",
    "normalizers": [
        {"type": "Nmt"},
        {"type": "NFKC"},
        {"type": "Replace", "pattern": {"Regex": r"\s"}, "content": " "},
    ],
}
# No piece has letters and digits, or letters and punctuation (sentencepiece: split_by_unicode_script, split_by_number).
ONE_KIND = r"▁?[\p{L}\p{M}]+|▁?\p{N}+|▁?[^\p{L}\p{M}\p{N}▁]+"
# Ordinary characters that must not be unknown, were they missing in the texts: prose has few digits, reviews have many.
RUSSIAN = "абвгдеёжзийклмнопрстуфхцчшщъыьэюя"
ALPHABET = RUSSIAN + RUSSIAN.upper() + "".join(map(chr, range(0x21, 0x7F))) + "«»„“—–₽"


def train_unigram(
    texts: Iterable[str],
    vocab_size: int,
    sentinels: int = 100,
    alphabet: str = ALPHABET,
    characters: int = 3_000_000,
) -> PublishedTokenizer:
    """Learn a vocabulary of `vocab_size` tokens in all: 3 specials, pieces, then `sentinels` of which one marks "\\n".

    alphabet: characters that are known even if the texts have none of them; all of the texts' own are.
    characters: of longer texts every second, third, … line is read, so that about as many are; the time goes with them
    (half a minute for three million; with more the ids of a text become few per cent fewer).
    A small corpus gives a smaller vocabulary. Raises ValueError if there is no text or no room for its characters.
    """
    expect_whole(1, vocab_size=vocab_size, characters=characters)
    expect_whole(0, sentinels=sentinels)
    lines = [line for text in each(texts, str, "The texts", "strings") for line in text.split("\n") if line.strip()]
    if not lines:
        raise ValueError("train_unigram has no text to learn from: the texts are empty, or there are none.")
    try:
        "\n".join(lines).encode()
    except UnicodeEncodeError as error:
        raise unicode_error(error) from None
    added = len(T5_SPECIALS) + sentinels
    step = max(1, math.ceil(sum(map(len, lines)) / characters))
    learnt = _learn(lines[::step], vocab_size - added, alphabet, added)
    model = SentencePieceModel([*T5_SPECIALS, *(Piece(*pair) for pair in learnt), *sentinel_pieces(sentinels)])
    spec = unigram_spec(model, NMT_NFKC)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "extra_ids": sentinels}
    return PublishedTokenizer(spec, {"bos": None, "eos": "</s>", "pad": "<pad>"}, config)


def _learn(lines: Sequence[str], size: int, alphabet: str, added: int) -> list[tuple[str, float]]:
    """The pieces and their scores (natural logarithms), the most probable first."""
    library = tokenizers.Tokenizer(models.Unigram())
    library.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace("▁", prepend_scheme="always"),
            pre_tokenizers.Split(tokenizers.Regex(ONE_KIND), "isolated"),
        ]
    )
    unknown = T5_SPECIALS[-1].text
    trainer = trainers.UnigramTrainer(
        vocab_size=max(size, 0) + 1,
        special_tokens=[unknown],
        unk_token=unknown,
        initial_alphabet=sorted(set(library.normalizer.normalize_str(alphabet)) - {" "}),
        show_progress=False,
    )
    try:
        library.train_from_iterator(lines, trainer)
    except Exception as error:  # the library raises plain Exception
        letters = len({letter for line in lines for letter in line} | set(alphabet))
        raise ValueError(
            f"vocab_size is {size + added}, of which {added} are specials and sentinels, but the texts and the "
            f"alphabet have {letters} different characters, each of which is a piece ({error}): ask for more."
        ) from error
    learnt = json.loads(library.to_str())["model"]["vocab"]
    return _settled(
        [(piece, score) for piece, score in learnt if piece not in {special.text for special in T5_SPECIALS}]
    )


def _settled(learnt: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """The same pieces whatever the order in which the library's threads and hashes came to them.

    Characters that the pruning threw away come back with scores just above the least, in no order: all get the least.
    """
    least = min(score for _, score in learnt)
    near = least + 1e-4 * (1 + sum(len(piece) == 1 for piece, _ in learnt))  # the library's step is 1e-4
    scores = {piece: least if len(piece) == 1 and score < near else score for piece, score in learnt}
    return sorted(((piece, round(score, 6)) for piece, score in scores.items()), key=lambda pair: (-pair[1], pair[0]))
