"""Write ``pytriattn/_core/*.pyi``: what the compiled module offers, for type checkers and editors.

To be run, as ``python tools/make_stubs.py`` or ``make stubs``, after every change of a binding.
"""

from __future__ import annotations

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile
import textwrap

MODULE = "pytriattn._core"
REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
STUBS = REPOSITORY / "pytriattn" / "_core"
LINE_LENGTH = 120
HEADER = "# Made by tools/make_stubs.py from the bindings; do not edit.\n"

_CHANGES = (
    # values of constants say nothing about types, and some change with llama.cpp
    (r"^(\w+: .+?) = .*$", r"\1"),
    (r"^__all__: .*\n", ""),  # the module has none
    (r"^from \. import testing$", "from . import testing as testing"),  # a submodule is an attribute
    # the generator does not see the hint that the binding gives
    (r"^DEFAULT_OFFSETS: list$", "DEFAULT_OFFSETS: list[int]"),
    (r"^(CACHE_TYPES|MODES|QUANTISED_TYPES): tuple$", r"\1: tuple[str, ...]"),
    (r"(\.setter\n +def \w+\(self, )arg0:", r"\1value:"),
    (r"\bos\.PathLike\b", "os.PathLike[str]"),
    (r"\bnumpy\.bool\b", "numpy.bool_"),  # numpy 1 has no other name for it
    (r"\bnumpy\.typing\.", "npt."),
    (r"(?<!import )\bnumpy\.", "np."),
    (r"^import numpy$", "import numpy as np"),
    (r"^import numpy\.typing$", "import numpy.typing as npt"),
)


def _run(*command: str, text: str | None = None) -> str:
    """Run a module of this interpreter and return what it prints; its complaints end the program."""
    done = subprocess.run(
        [sys.executable, "-m", *command], input=text, capture_output=True, encoding="utf-8", cwd=REPOSITORY, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr or done.stdout}")
    return done.stdout


def make_stubs() -> dict[pathlib.Path, str]:
    """Return the stubs of the module that is installed and of its submodules, formatted as the rest of the
    repository.
    """
    with tempfile.TemporaryDirectory() as folder:
        # --exit-code: a signature with C++ names or values in it is an error
        _run("pybind11_stubgen", MODULE, "--exit-code", "--output-dir", folder)
        made = pathlib.Path(folder, *MODULE.split("."))
        return {
            STUBS / file.name: _finish(file.read_text(encoding="utf-8"), STUBS / file.name) for file in made.iterdir()
        }


def _finish(text: str, path: pathlib.Path) -> str:
    """Return what the generator wrote as it is kept."""
    for pattern, replacement in _CHANGES:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    unnamed = re.search(r"^.*\barg\d+:.*$", text, flags=re.MULTILINE)
    if unnamed:
        raise SystemExit(f"a binding does not name its arguments (py::arg): {unnamed[0].strip()}")
    options = ("--stdin-filename", str(path), "-")
    fixed = _run("ruff", "check", "--quiet", "--fix", "--select", "I,F401", *options, text=HEADER + text)
    return "".join(
        _wrap(line) for line in _run("ruff", "format", "--quiet", *options, text=fixed).splitlines(keepends=True)
    )


def _wrap(line: str) -> str:
    """Break a line of a docstring, which the formatter leaves as long as it is."""
    if len(line) <= LINE_LENGTH + 1:
        return line
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.fill(line.strip(), LINE_LENGTH, initial_indent=indent, subsequent_indent=indent) + "\n"


def main() -> int:
    """Write or check the stubs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a stub is not up to date")
    is_check = parser.parse_args().check
    wanted = make_stubs()
    present = {path: path.read_text(encoding="utf-8") for path in STUBS.glob("*.pyi")}
    if present == wanted:
        return 0
    if is_check:
        print(f"{STUBS.relative_to(REPOSITORY)} is not up to date: run python tools/make_stubs.py", file=sys.stderr)
        return 1
    for path in present.keys() - wanted.keys():
        path.unlink()
    STUBS.mkdir(exist_ok=True)
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
