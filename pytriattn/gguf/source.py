"""Where a GGUF file's bytes come from: a local file, or a server that is asked for ranges of it."""

from __future__ import annotations

import http.client
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol

from pytriattn.errors import ModelLoadError

__all__ = ["ByteSource", "LocalFile", "RemoteFile", "is_remote", "open_source"]

LOCAL_BLOCK = 1 << 20
FIRST_BLOCK = 1 << 18  # the keys that matter come before a vocabulary of megabytes
LAST_BLOCK = 1 << 23
TIMEOUT = 20.0

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)$")
_HF_NAME = re.compile(r"hf://(?P<owner>[^/@]+)/(?P<repo>[^/@]+)(?:@(?P<revision>[^/]+))?/(?P<path>.+)$")
_SUCCESS, _PARTIAL, _NOT_SATISFIABLE = 200, 206, 416
_REASONS = {
    401: "asks for a login; download the file yourself and give its path",
    403: "forbids it; download the file yourself and give its path",
    404: "has no such file; check the address",
    410: "no longer has this file; check the address",
    429: "has had too many requests; try again later",
}


class ByteSource(Protocol):
    """Bytes of one file, read at any place."""

    name: str
    """The file or its address, for messages."""
    size: int
    """Bytes of the whole file."""

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Return `n_bytes` from `offset` on, all of which are in the file.

        Raises:
            ModelLoadError: they cannot be read.
        """
        ...

    def next_block(self) -> int:
        """Return how many bytes are worth reading at once."""
        ...

    def close(self) -> None:
        """Free what is open."""
        ...

    def __enter__(self) -> ByteSource:
        """Return the object itself."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        ...


class _Closing:
    """A context manager that closes itself."""

    def close(self) -> None:
        """Free what is open."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


class LocalFile(_Closing):
    """A file of this machine.

    Raises:
        ModelLoadError: it is missing, a folder, or unreadable.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """See the class."""
        self.name = os.fspath(path)
        try:
            file = Path(path).expanduser()
            # not a device or a pipe either: these have no end, or block
            if file.exists() and not file.is_file():
                what = "a folder" if file.is_dir() else "no ordinary file"
                raise ModelLoadError(f"'{file}' is {what}; give the path of a .gguf file")
            self._stream: BinaryIO = file.open("rb", buffering=0)
            self.size = os.fstat(self._stream.fileno()).st_size
        except FileNotFoundError:
            raise ModelLoadError(f"the model '{self.name}' does not exist; check the path") from None
        except (OSError, ValueError, RuntimeError) as error:
            # RuntimeError: a home folder that cannot be found; ValueError: a NUL in the name
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise ModelLoadError(f"the model '{self.name}' cannot be read: {reason}") from error

    def read(self, offset: int, n_bytes: int) -> bytes:
        """See `ByteSource`."""
        pieces, left = [], n_bytes
        try:
            self._stream.seek(offset)
            while left > 0 and (piece := self._stream.read(left)):
                pieces.append(piece)
                left -= len(piece)
        except OSError as error:
            raise ModelLoadError(f"the model '{self.name}' cannot be read: {error.strerror}") from error
        if left > 0:
            raise ModelLoadError(f"'{self.name}' became shorter while it was read; wait until it is complete")
        return b"".join(pieces)

    def next_block(self) -> int:
        """See `ByteSource`."""
        return LOCAL_BLOCK

    def close(self) -> None:
        """See `ByteSource`."""
        self._stream.close()

    def __enter__(self) -> LocalFile:
        """Return the object itself."""
        return self


class RemoteFile(_Closing):
    """A file on a web server that answers requests for ranges. Nothing is kept on disk.

    Raises:
        ModelLoadError: there is no such file, the server cannot be reached, or it sends whole files only.
    """

    def __init__(self, address: str, first_block: int = FIRST_BLOCK, timeout: float | None = None) -> None:
        """See the class.

        Args:
            address: ``http://…``, ``https://…`` or ``hf://…``.
            first_block: bytes to ask for at once, at first.
            timeout: seconds, for each wait for the server; None: `TIMEOUT`.
        """
        self.name = address
        self.size = 0
        self._url = _web_address(address)
        self._timeout = TIMEOUT if timeout is None else timeout
        self._block = first_block
        # the answer to the first request tells the size as well, so its bytes are not asked for twice
        self._first = self._request(0, first_block)

    def read(self, offset: int, n_bytes: int) -> bytes:
        """See `ByteSource`."""
        if offset + n_bytes <= len(self._first):
            return self._first[offset : offset + n_bytes]
        data = self._request(offset, n_bytes)
        if len(data) != n_bytes:
            raise ModelLoadError(f"{self._quoted()} sent {len(data)} bytes of {n_bytes}; try again")
        return data

    def next_block(self) -> int:
        """See `ByteSource`."""
        block, self._block = self._block, min(2 * self._block, LAST_BLOCK)
        return block

    def __enter__(self) -> RemoteFile:
        """Return the object itself."""
        return self

    def _quoted(self) -> str:
        return f"the server of '{self.name}'"

    def _request(self, offset: int, n_bytes: int) -> bytes:
        headers = {"Range": f"bytes={offset}-{offset + n_bytes - 1}", "User-Agent": "pytriattn"}
        try:
            request = urllib.request.Request(self._url, headers=headers)  # noqa: S310 (only http and https come here)
            with urllib.request.urlopen(request, timeout=self._timeout) as response:
                if response.status != _PARTIAL:
                    raise ModelLoadError(
                        f"{self._quoted()} sends whole files only (no range requests); download it and give its path"
                    )
                self._check_range(response.headers.get("Content-Range", ""), offset)
                data: bytes = response.read(n_bytes)
                return data
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == _NOT_SATISFIABLE and offset == 0:
                raise ModelLoadError(f"'{self.name}' is empty; check the address") from None
            reason = _REASONS.get(error.code, f"answers {error.code} {error.reason}; try again later")
            raise ModelLoadError(f"{self._quoted()} {reason}") from None
        except TimeoutError:
            raise self._timed_out() from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise self._timed_out() from None
            raise ModelLoadError(
                f"{self._quoted()} cannot be reached ({error.reason}); check the address and the connection"
            ) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ModelLoadError(f"'{self.name}' could not be read ({error!r}); check the address") from error

    def _timed_out(self) -> ModelLoadError:
        return ModelLoadError(
            f"{self._quoted()} has not answered for {self._timeout:g} s; try again, or download the file"
        )

    def _check_range(self, content_range: str, offset: int) -> None:
        match = _CONTENT_RANGE.match(content_range.strip())
        if match is None or int(match[1]) != offset:
            raise ModelLoadError(f"{self._quoted()} answered with another range ({content_range!r}); download the file")
        size = int(match[3])
        if self.size not in (0, size):
            raise ModelLoadError(f"'{self.name}' changed while it was read; try again")
        self.size = size


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Tell whether `path` is an address: ``http://``, ``https://`` or ``hf://``."""
    return isinstance(path, str) and path.startswith(("http://", "https://", "hf://"))


def open_source(path: str | os.PathLike[str], first_block: int = FIRST_BLOCK) -> ByteSource:
    """Open a local file, or a remote one by its address.

    Args:
        path: the file or its address.
        first_block: bytes of a remote file to ask for at first.

    Raises:
        ModelLoadError: it is missing or cannot be read.
    """
    return RemoteFile(path, first_block) if isinstance(path, str) and is_remote(path) else LocalFile(path)


def _web_address(address: str) -> str:
    if not address.startswith("hf://"):
        return address
    match = _HF_NAME.match(address)
    if match is None:
        raise ModelLoadError(f"'{address}' is no name of a file; write hf://owner/repository/path/to/file.gguf")
    # the variable that Hugging Face's own tools follow to a mirror
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    if not endpoint.startswith(("http://", "https://")):
        raise ModelLoadError(f"HF_ENDPOINT is {endpoint!r}, it must begin with https:// or http://")
    parts = [match["owner"], match["repo"], "resolve", match["revision"] or "main"]
    quoted = [urllib.parse.quote(part, safe="") for part in parts]
    return "/".join([endpoint, *quoted, urllib.parse.quote(match["path"])])
