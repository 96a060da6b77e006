"""A session as its user sees it: what is kept, saved states, adapters, closing. `Llama` adds generating."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pytriattn._native import core
from pytriattn._native.log import forward_llama_log
from pytriattn.errors import ImageError
from pytriattn.eviction.counters import KVStats, kv_stats_of
from pytriattn.session.adapters import Adapters, LoraScales
from pytriattn.session.images import Images, PartedPrompt
from pytriattn.session.opening import OpenedModel
from pytriattn.session.scored_text import ScoredText
from pytriattn.session.state import context_state, read_state, write_state
from pytriattn.stats.model_stats import TriAttentionStats

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Session"]


class Session(ScoredText):
    """A loaded model with a context, and what can be known and done of its cache."""

    def __init__(self, opened: OpenedModel, *, protect_prompt: bool = False, reuse_evicted: bool = True) -> None:
        """Take a model that `open_model` has opened; see `Llama` for the settings."""
        super().__init__(opened, protect_prompt=protect_prompt, reuse_evicted=reuse_evicted)
        self._images = opened.images

    def split_prompt(self, prompt: bytes, files: Sequence[bytes]) -> PartedPrompt:
        """Return the parts of a prompt, in which `image_marker` stands for each of these image files.

        Raises:
            ImageError: a file is no image, or the model takes none.
        """
        try:
            return self._open_images().split(prompt, files)
        finally:
            forward_llama_log()

    @property
    def image_marker(self) -> str:
        """Stands for an image in a prompt that `split_prompt` takes."""
        return self._open_images().projector.marker

    def _open_images(self) -> Images:
        self._open_context()
        if self._images is None:
            raise ImageError(
                "there is an image in the messages, and the model was loaded without an encoder of images; load it "
                "with mmproj=..., the GGUF file that was published beside the model"
            )
        return self._images

    def save_state(self, path: str | os.PathLike[str] | None = None) -> bytes | None:
        """Return what has been read and what is left of it in the cache as bytes, or write it to a file.

        After `load_state` the same tokens give the same predictions, bit for bit.

        Raises:
            ContextError: the context decodes several sequences.
            OSError: the file cannot be written.
        """
        self._settle()
        state = context_state(self._open_context(), self._tokens, self._describe_state(self._tokens))
        if path is None:
            return state.to_bytes()
        write_state(state, path)
        return None

    def load_state(self, state: bytes | str | os.PathLike[str]) -> None:
        """Go back to a saved state, in this or in another process.

        There are no predictions until a token has been read: `eval` it, or call `Llama.generate` with the text of the
        state (`tokens`) and at least one token more.

        Raises:
            StateError: it is damaged, or made with another model, version, other adapters, statistics or settings;
                nothing has changed then.
        """
        saved, source = read_state(state)
        context = self._open_context()
        saved.check({**self._describe_state(saved.tokens), "llama.cpp": core.LLAMA_CPP_COMMIT}, source)
        self.reset()
        context.load(saved.to_native())
        self._tokens, self._n_protected = saved.tokens.tolist(), saved.n_protected

    def _describe_state(self, tokens: Sequence[int] | npt.NDArray[np.int32]) -> dict[str, Any]:
        """Return all that has to be the same where a saved state of `tokens` is loaded."""
        found = dict(self._made_with)
        adapters = {} if self._adapters is None else self._adapters.describe_state()
        if adapters:
            found["adapters"] = adapters
        if min(tokens, default=0) < 0:
            found["mmproj"] = None if self._images is None else self._images.sha256
        return found

    def set_loras(self, scales: LoraScales) -> None:
        """Use these LoRA adapters (GGUF file -> scale) from now on, and no others; ``{}``: none.

        Files are loaded once. What has been read is forgotten, since it was computed without them.

        Raises:
            ModelLoadError: a file is missing, damaged, or an adapter of another model; then nothing has changed.
        """
        context = self._open_context()
        if self._adapters is None:
            self._adapters = Adapters(self._open_model())
        try:
            self._adapters.apply(context, scales)
        finally:
            forward_llama_log()
        self.reset()

    def kv_stats(self) -> KVStats:
        """Return what the KV cache holds, what it has allocated and what eviction has cost."""
        return kv_stats_of(self._open_context(), self._prompts, self._question)

    def kept_positions(self, layer: int, kv_head: int) -> npt.NDArray[np.int32]:
        """Return which tokens' keys a head still holds: their positions, int32 [n_keys], ascending.

        Raises:
            ContextError: the layer has no full-attention cache, or no such head.
            UnsupportedModelError: the model has no KV cache that can be looked into.
        """
        return self._open_context().kept_positions(0, layer, kv_head)

    @property
    def attention_layers(self) -> list[int]:
        """Indices of the layers with full attention, those that are evicted from."""
        return [layer.layer for layer in self._open_context().layers]

    @property
    def attention_heads(self) -> list[tuple[int, int]]:
        """The (layer, KV head) pairs that are evicted from, in order."""
        return [(layer.layer, head) for layer in self._open_context().layers for head in range(layer.n_head_kv)]

    @property
    def triattn_stats(self) -> TriAttentionStats | None:
        """The statistics in use."""
        return self._stats

    @property
    def budget(self) -> int | None:
        """Keys kept per layer and KV head; None: all."""
        return None if self._eviction is None else self._eviction.budget

    def close(self) -> None:
        """Free the model and the cache. Closing twice is harmless.

        Raises:
            BusyError: another thread is computing with it.
        """
        if self._context is not None:
            self._context.close()
            self._context = None
        self._adapters = None
        self._drafting = None
        self._images = None
        self._model = None

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the object."""
        self.close()
