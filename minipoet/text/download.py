"""Downloads that are pinned: a fixed address, a size and a checksum, so that a corpus is the same bytes for everyone.

A file that can change makes every result that was made from it unrepeatable, and a file from the network is a
stranger's: only bytes whose SHA-256 was written down beforehand are ever used. What was once fetched is kept in a
folder (`MINIPOET_CACHE`, else ~/.cache/minipoet) and read from there, with no network.

    Pin      what to fetch and how to know it
    github   the address of a file in a GitHub repository at a commit
    fetch    the path of the file on this machine, fetched if need be

Chapter: docs/text.md.
"""

import hashlib
import http.client
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO
from urllib.parse import quote, urlsplit

from tqdm import tqdm

from minipoet.checks import as_path, expect
from minipoet.files import cache_folder
from minipoet.text.errors import CorpusError

_CHUNK = 1 << 16  # bytes read at a time
_TIMEOUT = 30  # seconds without an answer

OpenUrl = Callable[[str], AbstractContextManager[BinaryIO]]


@dataclass(frozen=True)
class Pin:
    """A file of the network: its address (https), its SHA-256 in hexadecimal, its size in bytes, whose it is.

    instead: what else somebody may do who cannot download it.
    """

    url: str
    sha256: str
    size: int
    licence: str
    instead: str = "bring a folder with --corpus FOLDER"


def github(repository: str, commit: str, path: str) -> str:
    """The address of a file at a commit of a GitHub repository; the path, which may be Russian, is percent-encoded."""
    return f"https://raw.githubusercontent.com/{repository}/{commit}/{quote(path)}"


def fetch(pin: Pin, folder: str | Path | None = None, open_url: OpenUrl | None = None) -> Path:
    """The path of the pinned file in the cache; it is downloaded if it is not there, or not whole.

    The file is named by its checksum, so two versions never meet. Bytes go to a temporary file beside it, which takes
    the name only when size and checksum are right: an interrupted download leaves nothing behind.

    Args:
        folder: the cache, instead of `cache_folder()`.
        open_url: opens an address for reading bytes, instead of urllib; the tests give one that needs no network.

    Raises:
        CorpusError: the address is not https, nothing comes from it, or what comes is not the pinned file.
    """
    expect(pin, Pin, "What is fetched", "a Pin(url, sha256, size, licence)", "github(...) makes its address")
    if urlsplit(pin.url).scheme != "https":
        raise CorpusError(f"{pin.url}: expected an address that begins with https://")
    folder = as_path(folder, "The folder to keep it in") if folder is not None else cache_folder()
    path = folder / f"{pin.sha256[:16]}{Path(urlsplit(pin.url).path).suffix}"
    if path.is_file() and _sha256(path) == pin.sha256:
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, suffix=".part")
    except OSError as error:
        raise CorpusError(f"{folder}: cannot write there ({error}); name another folder in MINIPOET_CACHE") from error
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as file, (open_url or _open_https)(pin.url) as answer:
            size, digest = _copy(answer, file, pin)
        if (size, digest) != (pin.size, pin.sha256):
            raise CorpusError(
                f"{pin.url}: expected {pin.size} bytes with SHA-256 {pin.sha256}, got "
                f"{f'more than {pin.size}' if size > pin.size else size} bytes with {digest}; "
                "the file was not used. It was changed there, or on its way: "
                f"try again, or {pin.instead}"
            )
        os.replace(partial, path)
    except (OSError, http.client.HTTPException) as error:
        raise CorpusError(
            f"{pin.url}: cannot be downloaded ({_reason(error)}); connect to the network and try again, "
            f"or put the file at {path} by hand, or {pin.instead}"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def _sha256(path: Path) -> str:
    """The checksum of a file, which may be larger than the memory."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _copy(answer: BinaryIO, file: IO[bytes], pin: Pin) -> tuple[int, str]:
    """Copies at most one chunk more than the pinned size; the number of bytes read and their SHA-256."""
    digest, size = hashlib.sha256(), 0
    with tqdm(total=pin.size, unit="B", unit_scale=True, desc=urlsplit(pin.url).netloc, disable=None) as bar:
        while size <= pin.size and (chunk := answer.read(_CHUNK)):
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
            bar.update(len(chunk))
    return size, digest.hexdigest()


def _reason(error: Exception) -> str:
    """Why a download failed, in a few words."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} {error.reason}"
    return str(getattr(error, "reason", None) or error) or type(error).__name__


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https only."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        """The request to the new address, as the base class makes it, or an error for another scheme."""
        if urlsplit(newurl).scheme != "https":
            raise urllib.error.URLError(f"redirected to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open_https(url: str) -> AbstractContextManager[BinaryIO]:
    """Opens an address with urllib."""
    request = urllib.request.Request(url, headers={"User-Agent": "minipoet"})
    return urllib.request.build_opener(_HttpsOnly).open(request, timeout=_TIMEOUT)
