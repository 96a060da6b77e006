#!/usr/bin/env python3
"""Look whether this machine can build pytriattn, before anything is downloaded or built.

`make` starts this with the Python that it is going to use. One line tells what is missing and the remedy; the exit
code is then 1.
The file must run on every Python, also on one that is too old, since that is one of the things it has to say.
"""

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile

OLDEST = (3, 10)

# The oldest compilers that build llama.cpp know <filesystem>.
PROGRAM = """
#include <filesystem>
int main() { return std::filesystem::path("a/b").filename() == "b" ? 0 : 1; }
"""


class Missing(Exception):
    """Something that the machine lacks; the message is one line and says what to do."""


def found(command):
    """Return whether `command`, a name or a path, can be run."""
    folders = [""] if os.path.dirname(command) else os.environ.get("PATH", os.defpath).split(os.pathsep)
    for folder in folders:
        path = os.path.join(folder, command)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return True
    return False


def check_python():
    """Is this Python new enough, and can it make virtual environments and compile extensions?"""
    version = ".".join(str(number) for number in sys.version_info[:3])
    if sys.version_info[:2] < OLDEST:
        raise Missing(
            "Python {} is too old ({}); pytriattn needs Python 3.10 or newer: "
            "install one and name it, as in `make demo PYTHON=python3.12`".format(version, sys.executable)
        )
    try:
        import ensurepip  # noqa: F401, PLC0415
        import venv  # noqa: F401, PLC0415
    except ImportError:
        raise Missing(
            "Python {} cannot make virtual environments ({}): install its venv module, "
            "as in `apt install python3-venv`".format(version, sys.executable)
        )
    header = os.path.join(sysconfig.get_path("include"), "Python.h")
    if not os.path.isfile(header):
        raise Missing(
            "the header files of Python {} are missing ({}): install them, "
            "as in `apt install python3-dev` or `dnf install python3-devel`".format(version, header)
        )


def check_compiler(language, variable, names):
    """Is there a compiler of `language`: the environment's `variable`, or one of `names`? And does it compile C++?"""
    remedy = "install one, as in `apt install g++`, `dnf install gcc-c++` or `xcode-select --install`"
    named = os.environ.get(variable)
    if named:
        compiler = shlex.split(named)
        if not found(compiler[0]):
            raise Missing(
                "{}={} cannot be run; name a {} compiler or unset {}".format(variable, named, language, variable)
            )
    else:
        compiler = [name for name in names if found(name)][:1]
        if not compiler:
            raise Missing(
                "there is no {} compiler (looked for {} in PATH): {}".format(language, ", ".join(names), remedy)
            )
    if language == "C++":
        check_that_it_compiles(compiler, remedy)


def check_that_it_compiles(compiler, remedy):
    """Compile and link a small program with the C++17 `compiler`."""
    folder = tempfile.mkdtemp(prefix="pytriattn-check-")
    source, program = os.path.join(folder, "check.cpp"), os.path.join(folder, "check")
    try:
        with open(source, "w") as stream:
            stream.write(PROGRAM)
        process = subprocess.Popen(
            compiler + ["-std=c++17", source, "-o", program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        output = process.communicate()[0].decode("utf-8", "replace").strip()
        if process.returncode != 0:
            lines = [line for line in output.splitlines() if "error" in line] or output.splitlines() or ["no message"]
            raise Missing(
                "{} cannot build a small C++17 program ({}): {}".format(compiler[0], lines[0].strip(), remedy)
            )
    finally:
        for path in (source, program):
            if os.path.exists(path):
                os.remove(path)
        os.rmdir(folder)


def main():
    """Command line entry."""
    try:
        check_python()
        check_compiler("C++", "CXX", ["c++", "g++", "clang++"])
        check_compiler("C", "CC", ["cc", "gcc", "clang"])
    except Missing as missing:
        sys.stderr.write("pytriattn cannot be built here: {}\n".format(missing))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
