"""A hub of our own on this machine, for tests/test_hub.py: repositories are folders, and each request is written down.

    with serving({"owner/model": folder}) as hub:
        hub.url, hub.asked          # what HF_ENDPOINT is to be; ["GET /api/models/owner/model/revision/main", …]

Only what `huggingface_hub` asks for when it fetches a model: the commit and the names of a repository, and its files
from any byte on. A file named in `hub.drop` breaks off in the middle, once. Repositories in `hub.gated` keep their
weights for themselves, those in `hub.refused` everything.
"""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + 34 * "0"


class Hub(ThreadingHTTPServer):
    """The repositories, by owner/model, and what was asked of them."""

    daemon_threads = True

    def __init__(self, repositories: Mapping[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.repositories = dict(repositories)
        self.asked: list[str] = []
        self.drop: set[str] = set()
        self.gated: set[str] = set()
        self.refused: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Request(BaseHTTPRequestHandler):
    """One request, answered as the hub does, error codes included."""

    server: Hub

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        part = self.headers.get("Range")
        self.server.asked.append(f"{self.command} {path}" + (f" {part}" if part else ""))
        parts = path.strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        parts = parts[2:] if api else parts
        if len(parts) < 4:
            return self._error(404, "")
        name, what, revision, rest = "/".join(parts[:2]), parts[2], parts[3], parts[4:]
        folder = self.server.repositories.get(name)
        if folder is None:
            return self._error(401, "RepoNotFound")  # what the hub answers who has not logged in
        if name in self.server.refused:
            return self._error(403, "")
        if revision not in ("main", COMMIT):
            return self._error(404, "RevisionNotFound")
        if not api:
            return self._file(name, folder / "/".join(rest))
        files = sorted(path for path in folder.iterdir() if path.is_file())
        if what == "tree":
            return self._json(
                [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": etag(f)} for f in files]
            )
        self._json({"id": name, "sha": COMMIT, "siblings": [{"rfilename": f.name} for f in files]})

    def _file(self, name: str, file: Path) -> None:
        if not file.is_file():
            return self._error(404, "EntryNotFound")
        if name in self.server.gated and file.suffix in (".bin", ".safetensors"):
            return self._error(401, "GatedRepo")
        data = file.read_bytes()
        begin = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if begin else 200)
        self.send_header("ETag", f'"{etag(file)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        if self.command == "HEAD":
            return
        if file.name in self.server.drop:
            self.server.drop.remove(file.name)
            data = data[: len(data) // 2]
        self.wfile.write(data[begin:])

    def _json(self, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def etag(file: Path) -> str:
    return sha256(file.read_bytes()).hexdigest()


@contextmanager
def serving(repositories: Mapping[str, Path]) -> Iterator[Hub]:
    hub = Hub(repositories)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
