"""``pytriattn-doctor``: which versions, backends and devices are found, and what to do if something is wrong."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pytriattn._util.text import format_bytes, printable
from pytriattn.cli.output import print_json, print_tables
from pytriattn.cli.program import EXIT_OK, run
from pytriattn.reports.diagnosis import BackendFacts, Diagnosis, diagnose
from pytriattn.reports.json_values import SCHEMA, to_json

__all__ = ["main"]

EXIT_UNWELL = 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pytriattn-doctor",
        description="Show what pytriattn finds: versions, backends, devices, memory, and what to do if something is "
        "wrong.",
        epilog="Exit codes: 0 healthy, 1 something is wrong, 2 error or wrong usage, 130 interrupted.",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object (docs/tools.md) and no tables")
    return parser


def _pairs(rows: Sequence[tuple[str, str]]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, printable(value))
    return table


def _state(backend: BackendFacts) -> Text:
    if not backend.loaded:
        return Text("not loaded" if backend.descriptor_ok else "does not fit, not loaded", style="bold red")
    count = f"{backend.devices} device{'' if backend.devices == 1 else 's'}"
    return Text(f"loaded, {count}", style="green" if backend.devices or backend.name == "rpc" else "yellow")


def _backends(backends: Sequence[BackendFacts]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("backend", "from", "state"):
        table.add_column(heading)
    table.add_column("library", overflow="fold")
    for backend in backends:
        source = printable(f"{backend.distribution} {backend.version}")
        table.add_row(backend.name, source, _state(backend), printable(backend.library or ""))
    return table


def _devices(diagnosis: Diagnosis) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("device", "type", "description", "memory free", "of"):
        table.add_column(heading)
    for device in diagnosis.devices:
        free = "" if device.free is None or not device.total else format_bytes(device.free)
        total = format_bytes(device.total) if device.total else ""
        table.add_row(device.name, device.type, printable(device.description), free, total)
    return table


def _parts(diagnosis: Diagnosis) -> Iterator[RenderableType]:
    features = [
        name
        for backend in diagnosis.backends
        if backend.name == "cpu"
        for name, value in backend.features.items()
        if value != "0"
    ]
    rows = [
        ("pytriattn", diagnosis.version),
        ("llama.cpp", diagnosis.llama_cpp),
        ("build", diagnosis.build[:16]),
        ("installed in", diagnosis.location),
        ("Python", diagnosis.python),
        ("system", f"{diagnosis.system}, {diagnosis.processor}"),
        ("CPU code", ", ".join(features) or "no special instructions"),
        ("NVIDIA's driver", diagnosis.nvidia_driver or "none"),
        ("packages", ", ".join(f"{name} {version}" for name, version in diagnosis.packages.items())),
    ]
    if diagnosis.backends_wanted is not None:
        rows.append(("PYTRIATTN_BACKENDS", diagnosis.backends_wanted))
    yield from (_pairs(rows), "", _backends(diagnosis.backends), "", _devices(diagnosis), "")
    for problem in diagnosis.problems:
        yield Text(f"wrong: {printable(problem)}", style="bold red")
    for advice in diagnosis.advice:
        yield Text(f"note: {printable(advice)}", style="yellow")
    yield Text(
        "Something is wrong." if diagnosis.problems else "Healthy.", style="bold red" if diagnosis.problems else "green"
    )


def _run(arguments: argparse.Namespace) -> int:
    diagnosis = diagnose()
    healthy = not diagnosis.problems
    if arguments.json:
        print_json({"schema": SCHEMA, "tool": "pytriattn-doctor", "healthy": healthy} | to_json(diagnosis))
    else:
        print_tables(Group(*_parts(diagnosis)))
    return EXIT_OK if healthy else EXIT_UNWELL


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with these arguments (default: the process's own) and return its exit code."""
    arguments = _parser().parse_args(argv)
    return run("pytriattn-doctor", lambda: _run(arguments))


if __name__ == "__main__":
    sys.exit(main())
