"""Starting ``pytriattn-rpc-server`` as other machines would run it: processes of their own, on loopback."""

from __future__ import annotations

import atexit
import socket
import subprocess
import sys
import time
from types import TracebackType


class RpcServer:
    """A server on a port that the system chose; ends with the ``with`` block."""

    def __init__(self, *options: str, port: int = 0) -> None:
        # the CPU, where there are GPUs as well: then what it computes is what this process does, bit for bit
        command = [sys.executable, "-m", "pytriattn.cli.rpc_server", "--device", "CPU", "--threads", "2"]
        command += ["--port", str(port), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        atexit.register(self.process.kill)  # where a test ends in an error before it comes to the end of the block
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("serving on "), line
        self.address = line.split()[2].rstrip(";")
        self._wait_until_it_listens()

    def _wait_until_it_listens(self) -> None:
        host, port = self.address.rsplit(":", 1)
        for _ in range(300):
            try:
                socket.create_connection((host, int(port)), timeout=5).close()
                return
            except ConnectionRefusedError:
                time.sleep(0.02)
        raise AssertionError(f"the server on {self.address} does not listen")

    @property
    def port(self) -> int:
        return int(self.address.rsplit(":", 1)[1])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> RpcServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()
