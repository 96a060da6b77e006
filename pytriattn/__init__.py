"""Run GGUF language models on very long texts in bounded KV-cache memory: llama.cpp with TriAttention."""

from __future__ import annotations

from importlib.metadata import version

from pytriattn._native import core as _core_module
from pytriattn.async_llama import AsyncLlama
from pytriattn.calibration import calibrate
from pytriattn.convert_file import convert_file
from pytriattn.errors import (
    BackendError,
    BudgetError,
    BusyError,
    ChatError,
    ClosedError,
    ContextError,
    ContextFullError,
    ContextWarning,
    DecodeError,
    GrammarError,
    GrammarWarning,
    InvalidTokenError,
    ModelLoadError,
    RequestCancelledError,
    ServerLostError,
    StateError,
    StatsError,
    TriAttnError,
    UnsupportedModelError,
)
from pytriattn.evictions import Eviction
from pytriattn.gguf_info import gguf_info
from pytriattn.kv_stats import KVStats
from pytriattn.llama import Llama
from pytriattn.model_info import ModelInfo
from pytriattn.sampling import LlamaGrammar, SamplingParams
from pytriattn.stats import LayerStats, TriAttentionStats

__all__ = [
    "AsyncLlama",
    "BackendError",
    "BudgetError",
    "BusyError",
    "ChatError",
    "ClosedError",
    "ContextError",
    "ContextFullError",
    "ContextWarning",
    "DecodeError",
    "Eviction",
    "GrammarError",
    "GrammarWarning",
    "InvalidTokenError",
    "KVStats",
    "LayerStats",
    "Llama",
    "LlamaGrammar",
    "ModelInfo",
    "ModelLoadError",
    "RequestCancelledError",
    "ServerLostError",
    "SamplingParams",
    "StateError",
    "StatsError",
    "TriAttentionStats",
    "TriAttnError",
    "UnsupportedModelError",
    "__version__",
    "calibrate",
    "convert_file",
    "gguf_info",
    "llama_cpp_commit",
]

__version__ = version("pytriattn")
llama_cpp_commit: str = _core_module.LLAMA_CPP_COMMIT
"""The commit of llama.cpp that is compiled in."""
