"""Two lines of a poem are given: what does the model write, and what did the poet? All figures of it at once.

    openings      held-out poems, each divided into the prompt and the true continuation
    first_lines   what was written, cut to as many lines as the poet has
    report        the figures of one model, each a Sampled: its interval, and its difference from another model's
    BETTER        of which figures more is better, of which less, and which only tell

The truth is as long as what the model may write, in lines: chrF counts recall, and a model that may write six lines
shall not be blamed for the forty of the poem. A model that ends its poem before has chosen to.

A line is whole when a line break follows it. What stands after the last one was cut off by the limit of tokens: it
counts as text, not as a line.

The figures of one model mean little: chrF of verse against verse is low for the poet's own other poems too, and as it
asks for recall first, it is higher for whoever writes more letters (look at their number beside it). What can be said
is that one model differs from another on the same poems (`compare`). Chapter: docs/measuring.md
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from minipoet.checks import each, expect, expect_whole
from minipoet.evaluation.chrf import chrf_rows
from minipoet.evaluation.copied import copied_words
from minipoet.evaluation.distinct import distinct
from minipoet.evaluation.form import verse_form
from minipoet.evaluation.likelihood import Likelihood
from minipoet.evaluation.repetition import repetition
from minipoet.evaluation.samples import Sampled, mean_of, ratio_of

# The figures of a report, and whether more is better (1), or less (-1), or neither: then the poet tells what is right.
BETTER: Mapping[str, int] = {
    "chrF": 1,
    "chrF++": 1,
    "perplexity": -1,
    "bits_per_character": -1,
    "verse": 1,
    "lines": 0,
    "distinct_2": 0,
    "repeated_lines": -1,
    "copied_words": 0,
}

_LINE = re.compile(r"[^\n]*\n|[^\n]+")


class Opening(NamedTuple):
    """The first lines of a poem, with the line break after them, and the lines that the poet went on with."""

    prompt: str
    truth: str


def openings(texts: Iterable[str], lines: int = 2, length: int = 6, shortest: int = 2) -> list[Opening]:
    """Each poem's first `lines` lines as a prompt, and its next `length` lines as the truth.

    A poem that goes on for fewer than `shortest` lines is left out, so there may be fewer openings than texts. Lines
    without a letter or a digit do not count. Prompt and truth together are the beginning of the poem, but for the line
    break that ends it. Raises ValueError if no poem is long enough.
    """
    expect_whole(1, lines=lines, length=length, shortest=shortest)
    texts = list(each(texts, str, "The texts", "strings"))
    found = []
    for text in texts:
        prompt = first_lines(text, lines, whole=True)
        rest = (text + "\n")[len(prompt) :]
        if verse_form(rest, cut=True).lines >= shortest:
            found.append(Opening(prompt, first_lines(rest, length, whole=True)))
    if not found:
        raise ValueError(
            f"None of the {len(texts)} text(s) has {lines} line(s) and {shortest} more: there is nothing to go on from."
        )
    return found


def first_lines(text: str, length: int, whole: bool) -> str:
    """The first `length` lines of a text, each with its line break, and the blank lines between them.

    whole: the text ended of itself, so that its last line is a line too; else what follows its last line break was cut
    off, and is kept without one where there are fewer lines than `length`.
    """
    expect(text, str, "The text", "a string")
    expect_whole(1, length=length)
    kept, count = "", 0
    for line in _LINE.findall(text + "\n" if whole and not text.endswith("\n") else text):
        if count == length:
            break
        kept += line
        count += any(map(str.isalnum, line))
    return kept


def report(
    written: Sequence[str], openings: Sequence[Opening], training: Iterable[str], likelihoods: Sequence[Likelihood]
) -> dict[str, Sampled]:
    """The figures of a model by the names of `BETTER`.

    written: what the model wrote after each prompt, as `first_lines` cuts it, without the prompt. training: the poems
    that it learnt from, read once. likelihoods: of held-out poems, whole, the same for each model (`texts_likelihood`).
    verse: the share of continuations with the form of verse; lines: how many one has; copied_words: the longest run
    that it shares with the training verse; both, like all that is of one continuation, on average.
    Raises ValueError for another number of texts than of openings, and none of either.
    """
    written = list(each(written, str, "What was written", "strings"))
    pairs = list(each(openings, Opening, "The openings", "Opening"))
    found = list(each(likelihoods, Likelihood, "The likelihoods", "Likelihood"))
    if not found:
        raise ValueError("There is no likelihood to report: texts_likelihood(model, ...) measures held-out poems.")
    forms = [verse_form(text, cut=True) for text in written]
    nll, tokens = [one.nll for one in found], [one.tokens for one in found]
    truths = [pair.truth for pair in pairs]
    return {
        "chrF": chrf_rows(written, truths),
        "chrF++": chrf_rows(written, truths, word_order=2),
        "perplexity": ratio_of(nll, tokens, np.exp),
        "bits_per_character": ratio_of(nll, [math.log(2) * one.characters for one in found]),
        "verse": mean_of([form.is_verse for form in forms]),
        "lines": mean_of([form.lines for form in forms]),
        "distinct_2": distinct(written, 2),
        "repeated_lines": mean_of([repeats.lines for repeats in repetition(written, None).texts]),
        "copied_words": mean_of(copied_words(written, training)),
    }
