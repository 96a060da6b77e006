#!/usr/bin/env python3
"""Make a CUDA 13.0 toolkit out of NVIDIA's packages on PyPI: enough to build the CUDA backend, without a GPU or a
driver.

Prints the folder, for ``CUDAToolkit_ROOT`` and ``CUDACXX=<folder>/bin/nvcc``. Does nothing when it is there already.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

REQUIREMENT = "cuda-toolkit[nvcc,cccl,cudart,cublas]==13.0.*"


def make_toolkit(target: Path) -> Path:
    """Install the packages below `target`, name their libraries as a linker looks for them, return the toolkit's
    folder.
    """
    root = target / "nvidia" / "cu13"
    stamp = target / ".complete"
    if stamp.exists():
        return root
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--target", str(target), REQUIREMENT]
    subprocess.run(command, check=True, stdout=sys.stderr)
    # The wheels hold lib/libcudart.so.13 alone; nvcc and CMake look for lib64/libcudart.so.
    for library in (root / "lib").glob("lib*.so.*"):
        link = library.with_name(library.name.split(".so.")[0] + ".so")
        if not link.exists():
            link.symlink_to(library.name)
    if not (root / "lib64").exists():
        (root / "lib64").symlink_to("lib")
    stamp.touch()
    return root


def main() -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).resolve().parent.parent / "build" / "cuda-13.0"
    parser.add_argument(
        "target", nargs="?", type=Path, default=default, help=f"folder to install below (default: {default})"
    )
    try:
        print(make_toolkit(parser.parse_args().target.expanduser().resolve()))
    except subprocess.CalledProcessError as error:
        print(
            f"pip could not install {REQUIREMENT} (exit code {error.returncode}); its message is above", file=sys.stderr
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
