#!/usr/bin/env python3
"""Speed and memory of decoding along a text: the full cache against budgets, for batches and cache types.

    python tools/random_model.py models/qwen3-8b-random.gguf
    python tools/bench/contexts.py --model models/qwen3-8b-random.gguf --json contexts.json

One pass over a text of random tokens for each cache type and batch: at every position the full cache and the budgets
decode in turns, then all read on. All contexts share one loaded model and lie in memory together; one that does not fit
is left out, and said. What is printed is Markdown: tokens/s of all sequences together and, in brackets, how many times
the full cache's. An interval of 128 steps is the least that is timed, so that each timing holds its share of evictions.
What eviction costs is said for the position where it costs most.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

import _options
from pytriattn import ContextError
from pytriattn._native import backends, core
from pytriattn._util.cpus import usable_cpus
from pytriattn.options.eviction import DEFAULT_MODE, default_window
from pytriattn.stats.key_fit import KeyFitter
from pytriattn.stats.layer_stats import LayerStats

INTERVAL = 128
PARTS = ("scoring", "selection", "compaction")


@dataclass
class Point:
    """What was measured at one position; ``budget`` None: the full cache.

    ``shares`` are of the time that decoding takes, ``milliseconds`` those of one eviction, by its parts.
    """

    cache: str
    n_seq: int
    position: int
    budget: int | None
    tokens_per_s: float
    kv_bytes: int
    evictions: int
    shares: dict[str, float]
    milliseconds: dict[str, float]


class Reader:
    """One cache, read along a text."""

    def __init__(self, context: core.Context, budget: int | None, text: npt.NDArray[np.int32]) -> None:
        """Take a context; `text` is [n_seq, n_ctx]."""
        self.context = context
        self.budget = budget
        self._text = text
        self._position = 0

    def read_to(self, position: int) -> None:
        """Read all sequences up to a position."""
        for seq, tokens in enumerate(self._text):
            self.context.read(seq, tokens[self._position : position])
        self._position = position

    def decode_interval(self) -> float:
        """Decode an interval step by step; return its seconds. Nothing is drawn."""
        sequences = list(range(len(self._text)))
        start = time.perf_counter()
        for tokens in self._text[:, self._position : self._position + INTERVAL].T.tolist():
            self.context.step(sequences, tokens)
        self._position += INTERVAL
        return time.perf_counter() - start


def measure(readers: list[Reader], cache: str, position: int, rounds: int) -> list[Point]:
    """Decode in turns from a position on."""
    times: dict[int | None, list[float]] = {reader.budget: [] for reader in readers}
    before = {reader.budget: (reader.context.seconds(), reader.context.counters()) for reader in readers}
    for _ in range(rounds):
        for reader in readers:
            times[reader.budget].append(reader.decode_interval())
    points = []
    for reader in readers:
        seconds, counters = reader.context.seconds(), reader.context.counters()
        old_seconds, old_counters = before[reader.budget]
        spent = {part: getattr(seconds, part) - getattr(old_seconds, part) for part in (*PARTS, "decoding")}
        evictions = counters.n_evictions - old_counters.n_evictions
        points.append(
            Point(
                cache,
                reader.context.n_seq_max,
                position,
                reader.budget,
                reader.context.n_seq_max * INTERVAL / statistics.median(times[reader.budget]),
                counters.k_bytes + counters.v_bytes,
                evictions,
                {part: spent[part] / spent["decoding"] for part in PARTS},
                {part: 1000 * spent[part] / max(1, evictions) for part in PARTS},
            )
        )
    return points


def calibrated(model: core.Model) -> core.Stats:
    """Return statistics of random tokens, with fitted weights."""
    tokens = np.random.default_rng(0).integers(0, model.n_vocab, 512, dtype=np.int32)
    fitter = KeyFitter()
    native = core.calibrate(model, tokens, n_ctx=512, n_ubatch=128, n_threads=usable_cpus(), on_keys=fitter.add)
    layers = fitter.fit().put_into([LayerStats.from_native(layer) for layer in native.layers])
    return core.Stats([layer.to_native() for layer in layers], native.n_tokens)


def make_readers(
    model: core.Model,
    stats: core.Stats,
    cache: str,
    text: npt.NDArray[np.int32],
    budgets: list[int | None],
    n_ubatch: int,
    mode: str,
) -> list[Reader]:
    """Make the contexts, those that fit."""
    readers = []
    for budget in budgets:
        config = (
            None
            if budget is None
            else core.EvictionConfig(mode=mode, budget=budget, window=default_window(mode, budget))
        )
        try:
            context = core.Context(
                model,
                core.DecoderParams(
                    n_ctx=text.shape[1],
                    n_ubatch=n_ubatch,
                    n_threads=usable_cpus(),
                    n_seq_max=len(text),
                    type_k=cache,
                    type_v=cache,
                    flash_attn="on",
                    eviction=config,
                ),
                stats,
            )
        except ContextError as error:
            print(f"\n{name_of(budget)}: left out: {error}")
            continue
        readers.append(Reader(context, budget, text))
    return readers


def name_of(budget: int | None) -> str:
    """Name a column."""
    return "full cache" if budget is None else f"budget {budget:,}"


def table_row(points: list[Point], columns: list[int | None]) -> str:
    """Return a line of Markdown: tokens/s at one position."""
    found = {point.budget: point.tokens_per_s for point in points}
    cells = [f"{points[0].position:,}"]
    for budget in columns:
        if budget not in found:
            cells.append("")
        elif budget is None or None not in found:
            cells.append(f"{found[budget]:.1f}")
        else:
            cells.append(f"{found[budget]:.1f} ({found[budget] / found[None]:.2f})")
    return f"| {' | '.join(cells)} |"


def sweep(model: core.Model, stats: core.Stats, cache: str, n_seq: int, arguments: argparse.Namespace) -> list[Point]:
    """Measure one cache type and batch at all positions, and print the table."""
    n_ctx = max(arguments.positions) + arguments.rounds * INTERVAL + 1
    text = np.random.default_rng(1).integers(0, model.n_vocab, (n_seq, n_ctx), dtype=np.int32)
    columns = [None, *arguments.budgets]
    print(f"\n{cache}, {n_seq} sequence{'s' if n_seq > 1 else ''}\n", flush=True)
    readers = make_readers(model, stats, cache, text, columns, arguments.n_ubatch, arguments.mode)
    if not readers:
        return []
    print("| Position | " + " | ".join(map(name_of, columns)) + " |\n|" + "---|" * (len(columns) + 1), flush=True)
    all_points = []
    for position in sorted(arguments.positions):
        for reader in readers:
            reader.read_to(position)
        points = measure(readers, cache, position, arguments.rounds)
        print(table_row(points, columns), flush=True)
        all_points += points
    sizes = {reader.budget: point.kv_bytes for reader, point in zip(readers, all_points, strict=False)}
    print(f"| K and V | {' | '.join(f'{sizes[b] / 2**20:,.0f} MiB' if b in sizes else '' for b in columns)} |")
    for parts in [[part] for part in PARTS] + [list(PARTS)]:
        name = "eviction" if len(parts) > 1 else parts[0]
        print(f"| {name} | {' | '.join(cost(all_points, budget, parts) for budget in columns)} |", flush=True)
    return all_points


def cost(points: list[Point], budget: int | None, parts: list[str]) -> str:
    """Return the largest share of decoding's time that these parts of eviction take at any position, and
    milliseconds.
    """
    own = [point for point in points if point.budget == budget and point.evictions]
    if not own:
        return ""
    share = max(sum(point.shares[part] for part in parts) for point in own)
    milliseconds = max(sum(point.milliseconds[part] for part in parts) for point in own)
    return f"{100 * share:.2f} % ({milliseconds:.1f} ms)"


def report_ratios(points: list[Point]) -> None:
    """Print how budgets far into a text compare with the full cache there and with a fresh text as long as the
    budget.
    """
    speed = {(p.cache, p.n_seq, p.budget, p.position): p.tokens_per_s for p in points}
    print()
    for point in points:
        if point.budget is None or point.position <= point.budget:
            continue
        key = point.cache, point.n_seq, None
        text = f"{point.cache}, {point.n_seq} x {point.position:,} tokens, budget {point.budget:,}:"
        parts = [
            f"{point.tokens_per_s / speed[(*key, position)]:.3f} x {what}"
            for position, what in ((point.position, "the full cache"), (point.budget, f"a fresh {point.budget:,}"))
            if (*key, position) in speed
        ]
        if parts:
            print(text, ", ".join(parts))


def main() -> int:
    """Command line entry."""
    parser = _options.parser(__doc__, rounds=2)
    parser.add_argument("--positions", type=int, nargs="+", default=[2**i for i in range(10, 18)])
    parser.add_argument("--budgets", type=int, nargs="+", default=[1024, 2048, 4096, 8192])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="sequences at once (default: 1 8)")
    parser.add_argument("--caches", nargs="+", default=["f16", "q8_0", "q4_0"], help="default: f16 q8_0 q4_0")
    parser.add_argument("--mode", default=DEFAULT_MODE, help="how keys are chosen (default: %(default)s)")
    parser.add_argument("--n-ubatch", type=int, default=512, help="of reading (default: %(default)s)")
    parser.add_argument("--n-gpu-layers", type=int, default=-1, help="default: all")
    arguments = parser.parse_args()

    backends.require()
    model = core.Model(str(_options.model_path(arguments.model)), arguments.n_gpu_layers)
    stats = calibrated(model)
    print("devices:", ", ".join(f"{device.name} ({device.description})" for device in core.device_list()))
    points: list[Point] = []
    for n_seq in arguments.batches:
        for cache in arguments.caches:
            points += sweep(model, stats, cache, n_seq, arguments)
            # after each table, so that what was measured outlives an interruption
            _options.write_json(arguments.json, [asdict(point) for point in points])
    report_ratios(points)
    return 0


if __name__ == "__main__":
    sys.exit(main())
