"""The small real models, which tools/fetch_models.py fetches once and keeps."""

from __future__ import annotations

import functools
import pathlib
import subprocess
import sys

FETCH = pathlib.Path(__file__).resolve().parents[2] / "tools" / "fetch_models.py"


@functools.cache
def fetch(name: str) -> pathlib.Path:
    """Return the path of the model called `name` there: ``smollm2`` or ``gemma3``."""
    done = subprocess.run([sys.executable, str(FETCH), name], stdout=subprocess.PIPE, text=True, check=True)
    return pathlib.Path(done.stdout.strip())
