"""Reading and writing ``.triattention`` files: GGUF containers of a model's query statistics."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
import numpy.typing as npt

from pytriattn._native import core
from pytriattn._util.atomic_file import atomic_file
from pytriattn.errors import StatsError
from pytriattn.gguf.identity import GGUF_MAGIC, ModelIdentity
from pytriattn.stats.layer_stats import LayerStats

__all__ = ["FORMAT_VERSION", "SidecarContents", "read_sidecar", "write_sidecar"]

FORMAT_VERSION = 3
_WITHOUT_FIT = 2  # the version before, of files without fitted weights
_ARCHITECTURE = "triattention"
# Per-layer numbers, as arrays over layers under "triattention.layer.<name>". GGUF keeps arrays of numbers in single
# precision.
_LAYER_FIELDS: dict[str, Callable[[Any], int | bool | float]] = {
    "layer": int,
    "n_head": int,
    "n_head_kv": int,
    "rot_begin": int,
    "n_rot": int,
    "interleaved": bool,
    "scale": lambda value: float(np.float32(value)),
}
_TENSORS: dict[str, Any] = {"omega": np.float64, "centre": np.float32, "magnitude": np.float32}
_OPTIONAL_TENSORS: dict[str, Any] = {"fit": np.float32}


def _key(name: str) -> str:
    return f"{_ARCHITECTURE}.{name}"


def _tensor_name(layer: int, name: str) -> str:
    return f"layer.{layer}.{name}"


class SidecarContents(NamedTuple):
    """What a sidecar holds; the fields are those of `TriAttentionStats`."""

    layers: tuple[LayerStats, ...]
    model: ModelIdentity
    n_tokens: int
    corpus_sha256: str
    fit_r2: float | None = None


def _content_sha256(stats: SidecarContents) -> str:
    """Return a digest over everything that is stored, so that any damage shows."""
    digest = hashlib.sha256()
    model = stats.model
    digest.update(repr((model.name, model.architecture, model.sha256, stats.n_tokens, stats.corpus_sha256)).encode())
    if stats.fit_r2 is not None:  # files without a fit keep the digest that they always had
        digest.update(np.float32(stats.fit_r2).tobytes())
    for layer in stats.layers:
        digest.update(repr([kind(getattr(layer, name)) for name, kind in _LAYER_FIELDS.items()]).encode())
        for _, array in _tensors_of(layer):
            digest.update(repr(array.shape).encode() + array.tobytes())
    return digest.hexdigest()


def _tensors_of(layer: LayerStats) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    for name, dtype in {**_TENSORS, **_OPTIONAL_TENSORS}.items():
        array = getattr(layer, name)
        if array is not None or name in _TENSORS:
            yield name, np.ascontiguousarray(array, dtype=dtype)


def _write(stats: SidecarContents, path: Path) -> None:
    writer = gguf.GGUFWriter(path, _ARCHITECTURE)
    try:
        writer.add_uint32(_key("format_version"), FORMAT_VERSION)
        writer.add_string(_key("content_sha256"), _content_sha256(stats))
        writer.add_string(_key("model.name"), stats.model.name)
        writer.add_string(_key("model.architecture"), stats.model.architecture)
        writer.add_string(_key("model.sha256"), stats.model.sha256)
        writer.add_string(_key("corpus.sha256"), stats.corpus_sha256)
        writer.add_uint64(_key("corpus.n_tokens"), stats.n_tokens)
        if stats.fit_r2 is not None:
            writer.add_float32(_key("fit.r2"), stats.fit_r2)
        for name, kind in _LAYER_FIELDS.items():
            writer.add_array(_key(f"layer.{name}"), [kind(getattr(layer, name)) for layer in stats.layers])
        for layer in stats.layers:
            for name, array in _tensors_of(layer):
                writer.add_tensor(_tensor_name(layer.layer, name), array)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def write_sidecar(contents: SidecarContents, path: str | os.PathLike[str]) -> None:
    """Write a sidecar to `path`; see `TriAttentionStats.save`."""
    with atomic_file(path) as temporary:
        _write(contents, temporary)


def _scalar(reader: gguf.GGUFReader, name: str, default: Any = None) -> Any:
    field = reader.get_field(_key(name))
    if field is None and default is not None:
        return default
    if field is None:
        raise StatsError(f"the key {_key(name)} is missing")
    return field.contents()


def _layers(reader: gguf.GGUFReader) -> tuple[LayerStats, ...]:
    tensors = {tensor.name: tensor for tensor in reader.tensors}

    def array(layer: int, name: str) -> npt.NDArray[Any] | None:
        tensor = tensors.get(_tensor_name(layer, name))
        if tensor is None and name in _OPTIONAL_TENSORS:
            return None
        if tensor is None or tensor.data.dtype != {**_TENSORS, **_OPTIONAL_TENSORS}[name]:
            raise StatsError(f"the tensor {_tensor_name(layer, name)} is missing or has the wrong type")
        return np.array(tensor.data)  # a copy: the file need not stay

    fields = {name: _scalar(reader, f"layer.{name}") for name in _LAYER_FIELDS}
    layers = []
    for values in zip(*fields.values(), strict=True):
        facts: dict[str, Any] = {
            name: kind(value) for (name, kind), value in zip(_LAYER_FIELDS.items(), values, strict=True)
        }
        arrays: dict[str, Any] = {name: array(facts["layer"], name) for name in (*_TENSORS, *_OPTIONAL_TENSORS)}
        layer = LayerStats(**facts, **arrays)
        layer.to_native()  # checks shapes and ranges
        layers.append(layer)
    return tuple(layers)


def _read(path: Path) -> SidecarContents:
    reader = gguf.GGUFReader(path)
    field = reader.get_field("general.architecture")
    if field is None or field.contents() != _ARCHITECTURE:
        raise StatsError("it is a GGUF file, but not one of TriAttention statistics")
    version = _scalar(reader, "format_version")
    if version not in (_WITHOUT_FIT, FORMAT_VERSION):
        raise StatsError(
            f"it has format version {version}, this pytriattn reads {_WITHOUT_FIT} and {FORMAT_VERSION}; "
            "calibrate again"
        )
    model = ModelIdentity(
        # the writer leaves empty texts out
        _scalar(reader, "model.name", ""),
        _scalar(reader, "model.architecture"),
        _scalar(reader, "model.sha256"),
    )
    stats = SidecarContents(
        _layers(reader),
        model,
        int(_scalar(reader, "corpus.n_tokens")),
        _scalar(reader, "corpus.sha256", ""),
        None if reader.get_field(_key("fit.r2")) is None else float(_scalar(reader, "fit.r2")),
    )
    if not stats.layers or _content_sha256(stats) != _scalar(reader, "content_sha256"):
        raise StatsError("its contents do not match its checksum; calibrate again")
    return stats


def read_sidecar(path: str | os.PathLike[str]) -> SidecarContents:
    """Read the statistics at `path`; see `TriAttentionStats.load`.

    Raises:
        StatsError: the file is missing, damaged, or of another version.
    """
    file = Path(path).expanduser()
    try:
        with file.open("rb") as stream:
            magic = stream.read(4)
    except OSError as error:
        raise StatsError(f"the statistics '{file}' cannot be read: {error.strerror}") from error
    if magic != GGUF_MAGIC:
        raise StatsError(
            f"'{file}' is not a .triattention file: it is no GGUF container; pytriattn-calibrate writes one"
        )
    try:
        # llama.cpp's reader checks every length; the Python one would follow a damaged one for hours
        core.describe_gguf(file)
        return _read(file)
    except StatsError as error:
        raise StatsError(f"the statistics '{file}' cannot be used: {error}") from error
    except (AttributeError, ImportError):
        raise  # not the file's fault
    except Exception as error:  # the reader trusts its input; damage shows as any kind of error
        raise StatsError(
            f"the statistics '{file}' are damaged ({type(error).__name__}: {error}); calibrate again"
        ) from error
