"""Bits per character that models of letters, words and subwords may be compared by.

    fair_bits       what a likelihood comes to, with what the vocabulary could not say, over one count of characters
    unknown_cost    the part of it that a model has not paid for: which word, or which letter, an `<unk>` was

The denominator is Σ (len(text) + 1): every character, line breaks among them, and the end of each text, which a model
has to tell as well. It does not depend on the tokenizer, so neither may the numerator leave anything out: a word model
that says `<unk>` pays for the letters too (`spelling.py`), a letter model for the choice among all letters there are.

Chapter: docs/words.md
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from minipoet.checks import each, expect, expect_tokenizer
from minipoet.evaluation.likelihood import Likelihood
from minipoet.evaluation.spelling import Spelling, unseen_letters
from minipoet.tokenization import CharTokenizer, Tokenizer, encode_texts


def fair_bits(found: Likelihood, tokenizer: Tokenizer, texts: Sequence[str], spelling: Spelling | None = None) -> float:
    """Bits a character of texts that were measured whole: `found` is `likelihood` of `encode_texts(tokenizer, texts)`.

    spelling: of the words that the vocabulary lacks, for a word model. `found.characters` is not looked at.
    Raises ValueError for no texts, a likelihood of other tokens than these texts have, and where `unknown_cost` does.
    """
    expect(found, Likelihood, "The likelihood", "a Likelihood", "likelihood(model, ...) gives it")
    texts = list(each(texts, str, "The texts", "strings"))
    tokens = sum(len(ids) - 1 for ids in encode_texts(tokenizer, texts))
    if not texts or tokens != found.tokens:
        raise ValueError(
            f"The likelihood is of {found.tokens} tokens, but these texts have {tokens}, their ends counted: "
            "measure the same texts, with the same tokenizer."
        )
    nats = found.nll + unknown_cost(tokenizer, texts, spelling)
    return nats / (math.log(2) * sum(len(text) + 1 for text in texts))


def unknown_cost(tokenizer: Tokenizer, texts: Sequence[str], spelling: Spelling | None = None) -> float:
    """Nats to say which words, or letters, stand where the tokenizer reads `<unk>`; 0 for one that spells everything.

    Raises ValueError for unknown words without a Spelling, which has learnt on the training texts.
    """
    expect_tokenizer(tokenizer)
    expect(spelling, (Spelling, type(None)), "spelling", "a Spelling or None", "Spelling(words) learns one")
    texts = list(each(texts, str, "The texts", "strings"))
    if getattr(tokenizer, "unk_id", None) is None:
        return 0.0
    unknown = [piece for text in texts for piece in tokenizer.unknown(text)]  # type: ignore[attr-defined]
    if isinstance(tokenizer, CharTokenizer):
        return unseen_letters(unknown)
    if spelling is None and unknown:
        raise ValueError(
            f"The vocabulary lacks {len(unknown)} words of these texts, the first is {unknown[0]!r}: give a Spelling "
            "of the words that it lacks in the training texts."
        )
    return sum(spelling.nll(word) for word in unknown) if spelling else 0.0
