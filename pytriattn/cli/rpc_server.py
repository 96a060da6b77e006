"""``pytriattn-rpc-server``: lend this machine's devices to other machines, through ggml's own RPC server."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from pytriattn._native import backends, core
from pytriattn._native.log import forward_llama_log
from pytriattn._util.cpus import usable_cpus
from pytriattn.cli.program import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, run
from pytriattn.errors import ContextError

__all__ = ["main"]

DEFAULT_PORT = 50052

_WARNING = """\
WARNING: this server has no passwords and no encryption, and trusts what it is sent. Any machine that reaches
its port can use this machine's memory and devices, and perhaps run code of its own. Use it only in networks in
which you trust every machine, never on the internet. ggml calls its RPC backend a proof of concept, fragile and
insecure."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pytriattn-rpc-server",
        description="Lend this machine's devices to Llama(..., rpc_servers=['host:port']) on another machine. Ctrl-C "
        "ends it.",
        epilog=f"{_WARNING} Exit codes: 1 error, 2 wrong usage, 130 ended by Ctrl-C.",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="the address to listen on (default: %(default)s, this machine alone)"
    )
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, metavar="N", help="the port; 0: any free one (default: %(default)s)"
    )
    parser.add_argument(
        "--device",
        action="append",
        default=[],
        metavar="NAME",
        help="lend this device; may be given several times (default: all GPUs, or the CPU where there is none)",
    )
    parser.add_argument("--list-devices", action="store_true", help="print the devices of this machine and end")
    parser.add_argument("--threads", type=int, default=None, metavar="N", help="CPU threads (default: all usable)")
    parser.add_argument(
        "--cache-dir",
        type=Path,
        metavar="DIR",
        help="keep large weights in this folder, so that they are sent only once",
    )
    return parser


def _address(host: str, port: int) -> str:
    """Return ``a.b.c.d:port``, the only form that ggml's server takes, after listening there once.

    ggml's server would fail without a reason.
    """
    if not 0 <= port <= 65535:
        raise ContextError(f"--port is {port}, it must be from 0 to 65535")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen(1)
            address: tuple[str, int] = probe.getsockname()
    except OSError as error:
        raise ContextError(
            f"cannot listen on {host}:{port} ({error.strerror or error}); use another --port, or as --host an address "
            "of this machine (IPv4)"
        ) from error
    return f"{address[0]}:{address[1]}"


def _run(arguments: argparse.Namespace) -> int:
    backends.require()
    devices = core.device_list()
    if arguments.list_devices:
        for device in devices:
            print(f"{device.name}\t{device.description}")
        return EXIT_OK
    threads = arguments.threads if arguments.threads is not None else usable_cpus()
    if threads < 1:
        raise ContextError(f"--threads is {threads}, it must be at least 1")
    known = [device.name for device in devices]
    for name in arguments.device:
        if name not in known:
            raise ContextError(f"there is no device {name!r}; this machine has {', '.join(known)}")
    folder = ""
    if arguments.cache_dir is not None:
        arguments.cache_dir.mkdir(parents=True, exist_ok=True)
        folder = str(arguments.cache_dir)
    address = _address(arguments.host, arguments.port)

    print(_WARNING, file=sys.stderr)
    print(f"serving on {address}; Ctrl-C ends it", flush=True)
    failure: list[Exception] = []

    def serve() -> None:
        try:
            core.rpc_serve(address, folder, threads, arguments.device)
        except Exception as error:  # handed to the main thread
            failure.append(error)

    # in a thread, since ggml's server never comes back to let Ctrl-C through
    server = threading.Thread(target=serve, daemon=True)
    server.start()
    while server.is_alive():
        server.join(0.2)
        forward_llama_log()
    raise failure[0] if failure else ContextError(f"the server on {address} has ended; what ggml says is above")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with these arguments (default: the process's own) and return its exit code."""
    arguments = _parser().parse_args(argv)
    code = run("pytriattn-rpc-server", lambda: _run(arguments), exit_error=EXIT_FAILED, interrupted="ended")
    if code == EXIT_INTERRUPTED:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # the server's thread is in ggml's code and cannot be ended otherwise
    return code


if __name__ == "__main__":
    sys.exit(main())
