"""JSON schemas as grammars: an answer is held to all of a schema, or the schema is refused."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from pytriattn._native import core
from pytriattn.errors import GrammarError, GrammarWarning
from pytriattn.generation.schemas.keywords import Impossible, NotHeld
from pytriattn.generation.schemas.numbers import exchange_numbers
from pytriattn.generation.schemas.rewriting import GiveUp, rewrite_schema

__all__ = ["exchange_numbers", "grammar_of_schema", "held_schema", "held_tools"]


def grammar_of_schema(schema: str | Mapping[str, Any]) -> str:
    """Return the GBNF rules of a schema, given as text or as a mapping.

    Raises:
        GrammarError: a part of the schema has no equivalent in a grammar, or no value fulfils it.
    """
    return exchange_numbers(core.grammar_of_schema(held_schema(schema)))


def held_schema(schema: str | Mapping[str, Any]) -> str:
    """Return a schema, as text, that llama.cpp's grammar enforces in full, and whose answers fulfil `schema`.

    Call `exchange_numbers` with the grammar: it writes the numbers with bounds.

    Raises:
        GrammarError: there is no such schema.
    """
    return _checked(_rewritten(schema, _refuse, holds_numbers=True))


def held_tools(tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return tools whose parameters llama.cpp's grammar enforces.

    Tools usually come from other programs, so a part of their parameters that has no equivalent in a grammar only gives
    a `GrammarWarning`.

    Raises:
        GrammarError: their parameters are no schema, or no value fulfils it.
    """
    result: list[dict[str, Any]] = []
    for tool in tools:
        function = tool.get("function")
        if not isinstance(function, Mapping) or not isinstance(function.get("parameters"), Mapping):
            result.append(dict(tool))  # for the template to judge
            continue
        name = function.get("name")
        try:
            parameters = _rewritten(function["parameters"], _warner(name), holds_numbers=False)
            _checked(parameters)
        except GrammarError as error:
            raise GrammarError(f"the tool {name!r}: {error}") from error
        result.append({**tool, "function": {**function, "parameters": parameters}})
    return result


def _refuse(path: str, part: NotHeld) -> None:
    why = f" ({part.why})" if part.why else ""
    raise GrammarError(
        f"this JSON schema cannot be turned into a grammar: {part.what} has no equivalent there{why}, at {path}; "
        "leave it out and check the answer"
    )


def _warner(name: Any) -> GiveUp:
    def warn(path: str, part: NotHeld) -> None:
        why = f" ({part.why})" if part.why else ""
        warnings.warn(
            f"the tool {name!r} wants an argument of {part.what}, which has no equivalent in a grammar{why}, at "
            f"{path}; the model may give any value there",
            GrammarWarning,
            stacklevel=2,
        )

    return warn


def _rewritten(schema: str | Mapping[str, Any], give_up: GiveUp, *, holds_numbers: bool) -> dict[str, Any]:
    try:
        value = json.loads(schema if isinstance(schema, str) else json.dumps(schema))
    except RecursionError as error:
        raise GrammarError("this JSON schema is nested too deeply") from error
    except (TypeError, ValueError) as error:
        raise GrammarError(f"this JSON schema cannot be turned into a grammar: it is no JSON: {error}") from error
    try:
        return rewrite_schema(value, give_up, holds_numbers=holds_numbers)
    except Impossible as error:
        raise GrammarError(str(error)) from error


def _checked(schema: Mapping[str, Any]) -> str:
    text = json.dumps(schema)
    core.grammar_of_schema(text)
    return text
