"""What tasks need of a model: its tokens, its chat template, what it generates."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from pytriattn.errors import ChatError
from pytriattn.lab.documents import Tokens
from pytriattn.lab.reading import STEP
from pytriattn.lab.tasks.base import ChatPieces
from pytriattn.llama import Llama

__all__ = ["chat_pieces", "generate_after", "tokens_of"]

_MARKS = ("<<system>>", "<<user one>>", "<<answer one>>", "<<user two>>", "<<answer two>>")


def tokens_of(llm: Llama, text: str, *, special: bool = False) -> list[int]:
    """Return the token ids of a text, without the tokens that begin and end one."""
    return llm.tokenize(text, add_bos=False, special=special)


def chat_pieces(llm: Llama) -> ChatPieces:
    """Return what stands around messages in the model's chat template; in ``User:`` and ``Assistant:`` if it has none
    that fits.
    """
    begin = begin_tokens(llm)
    try:
        text = _templated(llm)
        at = [text.index(mark) for mark in _MARKS]
        parts = [text[: at[0]]] + [text[at[i] + len(_MARKS[i]) : at[i + 1]] for i in range(4)]
        if sorted(at) != at:
            raise ChatError("the messages are out of order")
    except (ChatError, ValueError):
        parts = ["", "\n\nUser: ", "\nAssistant: ", "\nUser: ", "\nAssistant: "]
    pieces = [tokens_of(llm, part, special=True) for part in parts]
    if pieces[0][: len(begin)] != begin:
        pieces[0] = begin + pieces[0]
    return ChatPieces(pieces[0], pieces[1], pieces[2], pieces[3])


def _templated(llm: Llama) -> str:
    if "tokenizer.chat_template" not in llm.metadata:
        raise ChatError("the model has no chat template")
    roles = ("system", "user", "assistant", "user", "assistant")
    messages = [{"role": role, "content": mark} for role, mark in zip(roles, _MARKS, strict=True)]
    templated = llm.chat_templates.apply(
        messages=json.dumps(messages),
        tools="",
        tool_choice="none",
        json_schema="",
        grammar="",
        parallel_tool_calls=False,
        enable_thinking=False,
        reasoning_format="none",
        add_generation_prompt=False,
        template_values={},
    )
    return templated.prompt.decode("utf-8")


def begin_tokens(llm: Llama) -> list[int]:
    """Return the tokens that begin every text of this model."""
    found = llm.tokenize("")
    return found[:1] if found[:1] == [llm.token_bos()] else []


def generate_after(llm: Llama, tokens: Tokens, n_tokens: int, *, is_greedy: bool, seed: int) -> Tokens:
    """Return `n_tokens` that the model generates after a text; an end of text does not end it."""
    llm.reset()
    for start in range(0, len(tokens), STEP):
        llm.eval(tokens[start : start + STEP])
    sampling: dict[str, Any] = (
        {"temperature": 0.0} if is_greedy else {"temperature": 1.0, "top_p": 0.95, "top_k": 0, "seed": seed}
    )
    said = list(llm.generate(None, n_tokens, ignore_eos=True, **sampling))
    return np.array(said, dtype=np.int32)
