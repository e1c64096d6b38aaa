"""A large collection of poems, read as a stream: broken rows are counted and passed over, and so is what is no verse.

Written for `stihi_ru` of the Hugging Face hub (huggingface.co/datasets/IlyaGusev/stihi_ru): one file,
`stihi_ru.jsonl.zst` of 1.94 GB, with 5.15 million poems of stihi.ru as the corpus Taiga collected them, an object a
line. The loader beside it (`stihi_ru.py`) declares the strings `id`, `text`, `title`, `genre`, `topic` and `author`;
the number of poems is that of projects which used it. Its page shows no licence: the poems are their authors', and
none of them comes with this package.

The file is believed before this paragraph: names of fields are looked up in a small table (`FIELDS`), and what is not
in it is ignored, so that other collections of the kind (parquet converted from it, Taiga's own) can be read too.

    read_stihi     the first N poems that pass a `VerseFilter`, and a `ReadReport`
    stream_stihi   the same one by one, without end but the file's
    ReadReport     how many were read, kept, broken, and left out for which reason

Chapter: docs/corpora.md.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from minipoet.checks import as_path, expect, is_whole, shown
from minipoet.text.clean import clean_text, clean_title
from minipoet.text.errors import SHOWN, CorpusError
from minipoet.text.filters import VERSE, VerseFilter
from minipoet.text.poems import Poem
from minipoet.text.rows import PACKED, Broken, read_rows

FIELDS = {  # of a poem: the names under which collections have it, the first that is there counts
    "text": ("text", "content", "poem"),
    "title": ("title", "name"),
    "author": ("author", "author_name"),
}
_COLUMNS = tuple(name for names in FIELDS.values() for name in names)


@dataclass
class ReadReport:
    """What became of the rows: `read` = `kept` + `broken` + the sum of `rejected`, which counts by reason.

    `problems` has the first few broken ones in full, as file:line and what is wrong.
    """

    source: str = ""
    read: int = 0
    kept: int = 0
    broken: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """One short paragraph."""
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.rejected.most_common())
        return (
            f"{self.source}: {self.read:,} read, {self.kept:,} kept; "
            f"left out {self.rejected.total():,}{f' ({reasons})' if reasons else ''}; broken {self.broken:,}"
            + (f", the first: {self.problems[0]}" if self.problems else "")
            + "."
        )


def read_stihi(
    path: str | Path, first: int | None = None, keep: VerseFilter | None = VERSE, strict: bool = False
) -> tuple[list[Poem], ReadReport]:
    """The poems of a collection that pass the filter, cleaned, in the order of the file; and what became of the rest.

    Args:
        path: a file of JSON lines, plain, gzipped or in zstd, a parquet file, or a folder of such files.
        first: stop after so many poems; the rest of the file is not read.
        keep: which texts are poems; None: all that have a word.
        strict: a broken row is an error (with file:line), instead of one in a report.

    Raises:
        CorpusError: nothing is there, it cannot be read, no poem passes, or, if strict, a row is broken.
    """
    if first is not None and not is_whole(first, 1):
        raise CorpusError(f"first must be a whole number of poems, at least 1, or None for all, got {shown(first)}")
    report = ReadReport()
    stream = tqdm(stream_stihi(path, keep, strict, report), total=first, desc="poems", unit="", disable=None)
    with stream:
        poems = list(islice(stream, first))
    if not poems:
        raise CorpusError(f"no poem was kept. {report} Is it a collection of verse, and does the filter fit it?")
    return poems, report


def stream_stihi(
    path: str | Path,
    keep: VerseFilter | None = VERSE,
    strict: bool = False,
    report: ReadReport | None = None,
) -> Iterator[Poem]:
    """The poems of `read_stihi`, one by one. `report` is brought up to date before each."""
    path = as_path(path, "The collection of poems")
    expect(keep, (VerseFilter, type(None)), "keep", "a VerseFilter, or None to keep every text")
    expect(report, (ReadReport, type(None)), "report", "a ReadReport")
    report = ReadReport() if report is None else report
    report.source = str(path)
    for file in _files(path):
        for place, row in read_rows(file, _COLUMNS):
            poem = row if isinstance(row, Broken) else _poem(row, place)
            report.read += 1
            if isinstance(poem, Broken):
                report.broken += 1
                if strict:
                    raise CorpusError(f"{place}: {poem} (without strict it would be counted and passed over)")
                if len(report.problems) < SHOWN:
                    report.problems.append(f"{place}: {poem}")
                continue
            reason = ("" if poem.text else "too short") if keep is None else keep.reason(poem.text)
            if reason:
                report.rejected[reason] += 1
            else:
                report.kept += 1
                yield poem


def _files(path: Path) -> list[Path]:
    """The files of a collection: the path itself, or those of the folder by sorted names."""
    if not path.is_dir():
        return [path]
    inside = sorted(file for file in path.rglob("*") if file.is_file() and file.name.lower().endswith(PACKED))
    if not inside:
        raise CorpusError(f"{path}: no file of a collection in it; expected {', '.join(PACKED)}")
    return inside


def _poem(row: dict[str, Any], place: str) -> Poem | Broken:
    """The poem of a row, cleaned, or what is wrong with it."""
    found = {
        ours: next((row[name] for name in names if row.get(name) is not None), None) for ours, names in FIELDS.items()
    }
    text = found["text"]
    if text is None:
        return Broken(f"no text; expected a field `text`, the fields are {', '.join(map(repr, row)) or 'none'}")
    if not isinstance(text, str):
        return Broken(f"`text` must be a string, got {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return Broken(f"half a character (a lone surrogate, U+{ord(text[error.start]):04X}) in the text")
    title, author = (
        clean_title(value) if isinstance(value, str) else "" for value in (found["title"], found["author"])
    )
    return Poem(clean_text(text), title, author, source=place)
