"""A program under a limit of the operating system, in a process of its own: it may be killed, or abort."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

from support.paths import TESTS

__all__ = ["drop_privileges", "run_limited"]

_PREPARE = """
import resource, sys
from pytriattn import Llama
from pytriattn._native import backends
backends.require()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
def limit_memory(more):
    "Let this process have so many bytes more than it has now, as `ulimit -v` would."
    resource.setrlimit(resource.RLIMIT_AS, (used + more, resource.RLIM_INFINITY))
def limit_files(size):
    "Let no file grow beyond so many bytes: writing more fails as on a full disk."
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
"""


def run_limited(code: str, *arguments: object, **environment: str) -> str:
    """Run a program that begins with a loaded package and the functions above; return what it printed.

    Args:
        code: the program; `sys.argv[1:]` are the arguments.
        arguments: what it is given.
        environment: variables to set.
    """
    done = subprocess.run(
        [sys.executable, "-c", _PREPARE + textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=TESTS,
        env={**os.environ, "GGML_NO_BACKTRACE": "1", "OPENBLAS_NUM_THREADS": "1", **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def drop_privileges() -> None:
    """Take from this process what lets root pass over the permissions of files; for children of a test."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    data = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, data) == 0
    data[0] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    assert libc.capset(header, data) == 0
