"""Reading files: text in UTF-8, and records, one JSON object a line (JSONL) or a row of parquet, one at a time.

    read_text     a whole text file, or an error that says which encoding it seems to be in
    read_records  poems or prose from JSONL; the file is never held in memory whole
    Record        one text with what is known about it

How a file is packed (gzip, zstd, parquet) is the business of `minipoet.text.rows`. Fields that a `Record` does not have
are ignored. Chapter: docs/text.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minipoet.checks import as_path
from minipoet.text.errors import CorpusError, listed
from minipoet.text.rows import PACKED, Broken, guess_encoding, read_rows

_OPTIONAL = ("title", "author", "work", "date", "kind")


@dataclass(frozen=True, slots=True)
class Record:
    """One text of such a file, not cleaned. `source` is "file:line", for messages; absent fields are empty."""

    text: str
    title: str = ""
    author: str = ""
    work: str = ""
    date: str = ""
    kind: str = ""
    source: str = ""


def is_records_file(path: str | Path) -> bool:
    """Whether the name is that of a file of records: JSONL, packed or not, or parquet."""
    return str(path).lower().endswith(PACKED)


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file (a BOM is dropped), with "\\n" as the line end.

    Raises:
        CorpusError: the file cannot be read, or is not UTF-8: then the message has the place, the encoding that it
            seems to be in, and the way to convert it.
    """
    path = as_path(path, "The file of a text")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        guess = guess_encoding(data)
        advice = (
            f"it looks like {guess}; convert it: iconv -f {guess} -t UTF-8 '{path}' > utf8.txt"
            if guess
            else "mend the byte, or save the file as UTF-8 in an editor"
        )
        line = data.count(b"\n", 0, error.start) + 1
        raise CorpusError(
            f"{path}: expected UTF-8, got byte 0x{data[error.start]:02x} at offset {error.start} (line {line}); "
            f"{advice}"
        ) from error


def read_records(path: str | Path) -> Iterator[Record]:
    """The records of a JSONL or parquet file, in order, read one by one; blank lines are skipped.

    Each has a string `text`; `title`, `author`, `work`, `date` and `kind` are optional strings (null is ""). At the
    first wrong line nothing more is yielded: the rest of the file is only checked, and one error tells all.

    Raises:
        CorpusError: the file cannot be read, is cut short, or has wrong lines: each is named as file:line.
    """
    path, problems = as_path(path, "The file of records"), []
    for place, row in read_rows(path, ("text", *_OPTIONAL)):
        record = row if isinstance(row, Broken) else _record(row, place)
        if isinstance(record, Broken):
            problems.append(f"{place}: {record}")
        elif not problems:
            yield record
    if problems:
        raise CorpusError(
            f"{path}: {len(problems)} wrong line(s); each line must be a JSON object "
            f'like {{"title": "...", "text": "..."}}:\n{listed(problems)}'
        )


def _record(fields: dict[str, Any], source: str) -> Record | Broken:
    """The record of a row, or what is wrong with it."""
    if "text" not in fields:
        return Broken(f"no field `text`; the fields are {', '.join(map(repr, fields)) or 'none'}")
    values = {name: fields[name] for name in _OPTIONAL if fields.get(name) is not None} | {"text": fields["text"]}
    wrong = [
        f"`{name}` must be a string, got {type(value).__name__}"
        for name, value in values.items()
        if not isinstance(value, str)
    ]
    return Broken("; ".join(wrong)) if wrong else Record(**values, source=source)
