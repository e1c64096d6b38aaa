"""Which of several requests makes a text the likeliest? A model that writes, turned into a judge by Bayes' rule.

    p(request | text) ∝ p(text | request) · p(request)

With no request likelier than another beforehand, the answer is the request under which the model finds the text least
surprising. So one can ask whether a model *knows* what a rating does to a review, apart from how well it writes one:
drawing a text adds its own noise, reading one does not.

    likeliest_sources   of each text the number of its likeliest source

Chapter: docs/proportions.md
"""

from __future__ import annotations

from collections.abc import Sequence

from minipoet.checks import each, expect_whole
from minipoet.evaluation.likelihood import texts_likelihood
from minipoet.models.base import LanguageModel
from minipoet.tokenization import Tokenizer
from minipoet.training.pairs import encode_pairs


def likeliest_sources(
    model: LanguageModel,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    choices: Sequence[Sequence[str]],
    length: int = 512,
    rows: int = 16,
) -> list[int]:
    """For each text, which of its `choices` of sources, counted from 0, makes it the likeliest; of equals the first.

    length: tokens that are read of a source and of a text. Raises ValueError for texts without choices, with another
    number of choices than the first, and as `encode_pairs` and `texts_likelihood` do.
    """
    texts, choices = list(each(texts, str, "The texts", "strings")), [list(of) for of in choices]
    expect_whole(2, length=length)
    numbers = {len(of) for of in choices}
    if len(choices) != len(texts) or len(numbers) != 1 or 0 in numbers:
        raise ValueError(
            f"Each of the {len(texts)} texts needs as many sources to choose from, one or more; got lists of "
            f"{sorted(numbers)} for {len(choices)} texts."
        )
    surprise = []
    for sources in zip(*choices, strict=True):
        pairs = encode_pairs(model, tokenizer, sources, texts, length)
        told = texts_likelihood(
            model, pairs.targets, [max(1, len(t)) for t in texts], length, rows, sources=pairs.sources
        )
        surprise.append([of.nll for of in told])
    return [min(range(len(of)), key=of.__getitem__) for of in zip(*surprise, strict=True)]
