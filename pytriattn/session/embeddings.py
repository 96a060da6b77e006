"""Embeddings of texts, from a context of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from pytriattn._native import core
from pytriattn._native.log import forward_llama_log

__all__ = ["Embedding", "EmbeddingResponse", "EmbeddingUsage", "embeddings"]


class Embedding(TypedDict):
    """The embedding of a text: n_embd numbers."""

    object: str
    index: int
    embedding: list[float]


class EmbeddingUsage(TypedDict):
    """Token counts."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingResponse(TypedDict):
    """What `Llama.create_embedding` returns."""

    object: str
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


def embeddings(
    model: core.Model,
    texts: Sequence[npt.NDArray[np.int32]],
    *,
    pooling: str,
    normalize: bool,
    n_threads: int,
    rope: core.RopeOverrides,
    loras: Sequence[core.ScaledLora],
) -> list[npt.NDArray[np.float32]]:
    """Return the embeddings of tokenized texts by a model; see `Llama.embed`.

    Args:
        model: the model.
        texts: token ids of each text.
        pooling: ``mean``, ``last``, ``cls`` or ``none``.
        normalize: to unit length.
        n_threads: CPU threads.
        rope: settings in place of the model's own.
        loras: adapters in use, each with its scale.

    Returns:
        float32 [1, n_embd] for each text; without pooling [n_tokens, n_embd].
    """
    try:
        found = core.embed(model, [text.tolist() for text in texts], pooling, n_threads, rope, list(loras))
    finally:
        forward_llama_log()
    if normalize:
        return [rows / np.linalg.norm(rows, axis=-1, keepdims=True) for rows in found]
    return found
