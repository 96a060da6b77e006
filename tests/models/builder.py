"""A small writer of GGUF models with seeded random weights, shared by the modules of this folder."""

from __future__ import annotations

import os
import pathlib
import tempfile
import zlib
from collections.abc import Sequence

import gguf
import numpy as np

from byte_vocabulary import N_BYTES, add_byte_vocabulary

N_VOCAB = N_BYTES
CONTEXT_LENGTH = 2048
WINDOW = 32  # of sliding attention: shorter than any text the tests read
QK_GAIN = 1.5  # attention logits of about twice unit deviation: neither uniform nor one-hot
OUT_GAIN = 2.0  # attention averages values, so what it adds would be drowned by the residual stream

Value = bool | int | float | str | Sequence[bool] | Sequence[int] | Sequence[float]


class TinyModel:
    """One tiny model in the making. Shapes are given in ggml's order: the input dimension first."""

    def __init__(
        self,
        arch: str,
        *,
        n_layer: int,
        n_head: int | Sequence[int] = 4,
        n_head_kv: int | Sequence[int] = 2,
        head_dim: int = 32,
        n_embd: int = 64,
        n_ff: int = 128,
        n_rot: int | None = None,
        freq_base: float = 10000.0,
    ) -> None:
        """Start a model and note the hyper-parameters that nearly every architecture has."""
        self.arch = arch
        self.n_layer = n_layer
        self.n_embd = n_embd
        self.n_ff = n_ff
        self.head_dim = head_dim
        self.n_rot = head_dim if n_rot is None else n_rot
        self._n_head = n_head
        self._n_head_kv = n_head_kv
        self._keys: dict[str, Value] = {}
        self._bare_keys: dict[str, Value] = {}
        self._tensors: dict[str, np.ndarray] = {}
        self._n_expert = 0
        self._n_ff_expert = 0
        self.keys(
            {
                "vocab_size": N_VOCAB,
                "context_length": CONTEXT_LENGTH,
                "embedding_length": n_embd,
                "block_count": n_layer,
                "feed_forward_length": n_ff,
                "attention.head_count": n_head,
                "attention.head_count_kv": n_head_kv,
                "attention.key_length": head_dim,
                "attention.value_length": head_dim,
                "attention.layer_norm_rms_epsilon": 1e-6,
                "rope.dimension_count": self.n_rot,
                "rope.freq_base": freq_base,
            }
        )

    # --- metadata ---

    def keys(self, values: dict[str, Value]) -> None:
        """Set keys under the architecture's prefix; a later value replaces an earlier one."""
        self._keys.update(values)

    def bare_keys(self, values: dict[str, Value]) -> None:
        """Set keys that have no architecture in front."""
        self._bare_keys.update(values)

    def n_head(self, layer: int) -> int:
        """Count the query heads of a layer."""
        return self._n_head if isinstance(self._n_head, int) else self._n_head[layer]

    def n_head_kv(self, layer: int) -> int:
        """Count the key-value heads of a layer."""
        return self._n_head_kv if isinstance(self._n_head_kv, int) else self._n_head_kv[layer]

    # --- tensors ---

    def _rng(self, name: str) -> np.random.Generator:
        # seeded by name: neither the order nor the presence of other tensors matters
        return np.random.default_rng([zlib.crc32(self.arch.encode()), zlib.crc32(name.encode())])

    def tensor(self, name: str, values: np.ndarray) -> None:
        """Add a tensor with given values; the last axis is ggml's first."""
        self._tensors[name] = np.ascontiguousarray(values, dtype=np.float32)

    def weight(self, name: str, *shape: int, gain: float = 1.0) -> None:
        """Add a matrix (or a stack of them) that keeps the variance of its input, times gain squared."""
        std = gain / np.sqrt(shape[0])
        self.tensor(f"{name}.weight", self._rng(name).normal(0.0, std, shape[::-1]))

    def norm(self, name: str, n: int, mean: float = 1.0, *, bias: bool = False) -> None:
        """Add the weight of a norm, around mean, and its bias on demand."""
        self.tensor(f"{name}.weight", mean * self._rng(name).normal(1.0, 0.15, n))
        if bias:
            self.bias(name, n, std=0.1)

    def bias(self, name: str, *shape: int, std: float = 0.5) -> None:
        """Add a bias."""
        self.tensor(f"{name}.bias", self._rng(f"{name} bias").normal(0.0, std, shape[::-1]))

    def ends(
        self, *, embd_std: float = 1.0, tied: bool = False, norm: str = "output_norm", norm_bias: bool = False
    ) -> None:
        """Add token embeddings, the last norm and the output matrix.

        The embeddings share an offset, so that queries have a mean worth estimating, as those of trained models do.
        """
        rng = self._rng("token_embd")
        offset = rng.normal(0.0, 0.8, self.n_embd)
        self.tensor("token_embd.weight", embd_std * (offset + rng.normal(0.0, 1.0, (N_VOCAB, self.n_embd))))
        self.norm(norm, self.n_embd, bias=norm_bias)
        if not tied:
            self.weight("output", self.n_embd, N_VOCAB, gain=2.0)

    def attention(
        self,
        layer: int,
        *,
        head_dim: int | None = None,
        qk_norm: bool = False,
        q_scale: float = 1.0,
        bias: bool = False,
        fused: bool = False,
        gated: bool = False,
        has_kv: bool = True,
    ) -> None:
        """Add the projections of an attention layer.

        Gated queries carry a gate of the output beside each head; q_scale multiplies the norm of the queries.
        """
        d = self.head_dim if head_dim is None else head_dim
        n_q, n_kv = d * self.n_head(layer), d * self.n_head_kv(layer)
        blk = f"blk.{layer}"
        gain = 1.0 if qk_norm else QK_GAIN
        if fused:
            self.weight(f"{blk}.attn_qkv", self.n_embd, n_q + 2 * n_kv, gain=gain)
        else:
            for part, n, part_gain in (("q", n_q * (2 if gated else 1), gain), ("k", n_kv, gain), ("v", n_kv, 1.0)):
                if part != "q" and not has_kv:
                    continue
                self.weight(f"{blk}.attn_{part}", self.n_embd, n, gain=part_gain)
                if bias:
                    self.bias(f"{blk}.attn_{part}", n)
        if qk_norm:
            self.norm(f"{blk}.attn_q_norm", d, mean=QK_GAIN * q_scale)
            if has_kv:
                self.norm(f"{blk}.attn_k_norm", d, mean=QK_GAIN)
        self.weight(f"{blk}.attn_output", n_q, self.n_embd, gain=OUT_GAIN)

    def ffn(self, layer: int, *, n_ff: int | None = None, suffix: str = "", gate: bool = True) -> None:
        """Add a dense feed-forward block, gated by a matrix of its own or fused with `up`."""
        n = self.n_ff if n_ff is None else n_ff
        blk = f"blk.{layer}"
        if gate:
            self.weight(f"{blk}.ffn_gate{suffix}", self.n_embd, n)
        self.weight(f"{blk}.ffn_up{suffix}", self.n_embd, n if gate else 2 * n)
        self.weight(f"{blk}.ffn_down{suffix}", n, self.n_embd)

    def expert_keys(self, *, n_expert: int = 4, n_used: int = 2, n_ff: int = 48) -> None:
        """Say how many experts there are, how many a token uses and how wide they are."""
        self._n_expert, self._n_ff_expert = n_expert, n_ff
        self.keys({"expert_count": n_expert, "expert_used_count": n_used, "expert_feed_forward_length": n_ff})

    def experts(self, layer: int, *, shared: bool = False, bias: bool = False) -> None:
        """Add a router and a stack of gated experts, and on demand one more that every token uses."""
        blk, n_expert, n_ff = f"blk.{layer}", self._n_expert, self._n_ff_expert
        self.weight(f"{blk}.ffn_gate_inp", self.n_embd, n_expert, gain=2.0)
        self.weight(f"{blk}.ffn_gate_exps", self.n_embd, n_ff, n_expert)
        self.weight(f"{blk}.ffn_up_exps", self.n_embd, n_ff, n_expert)
        self.weight(f"{blk}.ffn_down_exps", n_ff, self.n_embd, n_expert)
        if shared:
            self.ffn(layer, n_ff=n_ff, suffix="_shexp")
        if bias:
            self.bias(f"{blk}.ffn_gate_inp", n_expert)
            self.bias(f"{blk}.ffn_gate_exps", n_ff, n_expert)
            self.bias(f"{blk}.ffn_up_exps", n_ff, n_expert)
            self.bias(f"{blk}.ffn_down_exps", self.n_embd, n_expert)

    def norms(self, layer: int, *names: str, bias: bool = False) -> None:
        """Add norms over the embedding dimension to a layer."""
        for name in names:
            self.norm(f"blk.{layer}.{name}", self.n_embd, bias=bias)

    def uniform(self, name: str, low: float, high: float, *shape: int) -> None:
        """Add a tensor of uniform values; the name is complete, suffix included."""
        self.tensor(name, self._rng(name).uniform(low, high, shape[::-1]))

    # --- output ---

    def save(self, path: pathlib.Path, *, of_bytes: bool = False) -> None:
        """Write the file in one step, so that a reader never sees half of it.

        It has no vocabulary, or one in which each byte is a token.
        """
        handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".partial")
        os.close(handle)
        writer = gguf.GGUFWriter(partial, self.arch)
        if of_bytes:
            add_byte_vocabulary(writer)
        else:
            writer.add_tokenizer_model("no_vocab")
        for key, value in self._keys.items():
            _add_value(writer, f"{self.arch}.{key}", value)
        for key, value in self._bare_keys.items():
            _add_value(writer, key, value)
        for name, values in self._tensors.items():
            writer.add_tensor(name, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        pathlib.Path(partial).replace(path)


def _add_value(writer: gguf.GGUFWriter, key: str, value: Value) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, list(value))
