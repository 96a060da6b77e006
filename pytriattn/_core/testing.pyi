# Made by tools/make_stubs.py from the bindings; do not edit.
"""
What serves tests of the engine and nothing else.
"""

from __future__ import annotations

import collections.abc
import typing

import numpy as np
import numpy.typing as npt

import pytriattn._core

class Queries:
    """
    Queries that will score a layer's keys.
    """
    @property
    def positions(self) -> npt.NDArray[np.int32]:
        """
        Where they were asked: int32 [n].
        """
    @property
    def rows(self) -> npt.NDArray[np.float32]:
        """
        The queries after RoPE: float32 [n, n_head, head_dim].
        """

class ReferenceRun:
    """
    A run of reference_loop().
    """
    def __repr__(self) -> str: ...
    @property
    def seconds(self) -> float:
        """
        Seconds of the steps after the prompt.
        """
    @property
    def tokens(self) -> list[int]:
        """
        The tokens that were drawn.
        """

def apply_rope(
    context: pytriattn._core.Context,
    layer: typing.SupportsInt | typing.SupportsIndex,
    vectors: typing.Annotated[npt.ArrayLike, np.float32],
    positions: typing.Annotated[npt.ArrayLike, np.int32],
) -> npt.NDArray[np.float32]:
    """
    RoPE of vectors [n, head_dim] as the model's own graph gives it to queries.
    """

def cache_rows(
    context: pytriattn._core.Context,
    seq: typing.SupportsInt | typing.SupportsIndex,
    layer: typing.SupportsInt | typing.SupportsIndex,
    value: bool,
) -> bytes:
    """
    The stored rows of a layer's keys or values as bytes.
    """

def cells(
    context: pytriattn._core.Context, seq: typing.SupportsInt | typing.SupportsIndex = 0
) -> list[pytriattn._core.KvCell]:
    """
    The cells of a sequence, by ascending position.
    """

def check_cache_device(device: str, type: typing.SupportsInt | typing.SupportsIndex) -> None:
    """
    Check that a device can store keys of a type, given by ggml's number. Raises ContextError.
    """

def k_rotation(context: pytriattn._core.Context) -> npt.NDArray[np.float32] | None:
    """
    The matrix that pieces of a quantised cache's keys are multiplied by, float32; None without one.
    """

def keys_entered(context: pytriattn._core.Context) -> int:
    """
    Keys that mode fitted has read from the cache to score them, of all sequences.
    """

def missing_operations(context: pytriattn._core.Context, device: str = "") -> list[str]:
    """
    The operations of eviction that a device lacks, in words; without a name: the cache's devices.
    """

def queries(
    context: pytriattn._core.Context,
    seq: typing.SupportsInt | typing.SupportsIndex = 0,
    layer: typing.SupportsInt | typing.SupportsIndex = 0,
    of: str = "text",
) -> Queries:
    """
    The queries that will score a layer's keys: of the 'text', of its 'question', or 'standing' ones as they are read
    alone; none in a mode that looks at none.
    """

def read_again(context: pytriattn._core.Context, seq: typing.SupportsInt | typing.SupportsIndex = 0) -> None:
    """
    The second reading that comes before an eviction with reread=True.
    """

def read_keys_from_rows(context: pytriattn._core.Context) -> None:
    """
    Make mode fitted copy rows of keys before it multiplies them, as some devices need it.
    """

def reference_loop(
    model: pytriattn._core.Model,
    prompt: typing.Annotated[npt.ArrayLike, np.int32],
    *,
    n_generate: typing.SupportsInt | typing.SupportsIndex,
    n_ctx: typing.SupportsInt | typing.SupportsIndex,
    n_threads: typing.SupportsInt | typing.SupportsIndex,
) -> ReferenceRun:
    """
    Decode greedily over llama.cpp alone, n_generate tokens after the prompt.
    """

def remove(
    context: pytriattn._core.Context,
    seq: typing.SupportsInt | typing.SupportsIndex,
    positions: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
) -> None:
    """
    Take positions out of the layers with full attention by llama.cpp's own means. Raises ContextError in a context that
    evicts by itself.
    """

def rotate(
    layer: pytriattn._core.LayerStats,
    x: typing.Annotated[npt.ArrayLike, np.float64],
    position: typing.SupportsFloat | typing.SupportsIndex,
) -> npt.NDArray[np.float64]:
    """
    RoPE of one vector [head_dim] by a layer's statistics, float64.
    """

def round_rows(
    values: typing.Annotated[npt.ArrayLike, np.float32], type: str, width: typing.SupportsInt | typing.SupportsIndex
) -> npt.NDArray[np.float32]:
    """
    What is left of values that are stored in rows of `width` as a type of caches: float32 [n, width].
    """

def scores(
    context: pytriattn._core.Context, seq: typing.SupportsInt | typing.SupportsIndex = 0
) -> list[npt.NDArray[np.float32]]:
    """
    Scores of the keys in the order of cells(): float32 [n_head, n_keys] for each layer that is evicted from, of KV
    heads in mode 'fitted'; empty if the mode needs none.
    """

def solve_feedback(squares: typing.Annotated[npt.ArrayLike, np.float64]) -> bytes:
    """
    How a head's keys of the type kv3 are stored (kv3.h), from sums [d, d] over its queries.
    """

def store_nearest(context: pytriattn._core.Context) -> int:
    """
    From now on a context stores keys of the type kv3 as the nearest levels. Returns the number of layers.
    """
