"""How a small model lies in a GGUF file: names, shapes and keys of llama.cpp's architecture ``qwen35``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from byte_vocabulary import N_BYTES, add_byte_vocabulary
from hybrids.shape import Shape

__all__ = [
    "ARCHITECTURE",
    "ExportError",
    "check_tensors",
    "read_shape",
    "read_tensors",
    "tensor_shapes",
    "write_model",
]

ARCHITECTURE = "qwen35"
COUNTS = {
    "vocab_size": "n_vocab",
    "context_length": "n_ctx",
    "embedding_length": "n_embd",
    "feed_forward_length": "n_ff",
    "attention.head_count": "n_head",
    "attention.head_count_kv": "n_head_kv",
    "attention.key_length": "head_dim",
    "rope.dimension_count": "n_rot",
    "ssm.conv_kernel": "conv_kernel",
    "ssm.state_size": "state_dim",
    "ssm.time_step_rank": "n_state_head",
}
"""Keys of a file whose value is a field of `Shape`."""
NUMBERS = {"attention.layer_norm_rms_epsilon": "norm_eps", "rope.freq_base": "freq_base"}
"""The same of 32-bit floating-point numbers."""
Tensors = Mapping[str, npt.NDArray[np.float32]]


class ExportError(ValueError):
    """A checkpoint cannot become a model file; the message names the key or the tensor."""


def tensor_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Return the name of each tensor of the file and its shape, the input dimension last."""
    n_q, n_kv = shape.n_head * shape.head_dim, shape.n_head_kv * shape.head_dim
    n_state = shape.n_state_head * shape.state_dim
    attention = {
        "attn_q.weight": (2 * n_q, shape.n_embd),
        "attn_k.weight": (n_kv, shape.n_embd),
        "attn_v.weight": (n_kv, shape.n_embd),
        "attn_output.weight": (shape.n_embd, n_q),
        "attn_q_norm.weight": (shape.head_dim,),
        "attn_k_norm.weight": (shape.head_dim,),
    }
    delta_net = {
        "attn_qkv.weight": (3 * n_state, shape.n_embd),
        "attn_gate.weight": (n_state, shape.n_embd),
        "ssm_alpha.weight": (shape.n_state_head, shape.n_embd),
        "ssm_beta.weight": (shape.n_state_head, shape.n_embd),
        "ssm_conv1d.weight": (3 * n_state, shape.conv_kernel),
        "ssm_dt.bias": (shape.n_state_head,),
        "ssm_a": (shape.n_state_head,),
        "ssm_norm.weight": (shape.state_dim,),
        "ssm_out.weight": (shape.n_embd, n_state),
    }
    others = {
        "attn_norm.weight": (shape.n_embd,),
        "post_attention_norm.weight": (shape.n_embd,),
        "ffn_gate.weight": (shape.n_ff, shape.n_embd),
        "ffn_up.weight": (shape.n_ff, shape.n_embd),
        "ffn_down.weight": (shape.n_embd, shape.n_ff),
    }
    found: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (shape.n_vocab, shape.n_embd),
        "output_norm.weight": (shape.n_embd,),
        "output.weight": (shape.n_vocab, shape.n_embd),
    }
    for layer in range(shape.n_layer):
        mixer = attention if shape.has_attention(layer) else delta_net
        found |= {f"blk.{layer}.{name}": size for name, size in (mixer | others).items()}
    return found


def check_tensors(shape: Shape, tensors: Tensors) -> None:
    """Check that the tensors are those of a model of this shape.

    Raises:
        ExportError: one is missing, is not known, has another shape, or has a value that is not finite.
    """
    expected = tensor_shapes(shape)
    for name, size in expected.items():
        if name not in tensors:
            raise ExportError(f"the tensor {name} is missing; the checkpoint is cut off or of another shape")
        if tensors[name].shape != size:
            raise ExportError(f"the tensor {name} has the shape {list(tensors[name].shape)}, it must be {list(size)}")
        if not np.isfinite(tensors[name]).all():
            raise ExportError(f"the tensor {name} has values that are not finite; the training failed")
    unknown = sorted(set(tensors) - set(expected))
    if unknown:
        raise ExportError(f"the tensor {unknown[0]} is not known; {ARCHITECTURE} has no such tensor in this place")


def write_model(path: Path, shape: Shape, tensors: Tensors, type_name: str = "F32", name: str = "") -> None:
    """Write a model file with a vocabulary of bytes.

    Args:
        path: the file.
        shape: sizes of the model.
        tensors: by name; see `tensor_shapes`.
        type_name: ggml's type of matrices: ``F32``, ``F16`` or ``Q8_0``. Vectors and convolutions stay in F32.
        name: name of the model.

    Raises:
        ExportError: the tensors or the vocabulary do not fit the shape.
    """
    if shape.n_vocab != N_BYTES:
        raise ExportError(
            f"tokenizer.ggml.tokens has {N_BYTES} entries, one for each byte, but token_embd.weight has "
            f"{shape.n_vocab} rows"
        )
    check_tensors(shape, tensors)
    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    writer.add_name(name or path.stem)
    add_byte_vocabulary(writer)
    writer.add_add_bos_token(False)
    silent = {} if any(not shape.has_attention(i) for i in range(shape.n_layer)) else _silent_layer(shape)
    _add_keys(writer, shape, has_silent_layer=bool(silent))
    kind = gguf.GGMLQuantizationType[type_name]
    for tensor, values in {**tensors, **silent}.items():
        is_matrix = values.ndim == 2 and "conv1d" not in tensor
        used = kind if is_matrix else gguf.GGMLQuantizationType.F32
        writer.add_tensor(tensor, gguf.quantize(np.ascontiguousarray(values, np.float32), used), raw_dtype=used)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _silent_layer(shape: Shape) -> dict[str, npt.NDArray[np.float32]]:
    """Return a last layer with a gated delta network whose weights are zero: it adds nothing.

    llama.cpp ends the process if a file of this architecture has no recurrent layer at all.
    """
    prefix = f"blk.{shape.n_layer}."
    longer = replace(shape, n_layer=shape.n_layer + 1, attention_interval=shape.n_layer + 2)  # none has attention
    sizes = {name: size for name, size in tensor_shapes(longer).items() if name.startswith(prefix)}
    return {name: np.full(size, "norm" in name, dtype=np.float32) for name, size in sizes.items()}


def _add_keys(writer: gguf.GGUFWriter, shape: Shape, *, has_silent_layer: bool) -> None:
    n_bands = shape.n_rot // 2
    sections = [len(range(start, n_bands, 3)) for start in range(3)]  # they take turns; in a text they agree
    counts = {key: getattr(shape, field) for key, field in COUNTS.items()} | {
        "block_count": shape.n_layer + has_silent_layer,
        "attention.value_length": shape.head_dim,
        "ssm.inner_size": shape.n_state_head * shape.state_dim,
        "ssm.group_count": shape.n_state_head,
    }
    for key, count in counts.items():
        writer.add_uint32(f"{ARCHITECTURE}.{key}", count)
    for key, field in NUMBERS.items():
        writer.add_float32(f"{ARCHITECTURE}.{key}", getattr(shape, field))
    writer.add_array(f"{ARCHITECTURE}.rope.dimension_sections", [*sections, 0])
    if has_silent_layer:
        writer.add_array(f"{ARCHITECTURE}.attention.recurrent_layers", [0] * shape.n_layer + [1])
    else:
        writer.add_uint32(f"{ARCHITECTURE}.full_attention_interval", shape.attention_interval)


def read_shape(reader: gguf.GGUFReader) -> Shape:
    """Return the sizes of a model file that `write_model` has written.

    Raises:
        ExportError: it is of another architecture.
    """
    architecture = reader.fields["general.architecture"].contents()
    if architecture != ARCHITECTURE:
        raise ExportError(f"general.architecture is {architecture!r}, only {ARCHITECTURE!r} can be read")

    def number(name: str) -> float:
        return float(f"{reader.fields[f'{ARCHITECTURE}.{name}'].contents():.6g}")  # of 32 bits

    def key(name: str) -> int:
        return int(reader.fields[f"{ARCHITECTURE}.{name}"].contents())

    has_silent_layer = f"{ARCHITECTURE}.attention.recurrent_layers" in reader.fields
    sizes: dict[str, Any] = {field: key(name) for name, field in COUNTS.items()}
    sizes |= {field: number(name) for name, field in NUMBERS.items()}
    return Shape(
        attention_interval=1 if has_silent_layer else key("full_attention_interval"),
        n_layer=key("block_count") - has_silent_layer,
        **sizes,
    )


def read_tensors(reader: gguf.GGUFReader, shape: Shape) -> dict[str, npt.NDArray[np.float32]]:
    """Return a model file's tensors as numbers; a silent layer is left out."""
    return {
        tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type)
        for tensor in reader.tensors
        if tensor.name in tensor_shapes(shape)
    }
