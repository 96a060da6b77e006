"""What eviction has to get right on every architecture, as functions that return what they found.

`test_architectures.py` asserts on the findings, and `tests/support_table.py` writes them into the table of supported
models.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from models.real import fetch
from models.registry import make_tiny_model
from pytriattn import BudgetError, UnsupportedModelError
from pytriattn._native import core
from pytriattn.eviction.steps import DEFAULT_OFFSETS
from support import kv3

MODES = ("per_layer_head", "per_head", "per_layer", "global", "recent", "random")
TYPES = ("f16", "q8_0", "q4_0")
BUDGET, INTERVAL, WINDOW = 96, 32, 16
N_CTX = 4096
TOKENS = np.random.default_rng(7).integers(0, 250, 400, dtype=np.int32)
CALIBRATION = np.random.default_rng(3).integers(0, 250, 256, dtype=np.int32)
FORCED = 120  # tokens in the cache when an eviction is forced

REAL = {"SmolLM2-135M": "smollm2", "Gemma-3-270M": "gemma3"}
"""Real models, and their names in tools/fetch_models.py."""
WHOLE_KV3_BLOCKS = frozenset(
    (
        "SmolLM2-135M",
        "Gemma-3-270M",
        "llama-ropefreqs",
        "qwen3",
        "smollm3",
        "gemma2",
        "gpt-oss",
        "falcon-h1",
        "qwen35",
        "glm4moe",
        "qwen35-mtp",
        "step35",
        "nemotron_h",
        "qwen35moe",
        "mistral3",
        "hunyuan-dense",
        "jais2",
        "pangu-embed",
        "minicpm",
        "ernie4_5",
        "gemma",
        "seed_oss",
        "apertus",
        "qwen3vl",
        "falcon",
        "plamo3",
        "hunyuan-moe",
        "minimax-m2",
        "qwen3vlmoe",
        "laguna",
    )
)
"""Models whose heads are multiples of 64: they can have kv3 caches. Not deepseek2: llama.cpp also asks for its length
of values, 96, though latent attention stores none."""
LONG_ROPE = ("phi3", "minicpm3", "phimoe")
"""Tiny models with frequencies for texts within 512 positions and for longer ones."""
REFUSED = {
    "minimax-m3": "neither a plain",
    "lfm2-sliding": "no layer of this model has full attention",
}
"""Tiny models that cannot be evicted from, and a piece of the reason that is given."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """One model, in one of the ways in which it can be used."""

    arch: str
    """Its name in `models.registry.ARCHITECTURES`, or one of `REAL`."""
    n_ctx: int = N_CTX
    """Positions: what LongRoPE chooses its frequencies by."""

    def __str__(self) -> str:
        return self.arch if self.n_ctx == N_CTX else f"{self.arch}-{self.n_ctx}"

    @property
    def has_flash_attention(self) -> bool:
        """Tell whether llama.cpp can run the model with it; without, whole cells can be freed, but no rows moved."""
        return self.arch not in ("plm", "grok")

    @property
    def is_biased_by_distance(self) -> bool:
        """Tell whether it has ALiBi: then scores mean nothing and rows cannot move, but old keys may go."""
        return self.arch in ("bloom", "refact", "mpt", "baichuan-alibi")

    @property
    def n_unused_layers(self) -> int:
        """Count layers for multi-token prediction that llama.cpp gives cells to, though decoding never uses them."""
        return int(self.arch == "bailingmoe3")

    @property
    def types(self) -> tuple[str, ...]:
        """List the cache types to try; V is quantised only with flash attention."""
        kv3 = ("kv3",) if self.arch in WHOLE_KV3_BLOCKS else ()
        return (*TYPES, *kv3) if self.has_flash_attention else ("f16",)


@dataclass(frozen=True)
class ScoreError:
    """How far scores are from the mean future logits, over all layers and heads."""

    largest: float
    """The largest difference, as a fraction of the head's largest logit."""
    correlation: float
    """The smallest correlation over a head's keys."""


class Loaded:
    """A loaded model with statistics; makes contexts."""

    def __init__(self, case: Case, folder: pathlib.Path) -> None:
        self.case = case
        self.model = core.Model(
            str(fetch(REAL[case.arch]) if case.arch in REAL else make_tiny_model(case.arch, folder))
        )
        if 0 < self.model.long_rope_threshold < case.n_ctx:
            self.model.use_long_rope()
        self.n_threads = 2 if case.arch in REAL else 1  # tiny models are too small for more
        self.stats = core.calibrate(self.model, CALIBRATION, n_ctx=256, n_ubatch=128, n_threads=self.n_threads)

    @property
    def best_mode(self) -> str:
        """Name the finest mode that the model allows."""
        if self.case.is_biased_by_distance:
            return "recent"
        return "per_layer_head" if self.case.has_flash_attention else "global"

    def context(self, mode: str | None, cache_type: str = "f16", **options: Any) -> Any:
        """Make a context; mode None: one that does not evict, with as many cells as the others have."""
        eviction = None
        n_ctx = min(self.case.n_ctx, self.model.n_ctx_train) if self.model.has_learned_positions else self.case.n_ctx
        if mode is None:
            n_ctx = 256
        else:
            eviction = core.EvictionConfig(
                mode=mode, budget=BUDGET, interval=INTERVAL, window=WINDOW, use_norm=options.pop("use_norm", True)
            )
        settings = {"type_k": cache_type, "type_v": cache_type, **options}
        return core.Context(
            self.model,
            core.DecoderParams(n_ctx=n_ctx, n_threads=self.n_threads, eviction=eviction, **settings),
            self.stats,
        )


@functools.cache
def load(case: Case, folder: pathlib.Path) -> Loaded:
    """Load the case's model from `folder`, where it is written if need be."""
    return Loaded(case, folder)


# --- the cache as bytes ---


def row_bytes(cache_type: str, n: int) -> int:
    """Return the bytes of `n` values."""
    if cache_type == "kv3":
        elements, size = kv3.BLOCK, kv3.BLOCK_BYTES
    else:
        elements, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[cache_type.upper()]]
    assert n % elements == 0
    return n // elements * size


def snapshot(context: Any, types: tuple[str, str], seq: int = 0) -> dict[tuple[int, int, int], npt.NDArray[np.uint8]]:
    """Return the rows of (layer, 0 for K or 1 for V, head) as [slot, bytes]; latent attention stores no V."""
    result = {}
    for layer in context.layers:
        for value, (cache_type, head_dim) in enumerate(zip(types, (layer.head_dim_k, layer.head_dim_v), strict=True)):
            if head_dim == 0:
                continue
            stored = np.frombuffer(core.testing.cache_rows(context, seq, layer.layer, bool(value)), dtype=np.uint8)
            rows = stored.reshape(-1, layer.n_head_kv, row_bytes(cache_type, head_dim))
            for head in range(layer.n_head_kv):
                result[layer.layer, value, head] = rows[:, head].copy()
    return result


def misplaced_rows(context: Any, types: tuple[str, str], before: dict, slot_of: dict[int, int], seq: int = 0) -> int:
    """Count (layer, K or V, head) whose rows in occupied cells are not those of the kept positions in `before`."""
    after = snapshot(context, types, seq)
    cells = [cell.slot for cell in core.testing.cells(context, seq)]
    wrong = 0
    for (layer, value, head), rows in after.items():
        kept = context.kept_positions(seq, layer, head)
        expected = sorted(before[layer, value, head][slot_of[p]].tobytes() for p in kept)
        wrong += len(set(kept.tolist())) != len(cells) or sorted(rows[slot].tobytes() for slot in cells) != expected
    return wrong


def stored_keys(context: Any, layer: Any, cache_type: str, hadamard: bool) -> Floats:
    """Return the keys of a layer with full attention as the model multiplies them with queries: [n_cells, n_head_kv,
    head_dim].

    They are in the order of `cells()`, and llama.cpp's own rotation of quantised caches is undone where it was applied
    (`hadamard`).
    """
    width = layer.n_head_kv * layer.head_dim
    rows = np.frombuffer(core.testing.cache_rows(context, 0, layer.layer, False), dtype=np.uint8).reshape(
        -1, row_bytes(cache_type, width)
    )
    rows = rows[[cell.slot for cell in core.testing.cells(context)]]
    if cache_type == "kv3":
        keys = kv3.decode(rows).astype(np.float32)
    else:
        keys = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType[cache_type.upper()]).astype(np.float32)
    if hadamard:
        rotation = core.testing.k_rotation(context)  # symmetric and orthonormal
        assert rotation is not None
        keys = (keys.reshape(-1, len(rotation)) @ rotation).reshape(len(keys), width)
    return keys.reshape(len(keys), layer.n_head_kv, layer.head_dim)


# --- the checks ---


def score_error(loaded: Loaded, cache_type: str, **options: Any) -> ScoreError:
    """Compare S_trig with the mean logit of future queries.

    These are made by the model's own RoPE operator, with its own parameters, on the centre at every future position;
    they are multiplied with the keys in the cache.
    """
    context = loaded.context(loaded.best_mode, cache_type, use_norm=False, **options)
    context.read(0, TOKENS[:FORCED], 0)
    future = np.array(DEFAULT_OFFSETS, dtype=np.int32) + FORCED
    largest, correlation = 0.0, 1.0
    readers = {node.owner: node for node in reversed(context.attention())}
    for layer, scores in zip(loaded.stats.layers, core.testing.scores(context), strict=True):
        reader = readers[layer.layer]
        keys = stored_keys(context, layer, cache_type, reader.hadamard).astype(np.float64)
        for head in range(layer.n_head):
            queries = core.testing.apply_rope(
                context, reader.layer, np.tile(layer.centre[head], (len(future), 1)), future
            )
            if reader.weights.size:
                queries = queries * reader.weights  # of a norm after RoPE
            logits = queries.astype(np.float64).mean(axis=0) @ keys[:, head // (layer.n_head // layer.n_head_kv)].T
            largest = max(largest, float(np.abs(scores[head] - logits).max() / np.abs(logits).max()))
            correlation = min(correlation, float(np.corrcoef(scores[head], logits)[0, 1]))
    return ScoreError(largest, correlation)


def possible_modes(loaded: Loaded) -> Iterator[str]:
    """Yield the modes that the model allows."""
    for mode in MODES:
        try:
            loaded.context(mode)
        except UnsupportedModelError as error:
            same_heads = mode == "per_head" and "same number of KV heads" in str(error)
            assert same_heads or (loaded.case.is_biased_by_distance and mode != "recent" and "ALiBi" in str(error))
        except BudgetError as error:
            assert mode.startswith("per_") and "flash attention" in str(error)
            assert not loaded.case.has_flash_attention
        else:
            yield mode


def misplaced_after_evictions(loaded: Loaded, cache_type: str) -> dict[str, int]:
    """Force an eviction in each mode; return what `misplaced_rows` finds."""
    result = {}
    for mode in possible_modes(loaded):
        context = loaded.context(mode, cache_type)
        context.read(0, TOKENS[:FORCED], 0)
        types = (cache_type, cache_type)
        before, slot_of = snapshot(context, types), {cell.position: cell.slot for cell in core.testing.cells(context)}
        context.evict()
        assert len(core.testing.cells(context)) == BUDGET < FORCED == len(slot_of)
        result[mode] = misplaced_rows(context, types, before, slot_of)
    return result


def removal_differs_by(loaded: Loaded, cache_type: str) -> float:
    """Evict whole cells, and let llama.cpp remove the same positions elsewhere; return the largest difference of the
    next logits.

    In mode global, or in mode recent where no other is possible.
    """
    mode = "recent" if loaded.case.is_biased_by_distance else "global"
    evicted, removed = loaded.context(mode, cache_type), loaded.context(None, cache_type)
    for context in (evicted, removed):
        if cache_type == "kv3":  # contexts of different sizes measure a little differently what queries look at
            core.testing.store_nearest(context)
        context.read(0, TOKENS[:FORCED], 0)
    evicted.evict()
    kept = [(cell.slot, cell.position) for cell in core.testing.cells(evicted)]
    gone = {cell.position for cell in core.testing.cells(removed)} - {position for _, position in kept}
    core.testing.remove(removed, 0, sorted(gone))
    assert [(cell.slot, cell.position) for cell in core.testing.cells(removed)] == kept
    difference = 0.0
    for token in TOKENS[FORCED : FORCED + 3].tolist():
        for context in (evicted, removed):
            context.step([0], [token])
        difference = max(difference, float(np.abs(evicted.logits() - removed.logits()).max()))
    return difference


def sequences_differ_by(loaded: Loaded) -> tuple[bool, float]:
    """Decode a text beside each of two others; return whether the same keys are kept beside both, and the largest
    difference of the last logits.

    A text alone is no measure: llama.cpp computes products of one row in another order than those of two, and keys
    whose scores are all but equal then change places.
    """
    kept, logits = [], []
    for other in (TOKENS[137:397], TOKENS[51:311]):
        context = loaded.context(loaded.best_mode, n_seq_max=2)
        for seq, text in enumerate((TOKENS[:260], other)):
            context.read(seq, text[:FORCED], 0)
        for pair in zip(TOKENS[FORCED:260], other[FORCED:], strict=True):
            context.step([0, 1], [int(token) for token in pair])
        assert context.counters().n_evictions >= 8  # of both sequences
        kept.append(
            [
                context.kept_positions(0, layer.layer, head).tolist()
                for layer in context.layers
                for head in range(layer.n_head_kv)
            ]
        )
        logits.append(context.logits(0))
    return kept[0] == kept[1], float(np.abs(logits[0] - logits[1]).max())


@dataclass(frozen=True)
class Memory:
    """Cells and bytes of a context, and what they should be."""

    cells: int
    expected_cells: int
    full_bytes: int
    expected_full_bytes: int
    sliding_bytes: int
    expected_sliding_bytes: int
    most_used: int
    """Cells in use, at most, while a long text was read and decoded."""


def round_up(n_cells: int) -> int:
    """Round up as llama.cpp does."""
    return -(-n_cells // 256) * 256


def memory(loaded: Loaded, cache_type: str) -> Memory:
    """Count what a budget allocates and uses."""
    context = loaded.context("recent", cache_type)
    counters = context.counters()
    cells = counters.cells_allocated
    full = sum(
        cells * row_bytes(cache_type, layer.n_head_kv * (layer.head_dim_k + layer.head_dim_v))
        for layer in context.layers + context.layers[: loaded.case.n_unused_layers]
    )
    # the budget and a step; sliding layers want a window and a step, but get no more than the others; rounded up to 256
    window = round_up(loaded.model.n_swa + context.n_ubatch) if loaded.model.n_swa else 0
    expected_cells = min(max(round_up(BUDGET + INTERVAL), window), loaded.case.n_ctx)
    sliding_cells = min(cells, window)
    sliding = sum(
        sliding_cells * row_bytes(cache_type, node.n_head_kv * (node.head_dim + node.head_dim_v))
        for node in context.attention()
        if node.sliding and node.owner == node.layer
    )
    most = 0
    context.read(0, TOKENS[:50], 0)
    for token in TOKENS[50:300].tolist():
        context.step([0], [token])
        most = max(most, context.counters().cells_used)
    total = counters.k_bytes + counters.v_bytes
    return Memory(cells, expected_cells, total - counters.sliding_bytes, full, counters.sliding_bytes, sliding, most)
