"""Encoders of images with seeded random weights, for tiny models with a byte vocabulary."""

from __future__ import annotations

import base64
import pathlib
import struct
import zlib

import gguf
import numpy as np
import numpy.typing as npt

N_EMBD = 32
N_TOKENS = 16
"""Tokens that an image becomes in the style of LLaVA."""
_SIZE, _PATCH, _FF, _LAYERS = 32, 8, 64, 2


def make_projector(path: pathlib.Path, n_embd_text: int = 64, kind: str = "mlp") -> pathlib.Path:
    """Write the encoder for a model of this width, to be given as ``--mmproj``.

    ``mlp`` is in the style of LLaVA. ``qwen2vl_merger`` is that of Qwen 2 VL, whose images keep their shape: 16 x 16
    pixels become a token with a column and a row. ``gemma3`` is that of Gemma 3, where all tokens of an image see each
    other.
    """
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", kind)
    writer.add_bool("clip.use_gelu", True)
    sizes = {"image_size": _SIZE, "patch_size": _PATCH, "embedding_length": N_EMBD, "feed_forward_length": _FF}
    sizes |= {"block_count": _LAYERS, "projection_dim": n_embd_text, "attention.head_count": 2}
    for name, value in sizes.items():
        writer.add_uint32(f"clip.vision.{name}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.25, 0.25, 0.25])
    random = np.random.default_rng(0)

    def tensor(name: str, *shape: int, scale: float | None = None) -> None:
        values = random.normal(size=shape) * (scale if scale is not None else shape[-1] ** -0.5)
        writer.add_tensor(name, values.astype(np.float32))

    def linear(name: str, n_in: int, n_out: int) -> None:
        tensor(f"{name}.weight", n_out, n_in)
        tensor(f"{name}.bias", n_out, scale=0.1)

    tensor("v.patch_embd.weight", N_EMBD, 3, _PATCH, _PATCH, scale=0.1)
    if kind == "qwen2vl_merger":
        tensor("v.patch_embd.weight.1", N_EMBD, 3, _PATCH, _PATCH, scale=0.1)
    else:
        tensor("v.position_embd.weight", N_TOKENS, N_EMBD, scale=0.3)
    for layer in range(_LAYERS):
        block = f"v.blk.{layer}"
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            linear(f"{block}.{name}", N_EMBD, N_EMBD)
        for name in ("ln1", "ln2"):
            writer.add_tensor(f"{block}.{name}.weight", np.ones(N_EMBD, np.float32))
            writer.add_tensor(f"{block}.{name}.bias", np.zeros(N_EMBD, np.float32))
        linear(f"{block}.ffn_up", N_EMBD, _FF)
        linear(f"{block}.ffn_down", _FF, N_EMBD)
    if kind == "gemma3":
        writer.add_uint32("clip.vision.projector.scale_factor", 1)
        tensor("mm.input_projection.weight", N_EMBD, n_embd_text, scale=N_EMBD**-0.5)
        tensor("mm.soft_emb_norm.weight", N_EMBD, scale=1.0)
        for name in ("weight", "bias"):
            writer.add_tensor(f"v.post_ln.{name}", np.full(N_EMBD, float(name == "weight"), np.float32))
    else:
        linear("mm.0", N_EMBD * (4 if kind == "qwen2vl_merger" else 1), n_embd_text)
        linear("mm.2", n_embd_text, n_embd_text)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def png_url(seed: int, width: int = _SIZE, height: int = _SIZE) -> str:
    """Return an image of random pixels as a ``data:`` URL."""
    return _as_url(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def grey_url(width: int, height: int) -> str:
    """Return an image of one colour as a ``data:`` URL: all its tokens are the same."""
    return _as_url(np.full((height, width, 3), 90, dtype=np.uint8))


def _as_url(pixels: npt.NDArray[np.uint8]) -> str:
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(png).decode()
