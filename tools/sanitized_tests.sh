#!/usr/bin/env bash
# Builds engine and bindings with sanitizers and runs tests with them.
#
#     tools/sanitized_tests.sh asan|tsan [arguments of pytest...]
#
# llama.cpp is compiled as always: what it allocates is watched, what it reads and writes itself is not. The build is in
# build/asan or build/tsan; an environment there has the package with that build, and all else from the Python that
# PYTHON names. With tsan, threads of our own are watched, and those of Python that call us; ggml computes with one
# thread, and so does numpy, since the barriers of their threads are not seen.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
python=${PYTHON:-$root/.venv/bin/python}
kind=${1:?asan or tsan}
shift

case $kind in
    asan) sanitizers=address,undefined runtime=(libasan.so libubsan.so) ;;
    tsan) sanitizers=thread runtime=(libtsan.so) ;;
    *) echo "sanitized_tests.sh: there is no '$kind'; it must be asan or tsan" >&2; exit 2 ;;
esac
build=$root/build/$kind
mkdir -p "$build"
# The programs that `pip install` builds with, if they are there: the compiler's cache then knows most of it.
PATH=$("$python" -c 'import cmake; print(cmake.CMAKE_BIN_DIR)' 2>/dev/null || dirname "$python"):$(dirname "$python"):$PATH

cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DPYTRIATTN_SANITIZE=$sanitizers \
    -DCMAKE_C_COMPILER="${CC:-gcc}" -DCMAKE_CXX_COMPILER="${CXX:-g++}" \
    -DPython_EXECUTABLE="$python" -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" >"$build/configure.log"
cmake --build "$build" >"$build/build.log" || { tail -40 "$build/build.log"; exit 1; }
rm -rf "$build/site"
cmake --install "$build" --component pytriattn --prefix "$build/site" >/dev/null

# The package: this checkout's Python files beside the modules that were built.
for file in "$root"/pytriattn/*; do
    name=$(basename "$file")
    [ -e "$build/site/pytriattn/$name" ] || ln -s "$file" "$build/site/pytriattn/$name"
done
"$python" -m venv --without-pip --clear "$build/venv"
"$python" - "$build" <<'PYTHON'
import pathlib, sys, sysconfig
build = pathlib.Path(sys.argv[1])
(packages,) = (build / "venv").glob("lib/python*/site-packages")
others = [path for path in sys.path if path.endswith("site-packages")]
ours = [build / "site", pathlib.Path("tests").resolve(), pathlib.Path("tools").resolve()]
(packages / "all.pth").write_text("\n".join([*map(str, ours), *others]) + "\n")
PYTHON

preload=
for library in "${runtime[@]}" libstdc++.so.6; do
    preload+=" $(${CXX:-c++} -print-file-name=$library)"
done
# Python keeps what it has allocated until the end, so leaks are looked for by tools/soak.py instead.
reports=$build/report
rm -f "$reports".*
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:abort_on_error=1:log_path=$reports
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1:log_path=$reports
export TSAN_OPTIONS=halt_on_error=0:exitcode=0:log_path=$reports
[ $kind != tsan ] || export OMP_THREAD_LIMIT=1 OPENBLAS_NUM_THREADS=1
export GGML_NO_BACKTRACE=1 PYTHONMALLOC=malloc
# This folder, with its own `pytriattn`, must not come first, neither here (as with `-m pytest`) nor in the processes that
# tests start (Python 3.11 and later know PYTHONSAFEPATH).
export PYTHONSAFEPATH=1 PYTRIATTN_SANITIZER=$kind
status=0
LD_PRELOAD=$preload "$build/venv/bin/python" -c \
    'import sys; sys.path = [p for p in sys.path if p]; import pytest; sys.exit(pytest.main())' \
    -p no:cacheprovider "$@" || status=$?
if compgen -G "$reports.*" >/dev/null; then  # pytest keeps what is printed by a process that ends
    head -c 20000 "$reports".*
    status=1
fi
exit $status
