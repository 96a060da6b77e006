"""A server in a process of its own, to be started and stopped from Python."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from pytriattn.errors import BackendError
from pytriattn.server.flags import PREFIX

__all__ = ["Server"]

_LISTENING = re.compile(rb"listening on (https?://\S+)")
_STOP_SECONDS = 30


class Server:
    """``pytriattn-server`` in a process of its own, so that neither its threads nor an error of its own reach this one.

    It serves when the object has been made, and ends with `close`, with the ``with`` block, or with this process.

    Args:
        model: a GGUF file.
        budget: keys kept per layer and KV head of each slot; None: the full cache.
        triattn_stats: a ``.triattention`` file; None: calibrated at the first start, and kept.
        mode: how keys are chosen; None: as `Llama` does.
        window: the newest keys, never evicted; None: as `Llama` does.
        interval: tokens between evictions.
        reread: in mode ``fitted``, read the tokens of each interval once more before an eviction, as `Llama` does.
        protect_prompt: never evict the prompt, which each request then reads from its start.
        parallel: slots: texts that are read at once.
        n_ctx: positions of each slot under a budget, of all slots together without; 0: what the model was trained for.
        n_threads: CPU threads; None: one for each CPU that no other program needs, looked at again while it serves.
        host: the address to listen on.
        port: 0: any that is free.
        api_key: asked of clients; None: none is asked.
        arguments: more flags of llama-server, as on the command line.
        timeout: seconds that it may take until it serves.

    Raises:
        BackendError: it has ended before it served, or does not in time; the message holds the last lines of its log.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        budget: int | None = None,
        triattn_stats: str | os.PathLike[str] | None = None,
        mode: str | None = None,
        window: int | None = None,
        interval: int | None = None,
        reread: bool = False,
        protect_prompt: bool = False,
        parallel: int = 1,
        n_ctx: int = 0,
        n_threads: int | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str | None = None,
        arguments: Sequence[str] = (),
        timeout: float = 900,
    ) -> None:
        """See the class."""
        command = [sys.executable, "-m", "pytriattn.server", "--model", os.fspath(model), "--parallel", str(parallel)]
        command += ["--ctx-size", str(n_ctx), "--host", host, "--port", str(port)]
        settings = {"budget": budget, "stats": triattn_stats, "mode": mode, "window": window, "interval": interval}
        for name, value in settings.items():
            if value is not None:
                command += [PREFIX + name, os.fspath(value) if isinstance(value, os.PathLike) else str(value)]
        command += [PREFIX + name for name, on in (("reread", reread), ("protect-prompt", protect_prompt)) if on]
        if n_threads is not None:
            command += ["--threads", str(n_threads)]
        environment = dict(os.environ)
        if api_key is not None:
            environment["LLAMA_API_KEY"] = api_key  # where other users of this machine do not see it
        self._log: IO[bytes] = tempfile.NamedTemporaryFile(prefix="pytriattn-server-", suffix=".log")  # noqa: SIM115
        self._process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        self._stop = weakref.finalize(self, _end, self._process)
        self._url = self._wait(timeout)

    @property
    def url(self) -> str:
        """Where it serves, such as ``http://127.0.0.1:8080``; the OpenAI protocol is at ``/v1`` below it."""
        return self._url

    @property
    def log(self) -> str:
        """What it has printed so far."""
        return Path(self._log.name).read_text(encoding="utf-8", errors="replace")

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the server; what it is computing is given up. A second call does nothing."""
        self._stop()
        self._log.close()

    def __enter__(self) -> Server:
        """Return the server."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the server."""
        self.close()

    def _wait(self, timeout: float) -> str:
        """Return the URL, when the server answers that it is ready."""
        end = time.monotonic() + timeout
        while True:
            if self._process.poll() is not None:
                self._fail(f"the server has ended with code {self._process.returncode} before it served")
            found = _LISTENING.search(Path(self._log.name).read_bytes())
            if found is not None and _is_healthy(url := found[1].decode()):
                return url
            if time.monotonic() > end:
                self._fail(f"the server does not serve after {timeout:g} seconds")
            time.sleep(0.05)

    def _fail(self, message: str) -> None:
        lines = self.log.strip().splitlines()[-8:]
        self.close()
        raise BackendError("\n".join([f"{message}; it said last:", *lines]))


def _is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
