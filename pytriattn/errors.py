"""The exceptions of pytriattn. Each also is the built-in type that a caller would expect in its place."""

from __future__ import annotations

__all__ = [
    "BackendError",
    "BudgetError",
    "BusyError",
    "CacheMemoryError",
    "ChatError",
    "ClosedError",
    "ContextError",
    "ContextFullError",
    "ContextWarning",
    "DecodeError",
    "GrammarError",
    "GrammarWarning",
    "ImageError",
    "InvalidTokenError",
    "ModelLoadError",
    "ModelMemoryError",
    "RequestCancelledError",
    "ServerLostError",
    "StateError",
    "StatsError",
    "TriAttnError",
    "UnsupportedModelError",
]


class TriAttnError(Exception):
    """Base of all errors that pytriattn raises."""


class BackendError(TriAttnError, RuntimeError):
    """A ggml backend (CPU, CUDA, ...) is missing, broken, of another build than this package, or lost by a fork."""


class ModelLoadError(TriAttnError, ValueError):
    """A model file is missing, damaged or of another kind."""


class UnsupportedModelError(TriAttnError, ValueError):
    """Eviction from this model's cache is impossible or untested; the message says why and what still works."""


class StatsError(TriAttnError, ValueError):
    """Statistics (a ``.triattention`` file) are damaged, of another version, or of another model."""


class StateError(TriAttnError, ValueError):
    """A saved state is damaged, of another version, or of another model or other settings."""


class BudgetError(TriAttnError, ValueError):
    """An eviction setting contradicts another setting or the context."""


class ContextError(TriAttnError, ValueError):
    """A context cannot be made or used as asked."""


class ContextFullError(TriAttnError, ValueError):
    """A text is longer than ``n_ctx``."""


class CacheMemoryError(ContextError, MemoryError):
    """There is not enough memory for a context's cache; the message says its size and the settings to change."""


class ModelMemoryError(ModelLoadError, MemoryError):
    """There is not enough memory for a model's weights."""


class BudgetWarning(UserWarning):
    """A budget leaves hardly any key to choose."""


class ContextWarning(UserWarning):
    """A text goes beyond the positions that the model was trained for."""


class StatsWarning(UserWarning):
    """Statistics lack something, or rest on too little text."""


class InvalidTokenError(TriAttnError, ValueError):
    """A token is not in the vocabulary, or there are no tokens at all."""


class GrammarError(TriAttnError, ValueError):
    """A grammar or a JSON schema cannot be used, or admits no token that is left to draw."""


class GrammarWarning(UserWarning):
    """A part of a tool's JSON schema has no equivalent in a grammar."""


class ChatError(TriAttnError, ValueError):
    """The model's chat template cannot take these messages or tools, or its answer cannot be read."""


class ImageError(TriAttnError, ValueError):
    """An image is none, damaged, too large, or cannot be put into the prompt; or the model takes no images."""


class DecodeError(TriAttnError, RuntimeError):
    """llama.cpp could not decode. The context has been cleared and can be used again."""


class RequestCancelledError(TriAttnError, RuntimeError):
    """`Llama.cancel` has ended the call. The context has been cleared and can be used again."""


class ServerLostError(TriAttnError, ConnectionError):
    """An RPC server has gone away while it held a part of the model. The model must be closed and loaded again."""


class ClosedError(TriAttnError, RuntimeError):
    """The object has been closed."""


class BusyError(TriAttnError, RuntimeError):
    """The object is in use by another thread, or by a later call."""
