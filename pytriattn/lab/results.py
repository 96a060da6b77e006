"""The file that a quality run keeps its results in: each cell is stored as soon as it has been computed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pytriattn._util.atomic_file import write_atomically
from pytriattn.lab.errors import LabError
from pytriattn.lab.reading import Answered

__all__ = ["FLOOR", "NOTHING", "Cell", "CellKey", "EvalResults"]

FORMAT = "pytriattn-eval"
VERSION = 1
FLOOR = "floor"
"""In place of a rule: the full cache has read the text with other information."""
NOTHING = "nothing"
"""In place of a rule: the full cache has read the text with nothing in place of the information."""


@dataclass(frozen=True, order=True)
class CellKey:
    """Which cell.

    Attributes:
        family: the kind of the document.
        document: the number of the document.
        rule: the name of a rule, or `FLOOR` or `NOTHING`.
        budget: keys kept; 0: all.
    """

    family: str
    document: int
    rule: str
    budget: int

    def __str__(self) -> str:
        """Return the name in the file."""
        return f"{self.family}/{self.document}/{self.rule}/{self.budget}"

    @staticmethod
    def parse(text: str) -> CellKey:
        """Return the key that a name in the file stands for."""
        family, document, rule, budget = text.rsplit("/", 3)
        return CellKey(family, int(document), rule, int(budget))


@dataclass(frozen=True)
class Cell:
    """What came of one document under one rule and budget.

    Attributes:
        answers: the answers to the document's questions.
        n_evictions: evictions that took place.
        length: tokens that a ratio divides to get the budget.
        seconds: the time that reading and asking took.
    """

    answers: list[Answered]
    n_evictions: int
    length: int
    seconds: float


@dataclass
class EvalResults:
    """All cells of a run.

    Attributes:
        made_with: versions, model, hashes, seeds and settings; all cells have the same.
        cells: the cells that have been computed.
        generated: token ids that the full cache has generated, by family and number of the document.
        path: the results file; None: results are kept in memory alone.
    """

    made_with: dict[str, Any]
    cells: dict[CellKey, Cell] = field(default_factory=dict)
    generated: dict[str, list[int]] = field(default_factory=dict)
    path: Path | None = None

    @staticmethod
    def open(path: str | Path | None, made_with: dict[str, Any]) -> EvalResults:
        """Return the results in a file, to be added to; a new one if there is no file.

        Raises:
            LabError: it is no results file, damaged, or of another model, version or setting.
        """
        if path is None or not Path(path).expanduser().exists():
            return EvalResults(made_with, path=None if path is None else Path(path).expanduser())
        found = EvalResults.load(path)
        names = sorted(set(made_with) | set(found.made_with))
        different = [name for name in names if made_with.get(name) != found.made_with.get(name)]
        if different:
            what = "; ".join(f"{n} was {found.made_with.get(n)!r} and is {made_with.get(n)!r}" for n in different)
            raise LabError(
                f"the results '{path}' do not go with this run: {what}; write to another file with -o, or remove it"
            )
        return found

    @staticmethod
    def load(path: str | Path) -> EvalResults:
        """Read a results file.

        Raises:
            LabError: it is missing, damaged, no results file, or of another version.
        """
        file = Path(path).expanduser()
        remedy = "write to another file with -o, or remove it"
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise LabError(f"the results '{path}' cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise LabError(f"'{path}' is damaged or no results file of pytriattn-eval; {remedy}") from error
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise LabError(f"'{path}' is no results file of pytriattn-eval; {remedy}")
        if data.get("version") != VERSION:
            raise LabError(
                f"the results '{path}' have the version {data.get('version')}, this program reads {VERSION}; {remedy}"
            )
        try:
            cells = {
                CellKey.parse(name): Cell(**{**cell, "answers": [Answered(**answer) for answer in cell["answers"]]})
                for name, cell in data["cells"].items()
            }
            return EvalResults(data["made_with"], cells, data["generated"], file)
        except (KeyError, TypeError, ValueError) as error:
            raise LabError(f"the results '{path}' are damaged ({error}); {remedy}") from error

    def add(self, key: CellKey, cell: Cell) -> None:
        """Add a cell and store it.

        Raises:
            OSError: the file cannot be written.
        """
        self.cells[key] = cell
        self.save()

    def save(self) -> None:
        """Write the file, whole or not at all; without a path nothing happens.

        Raises:
            OSError: it cannot be written.
        """
        if self.path is not None:
            write_atomically(self.path, _lines(self.to_json()).encode())

    def to_json(self) -> dict[str, Any]:
        """Return what the file holds."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "made_with": self.made_with,
            "generated": self.generated,
            "cells": {str(key): _cell_json(self.cells[key]) for key in sorted(self.cells)},
        }


def _cell_json(cell: Cell) -> dict[str, Any]:
    """Return a cell without what its answers do not have."""
    data = asdict(cell)
    data["answers"] = [
        {name: _short(value) for name, value in answer.items() if value is not None or name == "age"}
        for answer in data["answers"]
    ]
    return data


def _short(value: Any) -> Any:
    return round(value, 5) if isinstance(value, float) else value


def _lines(data: dict[str, Any]) -> str:
    """Return JSON with a line for each cell, so that files can be compared and kept."""
    head = {name: value for name, value in data.items() if name != "cells"}
    cells = ",\n".join(f"{json.dumps(name)}: {_compact(cell)}" for name, cell in data["cells"].items())
    return f'{_compact(head)[:-1]},\n"cells": {{\n{cells}\n}}}}\n'


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
