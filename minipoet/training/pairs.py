"""Sources and what is written about them, as ids for a model that reads a source: translation, summary, a review.

    source   the ids of the source, and the end token
    target   the start id of the decoder, the ids of the text, and the end token

The decoder reads the target without its last id, and learns the target without its first.

Chapter: docs/t5.md
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minipoet.checks import each, expect_model, expect_tokenizer, expect_whole
from minipoet.models.base import LanguageModel
from minipoet.tokenization import Tokenizer


@dataclass(frozen=True)
class Pairs:
    """What is learnt from, an entry of both lists a pair, for `Batches(targets, length, rows, sources=sources)`."""

    sources: list[list[int]]
    targets: list[list[int]]
    cut: int  # pairs of which a side was too long, and lost its end


def encode_pairs(
    model: LanguageModel, tokenizer: Tokenizer, sources: Sequence[str], targets: Sequence[str], length: int
) -> Pairs:
    """Each source and its target, cut to `length` ids, for `Batches` of this length.

    A target that is cut has no end token: it is not over, and the model must not learn that it were. Raises ValueError
    for lists of different lengths, a model that reads no source, and a tokenizer without an end token.
    """
    expect_model(model)
    expect_tokenizer(tokenizer)
    expect_whole(2, length=length)
    sources, targets = (list(each(texts, str, "The texts", "strings")) for texts in (sources, targets))
    if len(sources) != len(targets):
        raise ValueError(f"There are {len(sources)} sources and {len(targets)} targets: each needs the other.")
    if not model.reads_source:
        raise ValueError(f"A {type(model).__name__} reads no source: let it learn whole texts (encode_texts).")
    start, end = int(model.start_id), tokenizer.eos_id  # type: ignore[arg-type]
    if end is None:
        raise ValueError("This model's tokenizer names no token for the end of a text (eos): a text could not end.")
    read, written = tokenizer.encode_batch(sources), tokenizer.encode_batch(targets)
    cut = sum(len(source) >= length or len(text) >= length for source, text in zip(read, written, strict=True))
    return Pairs(
        [[*source[: length - 1], end] for source in read],
        [[start, *text, end][: length + 1] for text in written],
        cut,
    )
