#!/usr/bin/env python3
"""List the public names of llama-cpp-python's high-level classes, from its source archive; nothing of it is run.

docs/moving-from-llama-cpp-python.md names them one by one, and tests/docs/test_docs_moving.py holds that page to this
list.

    pip download --no-binary :all: --no-deps llama-cpp-python==0.3.36
    python tools/peer_names.py llama_cpp_python-0.3.36.tar.gz > tests/data/llama_cpp_python.json
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
import tarfile

FILES = ("llama.py", "llama_grammar.py", "llama_cache.py", "llama_speculative.py", "llama_tokenizer.py")
KEPT = ("__init__", "__call__")


def parameters(function: ast.FunctionDef) -> dict[str, str | None]:
    """Return name -> default as source text (None: it has to be given) of all parameters but self; * and ** are left
    out.
    """
    arguments = function.args
    positional = arguments.posonlyargs + arguments.args
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(positional, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return {
        argument.arg: None if default is None else ast.unparse(default)
        for argument, default in pairs
        if argument.arg not in ("self", "cls")
    }


def is_public(name: str) -> bool:
    """Tell whether a name is meant for users."""
    return name in KEPT or not name.startswith("_")


def attributes(init: ast.FunctionDef) -> list[str]:
    """Return what a constructor sets on the object."""
    found = {
        node.attr
        for node in ast.walk(init)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }
    return sorted(filter(is_public, found))


def classes(source: str) -> dict[str, object]:
    """Return the public classes of a module: methods with parameters, properties, attributes."""
    result: dict[str, object] = {}
    for node in ast.parse(source).body:
        if not isinstance(node, ast.ClassDef) or not is_public(node.name):
            continue
        functions = [item for item in node.body if isinstance(item, ast.FunctionDef) and is_public(item.name)]
        decorated = {item.name: [ast.unparse(decorator) for decorator in item.decorator_list] for item in functions}
        init = [item for item in functions if item.name == "__init__"]
        result[node.name] = {
            "methods": {item.name: parameters(item) for item in functions if "property" not in decorated[item.name]},
            "properties": [name for name, names in decorated.items() if "property" in names],
            "attributes": attributes(init[0]) if init else [],
        }
    return result


def main() -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", help="llama_cpp_python-VERSION.tar.gz")
    path = parser.parse_args().archive
    found: dict[str, object] = {}
    with tarfile.open(path) as archive:
        root = archive.getnames()[0].split("/")[0]
        for name in FILES:
            stream = archive.extractfile(f"{root}/llama_cpp/{name}")
            if stream is None:
                raise SystemExit(f"peer_names.py: '{path}' has no llama_cpp/{name}")
            found |= classes(stream.read().decode())
    json.dump({"version": root.rsplit("-", 1)[1], "classes": found}, sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
