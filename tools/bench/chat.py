#!/usr/bin/env python3
"""A chat of many turns far beyond the budget: cells, prompt reuse, time to the first token.

    python tools/bench/chat.py [--model smollm2|FILE.gguf] [--turns 40] [--budget 1024] [--no-reuse-evicted]
        [--json FILE]

Each turn asks about another piece of the bundled text and sends the whole conversation, as a chat program does. What
the statistics say of prompt reuse is held against the tokens themselves: before the first eviction all that the prompt
has in common with the text in the cache must be reused, afterwards nothing, or with ``--reuse-evicted`` whatever the
prompt adds to.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import _options
from pytriattn import Llama
from pytriattn.stats.bundled import bundled_text


def common(a: list[int], b: list[int]) -> int:
    """Return how many tokens two texts begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def expected_reuse(before: list[int], prompt: list[int], *, has_evicted: bool, reuse_evicted: bool) -> int:
    """Return how many tokens of a prompt need not be read."""
    same = min(common(before, prompt), len(prompt) - 1)
    if has_evicted and (not reuse_evicted or same < len(before)):
        return 0
    return same


def question(turn: int) -> str:
    """Return what is asked in a turn."""
    text = bundled_text()
    start = turn * 331 % (len(text) - 400)
    return f"Part {turn}. What is this about, and what may have come before it?\n\n{text[start : start + 300]}"


def chat(path: Path, *, turns: int, answer: int, budget: int, reuse_evicted: bool) -> list[dict[str, Any]]:
    """Hold the conversation; return a row for each turn.

    Raises:
        AssertionError: the statistics of prompt reuse are wrong, or the cells are not bounded.
    """
    messages: list[dict[str, Any]] = []
    rows = []
    with Llama(path, n_ctx=65536, budget=budget, reuse_evicted=reuse_evicted, seed=1) as llm:
        has_evicted = False
        for turn in range(turns):
            messages.append({"role": "user", "content": question(turn)})
            before, evictions = llm.tokens, llm.kv_stats()["evictions"]
            start = time.perf_counter()
            pieces, first = [], 0.0
            chunks: Any = llm.create_chat_completion(messages, max_tokens=answer, stream=True)
            for chunk in chunks:
                first = first or time.perf_counter() - start
                pieces.append(chunk["choices"][0]["delta"].get("content") or "")
            total = time.perf_counter() - start
            messages.append({"role": "assistant", "content": "".join(pieces)})
            stats = llm.kv_stats()
            n_prompt = stats["prompt_tokens_reused"] + stats["prompt_tokens_read"]
            expected = expected_reuse(
                before, llm.tokens[:n_prompt], has_evicted=has_evicted, reuse_evicted=reuse_evicted
            )
            assert stats["prompt_tokens_reused"] == expected, (turn, stats["prompt_tokens_reused"], expected)
            assert stats["cells_used"] <= stats["cells_allocated"]
            if expected == 0:
                has_evicted = False
            has_evicted = has_evicted or stats["evictions"] > evictions
            rows.append(
                {
                    "turn": turn,
                    "prompt_tokens": n_prompt,
                    "reused": stats["prompt_tokens_reused"],
                    "rereads": stats["prompt_rereads"],
                    "tokens": stats["tokens_seen"],
                    "cells_used": stats["cells_used"],
                    "cells_allocated": stats["cells_allocated"],
                    "evictions": stats["evictions"],
                    "first_token_s": first,
                    "seconds": total,
                }
            )
    return rows


def main() -> int:
    """Command line entry."""
    parser = _options.parser(__doc__)
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--answer", type=int, default=120, help="tokens of each answer, at most (default: %(default)s)")
    parser.add_argument("--budget", type=int, default=1024)
    parser.add_argument(
        "--no-reuse-evicted",
        dest="reuse_evicted",
        action="store_false",
        help="read each prompt anew once keys have been evicted",
    )
    arguments = parser.parse_args()
    path = _options.model_path(arguments.model)
    rows = chat(
        path,
        turns=arguments.turns,
        answer=arguments.answer,
        budget=arguments.budget,
        reuse_evicted=arguments.reuse_evicted,
    )
    print("turn  prompt  reused  rereads  text  cells  evictions  first token  turn")
    for row in rows:
        if row["turn"] % 5 == 4 or row["turn"] == 0:
            print(
                f"{row['turn'] + 1:4d}  {row['prompt_tokens']:6d}  {row['reused']:6d}  {row['rereads']:7d}  "
                f"{row['tokens']:5d}  "
                f"{row['cells_used']:5d}  {row['evictions']:9d}  {row['first_token_s']:9.2f} s  {row['seconds']:.2f} s"
            )
    print(
        f"{rows[-1]['tokens']} tokens in {rows[-1]['cells_allocated']} cells; "
        f"{sum(row['seconds'] for row in rows):.0f} s in all; "
        f"prompts read again: {rows[-1]['rereads']}"
    )
    _options.write_json(arguments.json, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
