"""The models that are loaded beside a model: one that drafts for it, and an encoder of images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytriattn.errors import UnsupportedModelError
from pytriattn.gguf.projector import check_projector
from pytriattn.model_info.info import ModelInfo
from pytriattn.model_info.layers import LayerKind
from pytriattn.options.cache import CacheOptions
from pytriattn.preflight.findings import Finding, failure, ok

__all__ = ["Companion", "check_draft_model", "draft_companion", "image_companion"]

READ_STEP = 512
"""Tokens that a draft model reads at once."""
VOCABULARY_DIFFERENCE = 128
"""llama.cpp's limit: tokens that one of the two vocabularies may have more."""


@dataclass(frozen=True)
class Companion:
    """A model that is loaded beside another one.

    Attributes:
        name: what it is, in words.
        bytes: of its weights and its cache.
    """

    name: str
    bytes: int


def draft_companion(info: ModelInfo, n_ctx: int) -> Companion:
    """Return a draft model with a cache of `n_ctx` positions.

    Raises:
        ContextError: such a cache cannot be made.
    """
    kv = info.cache_bytes(CacheOptions(n_ctx=n_ctx, n_batch=READ_STEP, n_ubatch=READ_STEP))
    # its sliding layers keep all positions, to be turned back by any number of tokens
    sliding = kv.sliding // kv.cells_sliding * kv.cells_full if kv.cells_sliding else 0
    return Companion("the draft model", info.file_bytes + kv.full + kv.recurrent + sliding)


def image_companion(path: Path) -> Companion:
    """Return an encoder of images.

    Raises:
        ModelLoadError: the file holds none.
    """
    return Companion("the encoder of images", check_projector(path).path.stat().st_size)


def check_draft_model(info: ModelInfo, draft: ModelInfo) -> Iterator[Finding]:
    """Check that a model can draft for another one, as far as headers tell."""
    name = "draft model"
    recurrent = draft.layers_of(LayerKind.RECURRENT)
    if recurrent:
        message = (
            f"the draft model has recurrent states in {len(recurrent)} layers, which cannot be turned back; take one "
            "with attention alone"
        )
        yield failure(name, message, UnsupportedModelError)
    elif abs(info.n_vocab - draft.n_vocab) > VOCABULARY_DIFFERENCE:
        message = (
            f"the draft model has {draft.n_vocab:,} tokens and the model {info.n_vocab:,}; take one of the same "
            "family, with the same vocabulary"
        )
        yield failure(name, message, UnsupportedModelError)
    else:
        told = f"{draft.architecture!r} with {draft.n_vocab:,} tokens; whether they are the model's is seen at load"
        yield ok(name, told)
