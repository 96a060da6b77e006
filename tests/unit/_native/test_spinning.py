"""Threads that wait sleep soon, unless the user has said how they wait."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pytriattn._native.loader import SPINS, limit_spinning


@pytest.mark.parametrize("said", [{"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "active"}])
def test_the_user_comes_first(said: dict[str, str]) -> None:
    environment = dict(said)
    limit_spinning(environment)
    assert environment == said


def test_it_is_said_before_the_library_is_loaded() -> None:
    environment = {
        name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    code = "import os, pytriattn; print(os.environ['GOMP_SPINCOUNT'])"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{SPINS}\n"
