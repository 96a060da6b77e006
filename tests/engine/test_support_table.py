"""The table of supported models is true: what it lists is what the tests of `test_architectures.py` run."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest

import support_table
from models.registry import make_tiny_model
from pytriattn._native import core
from pytriattn.model_info.tested_architectures import passed_architectures
from support import architecture_checks as checks
from support.architecture_checks import REFUSED, Case
from support.typical import TYPICAL, marked

LINES = support_table.PAGE.read_text(encoding="utf-8").splitlines()


def test_every_model_has_its_line_and_none_fails() -> None:
    listed = [line.split(" | ")[1] for line in LINES if line.startswith("| ")][1:]
    assert sorted(listed) == sorted(map(str, support_table.cases()))
    assert not [line for line in LINES if "**" in line]


@pytest.mark.parametrize(
    "case",
    marked([case for case in support_table.cases() if case.arch not in REFUSED], lambda case: case.arch in TYPICAL),
    ids=str,
)
def test_a_line_says_what_is_found_in_the_model(tiny_folder: pathlib.Path, case: Case) -> None:
    row = dataclasses.replace(support_table.describe(checks.Loaded(case, tiny_folder)), verdict="passes")
    assert any(line.startswith(support_table.line_of(row).removesuffix(" |")) for line in LINES)


@pytest.mark.parametrize("arch", REFUSED)
def test_a_refusal_is_the_one_that_the_engine_gives(tiny_folder: pathlib.Path, arch: str) -> None:
    assert support_table.line_of(support_table.examine(Case(arch), tiny_folder)) in LINES


def test_a_budget_is_allowed_for_what_has_passed(tiny_folder: pathlib.Path) -> None:
    passed = set()
    for case in support_table.cases():
        if case.arch not in REFUSED and case.arch not in checks.REAL:
            model = core.Model(str(make_tiny_model(case.arch, tiny_folder)))
            passed.add(model.metadata["general.architecture"])
    assert passed_architectures() == passed
    assert {"llama", "qwen3", "gemma4", "deepseek2", "gpt-oss"} <= passed
