"""TSKV: lines of fields `key=value` with a TAB between, read one at a time, in whatever packing `rows` knows.

    address=Тверь, …⇥name_ru=Пекарня⇥rating=5.⇥rubrics=Кафе;Пекарня⇥text=Тёплый хлеб.\\nПриду ещё.

A field is divided at its first `=` only, since a text may hold more, and found by its key, since a field may be
missing. The two characters `\\n` stand for a line break: no line of the file is broken by a text.

    read_fields   (number of the line, its fields by name), or a `Broken` that says what is wrong with the line

Chapter: docs/reviews.md.
"""

from collections.abc import Iterator
from pathlib import Path

from minipoet.text.errors import CorpusError
from minipoet.text.rows import Broken, guess_encoding, lines_of, packing_of, unpack

_POINTER = b"version https://git-lfs"


def read_fields(path: Path, address: str = "") -> Iterator[tuple[int, dict[str, str] | Broken]]:
    """The lines of a file, numbered from 1; blank ones are passed over, CR LF is as good as LF, a BOM is dropped.

    address: where the real file is to be had, told to someone who has a pointer of Git LFS instead.

    Raises:
        CorpusError: the file cannot be read at all, or is such a pointer.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(len(_POINTER))
            file.seek(0)
            if start == _POINTER:
                advice = f"download {address}" if address else "git lfs pull"
                raise CorpusError(f"{path}: a pointer of Git LFS (some 130 bytes), not the file itself; {advice}")
            for number, line in enumerate(lines_of(unpack(file, path, packing_of(start, path))), start=1):
                if isinstance(line, Broken):
                    yield number, line
                elif line := (line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).rstrip(b"\r"):
                    yield number, _fields(line)
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror or error})") from error


def _fields(line: bytes) -> dict[str, str] | Broken:
    """The fields of a line by their keys."""
    try:
        pairs = [field.partition("=") for field in line.decode().split("\t")]
    except UnicodeDecodeError:
        guess = guess_encoding(line)
        return Broken(f"not UTF-8 (it looks like {guess}: iconv -f {guess} -t UTF-8)" if guess else "not UTF-8")
    fields = {key: value for key, _, value in pairs}
    if not all(equals for _, equals, _ in pairs):
        return Broken("a field without «=»")
    return fields if len(fields) == len(pairs) else Broken("a key twice")
