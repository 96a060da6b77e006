"""JSON schemas, as far as a grammar can hold an answer to them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytriattn._native import core
from pytriattn.errors import GrammarError, GrammarWarning

__all__ = ["check_patterns", "grammar_of_schema", "warn_of_patterns"]

_VALUES = frozenset({"const", "default", "enum", "example", "examples"})  # keywords whose content is no schema


def grammar_of_schema(schema: str | Mapping[str, Any]) -> str:
    """Return the GBNF rules of a schema, given as text or as a mapping.

    Raises:
        GrammarError: the schema uses something that a grammar cannot express.
    """
    text = schema if isinstance(schema, str) else json.dumps(schema)
    rules = core.grammar_of_schema(text)
    check_patterns(json.loads(text))
    return rules


def check_patterns(schema: Any) -> None:
    """Refuse regular expressions that llama.cpp cannot turn into a grammar: it would accept any string instead.

    Raises:
        GrammarError: there is one, or one that is no regular expression.
    """
    for pattern in _unsupported_patterns(schema):
        raise GrammarError(
            f"this JSON schema cannot be turned into a grammar: the pattern {pattern!r} has no equivalent there. It "
            f"must begin with "
            "'^' and end with '$', without look-around, back references and word boundaries; or leave it out and "
            "check the answer"
        )


def warn_of_patterns(tools: Sequence[Mapping[str, Any]]) -> None:
    """Warn of such expressions in the parameters of tools, which come from elsewhere as a rule: their calls go on
    without them.
    """
    for tool in tools:
        function = tool.get("function") or {}
        for pattern in _unsupported_patterns(function.get("parameters")):
            warnings.warn(
                f"the tool {function.get('name')!r} wants an argument of the pattern {pattern!r}, which has no "
                f"equivalent in a grammar "
                "(it must begin with '^' and end with '$', without look-around): the model may give any string there",
                GrammarWarning,
                stacklevel=2,
            )


def _unsupported_patterns(schema: Any) -> Iterator[str]:
    for pattern in dict.fromkeys(_patterns(schema)):
        rules = core.grammar_of_schema(json.dumps({"type": "string", "pattern": pattern}))
        # where it gives up it refers to the rule of all strings; a pattern's own rules stand in the root
        if "root ::= string" in rules.splitlines():
            yield pattern


def _patterns(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        for key, value in schema.items():
            if key == "pattern" and isinstance(value, str):
                yield value
            elif key not in _VALUES:
                yield from _patterns(value)
    elif isinstance(schema, Sequence) and not isinstance(schema, (str, bytes)):
        for value in schema:
            yield from _patterns(value)
