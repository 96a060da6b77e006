"""What a KV cache holds and has allocated, and the time that evictions took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from pytriattn._native import core

__all__ = ["KVStats", "PromptCounters", "kv_stats_of"]


@dataclass
class PromptCounters:
    """How many tokens of prompts were in the cache already."""

    n_reused: int = 0
    n_read: int = 0
    n_rereads: int = 0

    def record(self, *, n_tokens: int, n_reused: int, was_lost: bool) -> None:
        """Record a prompt of `n_tokens`; `was_lost`: an eviction had touched its beginning, which was in the cache."""
        self.n_reused, self.n_read = n_reused, n_tokens - n_reused
        self.n_rereads += int(was_lost)


class KVStats(TypedDict):
    """The figures that `Llama.kv_stats` returns.

    Bytes are those allocated. The last nine figures are sums since the model was loaded.

    Attributes:
        question: positions (begin, end) of the tokens that choose what is kept; None: no tokens do.
        prompt_tokens_reused: tokens of the last prompt that were in the cache.
        prompt_tokens_read: tokens of the last prompt that were read.
        prompt_rereads: prompts since load whose beginning was read again because an eviction had touched it.
        tokens_seen: tokens of the text that the cache holds, with those evicted.
        cells_used: cells that this text uses.
        cells_allocated: cells of layers with full attention.
        kv_bytes: bytes of keys and values in all attention layers.
        k_bytes: bytes of keys.
        v_bytes: bytes of values.
        recurrent_bytes: bytes of recurrent states.
        device_bytes: name of a device -> bytes of keys, values and recurrent states that it holds.
        evictions: number of evictions.
        tokens_evicted: keys evicted per head.
        tokens_decoded: tokens that llama.cpp has computed.
        scoring_seconds: seconds for scores.
        selection_seconds: seconds for choosing keys.
        compaction_seconds: seconds for moving rows.
        decoding_seconds: seconds in llama.cpp's decoder.
        tokens_drafted: tokens computed on a guess of ``draft_model``.
        tokens_accepted: those of them that were right.
    """

    question: tuple[int, int] | None
    prompt_tokens_reused: int
    prompt_tokens_read: int
    prompt_rereads: int
    tokens_seen: int
    cells_used: int
    cells_allocated: int
    kv_bytes: int
    k_bytes: int
    v_bytes: int
    recurrent_bytes: int
    device_bytes: dict[str, int]
    evictions: int
    tokens_evicted: int
    tokens_decoded: int
    tokens_drafted: int
    tokens_accepted: int
    scoring_seconds: float
    selection_seconds: float
    compaction_seconds: float
    decoding_seconds: float


def kv_stats_of(context: core.Context, prompts: PromptCounters, question: tuple[int, int] | None) -> KVStats:
    """Return the figures of a context."""
    counters, seconds = context.counters(), context.seconds()
    return KVStats(
        question=question,
        prompt_tokens_reused=prompts.n_reused,
        prompt_tokens_read=prompts.n_read,
        prompt_rereads=prompts.n_rereads,
        tokens_seen=counters.n_tokens,
        cells_used=counters.cells_used,
        cells_allocated=counters.cells_allocated,
        kv_bytes=counters.k_bytes + counters.v_bytes,
        k_bytes=counters.k_bytes,
        v_bytes=counters.v_bytes,
        recurrent_bytes=counters.recurrent_bytes,
        device_bytes=context.device_bytes(),
        evictions=counters.n_evictions,
        tokens_evicted=counters.n_tokens_evicted,
        tokens_decoded=counters.n_decoded,
        tokens_drafted=counters.n_drafted,
        tokens_accepted=counters.n_accepted,
        scoring_seconds=seconds.scoring,
        selection_seconds=seconds.selection,
        compaction_seconds=seconds.compaction,
        decoding_seconds=seconds.decoding,
    )
