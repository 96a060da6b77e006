"""Converting files of statistics: `convert_file`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from pytriattn._util.atomic_file import write_atomically
from pytriattn.conversion.exporting import export_per_layer, export_uniform
from pytriattn.conversion.formats import read_foreign, write_fork, write_pt, write_tria
from pytriattn.conversion.importing import import_stats
from pytriattn.errors import StatsError
from pytriattn.gguf.identity import GGUF_MAGIC, ModelIdentity, check_model_file, model_identity
from pytriattn.model_info.info import ModelInfo
from pytriattn.model_info.reader import gguf_info
from pytriattn.stats.model_stats import TriAttentionStats

__all__ = ["FORMATS", "Converted", "convert_file", "encode_stats", "format_of_name"]

FORMATS = ("pytriattn", "fork", "fork-v3", "tria", "pt")
"""Our format; versions 1 and 3 of the llama.cpp forks; version 1 of TRIA; the ``.pt`` files of the published code."""

_EXTENSIONS = {".triattention": "pytriattn", ".bin": "tria", ".pt": "pt"}


class Converted(NamedTuple):
    """What was converted.

    Attributes:
        stats: the statistics in our form.
        source_format: the name of the source's format, for messages.
        notes: sentences that a user should read.
    """

    stats: TriAttentionStats
    source_format: str
    notes: tuple[str, ...]


def format_of_name(path: str | os.PathLike[str]) -> str:
    """Return the format that a file's extension stands for.

    Raises:
        StatsError: it stands for none.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _EXTENSIONS:
        raise StatsError(
            f"the extension of '{path}' tells no format; use one of {', '.join(_EXTENSIONS)}, or say it with --format"
        )
    return _EXTENSIONS[suffix]


def convert_file(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    model: str | os.PathLike[str],
    *,
    format_name: str | None = None,
    ignore_rope_theta: bool = False,
) -> Converted:
    """Convert a file of statistics, and write it atomically.

    Args:
        source: a file of any format; its contents tell which.
        output: the file to write.
        model: the GGUF model that the statistics are of.
        format_name: one of `FORMATS`; None: by the extension of `output`.
        ignore_rope_theta: accept another RoPE base than the model's.

    Raises:
        StatsError: the source is damaged, does not fit the model, or the format cannot hold it.
        ModelLoadError: the model cannot be read.
        OSError: the output cannot be written.
    """
    target = Path(output).expanduser()
    wanted = format_of_name(target) if format_name is None else format_name
    if wanted not in FORMATS:
        raise StatsError(f"the format '{wanted}' is unknown; use one of {', '.join(FORMATS)}")
    path = check_model_file(model)
    info = gguf_info(path)
    identity = model_identity(path)
    _check_target(target, path, Path(source).expanduser())
    converted = _load(Path(source).expanduser(), info, identity, ignore_rope_theta)
    if wanted == "pytriattn":
        if converted.source_format == "pytriattn":
            raise StatsError(f"'{source}' has the format of pytriattn already; use it as it is")
        converted.stats.save(target)
        return converted
    data, notes = encode_stats(converted.stats, info, wanted)
    write_atomically(target, data)
    return converted._replace(notes=converted.notes + notes)


def encode_stats(stats: TriAttentionStats, info: ModelInfo, format_name: str) -> tuple[bytes, tuple[str, ...]]:
    """Return the bytes of a foreign file, and what the format cannot hold, a sentence each.

    Args:
        stats: the model's statistics.
        info: the facts that the model's GGUF file tells.
        format_name: one of `FORMATS` but ours.

    Raises:
        StatsError: statistics and model contradict each other, or the format cannot hold them.
    """
    if format_name == "fork-v3":
        foreign, notes = export_per_layer(stats, info)
        return write_fork(foreign, 3), notes
    foreign, notes = export_uniform(stats, info, format_name, strict=format_name != "pt")
    if not foreign.heads:
        raise StatsError(f"nothing of these statistics can be written as {format_name}; use another format")
    if format_name == "tria":
        return write_tria(foreign), notes
    return (write_pt(foreign) if format_name == "pt" else write_fork(foreign)), notes


def _check_target(target: Path, model: Path, source: Path) -> None:
    for other, what in ((model, "the model itself"), (source, "the file to convert")):
        if target.exists() and other.exists() and target.samefile(other):
            raise StatsError(f"'{target}' is {what}; write to another file")
    if target.is_dir() or not target.parent.is_dir():
        raise StatsError(f"'{target}' cannot be written: it is a folder, or its folder does not exist")


def _load(source: Path, info: ModelInfo, identity: ModelIdentity, ignore_rope_theta: bool) -> Converted:
    try:
        with source.open("rb") as stream:
            magic = stream.read(4)
    except OSError as error:
        raise StatsError(f"the statistics '{source}' cannot be read: {error.strerror}") from error
    if magic == GGUF_MAGIC:
        stats = TriAttentionStats.load(source)
        stats.check_model(identity, f"the statistics '{source}'")
        return Converted(stats, "pytriattn", ())
    foreign = read_foreign(source)
    try:
        imported = import_stats(foreign, info, identity, ignore_rope_theta=ignore_rope_theta)
    except StatsError as error:
        raise StatsError(
            f"the statistics '{source}' ({foreign.format}) do not fit the model '{info.path}': {error}"
        ) from error
    return Converted(imported.stats, foreign.format, imported.notes)
