"""Plots of a model's query statistics and of the keys that its heads kept.

They need matplotlib: ``pip install 'pytriattn[plot]'``.

A plot is a ``matplotlib.figure.Figure`` of its own; pyplot and its windows are not touched.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pytriattn._util.atomic_file import write_atomically
from pytriattn._util.text import printable
from pytriattn.plotting.curves import Head, expected_logits, typical_heads
from pytriattn.plotting.kept import KeptKeys, PlotError, kept_keys
from pytriattn.stats.model_stats import TriAttentionStats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure


from pytriattn.session.session import Session

__all__ = [
    "DEFAULT_DISTANCE",
    "check_extension",
    "empty_figure",
    "plot_concentration",
    "plot_expected_logits",
    "plot_kept",
    "plot_stats",
    "save_figure",
]

DEFAULT_DISTANCE = 65536
"""The largest distance that scores are averaged over."""
_POINTS = 600
_MAX_COLUMNS = 800  # of kept positions; a picture has no more pixels
_MAX_TICKS = 32
_EXTENSIONS = (".png", ".svg")


def plot_concentration(stats: TriAttentionStats, axes: Axes | None = None) -> Figure:
    """Draw the concentration R of every head's bands: rows are heads, layer by layer, columns are bands.

    Args:
        stats: the statistics.
        axes: the axes to draw in; None: a figure of its own.

    Returns:
        The figure.

    Raises:
        ImportError: matplotlib is missing.
    """
    axes = axes if axes is not None else empty_figure(6, 8).subplots()
    per_layer = stats.concentration()
    width = max(ratios.shape[1] for ratios in per_layer.values())
    # layers may have heads of different sizes
    rows = [np.pad(r, ((0, 0), (0, width - r.shape[1])), constant_values=np.nan) for r in per_layer.values()]
    image = axes.imshow(
        np.concatenate(rows), cmap="viridis", vmin=0, vmax=1, aspect="auto", interpolation="nearest", origin="upper"
    )
    _layer_ticks(axes, {layer: len(ratios) for layer, ratios in per_layer.items()})
    axes.set_xlabel("band, in the order of dimensions")
    axes.set_ylabel("layer (a row for each query head)")
    axes.set_title("Concentration R = |E[q]| / E|q|")
    bar = _root(axes).colorbar(image, ax=axes, fraction=0.05, pad=0.02)
    bar.set_label("1: all queries point the same way")
    return _root(axes)


def plot_expected_logits(
    stats: TriAttentionStats,
    heads: Sequence[Head] | None = None,
    axes: Axes | None = None,
    *,
    max_distance: int = DEFAULT_DISTANCE,
) -> Figure:
    """Draw `expected_logits` against distance, relative to distance 0, a line for each head.

    Args:
        stats: the statistics.
        heads: (layer, query head); None: `typical_heads`.
        axes: the axes to draw in; None: a figure of its own.
        max_distance: the largest distance, in tokens.

    Returns:
        The figure.

    Raises:
        PlotError: there is no such head.
        ImportError: matplotlib is missing.
    """
    layers = {layer.layer: layer for layer in stats.layers}
    distances = np.unique(np.geomspace(1, max(2, max_distance), _POINTS).round().astype(np.int64))
    curves = []
    for index, head in typical_heads(stats) if heads is None else heads:
        if index not in layers:
            known = ", ".join(map(str, layers))
            raise PlotError(f"there are no statistics of layer {index}; there are of {known}")
        values = expected_logits(layers[index], head, np.concatenate([[0], distances]))
        ratio = float(layers[index].concentration()[head].mean())
        curves.append((f"layer {index}, head {head} (mean R {ratio:.2f})", values[1:] / (values[0] or 1.0)))
    axes = axes if axes is not None else empty_figure(7, 4).subplots()
    for label, values in curves:
        axes.plot(distances, values, label=label, linewidth=1.2)
    axes.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    axes.set_xscale("log", base=2)
    axes.set_xlim(1, distances[-1])
    axes.set_xlabel("distance from key to query (tokens)")
    axes.set_ylabel("logit, 1 at distance 0")
    axes.set_title("Expected logit of the key that the centre matches best")
    axes.legend(fontsize="small", frameon=False)
    return _root(axes)


def plot_kept(source: Session | KeptKeys, axes: Axes | None = None) -> Figure:
    """Draw which positions each head still holds: rows are KV heads, layer by layer, columns are positions.

    Args:
        source: a `Llama` that has read a text, or what `load_kept` returns.
        axes: the axes to draw in; None: a figure of its own.

    Returns:
        The figure.

    Raises:
        PlotError: nothing has been read yet, or there are no heads.
        ImportError: matplotlib is missing.
    """
    kept = source if isinstance(source, KeptKeys) else kept_keys(source)
    if not kept.positions or kept.n_tokens < 1:
        raise PlotError("no head holds keys, so there is nothing to plot")
    axes = axes if axes is not None else empty_figure(8, 5).subplots()
    edges = np.linspace(0, kept.n_tokens, min(kept.n_tokens, _MAX_COLUMNS) + 1).round().astype(np.int64)
    share = np.stack([np.histogram(p, bins=edges)[0] / np.diff(edges) for p in kept.positions.values()])
    rows: dict[int, int] = {}
    for layer, _ in kept.positions:
        rows[layer] = rows.get(layer, 0) + 1
    image = axes.imshow(
        share,
        cmap="Blues",
        vmin=0,
        vmax=1,
        aspect="auto",
        interpolation="nearest",
        origin="upper",
        extent=(0, kept.n_tokens, len(share) - 0.5, -0.5),
    )
    _layer_ticks(axes, rows)
    axes.set_xlabel("position in the text (tokens)")
    axes.set_ylabel("layer (a row for each KV head)")
    budget = "no budget" if kept.budget is None else f"budget {kept.budget:,}"
    axes.set_title(f"Keys kept of {kept.n_tokens:,} tokens, {budget}")
    bar = _root(axes).colorbar(image, ax=axes, fraction=0.05, pad=0.02)
    bar.set_label("share of positions kept")
    return _root(axes)


def plot_stats(
    stats: TriAttentionStats,
    heads: Sequence[Head] | None = None,
    kept: KeptKeys | None = None,
    *,
    max_distance: int = DEFAULT_DISTANCE,
) -> Figure:
    """Draw concentration, expected logits and, if given, kept keys in one figure.

    Args:
        stats: the statistics.
        heads: (layer, query head) of the curves; None: `typical_heads`.
        kept: the keys that a run kept.
        max_distance: the largest distance of the curves, in tokens.

    Returns:
        The figure.

    Raises:
        PlotError: there is no such head, or what was kept is of another model.
        ImportError: matplotlib is missing.
    """
    if kept is not None and kept.model.sha256 != stats.model.sha256:
        raise PlotError(f"the kept keys are of {kept.model}, the statistics of {stats.model}; take files of one model")
    figure = empty_figure(13, 8 if kept is None else 9)
    if kept is None:
        axes = figure.subplot_mosaic([["bands", "logits"]], width_ratios=[1, 1.2])
    else:
        axes = figure.subplot_mosaic([["bands", "logits"], ["bands", "kept"]], width_ratios=[1, 1.2])
        plot_kept(kept, axes["kept"])
    plot_concentration(stats, axes["bands"])
    plot_expected_logits(stats, heads, axes["logits"], max_distance=max_distance)
    # a dollar sign in a model's name begins no formula
    figure.suptitle(f"{printable(stats.model)}, {stats.n_tokens:,} tokens", parse_math=False)
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG or SVG, by the file's extension; the same figure gives the same bytes.

    Raises:
        PlotError: the extension is another one.
        OSError: the file cannot be written.
    """
    import matplotlib

    file = check_extension(path)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "pytriattn"}), warnings.catch_warnings():
        # a model's name may be written in letters that the font lacks
        warnings.filterwarnings("ignore", message=".*[Gg]lyph")
        metadata = {"Date": None} if file.suffix.lower() == ".svg" else {}
        figure.savefig(buffer, format=file.suffix.lower().removeprefix("."), dpi=150, metadata=metadata)
    write_atomically(file, buffer.getvalue())


def check_extension(path: str | os.PathLike[str]) -> Path:
    """Return `path` if it ends in ``.png`` or ``.svg``.

    Raises:
        PlotError: it does not.
    """
    file = Path(path).expanduser()
    if file.suffix.lower() not in _EXTENSIONS:
        raise PlotError(f"'{file}' must end in .png or .svg, which tells the format to write")
    return file


def empty_figure(width: float, height: float) -> Figure:
    """Return a figure of this size in inches.

    Raises:
        ImportError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"plots need matplotlib: pip install 'pytriattn[plot]' ({error})") from error
    return Figure(figsize=(width, height), layout="constrained")


def _root(axes: Axes) -> Figure:
    figure: Figure | SubFigure | None = axes.get_figure(root=True)
    assert figure is not None  # axes come from figures
    return figure  # type: ignore[return-value]


def _layer_ticks(axes: Any, rows: dict[int, int]) -> None:
    """Label the first row of each layer (layer -> rows), or of every few if there are many; draw where layers end."""
    starts = np.cumsum([0, *rows.values()])[:-1]
    for start in starts[1:]:
        axes.axhline(start - 0.5, color="0.6", linewidth=0.4)
    step = -(-len(rows) // _MAX_TICKS)
    axes.set_yticks(starts[::step], [str(layer) for layer in list(rows)[::step]], fontsize="small")
