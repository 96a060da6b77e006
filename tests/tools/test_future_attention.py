"""The oracle that knows the future attention."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from pytriattn import EvalSettings, run_eval
from pytriattn.lab.results import EvalResults
from pytriattn.lab.scoring import score_tasks
from support.paths import ROOT


@pytest.mark.slow
def test_the_oracle_keeps_what_will_be_asked_for(smollm2: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """At a quarter of the keys nearly all that the full cache knows of the facts is left."""
    file = tmp_path / "results.json"
    settings = EvalSettings(rules=("recent",), tasks=("facts",), tokens=512, documents=1)
    run_eval(smollm2, settings, output=file, n_threads=1)
    command = [sys.executable, str(ROOT / "tools" / "bench" / "future_attention.py"), str(smollm2), str(file)]
    command += ["--tasks", "facts", "--tokens", "512", "--threads", "1"]
    oracles: dict[str, list[str]] = {"future": [], "future_one_set": ["--one-set"]}
    for rule, options in oracles.items():
        said = subprocess.run([*command, *options], check=True, capture_output=True, text=True).stdout
        assert f"facts/0/{rule}/128" in said
    results = EvalResults.load(file)
    found = {rule: score_tasks(results, rule, ("ratio", 4))["facts"].retained or 0.0 for rule in (*oracles, "recent")}
    assert found["future"] > 0.85 and found["future"] > found["recent"] + 0.2
    assert found["future_one_set"] > found["recent"] + 0.1
