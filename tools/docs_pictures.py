#!/usr/bin/env python3
"""Draw the pictures of docs/how-it-works.md: from the statistics of SmolLM2 135M and a run of it, but for the last one;
and that of docs/quantised-caches.md, from its table.

    python tools/docs_pictures.py [folder]      writes docs/pictures/, in half a minute

The text of the run is the documentation that every Python brings along.
"""

from __future__ import annotations

import argparse
import pydoc_data.topics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from PIL import Image

import fetch_models
from pytriattn import Llama, TriAttentionStats, calibrate
from pytriattn.plotting.curves import expected_logits
from pytriattn.plotting.figures import plot_concentration, plot_kept, save_figure
from pytriattn.plotting.kept import KeptKeys, kept_keys
from pytriattn.stats.bundled import bundled_text

DOCS = Path(__file__).resolve().parent.parent / "docs"
FOLDER = DOCS / "pictures"
BUDGET = 192
N_TOKENS = 800
LAYERS = range(12, 20)
"""Those whose heads are drawn one by one."""
DISTANCES = np.unique(np.round(2 ** (np.arange(129) / 8)))
"""What a score is averaged over: 1 to 65536, eight to an octave."""
KEPT, EVICTED, MOVED = "#3f51b5", "#d8dbe8", "#ef8a17"


def read(model: Path, stats: TriAttentionStats, mode: str, n_tokens: int) -> KeptKeys:
    """Read the text under a budget; return which keys each head has kept."""
    topics = pydoc_data.topics.topics
    text = "\n\n".join(topics[name] for name in sorted(topics))[: n_tokens * 8]
    with Llama(model, triattn_stats=stats, budget=BUDGET, mode=mode) as llm:
        llm.eval(llm.tokenize(text)[:n_tokens])
        return kept_keys(llm)


def draw_concentration(stats: TriAttentionStats) -> Figure:
    """R of every band, and how it is spread."""
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.3, 1])
    plot_concentration(stats, left)
    left.set_title("R of each band and query head", fontsize="medium")
    everything = np.concatenate([ratios.ravel() for ratios in stats.concentration().values()])
    right.hist(everything, bins=40, range=(0, 1), color=KEPT)
    right.axvline(float(everything.mean()), color=MOVED, label=f"mean {everything.mean():.2f}")
    right.set_xlabel("R = |E[q]| / E|q|")
    right.set_ylabel("bands of all heads")
    right.set_title("How many bands have which R", fontsize="medium")
    right.legend(frameon=False)
    return figure


def draw_trig(stats: TriAttentionStats) -> Figure:
    """The expected logit of a key against its age, for the next query and for the mean of future ones."""
    layers = {layer.layer: layer for layer in stats.layers}
    # a head with slow bands that are concentrated reaches far; the curves are of one such head, a middle one and a near
    # one
    ages = np.unique(np.geomspace(1, 8192, 250).round())
    reach = []
    for index, layer in layers.items():
        for head in range(layer.n_head):
            here = expected_logits(layer, head, 0.0)
            reach.append((float(future(layer, head, np.array([1.0]))[0] / here), index, head))
    reach.sort(reverse=True)
    chosen = [reach[i] for i in (0, len(reach) // 2, len(reach) - 1)]
    figure = Figure(figsize=(9, 3.3), layout="constrained")
    for axes, (_, index, head) in zip(figure.subplots(1, 3, sharey=True), chosen, strict=True):
        layer = layers[index]
        here = expected_logits(layer, head, 0.0)
        axes.plot(ages, expected_logits(layer, head, ages) / here, color="0.65", linewidth=0.9, label="next query")
        axes.plot(
            ages, future(layer, head, ages) / here, color=MOVED, linewidth=2, label="S_trig: mean over the future"
        )
        axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
        axes.set_xscale("log", base=2)
        axes.set_title(f"layer {index}, head {head}", fontsize="medium")
        axes.set_xlabel("age of the key (tokens)")
    figure.axes[0].set_ylabel("expected logit, 1 at age 0")
    figure.axes[0].legend(frameon=False, fontsize="small")
    return figure


def future(layer: Any, head: int, ages: Any) -> Any:
    """Return the mean over future distances of the logit that the key which the centre likes best gets at each age."""
    return expected_logits(layer, head, np.add.outer(ages, DISTANCES)).mean(axis=-1)


def draw_kept(per_head: KeptKeys, shared: KeptKeys) -> Figure:
    """What each head holds when every head chooses, and when all have to agree."""
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    for axes, kept, mode in ((top, per_head, "per_layer_head"), (bottom, shared, "global")):
        drawn = {head: positions for head, positions in kept.positions.items() if head[0] in LAYERS}
        plot_kept(replace(kept, positions=drawn), axes)
        n_any = len(np.unique(np.concatenate(list(kept.positions.values()))))
        axes.set_title(
            f"{mode}: {kept.budget} keys per head; {n_any} of {kept.n_tokens} tokens are held by some head",
            fontsize="medium",
        )
    top.set_xlabel("")
    return figure


def draw_compaction() -> Figure:
    """Two heads, ten cells, six of which stay: which rows move."""
    wanted = ([0, 1, 2, 5, 7, 9], [0, 1, 3, 5, 8, 9])
    freed = (2, 4, 6, 8)
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    axes.set_xlim(-2.2, 10.1)
    axes.set_ylim(-0.3, 6.7)
    axes.axis("off")
    for cell in freed:
        axes.add_patch(Rectangle((cell - 0.07, -0.15), 1.04, 5.6, facecolor="#f4f4f4", edgecolor="0.6", linestyle=":"))
        axes.text(cell + 0.45, 5.55, "freed", ha="center", fontsize=9, color="0.4")
    for head, (y, keys) in enumerate(zip((3.0, 0.0), wanted, strict=True)):
        axes.text(-0.3, y + 1.9, f"head {head}, before", ha="right", va="center", fontsize=9)
        axes.text(-0.3, y + 0.4, f"head {head}, after", ha="right", va="center", fontsize=9)
        staying = [cell for cell in range(10) if cell not in freed]
        holes = [cell for cell in staying if cell not in keys]
        origins = dict(zip(holes, [key for key in keys if key in freed], strict=True))
        for cell in range(10):
            is_moved = cell in origins.values()
            _cell(axes, cell, y + 1.5, str(cell), MOVED if is_moved else KEPT if cell in keys else EVICTED)
        for cell in staying:
            _cell(axes, cell, y, str(origins.get(cell, cell)), MOVED if cell in origins else KEPT)
        for hole, key in origins.items():
            ends = (key + 0.45, y + 1.5), (hole + 0.45, y + 0.82)
            axes.add_patch(FancyArrowPatch(*ends, arrowstyle="-|>", mutation_scale=13, color="#a85a00", linewidth=1.5))
    for i, (colour, text) in enumerate(
        ((KEPT, "kept where it is"), (MOVED, "kept, its row is copied"), (EVICTED, "evicted"))
    ):
        axes.add_patch(Rectangle((0.1 + 3.2 * i, 6.25), 0.25, 0.25, color=colour))
        axes.text(0.45 + 3.2 * i, 6.36, text, va="center", fontsize=9)
    return figure


def draw_cache_types() -> Figure:
    """Bytes of a cache against how far its predictions are from f16's, as the table of the page has them."""
    figure = Figure(figsize=(7.5, 4), layout="constrained")
    axes = figure.subplots()
    rows = []
    for line in (DOCS / "quantised-caches.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip(" *") for cell in line.strip("|").split("|")]
        if len(cells) >= 8 and cells[1].startswith("0."):
            rows.append(cells)
    for column, model, colour, side in ((2, "SmolLM2 135M", KEPT, "right"), (5, "Gemma 3 270M", MOVED, "left")):
        points = [(float(row[1]), float(row[column].split()[0]), row[0]) for row in rows if row[column][:1].isdigit()]
        axes.scatter(*zip(*[(x, y) for x, y, _ in points], strict=True), color=colour, label=model, zorder=3)
        for x, y, name in points:
            place = (-6 if side == "right" else 6, -8 if name == "iq4_nl" else 1)  # it lies on q4_0
            axes.annotate(name, (x, y), place, textcoords="offset points", ha=side, fontsize=8, color=colour)
    axes.set_yscale("log")
    axes.set_xlim(0.13, 0.6)
    axes.set_xlabel("bytes of keys and values, f16 = 1")
    axes.set_ylabel("KL divergence from f16 in nats")
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False)
    return figure


def _cell(axes: Any, x: float, y: float, text: str, colour: str) -> None:
    axes.add_patch(Rectangle((x, y), 0.9, 0.8, facecolor=colour, edgecolor="white"))
    axes.text(
        x + 0.45, y + 0.4, text, ha="center", va="center", color="0.4" if colour == EVICTED else "white", fontsize=10
    )


def save_small(figure: Figure, path: Path) -> None:
    """Write a PNG with a palette: a third of the bytes."""
    save_figure(figure, path)
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(200, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


def draw_all(folder: Path, n_tokens: int = N_TOKENS) -> None:
    """Write every picture."""
    model = fetch_models.fetch("smollm2")
    stats = calibrate(model, bundled_text(), n_tokens=512)
    folder.mkdir(parents=True, exist_ok=True)
    save_small(draw_concentration(stats), folder / "concentration.png")
    save_figure(draw_trig(stats), folder / "s-trig.svg")
    kept = (read(model, stats, mode, n_tokens) for mode in ("per_layer_head", "global"))
    save_small(draw_kept(*kept), folder / "kept-keys.png")
    save_figure(draw_compaction(), folder / "compaction.svg")
    save_figure(draw_cache_types(), folder / "cache-types.svg")


def main() -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    draw_all(parser.parse_args().folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
