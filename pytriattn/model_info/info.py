"""What a GGUF file tells about its model, without loading it: layers, RoPE, and the memory of a KV cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pytriattn.errors import ContextError
from pytriattn.model_info.kv_bytes import KVBytes, kv_bytes
from pytriattn.model_info.layers import Fact, LayerInfo, LayerKind
from pytriattn.options.cache import CacheOptions
from pytriattn.options.eviction import EvictionSettings

__all__ = ["ModelInfo"]


@dataclass(frozen=True)
class ModelInfo:
    """What a GGUF file tells.

    Attributes:
        path: the file (the first one of a split model), or its URL.
        name: ``general.name``, or an empty string.
        architecture: ``general.architecture``.
        file_bytes: the bytes of all parts together.
        n_layer: layers that decoding uses.
        n_embd: width of the residual stream.
        n_vocab: tokens in the vocabulary.
        n_ctx_train: positions that the model was trained for.
        window: the sliding window in tokens; 0 if no layer slides.
        has_alibi: attention is biased by distance.
        has_learned_positions: a table of positions in place of RoPE.
        layers: the layers in order, those for multi-token prediction last.
        facts: the source of each number, by name.
        cell_window: the sliding window that the number of cells depends on, in tokens; llama.cpp may have one that no
            layer uses.
        widest_v: values of V for a token in the widest layer: what each layer gets without flash attention.
        flash_attention: whether llama.cpp can run the model with flash attention.
        is_exact: whether `kv_bytes` is exact. It is not if the architecture or the kind of its cache is unknown.
    """

    path: str
    name: str
    architecture: str
    file_bytes: int
    n_layer: int
    n_embd: int
    n_vocab: int
    n_ctx_train: int
    window: int
    has_alibi: bool
    has_learned_positions: bool
    layers: tuple[LayerInfo, ...]
    facts: Mapping[str, Fact]
    cell_window: int = 0
    widest_v: int = 0
    flash_attention: bool = True
    is_exact: bool = True

    def layers_of(self, kind: LayerKind) -> tuple[LayerInfo, ...]:
        """Return the layers of a kind."""
        return tuple(layer for layer in self.layers if layer.kind is kind)

    def kv_bytes(
        self,
        ctx: int = 0,
        budget: int | None = None,
        *,
        interval: int = 128,
        n_batch: int = 2048,
        n_ubatch: int = 512,
        type_k: str = "f16",
        type_v: str = "f16",
        parallel: int = 1,
        flash_attn: bool = True,
        prefill: str = "chunked",
    ) -> KVBytes:
        """Return the bytes that the caches of a context take: what `Llama` with the same settings allocates, exactly.

        Args:
            ctx: positions for each sequence; 0: those that the model was trained for.
            budget: keys kept per layer and KV head; None: all.
            interval: tokens between evictions.
            n_batch: tokens given to llama.cpp at once.
            n_ubatch: tokens computed at once.
            type_k: type of cached keys.
            type_v: type of cached values.
            parallel: sequences, each with cells of its own.
            flash_attn: whether flash attention is used; without it, V is stored as wide as that of the widest layer.
            prefill: ``full`` needs cells for all of `ctx`.

        Raises:
            ContextError: a value makes no sense, or a type does not divide a head.
        """
        if parallel < 1:
            raise ContextError(f"parallel is {parallel}, it must be at least 1")
        if ctx == 0 and self.n_ctx_train < 1:
            raise ContextError("the file does not tell how many positions the model was trained for; give ctx")
        options = CacheOptions(
            n_ctx=ctx,
            eviction=None if budget is None else EvictionSettings(budget, interval=interval),
            type_k=type_k,
            type_v=type_v,
            n_seq_max=parallel,
            n_batch=n_batch,
            n_ubatch=n_ubatch,
            flash_attn="auto" if flash_attn else "off",
            prefill=prefill,
        )
        if interval < 1:
            raise ContextError(f"interval is {interval}, it must be at least 1")
        return self.cache_bytes(options)

    def cache_bytes(self, options: CacheOptions) -> KVBytes:
        """Return the bytes that caches made with these options take.

        Raises:
            ContextError: such a cache cannot be made; the message says why.
        """
        return kv_bytes(self, options)

    def positions(self, options: CacheOptions) -> int:
        """Return the options' ``n_ctx``, or in place of 0 the number of positions that the model was trained for.

        Raises:
            ContextError: it is 0 and the file does not tell.
        """
        if options.n_ctx == 0 and self.n_ctx_train <= 0:
            raise ContextError(
                "the file does not tell how many positions the model was trained for; give a context size"
            )
        return options.n_ctx or self.n_ctx_train
