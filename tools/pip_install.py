#!/usr/bin/env python3
"""Run ``pip install`` and show how far it is: a line every few seconds, and the whole output in build/setup.log.

pip alone is either silent for the minutes that the build takes or prints every command of it.

    python tools/pip_install.py [--quick] ARGUMENT...      the arguments are those of `pip install`

Only the standard library is needed. The exit code is pip's.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOG = ROOT / "build" / "setup.log"
INTERVAL = 15.0  # seconds between two lines
STEP = re.compile(r"\[(\d+)/(\d+)\] (.*)")  # how ninja counts
# pip's words for an index that cannot be reached, in several versions
UNREACHABLE = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ConnectionResetError|ProxyError|SSLError|"
    r"connection broken|timed out|from versions: none|Network is unreachable"
)


class Progress:
    """The output of one pip, kept whole in the log and told in short.

    Attributes:
        lines: the output.
        state: what is being done, in a few words.
    """

    def __init__(self, title: str) -> None:
        """Begin with `title` as the only thing known."""
        self.lines: list[str] = []
        self.state = title
        self._start = time.monotonic()

    def read(self, line: str) -> None:
        """Take one line of the output."""
        self.lines.append(line)
        step = STEP.search(line)
        if step:
            done, of, what = step.groups()
            self.state = f"[{done}/{of}] {what.split('/')[-1]}"
        elif line.strip() and not line.strip().startswith("WARNING"):
            self.state = line.strip()

    def tell(self) -> None:
        """Print the state and the time."""
        minutes, seconds = divmod(int(time.monotonic() - self._start), 60)
        print(f"   {minutes}:{seconds:02d} {self.state[:100]}", flush=True)


def explain(lines: list[str]) -> str:
    """Return what to print after a failure: what the compiler said, or one line about pip."""
    for number, line in enumerate(lines):
        if "FAILED: " in line or "CMake Error" in line:
            return "".join(lines[number : number + 40]) + f"the build failed; the whole output is in {LOG}"
    errors = [line.strip() for line in lines if line.startswith("ERROR")] or [line.strip() for line in lines[-1:]]
    if UNREACHABLE.search("".join(lines)):
        return (
            "the Python package index cannot be reached: check the network, or the index and the proxy in pip's "
            f"settings (`python3 -m pip config list`). pip's own words are in {LOG}"
        )
    return f"pip failed: {errors[0] if errors else 'it printed nothing'} (the whole output is in {LOG})"


def install(arguments: list[str], options: list[str]) -> int:
    """Run ``pip install`` with `arguments` and, unsaid, `options`; return its exit code."""
    progress = Progress("pip install " + " ".join(arguments))
    print(progress.state, flush=True)
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", *options, *arguments]
    LOG.parent.mkdir(exist_ok=True)
    finished = threading.Event()

    def tell_regularly() -> None:
        while not finished.wait(INTERVAL):
            progress.tell()

    with LOG.open("a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(command)}\n")
        teller = threading.Thread(target=tell_regularly, daemon=True)
        teller.start()
        try:
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace"
            ) as pip:
                assert pip.stdout is not None
                for line in pip.stdout:
                    log.write(line)
                    log.flush()
                    progress.read(line)
        finally:
            finished.set()
    if pip.returncode != 0:
        print(explain(progress.lines), file=sys.stderr)
    return pip.returncode


def main() -> int:
    """Command line entry."""
    arguments = sys.argv[1:]
    if not arguments or arguments == ["--help"]:
        print(__doc__)
        return 0 if arguments else 2
    options = []
    if arguments[0] == "--quick":
        # For the first download of all: without a network this ends in seconds and not after all of pip's attempts.
        options = ["--retries", "1", "--timeout", "15"]
        arguments = arguments[1:]
    try:
        return install(arguments, options)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
