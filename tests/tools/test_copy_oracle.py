"""The oracles that know that a text will be repeated."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest

from support.paths import ROOT


@pytest.mark.slow
def test_who_knows_of_the_copy_keeps_all_of_it_that_fits(smollm2: pathlib.Path) -> None:
    """A budget of the text's length loses nothing; half as many keys lose about half."""
    command = [sys.executable, str(ROOT / "tools" / "bench" / "copy_oracle.py"), str(smollm2), "--ratios", "2,4"]
    command += ["--documents", "1", "--tokens", "512", "--threads", "1"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.findall(r"(\w+) +ratio (\d): R (-?[\d.]+), perplexity [\d.]+", said)
    retained = {(rule, int(ratio)): float(value) for rule, ratio, value in found}
    for rule in ("needed_next", "scattered"):
        assert retained[rule, 2] > 0.95
        assert 0.2 < retained[rule, 4] < 0.7
