"""Written reviews: the files of the package, from which others are made, and everything that is wrong in such a file.

The reviews that come with the package were written for it; no real person wrote them, and no real place is meant.

    = Кафе                                        the rubric, one a file, as a map service names it
    * 5 Пекарня «Тёплый угол»                     a review: its rating, and an invented name of the place
    начало: {Зашли|Заглянули} сюда {случайно|по совету друзей}.
    кухня: {Суп|Борщ} горячий, порции большие.    what it is about (the aspect), and a sentence or two of that
    обслуживание: Принесли за десять минут.\\n     \\n at the end: a line break follows
    # a comment

`{a|b}` is one of these, not nested; the first is how the review was written. Every choice must make a right sentence,
and each sentence must stand by itself: `minipoet.text.variations` exchanges it for the one about the same aspect of
another review. A file has one kind of place, and a small set of aspects.

    WrittenReview, Sentence   a review, and what it says of one aspect
    read_written              those of a file or folder, all mistakes told at once; none named: the embedded ones
    parse_written             those of a file's text, and its mistakes

Chapter: docs/reviews.md.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources
from math import prod
from pathlib import Path
from typing import Any

from minipoet.checks import as_path, shown
from minipoet.text.errors import CorpusError, listed
from minipoet.text.reviews import RATINGS, Review

EMBEDDED = "assets/reviews"

_HEAD = re.compile(r"\*\s*(\S+)\s*(.*)")
_BRACES = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Sentence:
    """What a review says of one aspect: stretches of text, each with its alternatives (a fixed one has just one)."""

    aspect: str
    stretches: tuple[tuple[str, ...], ...]

    def forms(self) -> int:
        """How many texts it can be."""
        return prod(map(len, self.stretches))

    def text(self, source: random.Random | None = None) -> str:
        """One of them; without a source of chance the one that was written."""
        return "".join(one[source.randrange(len(one)) if source else 0] for one in self.stretches)


@dataclass(frozen=True, slots=True)
class WrittenReview:
    """A review as it stands in its file; `source` is "file:line"."""

    rubric: str
    rating: int
    name: str
    sentences: tuple[Sentence, ...]
    source: str = ""

    def text(self) -> str:
        """The review as it was written: of each alternative the first."""
        return joined(sentence.text() for sentence in self.sentences)

    def review(self) -> Review:
        """The same as a Review."""
        return Review(self.text(), self.rating, (self.rubric,), self.name)


def read_written(path: str | Path | None = None) -> list[WrittenReview]:
    """The written reviews of a file, or of the files `*.txt` of a folder; without a path those of the package.

    Raises:
        CorpusError: nothing is there, or files have mistakes: all of them, each with its line.
    """
    folder: Any = (
        resources.files("minipoet").joinpath(EMBEDDED) if path is None else as_path(path, "The written reviews")
    )
    if folder.is_file():
        files = [folder]
    else:
        inside = folder.iterdir() if folder.is_dir() else ()
        files = sorted((file for file in inside if file.name.endswith(".txt")), key=lambda file: file.name)
    if not files:
        raise CorpusError(f"{folder}: no written reviews there; expected a file, or a folder of files *.txt")
    found: list[WrittenReview] = []
    mistakes: list[str] = []
    for file in files:
        try:
            text = file.read_bytes().decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            mistakes.append(f"{file.name}: cannot be read as UTF-8 ({error})")
            continue
        reviews, wrong = parse_written(text, file.name)
        found += reviews
        mistakes += wrong
    if mistakes:
        raise CorpusError(f"{folder}: {len(mistakes)} mistake(s) in written reviews:\n{listed(mistakes)}")
    return found


def parse_written(text: str, source: str) -> tuple[list[WrittenReview], list[str]]:
    """The reviews of a file's text, and what is wrong in it, as "source:line: mistake" in the order of lines."""
    wrong: list[tuple[int, str]] = []
    rubric, head = "", None
    found: list[tuple[int, int, str, dict[str, tuple[int, Sentence]]]] = []  # line, rating, name, aspect -> sentence
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("="):
            if rubric or found:
                wrong.append((number, "a second rubric (`= …`); a file has one, before its reviews"))
            rubric = line[1:].strip() or rubric
            if not rubric or ";" in rubric:
                wrong.append((number, "a rubric is a name without «;», as in `= Кафе`"))
        elif line.startswith("*"):
            head = _HEAD.fullmatch(line)
            rating, name = head.groups() if head else ("", "")
            if rating not in map(str, RATINGS) or not name:
                head_is = "a review begins as `* 5 name`, with a rating of 1 to 5 and a name"
                wrong.append((number, f"{head_is}; got {shown(line)}"))
            found.append((number, int(rating) if rating in map(str, RATINGS) else 0, name, {}))
        else:
            aspect, colon, words = line.partition(":")
            aspect, words = aspect.strip(), words.strip()
            if not colon or not aspect or re.search(r"[{}|\\]|\s\S+\s", aspect):
                wrong.append((number, f"expected `aspect: sentence`, got {shown(line)}"))
            elif not found:
                wrong.append((number, "a sentence before the first review (`* 5 name`)"))
            elif aspect in found[-1][3]:
                wrong.append((number, f"the aspect «{aspect}» a second time in one review"))
            else:
                stretches, mistake = _stretches(words)
                if mistake:
                    wrong.append((number, mistake))
                found[-1][3][aspect] = number, Sentence(aspect, stretches)
    if not rubric:
        wrong.append((1, "no rubric: the file must begin with `= Кафе`, or another name"))
    if not found:
        wrong.append((1, "no review (`* 5 name`)"))
    wrong += [(number, "a review without a sentence") for number, *_, sentences in found if not sentences]
    wrong += _strangers(found)
    written = [
        WrittenReview(rubric, rating, name, tuple(sentence for _, sentence in said.values()), f"{source}:{number}")
        for number, rating, name, said in found
    ]
    return written, [f"{source}:{number}: {mistake}" for number, mistake in sorted(wrong)]


def _stretches(words: str) -> tuple[tuple[tuple[str, ...], ...], str]:
    """The stretches of a sentence, and what is wrong with it, if anything."""
    broken = words.endswith("\\n")
    words = words.removesuffix("\\n").rstrip()
    pieces = _BRACES.split(words)  # fixed, inside braces, fixed, …
    fixed, inside = pieces[::2], [tuple(piece.split("|")) for piece in pieces[1::2]]
    if not words:
        return (), "an empty sentence"
    if "\\" in words:
        return (), "a backslash; only \\n at the end of a sentence, for a line break, is known"
    if any(set(piece) & set("{}") for piece in fixed):
        return (), "unbalanced or nested braces"
    if any("|" in piece for piece in fixed):
        return (), "a | outside of braces"
    for one in inside:
        shown_one = "{" + "|".join(one) + "}"
        if not all(word.strip() for word in one):
            return (), f"an empty alternative in {shown_one}"
        if len(one) < 2 or len(set(one)) < len(one):
            return (), f"{shown_one} must have at least two alternatives, no two of them equal"
    stretches = [(fixed[0],)]
    for one, piece in zip(inside, fixed[1:], strict=True):
        stretches += [one, (piece,)]
    return (*(one for one in stretches if one != ("",)), *([("\n",)] if broken else [])), ""


def _strangers(found: Sequence[tuple[int, int, str, dict[str, tuple[int, Sentence]]]]) -> list[tuple[int, str]]:
    """Aspects that one review of a file has, and that are spelled almost as one that several have."""
    often = Counter(aspect for *_, said in found for aspect in said)
    known = [aspect for aspect, count in often.items() if count > 1]
    strange = []
    for *_, said in found:
        for aspect, (number, _sentence) in said.items():
            near = get_close_matches(aspect, known, n=1, cutoff=0.75)
            if often[aspect] == 1 and near:
                strange.append((number, f"unknown aspect «{aspect}»: did you mean «{near[0]}»?"))
    return strange


def joined(sentences: Iterable[str]) -> str:
    """Sentences with a space between, or the line break that the one before ends with."""
    return re.sub("\n ", "\n", " ".join(sentences)).strip()
