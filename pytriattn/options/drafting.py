"""How tokens are drafted: guessed ahead, to be computed many at once."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pytriattn._native import core
from pytriattn._util.numbers import whole_number
from pytriattn.errors import ContextError

__all__ = ["LlamaDraftModel", "LlamaModelDrafting", "LlamaPromptLookupDecoding", "drafting_rule"]

MAX_DRAFT = 256
"""Tokens that can be drafted at once."""


class LlamaDraftModel(ABC):
    """A rule of your own that guesses what comes next, as llama-cpp-python has it: subclass it.

    A wrong guess costs time and changes nothing: what the model draws is what counts.

    Attributes:
        num_pred_tokens: the most tokens that are taken of a guess.
    """

    num_pred_tokens: int = 10

    @abstractmethod
    def __call__(self, input_ids: npt.NDArray[np.int32], /, **kwargs: Any) -> npt.NDArray[np.int32]:
        """Return tokens that may come next.

        Args:
            input_ids: the text so far, the token that was drawn last included: int32 [n_tokens], at least one.
            **kwargs: nothing yet.

        Returns:
            Token ids, [n], in their order; none if there is no guess.
        """


class LlamaPromptLookupDecoding(LlamaDraftModel):
    """Guesses from the text itself: what followed the last tokens where they stood before.

    It needs no second model, and pays where the answer repeats parts of the prompt: summaries, code, corrections.
    """

    def __init__(self, max_ngram_size: int = 2, num_pred_tokens: int = 10) -> None:
        """Set how it guesses.

        Args:
            max_ngram_size: tokens that have to stand there once more.
            num_pred_tokens: the most tokens of a guess; below `max_ngram_size` there is none.

        Raises:
            ContextError: a number is out of range.
        """
        self.max_ngram_size = _checked("max_ngram_size", max_ngram_size)
        self.num_pred_tokens = _checked("num_pred_tokens", num_pred_tokens)

    def __call__(self, input_ids: npt.NDArray[np.int32], /, **kwargs: Any) -> npt.NDArray[np.int32]:
        """Return tokens that may come next; see `LlamaDraftModel`."""
        drafter = self.to_native()
        drafter.set_text(np.asarray(input_ids[:-1], dtype=np.int32))
        return np.array(drafter.draft(int(input_ids[-1]), self.num_pred_tokens), dtype=np.int32)

    def to_native(self) -> core.Drafter:
        """Return llama.cpp's own."""
        return core.Drafter(n_match=self.max_ngram_size, n_draft=self.num_pred_tokens)


@dataclass(frozen=True)
class LlamaModelDrafting:
    """Guesses by a small model with the same vocabulary, such as the smallest one of a family.

    Attributes:
        model_path: a GGUF file.
        num_pred_tokens: the tokens of a guess. Each costs a step of the small model.
        n_ctx: cells of the small model's own cache. It reads the newest tokens of a longer text alone, so that the
            memory stays the same however long a text becomes.
        n_gpu_layers: layers of the small model on the GPU; -1: all.

    Raises:
        ContextError: a number is out of range.
    """

    model_path: str | os.PathLike[str]
    num_pred_tokens: int = 4
    n_ctx: int = 4096
    n_gpu_layers: int = -1

    def __post_init__(self) -> None:
        """Check the numbers."""
        _checked("num_pred_tokens", self.num_pred_tokens)
        if whole_number("n_ctx", self.n_ctx, ContextError) < 4 * self.num_pred_tokens:
            raise ContextError(
                f"n_ctx of the draft model is {self.n_ctx}, it must be at least 4 times num_pred_tokens: "
                f"{4 * self.num_pred_tokens}"
            )


DraftModel = str | os.PathLike[str] | LlamaModelDrafting | LlamaDraftModel
"""What `Llama` takes as ``draft_model``."""


def drafting_rule(draft_model: Any) -> LlamaModelDrafting | LlamaDraftModel | None:
    """Return what ``draft_model`` of `Llama` stands for; None: nothing is drafted.

    Raises:
        ContextError: it is of another kind.
    """
    if draft_model is None or isinstance(draft_model, (LlamaModelDrafting, LlamaDraftModel)):
        if isinstance(draft_model, LlamaDraftModel):
            _checked("num_pred_tokens", draft_model.num_pred_tokens)
        return draft_model
    if isinstance(draft_model, (str, Path)):
        return LlamaModelDrafting(draft_model)
    raise ContextError(
        f"draft_model is {draft_model!r}; give the path of a GGUF file, LlamaModelDrafting(path), "
        "LlamaPromptLookupDecoding(), or an object of a subclass of LlamaDraftModel"
    )


def _checked(name: str, value: int) -> int:
    number = whole_number(name, value, ContextError)
    if not 1 <= number <= MAX_DRAFT:
        raise ContextError(f"{name} is {number}, it must be from 1 to {MAX_DRAFT}")
    return number
