"""Writing a file whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["atomic_file", "write_atomically"]


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give the path of an empty file to write; when the block ends without an error, its contents are at `path`.

    Until then, and after an error, what was at `path` before is still there. A link is followed. A pipe or a device is
    written to and not replaced. A new file gets the permissions that the user's other new files get, a replaced one
    keeps its own.

    Raises:
        OSError: the file cannot be written.
    """
    target = Path(os.path.realpath(Path(path).expanduser()))
    if target.exists() and not target.is_file():
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder) / "contents"
            temporary.touch()
            yield temporary
            with temporary.open("rb") as source, target.open("wb") as stream:
                shutil.copyfileobj(source, stream)
        return
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    # the kernel applies the umask here: to read it, a process would have to change it for all of its threads
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        with contextlib.suppress(FileNotFoundError):
            shutil.copymode(target, temporary)
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write bytes to `path`; see `atomic_file`.

    Raises:
        OSError: the file cannot be written; what was there before is still there.
    """
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)
