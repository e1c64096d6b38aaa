"""Distinct-n: of the n-grams of words in a text, the share that is left when each is counted once.

Li et al. 2016, "A Diversity-Promoting Objective Function for Neural Conversation Models", count the different n-grams
of all answers of a model and divide by all n-grams. Here each text is counted by itself, and the mean over the texts is
taken, so that it has an interval. Of one text it is the other side of `repetition`, which gives 1 − different / all;
but that looks through a window of words, and distinct-n takes a text as long as it is. So compare only what was written
under the same limits: the longer a text, the smaller its share, for a language has only so many words.

    distinct    the mean over several texts, as a Sampled

Words are those of `word_key`. "и вот, и вот" has the pairs и-вот, вот-и, и-вот: distinct-2 is 2/3.
Chapter: docs/measuring.md
"""

from __future__ import annotations

from collections.abc import Sequence

from minipoet.checks import each
from minipoet.evaluation.repetition import repetition
from minipoet.evaluation.samples import Sampled, mean_of
from minipoet.text.dedup import word_key


def distinct(texts: Sequence[str], n: int = 2) -> Sampled:
    """Different n-grams / all n-grams, n of 1 to 4: 1 for a text in which nothing comes twice, 0 for one without any.

    Raises ValueError for no texts.
    """
    texts = list(each(texts, str, "The texts", "strings"))
    found = repetition(texts, window=None)
    found.ngrams(n)  # n is checked there
    enough = [len(word_key(text).split()) >= n for text in texts]
    return mean_of([has * (1 - one.ngrams[n - 1]) for one, has in zip(found.texts, enough, strict=True)])
