"""The tables of docs/moving-from-llama-cpp-python.md against both packages.

tests/data/llama_cpp_python.json lists the other one's names (tools/peer_names.py).
"""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import inspect
import json
from typing import Any

import pytest

import pytriattn
from pytriattn import Llama, SamplingParams
from support import doc_pages
from support.paths import DATA

THEIRS = json.loads((DATA / "llama_cpp_python.json").read_text())
SECTIONS = doc_pages.sections(doc_pages.DOCS / "moving-from-llama-cpp-python.md")
CONSTANTS = {"llama_cpp.LLAMA_SPLIT_MODE_LAYER": 1}
NOTHING: tuple[Any, ...] = (None, [], False)
"""As the default of an optional argument these are one."""

Rows = dict[str, tuple[str, str]]


def table(section: str) -> Rows:
    found = doc_pages.rows(SECTIONS[section])
    names = [row[0] for row in found]
    assert len(set(names)) == len(names), "a name is there twice"
    assert {row[1] for row in found} <= {"same", "differs", "missing"}
    return {row[0]: (row[1], row[2]) for row in found}


def their_parameters(method: str) -> dict[str, Any]:
    """Return name -> default; what needs their package to be known is its own text."""
    found = {}
    for name, source in THEIRS["classes"]["Llama"]["methods"][method].items():
        if source is None:
            found[name] = inspect.Parameter.empty
            continue
        try:
            found[name] = ast.literal_eval(source)
        except ValueError:
            found[name] = CONSTANTS.get(source, source)
    return found


def our_parameters(method: str) -> dict[str, Any]:
    """Return name -> default; fields of `SamplingParams` included where they can be given."""
    parameters = inspect.signature(getattr(Llama, method)).parameters
    found = {name: parameter.default for name, parameter in parameters.items() if name not in ("self", "cls")}
    if found.pop("sampling", None) is not None:
        fields = {field.name: field.default for field in dataclasses.fields(SamplingParams)}
        found = {**fields, **found}
    return found


def is_same(first: Any, second: Any) -> bool:
    if any(first is nothing or first == nothing for nothing in NOTHING if nothing is not False) or first is False:
        return second is None or second is False or second == []
    return bool(first == second)


@pytest.mark.parametrize(
    ("section", "method"),
    [
        ("`Llama(...)`", "__init__"),
        ("`create_completion` and `__call__`", "create_completion"),
        ("`create_completion` and `__call__`", "__call__"),
        ("`create_chat_completion`", "create_chat_completion"),
    ],
)
def test_arguments(section: str, method: str) -> None:
    said, theirs, ours = table(section), their_parameters(method), our_parameters(method)
    assert sorted(said) == sorted(theirs), "the table has to name all of their arguments, and no others"
    for name, (verdict, note) in said.items():
        assert (name in ours) == (verdict != "missing"), f"{name} is said to be {verdict}"
        if verdict == "same":
            assert is_same(theirs[name], ours[name]), f"{name}: {theirs[name]} there, {ours[name]} here"
        elif verdict == "differs":
            assert note, f"{name}: how does it differ?"


def test_the_second_positional_argument() -> None:
    assert list(their_parameters("create_completion"))[:2] == ["prompt", "suffix"]
    assert list(our_parameters("create_completion"))[-1] != "suffix"
    positional = inspect.signature(Llama.create_completion).parameters.values()
    assert [p.name for p in positional if p.kind is p.POSITIONAL_OR_KEYWORD] == ["self", "prompt", "max_tokens"]


def test_methods_and_attributes(smollm2_core: Llama) -> None:
    said, theirs = table("Methods and attributes of `Llama`"), THEIRS["classes"]["Llama"]
    everything = {*theirs["methods"], *theirs["properties"], *theirs["attributes"]} - {"__init__"}
    assert sorted(said) == sorted(everything)
    for name, (verdict, note) in said.items():
        assert hasattr(smollm2_core, name) == (verdict != "missing"), f"{name} is said to be {verdict}"
        if verdict == "same" and name in theirs["methods"]:
            ours = our_parameters(name)
            for parameter, default in their_parameters(name).items():
                assert parameter in ours, f"{name} has no {parameter} here"
                assert is_same(default, ours[parameter]), f"{name}({parameter})"
        if verdict == "same":
            is_method = name in theirs["methods"]
            assert callable(getattr(smollm2_core, name)) == is_method, f"{name} is a method in one of the two only"
        elif verdict == "differs":
            assert note, name


def test_other_classes() -> None:
    said = table("Other classes")
    classes = {name for name in THEIRS["classes"] if name != "Llama"}
    methods = {f"LlamaGrammar.{name}" for name in THEIRS["classes"]["LlamaGrammar"]["methods"] if name != "__init__"}
    assert sorted(said) == sorted(classes | methods)
    for name, (verdict, _) in said.items():
        value: Any = pytriattn
        for part in name.split("."):
            value = getattr(value, part, None)
        assert (value is not None) == (verdict != "missing"), f"{name} is said to be {verdict}"


def test_other_modules() -> None:
    for name, (verdict, _) in table("Other modules").items():
        is_here = importlib.util.find_spec(name.replace("llama_cpp.", "pytriattn.", 1)) is not None
        assert verdict == ("differs" if is_here else "missing"), name


def test_what_is_new_is_here_and_not_there() -> None:
    arguments, methods = SECTIONS["New here"].split("| Method |")
    for text, theirs, ours in (
        (arguments, their_parameters("__init__"), set(our_parameters("__init__"))),
        (methods, THEIRS["classes"]["Llama"]["methods"], set(dir(Llama))),
    ):
        names = [
            name.strip("` ")
            for line in text.splitlines()
            if line.startswith("| `")
            for name in line.split("|")[1].split(",")
        ]
        assert names
        assert set(names) <= ours
        assert not set(names) & set(theirs)
    told = {
        name.strip("` ")
        for line in arguments.splitlines()
        if line.startswith("| `")
        for name in line.split("|")[1].split(",")
    }
    unsaid = set(our_parameters("__init__")) - set(their_parameters("__init__")) - told
    assert not unsaid, f"the page does not name {sorted(unsaid)}"
