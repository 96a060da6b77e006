"""What is fuzzed: functions that take bytes and raise nothing but errors that a user is told of.

Any other exception, a process that ends, and a call of more than five seconds is a finding.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytriattn import (
    ChatError,
    DecodeError,
    GrammarError,
    GrammarWarning,
    Llama,
    LlamaGrammar,
    ModelLoadError,
    StateError,
    StatsError,
    TriAttentionStats,
    TriAttnError,
)
from pytriattn._native import backends, core
from pytriattn.conversion.formats import parse_foreign
from pytriattn.conversion.formats.restricted_pickle import load as load_pickle
from pytriattn.model_info.reader import gguf_info

__all__ = ["TARGETS", "Target"]

Target = Callable[[bytes], None]

TINY: dict[str, Any] = {"n_ctx": 512, "n_threads": 1, "budget": 48, "interval": 16, "window": 8, "mode": "random"}


@functools.cache
def _folder() -> Path:
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="pytriattn-fuzz-", dir=memory if memory.is_dir() else None))


def _file(name: str, data: bytes) -> Path:
    path = _folder() / name
    path.write_bytes(data)
    return path


@functools.cache
def _tiny_model() -> Path:
    from models.registry import make_tiny_model

    return make_tiny_model("llama", _folder())


@functools.cache
def _tiny() -> Llama:
    return Llama(_tiny_model(), **TINY)


@functools.cache
def _chat_model() -> core.Model:
    from models.real import fetch

    backends.require()
    return core.Model(fetch("smollm2"))


# -- files


def sidecar(data: bytes) -> None:
    """Read statistics of our own format."""
    with contextlib.suppress(StatsError):
        TriAttentionStats.load(_file("fuzz.triattention", data))


def foreign(data: bytes) -> None:
    """Read statistics of other programs."""
    with contextlib.suppress(StatsError):
        parse_foreign(data)


def pickle(data: bytes) -> None:
    """Read a pickle without running it."""
    with contextlib.suppress(StatsError):
        load_pickle(data)


def gguf(data: bytes) -> None:
    """Read the header of a model: by our own reader, and by llama.cpp's."""
    path = _file("fuzz.gguf", data)
    with contextlib.suppress(ModelLoadError):
        gguf_info(path)
    with contextlib.suppress(TriAttnError):
        core.describe_gguf(path)


@functools.cache
def _state_parts() -> tuple[dict[str, Any], list[bytes]]:
    """Return the header and the parts of a state of the tiny model, which has been evicted from."""
    llm = _tiny()
    llm.eval(list(range(3, 100)))
    data = llm.save_state()
    assert isinstance(data, bytes)
    at = 16 + int.from_bytes(data[12:16], "little")
    header = json.loads(data[16:at])
    parts = []
    for size in header["sizes"]:
        parts.append(data[at : at + size])
        at += size
    return header, parts


def state(data: bytes) -> None:
    """Load a saved state whose checksum is right: the input says which bytes of a good one are others."""
    header, (tokens, cells, origins) = _state_parts()
    changed = [bytearray(tokens), bytearray(cells), bytearray(origins)]
    if data[:1] == b"H":  # a header of its own
        text = data[1:]
    else:
        for i in range(0, len(data) - 6, 7):
            part = changed[data[i] % 3]
            # what is counted and placed stands in the first bytes, and for cells in the first kilobytes
            place = int.from_bytes(data[i + 1 : i + 3], "little")
            if data[i] & 0x80:
                del part[place:]
            elif place + 4 <= len(part):
                part[place : place + 4] = data[i + 3 : i + 7]
        n_tokens = header["n_past"] if len(data) % 7 < 3 else int.from_bytes(data[-2:], "little")
        changed_header = {**header, "sizes": [len(part) for part in changed], "n_past": n_tokens}
        text = json.dumps(changed_header).encode()
    body = b"PTASTATE" + (2).to_bytes(4, "little") + len(text).to_bytes(4, "little") + text + b"".join(changed)
    llm = _tiny()
    with contextlib.suppress(StateError, DecodeError):
        llm.load_state(body + hashlib.sha256(body).digest())
        for layer in llm.attention_layers:
            llm.kept_positions(layer, 0)
        for token in range(3, 40):
            llm.eval([token])


# -- texts


def schema(data: bytes) -> None:
    """Make a grammar of a JSON schema, and look at it as a sampler would."""
    text = data.decode("utf-8", "replace")
    with contextlib.suppress(GrammarError), warnings.catch_warnings():
        warnings.simplefilter("ignore", GrammarWarning)
        grammar(LlamaGrammar.from_json_schema(text).text.encode())


def grammar(data: bytes) -> None:
    """Make a sampler that follows a grammar."""
    settings = core.SamplingSettings()
    settings.set_grammar("user", data.decode("utf-8", "replace"))
    with contextlib.suppress(GrammarError):
        core.Sampler(_chat_model(), settings)


def messages(data: bytes) -> None:
    """Put chat messages and tools into a model's template."""
    text = data.decode("utf-8", "replace")
    conversation, _, tools = text.partition("\0")
    _apply(_templates(), conversation, tools)


def template(data: bytes) -> None:
    """Run a chat template on a conversation."""
    text = data.decode("utf-8", "replace")
    with contextlib.suppress(ChatError):
        _apply(core.ChatTemplates(_chat_model(), text), json.dumps([{"role": "user", "content": "Hello"}]), "")


@functools.cache
def _templates() -> core.ChatTemplates:
    return core.ChatTemplates(_chat_model())


def _apply(templates: core.ChatTemplates, conversation: str, tools: str) -> None:
    with contextlib.suppress(ChatError, GrammarError):
        prompt = templates.apply(
            messages=conversation,
            tools=tools,
            tool_choice="auto",
            json_schema="",
            grammar="",
            parallel_tool_calls=False,
            enable_thinking=False,
            reasoning_format="none",
            add_generation_prompt=True,
            template_values={},
        )
        prompt.answer().update("<tool_call>\n{", is_partial=True)


# -- calls


def calls(data: bytes) -> None:
    """Call public methods of a model in the order that the bytes say, and hold what it says against what was asked."""
    settings = {**TINY, "mode": ("random", "recent", "random", "recent")[data[0] % 4] if data else "random"}
    if data and data[0] & 4:
        settings["n_seq_max"] = 2
    llm = Llama(_tiny_model(), **settings)
    saved: list[bytes] = []
    at = 1
    n_calls = 0
    while at + 1 < len(data) and n_calls < 60:
        which, n = data[at] % 13, data[at + 1]
        at += 2
        n_calls += 1
        tokens = [3 + (n * 31 + i * 7) % 240 for i in range(n)]
        with contextlib.suppress(TriAttnError, ValueError, IndexError):
            _call(llm, which, n, tokens, saved)
        if which == 12:
            break
        counters = llm._open_context().counters()
        assert counters.cells_used <= counters.cells_allocated
        if llm._open_context().n_seq_max == 1:
            assert llm._open_context().n_tokens() == len(llm.tokens) == llm.n_tokens
        for layer in llm.attention_layers:
            kept = llm.kept_positions(layer, 0)
            assert len(set(kept.tolist())) == len(kept) and (kept < llm._open_context().n_tokens()).all()
    llm.close()


def _leave(llm: Llama, n: int, tokens: list[int]) -> None:
    next(llm.generate(tokens, max_tokens=n), None)


def _save(llm: Llama, saved: list[bytes]) -> None:
    state = llm.save_state()
    assert isinstance(state, bytes)
    saved.append(state)


def _call(llm: Llama, which: int, n: int, tokens: list[int], saved: list[bytes]) -> None:
    choices: list[Callable[[], object]] = [
        lambda: llm.eval(tokens),
        lambda: list(llm.generate(tokens or None, max_tokens=n % 40, seed=1, ignore_eos=True)),
        lambda: llm.truncate(len(llm.tokens) - n),
        llm.reset,
        lambda: _save(llm, saved),
        lambda: llm.load_state(saved[n % len(saved)]) if saved else None,
        lambda: llm.logprobs(tokens),
        lambda: llm.score_next(tokens, n % 3),
        lambda: llm.generate_batch([tokens, tokens[1:]], max_tokens=n % 20),
        lambda: _leave(llm, n, tokens),
        lambda: llm.read_logits(tokens),
        lambda: (llm.logits.sum(), llm.kv_stats()),
        lambda: (llm.close(), llm.eval(tokens)),  # type: ignore[func-returns-value]
    ]
    choices[which]()


TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (sidecar, foreign, pickle, gguf, state, schema, grammar, messages, template, calls)
}


def main(name: str, path: str) -> None:
    """Run one target on one file: for a finding that is to be looked into."""
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    TARGETS[name](Path(path).read_bytes())
