"""JSON schemas: an answer is held to all of a schema, or the schema is refused; nothing is passed over in silence."""

from __future__ import annotations

import json
import math
import pathlib
import random
import re
import time
import warnings
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest

from pytriattn import GrammarError, GrammarWarning, Llama, LlamaGrammar
from pytriattn.generation.schemas.json_schema import grammar_of_schema, held_schema, held_tools
from pytriattn.generation.schemas.numbers import bounds_of
from pytriattn.generation.schemas.patterns import PatternError, held_pattern

ASK = [{"role": "user", "content": "x"}]
TEXT = {"type": "string"}
A_TEXT = {"type": "object", "properties": {"a": TEXT}}


@pytest.fixture(scope="module")
def llm(smollm2: pathlib.Path) -> Iterator[Llama]:
    with Llama(smollm2, n_ctx=512, seed=1) as llm:
        yield llm


def rewritten(schema: Any) -> Any:
    return json.loads(held_schema(json.dumps(schema)))


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"allOf": [TEXT], "description": "d"}, {**TEXT, "description": "d"}),
        ({"allOf": [TEXT, {"maxLength": 3}], "minLength": 1}, {**TEXT, "minLength": 1, "maxLength": 3}),
        ({"allOf": [{"enum": [1, 2, True]}, {"enum": [2, 1.5, 1]}]}, {"enum": [1, 2]}),
        (
            {"allOf": [{**A_TEXT, "required": ["a"]}, {"properties": {"b": TEXT}, "required": ["b"]}]},
            {"type": "object", "properties": {"a": TEXT, "b": TEXT}, "required": ["a", "b"]},
        ),
        ({**A_TEXT, "required": ["b"]}, {**A_TEXT, "properties": {"a": TEXT, "b": {}}, "required": ["b"]}),
        (
            {"type": "object", "required": ["b"]},
            {"type": "object", "required": ["b"], "additionalProperties": True, "properties": {"b": {}}},
        ),
        ({"type": "object", "properties": {"a": False, "b": True}}, {"type": "object", "properties": {"b": {}}}),
        ({**A_TEXT, "minProperties": 1, "required": ["a"], "maxProperties": 1}, {**A_TEXT, "required": ["a"]}),
        ({"type": "integer", "exclusiveMinimum": 0, "maximum": 9.5}, {"type": "integer", "minimum": 1, "maximum": 9}),
        ({"type": "integer", "minimum": 3, "exclusiveMinimum": True}, {"type": "integer", "minimum": 4}),
        ({"type": "integer", "maximum": 2**53}, {"type": "integer", "maximum": 10**15 - 1}),
        ({"type": "number", "multipleOf": 1}, {"type": "integer"}),
        ({"type": "array", "items": [TEXT, TEXT], "maxItems": 1}, {"type": "array", "prefixItems": [TEXT]}),
        (
            {"type": "array", "prefixItems": [TEXT], "items": False, "minItems": 1},
            {"type": "array", "prefixItems": [TEXT]},
        ),
        (
            {"type": "array", "items": TEXT, "maxItems": 1, "uniqueItems": True},
            {"type": "array", "items": TEXT, "maxItems": 1},
        ),
        ({"type": ["string", "null"], "minLength": 1}, {"type": ["string", "null"], "minLength": 1}),
        (
            {"type": ["integer", "null"], "exclusiveMinimum": 1},
            {"anyOf": [{"type": "integer", "minimum": 2}, {"type": "null"}]},
        ),
        ({"type": ["string", "null"], "enum": ["a", 1, None]}, {"type": ["string", "null"], "enum": ["a", None]}),
        ({"type": "object", "minLength": 3}, {"type": "object"}),
        ({"oneOf": [TEXT, {"type": "null"}], "default": None}, {"anyOf": [TEXT, {"type": "null"}], "default": None}),
        ({"type": "string", "format": "password"}, TEXT),
        ({"type": "string", "pattern": "^a{2}$", "minLength": 1, "maxLength": 2}, {**TEXT, "pattern": "^a{2}$"}),
        (True, {}),
    ],
    ids=str,
)
def test_what_is_written_in_another_way(schema: Any, expected: Any) -> None:
    assert rewritten(schema) == expected


def test_what_is_left_as_it_is() -> None:
    schema = {
        "type": "object",
        "title": "Person",
        "properties": {
            "name": {"type": "string", "description": "Full name", "maxLength": 20},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "mood": {"type": "string", "enum": ["good", "bad"]},
            "parent": {"anyOf": [{"$ref": "#/$defs/Parent"}, {"type": "null"}], "default": None},
        },
        "required": ["name", "age"],
        "additionalProperties": False,
        "$defs": {"Parent": {"type": "object", "properties": {"parent": {"$ref": "#/$defs/Parent"}}}},
    }
    assert rewritten(schema) == schema


def test_references() -> None:
    tree = rewritten({"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#"}}}})
    inner = tree["properties"]["kids"]["items"]["$ref"].removeprefix("#/$defs/")
    assert tree["$defs"][inner]["properties"]["kids"]["items"]["$ref"] == f"#/$defs/{inner}"
    found = rewritten(
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/S", "maxLength": 3}}, "$defs": {"S": TEXT}}
    )
    assert found["properties"]["a"] == {**TEXT, "maxLength": 3}
    animals = {
        name: {"type": "object", "properties": {"kind": {"const": name}}, "required": ["kind"]}
        for name in ("cat", "dog")
    }
    choice = {"oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}], "$defs": animals}
    assert [part["$ref"] for part in rewritten(choice)["anyOf"]] == ["#/$defs/cat", "#/$defs/dog"]


@pytest.mark.parametrize(
    ("schema", "part"),
    [
        ({"type": "number", "minimum": 1e20}, "'minimum'"),
        ({"type": ["string", "number"], "exclusiveMaximum": 1e-20}, "'exclusiveMaximum'"),
        ({"type": "number", "multipleOf": 0.5}, "'multipleOf'"),
        ({"type": "integer", "multipleOf": 5}, "'multipleOf'"),
        ({"type": "string", "format": "ipv6"}, "the format 'ipv6'"),
        ({"type": "string", "maxLength": 2001}, "'maxLength'.*2000"),
        ({"type": "string", "pattern": "^a+$", "maxLength": 3}, "'maxLength' beside a pattern"),
        ({"type": "string", "pattern": "^a$", "format": "date"}, "the format 'date'"),
        ({"type": "array", "items": TEXT, "uniqueItems": True}, "'uniqueItems'"),
        ({"type": "array", "contains": TEXT}, "'contains'"),
        ({"type": "array", "prefixItems": [TEXT], "minItems": 2}, "'minItems'"),
        ({"type": "object", "minProperties": 2}, "'minProperties'"),
        ({"type": "object", "patternProperties": {"^a": TEXT}}, "'patternProperties'"),
        ({"type": "object", "propertyNames": {"maxLength": 3}}, "'propertyNames'"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "'dependentRequired'"),
        ({"not": TEXT}, "'not'"),
        ({"if": TEXT, "then": TEXT}, "'if'"),
        ({"oneOf": [TEXT, {"type": "string", "maxLength": 3}]}, "'oneOf'.*use anyOf"),
        ({"allOf": [{**A_TEXT, "additionalProperties": False}, {"properties": {"b": TEXT}}]}, "additionalProperties"),
        ({"allOf": [{"pattern": "^a$"}, {"pattern": "^b$"}]}, "two different values of 'pattern'"),
        ({"allOf": [{"$ref": "#"}, TEXT]}, "leads back to itself"),
        ({"enum": ["a"], "pattern": "^b"}, "'pattern' beside enum"),
    ],
    ids=str,
)
def test_what_no_grammar_can_hold_is_refused_and_warned_of_in_tools(schema: Any, part: str) -> None:
    with pytest.raises(GrammarError, match=f"{part}.*has no equivalent|has no equivalent.*{part}|{part}"):
        held_schema(schema)
    tool = {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": schema}}},
    }
    if schema != {"allOf": [{"$ref": "#"}, TEXT]}:  # which means another schema there
        with pytest.warns(GrammarWarning, match=r"the tool 'f' wants an argument of .* at #/properties/a"):
            held_tools([tool])


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "array", "minItems": 3, "maxItems": 2}, "minItems 3 and maxItems 2"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "minLength 3 and maxLength 2"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "from 5 to 3"),
        ({"type": "integer", "minimum": 0.2, "maximum": 0.8}, "from 1 to 0"),
        ({"type": "integer", "enum": ["a"]}, "admits no value"),
        ({"const": 1, "enum": [2]}, "admits no value"),
        ({"enum": []}, "admits no value"),
        ({"allOf": [TEXT, {"type": "integer"}]}, "of the type 'string' and of 'integer'"),
        ({"anyOf": [{"enum": []}, False]}, "admits no value"),
        ({**A_TEXT, "required": ["b"], "additionalProperties": False}, "requires 'b'"),
        ({"type": "strnig"}, "the type 'strnig'"),
        ({"$ref": "#/$defs/none"}, r"there is no '\$defs'"),
        ({"$ref": "https://example.org/schema"}, "only references of the form"),
        ({"type": "string", "pattern": "^a{3,2}$"}, "no regular expression.*wrong way round"),
        ({"type": "string", "pattern": "^(a$"}, "no regular expression"),
        ({"type": "string", "minLength": -1}, "minLength -1"),
        ({"type": "integer", "minimum": "a"}, "minimum 'a'"),
        ({"type": "object", "required": "a"}, "no list of names"),
        ({"type": "object", "properties": []}, "no object"),
        ({"type": "array", "items": 3}, "#/items is 3"),
        ({"anyOf": []}, "empty"),
        ({"oneOf": [{"anyOf": 3}, {"required": [[]]}, {"properties": 1, "enum": 2}]}, "oneOf|no list"),
        ({"type": "object", "properties": {"é" * 100_000: TEXT}}, "name has 100,000 characters"),
        ({"$ref": "#/$defs/" + "é" * 100_000}, r"\$ref of 100,008 characters"),
        ({"type": "object", "properties": {f"p{i}": {} for i in range(10_001)}}, "more than 10,000 parts"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_schemas_that_are_none_or_admit_nothing(schema: Any, message: str) -> None:
    with pytest.raises(GrammarError, match=message):
        LlamaGrammar.from_json_schema(schema)
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    with pytest.raises(GrammarError, match=f"the tool 'f'.*{message}"):
        held_tools([tool])


@pytest.mark.parametrize(
    "text",
    [
        '{"items":' * 50_000 + "{}" + "}" * 50_000,
        '{"items":' * 500 + "{}" + "}" * 500,
        '{"items":' * 60 + "{}" + "}" * 60,
        '{"const":' + "[" * 200 + "]" * 200 + "}",
        "{no json",
        "[]",
    ],
    ids=lambda text: text[:20],
)
def test_texts_that_are_no_schema(llm: Llama, text: str) -> None:
    start = time.process_time()
    for call in (lambda: LlamaGrammar.from_json_schema(text), lambda: llm("x", json_schema=text)):
        with pytest.raises(GrammarError):
            call()
    assert time.process_time() - start < 5


def test_schemas_that_would_grow_without_end() -> None:
    twice = {f"A{i}": {"allOf": [{"$ref": f"#/$defs/A{i + 1}"}, {"$ref": f"#/$defs/A{i + 1}"}]} for i in range(40)}
    inside = {"type": "object", "properties": {"a": {"allOf": [{"$ref": "#/$defs/N"}, {"required": ["a"]}]}}}
    part = {"$ref": "#", "maxLength": 0, "allOf": [{"$ref": "#", "enum": [1]}]}
    both = {"const": 1, "pattern": "^.$", "oneOf": [part, {"minimum": 0, "maximum": 2}]}
    nested: dict[str, Any] = {}
    for _ in range(3000):
        nested = {"items": nested}
    for schema in ({"$ref": "#/$defs/A0", "$defs": twice}, {"$ref": "#/$defs/N", "$defs": {"N": inside}}, both, nested):
        start = time.process_time()
        with pytest.raises(GrammarError):
            held_schema(schema)
        assert time.process_time() - start < 5


# -- numbers


def test_numbers_with_bounds() -> None:
    """Compare the grammar's rules, as a regular expression, with the numbers."""
    rng = random.Random(1)

    def number() -> Decimal:
        size = rng.choice([3, 150, 12_000])
        return Decimal(rng.randint(-size, size)).scaleb(-rng.randint(0, 3))

    for _ in range(300):
        low, high = sorted((number(), number()))
        schema: dict[str, Any] = {"type": "number"}
        is_open = [rng.random() < 0.3, rng.random() < 0.3] if low < high else [False, False]
        if rng.random() < 0.8:
            schema["exclusiveMinimum" if is_open[0] else "minimum"] = float(low)
        if rng.random() < 0.8 or len(schema) == 1:
            schema["exclusiveMaximum" if is_open[1] else "maximum"] = float(high)
        bounds = bounds_of(schema, "#")
        (rule,) = re.findall("^pytriattn-number-0 ::= (.*)$", grammar_of_schema(schema), re.MULTILINE)
        pattern = re.compile(re.sub(r'"([^"]*)"', lambda found: f"(?:{re.escape(found[1])})", rule).replace(" ", ""))
        near = [limit + Decimal(step).scaleb(-k) for limit in (low, high) for step in (-1, 0, 1) for k in range(5)]
        for value in [*near, *(number() for _ in range(20))]:
            for text in (f"{value:f}", f"{value:f}00" if "." in f"{value:f}" else f"{value:f}.0"):
                if not re.fullmatch("-0[0.]*", text):
                    assert bool(pattern.fullmatch(text)) == bounds.admits(float(value)), (schema, text)


def test_numbers_in_chats_and_tools(llm: Llama) -> None:
    schema = {
        "type": "object",
        "properties": {"p": {"type": "number", "minimum": 0.25, "maximum": 0.5}},
        "required": ["p"],
    }
    for seed in range(3):
        (choice,) = llm.create_chat_completion(
            ASK,
            response_format={"type": "json_schema", "json_schema": {"schema": schema}},
            max_tokens=40,
            temperature=1.5,
            seed=seed,
        )["choices"]
        if choice["finish_reason"] == "stop":
            assert 0.25 <= json.loads(choice["message"]["content"])["p"] <= 0.5
    with pytest.warns(GrammarWarning, match="'maximum'"):
        (tool,) = held_tools([{"function": {"name": "f", "parameters": schema}}])
    assert tool["function"]["parameters"] == schema  # the model reads it


def test_any_json_is_json_in_a_chat(llm: Llama) -> None:
    for schema in ({}, {"description": "anything"}):
        request = {"type": "json_schema", "json_schema": {"schema": schema}}
        (choice,) = llm.create_chat_completion(ASK, response_format=request, max_tokens=1)["choices"]
        assert re.match(r'\s*["\[{0-9tfn-]', choice["message"]["content"])


# -- patterns


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ('^"x"$', [r"\"x\""], ['"x"']),
        (r"^a\\b$", [r"a\\b"], [r"a\b"]),
        (r"^a\nb$", [r"a\nb"], ["a\nb"]),
        ("^[^a]{3}$", ["bcd", r"b\"c", r"\n\\é"], ['b"c', "abc", "bc"]),
        ("^.*$", ["", r"a\"b"], ["\\", '"']),
        (r"^\d{2}-\w+\/[\w.\-]*$", ["12-ab/", "34-_/a.-"], ["1-ab/", "12-é/"]),
        (r"^a\.*$", ["a", "a.."], ["a.a."]),
        ("^(a|b|)c?$", ["", "ac", "c"], ["ab"]),
        ("^(?:ab){1,2}?$", ["ab", "abab"], ["ababab", "a"]),
        ("^é*[à-ü]$", ["éé", "à"], ["a"]),
        (r"^\u0041[\t-\x0e]$", [r"A\n", r"A\u000e"], ["A\n"]),
        (r"^\s\S$", [" a", r"\t\""], ["ab"]),
    ],
)
def test_patterns_as_json(pattern: str, good: list[str], bad: list[str]) -> None:
    """What is written for llama.cpp is a regular expression of Python's too."""
    held = held_pattern(pattern)
    for text in good:
        assert re.fullmatch(held.text[1:-1], text)
        value = json.loads(f'"{text}"')
        assert re.search(pattern, value)
        assert held.min_length <= len(value) <= held.max_length
    assert not any(re.fullmatch(held.text[1:-1], text) for text in bad)
    LlamaGrammar.from_json_schema({"type": "string", "pattern": pattern})


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("[0-9]", "begin with"),
        ("^a\\$", "begin with"),
        ("^(?=a)b$", "look-around"),
        (r"^\bword$", "word boundaries"),
        (r"^(a)\1$", "back references"),
        (r"^\p{L}$", "Unicode properties"),
        ("^a$b$", "anchor in the middle"),
        ("^a{2001}$", "2000"),
        ("^a{3,2}$", "wrong way round"),
        ("^a**$", "nothing before"),
        ("^[z-a]$", "wrong way round"),
        ("^a)$", "too many"),
        ("^[a$", "is missing"),
        ("^[]$", "no JSON string"),
        ("^" + "(" * 60 + ")" * 60 + "$", "nested"),
    ],
)
def test_patterns_that_have_no_equivalent(pattern: str, reason: str) -> None:
    with pytest.raises(PatternError, match=reason):
        held_pattern(pattern)


def test_lengths_of_patterns() -> None:
    assert held_pattern("^(ab|c){2,3}[^x]?$")[1:] == (2, 7)
    assert held_pattern("^a+b*$")[1:] == (1, math.inf)
    assert held_pattern("^()*$")[1:] == (0, 0)


# -- with a model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schema", "fits"),
    [
        ({"allOf": [{"$ref": "#/$defs/S"}], "$defs": {"S": {**TEXT, "maxLength": 8}}}, lambda v: isinstance(v, str)),
        ({"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a", "b"]}, lambda v: "b" in v),
        ({"type": "integer", "exclusiveMinimum": 41, "maximum": 43.9}, lambda v: v in (42, 43)),
        ({"type": "integer", "minimum": -12, "maximum": 105}, lambda v: -12 <= v <= 105),
        ({"type": "string", "pattern": '^["\\\\n\\n]{4}$'}, lambda v: len(v) == 4 and set(v) <= set('"\\n\n')),
        ({"type": "string", "pattern": "^[^a]{3}$"}, lambda v: len(v) == 3 and "a" not in v),
        ({"type": "string", "format": "ipv4"}, lambda v: all(0 <= int(part) < 256 for part in v.split("."))),
        ({"type": "array", "prefixItems": [TEXT | {"maxLength": 3}, {"type": "null"}]}, lambda v: len(v) == 2),
    ],
    ids=lambda value: "fits" if callable(value) else str(value),
)
def test_answers_fulfil_the_schema(llm: Llama, schema: Any, fits: Callable[[Any], bool]) -> None:
    hot = {"temperature": 1.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    n_whole = 0
    for seed in range(5):
        (choice,) = llm("JSON: ", json_schema=schema, max_tokens=60, seed=seed, **hot)["choices"]
        if choice["finish_reason"] == "stop":
            assert fits(json.loads(choice["text"]))
            n_whole += 1
    assert n_whole > 0


def test_bad_schemas_are_the_same_error_everywhere(llm: Llama, capfd: pytest.CaptureFixture[str]) -> None:
    for schema in ({"type": "strnig"}, {"$ref": "#/$defs/none"}, {"type": "string", "pattern": "[0-9]"}):
        tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
        calls: list[Callable[[], object]] = [
            lambda schema=schema: llm("x", json_schema=schema),  # type: ignore[misc]
            lambda schema=schema: llm.create_chat_completion(  # type: ignore[misc]
                ASK, response_format={"type": "json_schema", "json_schema": {"schema": schema}}
            ),
            lambda schema=schema: llm.create_chat_completion(  # type: ignore[misc]
                ASK, response_format={"type": "json_object", "schema": schema}
            ),
        ]
        if "pattern" not in schema:
            calls.append(lambda tool=tool: llm.create_chat_completion(ASK, tools=[tool]))  # type: ignore[misc]
        for call in calls:
            with pytest.raises(GrammarError):
                call()
    with warnings.catch_warnings(record=True):
        held_tools([{"function": {"name": "f", "parameters": {"type": "string", "pattern": "[0-9]"}}}])
    assert capfd.readouterr().err == ""


def test_one_format_at_a_time(llm: Llama) -> None:
    json_format = {"type": "json_object"}
    for other in ({"grammar": 'root ::= "a"'}, {"json_schema": TEXT}):
        with pytest.raises(ValueError, match="not two of them"):
            llm.create_chat_completion(ASK, response_format=json_format, **other)
