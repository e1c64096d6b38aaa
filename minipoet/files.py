"""Files that are there whole or not at all: write beside, then rename (POSIX renames atomically within a folder)."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends well and removed when it does not.

    Raises OSError, with what to do, when the disk is full or the folder cannot be written; an old file stays as it was.
    (A process killed outright while it writes may leave a hidden temporary file behind, never half a `path`.)
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise OSError(
            f"Could not write {path}: {reason(error, path)}. Nothing there was changed; "
            f"free some space, or choose a folder that you may write to."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def cache_folder() -> Path:
    """Where is kept what can be made or fetched again: the folder named by MINIPOET_CACHE, else ~/.cache/minipoet."""
    return Path(os.environ.get("MINIPOET_CACHE") or Path.home() / ".cache" / "minipoet")


def make_folder(folder: str | Path) -> Path:
    """The folder, made if it is not there. Raises OSError, with what to do, where that cannot be."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = reason(error, folder / "file")
        raise OSError(f"Could not make the folder {folder}: {why}; choose one that you may write to.") from error
    return folder


def remove(path: Path) -> None:
    """Remove a file, if it is there. Raises OSError, with what to do, for one that cannot be removed."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(
            f"Could not replace {path}: {reason(error, path)}; choose a folder that you may write to."
        ) from error


def reason(error: OSError, path: Path) -> str:
    """Why a path cannot be written, in a few words; a file that stands where a folder should is named."""
    files = [place for place in path.parents if os.path.exists(place) and not os.path.isdir(place)]
    return f"{files[0]} is a file, not a folder" if files else error.strerror or str(error)


def write_text_atomic(path: str | Path, text: str) -> None:
    """Write UTF-8 with "\\n" line ends, all or nothing."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json_atomic(path: str | Path, value: Any, indent: int | None = 2, sort_keys: bool = False) -> None:
    """Write JSON, readable (Cyrillic stays Cyrillic), all or nothing."""
    write_text_atomic(path, json.dumps(value, ensure_ascii=False, indent=indent, sort_keys=sort_keys) + "\n")


def write_tensors_atomic(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file, all or nothing. Tensors must not share memory: give a tied one once."""
    with atomic_path(path) as temporary:
        try:
            save_file({name: t.detach().contiguous() for name, t in tensors.items()}, temporary, metadata=metadata)
        except SafetensorError as error:  # its word for a full disk
            raise OSError(str(error)) from error


def read_json(path: str | Path) -> Any:
    """Read a JSON file. Raises OSError if it cannot be read, ValueError that names file and place if it is not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise type(error)(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is not a JSON file ({error}): it may be cut short; fetch or write it again."
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
