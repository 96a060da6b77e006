#!/usr/bin/env bash
# Sets pytriattn up as a new user does, once for each Python of this machine: a fresh clone of the last commit, an
# environment with neither setuptools nor wheel, no cache of pip's or ccache's. For each Python: `pip install .`, then an
# import and a program; with --demo also the README's first command, `make demo`.
#
#     tools/check_setup.sh [--demo] [--ccache] [python...]      default: Python 3.10 to 3.14, from pyenv and from PATH
#
# --ccache lets the compiler's cache stay, for all but the first check on a machine: a build takes minutes without it.
set -euo pipefail
cd "$(dirname "$0")/.."

demo=
export CCACHE_DISABLE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
pythons=()
for word in "$@"; do
    case $word in
        --demo) demo=1 ;;
        --ccache) unset CCACHE_DISABLE ;;
        -*) echo "check_setup.sh: unknown option $word" >&2; exit 2 ;;
        *) pythons+=("$word") ;;
    esac
done
if [ ${#pythons[@]} -eq 0 ]; then
    for version in 3.10 3.11 3.12 3.13 3.14; do
        of_pyenv=("${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python)
        for python in "${of_pyenv[@]}" "$(command -v "python$version" || true)"; do
            if [ -x "$python" ] && "$python" -c 'import sys' 2>/dev/null; then
                pythons+=("$python")
                break
            fi
        done
    done
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=0

set_up() { # python folder
    git clone --quiet . "$2/pytriattn"
    cd "$2/pytriattn"
    "$1" -m venv "$2/venv"
    "$2/venv/bin/python" -m pip uninstall --quiet --yes setuptools wheel
    "$2/venv/bin/python" -m pip install -v .
    cd "$2" # where the checkout's own folder cannot be imported
    venv/bin/python -c 'import pytriattn; print("pytriattn", pytriattn.__version__, pytriattn.llama_cpp_commit)'
    venv/bin/pytriattn-inspect --help >/dev/null
    cd "$2/pytriattn"
    if [ -n "$demo" ]; then
        make demo PYTHON="$1"
        .venv/bin/python -m pip list
    fi
}

for python in "${pythons[@]}"; do
    name=$("$python" -c 'import sys; print("Python %d.%d.%d" % sys.version_info[:3])')
    folder=$(mktemp -d "$scratch/XXXX")
    begin=$SECONDS
    status=0
    # A bash of its own: in a condition, the shell would go on after a command that failed.
    demo=$demo bash -euo pipefail -c "$(declare -f set_up); set_up \"\$@\"" - "$python" "$folder" \
        >"$folder/log" 2>&1 || status=$?
    if [ $status -eq 0 ]; then
        echo "$name: ok ($((SECONDS - begin)) s)"
    else
        echo "$name: FAILED"
        tail -40 "$folder/log"
        failed=1
    fi
done
exit $failed
