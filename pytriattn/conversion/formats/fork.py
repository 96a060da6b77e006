"""The ``.triattention`` format of llama.cpp forks, versions 1 to 3.

Ours has the same extension, but is a GGUF container.
"""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

from pytriattn.conversion.formats.binary import MAGIC, ByteReader, bands_bytes, check_count, read_bands
from pytriattn.conversion.formats.foreign import MAX_BANDS, Floats, ForeignLayer, ForeignStats, HeadBands, check_head
from pytriattn.errors import StatsError

__all__ = ["read_fork", "write_fork"]

_VERSIONS = (1, 2, 3)
_HEADER = "6Id4I"
_LAYER = "8Id5f2I"
_MAX_LAYERS = _MAX_HEADS = 4096
_MAX_NAME = 4096
_NO_SOURCE = 0xFFFFFFFF


class _Header(NamedTuple):
    magic: int
    version: int
    head_dim: int
    n_layer: int
    n_head: int
    n_head_kv: int
    rope_theta: float
    rope_style: int
    n_sampled: int
    n_bands: int
    name_len: int

    def check(self) -> None:
        if self.magic != MAGIC or self.version not in _VERSIONS:
            raise StatsError(
                f"it is no statistics file of a llama.cpp fork of version 1 to 3 (magic {self.magic:#x}, version "
                f"{self.version})"
            )
        check_count("the head dimension", self.head_dim, 2, 2 * MAX_BANDS)
        check_count("the number of layers", self.n_layer, 1, _MAX_LAYERS)
        check_count("the number of query heads", self.n_head, 1, _MAX_HEADS)
        check_count("the number of KV heads", self.n_head_kv, 1, self.n_head)
        check_count("the RoPE style", self.rope_style, 0, 1)
        check_count("the number of sampled heads", self.n_sampled, 1, self.n_layer * self.n_head)
        check_count("the length of the model's name", self.name_len, 0, _MAX_NAME)
        if self.version < 3:
            check_count("the number of bands", self.n_bands, 1, self.head_dim // 2)
        if not (math.isfinite(self.rope_theta) and self.rope_theta > 0):
            raise StatsError(f"its RoPE base is {self.rope_theta}")


def _pair_of_floats(reader: ByteReader, n_bands: int) -> tuple[Floats, Floats]:
    check_count("the number of bands", n_bands, 1, MAX_BANDS)
    return reader.floats(n_bands), reader.floats(n_bands)


def _read_layer(reader: ByteReader, index: int) -> ForeignLayer:
    values = reader.numbers(_LAYER)
    head_dim, rope_dim, offset, n_head, n_head_kv, source, style, n_ctx_orig = values[:8]
    theta, freq_scale, ext_factor, attn_factor, beta_fast, beta_slow, n_bands, is_explicit = values[8:]
    where = f"of layer {index}"
    check_count(f"the number of bands {where}", n_bands, 0, MAX_BANDS)
    check_count(f"the number of query heads {where}", n_head, 0, _MAX_HEADS)
    check_count(f"the RoPE style {where}", style, 0, 1)
    check_count(f"the mark of explicit RoPE {where}", is_explicit, 0, 1)
    if rope_dim != 2 * n_bands or offset + rope_dim > head_dim:
        raise StatsError(
            f"{rope_dim} rotated dimensions from {offset} on, {n_bands} bands and a head of {head_dim} dimensions "
            f"contradict each other in layer {index}"
        )
    if not all(math.isfinite(value) for value in values[8:14]):
        raise StatsError(f"a RoPE parameter of layer {index} is not finite")
    omega, scale_sq = _pair_of_floats(reader, n_bands) if is_explicit and n_bands else (None, None)
    return ForeignLayer(
        head_dim,
        rope_dim,
        offset,
        n_head,
        n_head_kv,
        None if source == _NO_SOURCE else source,
        style == 1,
        n_ctx_orig,
        theta,
        freq_scale,
        ext_factor,
        attn_factor,
        beta_fast,
        beta_slow,
        n_bands,
        omega,
        scale_sq,
    )


def _read_heads(
    reader: ByteReader, header: _Header, layers: tuple[ForeignLayer, ...]
) -> dict[tuple[int, int], HeadBands]:
    heads: dict[tuple[int, int], HeadBands] = {}
    for _ in range(header.n_sampled):
        layer, head = reader.numbers("2I")
        check_count("the layer of a sampled head", layer, 0, header.n_layer - 1)
        n_head = layers[layer].n_head if layers else header.n_head
        check_count(f"a sampled head of layer {layer}", head, 0, n_head - 1)
        if (layer, head) in heads:
            raise StatsError(f"layer {layer}, head {head} is there twice")
        bands = read_bands(reader, layers[layer].n_bands if layers else header.n_bands)
        heads[layer, head] = check_head(layer, head, bands)
    return {key: bands for key, bands in heads.items() if not bands.is_empty}


def read_fork(data: bytes) -> ForeignStats:
    """Read the bytes of a fork's ``.triattention`` file.

    Raises:
        StatsError: they are damaged, or of another version.
    """
    reader = ByteReader(data)
    header = _Header(*reader.numbers(_HEADER))
    header.check()
    name = reader.raw(header.name_len).split(b"\0", 1)[0].decode("utf-8", "replace")
    omega = scale_sq = None
    layers: tuple[ForeignLayer, ...] = ()
    if header.version == 2:
        omega, scale_sq = _pair_of_floats(reader, header.n_bands)
    if header.version == 3:
        (count,) = reader.numbers("I")
        if count != header.n_layer:
            raise StatsError(f"it has records of {count} layers, but says that the model has {header.n_layer}")
        layers = tuple(_read_layer(reader, index) for index in range(count))
    heads = _read_heads(reader, header, layers)
    reader.finish()
    return ForeignStats(
        f"llama.cpp fork version {header.version}",
        heads,
        head_dim=header.head_dim,
        n_layer=header.n_layer,
        n_head=header.n_head,
        n_head_kv=header.n_head_kv,
        rope_theta=header.rope_theta,
        interleaved=header.rope_style == 1,
        model_name=name,
        omega=omega,
        freq_scale_sq=scale_sq,
        layers=layers,
    )


def _layer_bytes(layer: ForeignLayer) -> bytes:
    record = struct.pack(
        "<" + _LAYER,
        layer.head_dim,
        layer.rope_dim,
        layer.rope_offset,
        layer.n_head,
        layer.n_head_kv,
        _NO_SOURCE if layer.kv_source is None else layer.kv_source,
        int(layer.interleaved),
        layer.n_ctx_orig,
        layer.rope_theta,
        layer.freq_scale,
        layer.ext_factor,
        layer.attn_factor,
        layer.beta_fast,
        layer.beta_slow,
        layer.n_bands,
        int(layer.omega is not None),
    )
    if layer.omega is None or layer.freq_scale_sq is None:
        return record
    return record + layer.omega.astype("<f4").tobytes() + layer.freq_scale_sq.astype("<f4").tobytes()


def write_fork(stats: ForeignStats, version: int = 1) -> bytes:
    """Return the bytes of a fork's ``.triattention`` file of version 1, 2 or 3.

    Raises:
        StatsError: something that the version needs is missing, or the heads differ in their bands before version 3.
    """
    header = (stats.head_dim, stats.n_layer, stats.n_head, stats.n_head_kv, stats.rope_theta)
    if version not in _VERSIONS:
        raise StatsError(f"the forks' format has no version {version}")
    if None in header or not stats.heads or (version == 3) != bool(stats.layers):
        raise StatsError(f"something that version {version} of the forks' format needs is missing")
    if version < 3 and len(stats.band_counts) != 1:
        raise StatsError(
            f"version {version} of the forks' format has one number of bands for all heads, but these have "
            f"{stats.band_counts}; use version 3"
        )
    name = stats.model_name.replace("\0", "").encode("utf-8")[: _MAX_NAME - 1] + b"\0"
    counts = (int(bool(stats.interleaved)), len(stats.heads), stats.band_counts[-1], len(name))
    parts = [struct.pack("<" + _HEADER, MAGIC, version, *header, *counts), name]
    if version == 2:
        if stats.omega is None or stats.freq_scale_sq is None:
            raise StatsError("version 2 of the forks' format needs the frequencies")
        parts += [stats.omega.astype("<f4").tobytes(), stats.freq_scale_sq.astype("<f4").tobytes()]
    if version == 3:
        parts += [struct.pack("<I", len(stats.layers)), *map(_layer_bytes, stats.layers)]
    for (layer, head), bands in sorted(stats.heads.items()):
        parts += [struct.pack("<2I", layer, head), bands_bytes(bands)]
    return b"".join(parts)
