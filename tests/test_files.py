"""Files are there whole or not at all, whatever happens in the middle of writing."""

import errno
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from minipoet import files
from minipoet.files import (
    atomic_path,
    read_json,
    write_json_atomic,
    write_tensors_atomic,
    write_text_atomic,
)


def fail_with(error: BaseException) -> Callable:
    def fail(*args, **options):
        raise error

    return fail


def full_disk() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def old(tmp_path) -> Path:
    """A safetensors file that was there before."""
    path = tmp_path / "a.safetensors"
    write_tensors_atomic(path, {"old": torch.ones(2)})
    return path


def test_what_is_written_is_read_again(tmp_path):
    write_text_atomic(tmp_path / "new" / "poem.txt", "Ель\nёж\n")
    assert (tmp_path / "new" / "poem.txt").read_bytes() == "Ель\nёж\n".encode()
    write_json_atomic(tmp_path / "a.json", {"б": [1, None]})
    assert "б" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert read_json(tmp_path / "a.json") == {"б": [1, None]}
    assert left_in(tmp_path) == ["a.json", "new"]


def test_tensors_are_written_with_their_metadata(tmp_path):
    tensor = torch.arange(6.0).view(2, 3).t()  # not contiguous
    write_tensors_atomic(tmp_path / "a.safetensors", {"t": tensor}, {"key": "value"})
    assert torch.equal(load_file(tmp_path / "a.safetensors")["t"], tensor)
    assert b'"key":"value"' in (tmp_path / "a.safetensors").read_bytes()


def test_file_gets_the_rights_that_the_users_mask_gives(tmp_path):
    mask = os.umask(0o027)
    try:
        write_text_atomic(tmp_path / "a.txt", "a")
        write_tensors_atomic(tmp_path / "a.safetensors", {"t": torch.ones(1)})
    finally:
        os.umask(mask)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o640}


@pytest.mark.parametrize("where", ["save_file", "fsync", "replace"])
def test_full_disk_leaves_the_old_file_whole_and_no_other(old, monkeypatch, where):
    before = old.read_bytes()
    monkeypatch.setattr(files if where == "save_file" else files.os, where, fail_with(full_disk()))
    with pytest.raises(OSError, match=r"Could not write .*a\.safetensors: No space left on device.*free some space"):
        write_tensors_atomic(old, {"new": torch.zeros(2)})
    assert old.read_bytes() == before
    assert left_in(old.parent) == [old.name]


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs POSIX limits of file sizes")
def test_real_write_error_of_safetensors_is_told_as_one(old):
    resource = pytest.importorskip("resource")
    before = old.read_bytes()
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        with pytest.raises(OSError, match=r"Could not write .*a\.safetensors"):
            write_tensors_atomic(old, {"new": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert old.read_bytes() == before
    assert left_in(old.parent) == [old.name]


def test_read_only_folder_is_told_with_what_to_do(old, monkeypatch):
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    monkeypatch.setattr(files.tempfile, "mkstemp", fail_with(denied))
    with pytest.raises(OSError, match=r"Permission denied.*choose a folder that you may write to"):
        write_text_atomic(old, "new")
    assert load_file(old).keys() == {"old"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("a mistake of ours")])
def test_other_interruptions_pass_and_leave_nothing(old, error):
    before = old.read_bytes()

    def interrupted() -> None:
        with atomic_path(old) as temporary:
            temporary.write_text("half", encoding="utf-8")
            raise error

    with pytest.raises(type(error)):
        interrupted()
    assert old.read_bytes() == before
    assert left_in(old.parent) == [old.name]


def test_tensors_that_share_memory_are_our_mistake_and_not_a_full_disk(old):
    shared = torch.ones(2)
    with pytest.raises(RuntimeError, match="share memory"):
        write_tensors_atomic(old, {"a": shared, "b": shared})
    assert left_in(old.parent) == [old.name]


@pytest.mark.parametrize("content", [b"", b'{"a": ', b"\xff\xfe", b"{'a': 1}"])
def test_what_is_not_json_is_told_with_its_name(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json is not a JSON file"):
        read_json(tmp_path / "config.json")


def test_missing_json_is_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        read_json(tmp_path / "config.json")
