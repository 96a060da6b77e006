"""The types of the compiled module, which are generated: they are up to date, and the package is checked against
them.
"""

from __future__ import annotations

import subprocess
import sys
from importlib import resources

import pytest

from pytriattn import _core
from support.paths import ROOT

for tool in ("pybind11_stubgen", "mypy", "ruff"):
    pytest.importorskip(tool)


@pytest.mark.slow
def test_the_stub_is_up_to_date() -> None:
    """Fails when a binding has changed without the stub, and when a binding does not name its arguments."""
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "make_stubs.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_stub_agrees_with_the_module() -> None:
    allowed = ROOT / "tools" / "stubtest_allowlist.txt"
    command = [sys.executable, "-m", "mypy.stubtest", _core.__name__, "--allowlist", str(allowed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_is_installed() -> None:
    """Type checkers read the stub of an installed package only if the package says that it has types."""
    folder = resources.files("pytriattn")
    assert (folder / "py.typed").is_file()
    assert "class Context" in (folder / "_core" / "__init__.pyi").read_text(encoding="utf-8")
    assert "def cache_rows" in (folder / "_core" / "testing.pyi").read_text(encoding="utf-8")
