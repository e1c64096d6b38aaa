"""Yes or no, said by a person about one text at a time: the samples, and the answers. `shares` says what they come to.

    Sample           a text to be judged, what was asked for, and who wrote it
    write_samples    a random choice of what models wrote, as JSON lines; read_samples reads it
    Labels           the answers so far, each on disk before the next question; read_labels reads them

The first line of a labels file has the checksum of its samples, so that answers are never counted for other texts. A
later answer about the same text replaces an earlier one, and no line is ever rewritten: who is interrupted, loses at
most the line that was being written. Chapter: docs/proportions.md
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from minipoet.checks import SEEDS, as_path, each, expect, expect_whole, is_whole, shown
from minipoet.evaluation.reviews import GeneratedReview
from minipoet.files import reason, write_text_atomic

QUESTION = "Could a person have written this?"
TOLD = 5  # problems of a file that are told in full

Id = int | str


@dataclass(frozen=True, slots=True)
class Sample:
    """A text to be judged. The model is not shown to who judges."""

    id: Id
    text: str
    request: str = ""
    rating: int | None = None
    model: str = ""


@dataclass(frozen=True)
class Samples:
    """The samples of a file, by their ids, and the SHA-256 of its content."""

    path: Path
    by_id: dict[Id, Sample]
    checksum: str

    def shuffled(self, seed: int = 0) -> list[Sample]:
        """All of them in random order: who judges must not see the models' samples in turn."""
        found = list(self.by_id.values())
        random.Random(seed).shuffle(found)
        return found


def write_samples(
    path: str | os.PathLike[str], generated: Iterable[GeneratedReview], number: int | None = None, seed: int = 0
) -> list[GeneratedReview]:
    """Write so many of the reviews, drawn at random (None: all, shuffled), and return them.

    Raises ValueError for fewer reviews than that, and for none; OSError for a file that cannot be written.
    """
    found = list(each(generated, GeneratedReview, "The reviews", "GeneratedReview(text, rating)"))
    number = len(found) if number is None else number
    expect_whole(number=number)
    if not is_whole(seed, 0, SEEDS):
        raise ValueError(f"The seed must be a whole number from 0 to 2**64 - 1, got {shown(seed)}.")
    if number > len(found):
        raise ValueError(f"{number} samples were asked for, but there are {len(found)} reviews: generate more of them.")
    chosen = random.Random(seed).sample(found, number)
    names = ("request", "text", "rating", "keywords", "model")
    entries = [{"id": id} | {name: getattr(one, name) for name in names} for id, one in enumerate(chosen, start=1)]
    write_text_atomic(as_path(path, "The file of samples"), "".join(map(_line, entries)))
    return chosen


def read_samples(path: str | os.PathLike[str]) -> Samples:
    """Samples as `write_samples` makes them, or by hand: an object a line with a text; the rest may be missing.

    Without an id the number of the line is one. Raises ValueError that names what is wrong in which lines.
    """
    path = as_path(path, "The file of samples")
    content = _read(path)
    found: dict[Id, Sample] = {}
    wrong = []
    for number, line in _lines(content, path):
        try:
            sample = _sample(_object(line), number)
            if sample.id in found:
                raise ValueError(f"the id {shown(sample.id)} comes again")
            found[sample.id] = sample
        except ValueError as error:
            wrong.append(f"line {number}: {error}")
    if wrong or not found:
        raise ValueError(f"{path} is no file of samples ({_some(wrong) or 'it is empty'}): write_samples makes one.")
    return Samples(path, found, sha256(content).hexdigest())


class Labels:
    """The answers about samples: {id: yes?}, in memory (`given`) and in the file. `read_labels` makes one.

    cut: the last line of the file has no end, and is dropped with the next answer.
    """

    def __init__(self, path: Path, samples: Samples, question: str):
        self.path, self.samples, self.question = path, samples, question
        self.given: dict[Id, bool] = {}
        self.cut = False
        self._whole = self._size = 0  # bytes of the file: of its whole lines, and all

    def add(self, id: Id, yes: bool) -> None:
        """Answer about a sample; it is on disk when this returns.

        Raises ValueError for an id that is none, OSError, with what to do, where it cannot be written.
        """
        expect(yes, bool, "An answer", "True or False")
        if id not in self.samples.by_id:
            raise ValueError(f"{self.samples.path} has no sample {shown(id)}.")
        line = _line({"id": id, "yes": yes})
        self._append(line if self._whole else _head(self.samples, self.question) + line)
        self.given[id] = yes

    def _append(self, lines: str) -> None:
        content = lines.encode()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "r+b" if self._size else "xb") as file:
                if file.seek(0, os.SEEK_END) != self._size:
                    raise FileExistsError(0, "another program has changed it")
                file.seek(self._whole)
                file.truncate()  # what a kill left of a line
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            why = reason(error, self.path)
            raise OSError(
                f"Could not write {self.path}: {why}; the answers before are kept: mend that, and start again."
            ) from error
        self._whole += len(content)
        self._size, self.cut = self._whole, False


def read_labels(path: str | os.PathLike[str], samples: Samples, question: str | None = None) -> Labels:
    """The answers so far; none, if there is no such file. A last line that was cut short is left out (`cut`).

    question: what was asked (None: what the file says). Answers to another question are not mixed with these.
    Raises ValueError for answers about other samples, to another question, and for what is no file of labels, and
    OSError for one that cannot be read. Reading changes nothing.
    """
    path = as_path(path, "The file of labels")
    expect(samples, Samples, "The samples", "Samples", "read_samples(path) reads them")
    labels = Labels(path, samples, QUESTION if question is None else question)
    if not path.exists():
        return labels
    content = _read(path)
    whole, _, rest = content.rpartition(b"\n")
    labels._size = len(content)
    labels._whole = labels._size - len(rest)
    head, *answers = list(_lines(whole, path)) or [(1, "")]
    if labels._whole:
        labels.question = _asked(head[1], labels, question)
    if rest:
        begun = '{"id": ' if labels._whole else _head(samples, "")[: len('{"samples": "') + 64]
        if not (rest.startswith(begun.encode()) or begun.encode().startswith(rest)):
            raise ValueError(
                f"{path} ends with what is no answer ({shown(rest.decode(errors='replace'))}): mend that line."
            )
        labels.cut = True
    wrong = []
    for number, line in answers:
        try:
            entry = _object(line)
            id, yes = entry.get("id"), entry.get("yes")
            if not _is_id(id) or id not in samples.by_id or not isinstance(yes, bool):
                raise ValueError('expected {"id": …, "yes": true or false} of a sample')
            labels.given[id] = yes
        except ValueError as error:
            wrong.append(f"line {number}: {error}")
    if wrong:
        raise ValueError(f"{path} has lines that are no answers ({_some(wrong)}): mend or remove these lines.")
    return labels


def _asked(line: str, labels: Labels, question: str | None) -> str:
    """The question in the first line of a file. Raises ValueError if it is not about these samples, or another one."""
    try:
        head = _object(line)
    except ValueError:
        head = {}
    checksum, asked = head.get("samples"), head.get("question")
    if not isinstance(checksum, str) or not isinstance(asked, str):
        raise ValueError(f"{labels.path} is no file of labels: its first line does not say of which samples it is.")
    if checksum != labels.samples.checksum:
        raise ValueError(
            f"{labels.path} has answers about other samples than {labels.samples.path} (its content is not the same): "
            "take the samples that were judged, or another file for the answers."
        )
    if question is not None and question != asked:
        raise ValueError(
            f"{labels.path} has answers to {asked!r}, not to {question!r}: take another file for the answers to this."
        )
    return asked


def _sample(entry: dict[str, Any], number: int) -> Sample:
    """Raises ValueError that says what is wrong with it. The text may be empty: a model may have written nothing."""
    if "text" not in entry:
        raise ValueError("it has no text")
    rating = entry.get("rating")
    sample = Sample(entry.get("id", number), entry["text"], entry.get("request", ""), rating, entry.get("model", ""))
    if not _is_id(sample.id):
        raise ValueError(f"the id must be a whole number or a string, got {shown(sample.id)}")
    for name in ("text", "request", "model"):
        if not isinstance(getattr(sample, name), str):
            raise ValueError(f"its {name} is no string")
    if rating is not None and not is_whole(rating, 1, 6):
        raise ValueError(f"the rating must be from 1 to 5, got {shown(rating)}")
    return sample


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _head(samples: Samples, question: str) -> str:
    return _line({"samples": samples.checksum, "question": question})


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _object(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        entry = None
    if not isinstance(entry, dict):
        raise ValueError("it is no JSON object")
    return entry


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise type(error)(f"{path} cannot be read: {error.strerror or error}.") from error


def _lines(content: bytes, path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers."""
    try:
        lines = content.decode("utf-8-sig").split("\n")  # not splitlines: a text may hold other line ends
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (after {error.start} bytes): save it as UTF-8.") from error
    yield from ((number, line) for number, line in enumerate(lines, start=1) if line.strip())


def _some(wrong: Sequence[str]) -> str:
    return "; ".join(wrong[:TOLD]) + (f"; and {len(wrong) - TOLD} more" if len(wrong) > TOLD else "")
