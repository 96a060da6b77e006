#!/usr/bin/env python3
"""Write a model of a real model's shape with random weights: for speed and memory, where what it says does not matter.

    python tools/random_model.py models/qwen3-8b-random.gguf    Qwen3 8B: types and size of its Q4_K_M file, 5.0 GB
    python tools/random_model.py small.gguf --layers 2 --embd 256 --ff 512    the same attention in a small model

The quants are random bits under scales that give every matrix the deviation that keeps its input's variance, so no
activation overflows. There is no vocabulary: feed it token ids.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as Type

SUPER_BLOCK = 256  # weights in a block of the K types
CHUNK_BLOCKS = 1 << 18  # blocks drawn at a time: 37 or 55 MB
SCALE = 8  # of the 16-weight and 32-weight groups, all alike; d does the rest
# deviation of a uniform integer of 4 bits and of 6
DEVIATION_4, DEVIATION_6 = float(np.sqrt((16**2 - 1) / 12)), float(np.sqrt((64**2 - 1) / 12))
QK_GAIN = 1.5  # weight of the norms of queries and keys: attention neither uniform nor one-hot


@dataclass(frozen=True)
class Shape:
    """The hyper-parameters of a Qwen3 model."""

    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    head_dim: int
    n_vocab: int
    context_length: int
    freq_base: float


QWEN3_8B = Shape(
    n_layer=36,
    n_embd=4096,
    n_ff=12288,
    n_head=32,
    n_head_kv=8,
    head_dim=128,
    n_vocab=151936,
    context_length=131072,  # with YaRN; without it 40,960, which says nothing about speed
    freq_base=1e6,
)


@dataclass(frozen=True)
class Tensor:
    """A tensor to write; its shape as numpy's, the input dimension last."""

    name: str
    shape: tuple[int, ...]
    type: Type
    mean: float = 0.0  # of float32 tensors, those of the norms

    @property
    def n_bytes(self) -> int:
        """Bytes in the file."""
        block, size = gguf.GGML_QUANT_SIZES[self.type]
        return int(np.prod(self.shape)) // block * size


def uses_more_bits(layer: int, n_layer: int) -> bool:
    """Whether Q4_K_M stores V's projection and the last matrix of this layer's feed-forward block as Q6_K."""
    return layer < n_layer // 8 or layer >= 7 * n_layer // 8 or (layer - n_layer // 8) % 3 == 2


def tensors(shape: Shape) -> Iterator[Tensor]:
    """List the tensors of a Qwen3 model in the types that Q4_K_M gives them."""
    n_q, n_kv = shape.n_head * shape.head_dim, shape.n_head_kv * shape.head_dim
    yield Tensor("token_embd.weight", (shape.n_vocab, shape.n_embd), Type.Q4_K)
    for i in range(shape.n_layer):
        mixed = Type.Q6_K if uses_more_bits(i, shape.n_layer) else Type.Q4_K
        yield Tensor(f"blk.{i}.attn_norm.weight", (shape.n_embd,), Type.F32, 1.0)
        yield Tensor(f"blk.{i}.attn_q.weight", (n_q, shape.n_embd), Type.Q4_K)
        yield Tensor(f"blk.{i}.attn_k.weight", (n_kv, shape.n_embd), Type.Q4_K)
        yield Tensor(f"blk.{i}.attn_v.weight", (n_kv, shape.n_embd), mixed)
        yield Tensor(f"blk.{i}.attn_q_norm.weight", (shape.head_dim,), Type.F32, QK_GAIN)
        yield Tensor(f"blk.{i}.attn_k_norm.weight", (shape.head_dim,), Type.F32, QK_GAIN)
        yield Tensor(f"blk.{i}.attn_output.weight", (shape.n_embd, n_q), Type.Q4_K)
        yield Tensor(f"blk.{i}.ffn_norm.weight", (shape.n_embd,), Type.F32, 1.0)
        yield Tensor(f"blk.{i}.ffn_gate.weight", (shape.n_ff, shape.n_embd), Type.Q4_K)
        yield Tensor(f"blk.{i}.ffn_up.weight", (shape.n_ff, shape.n_embd), Type.Q4_K)
        yield Tensor(f"blk.{i}.ffn_down.weight", (shape.n_embd, shape.n_ff), mixed)
    yield Tensor("output_norm.weight", (shape.n_embd,), Type.F32, 1.0)
    yield Tensor("output.weight", (shape.n_vocab, shape.n_embd), Type.Q6_K)


def quantized_blocks(type_: Type, n: int, deviation: float, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draw `n` blocks of random weights of mean 0: uint8 [n, bytes of a block]."""
    blocks = np.frombuffer(bytearray(rng.bytes(n * gguf.GGML_QUANT_SIZES[type_][1])), np.uint8).reshape(n, -1)
    if type_ is Type.Q4_K:  # d, dmin, 12 bytes of eight 6-bit scales and minima, 128 bytes of quants
        d = deviation / (DEVIATION_4 * SCALE)
        blocks[:, :4] = np.array([d, 7.5 * d], np.float16).view(np.uint8)
        blocks[:, 4:12] = SCALE
        blocks[:, 12:16] = SCALE | SCALE << 4
    else:  # Q6_K: 192 bytes of quants, 16 scales, d
        blocks[:, 192:208] = SCALE
        blocks[:, 208:] = np.array([deviation / (DEVIATION_6 * SCALE)], np.float16).view(np.uint8)
    return blocks


def values(tensor: Tensor, rng: np.random.Generator) -> Iterator[npt.NDArray[np.generic]]:
    """Draw a tensor's data, a piece at a time."""
    if tensor.type is Type.F32:
        yield (tensor.mean * rng.normal(1.0, 0.1, tensor.shape)).astype(np.float32)
        return
    # embeddings are looked up: each weight is itself an activation
    deviation = 1.0 if tensor.name == "token_embd.weight" else 1.0 / float(np.sqrt(tensor.shape[-1]))
    left = int(np.prod(tensor.shape)) // SUPER_BLOCK
    while left > 0:
        n = min(left, CHUNK_BLOCKS)
        yield quantized_blocks(tensor.type, n, deviation, rng)
        left -= n


def write(shape: Shape, path: Path, seed: int = 0) -> None:
    """Write the model; the file appears when it is complete.

    Raises:
        ValueError: a matrix has rows that the K types cannot hold.
    """
    for name, n in ("n_embd", shape.n_embd), ("n_ff", shape.n_ff), ("n_head * head_dim", shape.n_head * shape.head_dim):
        if n % SUPER_BLOCK:
            raise ValueError(f"{name} is {n}, it must be a multiple of {SUPER_BLOCK}")
    partial = path.with_name(path.name + ".partial")
    writer = gguf.GGUFWriter(partial, "qwen3")
    writer.add_name("random weights in the shape of Qwen3")
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(shape.n_vocab)
    writer.add_context_length(shape.context_length)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head_kv)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(shape.freq_base)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_K_M)
    wanted = list(tensors(shape))
    for tensor in wanted:
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor.n_bytes, tensor.type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    rng = np.random.default_rng(seed)
    with partial.open("ab") as file:
        for tensor in wanted:
            file.write(bytes(-file.tell() % gguf.GGUF_DEFAULT_ALIGNMENT))
            for piece in values(tensor, rng):
                piece.tofile(file)
        file.write(bytes(-file.tell() % gguf.GGUF_DEFAULT_ALIGNMENT))
    os.replace(partial, path)


def main() -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="the GGUF file to write")
    parser.add_argument("--layers", type=int, default=QWEN3_8B.n_layer, help="default: %(default)s")
    parser.add_argument("--embd", type=int, default=QWEN3_8B.n_embd, help="embedding length (default: %(default)s)")
    parser.add_argument("--ff", type=int, default=QWEN3_8B.n_ff, help="feed-forward length (default: %(default)s)")
    parser.add_argument("--vocab", type=int, default=QWEN3_8B.n_vocab, help="tokens (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    shape = replace(
        QWEN3_8B, n_layer=arguments.layers, n_embd=arguments.embd, n_ff=arguments.ff, n_vocab=arguments.vocab
    )
    try:
        write(shape, arguments.path, arguments.seed)
    except (OSError, ValueError) as error:
        print(f"random_model: {error}", file=sys.stderr)
        return 1
    print(arguments.path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
