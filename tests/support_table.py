#!/usr/bin/env python3
"""Put every model through the checks of eviction and write down which have passed.

    python tests/support_table.py            # writes docs/supported-models.md and pytriattn/data/architectures.json

The checks are those of ``tests/support/architecture_checks.py``, which ``make test`` runs as well.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.registry import ARCHITECTURES, make_tiny_model
from pytriattn import TriAttnError, llama_cpp_commit
from pytriattn._native import core
from support import architecture_checks as checks
from support.architecture_checks import REAL, REFUSED, Case, Loaded
from support.paths import ROOT

PAGE = ROOT / "docs" / "supported-models.md"
DATA = ROOT / "pytriattn" / "data" / "architectures.json"
PAIRINGS = {0: "NORM", 2: "NEOX", 8: "M-RoPE", 40: "IM-RoPE"}
LARGEST_ERROR, LEAST_CORRELATION, LARGEST_DIFFERENCE = 1e-3, 0.9999, 2e-3


@dataclass(frozen=True)
class Row:
    """What one model has shown."""

    architecture: str
    case: str
    rope: str = ""
    layers: str = ""
    types: str = ""
    verdict: str = "not run"
    passed: bool = False
    error: float = 0.0
    correlation: float = 1.0


def cases() -> list[Case]:
    """List every model, real ones first; LongRoPE models within and beyond their original context."""
    return [*map(Case, REAL), *map(Case, ARCHITECTURES), *(Case(arch, n_ctx=512) for arch in checks.LONG_ROPE)]


def dims_of(node: Any) -> str:
    """Say which of a head's dimensions are rotated."""
    if node.n_rot == node.head_dim:
        return "whole head"
    side = "last" if node.rot_begin else "first"
    return f"{side} {node.n_rot} of {node.head_dim}"


def rope_of(nodes: list[Any], has_long_rope: bool, without_rope: str) -> str:
    """Say what RoPE does in layers with full attention."""
    full = [node for node in nodes if not node.sliding]
    rotated = [node for node in full if node.operator is not None]
    if not rotated:
        return f"none: {without_rope}" if without_rope else "none"
    node, op = rotated[0], rotated[0].operator
    parts = [f"{PAIRINGS[op['mode']]}, {dims_of(node)}"]
    factors = op["freq_factors"]
    if has_long_rope:
        parts.append("LongRoPE factors")
    elif factors.size:
        parts.append("proportional (factors of 1e30)" if factors.max() > 1e20 else "frequency factors")
    if op["ext_factor"] != 0:
        parts.append(f"YaRN × {1 / op['freq_scale']:g}")
    elif op["freq_scale"] != 1:
        parts.append(f"linear × {1 / op['freq_scale']:g}")
    if node.scale != 1:
        parts.append(f"scale {node.scale:.3f}")
    sliding = [other.operator for other in nodes if other.sliding and other.operator is not None]
    if sliding and sliding[0]["freq_base"] != op["freq_base"]:
        parts.append("another base in sliding layers")
    if len(rotated) < len(full):
        without = sorted(node.layer for node in full if node.operator is None)
        parts.append("none in layer " + ", ".join(map(str, without)))
    return "; ".join(parts)


def layers_of(loaded: Loaded, nodes: list[Any]) -> str:
    """Say how many layers are evicted from, and what the others are."""
    full = sum(node.owner == node.layer and not node.sliding for node in nodes)
    sliding = sum(node.owner == node.layer and node.sliding for node in nodes)
    shared = sum(node.owner != node.layer for node in nodes)
    others = loaded.model.n_layer - len(nodes)
    parts = [
        f"{n} {kind}"
        for n, kind in (
            (sliding, "sliding"),
            (shared, "sharing another's"),
            (others, "without KV cache"),
            (loaded.model.n_layer_nextn, "MTP, ignored"),
        )
        if n > 0
    ]
    return f"{full} of {loaded.model.n_layer + loaded.model.n_layer_nextn}" + (
        f" ({', '.join(parts)})" if parts else ""
    )


def failures(loaded: Loaded, cache_type: str, errors: list[checks.ScoreError]) -> list[str]:
    """Run all checks with one type of cache; return what went wrong, and add to `errors`."""
    found = []
    if not loaded.case.is_biased_by_distance:
        error = checks.score_error(loaded, cache_type)
        errors.append(error)
        if error.largest > LARGEST_ERROR or error.correlation < LEAST_CORRELATION:
            found.append(f"scores off by {error.largest:.1e}")
    found += [f"{mode} misplaces rows" for mode, n in checks.misplaced_after_evictions(loaded, cache_type).items() if n]
    if checks.removal_differs_by(loaded, cache_type) != 0:
        found.append("freeing cells is not llama.cpp's removal")
    memory = checks.memory(loaded, cache_type)
    expected = (memory.expected_cells, memory.expected_full_bytes, memory.expected_sliding_bytes)
    if (memory.cells, memory.full_bytes, memory.sliding_bytes) != expected:
        found.append("cells or bytes are not what the budget says")
    if cache_type == "f16" and loaded.case.arch not in REAL:
        same, difference = checks.sequences_differ_by(loaded)
        if not same or difference >= LARGEST_DIFFERENCE:
            found.append("sequences depend on each other")
    return [f"{cache_type}: {what}" for what in found]


def describe(loaded: Loaded) -> Row:
    """Say what is found in a model, before any check."""
    nodes = loaded.context("recent").attention()
    bias = (
        "ALiBi"
        if loaded.case.is_biased_by_distance
        else "learned positions"
        if loaded.model.has_learned_positions
        else ""
    )
    return Row(
        loaded.model.metadata["general.architecture"],
        str(loaded.case),
        rope_of(nodes, loaded.model.has_long_rope, bias),
        layers_of(loaded, nodes),
        ", ".join(loaded.case.types),
    )


def examine(case: Case, folder: Path) -> Row:
    """Put one model through the checks."""
    if case.arch in REFUSED:
        model = core.Model(str(make_tiny_model(case.arch, folder)))
        architecture = model.metadata["general.architecture"]
        try:
            core.calibrate(model, checks.TOKENS[:64], n_ctx=64, n_ubatch=64, n_threads=1)
        except TriAttnError as refusal:
            reason = str(refusal).removesuffix("; load it with budget=None").removeprefix("this model's ")
            return Row(architecture, str(case), verdict=f"refused: {reason}")
        return Row(architecture, str(case), verdict="**should be refused, is not**")
    loaded = checks.load(case, folder)
    errors: list[checks.ScoreError] = []
    wrong = [what for cache_type in case.types for what in failures(loaded, cache_type, errors)]
    possible = list(checks.possible_modes(loaded))
    others = [mode for mode in checks.MODES if mode not in possible]
    verdict = "passes" + (f"; not in modes {', '.join(others)}" if others else "")
    return replace(
        describe(loaded),
        verdict="**fails**: " + "; ".join(wrong) if wrong else verdict,
        passed=not wrong,
        error=max((error.largest for error in errors), default=0.0),
        correlation=min((error.correlation for error in errors), default=1.0),
    )


def line_of(row: Row) -> str:
    """Return a row as Markdown."""
    return f"| {row.architecture} | {row.case} | {row.rope} | {row.layers} | {row.types} | {row.verdict} |"


def page_of(rows: list[Row]) -> str:
    """Return the page as Markdown."""
    passed = [row for row in rows if row.passed]
    worst, correlation = max(row.error for row in passed), min(row.correlation for row in passed)
    lines = [
        "# Supported models",
        "",
        "Written by `python tests/support_table.py`; do not edit. llama.cpp " + llama_cpp_commit[:9] + ".",
        "",
        "Every line is a model that llama.cpp itself loads and decodes: two real models (SmolLM2 135M, Gemma 3",
        "270M), the others tiny, with random weights, made by `tests/models/`. Each passes these checks with f16,",
        "q8_0 and q4_0 caches, and with kv3 where heads are multiples of 64:",
        "",
        f"- S_trig of every key in the cache equals the mean logit of future queries to {LARGEST_ERROR:g} of the",
        f"  largest; correlation at least {LEAST_CORRELATION}. The model's own RoPE operator makes these queries of",
        f"  the centre. Worst in this table: {worst:.0e}, and 1 − {1 - correlation:.0e}.",
        "- After a forced eviction in every mode but `fitted`, the rows of K and V in each head's occupied cells",
        "  are, byte for byte, those of the positions that the head says it keeps.",
        "- In mode `global` the next logits equal, bit for bit, those after llama.cpp's own removal of the same",
        "  positions.",
        "- Two sequences decoded together keep the keys that each keeps alone, and predict the same.",
        "- Cells and bytes are those that the budget allows.",
        "- Mode `fitted`, with f16, evicts and goes on with finite logits. It is refused for the models that are",
        "  refused in `per_layer_head`.",
        "",
        '"Layers evicted" and dimensions are those of the tiny models. An architecture that is not listed is refused',
        "with a budget, unless `allow_untested=True`. Without a budget pytriattn runs whatever llama.cpp runs.",
        "",
        "| Architecture | Model | RoPE of evicted layers | Layers evicted | K/V types | Verdict |",
        "|---|---|---|---|---|---|",
    ]
    lines += [line_of(row) for row in sorted(rows, key=lambda row: (row.architecture, row.case))]
    return "\n".join(lines) + "\n"


def passed_architectures(rows: list[Row]) -> list[str]:
    """Return the architectures of which a model passes and none fails."""
    failed = {row.architecture for row in rows if "**" in row.verdict}
    return sorted({row.architecture for row in rows if row.passed} - failed)


def main() -> int:
    """Write both files; return 1 if a model fails."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for case in cases():
            rows.append(examine(case, Path(folder)))
            print(f"{rows[-1].case:22} {rows[-1].verdict}", flush=True)
        checks.load.cache_clear()
    PAGE.write_text(page_of(rows), encoding="utf-8")
    DATA.write_text(json.dumps({"passed": passed_architectures(rows)}, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)} and {DATA.relative_to(ROOT)}")
    return int(any("**" in row.verdict for row in rows))


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    sys.exit(main())
