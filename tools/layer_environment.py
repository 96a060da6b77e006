#!/usr/bin/env python3
"""Let the virtual environment in the folder that is named see the packages of the one that this runs in.

pip in that environment then takes those packages as installed, and adds the others to it alone.
"""

from __future__ import annotations

import argparse
import subprocess
import sysconfig
from pathlib import Path


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environment", type=Path)
    python = parser.parse_args().environment / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    above = subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout.strip()
    below = sysconfig.get_path("purelib")
    # A plain path would add the folder but leave out its own .pth files, and with them the editable install.
    (Path(above) / "base.pth").write_text(f"import site; site.addsitedir({below!r})\n", encoding="utf-8")


if __name__ == "__main__":
    main()
