"""Poems from files: what a poem is here, and the forms in which a corpus may come.

    a folder          of .txt files, one poem each; the name of the file is the title unless the file has its own
    one text file     poems divided by a line of stars, dashes or equals signs; a first line "# Title" is optional
    one JSONL file    (or .jsonl.gz, .jsonl.zst) an object a line: `text`, maybe `title`, `author`, `work`, `kind`
    one parquet file  the same fields as columns

All give a list of `Poem`, cleaned (`minipoet.text.clean`), and every mistake in a file is an error; for large
collections, which are never without mistakes, there is `read_stihi`. Chapter: docs/text.md.
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from minipoet.checks import as_path, expect
from minipoet.text.clean import clean_text, clean_title
from minipoet.text.errors import CorpusError, listed
from minipoet.text.records import is_records_file, read_records, read_text

_DIVIDER = re.compile(r"[ \t]*(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:=[ \t]*){3,}|(?:_[ \t]*){3,})")
_TITLE_LINE = re.compile(r"#{1,6}[ \t]*(?P<title>[^#\s].*)")
_FORMS = "a folder of .txt files, a .txt file with poems divided by lines of ***, a .jsonl (.gz, .zst) or .parquet file"


@dataclass(frozen=True)
class Poem:
    """A poem. `work` names the larger work that it is a part of ("" when it stands alone, or when nobody said so);
    `source` says where it was read ("file" or "file:line"), for messages only."""

    text: str
    title: str = ""
    author: str = ""
    work: str = ""
    source: str = ""

    def __post_init__(self):
        for name in ("text", "title", "author", "work", "source"):
            expect(getattr(self, name), str, f"Poem: {name}", "a string")


def read_poems(path: str | Path, author: str | None = None, *, drama: bool = False) -> list[Poem]:
    """All poems of a folder, a text file or a file of records, cleaned, in the order of the file (of the sorted names).

    Args:
        path: see the head of this module for the forms.
        author: keep the poems of one author only: each word of it must be a word of the author's name ("Пушкин" finds
            "Александр Сергеевич Пушкин"). Text files name no author; their poems are given this one.
        drama: also keep the records marked `"kind": "drama"`. Left out unless asked: names of speakers and stage
            directions stand between the lines of a play, and a model of verse would learn to write them.

    Raises:
        CorpusError: nothing is there, it is in no known form, no poem is in it, or files or lines are wrong (all
            are listed).
    """
    path = as_path(path, "The poems' file or folder")
    expect(author, (str, type(None)), "author", "a name")
    if path.is_dir():
        return _read_folder(path, author or "")
    if not path.exists():
        raise CorpusError(f"{path}: no such file or folder; expected {_FORMS}")
    if is_records_file(path):
        return _read_jsonl(path, author, drama)
    if path.suffix.lower() != ".txt":
        raise CorpusError(f"{path}: a {path.suffix or 'nameless'} file; expected {_FORMS}")
    return parse_poems(read_text(path), source=str(path), author=author or "")


def parse_poems(text: str, source: str = "", author: str = "", title: str = "") -> list[Poem]:
    """The poems of a text in the divided form; `title` is given to a poem that stands alone and has no "# Title" line.

    Raises:
        CorpusError: no poem is in the text, or a title has no poem under it.
    """
    expect(text, str, "The text", "a string", "files are read by read_poems")
    pieces, problems = [], []
    for number, lines in _pieces(text):
        match = _TITLE_LINE.fullmatch(lines[0].strip())
        poem = clean_text("\n".join(lines[1:] if match else lines))
        if poem:
            pieces.append((number, match["title"] if match else "", poem))
        elif match:
            problems.append(f"{source}:{number}: the title {match['title']!r} has no poem under it")
    if problems:
        raise CorpusError(
            f"{source}: {len(problems)} title(s) without a poem; write the poem or delete it:\n{listed(problems)}"
        )
    if not pieces:
        raise CorpusError(
            f"{source}: no poem in it ({len(text)} characters); expected lines of verse, poems divided by ***"
        )
    if len(pieces) == 1 and not pieces[0][1]:
        pieces = [(pieces[0][0], title, pieces[0][2])]
    return [Poem(poem, clean_title(name), author, source=f"{source}:{number}") for number, name, poem in pieces]


def _pieces(text: str) -> list[tuple[int, list[str]]]:
    """What stands between dividers: the number of its first line that is not blank, and the lines from there on."""
    pieces: list[tuple[int, list[str]]] = []
    open_piece = False
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        if _DIVIDER.fullmatch(line):
            open_piece = False
        elif open_piece:
            pieces[-1][1].append(line)
        elif line.strip():
            pieces.append((number, [line]))
            open_piece = True
    return pieces


def _read_folder(folder: Path, author: str) -> list[Poem]:
    """The poems of all .txt files under a folder, by sorted path; names that begin with a dot are passed over."""
    inside = sorted(path for path in folder.rglob("*") if path.is_file())
    visible = [path for path in inside if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    texts = [path for path in visible if path.suffix.lower() == ".txt"]
    if not texts:
        jsonl = [path.name for path in visible if is_records_file(path)]
        hint = f"; {jsonl[0]} is there: give that file itself" if jsonl else ""
        raise CorpusError(f"{folder}: no .txt file among its {len(visible)} file(s); expected {_FORMS}{hint}")
    poems, problems = [], []
    for path in texts:
        try:
            poems += parse_poems(read_text(path), source=str(path), author=author, title=path.stem)
        except CorpusError as error:
            problems.append(str(error))
    if problems:
        raise CorpusError(f"{folder}: {len(problems)} of {len(texts)} file(s) cannot be used:\n{listed(problems)}")
    return poems


def _read_jsonl(path: Path, author: str | None, drama: bool) -> list[Poem]:
    """The poems of a file of records."""
    wanted = _words(author or "")
    poems, empty = [], []
    authors: Counter[str] = Counter()
    plays = 0
    for record in read_records(path):
        authors[record.author] += 1
        if not wanted <= _words(record.author):
            continue
        if record.kind == "drama" and not drama:
            plays += 1
            continue
        text = clean_text(record.text)
        if text:
            title, name, work = map(clean_title, (record.title, record.author, record.work))
            poems.append(Poem(text, title, name, work, record.source))
        else:
            empty.append(f"{record.source}: `text` is empty ({record.title or 'no title'})")
    if empty:
        raise CorpusError(f"{path}: {len(empty)} record(s) without verse; delete them:\n{listed(empty)}")
    if not poems:
        found = ", ".join(f"{name or 'no name'} ({count})" for name, count in authors.most_common(12)) or "none"
        raise CorpusError(
            f"{path}: no poem{f' by {author!r}' if author else ''} in it; records by author: {found}"
            + (f"; {plays} play(s) left out (drama=True keeps them)" if plays else "")
        )
    return poems


def _words(name: str) -> set[str]:
    """The words of a name, to compare names: case and ё/е do not matter."""
    return set(re.findall(r"\w+", name.casefold().replace("ё", "е")))
