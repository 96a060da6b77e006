"""JSON schemas written anew, so that llama.cpp's converter enforces all of them.

The converter ignores keywords that it does not know, and many that stand beside others. This module writes those in a
way that the converter enforces, or gives up with the name of the part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from pytriattn.generation.schemas.keywords import (
    BY_TYPE,
    Document,
    Impossible,
    NotHeld,
    assertions_of,
    check_name,
    is_same,
    refuse,
    type_of,
    types_of,
)
from pytriattn.generation.schemas.merging import are_disjoint, flatten
from pytriattn.generation.schemas.numbers import LARGEST_WHOLE, WHOLE_FORMATS, bounds_of, stand_in
from pytriattn.generation.schemas.patterns import (
    FORMAT_LENGTHS,
    FORMAT_PATTERNS,
    FREE_FORMATS,
    MAX_TIMES,
    InvalidPatternError,
    PatternError,
    held_pattern,
)

__all__ = ["GiveUp", "rewrite_schema"]

GiveUp = Callable[[str, NotHeld], None]
"""Takes the place and the part that a grammar cannot hold an answer to. If it returns, the grammar goes without."""

_MAX_DEPTH = 40
_MAX_PARTS = 10_000
# Keyword -> values with which it says nothing.
_EMPTY: dict[str, tuple[Any, ...]] = {
    "patternProperties": ({},),
    "propertyNames": ({}, True),
    "dependentRequired": ({},),
    "dependentSchemas": ({},),
    "dependencies": ({},),
    "unevaluatedProperties": (True, {}),
    "unevaluatedItems": (True, {}),
    "not": (False,),
}


def rewrite_schema(schema: Any, give_up: GiveUp, *, holds_numbers: bool) -> dict[str, Any]:
    """Return a schema whose answers fulfil `schema`, and of which the converter passes over nothing.

    Args:
        schema: the schema.
        give_up: called with what cannot be held.
        holds_numbers: write numbers with bounds as texts that `exchange_numbers` exchanges in the grammar.

    Raises:
        GrammarError: it is no schema, no value fulfils it, or it is too large.
    """
    if not isinstance(schema, (Mapping, bool)):
        raise refuse("#", "is no schema: it must be an object")
    return _Rewriter(schema if isinstance(schema, Mapping) else {}, give_up, holds_numbers).rewrite(schema)


class _Rewriter:
    def __init__(self, root: Mapping[str, Any], give_up: GiveUp, holds_numbers: bool) -> None:
        self._document = Document(root)
        self._holds_numbers = holds_numbers
        self._give_up = give_up
        self._names: dict[str, str] = {}  # reference -> the same in the schema that is written
        self._targets: dict[str, Any] = {}  # reference -> what it names, written anew
        self._n_parts = 0

    def rewrite(self, schema: Any) -> dict[str, Any]:
        result = self._node(schema, "#", 0)
        for reference, target in self._targets.items():
            _, folder, name = self._names[reference].split("/")
            result[folder] = {**result.get(folder, {}), name: target}
        return result

    def _node(self, schema: Any, path: str, depth: int) -> dict[str, Any]:
        """Return a schema written anew."""
        self._n_parts += 1
        if self._n_parts > _MAX_PARTS:
            raise refuse(path, f"is too much: the schema has more than {_MAX_PARTS:,} parts")
        if depth > _MAX_DEPTH:
            raise refuse(path[:200], f"is nested more than {_MAX_DEPTH} levels deep")
        if schema is False:
            raise Impossible(f"this JSON schema admits no value: {path} is false")
        if schema is True:
            return {}
        if not isinstance(schema, Mapping):
            raise refuse(path, f"is {schema!r:.50}, it must be a schema: an object, true or false")
        try:
            flat = flatten(self._document, schema, path)
        except NotHeld as part:
            self._give_up(path, part)
            return {key: value for key, value in schema.items() if key not in assertions_of(schema)}
        for key in ("not", "if", "$dynamicRef", "$recursiveRef"):
            if key in flat:
                self._pass_over(flat, key, path)
        if "$ref" in flat:
            return {**flat, "$ref": self._reference(flat["$ref"], path, depth)}
        for choice in ("anyOf", "oneOf"):
            if choice in flat:
                return self._choice(flat, choice, path, depth)
        if "enum" in flat or "const" in flat:
            return self._values(flat, path)
        return self._typed(flat, path, depth)

    def _pass_over(self, schema: Mapping[str, Any], key: str, path: str) -> None:
        """Give up a keyword that the converter passes over, unless it says nothing."""
        if not any(is_same(schema[key], nothing) for nothing in _EMPTY.get(key, ())):
            self._give_up(path, NotHeld(f"the keyword '{key}'"))

    def _reference(self, reference: Any, path: str, depth: int) -> str:
        target = self._document.resolve(reference, path)
        if reference not in self._names:
            is_definition = reference.startswith(("#/$defs/", "#/definitions/")) and reference.count("/") == 2
            # other parts may be written anew where they stand
            self._names[reference] = reference if is_definition else f"#/$defs/part-{len(self._names)}"
            try:
                self._targets[reference] = self._node(target, reference, depth + 1)
            except Impossible:
                del self._names[reference]  # to fail again at the next place
                raise
        return self._names[reference]

    def _choice(self, schema: dict[str, Any], key: str, path: str, depth: int) -> dict[str, Any]:
        given = schema.pop(key)
        if not isinstance(given, list) or not given:
            raise refuse(path, f"has {key} that is no list of schemas, or an empty one")
        if key == "oneOf" and not all(
            are_disjoint(self._document, a, b) for i, a in enumerate(given) for b in given[:i]
        ):
            self._give_up(
                path, NotHeld("the keyword 'oneOf'", "more than one of its alternatives may apply; use anyOf")
            )
        alternatives, impossible = [], None
        for i, alternative in enumerate(given):
            try:
                alternatives.append(self._node(alternative, f"{path}/{key}/{i}", depth + 1))
            except Impossible as error:
                impossible = error
        if impossible is not None and not alternatives:
            raise impossible
        return {**schema, "anyOf" if key == "oneOf" else key: alternatives}

    def _values(self, schema: dict[str, Any], path: str) -> dict[str, Any]:
        """Return a schema that lists values, of those that fulfil the rest of it."""
        listed = schema.get("enum", [schema.get("const")])
        if not isinstance(listed, list):
            raise refuse(path, "has an enum that is no list")
        if "const" in schema:
            listed = [value for value in listed if is_same(value, schema["const"])]
        fitting = [value for value in listed if self._fits(value, schema, path)]
        if not fitting:
            raise Impossible(f"this JSON schema admits no value: no value of {path} fulfils the rest of it")
        if "const" in schema:
            return {key: value for key, value in schema.items() if key != "enum"}
        return {**schema, "enum": fitting}

    def _fits(self, value: Any, schema: Mapping[str, Any], path: str) -> bool:
        kind, types = type_of(value), types_of(schema, path)
        if types and kind not in types and not (kind == "integer" and "number" in types):
            return False
        for key in sorted(BY_TYPE[kind].intersection(schema)):
            limit = schema[key]
            if key in ("minLength", "minItems", "minProperties") and isinstance(limit, (int, float)):
                fits = len(value) >= limit
            elif key in ("maxLength", "maxItems", "maxProperties") and isinstance(limit, (int, float)):
                fits = len(value) <= limit
            elif key in BY_TYPE["number"] and key not in ("multipleOf", "format"):
                fits = bounds_of({key: limit}, path).admits(value)
            elif key == "format":
                fits = True  # of values that are written out
            else:
                self._give_up(path, NotHeld(f"the keyword '{key}' beside enum or const"))
                fits = True
            if not fits:
                return False
        return True

    def _typed(self, schema: dict[str, Any], path: str, depth: int) -> dict[str, Any]:
        """Return a schema without references and choices."""
        types = types_of(schema, path)
        if not types:
            types = [name for name, keys in BY_TYPE.items() if keys.intersection(schema) - {"format"}][:1]
            types = types or (["string"] if "format" in schema else [])
            if not types:
                return schema
        result, impossible, is_changed = [], None, False
        for name in types:
            # what says something of other types says nothing here
            others = frozenset[str]().union(*BY_TYPE.values()) - BY_TYPE[name]
            part = {key: value for key, value in schema.items() if key not in others} | {"type": name}
            try:
                result.append(self._one_type(name, {**part}, path, depth))
                is_changed = is_changed or not is_same(result[-1], part)
            except Impossible as error:
                impossible = error
        if not result:
            assert impossible is not None
            raise impossible
        if len(result) == 1:
            return result[0]
        if not is_changed:
            return {**schema, "type": [part["type"] for part in result]}
        described = {key: value for key, value in schema.items() if key not in assertions_of(schema)}
        parts = [{key: value for key, value in part.items() if key in assertions_of(part)} for part in result]
        return {**described, "anyOf": parts}

    def _one_type(self, name: str, schema: dict[str, Any], path: str, depth: int) -> dict[str, Any]:
        if name == "object":
            return self._object(schema, path, depth)
        if name == "array":
            return self._array(schema, path, depth)
        if name == "string":
            return self._string(schema, path)
        if name in ("integer", "number"):
            return self._number(schema, path)
        return schema

    def _object(self, schema: dict[str, Any], path: str, depth: int) -> dict[str, Any]:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if not isinstance(properties, Mapping):
            raise refuse(path, "has properties that are no object")
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            raise refuse(path, "has a 'required' that is no list of names")
        additional = schema.get("additionalProperties")
        others = {} if additional is None else additional
        written: dict[str, Any] = {}
        for name in required:
            if name not in properties and others is False:
                raise Impossible(
                    f"this JSON schema admits no value: {path} requires {name!r:.80} and does not admit it"
                )
        for name, part in {**properties, **{name: others for name in required if name not in properties}}.items():
            check_name(name, path)
            try:
                written[name] = self._node(part, f"{path}/properties/{name}", depth + 1)
            except Impossible:
                if name in required or others is not False and additional is not None:
                    raise
                # without it the object is still one
        if "properties" in schema or written:
            if "properties" not in schema and additional is None:
                schema["additionalProperties"] = True
            schema["properties"] = written
        if isinstance(additional, Mapping):
            schema["additionalProperties"] = self._node(additional, f"{path}/additionalProperties", depth + 1)
        is_open = schema.get("additionalProperties", not written) is not False
        self._count(schema, "Properties", path, len(required), math.inf if is_open else len(written))
        if schema.get("unevaluatedProperties") is False and not is_open:
            del schema["unevaluatedProperties"]
        for key in BY_TYPE["object"].intersection(_EMPTY, schema):
            self._pass_over(schema, key, path)
        return schema

    def _array(self, schema: dict[str, Any], path: str, depth: int) -> dict[str, Any]:
        items = schema.get("items", True)
        tuple_key = "prefixItems" if isinstance(schema.get("prefixItems"), list) else "items"
        low, high = self._limits(schema, "Items", path)
        if isinstance(schema.get(tuple_key), list):
            first = schema.pop(tuple_key)
            schema.pop("items", None)
            schema.pop("unevaluatedItems", None)
            first = first[: int(min(high, len(first)))]
            if low > len(first):
                self._give_up(path, NotHeld("the keyword 'minItems'", "items after those of prefixItems are not made"))
            schema["prefixItems"] = [
                self._node(part, f"{path}/{tuple_key}/{i}", depth + 1) for i, part in enumerate(first)
            ]
            low = high = len(first)
            schema.pop("minItems", None)
            schema.pop("maxItems", None)
        elif items is False:
            schema["items"], schema["maxItems"], high = {}, 0, 0
        elif items is not True:
            schema["items"] = self._node(items, f"{path}/items", depth + 1)
        else:
            schema.pop("items", None)
        if schema.get("uniqueItems") is False or high <= 1:
            schema.pop("uniqueItems", None)
        for key in BY_TYPE["array"].intersection({*_EMPTY, "contains", "uniqueItems"}, schema):
            self._pass_over(schema, key, path)
        if low > high:
            raise Impossible(f"this JSON schema admits no value: {path} has its limits the wrong way round")
        return schema

    def _count(self, schema: dict[str, Any], of: str, path: str, least: float, most: float) -> None:
        """Take out limits that are kept anyway, of what has from `least` to `most` members."""
        low, high = self._limits(schema, of, path)
        if low <= least:
            schema.pop(f"min{of}", None)
        if high >= most:
            schema.pop(f"max{of}", None)
        for key in (f"min{of}", f"max{of}"):
            if key in schema:
                self._pass_over(schema, key, path)

    def _limits(self, schema: dict[str, Any], of: str, path: str) -> tuple[float, float]:
        """Return the limits of a length, written as the converter takes them."""
        found = [0.0, math.inf]
        for i, key in enumerate((f"min{of}", f"max{of}")):
            if key not in schema:
                continue
            value = schema[key]
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            if not is_number or value < 0 or value != int(value):
                raise refuse(path, f"has {key} {value!r}, it must be a whole number and not negative")
            found[i] = schema[key] = int(value)
        low, high = found
        if low > high:
            raise Impossible(f"this JSON schema admits no value: {path} has min{of} {low} and max{of} {high}")
        for key in (f"min{of}", f"max{of}"):
            if of != "Properties" and schema.get(key, 0) > MAX_TIMES:
                del schema[key]
                self._give_up(path, NotHeld(f"the keyword '{key}'", f"more than {MAX_TIMES} cannot be counted"))
        return low, high

    def _string(self, schema: dict[str, Any], path: str) -> dict[str, Any]:
        low, high = self._limits(schema, "Length", path)
        held = self._held_text(schema, path)
        if held is None:
            return schema
        shortest, longest = held
        for key, is_kept in (("minLength", shortest >= low), ("maxLength", longest <= high)):
            if key in schema:
                del schema[key]
                if not is_kept:
                    self._give_up(path, NotHeld(f"the keyword '{key}' beside a pattern or format"))
        return schema

    def _held_text(self, schema: dict[str, Any], path: str) -> tuple[float, float] | None:
        """Write the pattern or format of a text anew; return how many characters it admits, None: any number."""
        name, pattern = schema.get("format"), schema.get("pattern")
        for key, value in (("format", name), ("pattern", pattern)):
            if value is not None and not isinstance(value, str):
                raise refuse(path, f"has the {key} {value!r}, it must be a text")
        if name is not None and (pattern is not None or name not in FORMAT_LENGTHS):
            del schema["format"]
            if pattern is None:
                pattern = FORMAT_PATTERNS.get(name)
            if name not in FREE_FORMATS and (pattern is None or "pattern" in schema):
                self._give_up(path, NotHeld(f"the format {name!r}", "there is a pattern too" if pattern else ""))
        if pattern is None:
            return FORMAT_LENGTHS.get(schema.get("format", ""))
        try:
            held = held_pattern(pattern)
        except InvalidPatternError as error:
            raise refuse(path, f"has the pattern {pattern!r}, which is no regular expression: {error}") from error
        except PatternError as error:
            schema.pop("pattern", None)
            self._give_up(path, NotHeld(f"the pattern {pattern!r}", str(error)))
            # the model is told of it at least
            schema["description"] = f"{schema.get('description', '')} (pattern: {pattern})".strip()
            return None
        schema["pattern"] = held.text
        return held.min_length, held.max_length

    def _number(self, schema: dict[str, Any], path: str) -> dict[str, Any]:
        if schema.get("multipleOf") == 1:
            schema["type"] = "integer"
            del schema["multipleOf"]
        if "multipleOf" in schema:
            self._pass_over(schema, "multipleOf", path)
        bounds = bounds_of(schema, path)
        given = sorted({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}.intersection(schema))
        if schema["type"] == "number":
            text = stand_in(bounds) if self._holds_numbers else None
            if text is None:
                for key in given:
                    self._pass_over(schema, key, path)
                return schema
            kept = {key: value for key, value in schema.items() if key not in given and key != "type"}
            return {**kept, "const": text} if given else schema
        least, most = WHOLE_FORMATS.get(schema.get("format", ""), (bounds.low, bounds.high))
        low, high = max(bounds.low, least), min(bounds.high, most)
        for key in given:
            del schema[key]
        if low > high or low > LARGEST_WHOLE or high < -LARGEST_WHOLE:
            raise Impossible(f"this JSON schema admits no value: {path} must be from {low} to {high}")
        if low > -math.inf:
            schema["minimum"] = int(max(low, -LARGEST_WHOLE))
        if high < math.inf:
            schema["maximum"] = int(min(high, LARGEST_WHOLE))
        return schema
