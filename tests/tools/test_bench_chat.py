"""The benchmark of a chat of many turns, which holds every turn's statistics against the tokens themselves."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

from support.paths import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("reuse_evicted", [False, True])
def test_what_is_reused_over_many_turns(smollm2: pathlib.Path, tmp_path: pathlib.Path, reuse_evicted: bool) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, str(ROOT / "tools" / "bench" / "chat.py"), "--model", str(smollm2)]
    command += ["--json", str(figures), "--turns", "8", "--answer", "30", "--budget", "256"]
    subprocess.run([*command, *([] if reuse_evicted else ["--no-reuse-evicted"])], check=True, capture_output=True)
    rows = json.loads(figures.read_text(encoding="utf-8"))
    assert len(rows) == 8
    assert rows[-1]["tokens"] > 3 * 256
    assert {row["cells_allocated"] for row in rows} == {512}
    assert rows[1]["reused"] > 50
    assert rows[-1]["evictions"] > 0
    assert (rows[-1]["reused"] > 3 * 256) == reuse_evicted
    assert (rows[-1]["rereads"] == 0) == reuse_evicted
