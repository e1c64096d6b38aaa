"""Few-shot prompts: poems that answer requests, then the request; the model is not trained, it only reads them.

    Тема: зима                   an example: a request,
    Метель замолкла за окном…    and a poem that answers it
                                 (a blank line)
    Тема: осень                  the request; here the model goes on, until it writes the next «Тема:»

    Shot        a request and a poem that answers it
    PlainForm   the form above, for a model that goes on with a text
    ChatForm    turns of a conversation, for a model that is asked
    Shots       examples to choose from, by chance or by likeness, as many whole ones as there is room for
    Prompt      what the model is given, and which examples are in it

The room knows nothing of tokens: `count` says how long prompts are, whatever the tokenizer.
Brown et al., "Language Models are Few-Shot Learners", 2020 (2005.14165); Liu et al., "What Makes Good In-Context
Examples for GPT-3?", 2021 (2101.06804); Lu et al., "Fantastically Ordered Prompts and Where to Find Them", 2021
(2104.08786). Chapter: docs/few-shot.md
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

from minipoet.checks import each, expect, expect_whole, is_whole, shown
from minipoet.text.dedup import find_leaks
from minipoet.text.errors import listed
from minipoet.text.likeness import Likeness
from minipoet.text.poems import Poem

WAYS = ("likeness", "chance")  # how examples are chosen
_SOME = "осень"  # a request, to measure examples before

Count = Callable[[Sequence[Any]], Sequence[int]]  # prompts, as the form makes them -> how many tokens each has


class Shot(NamedTuple):
    """An example: what is asked, in one line, and the poem."""

    request: str
    text: str


@dataclass(frozen=True)
class PlainForm:
    r"""A text that goes on: label and request on a line, the poem under it, `between` it and the next label.

    A poem may have blank lines in it, so one does not end it: the next label does, at the beginning of a line, or a
    line of `between` that says something ("\n\n***\n\n"). Raises ValueError for a label that is no word on one line
    and a `between` without a line break: a poem could not be told from what follows.
    """

    label: str = "Тема: "
    between: str = "\n\n"

    def __post_init__(self) -> None:
        expect(self.label, str, "The label", "a string")
        expect(self.between, str, "What stands between poems", "a string")
        if not self.label.strip() or "\n" in self.label or not self.between.startswith("\n"):
            raise ValueError(
                "A prompt in plain form needs a label of one line, as in 'Тема: ', and a line break to begin what "
                f"stands between poems; got {shown(self.label)} and {shown(self.between)}."
            )

    def prompt(self, shots: Iterable[Shot], request: str) -> str:
        """The examples in this order and the request; it ends where the poem is to begin."""
        told = ["\n".join([self.label + shot.request, shot.text.strip("\n") + self.between]) for shot in shots]
        return "".join(told) + f"{self.label}{request}\n"

    @property
    def stops(self) -> tuple[str, ...]:
        """The strings that end what is written (`SamplingSettings.stop`)."""
        return tuple("\n" + mark for mark in self._marks)

    def parse(self, written: str) -> str:
        """The poem in what a model wrote: nothing from the first line that begins with a mark, no blanks around it."""
        expect(written, str, "What was written", "a string")
        mark = self._line.search(written)
        return (written[: mark.start()] if mark else written).strip()

    def problem(self, shot: Shot) -> str:
        """Why a reader could not tell where this poem ends, or ""."""
        mark = self._line.search(shot.text)
        return f"a line of it begins with {mark[0].strip()!r}, which ends a poem here" if mark else ""

    @property
    def _marks(self) -> list[str]:
        said = self.between.strip().split("\n")[0].strip()
        return [mark for mark in (self.label.strip(), said) if mark]

    @property
    def _line(self) -> re.Pattern[str]:
        return re.compile(rf"^[ \t]*(?:{'|'.join(map(re.escape, self._marks))})", re.MULTILINE)


@dataclass(frozen=True)
class ChatForm:
    """Turns: each example a question of the user and the assistant's answer. The markers end a poem, and no string.

    system: what the system says first; None leaves it to the model's template.
    """

    system: str | None = None

    def __post_init__(self) -> None:
        expect(self.system, (str, type(None)), "The system message", "a string or None")

    def prompt(self, shots: Iterable[Shot], request: str) -> list[dict[str, str]]:
        """The conversation up to the last question (`generation.chat_many` takes it)."""
        said = [("user", "assistant", shot) for shot in shots]
        turns = [turn for user, poet, shot in said for turn in ((user, shot.request), (poet, shot.text))]
        first = [] if self.system is None else [("system", self.system)]
        return [{"role": role, "content": content} for role, content in [*first, *turns, ("user", request)]]

    @property
    def stops(self) -> tuple[str, ...]:
        """None: an answer ends with its marker."""
        return ()

    def parse(self, written: str) -> str:
        """The poem in an answer: all of it, without blanks around it."""
        expect(written, str, "What was written", "a string")
        return written.strip()

    def problem(self, shot: Shot) -> str:
        """Nothing that a poem says can be taken for a marker."""
        return ""


@dataclass(frozen=True)
class Prompt:
    """given: what the model reads, a text or a conversation; shots: the examples in it, in its order, the most alike
    last; asked: how many were wanted, some of which may have been left out; tokens: its length."""

    given: Any
    shots: tuple[Shot, ...]
    asked: int
    tokens: int


class Shots:
    """Examples to choose from.

    form, count: how prompts are told, and how many tokens they have; each example is counted once, when it is first
    needed. held_out: poems that are to be measured on. An example that is one of them, or nearly (`find_leaks`: half
    of the lines or word runs of the shorter in common), would hand the model its answer: it is dropped, and `leaks`
    says how many were.

    Raises ValueError that lists all examples without a request in one line, without a poem, or in which a reader
    could not tell where the poem ends.
    """

    def __init__(
        self,
        shots: Iterable[Shot],
        form: PlainForm | ChatForm,
        count: Count,
        held_out: Iterable[str] = (),
        seed: int = 0,
    ) -> None:
        expect(form, (PlainForm, ChatForm), "The form", "a PlainForm() or a ChatForm()")
        expect_whole(0, seed=seed)
        found = list(each(shots, Shot, "The examples", "Shot(request, text)"))
        if wrong := [f"number {number}: {why}" for number, shot in enumerate(found) if (why := _wrong(shot, form))]:
            raise ValueError(f"{len(wrong)} of {len(found)} examples cannot be used:\n{listed(wrong)}")
        kept_out = [Poem(text) for text in each(held_out, str, "The held-out poems", "strings")]
        leaks = {leak.dropped.text for leak in find_leaks(kept_out, [Poem(shot.text) for shot in found])}
        self.shots = [shot for shot in found if shot.text not in leaks]
        self.leaks = len(found) - len(self.shots)
        self.form, self.count, self.seed = form, count, seed
        self._likeness = Likeness(f"{shot.request}\n{shot.text}" for shot in self.shots)
        self._lengths: dict[int, int] = {}

    def ranked(self, request: str, by: str = "likeness") -> list[int]:
        """The numbers of all examples, the best first.

        "chance": an order that seed and request draw, whatever was asked before. "likeness": the most alike first, and
        among equals, such as those without a word in common, as chance has it.
        """
        if by not in WAYS:
            raise ValueError(f"Examples are chosen by {' or '.join(map(repr, WAYS))}, got {shown(by)}.")
        order = list(range(len(self.shots)))
        Random(f"{self.seed} {request}").shuffle(order)
        if by == "likeness":
            scores = self.likeness(request)
            order.sort(key=lambda number: -scores[number])  # a stable sort
        return order

    def likeness(self, request: str) -> list[float]:
        """How alike each example's request and poem are to a request, from 0 to 1 (`Likeness`)."""
        return self._likeness.scores(request)

    def prompt(self, request: str, shots: int, context: int, new_tokens: int, by: str = "likeness") -> Prompt:
        """A prompt with the best `shots` examples, the most alike next to the request.

        Prompt and poem must fit the context; the last new token is not read: context - new_tokens + 1 are left for the
        prompt. What is too long even alone is passed over. Where the chosen ones do not fit together, whole examples
        are left out, the least alike first.

        Raises ValueError if there are fewer examples than are asked for, or no room for the request itself.
        """
        if _no_line(request):
            raise ValueError(f"The request must be some words on one line, got {shown(request)}.")
        if not is_whole(shots, 0, len(self.shots) + 1):
            raise ValueError(f"There are {len(self.shots)} examples to choose from: 0 to so many, got {shown(shots)}.")
        expect_whole(1, context=context, new_tokens=new_tokens)
        room = context - new_tokens + 1
        (alone,) = self.count([self.form.prompt([], request)])
        if alone > room:
            raise ValueError(
                f"The request alone takes {alone} tokens, and {new_tokens} new ones leave {max(room, 0)} of a context "
                f"of {context}: ask for fewer new tokens, or in fewer words."
            )
        chosen: list[int] = []
        for number in self.ranked(request, by) if shots else ():
            if self._length(number) <= room - alone:
                chosen.append(number)
            if len(chosen) == shots:
                break
        while alone + sum(map(self._length, chosen)) > room:
            chosen.pop()
        while True:
            examples = tuple(self.shots[number] for number in reversed(chosen))
            given = self.form.prompt(examples, request)
            (tokens,) = self.count([given])
            if tokens <= room:
                return Prompt(given, examples, shots, tokens)
            chosen.pop()  # the whole may have a few tokens more than its parts

    def _length(self, number: int) -> int:
        """How many tokens an example adds to a prompt, with what stands around it."""
        if number not in self._lengths:
            with_it, without = self.count([self.form.prompt(some, _SOME) for some in ([self.shots[number]], [])])
            self._lengths[number] = with_it - without
        return self._lengths[number]


def _no_line(text: Any) -> bool:
    """Is it not a text of one line?"""
    return not isinstance(text, str) or not text.strip() or len(text.splitlines()) > 1


def _wrong(shot: Shot, form: PlainForm | ChatForm) -> str:
    if _no_line(shot.request):
        return f"the request must be some words on one line, got {shown(shot.request)}"
    if not isinstance(shot.text, str) or not shot.text.strip():
        return f"the poem is no text, got {shown(shot.text)}"
    return form.problem(shot)
