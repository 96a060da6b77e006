"""A server that dies: a Python exception at the next step, whatever was being done, and an interpreter that lives
on.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from pytriattn import TriAttentionStats
from support.paths import TESTS
from support.rpc_losses import PHASES

SEEN = {"loading": "ModelLoadError", "hung": "KeyboardInterrupt"}


@pytest.mark.slow
def test_a_server_that_dies_ends_in_an_exception(
    smollm2: pathlib.Path, smollm2_stats: TriAttentionStats, tmp_path: pathlib.Path
) -> None:
    stats = tmp_path / "smollm2.triattention"
    smollm2_stats.save(stats)
    # in a process of its own: if it should end after all, only this test fails
    command = [sys.executable, "-m", "support.rpc_losses", str(smollm2), str(stats)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=TESTS)
    expected = [f"{phase} {SEEN.get(phase, 'ServerLostError')}" for phase in PHASES]
    assert result.stdout.splitlines() == [*expected, "alive"], result.stderr
    assert result.returncode == 0, result.stderr
