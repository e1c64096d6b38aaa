"""Requests and the poems that fulfil them, as ids to learn from: supervised fine-tuning on prompt and completion.

A poem says itself what it would have been the answer to: so many quatrains, about this, in the manner of that poet. The
request is read by the model but not learnt: `Batches(data.ids, length, rows, prompts=data.prompts)` puts the targets of
the prompt to `IGNORED`, and the loss is that of the poem and its end token.

    check_enough   an author with too few poems is told, before anything runs
    examples       poems -> Examples
    joined         those of several poets as one

Ouyang et al., "Training language models to follow instructions with human feedback", 2022 (2203.02155), step 1.
Chapter: docs/instruction.md
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from minipoet.checks import each, expect, expect_tokenizer, expect_whole
from minipoet.text.excerpts import excerpts, quatrains
from minipoet.text.poems import Poem
from minipoet.text.requests import request
from minipoet.text.themes import Themes
from minipoet.tokenization import Tokenizer
from minipoet.tokenization.chat import END, ChatTemplate, marker_ids


@dataclass(frozen=True)
class Examples:
    """What is learnt from, an entry of each list an example: its ids, the first `prompts` of which are only read (for
    `Batches`); what was asked, and what is answered."""

    ids: list[list[int]]
    prompts: list[int]
    requests: list[str]
    texts: list[str]
    divided: int  # poems that were too long, and were divided at ends of stanzas or lines
    cut_lines: int  # lines that were too long by themselves, and were cut between words


def check_enough(name: str, poems: Sequence[Poem], least: int = 20) -> None:
    """Raise ValueError, with the number, for an author with fewer poems than `least`."""
    expect_whole(least=least)
    if len(poems) < least:
        raise ValueError(
            f"{name} has {len(poems)} poem{'' if len(poems) == 1 else 's'}, but {least} are needed at least: a manner "
            "is neither learnt nor measured from so few. Bring more, or look whether the corpus spells the name so."
        )


def examples(
    poems: Sequence[Poem],
    poet: str | None,
    template: ChatTemplate,
    tokenizer: Tokenizer,
    length: int,
    themes: Themes | None = None,
) -> Examples:
    """Each poem as the answer to a request for it, in at most `length` ids with request and end, in the given order.

    A poem too long for that is divided (`text.excerpts`), and each part is asked for by itself: with its own number of
    quatrains, and a theme from its own words: the title is that of the whole.

    Args:
        poems: what is to be learnt.
        poet: their author's name in the genitive (`text.requests.genitive`), or None: requests name no manner.
        template: the form of the conversation.
        tokenizer: that of the model.
        length: the longest example. Rows of `Batches` of this length hold it.
        themes: what is salient is told in comparison with these poems; None: with `poems`.

    Raises:
        ValueError: there is no poem, or the request takes so much of `length` that a word of verse finds no room.
    """
    poems = list(each(poems, Poem, "The poems", "Poem(text)"))
    expect_tokenizer(tokenizer)
    expect(template, ChatTemplate, "The template", "a ChatTemplate")
    expect_whole(length=length)
    if not poems:
        raise ValueError("There is no poem to make an example of.")
    themes = Themes.of(poems) if themes is None else themes
    expect(themes, Themes, "themes", "Themes.of(poems)")
    maker = _Maker(poet, template, tokenizer, length, themes)
    made = maker.examples(poems)
    parts: list[_Example] = []
    divided = cut_lines = 0
    for poem, example in zip(poems, made, strict=True):
        if len(example.ids) <= length:
            parts.append(example)
            continue
        pieces, cut = maker.divided(poem, example)
        parts += pieces
        divided += 1
        cut_lines += cut
    return Examples(
        [part.ids for part in parts],
        [part.prompt for part in parts],
        [part.request for part in parts],
        [part.text for part in parts],
        divided,
        cut_lines,
    )


def joined(parts: Iterable[Examples]) -> Examples:
    """The examples of several poets, one after another."""
    parts = list(parts)
    return Examples(
        [ids for part in parts for ids in part.ids],
        [prompt for part in parts for prompt in part.prompts],
        [asked for part in parts for asked in part.requests],
        [text for part in parts for text in part.texts],
        sum(part.divided for part in parts),
        sum(part.cut_lines for part in parts),
    )


@dataclass(frozen=True)
class _Example:
    ids: list[int]
    prompt: int
    request: str
    text: str


@dataclass(frozen=True)
class _Maker:
    """What all examples have in common."""

    poet: str | None
    template: ChatTemplate
    tokenizer: Tokenizer
    length: int
    themes: Themes

    def examples(self, poems: Sequence[Poem]) -> list[_Example]:
        """Of whatever length. As `template.example` makes them, but all poems are tokenised in one batch."""
        end = marker_ids(self.tokenizer)[END]
        made = []
        answers = self.tokenizer.encode_batch([poem.text for poem in poems])
        for poem, answer in zip(poems, answers, strict=True):
            asked = request(quatrains(poem.text), self.themes.theme(poem), self.poet)
            ids, prompt = self.template.example(self.tokenizer, asked, None)
            made.append(_Example([*ids, *answer, end], prompt, asked, poem.text))
        return made

    def divided(self, poem: Poem, whole: _Example) -> tuple[list[_Example], int]:
        """The parts of a poem that is too long, all of which fit; and how many lines were cut.

        How long the request for a part is, is known when the part is; and a text may have a few tokens more than its
        lines. If a part turns out too long, all is done again with as much less room.
        """
        room = self.length - whole.prompt - 1  # beside the request and the end token
        lengths: dict[str, int] = {}

        def measure(texts: Sequence[str]) -> list[int]:
            new = [text for text in texts if text not in lengths]
            lengths.update(zip(new, map(len, self.tokenizer.encode_batch(new)), strict=True))
            return [lengths[text] for text in texts]

        while True:
            try:
                parts, cut_lines = excerpts(poem, measure, room)
            except ValueError as error:  # no room at all, or not for a word
                raise ValueError(
                    f"length={self.length} leaves no room for verse: the request alone takes {whole.prompt} tokens "
                    f"({whole.request}). Give a larger length."
                ) from error
            made = self.examples(parts)
            excess = max(len(example.ids) for example in made) - self.length
            if excess <= 0:
                return made, cut_lines
            room -= excess
