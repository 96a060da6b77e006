"""A forward pass of the tiny llama models in numpy, in float64: every query's visible keys are chosen per layer and KV
head.

It is written from the definition of the architecture and shares no code with llama.cpp or with the engine.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import gguf
import numpy as np
import numpy.typing as npt

from support import kv3

Array = npt.NDArray[np.float64]
Store = Callable[[Array], Array]  # what remains of rows [..., head_dim] in a cache of some type


def as_is(rows: Array) -> Array:
    """Round nothing."""
    return rows


def as_f16(rows: Array) -> Array:
    """Round to float16."""
    return rows.astype(np.float16).astype(np.float64)


def as_bf16(rows: Array) -> Array:
    """Round to bfloat16, the upper half of a float32."""
    bits = rows.astype(np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)  # to nearest, ties to even
    return rounded.view(np.float32).astype(np.float64)


def as_rotated_q8_0(rows: Array) -> Array:
    """Rotate, quantise in blocks of 32, and rotate back."""

    def store(rotated: Array) -> Array:
        blocks = rotated.reshape(-1, 32)
        step = np.abs(blocks).max(axis=-1, keepdims=True) / 127
        integers = np.rint(np.divide(blocks, step, out=np.zeros_like(blocks), where=step > 0))
        return (integers * step.astype(np.float16)).reshape(rotated.shape)

    return _rotated(rows, store)


def as_rotated_kv3(rows: Array) -> Array:
    """Rotate, quantise in three bits, and rotate back."""
    return _rotated(rows, kv3.nearest)


def _rotated(rows: Array, store: Store) -> Array:
    """Rotate by a Hadamard matrix, as llama.cpp does for quantised caches, store, and rotate back.

    For heads of 64 only: longer ones are rotated as a whole in K, but in pieces of 64 in V.
    """
    n = rows.shape[-1]
    assert n == 64
    hadamard: Array = np.ones((1, 1))
    while len(hadamard) < n:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    hadamard = hadamard / np.sqrt(n)  # symmetric and orthonormal: its own inverse
    return matmul(store(matmul(rows.reshape(-1, n), hadamard)), hadamard).reshape(rows.shape)


def matmul(a: Array, b: Array) -> Array:
    """Multiply matrices, a few rows at a time: so little that BLAS starts no threads, which are slow on a busy
    machine.
    """
    return np.concatenate([a[i : i + 8] @ b for i in range(0, len(a), 8)])


class NumpyLlama:
    """Weights of a float32 GGUF file of architecture `llama`, and what they compute."""

    def __init__(self, path: pathlib.Path) -> None:
        reader = gguf.GGUFReader(path)
        self._weights: dict[str, Array] = {t.name: np.array(t.data, dtype=np.float64) for t in reader.tensors}

        def key(name: str) -> float:
            return float(reader.fields[f"llama.{name}"].contents())

        self.n_layer = int(key("block_count"))
        self.n_head = int(key("attention.head_count"))
        self.n_head_kv = int(key("attention.head_count_kv"))
        self.head_dim = int(key("attention.key_length"))
        self._eps = key("attention.layer_norm_rms_epsilon")
        factors = self._weights.get("rope_freqs.weight", 1.0)
        self._omega = key("rope.freq_base") ** (-2.0 * np.arange(self.head_dim // 2) / self.head_dim) / factors

    def _norm(self, x: Array, name: str) -> Array:
        length = np.sqrt((x * x).mean(axis=-1, keepdims=True) + self._eps)
        normed: Array = self._weights[f"{name}.weight"] * x / length
        return normed

    def _linear(self, x: Array, name: str) -> Array:
        return matmul(x, self._weights[f"{name}.weight"].T)

    def _heads(self, x: Array, name: str, *, rotate: bool) -> Array:
        # [n_head, n, head_dim]; neighbouring dimensions are a pair, which turns by its position times omega
        rows = self._linear(x, name).reshape(len(x), -1, self.head_dim).swapaxes(0, 1)
        if rotate:
            turn = np.exp(1j * np.arange(len(x))[:, None] * self._omega)
            turned = (rows[..., 0::2] + 1j * rows[..., 1::2]) * turn
            rows = np.stack([turned.real, turned.imag], axis=-1).reshape(rows.shape)
        return rows

    def logits(
        self,
        tokens: npt.NDArray[np.int32],
        visible: npt.NDArray[np.bool_],
        store: Store = as_is,
        round_queries: Store = as_is,
    ) -> Array:
        """Compute the logits [n, n_vocab] that follow each token.

        visible[layer, kv_head, i, j] says whether the query at position i may attend to the key at position j. That key
        was computed from what its own position could see. `store` rounds keys and values; flash attention may round
        queries as well.
        """
        x = self._weights["token_embd.weight"][tokens]
        for layer in range(self.n_layer):
            blk = f"blk.{layer}"
            y = self._norm(x, f"{blk}.attn_norm")
            q = round_queries(self._heads(y, f"{blk}.attn_q", rotate=True))
            k = store(self._heads(y, f"{blk}.attn_k", rotate=True))
            v = store(self._heads(y, f"{blk}.attn_v", rotate=False))
            heads = []
            for head in range(self.n_head):
                kv_head = head // (self.n_head // self.n_head_kv)
                scores = matmul(q[head], k[kv_head].T) / np.sqrt(self.head_dim)
                scores[~visible[layer, kv_head]] = -np.inf
                weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
                heads.append(matmul(weights, v[kv_head]) / weights.sum(axis=-1, keepdims=True))
            x = x + self._linear(np.concatenate(heads, axis=-1), f"{blk}.attn_output")
            y = self._norm(x, f"{blk}.ffn_norm")
            gate = self._linear(y, f"{blk}.ffn_gate")
            x = x + self._linear(gate / (1 + np.exp(-gate)) * self._linear(y, f"{blk}.ffn_up"), f"{blk}.ffn_down")
        return self._linear(self._norm(x, "output_norm"), "output")
