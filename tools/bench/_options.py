"""The options that the benchmarks share, and where their figures go."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["model_path", "parser", "write_json"]

FETCH = Path(__file__).resolve().parents[1] / "fetch_models.py"
NAMES = ("smollm2", "gemma3")
"""Models that it fetches."""


def parser(doc: str | None, *, rounds: int | None = None) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has; `doc` is shown as it is. Without `rounds` there are
    none to choose.
    """
    result = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--model", default="smollm2", help="smollm2, gemma3 or a GGUF file (default: %(default)s)")
    result.add_argument("--json", type=Path, help="also write the figures here")
    if rounds is not None:
        result.add_argument(
            "--rounds", type=int, default=rounds, help="timings, whose median counts (default: %(default)s)"
        )
    return result


def model_path(model: str) -> Path:
    """Return the path of what ``--model`` says: one of `NAMES`, fetched if need be, or a GGUF file."""
    if model not in NAMES:
        return Path(model)
    done = subprocess.run([sys.executable, str(FETCH), model], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.returncode)  # it has said why
    return Path(done.stdout.strip())


def write_json(path: Path | None, figures: Any) -> None:
    """Write the figures, if a file was asked for."""
    if path is not None:
        path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
