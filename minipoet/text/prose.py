"""Prose from files: whole works, a paragraph a line; and the end of each held out.

    a folder          of .txt files, one work each; the name of the file is its title
    one text file     works, each under a line "# Title"; a text without such a line is one work
    one JSONL file    (or .jsonl.gz) an object a line: `text`, and optionally `title`, `author`, `work`

A work of prose is a `Poem` whose lines are paragraphs: what is done with whole poems (cleaning, finding copies, the
fingerprint of a corpus) is done with it too. What differs is the split: an author has a hundred poems, but three
novels, and whole works do not make a tenth.

    read_prose    works from files
    parse_prose   works from a text
    parse_book    the work in an e-book's text, without the notes behind it
    hold_out      the last paragraphs of each work, or whole works, for validation

Chapter: docs/finetuning.md
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

from minipoet.checks import as_path, each, expect, is_number
from minipoet.text.clean import clean_text, clean_title
from minipoet.text.dedup import word_key, word_runs
from minipoet.text.errors import CorpusError, listed
from minipoet.text.poems import Poem
from minipoet.text.records import is_records_file, read_records, read_text
from minipoet.text.sources import without_marks
from minipoet.text.split import Split

_TITLE_LINE = re.compile(r"#[ \t]+(?P<title>\S.*)")
_BARE_NOTE = re.compile(r"(?<=\w)\(\d{1,3}\)")  # a footnote mark as «на Яик(3)»; after a space it is the author's own
_FORMS = "a folder of .txt files, a .txt file, or a .jsonl or .jsonl.gz file"


def read_prose(path: str | Path, author: str | None = None) -> list[Poem]:
    """All works of a folder, a text file or a JSONL file, in the order of the file (of the sorted names).

    author: keep the works of one author only: each word of it must be a word of the author's name. Text files name no
    author; their works are given this one. See the head of this module for the forms.

    Raises:
        CorpusError: nothing is there, it is in no known form, no work is in it, or files are wrong (all are listed).
    """
    path = as_path(path, "The prose's file or folder")
    if not path.exists():
        raise CorpusError(f"{path}: no such file or folder; expected {_FORMS}")
    if path.is_file() and is_records_file(path):
        return _read_jsonl(path, author or "")
    if path.is_file() and path.suffix.lower() != ".txt":
        raise CorpusError(f"{path}: a {path.suffix or 'nameless'} file; expected {_FORMS}")
    files = [path] if path.is_file() else _texts_of(path)
    if not files:
        raise CorpusError(f"{path}: no .txt file in it; expected {_FORMS}")
    works, problems = [], []
    for file in files:
        try:
            works += parse_prose(read_text(file), str(file), author or "", title=file.stem)
        except CorpusError as error:
            problems.append(str(error))
    if problems:
        raise CorpusError(f"{path}: {len(problems)} of {len(files)} file(s) cannot be used:\n{listed(problems)}")
    return works


def parse_prose(text: str, source: str = "", author: str = "", title: str = "") -> list[Poem]:
    """The works of a text; `title` is given to what stands before the first "# Title" line.

    Raises:
        CorpusError: there is no work in the text, or a title has none under it.
    """
    expect(text, str, "The text", "a string", "files are read by read_prose")
    parts: list[tuple[str, list[str]]] = [(title, [])]
    for line in text.splitlines():
        match = _TITLE_LINE.fullmatch(line.strip())
        if match:
            parts.append((clean_title(match["title"]), []))
        else:
            parts[-1][1].append(line)
    works = [Poem(paragraphs("\n".join(lines)), name, author, source=source) for name, lines in parts]
    empty = [repr(work.title) for work in works[1:] if not work.text]
    if empty:
        raise CorpusError(f"{source}: no text under the title(s) {', '.join(empty)}; write it, or delete the title")
    works = [work for work in works if work.text]
    if not works:
        raise CorpusError(f"{source}: no text in it ({len(text)} characters); expected paragraphs of prose")
    return works


def parse_book(text: str, title: str, last_words: str, author: str = "", source: str = "") -> Poem:
    """The work in an e-book's text: what follows the paragraph with its last words, the editors' notes, is left out.

    Marks of notes go as well: "[3]", and "(3)" right after a word.

    Raises:
        CorpusError: the last words are not in the text.
    """
    body = paragraphs(_BARE_NOTE.sub("", without_marks(text)))
    end = body.find(last_words)
    if end < 0:
        raise CorpusError(f"{source}: the last words of «{title}», «{last_words}», are not in it: it is another text")
    return Poem((body + "\n")[: (body + "\n").index("\n", end)], title, author, source=source)


def paragraphs(text: str) -> str:
    """A text cleaned, one paragraph a line, without blank lines or dividers (stars, dashes) at its ends."""
    lines = [line for line in clean_text(text).split("\n") if line]
    written = [number for number, line in enumerate(lines) if word_key(line)]
    return "\n".join(lines[written[0] : written[-1] + 1]) if written else ""


def hold_out(works: Sequence[Poem], share: float = 0.1, titles: Iterable[str] = ()) -> tuple[Split, int]:
    """Divides prose so that nothing that is measured was learnt; also, how many paragraphs were left out for it.

    Held out are the last paragraphs of each work, about `share` of its characters: one stretch a work, so that what is
    measured touches what is learnt in one place only. Its names and its story are known by then; works with one of
    `titles` are held out whole instead, and all of the others is learnt. A held-out paragraph that has six words in a
    row in common with what is learnt (a variant of a chapter, an overlap of two volumes) is left out of both sides.

    Raises:
        CorpusError: `share` is not between 0 and 1, a title is not there, or one side is empty.
    """
    works = list(each(works, Poem, "The works", "Poem(text)"))
    titles = list(each(titles, str, "titles", "strings"))
    if not is_number(share) or not 0 < share < 1:
        raise CorpusError(f"validation is the share of characters to hold out: expected 0 < share < 1, got {share}")
    whole = {word_key(title): title for title in titles}
    known = {word_key(work.title): work.title for work in works}
    if missing := [title for key, title in whole.items() if key not in known]:
        there = ", ".join(f"«{title}»" for title in list(known.values())[:12])
        raise CorpusError(f"no work is called {', '.join(f'«{title}»' for title in missing)}; there are {there}")
    learnt, held_out = [], []
    for work in works:
        lines = work.text.split("\n")
        learn = len(lines) if whole else _lines_to_learn(lines, share)
        learn = 0 if word_key(work.title) in whole else learn
        learnt += [replace(work, text="\n".join(lines[:learn]))] if learn else []
        held_out += [replace(work, text="\n".join(lines[learn:]))] if learn < len(lines) else []
    runs = {run for work in learnt for run in word_runs(work.text)}
    kept = [[line for line in work.text.split("\n") if not word_runs(line) & runs] for work in held_out]
    left_out = sum(work.text.count("\n") + 1 - len(lines) for work, lines in zip(held_out, kept, strict=True))
    validation = [replace(work, text="\n".join(lines)) for work, lines in zip(held_out, kept, strict=True) if lines]
    if not learnt or not validation:
        what = "measure on" if learnt else "learn from"
        raise CorpusError(
            f"cannot divide {len(works)} work(s) of prose: nothing is left to {what} (a work of one paragraph is not "
            "divided, and what stands on both sides is not measured); bring more text, or works with line ends"
        )
    return Split(learnt, validation), left_out


def _lines_to_learn(lines: Sequence[str], share: float) -> int:
    """How many paragraphs to learn from: at least one; all but the last ones, which come nearest to the share."""
    wanted = share * sum(map(len, lines))
    tails = list(accumulate(len(line) for line in reversed(lines[1:])))  # characters of the last 1, 2, … paragraphs
    best = min(range(len(tails)), key=lambda last: abs(tails[last] - wanted), default=-1)
    return len(lines) - best - 1


def _texts_of(folder: Path) -> list[Path]:
    """All .txt files under a folder, sorted; names that begin with a dot are passed over."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix.lower() == ".txt")
    return [path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def _read_jsonl(path: Path, author: str) -> list[Poem]:
    """The works of a JSONL file."""
    wanted = set(word_key(author).split())
    works, empty = [], []
    authors: Counter[str] = Counter()
    for record in read_records(path):
        authors[record.author] += 1
        if wanted <= set(word_key(record.author).split()):
            title, name, part_of = map(clean_title, (record.title, record.author, record.work))
            works.append(Poem(paragraphs(record.text), title, name, part_of, record.source))
            empty += [] if works[-1].text else [f"{record.source}: `text` is empty ({title or 'no title'})"]
    if empty:
        raise CorpusError(f"{path}: {len(empty)} record(s) without text; delete them:\n{listed(empty)}")
    if not works:
        found = ", ".join(f"{name or 'no name'} ({count})" for name, count in authors.most_common(12)) or "none"
        raise CorpusError(f"{path}: no work{f' by {author!r}' if author else ''} in it; works by author: {found}")
    return works
