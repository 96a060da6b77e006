"""Files appear whole or not at all, with the permissions that the user's other files get."""

from __future__ import annotations

import os
import pathlib
import stat
import sys
import threading

import pytest

from pytriattn._util.atomic_file import atomic_file, write_atomically

needs_permissions = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX permissions")


def mode_of(path: pathlib.Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask() -> int:
    """The umask of this process, as another program sees it."""
    (line,) = [line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if line.startswith("Umask")]
    return int(line.split()[1], 8)


@needs_permissions
def test_a_new_file_has_the_permissions_of_any_other(tmp_path: pathlib.Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    write_atomically(tmp_path / "file", b"contents")
    assert (tmp_path / "file").read_bytes() == b"contents"
    assert mode_of(tmp_path / "file") == mode_of(tmp_path / "plain")


@needs_permissions
def test_a_replaced_file_keeps_its_permissions(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    path.chmod(0o640)
    write_atomically(path, b"after")
    assert (path.read_bytes(), mode_of(path)) == (b"after", 0o640)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_umask_of_the_process_never_changes(tmp_path: pathlib.Path, umask: int) -> None:
    """Another thread may create files at any moment."""
    done, seen = threading.Event(), set()

    def look() -> None:
        number = 0
        while not done.is_set():
            path = tmp_path / f"other{number % 50}"
            path.unlink(missing_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o666))
            seen.add(mode_of(path))
            number += 1

    thread = threading.Thread(target=look)
    thread.start()
    for _ in range(50):
        write_atomically(tmp_path / "file", b"contents")
    done.set()
    thread.join()
    assert seen == {0o666 & ~umask}


def test_an_error_leaves_what_was_there(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with pytest.raises(RuntimeError, match="half way"), atomic_file(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError("half way")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_seen_before_the_end(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    with atomic_file(path) as temporary:
        temporary.write_bytes(b"contents")
        assert not path.exists()
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_followed(tmp_path: pathlib.Path) -> None:
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "target", tmp_path / "link"
    target.write_bytes(b"before")
    link.symlink_to(target)
    write_atomically(link, b"after")
    assert link.is_symlink()
    assert target.read_bytes() == b"after"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_written_to(tmp_path: pathlib.Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    thread = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    thread.start()
    write_atomically(pipe, b"contents")
    thread.join()
    assert read == [b"contents"]
    assert pipe.is_fifo()


def test_a_folder_that_is_not_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "nowhere" / "file", b"contents")
