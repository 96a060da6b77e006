"""Measure what guessing tokens ahead gives: the speed of greedy text with `draft_model`, that without = 1.

    python tools/bench/drafts.py [--model smollm2|gemma3|FILE.gguf] [--draft-model FILE.gguf] [--budget N]

Three texts: one that repeats itself (rows of a table, which the model goes on writing), prose, and prose that the model
is asked to write down once more. All loaded models take turns, so that a busy machine is as busy for all.
"""

from __future__ import annotations

import pydoc_data.topics
import statistics
import time
from typing import Any

import _options
from pytriattn import Llama, LlamaModelDrafting, LlamaPromptLookupDecoding

PROSE = pydoc_data.topics.topics["naming"][:2400]
TEXTS = {
    "a table": "".join(f"| {n} | item {n} | {n % 7} pieces | in stock |\n" for n in range(100, 150)),
    "prose": PROSE,
    "prose once more": f"{PROSE}\n\nThe same text once more:\n\n{PROSE[:400]}",
}


def seconds(llm: Llama, text: str, n: int) -> tuple[float, str]:
    """Return the time of `n` tokens behind a text that has been read, and what was written."""
    tokens = llm.tokenize(text)
    written = llm.generate(tokens, n, temperature=0.0, ignore_eos=True)
    first = next(written)
    begin = time.perf_counter()
    rest = list(written)
    return time.perf_counter() - begin, llm.detokenize([first, *rest])


def main() -> None:
    """Command line entry."""
    parser = _options.parser(__doc__, rounds=3)
    parser.add_argument("--draft-model", help="a small model that drafts (default: none)")
    parser.add_argument("--budget", type=int, help="keys per head (default: the full cache)")
    parser.add_argument("--tokens", type=int, default=96, help="tokens of a timing (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    path = _options.model_path(arguments.model)
    rules: dict[str, Any] = {"nothing": None, "the text itself": LlamaPromptLookupDecoding(3, 8)}
    if arguments.draft_model:
        rules["a model"] = LlamaModelDrafting(arguments.draft_model)
    settings: dict[str, Any] = {"n_ctx": 2048, "n_threads": arguments.threads, "budget": arguments.budget}
    opened = {name: Llama(path, draft_model=rule, **settings) for name, rule in rules.items()}
    figures: dict[str, dict[str, float]] = {}
    for kind, text in TEXTS.items():
        times: dict[str, list[float]] = {name: [] for name in rules}
        written: dict[str, str] = {}
        before = {name: llm.kv_stats() for name, llm in opened.items()}
        for _ in range(arguments.rounds):
            for name, llm in opened.items():
                taken, written[name] = seconds(llm, text, arguments.tokens)
                times[name].append(taken)
        speed = arguments.tokens / statistics.median(times["nothing"])
        print(f"{kind}: {speed:.1f} tokens/s without drafts")
        for name in [*rules][1:]:
            ratio = statistics.median(a / b for a, b in zip(times["nothing"], times[name], strict=True))
            stats, old = opened[name].kv_stats(), before[name]
            drafted, right = (stats[k] - old[k] for k in ("tokens_drafted", "tokens_accepted"))
            same = "the same text" if written[name] == written["nothing"] else "another text"
            print(f"  drafts from {name}: {ratio:.2f} x; {right} of {drafted} guesses were right; {same}", flush=True)
            figures.setdefault(kind, {})[name] = ratio
    _options.write_json(arguments.json, figures)


if __name__ == "__main__":
    main()
