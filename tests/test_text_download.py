"""Downloads: from a made-up network, and from a server on this machine."""

import hashlib
import http.server
import io
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import pytest

from minipoet.text.download import Pin, _HttpsOnly, cache_folder, fetch, github
from minipoet.text.errors import CorpusError

DATA = "Над полем тихий снег летит.\n".encode() * 5000
URL = "https://example.org/снег.txt"


def pin_of(data: bytes, url: str = URL) -> Pin:
    """The pin of these bytes."""
    return Pin(url, hashlib.sha256(data).hexdigest(), len(data), "test")


def network(data: bytes) -> Callable[[str], AbstractContextManager[BinaryIO]]:
    """A network in which every address gives these bytes."""
    return lambda url: io.BytesIO(data)


def no_network(url: str) -> AbstractContextManager[BinaryIO]:
    """A network that is not there."""
    raise urllib.error.URLError("Name or service not known")


def fails(tmp_path: Path, data: bytes, pin: Pin) -> str:
    """The message of a download that fails; it must leave nothing in the cache."""
    with pytest.raises(CorpusError) as error:
        fetch(pin, tmp_path / "cache", network(data))
    assert list((tmp_path / "cache").iterdir()) == []
    return str(error.value)


def test_file_is_fetched_once(tmp_path: Path) -> None:
    path = fetch(pin_of(DATA), tmp_path / "new" / "cache", network(DATA))
    assert path.read_bytes() == DATA
    assert path.suffix == ".txt"
    assert fetch(pin_of(DATA), tmp_path / "new" / "cache", no_network) == path
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_spoilt_cached_file_is_fetched_again(tmp_path: Path) -> None:
    path = fetch(pin_of(DATA), tmp_path, network(DATA))
    path.write_bytes(DATA[:-1])
    assert fetch(pin_of(DATA), tmp_path, network(DATA)).read_bytes() == DATA


def test_wrong_bytes_are_never_used(tmp_path: Path) -> None:
    spoilt = DATA.replace(b"\n", b" ", 1)
    message = fails(tmp_path, spoilt, pin_of(DATA))
    assert hashlib.sha256(DATA).hexdigest() in message
    assert hashlib.sha256(spoilt).hexdigest() in message
    assert "the file was not used" in message


def test_short_file_is_told_by_its_size(tmp_path: Path) -> None:
    assert f"expected {len(DATA)} bytes" in fails(tmp_path, DATA[:100], pin_of(DATA))
    assert "got 100 bytes" in fails(tmp_path, DATA[:100], pin_of(DATA))


def test_endless_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    assert "got more than 10 bytes" in fails(tmp_path, DATA, pin_of(b"0123456789"))


def test_without_network_one_sentence_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CorpusError) as error:
        fetch(pin_of(DATA), tmp_path, no_network)
    message = str(error.value)
    assert "cannot be downloaded (Name or service not known)" in message
    assert "or bring a folder with --corpus FOLDER" in message
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_only_https_is_fetched(tmp_path: Path) -> None:
    for url in ("http://example.org/a.txt", "file:///etc/passwd"):
        with pytest.raises(CorpusError, match="begins with https://"):
            fetch(pin_of(DATA, url), tmp_path, network(DATA))


def test_unwritable_cache_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CorpusError, match="name another folder in MINIPOET_CACHE"):
        fetch(pin_of(DATA), tmp_path / "file", network(DATA))


def test_redirect_away_from_https_is_refused() -> None:
    request = urllib.request.Request(URL)
    with pytest.raises(urllib.error.URLError, match="not https"):
        _HttpsOnly().redirect_request(request, None, 302, "Found", {}, "http://example.org/")


def test_paths_are_percent_encoded() -> None:
    assert github("a/b", "c0ffee", "стихи/Снег.txt") == (
        "https://raw.githubusercontent.com/a/b/c0ffee/%D1%81%D1%82%D0%B8%D1%85%D0%B8/%D0%A1%D0%BD%D0%B5%D0%B3.txt"
    )


def test_cache_folder_is_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIPOET_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("MINIPOET_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "minipoet"


@pytest.fixture
def server() -> Iterator[str]:
    """A server on this machine: /good gives the data, /cut breaks off, anything else is not found."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path not in ("/good", "/cut"):
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(DATA)))
            self.end_headers()
            self.wfile.write(DATA if self.path == "/good" else DATA[:1000])

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_real_answers_of_a_server(tmp_path: Path, server: str) -> None:
    def opener(name: str) -> Callable[[str], AbstractContextManager[BinaryIO]]:
        return lambda url: urllib.request.urlopen(f"{server}/{name}", timeout=5)

    with pytest.raises(CorpusError, match="the server answered 404 Not Found"):
        fetch(pin_of(DATA), tmp_path, opener("none"))
    with pytest.raises(CorpusError, match="got 1000 bytes|IncompleteRead"):
        fetch(pin_of(DATA), tmp_path, opener("cut"))
    assert list(tmp_path.iterdir()) == []
    assert fetch(pin_of(DATA), tmp_path, opener("good")).read_bytes() == DATA
