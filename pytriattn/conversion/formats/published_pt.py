"""The ``.pt`` files of the published code: torch's zip archive, read and written without torch."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from pytriattn.conversion.formats import restricted_pickle
from pytriattn.conversion.formats.foreign import MAX_BANDS, Floats, ForeignStats, HeadBands, check_head
from pytriattn.conversion.formats.restricted_pickle import TensorView
from pytriattn.errors import StatsError

__all__ = ["read_pt", "write_pt"]

_HEAD = re.compile(r"layer(\d{1,5})_head(\d{1,5})", re.ASCII)
_PARTS = ("q_mean_real", "q_mean_imag", "q_abs_mean")
_FOLDER = "triattention"
_ALIGNMENT = 64  # as torch writes, so that its readers may map the numbers


class _Archive:
    """The files in a torch archive."""

    def __init__(self, data: bytes) -> None:
        self._zip = zipfile.ZipFile(io.BytesIO(data))
        entries = self._zip.infolist()
        # torch does not compress; a small archive that unfolds into a huge one is not torch's
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise StatsError("a file in it is compressed, which torch does not do")
        if sum(entry.file_size for entry in entries) > len(data):
            raise StatsError("the files in it are larger than itself")
        pickles = [entry.filename for entry in entries if entry.filename.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise StatsError("it is a zip archive, but not one of torch: data.pkl is missing")
        self._folder = pickles[0].partition("/")[0]
        self._names = {entry.filename for entry in entries}
        self._storages: dict[str, bytes] = {}
        if f"{self._folder}/byteorder" in self._names and self.read("byteorder") != b"little":
            raise StatsError("its numbers are big-endian")

    def read(self, name: str) -> bytes:
        path = f"{self._folder}/{name}"
        if path not in self._names:
            raise StatsError(f"{path[:80]} is missing in it")
        return self._zip.read(path)

    def floats(self, tensor: TensorView) -> Floats:
        """Return a tensor's numbers, float32 [count].

        Raises:
            StatsError: its storage is missing, of another type, or too short.
        """
        storage = tensor.storage
        if storage.key not in self._storages:
            self._storages[storage.key] = self.read(f"data/{storage.key}")
        content = self._storages[storage.key]
        if len(content) != storage.count * storage.dtype.itemsize:
            raise StatsError(
                f"data/{storage.key[:20]} has {len(content)} bytes, which are not {storage.count} numbers of "
                f"{storage.dtype.itemsize} bytes"
            )
        values = np.frombuffer(content, storage.dtype, tensor.count, tensor.offset * storage.dtype.itemsize)
        return values.astype(np.float32, copy=False)


def _head_bands(archive: _Archive, name: str, entry: object) -> tuple[tuple[int, int], HeadBands]:
    match = _HEAD.fullmatch(name)
    if match is None:
        raise StatsError(f"'{name[:40]}' does not name a layer and a head")
    layer, head = int(match[1]), int(match[2])
    parts = [entry.get(part) for part in _PARTS] if isinstance(entry, dict) else []
    tensors = [part for part in parts if isinstance(part, TensorView)]
    if len(tensors) != len(_PARTS):
        raise StatsError(f"layer {layer}, head {head} lacks one of {', '.join(_PARTS)}")
    counts = {tensor.count for tensor in tensors}
    if len(counts) != 1 or not 1 <= max(counts) <= MAX_BANDS:
        raise StatsError(f"layer {layer}, head {head} has {sorted(counts)} bands")
    return (layer, head), check_head(layer, head, HeadBands(*(archive.floats(tensor) for tensor in tensors)))


def _number(metadata: Mapping[str, Any], name: str, kind: type[int] | type[float]) -> Any:
    value = metadata.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, kind)) or not 0 < value < 2**31:
        raise StatsError(f"its {name} is no positive number")
    return kind(value)


def _read(data: bytes) -> ForeignStats:
    archive = _Archive(data)
    content = restricted_pickle.load(archive.read("data.pkl"))
    stats = content.get("stats") if isinstance(content, dict) else None
    metadata = content.get("metadata", {}) if isinstance(content, dict) else None
    if not isinstance(stats, dict) or not isinstance(metadata, dict) or not stats:
        raise StatsError("it is a torch archive, but has no dictionaries 'stats' and 'metadata'")
    heads: dict[tuple[int, int], HeadBands] = {}
    for name, entry in stats.items():
        key, bands = _head_bands(archive, name, entry)
        if key in heads:
            raise StatsError(f"layer {key[0]}, head {key[1]} is there twice")
        heads[key] = bands
    style, model_name = metadata.get("rope_style"), metadata.get("model_name")
    return ForeignStats(
        "published .pt",
        {key: bands for key, bands in heads.items() if not bands.is_empty},
        head_dim=_number(metadata, "head_dim", int),
        n_layer=_number(metadata, "num_layers", int),
        n_head=_number(metadata, "num_attention_heads", int),
        n_head_kv=_number(metadata, "num_kv_heads", int),
        rope_theta=_number(metadata, "rope_theta", float),
        interleaved=style == "interleaved" if isinstance(style, str) else None,
        model_name=model_name if isinstance(model_name, str) else "",
    )


def read_pt(data: bytes) -> ForeignStats:
    """Read the bytes of a ``.pt`` file. Nothing that it names is imported or called.

    Raises:
        StatsError: they are damaged, or hold something else.
    """
    try:
        return _read(data)
    except StatsError:
        raise
    # zipfile has no error of its own for many kinds of damage
    except (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, NotImplementedError) as error:
        raise StatsError(f"its zip archive is damaged ({error})") from error
    except (RuntimeError, ValueError, OverflowError, EOFError, OSError, KeyError, IndexError) as error:
        raise StatsError(f"its zip archive is damaged ({type(error).__name__}: {error})") from error


def write_pt(stats: ForeignStats) -> bytes:
    """Return the bytes of a ``.pt`` file that ``torch.load(weights_only=True)`` reads."""
    metadata: dict[str, Any] = {
        "head_dim": stats.head_dim,
        "rope_style": "half",  # of the checkpoint that such files are about, whatever the GGUF's order
        "model_name": stats.model_name,
        "sampled_heads": [list(key) for key in sorted(stats.heads)],
        "num_layers": stats.n_layer,
        "num_attention_heads": stats.n_head,
        "num_kv_heads": stats.n_head_kv,
        "rope_theta": stats.rope_theta,
    }
    content = {
        "metadata": {name: value for name, value in metadata.items() if value is not None},
        "stats": {
            f"layer{layer:02d}_head{head:02d}": dict(zip(_PARTS, bands, strict=True))
            for (layer, head), bands in sorted(stats.heads.items())
        },
    }
    pickled, storages = restricted_pickle.dump(content)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, stream, "data.pkl", pickled)
        _add(archive, stream, "byteorder", b"little")
        for number, values in enumerate(storages):
            _add(archive, stream, f"data/{number}", values.astype("<f4").tobytes())
        _add(archive, stream, "version", b"3\n")
    return stream.getvalue()


def _add(archive: zipfile.ZipFile, stream: io.BytesIO, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(f"{_FOLDER}/{name}")  # dated 1980: the same statistics give the same bytes
    header = stream.tell() + 30 + len(entry.filename.encode()) + 4
    padding = -header % _ALIGNMENT
    entry.extra = b"FB" + padding.to_bytes(2, "little") + bytes(padding)
    archive.writestr(entry, content)
