"""Which keys each head still holds after a run: to save and to plot."""

from __future__ import annotations

import io
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pytriattn._util.atomic_file import write_atomically
from pytriattn.errors import TriAttnError
from pytriattn.gguf.identity import ModelIdentity
from pytriattn.session.session import Session

__all__ = ["KeptKeys", "PlotError", "kept_keys", "load_kept", "save_kept"]

_FORMAT_VERSION = 1


class PlotError(TriAttnError, ValueError):
    """The data cannot be plotted; the message says why."""


@dataclass(frozen=True, eq=False)
class KeptKeys:
    """The keys that the heads of a model held at the end of a run.

    Attributes:
        model: the model that ran.
        n_tokens: tokens read and generated.
        budget: keys kept per layer and KV head; None: all.
        positions: (layer, KV head) -> positions of tokens, int32 [n_kept], ascending; in the order of layers and heads.
    """

    model: ModelIdentity
    n_tokens: int
    budget: int | None
    positions: dict[tuple[int, int], npt.NDArray[np.int32]]


def kept_keys(llm: Session) -> KeptKeys:
    """Return which tokens' keys each head of `llm` holds now.

    Raises:
        PlotError: nothing has been read yet.
        UnsupportedModelError: the model keeps no cache of a kind that can be looked into.
        ClosedError: the object has been closed.
    """
    if llm.n_tokens == 0:
        raise PlotError("nothing has been read yet, so no keys are kept; generate or read a text first")
    positions = {(layer, head): llm.kept_positions(layer, head) for layer, head in llm.attention_heads}
    return KeptKeys(llm.identity, llm.n_tokens, llm.budget, positions)


def save_kept(llm: Session, path: str | os.PathLike[str]) -> None:
    """Write which tokens' keys each head of `llm` holds now to an ``.npz`` file; ``pytriattn-plot --kept`` reads it.

    Its arrays: ``format_version``, ``n_tokens``, ``budget`` (-1: none), ``model`` (name, architecture, sha256), and for
    each layer and head ``layer``, ``kv_head`` and ``n_kept`` (int32, int32, int64 [n_heads]), with all ``positions``
    one after another (int32).

    Raises:
        PlotError, UnsupportedModelError, ClosedError: as `kept_keys`.
        OSError: the file cannot be written.
    """
    kept = kept_keys(llm)
    heads = np.array(list(kept.positions), dtype=np.int32).reshape(-1, 2)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        format_version=np.int64(_FORMAT_VERSION),
        n_tokens=np.int64(kept.n_tokens),
        budget=np.int64(-1 if kept.budget is None else kept.budget),
        model=np.array([kept.model.name, kept.model.architecture, kept.model.sha256]),
        layer=heads[:, 0],
        kv_head=heads[:, 1],
        n_kept=np.array([len(values) for values in kept.positions.values()], dtype=np.int64),
        positions=np.concatenate([*kept.positions.values(), np.empty(0, np.int32)]).astype(np.int32),
    )
    write_atomically(path, buffer.getvalue())


def load_kept(path: str | os.PathLike[str]) -> KeptKeys:
    """Read a file that `save_kept` has written.

    Raises:
        PlotError: it is missing, damaged, or something else.
    """
    file = Path(path).expanduser()
    try:
        with np.load(file, allow_pickle=False) as arrays:
            version = int(arrays["format_version"])
            if version != _FORMAT_VERSION:
                raise PlotError(f"'{file}' has format version {version}, this pytriattn reads {_FORMAT_VERSION}")
            return _from_arrays({name: arrays[name] for name in arrays.files})
    except PlotError:
        raise
    except OSError as error:
        raise PlotError(f"'{file}' cannot be read: {error.strerror or error}") from error
    # numpy trusts its input; damage shows as any of these
    except (
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        EOFError,
        MemoryError,
        zipfile.BadZipFile,
    ) as error:
        raise PlotError(f"'{file}' is damaged, or is no file of kept keys (save_kept writes one): {error}") from error


def _from_arrays(arrays: dict[str, npt.NDArray[np.generic]]) -> KeptKeys:
    name, architecture, sha256 = map(str, arrays["model"])
    n_tokens, budget = int(arrays["n_tokens"].item()), int(arrays["budget"].item())
    counts, positions = arrays["n_kept"].astype(np.int64), arrays["positions"].astype(np.int32)
    if (counts < 0).any() or counts.sum() != positions.size:
        raise ValueError("the numbers of kept keys do not add up")
    if positions.size and not (positions.min() >= 0 and positions.max() < n_tokens):
        raise ValueError("a position lies outside the text")
    heads = zip(arrays["layer"].tolist(), arrays["kv_head"].tolist(), strict=True)
    pieces = np.split(positions, np.cumsum(counts)[:-1]) if counts.size else []
    return KeptKeys(
        model=ModelIdentity(name, architecture, sha256),
        n_tokens=n_tokens,
        budget=None if budget < 0 else budget,
        positions=dict(zip(heads, pieces, strict=True)),
    )
