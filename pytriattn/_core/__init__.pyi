# Made by tools/make_stubs.py from the bindings; do not edit.
"""
The compiled part of pytriattn. Use the package's own classes; this interface may change.
"""

from __future__ import annotations

import collections.abc
import os
import typing

import numpy as np
import numpy.typing as npt

from . import testing as testing

class LogLine:
    """
    A line of llama.cpp's log.
    """
    def __repr__(self) -> str: ...
    @property
    def level(self) -> int:
        """
        1 debug, 2 info, 3 warning, 4 error.
        """
    @property
    def text(self) -> bytes:
        """
        The line as bytes: llama.cpp cuts long values anywhere, also within a character.
        """

class LoadedBackend:
    """
    A backend that ggml has loaded.
    """
    def __repr__(self) -> str: ...
    @property
    def n_devices(self) -> int:
        """
        How many devices it has.
        """
    @property
    def name(self) -> str:
        """
        ggml's name for it: CPU, CUDA.
        """

class Device:
    @property
    def backend(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def free(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def total(self) -> int: ...
    @property
    def type(self) -> str: ...

class Model:
    def __init__(
        self,
        path: os.PathLike[str] | str | bytes,
        n_gpu_layers: typing.SupportsInt | typing.SupportsIndex = -1,
        *,
        split_mode: typing.SupportsInt | typing.SupportsIndex = 1,
        main_gpu: typing.SupportsInt | typing.SupportsIndex = 0,
        tensor_split: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex] = (),
        use_mmap: bool = True,
        use_mlock: bool = False,
        rpc_servers: collections.abc.Sequence[str] = (),
        progress: collections.abc.Callable[[float], typing.Any] | None = None,
    ) -> None: ...
    def is_end(self, token: typing.SupportsInt | typing.SupportsIndex) -> bool: ...
    def piece(self, token: typing.SupportsInt | typing.SupportsIndex, special: bool) -> bytes: ...
    def tokenize(self, text: bytes, add_special: bool, parse_special: bool) -> list[int]: ...
    def use_long_rope(self) -> None: ...
    @property
    def add_bos(self) -> bool: ...
    @property
    def bos(self) -> int: ...
    @property
    def description(self) -> str: ...
    @property
    def eos(self) -> int: ...
    @property
    def has_learned_positions(self) -> bool: ...
    @property
    def has_long_rope(self) -> bool: ...
    @property
    def has_vocab(self) -> bool: ...
    @property
    def long_rope_threshold(self) -> int: ...
    @property
    def metadata(self) -> dict[str, str]: ...
    @property
    def n_ctx_train(self) -> int: ...
    @property
    def n_embd(self) -> int: ...
    @property
    def n_head(self) -> int: ...
    @property
    def n_head_kv(self) -> int: ...
    @property
    def n_layer(self) -> int: ...
    @property
    def n_layer_nextn(self) -> int: ...
    @property
    def n_swa(self) -> int: ...
    @property
    def n_vocab(self) -> int: ...
    @property
    def newline(self) -> int: ...

class GgufDescription:
    """
    What a GGUF file says of itself.
    """
    def __repr__(self) -> str: ...
    @property
    def architecture(self) -> str:
        """
        The model's architecture; empty if the file has none.
        """
    @property
    def content(self) -> bytes:
        """
        Every key with its value, and every tensor's name, type and shape. Two files with equal content hold the same
        model, up to the values of its weights.
        """
    @property
    def name(self) -> str:
        """
        The model's name; empty if the file has none.
        """

class RopeOverrides:
    """
    RoPE settings in place of the model's own; each default means the model's own.
    """
    def __init__(
        self,
        *,
        scaling: str = "",
        freq_base: typing.SupportsFloat | typing.SupportsIndex = 0.0,
        freq_scale: typing.SupportsFloat | typing.SupportsIndex = 0.0,
        yarn_ext_factor: typing.SupportsFloat | typing.SupportsIndex = -1.0,
        yarn_attn_factor: typing.SupportsFloat | typing.SupportsIndex = -1.0,
        yarn_beta_fast: typing.SupportsFloat | typing.SupportsIndex = -1.0,
        yarn_beta_slow: typing.SupportsFloat | typing.SupportsIndex = -1.0,
        yarn_orig_ctx: typing.SupportsInt | typing.SupportsIndex = 0,
    ) -> None: ...
    def __repr__(self) -> str: ...
    @property
    def freq_base(self) -> float:
        """
        Base of the frequencies; 0: the model's.
        """
    @property
    def freq_scale(self) -> float:
        """
        Factor of the frequencies; 0: the model's.
        """
    @property
    def scaling(self) -> str:
        """
        'none', 'linear', 'yarn', 'longrope' or ''.
        """
    @property
    def yarn_attn_factor(self) -> float:
        """
        YaRN's scale of vectors.
        """
    @property
    def yarn_beta_fast(self) -> float:
        """
        YaRN's upper bound of turns.
        """
    @property
    def yarn_beta_slow(self) -> float:
        """
        YaRN's lower bound of turns.
        """
    @property
    def yarn_ext_factor(self) -> float:
        """
        YaRN's mix of extrapolation.
        """
    @property
    def yarn_orig_ctx(self) -> int:
        """
        Positions that the model was trained for.
        """

class LayerStats:
    def __init__(
        self,
        *,
        layer: typing.SupportsInt | typing.SupportsIndex,
        n_head: typing.SupportsInt | typing.SupportsIndex,
        n_head_kv: typing.SupportsInt | typing.SupportsIndex,
        head_dim: typing.SupportsInt | typing.SupportsIndex,
        rot_begin: typing.SupportsInt | typing.SupportsIndex,
        n_rot: typing.SupportsInt | typing.SupportsIndex,
        interleaved: bool,
        scale: typing.SupportsFloat | typing.SupportsIndex,
        omega: typing.Annotated[npt.ArrayLike, np.float64],
        centre: typing.Annotated[npt.ArrayLike, np.float32],
        magnitude: typing.Annotated[npt.ArrayLike, np.float32],
        fit: typing.Annotated[npt.ArrayLike, np.float32] | None = None,
    ) -> None: ...
    @property
    def band_dims(self) -> npt.NDArray[np.int32]: ...
    @property
    def centre(self) -> npt.NDArray[np.float32]: ...
    @property
    def fit(self) -> npt.NDArray[np.float32] | None: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def interleaved(self) -> bool: ...
    @property
    def layer(self) -> int: ...
    @property
    def magnitude(self) -> npt.NDArray[np.float32]: ...
    @property
    def n_head(self) -> int: ...
    @property
    def n_head_kv(self) -> int: ...
    @property
    def n_rot(self) -> int: ...
    @property
    def omega(self) -> npt.NDArray[np.float64]: ...
    @property
    def rot_begin(self) -> int: ...
    @property
    def scale(self) -> float: ...

class Stats:
    def __init__(
        self, layers: collections.abc.Sequence[LayerStats], n_tokens: typing.SupportsInt | typing.SupportsIndex
    ) -> None: ...
    @property
    def layers(self) -> list[LayerStats]: ...
    @property
    def n_tokens(self) -> int: ...

class KvLayer:
    """
    A layer with full attention and a cache of its own.
    """
    def __repr__(self) -> str: ...
    @property
    def head_dim_k(self) -> int:
        """
        Dimensions of a key.
        """
    @property
    def head_dim_v(self) -> int:
        """
        Dimensions of a value; 0 if values are a part of the keys (latent attention).
        """
    @property
    def layer(self) -> int:
        """
        Index in the model.
        """
    @property
    def n_head_kv(self) -> int:
        """
        KV heads.
        """

class KvCell:
    """
    A cell of the cache that holds a key of a sequence.
    """
    def __repr__(self) -> str: ...
    @property
    def position(self) -> int:
        """
        Position that llama.cpp gives the cell.
        """
    @property
    def slot(self) -> int:
        """
        Index of the cell in its stream.
        """

class ContextCounters:
    """
    What a context has done, and what its caches take.
    """
    def __repr__(self) -> str: ...
    @property
    def cells_allocated(self) -> int:
        """
        Cells of layers with full attention, of all sequences.
        """
    @property
    def cells_used(self) -> int:
        """
        Cells that the sequence uses of them.
        """
    @property
    def k_bytes(self) -> int:
        """
        Allocated bytes of keys.
        """
    @property
    def n_accepted(self) -> int:
        """
        Of these, tokens that did.
        """
    @property
    def n_decoded(self) -> int:
        """
        Tokens decoded since the context was made.
        """
    @property
    def n_drafted(self) -> int:
        """
        Tokens computed on the guess that they come next.
        """
    @property
    def n_evictions(self) -> int:
        """
        How often the cache was pruned.
        """
    @property
    def n_tokens(self) -> int:
        """
        Tokens that the sequence has read.
        """
    @property
    def n_tokens_evicted(self) -> int:
        """
        Keys evicted per head, summed over evictions.
        """
    @property
    def recurrent_bytes(self) -> int:
        """
        Bytes of the states of recurrent layers.
        """
    @property
    def sliding_bytes(self) -> int:
        """
        Bytes of keys and values in layers with a sliding window, counted in the two above as well.
        """
    @property
    def v_bytes(self) -> int:
        """
        Allocated bytes of values.
        """

class ContextSeconds:
    """
    Where a context's time went, in seconds.
    """
    def __repr__(self) -> str: ...
    @property
    def compaction(self) -> float:
        """
        Moving of keys and values.
        """
    @property
    def decoding(self) -> float:
        """
        llama.cpp's decoding.
        """
    @property
    def scoring(self) -> float:
        """
        Scoring of keys.
        """
    @property
    def selection(self) -> float:
        """
        Choice of keys, a chooser's included.
        """

class EvictionRecord:
    """
    What one eviction took away.
    """
    def __repr__(self) -> str: ...
    @property
    def evicted(self) -> list[list[npt.NDArray[np.int32]]]:
        """
        Token positions that each head has lost, ascending: for each of Context.layers and each KV head an array, int32.
        """
    @property
    def n_after(self) -> int:
        """
        Keys per head after.
        """
    @property
    def n_before(self) -> int:
        """
        Keys per head before.
        """
    @property
    def position(self) -> int:
        """
        Position of the next token.
        """
    @property
    def seq(self) -> int:
        """
        The sequence.
        """

class TokenLogprob:
    """
    A token and its log-probability.
    """
    def __repr__(self) -> str: ...
    @property
    def logprob(self) -> float:
        """
        ln p(token).
        """
    @property
    def token(self) -> int:
        """
        The token's id.
        """

class TokenLogprobs:
    """
    Log-probabilities at one place of a text.
    """
    def __repr__(self) -> str: ...
    @property
    def logprob(self) -> float:
        """
        ln p of the token that was asked for.
        """
    @property
    def top(self) -> list[TokenLogprob]:
        """
        The likeliest tokens, best first.
        """

class TokenScores:
    """
    How well each of some tokens was predicted.
    """
    def __repr__(self) -> str: ...
    @property
    def is_best(self) -> npt.NDArray[np.bool_]:
        """
        Whether no other token was likelier, bool [n_tokens].
        """
    @property
    def logprobs(self) -> npt.NDArray[np.float32]:
        """
        ln p(token | those before), float32 [n_tokens].
        """

class SavedSequence:
    """
    A sequence, to be put back into a context of the same model and settings.
    """
    def __init__(
        self,
        *,
        cells: bytes,
        origins: bytes,
        n_tokens: typing.SupportsInt | typing.SupportsIndex,
        n_protected: typing.SupportsInt | typing.SupportsIndex,
    ) -> None: ...
    def __repr__(self) -> str: ...
    @property
    def cells(self) -> bytes:
        """
        The cells of the cache, and recurrent states.
        """
    @property
    def n_protected(self) -> int:
        """
        First positions that are never evicted.
        """
    @property
    def n_tokens(self) -> int:
        """
        Tokens read so far.
        """
    @property
    def origins(self) -> bytes:
        """
        Where the keys of each head come from, and how often there was an eviction; empty without a budget.
        """

class EvictionLayer:
    """
    One layer of an EvictionView. What it returns is a copy.
    """
    def __repr__(self) -> str: ...
    def keys(self) -> npt.NDArray[np.float32]:
        """
        Keys after RoPE as the cache stores them, dequantised, float32 [n_head_kv, n_keys, head_dim_k]. The Hadamard
        rotation of a quantised cache has been undone.
        """
    def origins(self) -> npt.NDArray[np.int32]:
        """
        Positions of the tokens that each head's keys come from, int32 [n_head_kv, n_keys].
        """
    def values(self) -> npt.NDArray[np.float32]:
        """
        Values as the cache stores them, dequantised, float32 [n_head_kv, n_keys, head_dim_v]. The Hadamard rotation of
        a quantised cache has been undone.
        """
    @property
    def head_dim_k(self) -> int:
        """
        Dimensions of a key.
        """
    @property
    def head_dim_v(self) -> int:
        """
        Dimensions of a value; 0 if values are a part of the keys (latent attention).
        """
    @property
    def layer(self) -> int:
        """
        Index in the model.
        """
    @property
    def n_head_kv(self) -> int:
        """
        KV heads.
        """

class EvictionView:
    """
    What a sequence's cache holds, for a chooser of the keys that stay. Keys are in the order of the positions of their
    cells. A view that a chooser gets can be read until the chooser returns (then ClosedError), one from
    Context.eviction_view until the cache changes (then ContextError).
    """
    def __repr__(self) -> str: ...
    @property
    def is_protected(self) -> npt.NDArray[np.bool_]:
        """
        Whether a key must be kept, as one of the sink, of a protected prompt or of the window, bool [n_keys].
        """
    @property
    def layers(self) -> list[EvictionLayer]:
        """
        The layers that are evicted from, in the model's order.
        """
    @property
    def n_keep(self) -> int:
        """
        Keys that each head has to keep, protected ones included.
        """
    @property
    def n_keys(self) -> int:
        """
        Keys of each head.
        """
    @property
    def position(self) -> int:
        """
        Position of the next token.
        """
    @property
    def positions(self) -> npt.NDArray[np.int32]:
        """
        Positions of the cells, ascending, int32 [n_keys]. After an eviction they are labels: see EvictionLayer.origins.
        """
    @property
    def seq(self) -> int:
        """
        The sequence.
        """

class KeyScoreOptions:
    """
    The parts of the score of mode 'fitted'.
    """
    def __init__(
        self,
        *,
        use_fit: bool = True,
        use_received: bool = True,
        decay: typing.SupportsFloat | typing.SupportsIndex = 0.95,
        received_weight: typing.SupportsFloat | typing.SupportsIndex = 2.0,
        question_weight: typing.SupportsFloat | typing.SupportsIndex = 30.0,
        question_foreseen: typing.SupportsFloat | typing.SupportsIndex = 2.0,
        standing_weight: typing.SupportsFloat | typing.SupportsIndex = 20.0,
        retrieval_share: typing.SupportsFloat | typing.SupportsIndex = 0.25,
        least_retrieval_heads: typing.SupportsInt | typing.SupportsIndex = 8,
        other_heads: typing.SupportsFloat | typing.SupportsIndex = 0.3,
        value_power: typing.SupportsFloat | typing.SupportsIndex = 1.0,
        received_value_power: typing.SupportsFloat | typing.SupportsIndex = 0.0,
        stride: typing.SupportsInt | typing.SupportsIndex = 16,
        spread_back: typing.SupportsInt | typing.SupportsIndex = 2,
        spread_forward: typing.SupportsInt | typing.SupportsIndex = 8,
        question_forward: typing.SupportsInt | typing.SupportsIndex = 14,
        standing_questions: collections.abc.Sequence[str] = ...,
    ) -> None: ...
    def __repr__(self) -> str: ...
    @property
    def decay(self) -> float:
        """
        Factor on received attention, for every 128 tokens.
        """
    @property
    def least_retrieval_heads(self) -> int:
        """
        How many heads these are at least, where there are so many.
        """
    @property
    def other_heads(self) -> float:
        """
        Factor on foreseen attention for the keys of all other heads.
        """
    @property
    def question_foreseen(self) -> float:
        """
        In foreseen attention the question counts as so many times the standing ones.
        """
    @property
    def question_forward(self) -> int:
        """
        The same for keys after it and the question.
        """
    @property
    def question_weight(self) -> float:
        """
        Factor on the attention of the question.
        """
    @property
    def received_value_power(self) -> float:
        """
        The same for received attention.
        """
    @property
    def received_weight(self) -> float:
        """
        Factor on received attention.
        """
    @property
    def retrieval_share(self) -> float:
        """
        Share of the KV heads, the retrieval heads, whose attention to standing questions is foreseen.
        """
    @property
    def spread_back(self) -> int:
        """
        So many keys before a key get its attention of a question, too.
        """
    @property
    def spread_forward(self) -> int:
        """
        The same for keys after it and standing questions.
        """
    @property
    def standing_questions(self) -> list[str]:
        """
        Questions that might be asked of any text, each up to where its answer would begin.
        """
    @property
    def standing_weight(self) -> float:
        """
        Factor on foreseen attention; 0: standing questions are not read.
        """
    @property
    def stride(self) -> int:
        """
        The queries of one token in so many give received attention.
        """
    @property
    def use_fit(self) -> bool:
        """
        Whether expected attention counts.
        """
    @property
    def use_received(self) -> bool:
        """
        Whether received attention counts.
        """
    @property
    def value_power(self) -> float:
        """
        Power of the norm of a key's value that its attention is multiplied by.
        """

class EvictionConfig:
    """
    What is evicted, and when. Raises BudgetError for values that contradict each other. Mode 'custom' asks
    `chooser(view)`, which is given an EvictionView and returns for each of its layers a bool array [n_head_kv, n_keys]:
    the keys that stay. Every head must keep view.n_keep of them, all protected ones included; anything else is a
    BudgetError before a key is moved. An error of the chooser comes out of the call that evicts. As after every error
    of decoding the context has then been cleared and can be used again; Context.evict leaves it as it was.
    """
    def __init__(
        self,
        *,
        mode: str,
        budget: typing.SupportsInt | typing.SupportsIndex,
        interval: typing.SupportsInt | typing.SupportsIndex = 128,
        window: typing.SupportsInt | typing.SupportsIndex = 64,
        n_sink: typing.SupportsInt | typing.SupportsIndex = 4,
        seed: typing.SupportsInt | typing.SupportsIndex = 0,
        offsets: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] = ...,
        use_trig: bool = True,
        use_norm: bool = True,
        use_unrotated: bool = True,
        reread: bool = False,
        key_score: KeyScoreOptions = ...,
        chooser: collections.abc.Callable[
            [EvictionView], collections.abc.Iterable[typing.Annotated[npt.ArrayLike, np.bool_]]
        ]
        | None = None,
    ) -> None: ...
    def __repr__(self) -> str: ...
    @property
    def budget(self) -> int:
        """
        Keys kept per layer and KV head.
        """
    @property
    def chooser(
        self,
    ) -> collections.abc.Callable[[EvictionView], collections.abc.Iterable[npt.NDArray[np.bool_]]] | None:
        """
        The callable of mode 'custom'.
        """
    @property
    def interval(self) -> int:
        """
        Tokens between evictions.
        """
    @property
    def key_score(self) -> KeyScoreOptions:
        """
        The parts of the score of mode 'fitted'.
        """
    @property
    def mode(self) -> str:
        """
        One of MODES, or 'custom'.
        """
    @property
    def moves_rows(self) -> bool:
        """
        Whether heads may keep different keys, so that rows move.
        """
    @property
    def n_sink(self) -> int:
        """
        First keys, never evicted.
        """
    @property
    def needs_scores(self) -> bool:
        """
        Whether keys are scored, for which there have to be statistics.
        """
    @property
    def offsets(self) -> list[int]:
        """
        Distances of the future queries that a score is the mean over, in positions.
        """
    @property
    def reread(self) -> bool:
        """
        Of mode 'fitted': whether new tokens are read once more before an eviction.
        """
    @property
    def seed(self) -> int:
        """
        The seed of mode 'random'.
        """
    @property
    def use_norm(self) -> bool:
        """
        Whether the score has its part from the queries' lengths.
        """
    @property
    def use_trig(self) -> bool:
        """
        Whether the score has its part from the queries' centres.
        """
    @property
    def use_unrotated(self) -> bool:
        """
        Whether bands that RoPE does not rotate count.
        """
    @property
    def window(self) -> int:
        """
        Newest keys, never evicted.
        """

class DecoderParams:
    """
    What a context is made with. Raises ContextError for values that make no sense.
    """
    def __init__(
        self,
        *,
        n_ctx: typing.SupportsInt | typing.SupportsIndex,
        n_batch: typing.SupportsInt | typing.SupportsIndex = 2048,
        n_ubatch: typing.SupportsInt | typing.SupportsIndex = 512,
        n_threads: typing.SupportsInt | typing.SupportsIndex = 1,
        n_seq_max: typing.SupportsInt | typing.SupportsIndex = 1,
        kv_unified: bool = False,
        type_k: str = "f16",
        type_v: str = "f16",
        flash_attn: str = "auto",
        rope: RopeOverrides = ...,
        eviction: EvictionConfig | None = None,
        full_prefill: bool = False,
        n_draft: typing.SupportsInt | typing.SupportsIndex = 0,
    ) -> None: ...
    def __repr__(self) -> str: ...
    @property
    def eviction(self) -> EvictionConfig | None:
        """
        What is evicted; None: nothing.
        """
    @property
    def flash_attn(self) -> str:
        """
        'auto', 'on' or 'off'.
        """
    @property
    def full_prefill(self) -> bool:
        """
        Whether a prompt is read in full and then pruned once, not while it is read.
        """
    @property
    def kv_unified(self) -> bool:
        """
        Whether sequences share one pool of cells.
        """
    @property
    def n_batch(self) -> int:
        """
        The largest step, in tokens.
        """
    @property
    def n_ctx(self) -> int:
        """
        Positions of a sequence.
        """
    @property
    def n_seq_max(self) -> int:
        """
        Sequences.
        """
    @property
    def n_threads(self) -> int:
        """
        Threads of the CPU.
        """
    @property
    def n_ubatch(self) -> int:
        """
        Tokens computed at once.
        """
    @property
    def rope(self) -> RopeOverrides:
        """
        RoPE settings in place of the model's own.
        """
    @property
    def type_k(self) -> str:
        """
        Type of cached keys, one of CACHE_TYPES.
        """
    @property
    def type_v(self) -> str:
        """
        Type of cached values, one of CACHE_TYPES.
        """

class CacheSize:
    """
    Cells of a sequence's caches, and the steps that fit them.
    """
    def __repr__(self) -> str: ...
    @property
    def chunk(self) -> int:
        """
        Tokens of a prompt in one step.
        """
    @property
    def n_batch(self) -> int:
        """
        The largest step of any kind, in tokens.
        """
    @property
    def n_cells(self) -> int:
        """
        Cells of layers with full attention.
        """
    @property
    def n_cells_sliding(self) -> int:
        """
        Cells of layers with a sliding window; 0 without one.
        """
    @property
    def n_reread(self) -> int:
        """
        Of n_cells, those that only a second reading takes.
        """
    @property
    def n_ubatch(self) -> int:
        """
        Tokens computed at once.
        """

class AttentionNode:
    """
    One attention operation of the model, as its graph has it.
    """
    def __repr__(self) -> str: ...
    @property
    def band_dims(self) -> npt.NDArray[np.int32]: ...
    @property
    def hadamard(self) -> bool:
        """
        Whether the cached keys are multiplied by llama.cpp's Hadamard matrix.
        """
    @property
    def head_dim(self) -> int: ...
    @property
    def head_dim_v(self) -> int:
        """
        Dimensions of a value; 0 if values are a part of the keys (latent attention).
        """
    @property
    def interleaved(self) -> bool: ...
    @property
    def layer(self) -> int:
        """
        Whose queries these are.
        """
    @property
    def n_head(self) -> int:
        """
        Query heads.
        """
    @property
    def n_head_kv(self) -> int:
        """
        KV heads.
        """
    @property
    def n_rot(self) -> int: ...
    @property
    def omega(self) -> npt.NDArray[np.float64]: ...
    @property
    def operator(self) -> dict[str, typing.Any] | None:
        """
        The parameters of RoPE as ggml names them; None for a layer without RoPE.
        """
    @property
    def owner(self) -> int:
        """
        Whose cached keys they meet: another layer's if it has none of its own.
        """
    @property
    def rot_begin(self) -> int: ...
    @property
    def scale(self) -> float: ...
    @property
    def sliding(self) -> bool:
        """
        Whether attention has a sliding window.
        """
    @property
    def weights(self) -> npt.NDArray[np.float32]:
        """
        What each dimension of the queries is multiplied by after RoPE, float32 [head_dim]; empty: nothing.
        """

class Move:
    """
    A head's row that is copied from one cell to another.
    """
    def __repr__(self) -> str: ...
    @property
    def source(self) -> int:
        """
        Slot of a cell that will be freed.
        """
    @property
    def target(self) -> int:
        """
        Slot of a cell that stays.
        """

class CompactionPlan:
    """
    How kept keys come into a common set of cells.
    """
    def __repr__(self) -> str: ...
    @property
    def freed(self) -> list[int]:
        """
        Slots of the cells that are given back.
        """
    @property
    def moves(self) -> list[list[list[Move]]]:
        """
        Copies, for each layer and KV head a list.
        """

class GrammarTrigger:
    """
    What in an answer makes a lazy grammar begin.
    """
    @property
    def kind(self) -> int:
        """
        llama.cpp's number for the kind.
        """
    @property
    def token(self) -> int:
        """
        The token, where the kind is one; -1 elsewhere.
        """
    @property
    def value(self) -> str:
        """
        The word or pattern.
        """

class SamplingSettings:
    generation_prompt: str
    grammar_lazy: bool
    ignore_eos: bool
    def __init__(self) -> None: ...
    def add_logit_bias(
        self, token: typing.SupportsInt | typing.SupportsIndex, bias: typing.SupportsFloat | typing.SupportsIndex
    ) -> None: ...
    def add_trigger(self, trigger: GrammarTrigger) -> None: ...
    def preserve_token(self, token: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    def set_grammar(self, kind: str, text: str) -> None: ...
    def set_order(self, names: collections.abc.Sequence[str]) -> None: ...
    @property
    def dry_allowed_length(self) -> int: ...
    @dry_allowed_length.setter
    def dry_allowed_length(self, value: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    @property
    def dry_base(self) -> float: ...
    @dry_base.setter
    def dry_base(self, value: typing.SupportsFloat | typing.SupportsIndex) -> None: ...
    @property
    def dry_multiplier(self) -> float: ...
    @dry_multiplier.setter
    def dry_multiplier(self, value: typing.SupportsFloat | typing.SupportsIndex) -> None: ...
    @property
    def dry_penalty_last_n(self) -> int: ...
    @dry_penalty_last_n.setter
    def dry_penalty_last_n(self, value: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    @property
    def dry_sequence_breakers(self) -> list[str]: ...
    @dry_sequence_breakers.setter
    def dry_sequence_breakers(self, value: collections.abc.Sequence[str]) -> None: ...
    @property
    def dynatemp_exponent(self) -> float: ...
    @dynatemp_exponent.setter
    def dynatemp_exponent(self, value: typing.SupportsFloat | typing.SupportsIndex) -> None: ...
    @property
    def dynatemp_range(self) -> float: ...
    @dynatemp_range.setter
    def dynatemp_range(self, value: typing.SupportsFloat | typing.SupportsIndex) -> None: ...
    @property
    def frequency_penalty(self) -> float: ...
    @frequency_penalty.setter
    def frequency_penalty(self, value: typing.SupportsFloat | typing.SupportsIndex) -> None: ...
    @property
    def min_p(self) -> float: ...
    @min_p.setter
    def min_p(self, value: typing.SupportsFloat | typing.SupportsIndex) -> None: ...
    @property
    def mirostat_eta(self) -> float: ...
    @mirostat_eta.setter
    def mirostat_eta(self, value: typing.SupportsFloat | typing.SupportsIndex) -> None: ...
    @property
    def mirostat_mode(self) -> int: ...
    @mirostat_mode.setter
    def mirostat_mode(self, value: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    @property
    def mirostat_tau(self) -> float: ...
    @mirostat_tau.setter
    def mirostat_tau(self, value: typing.SupportsFloat | typing.SupportsIndex) -> None: ...
    @property
    def penalty_last_n(self) -> int: ...
    @penalty_last_n.setter
    def penalty_last_n(self, value: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    @property
    def presence_penalty(self) -> float: ...
    @presence_penalty.setter
    def presence_penalty(self, value: typing.SupportsFloat | typing.SupportsIndex) -> None: ...
    @property
    def repeat_penalty(self) -> float: ...
    @repeat_penalty.setter
    def repeat_penalty(self, value: typing.SupportsFloat | typing.SupportsIndex) -> None: ...
    @property
    def seed(self) -> int: ...
    @seed.setter
    def seed(self, value: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    @property
    def temperature(self) -> float: ...
    @temperature.setter
    def temperature(self, value: typing.SupportsFloat | typing.SupportsIndex) -> None: ...
    @property
    def top_k(self) -> int: ...
    @top_k.setter
    def top_k(self, value: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    @property
    def top_n_sigma(self) -> float: ...
    @top_n_sigma.setter
    def top_n_sigma(self, value: typing.SupportsFloat | typing.SupportsIndex) -> None: ...
    @property
    def top_p(self) -> float: ...
    @top_p.setter
    def top_p(self, value: typing.SupportsFloat | typing.SupportsIndex) -> None: ...
    @property
    def typical_p(self) -> float: ...
    @typical_p.setter
    def typical_p(self, value: typing.SupportsFloat | typing.SupportsIndex) -> None: ...
    @property
    def xtc_probability(self) -> float: ...
    @xtc_probability.setter
    def xtc_probability(self, value: typing.SupportsFloat | typing.SupportsIndex) -> None: ...
    @property
    def xtc_threshold(self) -> float: ...
    @xtc_threshold.setter
    def xtc_threshold(self, value: typing.SupportsFloat | typing.SupportsIndex) -> None: ...

class Sampler:
    def __init__(self, model: Model, settings: SamplingSettings) -> None: ...
    def accept(self, token: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    def set_logits_processor(
        self,
        processor: collections.abc.Callable[
            [npt.NDArray[np.int32], npt.NDArray[np.float32]], typing.Annotated[npt.ArrayLike, np.float32]
        ],
        prompt: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    ) -> None: ...
    @property
    def seed(self) -> int: ...

class Answer:
    def update(self, text: str, is_partial: bool) -> list[str]: ...

class ChatPrompt:
    def answer(self) -> Answer: ...
    @property
    def generation_prompt(self) -> str: ...
    @property
    def grammar(self) -> str: ...
    @property
    def grammar_lazy(self) -> bool: ...
    @property
    def preserved_tokens(self) -> list[str]: ...
    @property
    def prompt(self) -> bytes: ...
    @property
    def stops(self) -> list[str]: ...
    @property
    def triggers(self) -> list[GrammarTrigger]: ...

class ChatTemplates:
    def __init__(self, model: Model, source: str = "") -> None: ...
    def apply(
        self,
        *,
        messages: str,
        tools: str,
        tool_choice: str,
        json_schema: str,
        grammar: str,
        parallel_tool_calls: bool,
        enable_thinking: bool,
        reasoning_format: str,
        add_generation_prompt: bool,
        template_values: collections.abc.Mapping[str, str],
    ) -> ChatPrompt: ...

class Context:
    """
    A context over a model: it reads text and decodes token by token.
    """
    def __init__(self, model: Model, params: DecoderParams, stats: Stats | None = None) -> None: ...
    def attention(self) -> list[AttentionNode]:
        """
        The model's attention operations, in the order of computation.
        """
    def cancel(self) -> None:
        """
        From any thread: what is being computed, or will be until start(), ends with RequestCancelledError.
        """
    def check_image(self, part: PromptPart) -> None:
        """
        Raises ContextError if the image has to be read in a larger step than the context can take.
        """
    def check_images(self) -> None:
        """
        Raises UnsupportedModelError if there is a budget, and keys of images could not be scored.
        """
    def clear(self, seq: typing.SupportsInt | typing.SupportsIndex = 0) -> None:
        """
        Forget a sequence.
        """
    def close(self) -> None:
        """
        Free everything; later calls raise ClosedError.
        """
    def counters(self, seq: typing.SupportsInt | typing.SupportsIndex = 0) -> ContextCounters:
        """
        What the context has done, and what its caches take.
        """
    def device_bytes(self) -> dict[str, int]:
        """
        Bytes of the caches by the name of the device that holds them.
        """
    def evict(
        self,
        seq: typing.SupportsInt | typing.SupportsIndex = 0,
        n_protected: typing.SupportsInt | typing.SupportsIndex = 0,
    ) -> None:
        """
        Prune a sequence's cache to the budget now, if it holds more. The first `n_protected` positions stay.
        """
    def eviction_view(self, seq: typing.SupportsInt | typing.SupportsIndex = 0) -> EvictionView:
        """
        What a chooser would see of a sequence's cache now. Without a budget nothing is protected, and n_keep is n_keys.
        """
    def has_evicted(self, seq: typing.SupportsInt | typing.SupportsIndex = 0) -> bool:
        """
        Whether anything of a sequence has been evicted.
        """
    def kept_positions(
        self,
        seq: typing.SupportsInt | typing.SupportsIndex,
        layer: typing.SupportsInt | typing.SupportsIndex,
        kv_head: typing.SupportsInt | typing.SupportsIndex,
    ) -> npt.NDArray[np.int32]:
        """
        Positions of the tokens that a head keeps, ascending, int32.
        """
    def load(self, saved: SavedSequence) -> None:
        """
        Put a saved sequence in place of the context's. Raises DecodeError if it does not fit.
        """
    def logits(self, row: typing.SupportsInt | typing.SupportsIndex = 0) -> npt.NDArray[np.float32]:
        """
        Logits of a row of the last step, read-only: no later step changes them.
        """
    def logprobs(self, tokens: typing.Annotated[npt.ArrayLike, np.int32]) -> npt.NDArray[np.float32]:
        """
        Clear sequence 0 and read tokens into it as decoding would. Returns ln p(tokens[i+1] | tokens[..i]), float32
        [n_tokens - 1].
        """
    def max_drafts(self, token: typing.SupportsInt | typing.SupportsIndex) -> int:
        """
        How many drafts may follow a token that is appended next; 0: none, or the token was drafted itself.
        """
    def n_tokens(self, seq: typing.SupportsInt | typing.SupportsIndex = 0) -> int:
        """
        Tokens that a sequence has read.
        """
    def read(
        self,
        seq: typing.SupportsInt | typing.SupportsIndex,
        tokens: typing.Annotated[npt.ArrayLike, np.int32],
        n_protected: typing.SupportsInt | typing.SupportsIndex = 0,
        goes_on: bool = False,
    ) -> None:
        """
        Append tokens to a sequence. The first `n_protected` positions of it are never evicted. `goes_on`: more of the
        same prompt follows.
        """
    def read_image(
        self,
        seq: typing.SupportsInt | typing.SupportsIndex,
        projector: Projector,
        part: PromptPart,
        n_protected: typing.SupportsInt | typing.SupportsIndex = 0,
    ) -> None:
        """
        Append an image to a sequence, as read() appends tokens.
        """
    def read_with_logprobs(
        self,
        seq: typing.SupportsInt | typing.SupportsIndex,
        tokens: typing.Annotated[npt.ArrayLike, np.int32],
        n_protected: typing.SupportsInt | typing.SupportsIndex,
        n_top: typing.SupportsInt | typing.SupportsIndex,
    ) -> list[TokenLogprobs]:
        """
        The same, with the log-probability of each token but the first, and of the `n_top` likeliest in its place.
        """
    def record_evictions(self, on: bool) -> None:
        """
        Whether evictions are noted for take_evictions().
        """
    def row_logprobs(
        self,
        row: typing.SupportsInt | typing.SupportsIndex,
        chosen: typing.SupportsInt | typing.SupportsIndex,
        n_top: typing.SupportsInt | typing.SupportsIndex,
    ) -> TokenLogprobs:
        """
        The log-probability of a token under a row of logits, and the `n_top` likeliest tokens.
        """
    def sample(self, sampler: Sampler) -> int:
        """
        Draw a token from the last row of logits.
        """
    def save(self) -> SavedSequence:
        """
        The sequence of a context that has one alone.
        """
    def score(
        self, tokens: typing.Annotated[npt.ArrayLike, np.int32], first: typing.SupportsInt | typing.SupportsIndex
    ) -> TokenScores:
        """
        Append tokens to sequence 0 as decoding would. Returns how well tokens[first:] were predicted.
        """
    def seconds(self) -> ContextSeconds:
        """
        Where the context's time went.
        """
    def set_question(
        self,
        seq: typing.SupportsInt | typing.SupportsIndex,
        tokens: typing.Annotated[npt.ArrayLike, np.int32],
        position: typing.SupportsInt | typing.SupportsIndex,
    ) -> None:
        """
        From now on choose the keys that these tokens ask for, which stand from `position` on; none: no question any
        more. Nothing happens in modes that take no questions.
        """
    def set_threads(self, n_threads: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Compute steps with this many threads from now on.
        """
    def start(self) -> None:
        """
        Take back cancel().
        """
    def step(
        self,
        seqs: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        tokens: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    ) -> None:
        """
        Append one token to each of these different sequences.
        """
    def step_and_sample(
        self,
        token: typing.SupportsInt | typing.SupportsIndex,
        sampler: Sampler,
        drafts: typing.Annotated[npt.ArrayLike, np.int32] = (),
    ) -> int:
        """
        Append a token to sequence 0 and draw the next one. `drafts`, at most max_drafts(token) of them, are computed in
        the same step; when they are appended next, in their order, that costs no step. Any other call takes the rest of
        them back.
        """
    def step_and_sample_each(
        self,
        seqs: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        tokens: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        samplers: collections.abc.Sequence[Sampler],
    ) -> list[int]:
        """
        Append a token to each of these sequences and draw the next one of each with its own sampler.
        """
    def take_evictions(self) -> list[EvictionRecord]:
        """
        The evictions since the last call.
        """
    def truncate(
        self,
        seq: typing.SupportsInt | typing.SupportsIndex,
        n: typing.SupportsInt | typing.SupportsIndex,
        keep_evicted: bool = False,
    ) -> int:
        """
        Cut a sequence back to its first `n` positions. Returns n, or 0 if that is impossible; then it has been cleared.
        `keep_evicted`: an eviction before position n is no obstacle.
        """
    @property
    def chunk(self) -> int:
        """
        Tokens of a prompt in one step.
        """
    @property
    def closed(self) -> bool:
        """
        Whether close() has been called.
        """
    @property
    def layers(self) -> list[KvLayer]:
        """
        The layers that can be evicted from, in the model's order.
        """
    @property
    def n_rows(self) -> int:
        """
        Rows of logits that the last step left.
        """
    @property
    def n_seq_max(self) -> int:
        """
        Sequences.
        """
    @property
    def n_ubatch(self) -> int:
        """
        Tokens computed at once.
        """
    @property
    def n_until_eviction(self) -> int | None:
        """
        Tokens that sequence 0 can read until it is evicted from; None without a budget.
        """
    @property
    def params(self) -> DecoderParams:
        """
        What it was made with.
        """
    @property
    def score_step(self) -> int:
        """
        Tokens in a whole step of score().
        """
    @property
    def takes_questions(self) -> bool:
        """
        Whether the mode takes questions.
        """

class PromptPart:
    """
    A piece of a prompt: tokens, or an image (or a tile of one).
    """
    @property
    def identity(self) -> str:
        """
        A hash of the image's file; empty for text.
        """
    @property
    def is_image(self) -> bool:
        """
        Whether it is an image.
        """
    @property
    def n_positions(self) -> int:
        """
        Positions that it takes.
        """
    @property
    def n_tokens(self) -> int:
        """
        Keys that it takes in the cache.
        """
    @property
    def tokens(self) -> npt.NDArray[np.int32]:
        """
        Ids of the tokens, int32 [n]; none of an image.
        """

class Projector:
    """
    Turns images into what a model reads in place of tokens.
    """
    def __init__(
        self,
        model: Model,
        path: os.PathLike[str] | str | bytes,
        *,
        n_threads: typing.SupportsInt | typing.SupportsIndex,
        use_gpu: bool,
    ) -> None: ...
    def split(self, prompt: bytes, images: collections.abc.Sequence[bytes]) -> list[PromptPart]:
        """
        The parts of a prompt, with a file for each marker. Raises ImageError.
        """
    @property
    def marker(self) -> str:
        """
        Stands in a prompt for an image.
        """

class Drafter:
    """
    Guesses what a model will say next: from the text itself, or by a small model.
    """
    @typing.overload
    def __init__(
        self, *, n_match: typing.SupportsInt | typing.SupportsIndex, n_draft: typing.SupportsInt | typing.SupportsIndex
    ) -> None: ...
    @typing.overload
    def __init__(
        self,
        model: Model,
        target: Context,
        *,
        n_ctx: typing.SupportsInt | typing.SupportsIndex,
        n_threads: typing.SupportsInt | typing.SupportsIndex,
        n_draft: typing.SupportsInt | typing.SupportsIndex,
    ) -> None: ...
    def append(self, tokens: typing.Annotated[npt.ArrayLike, np.int32]) -> None:
        """
        The text goes on with these tokens, int32 [n_tokens].
        """
    def cancel(self) -> None:
        """
        From any thread: end what is being computed, with RequestCancelledError.
        """
    def draft(
        self, last: typing.SupportsInt | typing.SupportsIndex, n_max: typing.SupportsInt | typing.SupportsIndex
    ) -> list[int]:
        """
        At most `n_max` token ids that may follow the text and `last`.
        """
    def set_text(self, tokens: typing.Annotated[npt.ArrayLike, np.int32]) -> None:
        """
        The text that drafts go on from, int32 [n_tokens].
        """
    def start(self) -> None:
        """
        Take back cancel().
        """

class Lora:
    """
    A LoRA adapter, loaded for one model.
    """
    def __init__(self, model: Model, path: os.PathLike[str] | str | bytes) -> None: ...

class ScaledLora:
    """
    An adapter with the factor by which it counts.
    """
    def __init__(self, lora: Lora, scale: typing.SupportsFloat | typing.SupportsIndex) -> None: ...
    @property
    def lora(self) -> Lora:
        """
        The adapter.
        """
    @property
    def scale(self) -> float:
        """
        The factor; 1 applies the adapter as it was trained.
        """

def backend_features(name: str) -> dict[str, str]:
    """
    Return what the backend of this name was built with or has found, by name.
    """

def backend_list() -> list[LoadedBackend]:
    """
    Return the backends, in the order in which they were loaded.
    """

def backend_score(path: str) -> int | None: ...
def cache_size(params: DecoderParams, n_swa: typing.SupportsInt | typing.SupportsIndex) -> CacheSize:
    """
    What a sequence's caches need. `n_swa`: the model's sliding window in tokens, 0 if it has none. Raises ContextError
    if the cells cannot be counted.
    """

def calibrate(
    model: Model,
    tokens: typing.Annotated[npt.ArrayLike, np.int32],
    *,
    n_ctx: typing.SupportsInt | typing.SupportsIndex,
    n_ubatch: typing.SupportsInt | typing.SupportsIndex,
    n_threads: typing.SupportsInt | typing.SupportsIndex,
    rope: RopeOverrides = ...,
    progress: collections.abc.Callable[[int, int], typing.Any] | None = None,
    on_keys: collections.abc.Callable[[int, int, npt.NDArray[np.float32], npt.NDArray[np.float32]], typing.Any]
    | None = None,
) -> Stats: ...
def check_learned_positions(
    n_ctx: typing.SupportsInt | typing.SupportsIndex,
    n_ctx_train: typing.SupportsInt | typing.SupportsIndex,
    has_learned_positions: bool,
) -> None:
    """
    Check that `n_ctx` positions are no more than a table of learned ones has. Raises ContextError.
    """

def check_mode(
    mode: str, n_head_kv: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], has_alibi: bool
) -> None:
    """
    Check that a mode can evict from a model. `n_head_kv`: KV heads of each layer with full attention; `has_alibi`: its
    attention is biased by distance. Raises UnsupportedModelError, BudgetError.
    """

def check_protected_prompt(n_protected: typing.SupportsInt | typing.SupportsIndex, eviction: EvictionConfig) -> None:
    """
    Check that a prompt of which nothing may be evicted leaves room for the window. Raises BudgetError.
    """

def check_question_length(
    n_tokens: typing.SupportsInt | typing.SupportsIndex, budget: typing.SupportsInt | typing.SupportsIndex
) -> None:
    """
    Check that so many tokens can be a question. Raises InvalidTokenError, BudgetError.
    """

def check_second_reading(has_windows_or_states: bool, n_seq_max: typing.SupportsInt | typing.SupportsIndex) -> None:
    """
    Check that a second reading can be taken back: that no layer has a sliding window or a recurrent state, or that
    there is one sequence. Raises UnsupportedModelError.
    """

def describe_gguf(path: os.PathLike[str] | str | bytes) -> GgufDescription:
    """
    Read the header of a GGUF file, without its weights.
    """

def device_list() -> list[Device]: ...
def embed(
    model: Model,
    texts: collections.abc.Sequence[collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]],
    pooling: str,
    n_threads: typing.SupportsInt | typing.SupportsIndex,
    rope: RopeOverrides = ...,
    loras: collections.abc.Sequence[ScaledLora] = [],
) -> list[npt.NDArray[np.float32]]: ...
def grammar_of_schema(schema: str) -> str: ...
def group_scores(
    scores: typing.Annotated[npt.ArrayLike, np.float32],
    n_head_kv: typing.SupportsInt | typing.SupportsIndex,
    on_host: bool = True,
) -> npt.NDArray[np.float32]: ...
def init_llama() -> None: ...
def least_budget(
    window: typing.SupportsInt | typing.SupportsIndex, n_sink: typing.SupportsInt | typing.SupportsIndex
) -> int:
    """
    The least budget that holds the sink, the window and one key more.
    """

def leaves_little_to_choose(
    mode: str,
    budget: typing.SupportsInt | typing.SupportsIndex,
    window: typing.SupportsInt | typing.SupportsIndex,
    n_sink: typing.SupportsInt | typing.SupportsIndex,
    n_protected: typing.SupportsInt | typing.SupportsIndex,
) -> bool:
    """
    Whether less than a tenth of the budget can be chosen, since sinks, window and a protected prompt are always kept.
    Never in mode 'recent'.
    """

def load_backend(path: str) -> str: ...
def moves_rows(mode: str) -> bool:
    """
    Whether heads may keep different keys under a mode, so that rows move. Raises BudgetError for an unknown one.
    """

def needs_scores(mode: str) -> bool:
    """
    Whether a mode scores keys, for which there have to be statistics. Raises BudgetError for an unknown one.
    """

def plan_compaction(
    kept: typing.Annotated[npt.ArrayLike, np.bool_], slots: typing.Annotated[npt.ArrayLike, np.uint32]
) -> CompactionPlan: ...
def rpc_serve(
    endpoint: str,
    cache_dir: str,
    n_threads: typing.SupportsInt | typing.SupportsIndex,
    devices: collections.abc.Sequence[str],
) -> None: ...
def score_keys(
    layer: LayerStats,
    keys: typing.Annotated[npt.ArrayLike, np.float32],
    position: typing.SupportsInt | typing.SupportsIndex,
    offsets: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    use_trig: bool,
    use_norm: bool,
    use_unrotated: bool,
    on_host: bool = True,
) -> npt.NDArray[np.float32]: ...
def select(
    mode: str,
    scores: typing.Annotated[npt.ArrayLike, np.float32],
    n_head_kv: typing.SupportsInt | typing.SupportsIndex,
    n_keep: typing.SupportsInt | typing.SupportsIndex,
    seed: typing.SupportsInt | typing.SupportsIndex,
) -> npt.NDArray[np.bool_]: ...
def set_loras(context: Context, loras: collections.abc.Sequence[ScaledLora]) -> None: ...
def synthetic_query(
    layer: LayerStats,
    position: typing.SupportsInt | typing.SupportsIndex,
    offsets: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
) -> npt.NDArray[np.float32]: ...
def system_info() -> str: ...
def take_log() -> list[LogLine]:
    """
    Return the lines that llama.cpp logged since the last call.
    """

CACHE_TYPES: tuple[str, ...]
DEFAULT_OFFSETS: list[int]
LLAMA_CPP_COMMIT: str
MODES: tuple[str, ...]
QUANTISED_TYPES: tuple[str, ...]
RANDOM_SEED: int
