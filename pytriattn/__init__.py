"""Run GGUF language models on very long texts in bounded KV-cache memory: llama.cpp with TriAttention.

Every public name is here. What lies in the packages below may change.
"""

from __future__ import annotations

from importlib.metadata import version

from pytriattn._native import core as _core_module
from pytriattn.async_llama import AsyncLlama
from pytriattn.conversion.files import Converted, convert_file
from pytriattn.errors import (
    BackendError,
    BudgetError,
    BudgetWarning,
    BusyError,
    CacheMemoryError,
    ChatError,
    ClosedError,
    ContextError,
    ContextFullError,
    ContextWarning,
    DecodeError,
    GrammarError,
    GrammarWarning,
    ImageError,
    InvalidTokenError,
    ModelLoadError,
    ModelMemoryError,
    RequestCancelledError,
    ServerLostError,
    StateError,
    StatsError,
    StatsWarning,
    TriAttnError,
    UnsupportedModelError,
)
from pytriattn.eviction.counters import KVStats
from pytriattn.eviction.records import Eviction
from pytriattn.generation.chat_types import (
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatLogprobs,
    ChatMessage,
    ChatTokenLogprob,
    TokenLogprob,
    ToolCall,
    ToolFunction,
)
from pytriattn.generation.completion import (
    Completion,
    CompletionChoice,
    CompletionChunk,
    CompletionLogprobs,
    CompletionUsage,
)
from pytriattn.generation.continuations import ContinuationScore, ContinuationScorer
from pytriattn.generation.sampling import LlamaGrammar, SamplingParams
from pytriattn.generation.token_stream import Generation
from pytriattn.gguf.identity import ModelIdentity
from pytriattn.lab.errors import LabError
from pytriattn.lab.plots import plot_quality
from pytriattn.lab.results import EvalResults
from pytriattn.lab.rules import register_rule
from pytriattn.lab.rules.base import Rule
from pytriattn.lab.runner import run_eval
from pytriattn.lab.settings import EvalSettings
from pytriattn.llama import Llama
from pytriattn.model_info.info import ModelInfo
from pytriattn.model_info.kv_bytes import KVBytes
from pytriattn.model_info.layers import Fact, LayerInfo, LayerKind, RopeInfo
from pytriattn.model_info.reader import gguf_info
from pytriattn.options.cache import CacheOptions
from pytriattn.options.drafting import LlamaDraftModel, LlamaModelDrafting, LlamaPromptLookupDecoding
from pytriattn.options.eviction import EvictionSettings, KeyScoreOptions
from pytriattn.options.rope import RopeSettings
from pytriattn.plotting.curves import expected_logits, typical_heads
from pytriattn.plotting.figures import (
    DEFAULT_DISTANCE,
    plot_concentration,
    plot_expected_logits,
    plot_kept,
    plot_stats,
    save_figure,
)
from pytriattn.plotting.kept import KeptKeys, PlotError, kept_keys, load_kept, save_kept
from pytriattn.preflight.findings import Finding, Status, raise_failures
from pytriattn.preflight.run import run_preflight
from pytriattn.preflight.settings import PreflightSettings
from pytriattn.session.embeddings import Embedding, EmbeddingResponse, EmbeddingUsage
from pytriattn.stats.bundled import bundled_text
from pytriattn.stats.calibration import calibrate
from pytriattn.stats.layer_stats import LayerStats
from pytriattn.stats.model_stats import TriAttentionStats

__all__ = [
    "AsyncLlama",
    "BackendError",
    "BudgetError",
    "BudgetWarning",
    "BusyError",
    "CacheMemoryError",
    "CacheOptions",
    "ChatChoice",
    "ChatChunk",
    "ChatChunkChoice",
    "ChatCompletion",
    "ChatDelta",
    "ChatError",
    "ChatLogprobs",
    "ChatMessage",
    "ChatTokenLogprob",
    "ClosedError",
    "Completion",
    "CompletionChoice",
    "CompletionChunk",
    "CompletionLogprobs",
    "CompletionUsage",
    "ContextError",
    "ContextFullError",
    "ContextWarning",
    "ContinuationScore",
    "ContinuationScorer",
    "Converted",
    "DEFAULT_DISTANCE",
    "DecodeError",
    "Embedding",
    "EmbeddingResponse",
    "EmbeddingUsage",
    "EvalResults",
    "EvalSettings",
    "Eviction",
    "EvictionSettings",
    "Fact",
    "Finding",
    "Generation",
    "GrammarError",
    "GrammarWarning",
    "ImageError",
    "InvalidTokenError",
    "KVBytes",
    "KVStats",
    "KeyScoreOptions",
    "KeptKeys",
    "LabError",
    "LayerInfo",
    "LayerKind",
    "LayerStats",
    "Llama",
    "LlamaDraftModel",
    "LlamaGrammar",
    "LlamaModelDrafting",
    "LlamaPromptLookupDecoding",
    "ModelIdentity",
    "ModelInfo",
    "ModelLoadError",
    "ModelMemoryError",
    "PlotError",
    "PreflightSettings",
    "RequestCancelledError",
    "RopeInfo",
    "RopeSettings",
    "Rule",
    "SamplingParams",
    "ServerLostError",
    "StateError",
    "StatsError",
    "StatsWarning",
    "Status",
    "TokenLogprob",
    "ToolCall",
    "ToolFunction",
    "TriAttentionStats",
    "TriAttnError",
    "UnsupportedModelError",
    "__version__",
    "bundled_text",
    "calibrate",
    "convert_file",
    "expected_logits",
    "gguf_info",
    "kept_keys",
    "llama_cpp_commit",
    "load_kept",
    "plot_concentration",
    "plot_expected_logits",
    "plot_kept",
    "plot_quality",
    "plot_stats",
    "raise_failures",
    "register_rule",
    "run_eval",
    "run_preflight",
    "save_figure",
    "save_kept",
    "typical_heads",
]

__version__ = version("pytriattn")
llama_cpp_commit: str = _core_module.LLAMA_CPP_COMMIT
"""The commit of llama.cpp that is compiled in."""
