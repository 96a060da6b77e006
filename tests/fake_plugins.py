"""Plug-in distributions that the tests put on a fresh process's path, and the processes that look at them."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any

from pytriattn._native import backends

BASE = backends.base
CPU_MODULE = BASE.directory / next(name for name in BASE.modules if "-cpu" in name)


def base_descriptor() -> dict[str, Any]:
    """Return what the installed package's own descriptor says."""
    content: dict[str, Any] = json.loads((BASE.directory / "backend.json").read_text(encoding="utf-8"))
    return content


class FakePlugin:
    """An installed plug-in ``pytriattn-fake`` for the backend ``fake``; its module is the CPU's under another name.

    Importing its package and calling ``preload()`` leave lines in `trace`.
    """

    def __init__(self, folder: pathlib.Path, version: str = BASE.pytriattn, preload: str = "pass") -> None:
        self.folder = folder
        self.trace = folder / "trace.txt"
        self.package = folder / "pytriattn_fake"
        info = folder / f"pytriattn_fake-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: pytriattn-fake\nVersion: {version}\n")
        (info / "entry_points.txt").write_text("[pytriattn.backends]\nfake = pytriattn_fake\n")
        self.package.mkdir()
        (self.package / "__init__.py").write_text(
            f"def trace(what):\n    open({str(self.trace)!r}, 'a').write(what + '\\n')\n\n"
            f"trace('imported')\n\ndef preload():\n    trace('preload')\n    {preload}\n"
        )
        self.module = self.package / CPU_MODULE.name.replace("-cpu", "-fake-")
        shutil.copy(CPU_MODULE, self.module)
        self.describe()

    def describe(self, **changes: Any) -> None:
        """Write the descriptor: the package's own, this module, and `changes`."""
        content = base_descriptor() | {"modules": [self.module.name]} | changes
        (self.package / "backend.json").write_text(json.dumps(content), encoding="utf-8")

    def traced(self) -> list[str]:
        """Return what has been run of the plug-in."""
        return self.trace.read_text().split() if self.trace.exists() else []


def run_python(
    code: str, *path: pathlib.Path, cwd: pathlib.Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh process that finds the distributions in `path`."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTRIATTN_BACKENDS"} | env
    environment["PYTHONPATH"] = os.pathsep.join(map(str, path))
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
