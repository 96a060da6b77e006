"""Tests that cannot run with the sanitizers of ``tools/sanitized_tests.sh``, each with its reason."""

from __future__ import annotations

import os
from collections.abc import Iterable

import pytest

_ADDRESSES = "AddressSanitizer reserves terabytes of addresses, so nothing starts under `ulimit -v`"
_UNWOUND = "Python unwinds such a thread, and AddressSanitizer then takes marks of its old frames for those of new ones"
_TIME = "a time that is exceeded where the sanitizers make everything slower"

_PROGRAMS = "this build has no installed programs"

_GRAMMARS = "tests/unit/generation/test_grammars.py"
UNFIT = {
    "asan": {
        f'{_GRAMMARS}::test_grammars_that_would_take_all_memory_or_time[root ::= (("a"?){{50}}){{50': _TIME,
        "tests/unit/session/test_processes.py::test_a_process_ends_while_a_daemon": _UNWOUND,
        "tests/unit/session/test_memory.py::test_a_": _ADDRESSES,
        "tests/unit/cli/test_calibrate.py::test_the_installed_program": _PROGRAMS,
    },
    "tsan": {},
}
"""For each build the beginnings of tests' names, with the reason."""


def skip_unfit(items: Iterable[pytest.Item]) -> None:
    """Skip the tests that are of no use in the build that runs."""
    unfit = UNFIT.get(os.environ.get("PYTRIATTN_SANITIZER", ""), {})
    for item in items:
        for name, reason in unfit.items():
            if item.nodeid.startswith(name):
                item.add_marker(pytest.mark.skip(reason=reason))
