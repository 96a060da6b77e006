"""What a GGUF file tells about its model, without loading weights: `gguf_info`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from pytriattn.errors import ModelLoadError
from pytriattn.gguf.metadata import GGUFMetadata, SkippedArray, read_metadata
from pytriattn.model_info.architecture_rules import Rules, rules_of
from pytriattn.model_info.info import ModelInfo
from pytriattn.model_info.keys import Keys
from pytriattn.model_info.layers import Fact, LayerInfo, LayerKind
from pytriattn.model_info.rope_reader import RopeReader

__all__ = ["gguf_info", "model_info_of"]

MAX_LAYERS = 512
"""What llama.cpp has room for."""
MAX_HEAD = 1 << 16
"""Dimensions of a head: far more than any model has."""


def gguf_info(path: str | os.PathLike[str]) -> ModelInfo:
    """Return what a model's metadata and llama.cpp's rules for its architecture tell: layers, RoPE, widths of caches.

    Args:
        path: a GGUF file, any part of a split model, or an address (``https://…``,
            ``hf://owner/repository/file.gguf``).

    Raises:
        ModelLoadError: the file is missing, damaged, not GGUF, or not a model.
    """
    return model_info_of(read_metadata(path))


def model_info_of(metadata: GGUFMetadata) -> ModelInfo:
    """Return what metadata that have been read tell; see `gguf_info`.

    Raises:
        ModelLoadError: values contradict each other or make no sense.
    """
    architecture = metadata.values.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        raise ModelLoadError(
            f"'{metadata.path}' does not say its architecture, so it is no model; give the file of a model"
        )
    return _Reader(metadata, architecture).model()


@dataclass
class _Widths:
    """Heads of one layer's cache."""

    n_head: int
    n_head_kv: int
    head_dim_k: int
    head_dim_v: int

    @property
    def k(self) -> int:
        return self.n_head_kv * self.head_dim_k

    @property
    def v(self) -> int:
        return self.n_head_kv * self.head_dim_v


class _Reader:
    """Puts together keys and rules."""

    def __init__(self, metadata: GGUFMetadata, architecture: str) -> None:
        found = rules_of(architecture)
        rule = (
            f"rule of {architecture} (src/models/{found.source})" if found else "default: the architecture is unknown"
        )
        self._metadata = metadata
        self._architecture = architecture
        self._found = found
        self._rules = found or Rules("")
        self._keys = keys = Keys(metadata, architecture, rule, is_strict=found is not None)
        keys.note("architecture", architecture, "key general.architecture")
        if found:
            keys.note("rules", True)
        else:
            keys.note("rules", False, f"no rules are known for the architecture {architecture!r}")
        required = found is not None and found.cache != "none"
        for name in ("block_count", "context_length", "embedding_length") if required else ():
            if not keys.has(name):
                raise ModelLoadError(
                    f"'{metadata.path}' lacks the key {keys.full(name)}; its conversion went wrong: download it again"
                )
        self._read_layers()
        self._read_heads()
        self._read_sliding()
        self._read_recurrent()
        self._read_shared()
        self._index_key = keys.integer("attention.indexer.key_length", limit=MAX_HEAD) if self._rules.indexer else 0
        self._dense = keys.integer("leading_dense_block_count") if self._rules.indexer == "with_v" else 0

    def model(self) -> ModelInfo:
        keys, rules = self._keys, self._rules
        name = self._metadata.values.get("general.name", "")
        n_ctx_train = keys.integer("context_length", limit=1 << 32, fact="n_ctx_train")
        layers = self._layers(n_ctx_train)
        has_alibi = self._has_alibi()
        learned = rules.learned_positions == "always" or (
            rules.learned_positions == "tensor" and "position_embd.weight" in self._metadata.tensors
        )
        keys.note("has_alibi", has_alibi)
        keys.note("has_learned_positions", learned)
        self._note_kinds(layers)
        slides = any(self._slides)
        return ModelInfo(
            path=self._metadata.path,
            name=name if isinstance(name, str) else "",
            architecture=self._architecture,
            file_bytes=self._metadata.file_bytes,
            n_layer=self._n_layer,
            n_embd=self._n_embd,
            n_vocab=self._n_vocab(),
            n_ctx_train=n_ctx_train,
            window=self._window if slides else 0,
            has_alibi=has_alibi,
            has_learned_positions=learned,
            layers=layers,
            facts=dict(keys.facts),
            cell_window=self._window,
            widest_v=max((self._widths(i).v for i in range(self._n_all)), default=0),
            flash_attention=rules.flash_attention,
            is_exact=self._found is not None and rules.cache != "other",
        )

    # --- what the file says ---

    def _read_layers(self) -> None:
        keys = self._keys
        self._n_embd = keys.integer("embedding_length", fact="n_embd")
        self._n_all = keys.integer("block_count", limit=MAX_LAYERS, fact="n_layer")
        n_extra = keys.integer("nextn_predict_layers", limit=MAX_LAYERS, fact="n_layer_mtp")
        if n_extra > self._n_all:
            keys.wrong("nextn_predict_layers", f"at most block_count, {self._n_all}")
        self._n_loops = keys.integer("num_loops", 1, fact="n_loops") if self._rules.loops else 1
        if self._n_loops < 1 or self._n_loops * self._n_all > MAX_LAYERS or (self._n_loops > 1 and n_extra):
            keys.wrong(
                "num_loops", f"such that there are at most {MAX_LAYERS} layers, none of them for multi-token prediction"
            )
        self._n_all *= self._n_loops
        self._n_layer = self._n_all - n_extra

    def _by_layer(self, name: str, default: Sequence[int]) -> list[int]:
        one_loop = self._n_all // self._n_loops
        return self._keys.by_layer(name, one_loop, default[:one_loop]) * self._n_loops

    def _read_heads(self) -> None:
        keys = self._keys
        none = [0] * self._n_all
        self._n_head = self._by_layer("attention.head_count", none)
        self._n_head_kv = self._by_layer("attention.head_count_kv", self._n_head)
        self._n_ff = self._by_layer("feed_forward_length", none)
        keys.note_key("n_head", _short(self._n_head), "attention.head_count")
        keys.note_key("n_head_kv", _short(self._n_head_kv), "attention.head_count_kv")
        first = self._n_head[0] if self._n_head else 0
        even = min(self._n_embd // first, MAX_HEAD) if first else 0
        has_heads = (
            first > 0 or self._architecture == "plamo2"
        )  # which reads the keys again where the first layer has none
        self._key_full = keys.integer("attention.key_length", even, limit=MAX_HEAD) if has_heads else 0
        self._value_full = keys.integer("attention.value_length", even, limit=MAX_HEAD) if has_heads else 0
        self._key_sliding = keys.integer("attention.key_length_swa", self._key_full, limit=MAX_HEAD)
        self._value_sliding = keys.integer("attention.value_length_swa", self._value_full, limit=MAX_HEAD)
        keys.note_key("head_dim_k", self._key_full, "attention.key_length")
        keys.note_key("head_dim_v", self._value_full, "attention.value_length")
        self._is_latent = False
        if self._rules.rotates == "last":
            self._is_latent = all(keys.integer(f"attention.{part}_length_mla") > 0 for part in ("key", "value"))
            keys.note_key("is_latent", self._is_latent, "attention.key_length_mla")

    def _read_sliding(self) -> None:
        keys, rule = self._keys, self._rules.sliding
        self._slides = [False] * self._n_all
        self._window = 0
        if rule is None and self._found is not None:
            return
        is_small = rule is not None and rule.only_n_layer not in (0, self._n_layer)
        default = rule.window if rule and not is_small else 0
        self._window = keys.integer("attention.sliding_window", default, limit=1 << 31)
        keys.note_key("window", self._window, "attention.sliding_window", is_rule=True)
        if self._window == 0 or is_small:
            return
        if rule is None:
            # all that an unknown architecture's file can tell is told by both keys together
            if not keys.has("attention.sliding_window_pattern"):
                return
            period, dense_first = 0, False
        else:
            if rule.fixed_window:
                self._window = rule.fixed_window
                keys.note("window", self._window)
            period, dense_first = rule.period, rule.dense_first
        self._slides = self._pattern(period, dense_first)

    def _pattern(self, period: int, dense_first: bool) -> list[bool]:
        keys, name, n_layer = self._keys, "attention.sliding_window_pattern", self._n_layer
        keys.note_key("sliding_layers", 0, name, is_rule=True)
        if period >= 0 and keys.is_array(name):
            listed = [flag != 0 for flag in keys.array(name)[: self._n_all]]
            return listed + [False] * (self._n_all - len(listed))
        if period < 0:
            slides = [not (self._rules.recurrent == "without_kv" and self._n_head_kv[i] == 0) for i in range(n_layer)]
        else:
            period = keys.integer(name, period)
            full = 0 if dense_first else period - 1
            slides = [period == 0 or i % period != full for i in range(n_layer)]
            if period == 0 and not keys.has(name):
                raise ModelLoadError(f"'{self._metadata.path}' lacks the key {keys.full(name)}; download it again")
        return slides + [False] * (self._n_all - n_layer)

    def _read_recurrent(self) -> None:
        keys, n_layer = self._keys, self._n_layer
        bare = [heads == 0 for heads in self._n_head_kv[:n_layer]]
        match self._rules.recurrent:
            case "without_kv":
                found = bare
            case "bare":
                found = [bare[i] and self._n_ff[i] == 0 for i in range(n_layer)]
            case "all":
                found = [True] * n_layer
            case "interval":
                interval = keys.integer("full_attention_interval", 8 if self._rules.state == "linear" else 4)
                listed = keys.by_layer("attention.recurrent_layers", self._n_all, [])
                if interval == 0 and not listed:
                    keys.wrong("full_attention_interval", "at least 1")
                found = [flag != 0 for flag in listed[:n_layer]] or [(i + 1) % interval != 0 for i in range(n_layer)]
            case _:
                # of an unknown architecture: layers without KV heads where there are keys of a state
                has_state = keys.has("ssm.state_size") or keys.has("shortconv.l_cache") or keys.has("wkv.head_size")
                found = [self._found is None and has_state and is_bare for is_bare in bare]
        self._recurrent = found + [False] * (self._n_all - n_layer)
        self._state_size = self._read_state_size() if any(found) else 0

    def _read_state_size(self) -> int:
        """Return the float32 values of one layer's state for a sequence: that of the convolution and the other one."""
        keys, n_head = self._keys, self._n_head[0]
        if keys.has("wkv.head_size"):
            return (keys.integer("token_shift_count", 2) + keys.integer("wkv.head_size")) * self._n_embd
        kernel, inner = keys.integer("ssm.conv_kernel"), keys.integer("ssm.inner_size")
        state = keys.integer("ssm.state_size")
        n_groups = 0 if self._rules.state == "mamba" else keys.integer("ssm.group_count")
        conv = max(kernel - 1, 0) * (inner + 2 * n_groups * state)
        match self._rules.state:
            case "delta":
                head_dim = keys.integer("kda.head_dim")
                kept = kernel - 1 if kernel > 0 else 3
                return 3 * kept * n_head * head_dim + head_dim * head_dim * n_head
            case "linear":
                return conv + self._key_full**2 * n_head
        cache = keys.integer("shortconv.l_cache")
        return (self._n_embd * (cache - 1) if cache else conv) + state * inner

    def _read_shared(self) -> None:
        keys, start = self._keys, self._rules.shares_from
        if start < 0:
            start = self._n_all - keys.integer("attention.shared_kv_layers", fact="n_layer_shared")
            if start < 2:
                keys.wrong("attention.shared_kv_layers", "less than the number of layers, by two")
        self._shares_from = start if 0 < start < self._n_all else self._n_all

    def _n_vocab(self) -> int:
        keys, tokens = self._keys, self._metadata.values.get("tokenizer.ggml.tokens")
        if isinstance(tokens, SkippedArray):
            keys.note("n_vocab", tokens.length, "key tokenizer.ggml.tokens")
            return tokens.length
        embeddings = self._metadata.tensors.get("token_embd.weight")
        if not keys.has("vocab_size") and embeddings is not None and embeddings.shape:
            keys.note("n_vocab", embeddings.shape[-1], "tensor token_embd.weight")
            return embeddings.shape[-1]
        return keys.integer("vocab_size", limit=1 << 31, fact="n_vocab")

    def _has_alibi(self) -> bool:
        match self._rules.alibi:
            case "always":
                return True
            case "key":
                return self._keys.number("attention.max_alibi_bias", 0.0) > 0
            case "n_layer_40":
                return self._n_layer == 40
            case _:
                return False

    # --- layers ---

    def _widths(self, i: int) -> _Widths:
        slides = self._slides[i]
        key, value = (self._key_sliding, self._value_sliding) if slides else (self._key_full, self._value_full)
        return _Widths(self._n_head[i], self._n_head_kv[i], key, 0 if self._is_latent else value)

    def _kind(self, i: int) -> LayerKind:
        if i >= self._n_layer:
            return LayerKind.MTP
        if self._recurrent[i] and self._rules.recurrent != "all":
            return LayerKind.RECURRENT
        if self._rules.cache == "recurrent":
            return LayerKind.RECURRENT
        if self._rules.cache == "none" or self._n_head_kv[i] == 0 or self._is_feed_forward(i):
            return LayerKind.NONE
        if i >= self._shares_from:
            return LayerKind.SHARED
        return LayerKind.SLIDING if self._slides[i] else LayerKind.FULL

    def _is_feed_forward(self, i: int) -> bool:
        return self._rules.recurrent == "bare" and self._n_ff[i] > 0

    def _has_cells(self, i: int, kind: LayerKind) -> bool:
        if self._rules.cache in ("none", "recurrent") or kind in (LayerKind.SHARED, LayerKind.RECURRENT):
            return False
        if self._rules.cache == "hybrid":
            # llama.cpp keeps these models' layers apart by their states; whether decoding uses them it does not ask
            if kind is LayerKind.MTP:
                return self._rules.recurrent != "interval" and not self._is_feed_forward(i)
            return not self._is_feed_forward(i)
        # a layer without heads has its place in a plain cache, but one of no width
        return kind is not LayerKind.MTP or self._rules.indexer == "with_v"

    def _layers(self, n_ctx_train: int) -> tuple[LayerInfo, ...]:
        try:
            rope = RopeReader(self._keys, self._found, self._key_full, n_ctx_train, self._slides, self._n_layer)
            return tuple(self._layer(i, rope) for i in range(self._n_all))
        except ModelLoadError as error:
            if self._found is not None:
                raise
            # what is wrong by the rules of others need not be wrong here
            self._keys.note("rope_mode", "unknown", f"no rules are known, and with usual ones {error}")
            return tuple(self._layer(i, None) for i in range(self._n_all))

    def _layer(self, i: int, rope: RopeReader | None) -> LayerInfo:
        kind, widths = self._kind(i), self._widths(i)
        has_cells = self._has_cells(i, kind)
        state = self._state_size if self._recurrent[i] else 0
        if kind in (LayerKind.RECURRENT, LayerKind.NONE):
            return LayerInfo(i, kind, -1, 0, 0, 0, 0, 0, 0, state, None, has_cells)
        owner = i
        if kind is LayerKind.SHARED:
            owner = self._shares_from - (2 if self._slides[i] else 1)
            of_owner = self._widths(owner)
            widths = _Widths(widths.n_head, of_owner.n_head_kv, of_owner.head_dim_k, of_owner.head_dim_v)
        is_indexed = has_cells and self._index_key > 0 and i >= self._dense
        return LayerInfo(
            index=i,
            kind=kind,
            owner=owner,
            n_head=widths.n_head,
            n_head_kv=widths.n_head_kv,
            head_dim_k=widths.head_dim_k,
            head_dim_v=widths.head_dim_v,
            k_width=widths.k if has_cells else 0,
            v_width=widths.v if has_cells else 0,
            state_size=state,
            rope=rope.layer(i, widths.head_dim_k) if rope is not None else None,
            has_cells=has_cells,
            index_k_width=self._index_key if is_indexed else 0,
            index_v_width=widths.head_dim_v if is_indexed and self._rules.indexer == "with_v" else 0,
        )

    def _note_kinds(self, layers: Sequence[LayerInfo]) -> None:
        keys, facts = self._keys, self._keys.facts
        sources = {
            LayerKind.SLIDING: facts["sliding_layers"].source if "sliding_layers" in facts else keys.rule,
            LayerKind.SHARED: facts["n_layer_shared"].source if "n_layer_shared" in facts else keys.rule,
            LayerKind.RECURRENT: keys.rule,
        }
        facts.pop("sliding_layers", None)
        for kind, source in sources.items():
            found = tuple(layer.index for layer in layers if layer.kind is kind)
            if found:
                facts[f"{kind.value}_layers"] = Fact(found, source)
        rotating = [layer for layer in layers if layer.kind not in (LayerKind.RECURRENT, LayerKind.NONE)]
        if any(layer.rope is not None for layer in rotating):
            without = tuple(layer.index for layer in rotating if layer.rope is None)
            if without:
                keys.note("layers_without_rope", without)


def _short(by_layer: list[int]) -> int | tuple[int, ...]:
    return by_layer[0] if len(set(by_layer)) == 1 else tuple(by_layer)
