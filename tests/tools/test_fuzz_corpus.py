"""Stored inputs of fuzzing: none of them ends a process, hangs, or takes memory for a wrong count."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support.paths import ROOT

TARGETS = sorted(path.name for path in (ROOT / "tests" / "corpus").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_stored_inputs_do_no_harm(target: str) -> None:
    command = [sys.executable, "-m", "fuzz", "--replay", "--target", target]
    done = subprocess.run(command, cwd=ROOT / "tools", capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{target}: replayed" in done.stdout


def test_every_target_has_inputs() -> None:
    from fuzz.targets import TARGETS as KNOWN

    assert set(TARGETS) == set(KNOWN)
