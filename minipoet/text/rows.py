"""Rows of a file of records, however it is packed: JSON lines as they are, in gzip or in zstd; and parquet.

One row comes at a time, and the file is never in memory whole. What cannot be read takes a place among the rows as a
`Broken`, and reading goes on behind it; who reads decides whether that is an error (`minipoet.text.records`) or one
of a hundred thousand (`minipoet.text.stihi`). What a file is, its first bytes say, not its name.

    read_rows   (place, row), one by one
    packing_of, unpack, lines_of   the lines below them, for other forms of rows (`minipoet.text.tskv`)
    Broken      what is wrong, in words
    PACKED      the names that such files have

Formats: https://jsonlines.org; gzip, RFC 1952; zstd, RFC 8878; https://parquet.apache.org. zstd and parquet need
`pip install "minipoet[corpora]"` (Python 3.14 has zstd of its own). Chapter: docs/corpora.md.
"""

import importlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from minipoet.text.errors import CorpusError

PACKED = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
LONGEST = 16 << 20  # bytes of a line; more is no poem, and shall not fill the memory
_CHUNK = 1 << 14  # bytes of the file unpacked at a time: as much is lost, unpacked, before a broken place
_BLOCK = 1 << 17  # bytes of the largest block of zstd, which it reads whole before it finds it broken
_BATCH = 1000  # rows of parquet decoded at a time
_GZIP, _ZSTD, _PARQUET = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"PAR1"  # how such files, and each frame in them, begin
_LFS = b"version https://git-lfs"


class Broken(str):
    """What is wrong with a row, or with a stretch of the file."""


@dataclass(frozen=True)
class _Packing:
    """How frames are unpacked: an object with decompress, eof and unused_data for each, and what it raises."""

    name: str
    magic: bytes
    new: Callable[[], Any]
    error: type[Exception]


def read_rows(path: Path, columns: Iterable[str] = ()) -> Iterator[tuple[str, dict[str, Any] | Broken]]:
    """The rows of a file, each with its place, "file:line"; blank lines are none.

    columns: those to read of a parquet file. (JSON is read whole.)

    Raises:
        CorpusError: the file cannot be read at all, or needs a package that is not installed.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(len(_LFS))
            file.seek(0)
            if start.startswith(_LFS):
                raise CorpusError(f"{path}: a pointer of Git LFS, not the file itself; fetch it with: git lfs pull")
            if start.startswith(_PARQUET):
                yield from _parquet_rows(path, columns)
            else:
                yield from _json_rows(path, unpack(file, path, packing_of(start, path)))
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror or error})") from error


def need(module: str, package: str, path: Path) -> Any:
    """An optional module. Raises CorpusError, with the way to get it, where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise CorpusError(
            f'{path}: to read it takes the package {package}, which is not installed: pip install "minipoet[corpora]"'
        ) from error


def packing_of(start: bytes, path: Path) -> _Packing | None:
    """How a file that starts so is packed; None: it is not."""
    if start.startswith(_GZIP):
        return _Packing("gzip", _GZIP, lambda: zlib.decompressobj(16 + zlib.MAX_WBITS), zlib.error)
    if not start.startswith(_ZSTD):
        return None
    try:
        zstd = importlib.import_module("compression.zstd")  # Python 3.14
    except ImportError:
        library = need("zstandard", "zstandard", path)
        reader = library.ZstdDecompressor(max_window_size=1 << 31)  # what `zstd --long=31` writes
        return _Packing("zstd", _ZSTD, reader.decompressobj, library.ZstdError)
    options = {zstd.DecompressionParameter.window_log_max: 31}
    return _Packing("zstd", _ZSTD, lambda: zstd.ZstdDecompressor(options=options), zstd.ZstdError)


def unpack(file: BinaryIO, path: Path, packing: _Packing | None) -> Iterator[bytes | Broken]:
    """The bytes of a file, unpacked, a piece at a time. Behind a broken frame it goes on with the next one, if any."""
    if packing is None:
        while data := file.read(_CHUNK):
            yield data
        return
    frame, begun, inside, lost, data = packing.new(), 0, False, False, b""
    while data := data or file.read(_CHUNK):
        try:
            unpacked = frame.decompress(data)
        except packing.error as error:
            if not lost:  # else it only looked like the beginning of a frame
                yield Broken(f"a broken {packing.name} frame ({error}), {file.tell():,} bytes into the file")
            file.seek(max(begun + 1, file.tell() - len(data) - _BLOCK))
            data = _from_next_frame(file, packing.magic)
            frame, begun, inside, lost = packing.new(), file.tell() - len(data), False, True
            continue
        yield unpacked
        inside, lost, data = True, lost and not unpacked, b""
        if frame.eof:
            data = frame.unused_data.lstrip(b"\0")  # some fill their files up
            frame, begun, inside = packing.new(), file.tell() - len(data), False
    if inside:
        yield Broken(f"the file is cut short in the middle of a {packing.name} frame; is it complete?")


def _from_next_frame(file: BinaryIO, magic: bytes) -> bytes:
    """What is read from the next frame on; empty if there is none."""
    data = b""
    while (place := data.find(magic)) < 0:
        more = file.read(_CHUNK)
        if not more:
            return b""
        data = data[1 - len(magic) :] + more
    return data[place:]


def _json_rows(path: Path, chunks: Iterable[bytes | Broken]) -> Iterator[tuple[str, dict[str, Any] | Broken]]:
    for number, line in enumerate(lines_of(chunks), start=1):
        if isinstance(line, Broken):
            yield f"{path}:{number}", line
        elif line.strip():
            yield f"{path}:{number}", _parse(line)


def lines_of(chunks: Iterable[bytes | Broken]) -> Iterator[bytes | Broken]:
    """The lines of a stream of bytes. One that is broken off, or is endless, gives way to a `Broken`."""
    rest, endless = b"", False
    for chunk in chunks:
        if isinstance(chunk, Broken):
            yield chunk
            rest, endless = b"", False
            continue
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines[endless and bool(lines) :]
        endless = endless and not lines
        if len(rest) > LONGEST or endless:
            if not endless:
                yield Broken(f"a line of more than {LONGEST >> 20} MB; expected a record a line")
            rest, endless = b"", True
    if rest:
        yield rest


def _parse(line: bytes) -> dict[str, Any] | Broken:
    """The object of a line, or what is wrong with it."""
    try:
        fields = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        guess = guess_encoding(line)
        hint = f"; it looks like {guess}, convert the file: iconv -f {guess} -t UTF-8" if guess else ""
        return Broken(f"expected UTF-8, got byte 0x{line[error.start]:02x} at byte {error.start} of the line{hint}")
    except json.JSONDecodeError as error:
        return Broken(f"not JSON ({error.msg}: column {error.colno})")
    except RecursionError:
        return Broken("not JSON of a record (brackets without end)")
    return fields if isinstance(fields, dict) else Broken(f"expected an object, got {type(fields).__name__}")


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


def _parquet_rows(path: Path, columns: Iterable[str]) -> Iterator[tuple[str, dict[str, Any] | Broken]]:
    """The rows of a parquet file, a group of rows after the other; one that cannot be decoded is a `Broken`."""
    arrow, parquet = need("pyarrow", "pyarrow", path), need("pyarrow.parquet", "pyarrow", path)
    try:
        file = parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
    except (OSError, arrow.ArrowException) as error:
        raise CorpusError(
            f"{path}: cannot be read as parquet ({_first_line(error)}); its index is at its end: is it complete?"
        ) from error
    with file:
        wanted = [name for name in file.schema_arrow.names if name in set(columns)]
        first = 1
        for group in range(file.num_row_groups):
            rows, number = file.metadata.row_group(group).num_rows, first
            batches = file.iter_batches(_BATCH, row_groups=[group], columns=wanted, use_threads=False)
            while True:
                try:
                    batch = next(batches, None)
                except (OSError, ValueError, arrow.ArrowException) as error:
                    why = f"a broken group of rows ({_first_line(error)}), {rows + first - number:,} rows are lost"
                    yield f"{path}:{number}", Broken(why)
                    break
                if batch is None:
                    break
                for index in range(batch.num_rows):
                    yield f"{path}:{number}", _cells(batch, index)
                    number += 1
            first += rows


def _cells(batch: Any, index: int) -> dict[str, Any] | Broken:
    """The values of a row by the names of their columns."""
    try:
        return {name: batch.column(name)[index].as_py() for name in batch.schema.names}
    except ValueError as error:  # a string that is no UTF-8
        return Broken(f"cannot be decoded ({_first_line(error)})")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
