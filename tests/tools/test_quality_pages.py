"""The pages of the quality lab are those that the results files give."""

from __future__ import annotations

import pytest

import quality_pages
from pytriattn.lab.reading import Answered
from pytriattn.lab.results import Cell, CellKey, EvalResults
from quality_summary import against_the_best, ahead_of_each, level_of, worth_of_parts
from support.paths import ROOT

PAGE = ROOT / "docs" / "quality-table.md"


def results_of(**rules: dict[str, float]) -> EvalResults:
    """Return results of two documents of `needle` and `copy`: what each rule says of a right answer, in nats."""
    made_with = {"model": "m.gguf", "half": "report", "seed": 0, "tokens": 1024}
    results = EvalResults(made_with)
    everything = {"full": {"needle": -1.0, "copy": -1.0}, "floor": {"needle": -11.0, "copy": -11.0}, **rules}
    for rule, tasks in everything.items():
        budget = 0 if rule in ("full", "floor") else 256
        for task, logprob in tasks.items():
            for document in range(2):
                answer = Answered(task, "", None, logprob, 100 if task == "copy" else 1, False)
                results.cells[CellKey(task, document, rule, budget)] = Cell([answer], 1, 1024, 1.0)
    return results


def test_the_short_tables_name_the_best_other_rule_and_what_is_behind() -> None:
    results = results_of(
        fitted={"needle": -3.0, "copy": -5.0},
        recent={"needle": -6.0, "copy": -2.0},
        value_norm={"needle": -4.0},
        no_fit={"needle": -8.0, "copy": -5.0},
    )
    level = level_of(results, 4)
    assert against_the_best([level]) == [
        "| R | 4 × |",
        "|---|---|",
        "| `copy` | 0.60 (`recent` 0.90) |",
        "| `needle` | **0.80** (`value_norm` 0.70) |",
        "| perplexity of the copy | 1.05 (`recent` 1.02, full 1.01) |",
        "| perplexity of running text |  |",
        "| replay, share of equal likeliest tokens |  |",
        "| mean | 0.70 |",
    ]
    assert ahead_of_each([level])[2:] == [
        "| `recent` | 0.00<br>`copy` −0.30 |",
        "| `value_norm` | 0.10<br>of 1 tasks |",
    ]
    assert worth_of_parts([level])[2:] == ["| `no_fit` | 0.25<br>`needle` +0.50 |"]


def test_rules_that_have_read_fewer_documents_are_not_compared() -> None:
    results = results_of(fitted={"copy": -5.0}, recent={"copy": -2.0}, value_norm={"copy": -6.0})
    del results.cells[CellKey("copy", 1, "recent", 256)]
    level = level_of(results, 4)
    assert against_the_best([level])[2] == "| `copy` | **0.60** (`value_norm` 0.50) |"
    assert ahead_of_each([level])[2:] == ["| `value_norm` | 0.10 |"]


def test_the_quality_table_is_that_of_the_results() -> None:
    """`python tools/quality_pages.py docs/quality-results/*.json > docs/quality-table.md` mends it."""
    page = quality_pages.page(sorted((ROOT / "docs" / "quality-results").glob("*.json")))
    assert page == PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("model", ["SmolLM2 135M", "Gemma 3 270M"])
def test_quality_md_has_the_tables_of_the_page(model: str) -> None:
    page = set(PAGE.read_text(encoding="utf-8").splitlines())
    text = (ROOT / "docs" / "quality.md").read_text(encoding="utf-8")
    start = text.index(f"\n{model}, R:\n")
    rows = [line for line in text[start:].split("\n\n")[1].splitlines() if line.startswith("| `")]
    assert len(rows) >= 10
    assert [row for row in rows if row not in page] == []
