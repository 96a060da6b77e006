"""What the installed package consists of, and where it takes its libraries from."""

from __future__ import annotations

import importlib.metadata
import json
import pathlib
import subprocess
import sys

import pytest

import pytriattn
from pytriattn import _core
from pytriattn._native import backends
from support.paths import ROOT

INSTALLED = pathlib.Path(_core.__file__).resolve().parent


def test_versions() -> None:
    assert pytriattn.__version__ == importlib.metadata.version("pytriattn")
    pin = json.loads((ROOT / "vendor/llama.cpp/pin.json").read_text())
    assert pytriattn.llama_cpp_commit == pin["llama_cpp_commit"]


def test_licences_are_installed() -> None:
    names = {path.name for path in (INSTALLED / "licenses").rglob("*") if path.is_file()}
    assert {"LICENSE-llama.cpp", "LICENSE-jsonhpp"} <= names
    assert "ggml authors" in (INSTALLED / "licenses" / "LICENSE-llama.cpp").read_text()
    shipped = importlib.metadata.files("pytriattn") or []
    assert {"LICENSE", "THIRD_PARTY_NOTICES.md"} <= {pathlib.Path(str(path)).name for path in shipped}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_every_ggml_library_is_ours(tmp_path: pathlib.Path) -> None:
    """Also where the working directory offers files of the names that ggml looks for."""
    for name in (
        "libggml-cpu.so",
        "libggml-base.so",
        "libggml-cuda.so",
        "libpytriattn-ggml.so",
        "libpytriattn-ggml-cpu.so",
    ):
        (tmp_path / name).write_bytes(b"no library")
    code = "import pytriattn; print(open('/proc/self/maps').read())"
    maps = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    loaded = {pathlib.Path(line.split()[-1]) for line in maps.splitlines() if "ggml" in line}
    names = {path.name for path in loaded}
    assert {"libpytriattn-ggml.so", "libpytriattn-ggml-base.so"} <= names
    assert names - {"libpytriattn-ggml.so", "libpytriattn-ggml-base.so"} <= set(backends.base.modules)
    assert {path.parent for path in loaded} == {INSTALLED / "lib"}


def test_no_upstream_source_in_git() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    tracked = subprocess.run(["git", "ls-files", "vendor"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "fetch.py" in tracked
    assert "vendor/llama.cpp/upstream" not in tracked


def test_the_fetch_script(tmp_path: pathlib.Path) -> None:
    script = ROOT / "vendor/llama.cpp/fetch.py"

    def run(**env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True, check=False)

    if not (script.parent / "upstream").is_dir():
        pytest.skip("built from another tree")
    # in place: nothing to do, no pip needed
    done = run(PATH="")
    assert (done.returncode, pathlib.Path(done.stdout.strip()).name) == (0, "upstream")
    wrong = run(PYTRIATTN_LLAMA_CPP_DIR=str(tmp_path))
    assert wrong.returncode == 1
    assert "is not a llama.cpp tree" in wrong.stderr
    local = run(PYTRIATTN_LLAMA_CPP_DIR=done.stdout.strip())
    assert local.stdout == done.stdout
