"""The first command on a machine that lacks something: `make demo` ends at once, and one line says what is missing."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import time

import pytest

from support.paths import ROOT

AT_ONCE = 20.0  # seconds, on a busy machine
WITH_ENVIRONMENT = 120.0  # where a virtual environment is made first

pytestmark = pytest.mark.skipif(not shutil.which("make") or sys.platform == "win32", reason="needs make")


@pytest.fixture
def checkout(tmp_path: pathlib.Path) -> pathlib.Path:
    """What of a checkout `make` needs until something is missing, in a folder whose name has a space."""
    folder = tmp_path / "my checkout"
    (folder / "tools").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "tools/check_machine.py", "tools/pip_install.py"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def make_demo(checkout: pathlib.Path, *words: str, within: float = AT_ONCE, **environment: str) -> str:
    """Run `make demo`, which must fail soon; return the lines that are not make's own."""
    make = shutil.which("make")
    assert make
    clean = {name: value for name, value in os.environ.items() if name not in ("CC", "CXX", "MAKEFLAGS", "MAKELEVEL")}
    start = time.monotonic()
    done = subprocess.run(
        [make, "--silent", "demo", *words],
        cwd=checkout,
        env=clean | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert time.monotonic() - start < within
    return "".join(line for line in done.stdout.splitlines(keepends=True) if not line.startswith("make: ***"))


def folder_of_programs(folder: pathlib.Path, *names: str) -> str:
    """Make a folder, for PATH, with nothing but the programs `names` of this machine."""
    folder.mkdir()
    for name in names:
        program = shutil.which(name)
        assert program, name
        (folder / name).symlink_to(program)
    return str(folder)


def test_without_a_compiler(checkout: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = folder_of_programs(tmp_path / "bin", "sh")
    said = make_demo(checkout, f"PYTHON={sys.executable}", PATH=path)
    assert said.count("\n") == 1
    assert "there is no C++ compiler (looked for c++, g++, clang++ in PATH): install one" in said
    assert not (checkout / ".venv").exists()


def test_a_compiler_that_cannot_be_run(checkout: pathlib.Path) -> None:
    said = make_demo(checkout, f"PYTHON={sys.executable}", CXX="/nowhere/c++")
    assert said.count("\n") == 1
    assert "CXX=/nowhere/c++ cannot be run; name a C++ compiler or unset CXX" in said


def test_a_compiler_that_cannot_compile(checkout: pathlib.Path, tmp_path: pathlib.Path) -> None:
    compiler = tmp_path / "old-c++"
    compiler.write_text("#!/bin/sh\necho 'error: unrecognized option -std=c++17'; exit 1\n")
    compiler.chmod(0o755)
    said = make_demo(checkout, f"PYTHON={sys.executable}", CXX=str(compiler))
    assert said.count("\n") == 1
    assert f"{compiler} cannot build a small C++17 program (error: unrecognized option -std=c++17)" in said


def test_without_python(checkout: pathlib.Path) -> None:
    said = make_demo(checkout, "PYTHON=python-of-nowhere")
    assert said.count("\n") == 1
    assert "there is no python-of-nowhere; install Python 3.10 or newer" in said


def old_pythons() -> list[str]:
    """Return the Pythons below 3.10 of this machine."""
    of_pyenv = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv")) / "versions"
    found = [str(path) for pattern in ("2.*", "3.[5-9].*") for path in sorted(of_pyenv.glob(f"{pattern}/bin/python"))]
    return found or [name for name in ("python3.9", "python3.8") if shutil.which(name)]


def test_a_python_that_is_too_old(checkout: pathlib.Path) -> None:
    if not old_pythons():
        pytest.skip("there is no Python below 3.10 here")
    for python in old_pythons():
        said = make_demo(checkout, f"PYTHON={python}")
        assert said.count("\n") == 1
        assert "is too old" in said and "pytriattn needs Python 3.10 or newer" in said
        assert not (checkout / ".venv").exists()


@pytest.mark.slow
def test_without_a_network(checkout: pathlib.Path) -> None:
    """In a folder whose name has a space, so that the environment has been made in such a folder."""
    nowhere = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_FIND_LINKS": ""}
    said = make_demo(checkout, f"PYTHON={sys.executable}", within=WITH_ENVIRONMENT, **nowhere)
    assert "the Python package index cannot be reached: check the network" in said.splitlines()[-1]
    assert (checkout / ".venv/bin/python").exists()
    assert "127.0.0.1" in (checkout / "build/setup.log").read_text()
