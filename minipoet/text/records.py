"""Reading files: text in UTF-8, and records, one JSON object a line (JSONL), gzipped or not, a line at a time.

    read_text     a whole text file, or an error that says which encoding it seems to be in
    read_records  poems or prose from JSONL; the file is never held in memory whole
    Record        one text with what is known about it

Format: JSON Lines (https://jsonlines.org). Fields that a `Record` does not have are ignored.
Chapter: docs/text.md.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minipoet.checks import as_path
from minipoet.text.errors import CorpusError, listed

_OPTIONAL = ("title", "author", "work", "date", "kind")
_SUFFIXES = (".jsonl", ".jsonl.gz")


@dataclass(frozen=True, slots=True)
class Record:
    """One text of a JSONL file, not cleaned. `source` is "file:line", for messages; absent fields are empty."""

    text: str
    title: str = ""
    author: str = ""
    work: str = ""
    date: str = ""
    kind: str = ""
    source: str = ""


def is_records_file(path: str | Path) -> bool:
    """Whether the name is that of a JSONL file."""
    return str(path).lower().endswith(_SUFFIXES)


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


def guess_encoding(data: bytes) -> str:
    """The encoding that Russian bytes which are not UTF-8 are probably in, or "" if none fits.

    In cp1251, KOI8-R and cp866 the same bytes stand for other letters, often of the other case; in running text nearly
    all of them are small Cyrillic letters only if the guess is right.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "UTF-16"
    high = bytes(byte for byte in data if byte > 127)
    small = {
        encoding: sum("а" <= letter <= "я" for letter in high.decode(encoding, errors="replace"))
        for encoding in ("cp1251", "koi8-r", "cp866")
    }
    best = max(small, key=lambda encoding: small[encoding])
    return best if 2 * small[best] > len(high) else ""


def read_records(path: str | Path) -> Iterator[Record]:
    """The records of a JSONL file, in order, read line by line; blank lines are skipped.

    Each line is an object with a string `text`; `title`, `author`, `work`, `date` and `kind` are optional strings (null
    is ""). At the first wrong line nothing more is yielded: the rest of the file is only checked, and one error tells
    all.

    Raises:
        CorpusError: the file cannot be read, is cut short, or has wrong lines: each is named as file:line.
    """
    path, problems = as_path(path, "The file of records"), []
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                record = _parse(line, f"{path}:{number}")
                if isinstance(record, str):
                    problems.append(record)
                elif not problems:
                    yield record
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or f"{error}; is it complete, and gzipped if it ends in .gz?"
        raise CorpusError(f"{path}: cannot be read ({why})") from error
    if problems:
        raise CorpusError(
            f"{path}: {len(problems)} wrong line(s); each line must be a JSON object "
            f'like {{"title": "...", "text": "..."}}:\n{listed(problems)}'
        )


def _parse(line: bytes, source: str) -> Record | str:
    """The record of a line, or what is wrong with it."""
    try:
        fields = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        guess = guess_encoding(line)
        hint = f"; it looks like {guess}, convert the file: iconv -f {guess} -t UTF-8" if guess else ""
        return f"{source}: expected UTF-8, got byte 0x{line[error.start]:02x} at byte {error.start} of the line{hint}"
    except json.JSONDecodeError as error:
        return f"{source}: not JSON ({error.msg} at column {error.colno})"
    if not isinstance(fields, dict):
        return f"{source}: expected an object, got {type(fields).__name__}"
    if "text" not in fields:
        return f"{source}: no field `text`; the fields are {', '.join(map(repr, fields)) or 'none'}"
    values = {name: fields[name] for name in _OPTIONAL if fields.get(name) is not None} | {"text": fields["text"]}
    wrong = [
        f"`{name}` must be a string, got {type(value).__name__}"
        for name, value in values.items()
        if not isinstance(value, str)
    ]
    if wrong:
        return f"{source}: {'; '.join(wrong)}"
    return Record(**values, source=source)
