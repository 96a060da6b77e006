"""``pytriattn-preflight``: whether a model, its statistics and a budget fit together, before the model is loaded."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from pytriattn._util.text import printable
from pytriattn.cli.output import add_cache_options, cache_options, print_json, print_tables, read_model
from pytriattn.cli.program import EXIT_OK, run
from pytriattn.errors import StatsError
from pytriattn.gguf.identity import model_identity
from pytriattn.model_info.memory import full_cache, layer_memory
from pytriattn.options.drafting import LlamaModelDrafting
from pytriattn.options.eviction import DEFAULT_MODE, MODES
from pytriattn.preflight.findings import Finding, Status
from pytriattn.preflight.run import run_preflight
from pytriattn.preflight.settings import PreflightSettings, effective_options
from pytriattn.reports.inspection import memory_json, model_json
from pytriattn.reports.json_values import SCHEMA, options_json, to_json
from pytriattn.stats.model_stats import TriAttentionStats

__all__ = ["main"]

EXIT_UNFIT = 1
_COLOURS = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "bold red"}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pytriattn-preflight",
        description="Check that a GGUF model, its .triattention statistics and a budget fit together. Nothing is "
        "loaded.",
        epilog="Exit codes: 0 fit, 1 unfit, 2 error or wrong usage, 130 interrupted.",
    )
    parser.add_argument("model", metavar="MODEL", help="the GGUF model")
    parser.add_argument("stats", metavar="STATS", help="its .triattention file")
    add_cache_options(parser, needs_budget=True)
    parser.add_argument(
        "--mode", choices=MODES, default=DEFAULT_MODE, help="how keys are chosen (default: %(default)s)"
    )
    parser.add_argument(
        "--scale-budget",
        action="store_true",
        help="scale_budget_by_attention: keep more where few layers have full attention",
    )
    parser.add_argument(
        "--allow-untested", action="store_true", help="only warn of an architecture that has not been tested"
    )
    parser.add_argument("--draft-model", metavar="FILE", help="a small model that drafts (draft_model of Llama)")
    parser.add_argument("--mmproj", type=Path, metavar="FILE", help="an encoder of images (mmproj of Llama)")
    return parser


def _stats_of(path: str) -> TriAttentionStats | StatsError:
    try:
        return TriAttentionStats.load(path)
    except StatsError as error:
        return error


def _examine(arguments: argparse.Namespace) -> tuple[list[Finding], dict[str, Any]]:
    """Return the findings, and what else the JSON object has."""

    stats = _stats_of(arguments.stats)
    facts: dict[str, Any] = {"statistics": _stats_json(arguments.stats, stats)}
    info = read_model(arguments.model)
    file = Path(info.path).expanduser()
    # a model on a server has no identity: that needs more than its first bytes
    identity = model_identity(file) if file.is_file() else None
    settings = PreflightSettings(
        cache=cache_options(arguments, mode=arguments.mode, scale_budget_by_attention=arguments.scale_budget),
        allow_untested=arguments.allow_untested,
        memory=arguments.vram,
        drafting=None if arguments.draft_model is None else LlamaModelDrafting(arguments.draft_model),
        mmproj=None if arguments.mmproj is None else arguments.mmproj.expanduser(),
    )
    findings = run_preflight(info, settings, stats, identity)
    facts["model"] = model_json(info) | {"sha256": None if identity is None else identity.sha256}
    facts["settings"] = _settings_json(settings)
    facts["memory"] = None
    if not any(finding.name == "context" and finding.status is Status.FAIL for finding in findings):
        with_budget = effective_options(info, settings.cache)
        full = full_cache(info, with_budget)
        facts["memory"] = {
            "weights_bytes": info.file_bytes,
            "full_cache": None if full is None else memory_json(full),
            "budget": memory_json(layer_memory(info, with_budget)),
        }
    return findings, facts


def _settings_json(settings: PreflightSettings) -> dict[str, Any]:
    eviction = settings.cache.eviction
    names = ("mode", "window", "n_sink", "scale_budget_by_attention")
    return {
        "cache": options_json(settings.cache),
        **{name: getattr(eviction, name) for name in names},
        "allow_untested": settings.allow_untested,
        "memory": settings.memory,
        "draft_model": None if settings.drafting is None else os.fspath(settings.drafting.model_path),
        "mmproj": None if settings.mmproj is None else str(settings.mmproj),
    }


def _stats_json(path: str, stats: TriAttentionStats | StatsError) -> dict[str, Any]:
    if isinstance(stats, StatsError):
        return {"path": path, "readable": False, "model": None, "n_tokens": None, "layers": None}
    return {
        "path": path,
        "readable": True,
        "model": to_json(stats.model),
        "n_tokens": stats.n_tokens,
        "layers": [layer.layer for layer in stats.layers],
    }


def _table(findings: Sequence[Finding], fits: bool) -> Group:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column()
    table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(
            Text(finding.status.value, style=_COLOURS[finding.status]), finding.name, printable(finding.message)
        )
    verdict = Text("They fit." if fits else "They do not fit.", style=_COLOURS[Status.OK if fits else Status.FAIL])
    return Group(table, "", verdict)


def _run(arguments: argparse.Namespace) -> int:
    findings, facts = _examine(arguments)
    fits = not any(finding.status is Status.FAIL for finding in findings)
    if arguments.json:
        listed = [{"name": f.name, "status": f.status.value, "message": f.message} for f in findings]
        print_json({"schema": SCHEMA, "tool": "pytriattn-preflight", "fit": fits, "findings": listed} | facts)
    else:
        print_tables(_table(findings, fits))
    return EXIT_OK if fits else EXIT_UNFIT


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with these arguments (default: the process's own) and return its exit code."""
    arguments = _parser().parse_args(argv)
    return run("pytriattn-preflight", lambda: _run(arguments))


if __name__ == "__main__":
    sys.exit(main())
