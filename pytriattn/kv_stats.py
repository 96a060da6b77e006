"""What a KV cache holds, what it has allocated, and what eviction has cost."""

from __future__ import annotations

from typing import Any, TypedDict

__all__ = ["KVStats", "kv_stats_of"]


class KVStats(TypedDict):
    """What `Llama.kv_stats` tells.

    ``tokens_seen`` and ``cells_used`` are of the text that is being read; bytes are those allocated, for all attention
    layers together; evictions, decoded tokens and seconds are sums since load. ``tokens_evicted`` counts keys per head.
    """

    tokens_seen: int
    cells_used: int
    cells_allocated: int
    kv_bytes: int
    k_bytes: int
    v_bytes: int
    recurrent_bytes: int
    evictions: int
    tokens_evicted: int
    tokens_decoded: int
    scoring_seconds: float
    selection_seconds: float
    compaction_seconds: float
    decoding_seconds: float


def kv_stats_of(context: Any) -> KVStats:
    """Return the figures of a ``_core.Context``."""
    c = context.counters()
    return KVStats(
        tokens_seen=c["n_tokens"],
        cells_used=c["cells_used"],
        cells_allocated=c["cells_allocated"],
        kv_bytes=c["k_bytes"] + c["v_bytes"],
        k_bytes=c["k_bytes"],
        v_bytes=c["v_bytes"],
        recurrent_bytes=c["recurrent_bytes"],
        evictions=c["n_evictions"],
        tokens_evicted=c["n_tokens_evicted"],
        tokens_decoded=c["n_decoded"],
        scoring_seconds=c["scoring_s"],
        selection_seconds=c["selection_s"],
        compaction_seconds=c["compaction_s"],
        decoding_seconds=c["decoding_s"],
    )
