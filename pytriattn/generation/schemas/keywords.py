"""The keywords of JSON Schema that say something about a value, by the type of value that they say it about."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pytriattn.errors import GrammarError

__all__ = [
    "ASSERTIONS",
    "BY_TYPE",
    "Document",
    "Impossible",
    "NotHeld",
    "assertions_of",
    "check_name",
    "is_same",
    "refuse",
    "type_of",
    "types_of",
]

_NUMBERS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
BY_TYPE = {
    "object": frozenset(
        {
            "properties",
            "required",
            "additionalProperties",
            "patternProperties",
            "propertyNames",
            "minProperties",
            "maxProperties",
            "dependentRequired",
            "dependentSchemas",
            "dependencies",
            "unevaluatedProperties",
        }
    ),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains", "unevaluatedItems"}),
    "string": frozenset({"pattern", "minLength", "maxLength", "format"}),
    "number": _NUMBERS | {"format"},
    "integer": _NUMBERS | {"format"},
    "boolean": frozenset[str](),
    "null": frozenset[str](),
}
"""Type -> keywords that say something about values of this type and no other."""
_OF_ALL = frozenset(
    {"type", "enum", "const", "$ref", "allOf", "anyOf", "oneOf", "not", "if", "$dynamicRef", "$recursiveRef"}
)
ASSERTIONS = _OF_ALL.union(*BY_TYPE.values())
"""All keywords that say something about a value; every other one describes."""
_MAX_STEPS = 50_000
_LARGEST_NAME = 500  # characters; llama.cpp calls itself for each


class Impossible(GrammarError):
    """No value fulfils a schema."""


class NotHeld(Exception):
    """A part of a schema has no equivalent in a grammar: what part, and why not."""

    def __init__(self, what: str, why: str = "") -> None:
        """Name the part as a noun with its article, and the reason if there is one to name."""
        super().__init__(what)
        self.what, self.why = what, why


def refuse(path: str, what: str) -> GrammarError:
    """Return the error of a schema that is wrong at a place."""
    return GrammarError(f"this JSON schema cannot be turned into a grammar: {path} {what}")


def assertions_of(schema: Mapping[str, Any]) -> frozenset[str]:
    """Return which of a schema's keywords say something about a value."""
    return ASSERTIONS.intersection(schema)


def is_same(a: Any, b: Any) -> bool:
    """Return whether two values are the same JSON; 1 and True are not."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def type_of(value: Any) -> str:
    """Return the type of a JSON value; a number that is whole is an integer."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "integer" if float(value).is_integer() else "number"
    names = {str: "string", list: "array", tuple: "array", dict: "object", type(None): "null"}
    return names.get(type(value), "object")


def types_of(schema: Mapping[str, Any], path: str) -> list[str]:
    """Return the types that a schema names, none if it names none.

    Raises:
        GrammarError: one is no type.
    """
    given = schema.get("type", [])
    types = [given] if isinstance(given, str) else given
    for name in types if isinstance(types, (list, tuple)) else [types]:
        if not isinstance(name, str) or name not in BY_TYPE:
            raise refuse(path, f"has the type {name!r}; the types are {', '.join(BY_TYPE)}")
    return list(dict.fromkeys(types))


class Document:
    """A whole schema, in which references are followed, and a count of the steps taken with it."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        """Take the schema."""
        self._root = root
        self._n_steps = 0

    def step(self, path: str) -> None:
        """Count a step: parts that refer to each other can make very many.

        Raises:
            GrammarError: there are too many.
        """
        self._n_steps += 1
        if self._n_steps > _MAX_STEPS:
            raise refuse(path[:200], f"is too much: the schema takes more than {_MAX_STEPS:,} steps")

    def resolve(self, reference: Any, path: str) -> Any:
        """Return the part of the schema that a reference names.

        Raises:
            GrammarError: it is no reference into the same schema, or there is nothing.
        """
        self.step(path)
        if reference == "#":
            return self._root
        if not isinstance(reference, str) or not reference.startswith("#/"):
            raise refuse(path, f"has the $ref {reference!r}; only references of the form '#/...' can be followed")
        if len(reference) > _LARGEST_NAME:
            raise refuse(path, f"has a $ref of {len(reference):,} characters, more than {_LARGEST_NAME}")
        found: Any = self._root
        for name in reference.split("/")[1:]:
            if isinstance(found, Mapping) and name in found:
                found = found[name]
            elif isinstance(found, list) and name.isdigit() and int(name) < len(found):
                found = found[int(name)]
            else:
                raise refuse(path, f"has the $ref {reference!r}, but there is no {name!r}")
        return found


def check_name(name: str, path: str) -> None:
    """Check that a property's name is one that the converter can be given.

    Raises:
        GrammarError: it is too long.
    """
    if len(name) > _LARGEST_NAME:
        raise refuse(path, f"has a property whose name has {len(name):,} characters, more than {_LARGEST_NAME}")
