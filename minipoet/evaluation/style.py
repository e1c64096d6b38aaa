"""Is it his style? How often a judge of authors names the poet who was asked for.

    split_for_judge    each author's poems in three, apart by work: for the generator, for the judge, for his own test
    how_often          poems by the author asked for -> StyleReport: Wilson's intervals, who was taken for whom
    quatrains_asked    how many poems have exactly the asked number of stanzas of four lines

A judge may be asked only about verse that he could not have learnt by heart, and a generator only be judged by one who
did not learn from the generator's own verse: that judge would reward copying. How good the judge is, he shows on the
third part, and every figure of his stands beside that one. Chapter: docs/style.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from minipoet.checks import each, expect, expect_whole, is_number, shown
from minipoet.evaluation.authors import CHARACTERS, AuthorJudge, has_words, spread
from minipoet.evaluation.form import verse_form
from minipoet.evaluation.samples import Difference, Interval, compare, mean_of, wilson
from minipoet.text.poems import Poem
from minipoet.text.split import split_by_work

LEAST = 20  # poems of an author: a judge who heard five of them, and was tested on three, knows nothing
NOBODY = "nobody"  # whose a poem without a Russian word is


@dataclass(frozen=True)
class JudgeSplit:
    """The poems of each author in three parts that share no work; `test` is cut into pieces, as many of each author."""

    generator: dict[str, list[Poem]]
    judge: dict[str, list[Poem]]
    test: dict[str, list[str]]


def split_for_judge(
    poems: Mapping[str, Sequence[Poem]],
    judge: float = 0.3,
    test: float = 0.15,
    characters: int = CHARACTERS,
    seed: int = 0,
) -> JudgeSplit:
    """About `judge` of each author's characters for the judge to learn from, `test` for his test, the rest to train on.

    The generator's own validation is taken from its part. A test piece has about as many characters as what the
    generator writes: a judge is better the more he is shown.

    Raises:
        ValueError: shares that leave nothing, or authors with fewer than 20 poems: all of them, with their numbers.
        CorpusError: an author whose poems are parts of one work, or too few works to divide.
    """
    if not (is_number(judge) and is_number(test) and judge > 0 and test > 0 and judge + test < 1):
        got = f"{shown(judge)} and {shown(test)}"
        raise ValueError(f"The judge's share and the test's must be above 0, and below 1 together; got {got}.")
    expect(poems, Mapping, "The poems", "a mapping", 'give {"Пушкин": [Poem, …], "Есенин": [Poem, …]}')
    found = {author: list(each(own, Poem, f"The poems of {author}", "Poem(text)")) for author, own in poems.items()}
    few = [f"{author} has {len(own)}" for author, own in found.items() if len(own) < LEAST]
    if few or not found:
        wanted = f"{LEAST} poems of each author, to divide among the generator, the judge and the judge's test"
        raise ValueError(
            f"Expected at least {wanted}; {', '.join(few) or 'there are none'}: bring more, or leave these authors out."
        )
    parts = JudgeSplit({}, {}, {})
    for author, own in found.items():
        rest = split_by_work(own, judge + test, seed)
        held_out = split_by_work(rest.validation, test / (judge + test), seed)
        parts.generator[author], parts.judge[author] = rest.train, held_out.train
        parts.test[author] = spread([poem.text for poem in held_out.validation], characters)
    same = min(map(len, parts.test.values()))
    return replace(parts, test={author: own[:same] for author, own in parts.test.items()})


@dataclass(frozen=True)
class StyleReport:
    """taken: {author asked for: whom the judge named for each poem}, in the order of the poems."""

    taken: dict[str, tuple[str, ...]]

    @property
    def by_author(self) -> dict[str, Interval]:
        """How often the author came out who was asked for, of each author's poems, with Wilson's interval."""
        return {asked: _share([name == asked for name in named]) for asked, named in self.taken.items()}

    @property
    def all(self) -> Interval:
        """The same of all poems together. Compare it with the judge's own accuracy, and with 1 / authors."""
        return _share(self.hits)

    @property
    def confusion(self) -> dict[str, dict[str, int]]:
        """{asked for: {taken for: how many}}; only what occurred."""
        return {asked: {name: named.count(name) for name in sorted(set(named))} for asked, named in self.taken.items()}

    @property
    def hits(self) -> list[bool]:
        """Poem by poem, author after author: was it taken for the author asked for?"""
        return [name == asked for asked, named in self.taken.items() for name in named]

    def against(self, other: StyleReport) -> Difference:
        """This share of hits less the other's, both asked the same: adapted against base, with its interval and p.

        Raises ValueError unless both have as many poems of each author.
        """
        expect(other, StyleReport, "What is compared", "a StyleReport", "how_often makes it")
        ours, theirs = ({asked: len(named) for asked, named in one.taken.items()} for one in (self, other))
        if list(ours.items()) != list(theirs.items()):
            raise ValueError(f"Two reports are compared prompt by prompt, but the poems are {ours} and {theirs}.")
        return compare(mean_of(self.hits), mean_of(other.hits))


def how_often(judge: AuthorJudge, poems: Mapping[str, Sequence[str]]) -> StyleReport:
    """Whom the judge names for each poem, {author asked for: poems}. A poem without a Russian word is nobody's.

    Raises ValueError for authors whom the judge does not know, and for an author without a poem.
    """
    expect(judge, AuthorJudge, "The judge", "an AuthorJudge", "AuthorJudge.fit(texts) makes one")
    expect(poems, Mapping, "The poems", "a mapping", 'give {"Пушкин": [text, …], "Есенин": [text, …]}')
    found = {asked: list(each(own, str, f"The poems of {asked}", "strings")) for asked, own in poems.items()}
    wrong = [str(asked) for asked, own in found.items() if asked not in judge.authors or not own]
    if wrong or not found:
        known, useless = ", ".join(judge.authors), ", ".join(wrong) or "nobody at all"
        raise ValueError(f"The judge knows {known}, and wants one poem at least of each asked for; got {useless}.")
    return StyleReport(
        {
            asked: tuple(judge.author(text) if has_words(text) else NOBODY for text in own)
            for asked, own in found.items()
        }
    )


class Quatrains(NamedTuple):
    """share: of the poems with exactly the asked number of stanzas, of four lines all; mean: stanzas of four a poem."""

    share: Interval
    mean: float


def quatrains_asked(texts: Sequence[str], asked: int = 4) -> Quatrains:
    """How many poems have the asked form. Stanzas are divided by blank lines. Raises ValueError for no texts."""
    expect_whole(asked=asked)
    stanzas = [verse_form(text).stanzas for text in each(texts, str, "The texts", "strings")]
    if not stanzas:
        raise ValueError("Quatrains are counted in one text or more, got none.")
    mean = sum(own.count(4) for own in stanzas) / len(stanzas)
    return Quatrains(_share([own == (4,) * asked for own in stanzas]), mean)


def _share(hits: Sequence[bool]) -> Interval:
    return Interval(sum(hits) / len(hits), *wilson(sum(hits), len(hits)))
