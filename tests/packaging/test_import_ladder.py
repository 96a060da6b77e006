"""The package lies in levels: a module imports only from its own package or from levels below, and nothing goes round
in a circle.
"""

from __future__ import annotations

import ast
import functools
import pathlib
from collections.abc import Iterator

import pytriattn

ROOT = pathlib.Path(pytriattn.__file__).parent

# From the ground up. The packages of one level do not import each other.
LEVELS = (
    ("errors", "_util"),
    ("_native",),
    ("gguf",),
    ("options",),
    ("model_info",),
    ("stats",),
    ("reports", "conversion", "preflight", "eviction"),
    ("session",),
    ("generation", "plotting"),
    ("llama",),
    ("async_llama", "lab"),
    ("cli", "integrations", "server"),
    ("__init__",),
)
LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}
MOST_MODULES = 14


@functools.cache
def modules() -> list[pathlib.Path]:
    return sorted(ROOT.rglob("*.py"))


def module_name(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def package_of(name: str) -> str:
    return name.split(".", maxsplit=1)[0]


def imports_of(path: pathlib.Path) -> Iterator[str]:
    """Yield the modules of this package that a file imports, wherever the import stands."""
    known = {module_name(other) for other in modules()}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: imports are absolute here"
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name == "pytriattn" or name.startswith("pytriattn."):
                inner = name.removeprefix("pytriattn").lstrip(".")
                while inner and inner not in known:
                    inner = inner.rpartition(".")[0]
                yield inner or "__init__"


def test_every_package_has_a_level() -> None:
    assert {package_of(module_name(path)) for path in modules()} == set(LEVEL)


def test_no_import_goes_up() -> None:
    wrong = []
    for path in modules():
        name = module_name(path)
        for other in imports_of(path):
            own, theirs = package_of(name), package_of(other)
            if own != theirs and LEVEL[theirs] >= LEVEL[own] and not (theirs == "__init__" and name == "__init__"):
                wrong.append(f"{name} imports {other}")
    # the compiled module is imported from the package itself
    assert [found for found in wrong if found != "_native.loader imports __init__"] == []


def test_no_circles() -> None:
    graph = {module_name(path): set(imports_of(path)) - {module_name(path), "__init__"} for path in modules()}
    while leaves := [name for name, others in graph.items() if not others & graph.keys()]:
        for name in leaves:
            del graph[name]
    assert not graph, f"these modules import each other: {sorted(graph)}"


def test_a_folder_can_be_taken_in_at_a_glance() -> None:
    for folder in {path.parent for path in modules()}:
        n_modules = len([path for path in folder.glob("*.py") if path.name != "__init__.py"])
        assert n_modules <= MOST_MODULES, f"{folder.name} has {n_modules} modules"


def test_every_public_name_is_there() -> None:
    for name in pytriattn.__all__:
        assert getattr(pytriattn, name) is not None
