"""Grammars that cannot be followed: an error of the package, at once, and never the end of the process."""

from __future__ import annotations

import json
import math
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytriattn import ChatError, GrammarError, Llama
from support.chat_examples import TOOL_TEMPLATE, WEATHER

ASK = [{"role": "user", "content": "x"}]


@pytest.fixture(scope="module")
def llm(smollm2: pathlib.Path) -> Iterator[Llama]:
    with Llama(smollm2, n_ctx=512, seed=1, chat_template=TOOL_TEMPLATE) as llm:
        yield llm


def named_twice(n: int) -> str:
    rules = [f'r{i} ::= r{i + 1} "x" | r{i + 1} "y"' for i in range(n)]
    return "\n".join([*rules, f'r{n} ::= "z"', "root ::= r0"])


def chain(n: int) -> str:
    return "\n".join([*(f"r{i} ::= r{i + 1}" for i in range(n)), f'r{n} ::= "z"', "root ::= r0"])


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ('root ::= "a"{3,2}', r"\{3,2\} has its bounds the wrong way round"),
        ('root ::= ("a" "b"){ 3 , # two\n 2 }', "the wrong way round"),
        ('root ::= "a"{0,2001}', "larger than 2000"),
        ('root ::= "a"{99999999999999999999}', "larger than 2000"),
        (f'root ::= "{"a" * 100_000}"{{2000}}', "too large together"),
        ("root ::= " + '"a"{0,2000} ' * 500, "too large together"),
        ("root ::= " + "(" * 100_000 + '"a"' + ")" * 100_000, "nested more than 200 deep"),
        ('root ::= root "a" | "b"', "'root' begins with itself"),
        ('root ::= a root "x" | "y"\na ::= b\nb ::= ""', "'root' begins with itself"),
        ('root ::= a "x"\na ::= e b "y"\nb ::= e a\ne ::= ""', "begins with itself"),
        (named_twice(40), "too many of its rules begin with other rules"),
        ('root ::= "x" ("a"?){50}', "read in too many ways"),
        ('root ::= (("a"?){50}){50}', "read in too many ways"),
        ("root ::= " + '"a"? ' * 50, "read in too many ways"),
        ('root ::= ("a" | "a" | "a" | "a")*', "read in too many ways"),
        (chain(100_000), "too many of its rules begin with other rules"),
        ('root ::= "a"\0"b"', "NUL"),
        ("root ::= [", "grammar cannot be used"),
    ],
    ids=lambda value: value[:24],
)
def test_grammars_that_would_take_all_memory_or_time(llm: Llama, grammar: str, message: str) -> None:
    start = time.process_time()
    with pytest.raises(GrammarError, match=message) as caught:
        llm("x", grammar=grammar, max_tokens=1)
    assert time.process_time() - start < 5
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "grammar",
    [
        'root ::= "a"{0,2000}',
        'root ::= "{3,2}" # {3,2}\n',
        "root ::= [{3,2}]",
        'root ::= (a | "x")*\na ::= "y"?',
        chain(5000),
        'root ::= ("a"?){8} | ([a-z]+ " "?)* | ("b"*)*',
        "root ::= " + " | ".join(f'"v{i}"' for i in range(2000)),
        "root ::= " + " ".join('"-" ([a-z] | "0" | "1" | "2"){0,2000}' for _ in range(40)),
    ],
    ids=lambda grammar: grammar[:24],
)
def test_what_only_looks_like_them(llm: Llama, grammar: str) -> None:
    llm("x", grammar=grammar, max_tokens=2)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"type": "boolean"}, "minItems": 3, "maxItems": 2},
        {"type": "string", "minLength": 3, "maxLength": 2},
        {"type": "string", "pattern": "^a{3,2}$"},
    ],
)
def test_schemas_with_bounds_the_wrong_way_round(llm: Llama, schema: dict[str, Any]) -> None:
    inner = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    tool = {"type": "function", "function": {"name": "f", "parameters": inner}}
    calls: list[Callable[[], object]] = [
        lambda: llm("x", json_schema=schema),
        lambda: llm.generate_batch(["x"], json_schema=schema),
        lambda: llm.create_chat_completion(
            ASK, response_format={"type": "json_schema", "json_schema": {"schema": inner}}
        ),
        lambda: llm.create_chat_completion(ASK, tools=[tool], tool_choice="required"),
    ]
    for call in calls:
        with pytest.raises(GrammarError):
            call()


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0},
        {"top_k": 1},
        {"mirostat_mode": 2},
        {"top_n_sigma": 1.0, "xtc_probability": 1.0, "typical_p": 0.5, "min_p": 0.5},
    ],
    ids=str,
)
def test_no_token_is_left(llm: Llama, sampling: dict[str, Any]) -> None:
    yes = {"grammar": 'root ::= "yes"', "ignore_eos": True, "max_tokens": 8, **sampling}
    dead_end = {"grammar": 'root ::= "yes" [^\\x00-\\U0010FFFF]', "max_tokens": 8, **sampling}
    for options in (yes, dead_end):
        for call in (llm, llm.create_chat_completion):
            with pytest.raises(GrammarError, match="no token can be drawn"):
                call("x" if call is llm else ASK, **options)
        with pytest.raises(GrammarError, match="no token can be drawn"):
            llm.generate_batch(["x", "y"], **options)
    assert llm("x", grammar='root ::= "yes"', max_tokens=8)["choices"][0]["text"] == "yes"


def test_what_a_grammar_needs_is_forbidden(llm: Llama) -> None:
    def forbid_all(_: object, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.full_like(logits, -math.inf)

    with pytest.raises(GrammarError, match="no token can be drawn"):
        llm("x", grammar='root ::= "yes"', logits_processor=forbid_all, max_tokens=2)
    with pytest.raises(ValueError, match="forbids all that are left"):
        llm("x", logits_processor=forbid_all, max_tokens=2)
    with pytest.raises(ValueError, match="returned NaN for token 7"):
        llm("x", logits_processor=lambda _, x: np.where(np.arange(len(x)) == 7, np.nan, x), max_tokens=2)
    assert llm("x", max_tokens=2)["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}", "nested more than 300"),
        ("{{ " + "[" * 50_000 + "]" * 50_000 + " }}", "nested more than 300"),
        ("{% if x %}" * 50_000 + "{% endif %}" * 50_000, "nested more than 300"),
        ("{% if x %}" + "{%- elif x %}" * 50_000 + "{% endif %}", "nested more than 300"),
        ("{{ 1" + "+1" * 50_000 + " }}", "more than 3000 characters"),
        ("{{ " + "not " * 50_000 + "x }}", "more than 3000 characters"),
    ],
    ids=lambda value: value[:16],
)
def test_templates_that_are_nested_deeply(smollm2: pathlib.Path, template: str, message: str) -> None:
    with Llama(smollm2, n_ctx=256, chat_template=template) as llm, pytest.raises(ChatError, match=message):
        llm.create_chat_completion(ASK, max_tokens=1)


CALLS = "{% macro f(n) %}{% if n > 0 %}x{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(N) }}"
DEEP = "{% for i in [1] %}" * 290 + "{{ " + "[" * 290 + "f()" + "]" * 290 + " }}" + "{% endfor %}" * 290


@pytest.mark.parametrize(
    "template",
    [
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f() %}{{ g() }}{% endmacro %}{% macro g() %}{{ f() }}{% endmacro %}{{ g() }}",
        "{%- macro f() -%}{% set h = f %}{{ h() }}{%- endmacro -%}{{ f() }}",
        "{% macro f() %}{% call f() %}x{% endcall %}{% endmacro %}{{ f() }}",
        "{% macro f() %}" + DEEP + "{% endmacro %}{{ f() }}",
        CALLS.replace("N", "100000"),
    ],
    ids=["itself", "another", "by a name", "call", "nested", "long"],
)
def test_macros_that_call_each_other_for_ever(smollm2: pathlib.Path, template: str) -> None:
    with (
        Llama(smollm2, n_ctx=256, chat_template=template) as llm,
        pytest.raises(ChatError, match=r"macros call each other more than \d+ levels deep"),
    ):
        llm.create_chat_completion(ASK, max_tokens=1)


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        (CALLS.replace("N", "40"), "x" * 40),
        ("{%- macro f(x) -%}\n  {{ x }}\n{%- endmacro -%}A{{ f(1) }}B", "A1B"),
        ("{% macro f(x) %}\n  {{ x }}\n{% endmacro %}A{{ f(1) }}B", "A  1\nB"),
        ("{% macro f(x) %} {{ x }} {% endmacro %}A{{ f(1) }}B{{ f(2) }}{{ f(3) }}", "A 1 B 2  3 "),
    ],
)
def test_macros_print_what_they_did(smollm2: pathlib.Path, template: str, prompt: str) -> None:
    with Llama(smollm2, n_ctx=256, chat_template=template) as llm:
        llm.create_chat_completion(ASK, max_tokens=1)
        assert llm.detokenize(llm.tokens, special=True).startswith(prompt)


def test_long_templates_are_fine(smollm2: pathlib.Path) -> None:
    branches = "{% if x %}{% elif y %}{% endif %}{# ((( #}{{ '" + "(" * 5000 + "' and '' }}"
    branches *= 500
    with Llama(smollm2, n_ctx=256, chat_template=branches + "((( {{ messages[0]['content'] }}") as llm:
        prompt = llm.create_chat_completion(ASK, max_tokens=1)["usage"]["prompt_tokens"]
    assert prompt < 20


def test_json_that_is_nested_deeply(llm: Llama) -> None:
    deep = "[" * 50_000 + "]" * 50_000
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": deep}}
    with pytest.raises(ChatError, match="nested"):
        llm.create_chat_completion([*ASK, {"role": "assistant", "content": None, "tool_calls": [call]}])

    plain: dict[str, Any] = {
        "messages": json.dumps(ASK),
        "tools": "",
        "tool_choice": "none",
        "json_schema": "",
        "grammar": "",
        "parallel_tool_calls": False,
        "enable_thinking": False,
        "reasoning_format": "auto",
        "add_generation_prompt": True,
        "template_values": {},
    }
    for name, value in (("messages", deep), ("tools", deep), ("json_schema", deep), ("template_values", {"x": deep})):
        with pytest.raises(ChatError, match="nested"):
            llm.chat_templates.apply(**{**plain, name: value})
    assert deep in "".join(llm.chat_templates.apply(**plain).answer().update(deep, is_partial=False))  # is text here
    prompt = llm.chat_templates.apply(**{**plain, "tools": json.dumps([WEATHER]), "tool_choice": "required"})
    for text in (deep, '<tool_call>{"name": "get_weather", "arguments": {"city": ' + deep + "}}</tool_call>"):
        with pytest.raises(ChatError, match="brackets"):
            prompt.answer().update(text, is_partial=False)
