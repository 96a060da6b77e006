"""JSON schemas that have to hold together, as one; and whether two of them can hold at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytriattn.generation.schemas.keywords import (
    BY_TYPE,
    Document,
    Impossible,
    NotHeld,
    assertions_of,
    is_same,
    refuse,
    type_of,
    types_of,
)

__all__ = ["are_disjoint", "flatten"]

Schema = Mapping[str, Any]
_LARGER = ("minLength", "minItems", "minProperties", "minimum")
_SMALLER = ("maxLength", "maxItems", "maxProperties", "maximum")
_CHOICES = ("anyOf", "oneOf")
_MAX_DEPTH = 30


def flatten(document: Document, schema: Schema, path: str, depth: int = 0) -> dict[str, Any]:
    """Return an equal schema without `allOf`, and with nothing that says something beside a reference or a choice.

    Raises:
        NotHeld: the parts cannot be brought together.
        GrammarError: no value fulfils them all, or a reference leads nowhere.
    """
    document.step(path)
    if depth > _MAX_DEPTH:
        raise NotHeld("an allOf that leads back to itself")
    kept = {key: value for key, value in schema.items() if key != "allOf"}
    parts = [kept, *_all_of(schema, path)]
    if len(parts) == 1 and _is_flat(kept):
        return kept
    saying = [part for part in parts if assertions_of(part)]
    described = {key: value for key, value in kept.items() if key not in assertions_of(kept)}
    if len(saying) > 1 or (saying and not _is_flat(saying[0])):
        merged = _merge(document, saying, path, depth)
    else:
        merged = flatten(document, saying[0], path, depth + 1) if saying else {}
    return {**merged, **described}


def _is_flat(schema: Schema) -> bool:
    return "allOf" not in schema and (len(assertions_of(schema)) <= 1 or not {"$ref", *_CHOICES}.intersection(schema))


def _all_of(schema: Schema, path: str) -> list[Schema]:
    parts = schema.get("allOf", [])
    if not isinstance(parts, list) or not all(isinstance(part, (Mapping, bool)) for part in parts):
        raise refuse(path, "has an allOf that is no list of schemas")
    if False in parts:
        raise Impossible(f"this JSON schema admits no value: {path} has false in its allOf")
    return [part for part in parts if part is not True]


def _merge(document: Document, given: Sequence[Schema], path: str, depth: int) -> dict[str, Any]:
    parts = _split(document, given, path, depth)
    for part in parts:
        choice = next((key for key in _CHOICES if key in part), None)
        if choice is not None:
            if not isinstance(part[choice], list):
                raise refuse(path, f"has {choice} that is no list of schemas")
            rest = [{key: value for key, value in part.items() if key != choice}, *(p for p in parts if p is not part)]
            together = [p for p in rest if assertions_of(p)]
            return {choice: [{"allOf": [alternative, *together]} for alternative in part[choice]]}
    merged: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            merged[key] = _both(key, merged[key], value, path) if key in merged else value
    for part in parts:
        # what one part says of all its other properties is said of those of another part
        if part.get("additionalProperties", True) is not True and not _names(merged) <= _names(part):
            raise NotHeld("an allOf of which a part has additionalProperties")
    return merged


def _names(schema: Schema) -> set[str]:
    properties = schema.get("properties", {})
    return set(properties) if isinstance(properties, Mapping) else set()


def _split(document: Document, parts: Sequence[Schema], path: str, depth: int) -> list[dict[str, Any]]:
    """Return the parts with their references followed, and without `allOf`."""
    result: list[dict[str, Any]] = []
    for part in parts:
        document.step(path)
        rest = {key: value for key, value in part.items() if key not in ("$ref", "allOf")}
        if assertions_of(rest):
            result.append(rest)
        inner = list(_all_of(part, path))
        if "$ref" in part:
            target = document.resolve(part["$ref"], path)
            if not isinstance(target, Mapping):
                raise refuse(path, f"refers to {part['$ref']}, which is no schema")
            inner.append(target)
        if inner and depth > _MAX_DEPTH:
            raise NotHeld("an allOf that leads back to itself")
        result += _split(document, inner, path, depth + 1) if inner else []
    if len(result) > 100:
        raise NotHeld("an allOf of more than 100 parts")
    return result


def _both(key: str, a: Any, b: Any, path: str) -> Any:
    """Return the value of a keyword that says what both do."""
    if is_same(a, b):
        return a
    if key == "type":
        mine, others = types_of({"type": a}, path), types_of({"type": b}, path)
        both = [t for t in mine if t in others or (t == "integer" and "number" in others)]
        both += [t for t in others if t == "integer" and "number" in mine and t not in both]
        if not both:
            raise Impossible(f"this JSON schema admits no value: {path} must be of the type {a!r} and of {b!r}")
        return both[0] if len(both) == 1 else both
    numbers = isinstance(a, (int, float)) and isinstance(b, (int, float))
    if key in _LARGER and numbers:
        return max(a, b)
    if key in _SMALLER and numbers:
        return min(a, b)
    if key == "required" and isinstance(a, list) and isinstance(b, list):
        return [*a, *(name for name in b if name not in a)]
    if key == "additionalProperties" and True in (a, b):
        return b if a is True else a
    if key == "properties" and isinstance(a, Mapping) and isinstance(b, Mapping):
        return {name: _and(a[name], b[name]) if name in a and name in b else {**a, **b}[name] for name in {**a, **b}}
    if key == "items" and isinstance(a, Mapping) and isinstance(b, Mapping):
        return _and(a, b)
    if key == "enum" and isinstance(a, list) and isinstance(b, list):
        return [value for value in a if any(is_same(value, other) for other in b)]
    if key == "uniqueItems":
        return a or b
    if key not in BY_TYPE["object"] | BY_TYPE["array"] | BY_TYPE["string"] | BY_TYPE["number"] | {"const", "not", "if"}:
        return a  # a description
    raise NotHeld(f"an allOf with two different values of '{key}'")


def _and(a: Any, b: Any) -> Any:
    return a if is_same(a, b) else {"allOf": [a, b]}


def are_disjoint(document: Document, a: Any, b: Any, depth: int = 8) -> bool:
    """Return whether it is certain that no value that the grammar of one schema admits fulfils the other schema."""
    document.step("#")
    a, b = (_followed(document, schema) for schema in (a, b))
    if depth == 0 or a is None or b is None:
        return False
    for one, other in ((a, b), (b, a)):
        for key in _CHOICES:
            if key in one:
                return all(are_disjoint(document, alternative, other, depth - 1) for alternative in one[key])
    values = [schema.get("enum", [schema["const"]] if "const" in schema else None) for schema in (a, b)]
    if values[0] is not None and values[1] is not None:
        return not any(is_same(x, y) for x in values[0] for y in values[1])
    mine, others = (_known_types(schema, given) for schema, given in zip((a, b), values, strict=True))
    if mine and others and not mine & others:
        return True
    if mine == others == {"object"} and None is values[0] is values[1]:
        return _are_objects_disjoint(document, a, b, depth)
    return False


def _followed(document: Document, schema: Any) -> Schema | None:
    """Return the schema that a reference leads to; None if it leads nowhere, or to one that is not well formed."""
    for _ in range(10):
        if not isinstance(schema, Mapping):
            return None
        if "$ref" not in schema:
            lists = [schema.get(key, []) for key in ("enum", "required", *_CHOICES)]
            is_formed = all(isinstance(value, list) for value in lists) and isinstance(
                schema.get("properties", {}), Mapping
            )
            return schema if is_formed and all(isinstance(name, str) for name in lists[1]) else None
        schema = document.resolve(schema["$ref"], "#")
    return None


def _known_types(schema: Schema, values: Sequence[Any] | None) -> set[str]:
    if values is not None:
        types = {type_of(value) for value in values}
    else:
        types = set(types_of(schema, "#")) or ({"object"} if "properties" in schema else set())
    return types | {"integer"} if "number" in types else types


def _are_objects_disjoint(document: Document, a: Schema, b: Schema, depth: int) -> bool:
    names = [schema.get("properties", {}) for schema in (a, b)]
    needed = [set(schema.get("required", [])) for schema in (a, b)]
    for name in needed[0] & needed[1]:
        if name in names[0] and name in names[1] and are_disjoint(document, names[0][name], names[1][name], depth - 1):
            return True

    def cannot_be(i: int, j: int) -> bool:
        """Return whether what a grammar makes by schema i never fulfils schema j."""
        makes_no_other = "properties" in (a, b)[i] and (a, b)[i].get("additionalProperties", False) is False
        takes_no_other = (a, b)[j].get("additionalProperties", True) is False
        return (makes_no_other and bool(needed[j] - set(names[i]))) or (
            takes_no_other and bool(needed[i] - set(names[j]))
        )

    return cannot_be(0, 1) and cannot_be(1, 0)
