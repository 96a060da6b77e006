"""Fuzz what reads untrusted bytes. In `tools`: ``python -m fuzz --minutes 10`` (``make fuzz MINUTES=10``).

Each target runs in a process of its own, begins with the stored inputs in ``tests/corpus/TARGET`` and goes on with
changes of them. Where a target is written in Python and atheris is installed, it follows the code that an input covers;
otherwise it changes inputs blindly. A finding is written to ``build/fuzz/TARGET``. Copy it to ``tests/corpus/TARGET``
when it is mended: the tests run all that is there.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import resource
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))  # before the targets are imported, which use the tests' helpers

from fuzz.changes import changed_inputs, functions_of  # noqa: E402
from fuzz.targets import TARGETS, Target  # noqa: E402

CORPUS = ROOT / "tests" / "corpus"
FOUND = ROOT / "build" / "fuzz"
LONGEST = 5  # seconds of computing for one input
STUCK = 60  # seconds for one input, waiting included
MEMORY = 6 << 30  # bytes of address space; a reader that believes a wrong count wants more
GUIDED = ("sidecar", "foreign", "pickle", "gguf", "schema", "calls")  # what is written in Python
FILES = ("sidecar", "foreign", "pickle", "gguf")
SLACK = 1 << 20  # bytes for what a reader needs beside the file's contents


class Runner:
    """Runs one target on inputs. A signal or an exception ends the process at a finding, which is in a file then."""

    def __init__(self, name: str) -> None:
        """Load what the target needs."""
        self._name = name
        self._target = TARGETS[name]
        self.folder = FOUND / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self._current = (self.folder / "current").open("wb", buffering=0)
        self._start = time.monotonic()
        self._n_inputs, self._slowest = 0, 0.0
        warm_up(self._target)

    def run(self, data: bytes, alarm: int = 0) -> None:
        """Run one input."""
        self._current.seek(0)
        self._current.truncate()
        self._current.write(data)
        # These signals end the process: a handler in Python would wait for the call into C++.
        signal.setitimer(signal.ITIMER_PROF, LONGEST)
        if alarm:
            signal.alarm(alarm)
        began = time.process_time()
        self._target(data)
        signal.setitimer(signal.ITIMER_PROF, 0)
        if alarm:
            signal.alarm(0)
        self._slowest = max(self._slowest, time.process_time() - began)
        self._n_inputs += 1

    def report(self, how: str) -> None:
        """Print what has been done."""
        seconds = time.monotonic() - self._start
        print(f"{self._name}: {self._n_inputs:,} inputs {how} in {seconds:.0f} s, slowest {self._slowest:.2f} s")
        (self.folder / "current").unlink()
        sys.stdout.flush()


def main() -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description="Fuzz what reads untrusted bytes.")
    parser.add_argument("--minutes", type=float, default=10.0, help="for all targets together (default: 10)")
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="only this one; may be repeated")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the changes")
    parser.add_argument("--replay", action="store_true", help="run the stored inputs alone, with a look at memory")
    parser.add_argument("--run", help=argparse.SUPPRESS)  # a child's target
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["GGML_NO_BACKTRACE"] = "1"
    if options.run:
        return fuzz(options.run, options.seconds, options.seed)
    names = options.target or list(TARGETS)
    if options.replay:
        return sum(replay(name, TARGETS[name]) for name in names)
    failed = []
    for name in names:
        seconds = str(options.minutes * 60 / len(names))
        command = [sys.executable, "-m", "fuzz", "--run", name, "--seconds", seconds, "--seed", str(options.seed)]
        done = subprocess.run(command, cwd=ROOT / "tools", check=False)
        if done.returncode != 0:
            failed.append(name)
            current = FOUND / name / "current"
            if current.exists():
                current.rename(current.with_name(f"found-{int(time.time())}"))
            print(f"{name}: FOUND SOMETHING (exit code {done.returncode}); see {FOUND / name}", flush=True)
    return 1 if failed else 0


def warm_up(target: Target) -> None:
    """Let a target load its models."""
    for empty in (b"", b"0"):
        target(empty)


def stored_inputs(name: str) -> list[Path]:
    """Return the files that a target begins with."""
    return sorted((CORPUS / name).glob("*"))


def replay(name: str, target: Target) -> int:
    """Run the stored inputs of a target; return how many of them took too much memory or time."""
    warm_up(target)
    n_wrong = 0
    for path in stored_inputs(name):
        data = path.read_bytes()
        tracemalloc.start()
        began = time.process_time()
        target(data)
        seconds = time.process_time() - began
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        if seconds > LONGEST or (name in FILES and peak > 4 * len(data) + SLACK):
            print(f"{path}: {seconds:.1f} s, {peak:,} bytes")
            n_wrong += 1
    print(f"{name}: replayed")
    return n_wrong


def fuzz(name: str, seconds: float, seed: int) -> int:
    """Run one target for so long."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    runner = Runner(name)
    for path in stored_inputs(name):
        runner.run(path.read_bytes(), STUCK)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.RLIM_INFINITY))
    atheris: Any = None
    if name in GUIDED:
        with contextlib.suppress(ImportError):
            atheris = importlib.import_module("atheris")
    end = time.monotonic() + seconds
    if atheris is not None:
        follow_coverage(atheris, runner, name, seed, end)
        return 0
    for data in changed_inputs([path.read_bytes() for path in stored_inputs(name)], seed):
        runner.run(data, STUCK)
        if time.monotonic() > end:
            break
    runner.report("blindly")
    return 0


def follow_coverage(atheris: Any, runner: Runner, name: str, seed: int, end: float) -> None:
    """Let libFuzzer choose the inputs, by the Python code of the package that they reach. Does not return."""
    for function in functions_of("pytriattn"):
        atheris.instrument_func(function)

    def run(data: bytes) -> None:
        runner.run(data)  # libFuzzer has an alarm of its own
        if time.monotonic() > end:
            runner.report("by coverage")
            os._exit(0)  # libFuzzer would end the process without another word

    grown = runner.folder / "corpus"
    grown.mkdir(exist_ok=True)
    options = [f"-timeout={STUCK}", "-rss_limit_mb=0", "-max_len=20000", f"-seed={seed % (1 << 31)}", "-verbosity=0"]
    folders = [f"-artifact_prefix={runner.folder}/", str(grown), str(CORPUS / name)]
    atheris.Setup([sys.argv[0], *options, *folders], run)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
