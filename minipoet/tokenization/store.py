"""Texts turned into ids once: a file beside the corpus, known by what is in it, read in place and never whole.

Tokenising a hundred thousand poems takes longer than reading their ids back, and ids in a list take 8 bytes each at
least. So `tokenized` writes them down, two bytes each where the vocabulary allows it, and maps the file: a text is a
slice, and pages come from the disk as they are asked for.

The name of the file is a hash of the content: of the texts, of the files in which the tokenizer saves itself, and of
the version of this form. Another text, another merge, another special token: another file, so that nothing old is
ever taken for new.

    tokenized     texts -> TokenStore, made now or found
    TokenStore    a sequence of read-only arrays of ids, each a text between its start and its end

The file is a safetensors file (https://huggingface.co/docs/safetensors) of two tensors, `offsets` and `ids`: text i is
`ids[offsets[i]:offsets[i + 1]]`. It is written whole or not at all, so two processes at once write the same file twice,
and nobody reads half of one. Chapter: docs/corpora.md
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import chain
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, overload

import numpy as np
from tqdm import tqdm

from minipoet.checks import as_path, each, expect_tokenizer
from minipoet.files import atomic_path, cache_folder
from minipoet.tokenization.base import Tokenizer, encode_texts

VERSION = "minipoet tokens 1"
CHUNK = 1000  # texts tokenised at a time
_HEADER = 1024  # bytes kept for the header: its length in 8, then JSON, which spaces may follow
_LENGTH = (_HEADER - 8).to_bytes(8, "little")
_TYPES = {"U8": "<u1", "U16": "<u2", "U32": "<u4", "I64": "<i8"}  # the types of the format, and NumPy's names for them
_BLOCK = 1 << 20


class TokenStore(Sequence[np.ndarray]):
    """The ids of texts in a file that is mapped, not read; each text is a read-only array of the smallest type."""

    def __init__(self, path: Path, offsets: np.ndarray, ids: np.ndarray) -> None:
        self.path, self.offsets, self.ids = path, offsets, ids

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"There is no text {index} among {len(self)}.")
        index %= len(self)
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    @property
    def tokens(self) -> int:
        """How many ids there are in all, starts and ends included."""
        return len(self.ids)


def tokenized(tokenizer: Tokenizer, texts: Sequence[str], folder: str | PathLike[str] | None = None) -> TokenStore:
    """The ids of each text between its start and its end (`encode_texts`), from the cache if they are there.

    folder: where the file is kept; None: `tokens` in the cache folder (MINIPOET_CACHE, else ~/.cache/minipoet). A file
    that is damaged is made anew; to be rid of the cache, remove the folder.
    Raises ValueError for what is no list of strings or no tokenizer, OSError if the folder cannot be written to.
    """
    expect_tokenizer(tokenizer)
    texts = list(each(texts, str, "The texts", "strings"))
    if not texts:
        raise ValueError("There is no text to make tokens of.")
    folder = cache_folder() / "tokens" if folder is None else as_path(folder, "The folder of the cache")
    key = content_key(tokenizer, texts)
    path = folder / f"{key[:32]}.safetensors"
    try:
        return open_store(path, key)
    except (OSError, ValueError):  # not there, or damaged
        _write(path, key, tokenizer, texts)
        return open_store(path, key)


def content_key(tokenizer: Tokenizer, texts: Sequence[str]) -> str:
    """SHA-256, in hexadecimal, of all that the ids depend on: the tokenizer's files, and the texts in order."""
    digest = hashlib.sha256(VERSION.encode())
    with TemporaryDirectory() as folder:
        tokenizer.save(folder)
        for file in sorted(Path(folder).iterdir()):
            digest.update(hashlib.sha256(file.name.encode() + b"\0" + file.read_bytes()).digest())
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")  # what is wrong with such a text, the tokenizer says
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def open_store(path: Path, key: str) -> TokenStore:
    """The store of a file, mapped, after its checksum was compared. Raises OSError, or ValueError if it is damaged."""
    with open(path, "rb") as file:
        start = file.read(_HEADER)
        header = json.loads(start[8:])
        found = header.pop("__metadata__", None) if isinstance(header, dict) else None
        if start[:8] != _LENGTH or found != {"minipoet": VERSION, "key": key, "sha256": _checksum(header, file)}:
            raise ValueError(f"{path} is no file of these tokens, or is damaged.")
    offsets, ids = (
        np.memmap(
            path,
            dtype=_TYPES[header[name]["dtype"]],
            mode="r",
            offset=_HEADER + header[name]["data_offsets"][0],
            shape=tuple(header[name]["shape"]),
        )
        for name in ("offsets", "ids")
    )
    return TokenStore(path, np.asarray(offsets), np.asarray(ids))


def _write(path: Path, key: str, tokenizer: Tokenizer, texts: Sequence[str]) -> None:
    """Write the file; ids go to the disk chunk by chunk, offsets and header at last to the places kept for them."""
    code = next(code for code, dtype in _TYPES.items() if tokenizer.vocab_size - 1 <= np.iinfo(dtype).max)
    dtype = np.dtype(_TYPES[code])
    offsets = np.zeros(len(texts) + 1, dtype=_TYPES["I64"])
    with atomic_path(path) as temporary, open(temporary, "r+b") as file:
        file.seek(_HEADER + offsets.nbytes)
        done = 0
        for chunk in _chunks(tokenizer, texts):
            offsets[done + 1 : done + 1 + len(chunk)] = offsets[done] + np.cumsum([len(ids) for ids in chunk])
            file.write(np.array(list(chain.from_iterable(chunk)), dtype).tobytes())
            done += len(chunk)
        file.seek(_HEADER)
        file.write(offsets.tobytes())
        start, total = offsets.nbytes, int(offsets[-1])
        header: dict[str, Any] = {
            "offsets": {"dtype": "I64", "shape": [len(offsets)], "data_offsets": [0, start]},
            "ids": {"dtype": code, "shape": [total], "data_offsets": [start, start + total * dtype.itemsize]},
        }
        header["__metadata__"] = {"minipoet": VERSION, "key": key, "sha256": _checksum(header, file)}
        file.seek(0)
        file.write(_LENGTH + json.dumps(header).encode().ljust(_HEADER - 8))


def _chunks(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[list[list[int]]]:
    """The ids of some texts at a time, with a bar."""
    with tqdm(total=len(texts), desc="tokens of", unit=" texts", disable=None) as bar:
        for first in range(0, len(texts), CHUNK):
            chunk = encode_texts(tokenizer, texts[first : first + CHUNK])
            yield chunk
            bar.update(len(chunk))


def _checksum(header: dict[str, Any], file: BinaryIO) -> str:
    """SHA-256, in hexadecimal, of what the header says of the tensors, and of all that stands behind it in the file."""
    digest = hashlib.sha256(json.dumps(header).encode())
    file.seek(_HEADER)
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()
