"""Plug-in distributions that the tests put on a fresh process's path, and the processes that look at them."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import pytest

from pytriattn._native import backends

BASE = backends.base
CPU_MODULE = BASE.directory / next(name for name in BASE.modules if "-cpu" in name)


def base_descriptor() -> dict[str, Any]:
    """Return what the installed package's own descriptor says."""
    content: dict[str, Any] = json.loads((BASE.directory / "backend.json").read_text(encoding="utf-8"))
    return content


class FakePlugin:
    """An installed plug-in ``pytriattn-fake`` for the backend `name`; its module is a copy of `module`, the CPU's by
    default.

    Importing its package and calling ``preload()`` leave lines in `trace`.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        version: str = BASE.pytriattn,
        preload: str = "pass",
        name: str = "fake",
        module: pathlib.Path = CPU_MODULE,
    ) -> None:
        self.folder = folder
        self.trace = folder / "trace.txt"
        self.package = folder / "pytriattn_fake"
        info = folder / f"pytriattn_fake-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: pytriattn-fake\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[pytriattn.backends]\n{name} = pytriattn_fake\n")
        self.package.mkdir()
        (self.package / "__init__.py").write_text(
            f"def trace(what):\n    open({str(self.trace)!r}, 'a').write(what + '\\n')\n\n"
            f"trace('imported')\n\ndef preload():\n    trace('preload')\n    {preload}\n"
        )
        self.module = self.package / f"libpytriattn-ggml-{name}.so"
        shutil.copy(module, self.module)
        self.describe()

    def describe(self, **changes: Any) -> None:
        """Write the descriptor: the package's own, this module, and `changes`."""
        content = base_descriptor() | {"modules": [self.module.name]} | changes
        (self.package / "backend.json").write_text(json.dumps(content), encoding="utf-8")

    def traced(self) -> list[str]:
        """Return what has been run of the plug-in."""
        return self.trace.read_text().split() if self.trace.exists() else []


def compile_library(folder: pathlib.Path, name: str, source: str, *flags: str) -> pathlib.Path:
    """Compile a shared library of C code."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler on Linux")
    path = folder / f"{name}.c"
    path.write_text(source)
    library = folder / name
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(path), *flags], check=True)
    return library


def run_python(
    code: str, *path: pathlib.Path, cwd: pathlib.Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh process that finds the distributions in `path`."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTRIATTN_BACKENDS"} | env
    environment["PYTHONPATH"] = os.pathsep.join(map(str, path))
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
