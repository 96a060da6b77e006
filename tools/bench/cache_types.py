#!/usr/bin/env python3
"""What types of caches cost and save: error of rows, quality at 4,096 tokens, bytes, and speed of decoding.

    python tools/bench/cache_types.py [--model smollm2|gemma3|FILE.gguf] [--parts error quality memory speed]

A type is one name for keys and values, or two with a slash: q8_0/kv3. Types that do not fit the model's heads are left
out, and said. All contexts of a part are in memory together and take turns, so that a busy machine is as busy for all.

- error: squared error over squares, of normal rows, and of keys and values of the layers with full attention.
- quality: against f16 on WikiText-2: KL divergence in nats, how often the likeliest token is the same, perplexity, and
  after how many tokens the greedy text first differs, from four places on.
- memory: bytes of a cache, and of a budget of 3,072 at 32,768 tokens.
- speed: steps of decoding at a position, timed in turns; the ratio to f16 and q4_0 is that of each turn's pair.
"""

from __future__ import annotations

import statistics
import struct
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import _options
from _row_errors import VARIANTS, relative_error, rotate_pieces, stored
from _texts import load_text
from pytriattn import ContextError, Llama
from pytriattn._native import backends, core
from pytriattn.gguf.types import row_bytes
from pytriattn.model_info.reader import gguf_info

TYPES = ("f16", "q8_0", "q4_0", "iq4_nl", "q3_K", "q2_K", "kv3", "q8_0/kv3", "q4_0/kv3")
PARTS = ("error", "quality", "memory", "speed")
CHUNK = 64  # tokens whose logits are compared at once
STEPS = 32  # of decoding in one timing
REPEATED = 20  # times that a short text fills a cache
ROW_HEADER = 12  # bytes before the rows of a layer in a state: their type and size
Figures = dict[str, dict[str, Any]]


def pair(name: str) -> tuple[str, str]:
    """Return the types of keys and values."""
    type_k, _, type_v = name.partition("/")
    return type_k, type_v or type_k


def fitting(path: Path, types: list[str]) -> list[str]:
    """Return the types that the model's heads fit; say which do not."""
    result = []
    for name in types:
        try:
            gguf_info(path).kv_bytes(512, type_k=pair(name)[0], type_v=pair(name)[1])
        except ContextError as error:
            print(f"{name} is left out: {error}")
        else:
            result.append(name)
    return result


def make_context(model: core.Model, name: str, n_ctx: int, n_threads: int) -> core.Context:
    """Make a context with a full cache."""
    type_k, type_v = pair(name)
    params = core.DecoderParams(n_ctx=n_ctx, n_threads=n_threads, type_k=type_k, type_v=type_v, flash_attn="on")
    return core.Context(model, params, None)


def measure_errors(model: core.Model, types: list[str], tokens: npt.NDArray[np.int32], n_threads: int) -> Figures:
    """Compare rows with what is left of them."""
    context = make_context(model, "f32", len(tokens), n_threads)
    context.read(0, tokens)
    layers = context.eviction_view(0).layers
    normal = np.random.default_rng(1).standard_normal((8192, 256)).astype(np.float32)
    keys = np.concatenate([layer.keys().reshape(-1, layer.head_dim_k) for layer in layers])
    values = np.concatenate([layer.values().reshape(-1, layer.head_dim_v) for layer in layers])
    whole = keys.shape[1] & -keys.shape[1]  # the greatest power of 2 that divides a head: how keys are rotated
    rotated = {"normal": normal, "keys": rotate_pieces(keys, whole), "values": rotate_pieces(values, 64)}
    figures: Figures = {}
    for name in types:
        if name not in ("f16", pair(name)[1]):
            continue
        bits = 8 * row_bytes(name, keys.shape[1]) / keys.shape[1]
        errors = {kind: relative_error(rows, stored(rows, name)) for kind, rows in rotated.items()}
        figures[name] = {"bits": bits} | errors
    plain = {"normal": normal, "keys": keys, "values": values}
    for name, variant in VARIANTS.items():
        bits = 3 + 16 / min(keys.shape[1], 128)
        figures[name] = {"bits": bits} | {k: relative_error(rows, variant(rows)) for k, rows in plain.items()}
    print("\n| Type | bits | normal rows | keys | values |\n|---|---|---|---|---|")
    for name, found in figures.items():
        print(f"| {name} | {found['bits']:.3f} | " + " | ".join(f"{found[kind]:.5f}" for kind in plain) + " |")
    shares = [mean_share([getattr(layer, part)() for layer in layers]) for part in ("keys", "values")]
    print(
        f"\nThe means of the heads have {shares[0]:.0%} of the squares of keys, and {shares[1]:.0%} of those of values."
    )
    return figures


def mean_share(layers: list[npt.NDArray[np.float32]]) -> float:
    """Return how much of the squares of rows [n_head_kv, n_keys, width] the mean row of each head has, on average."""
    shares = [(rows.mean(1) ** 2).sum(1) / (rows**2).sum(2).mean(1) for rows in layers]
    return float(np.concatenate(shares).mean())


def log_softmax(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return logarithms of probabilities."""
    shifted: npt.NDArray[np.float32] = rows - rows.max(1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(1, keepdims=True, dtype=np.float64)).astype(np.float32)
    return shifted


def read_rows(context: core.Context, tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """Append tokens; return the logarithms of probabilities after each: [n, n_vocab]."""
    context.score(tokens, len(tokens))
    return log_softmax(np.stack([context.logits(row) for row in range(len(tokens))]))


def greedy(context: core.Context, row: npt.NDArray[np.float32], n: int) -> list[int]:
    """Append the likeliest token n times, then take all of them back."""
    position, found = context.n_tokens(), []
    for _ in range(n):
        found.append(int(row.argmax()))
        context.step([0], [found[-1]])
        row = context.logits(0)
    assert context.truncate(0, position) == position
    return found


def measure_quality(
    model: core.Model, types: list[str], tokens: npt.NDArray[np.int32], n_threads: int, n_greedy: int, every: int
) -> Figures:
    """Read a text in lockstep, and compare each `every`-th piece with f16."""
    others = [name for name in types if name != "f16"]
    contexts = {name: make_context(model, name, len(tokens) + n_greedy + 1, n_threads) for name in ["f16", *others]}
    sums = {name: {"kl": 0.0, "same": 0.0, "loss": 0.0} for name in contexts}
    mismatches: dict[str, list[int]] = {name: [] for name in contexts}
    places = {len(tokens) * (i + 1) // 4 // (CHUNK * every) * CHUNK * every for i in range(4)}
    n = n_following = 0
    for start in range(0, len(tokens) - CHUNK + 1, CHUNK):
        piece, following = tokens[start : start + CHUNK], tokens[start + 1 : start + CHUNK + 1]
        if (start // CHUNK + 1) % every != 0:
            for context in contexts.values():
                context.read(0, piece)
            continue
        n += len(piece)
        n_following += len(following)
        rows = {name: read_rows(context, piece) for name, context in contexts.items()}
        exact = rows["f16"]
        for name, found in rows.items():
            sums[name]["kl"] += float((np.exp(exact) * (exact - found)).sum(dtype=np.float64))
            sums[name]["same"] += float((exact.argmax(1) == found.argmax(1)).sum())
            sums[name]["loss"] -= float(found[np.arange(len(following)), following].sum(dtype=np.float64))
        if start + CHUNK in places:
            texts = {name: greedy(context, rows[name][-1], n_greedy) for name, context in contexts.items()}
            for name, text in texts.items():
                differs = [a != b for a, b in zip(text, texts["f16"], strict=True)]
                mismatches[name].append(differs.index(True) if any(differs) else n_greedy)
            print(f"{start + CHUNK} tokens, first mismatches {mismatches}", file=sys.stderr, flush=True)
    figures: Figures = {
        name: {
            "kl": total["kl"] / n,
            "same": total["same"] / n,
            "perplexity": float(np.exp(total["loss"] / n_following)),
            "mismatch": mismatches[name],
        }
        for name, total in sums.items()
    }
    print(
        "\n| Type | KL divergence | of q4_0's | same token | perplexity | first mismatch |\n|---|---|---|---|---|---|"
    )
    for name, own in figures.items():
        times = f"{own['kl'] / figures['q4_0']['kl']:.2f}" if "q4_0" in figures else ""
        firsts = ", ".join(str(i) if i < n_greedy else f"none in {n_greedy}" for i in own["mismatch"])
        cells = [f"{own['kl']:.5f}", times, f"{100 * own['same']:.2f} %", f"{own['perplexity']:.3f}", firsts]
        print(f"| {name} | {' | '.join(cells)} |")
    return figures


def measure_memory(path: Path, types: list[str]) -> Figures:
    """Ask contexts what they have allocated."""

    def allocated(n_ctx: int, **settings: Any) -> int:
        with Llama(path, n_ctx=n_ctx, **settings) as llm:
            return int(llm.kv_stats()["kv_bytes"])

    whole, long = allocated(4096), allocated(32768)
    figures: Figures = {}
    print("\n| Type | 4,096 tokens | of f16 | 32,768 tokens, budget 3,072 | of the full f16 cache |")
    print("|---|---|---|---|---|")
    for name in types:
        settings = {"type_k": pair(name)[0], "type_v": pair(name)[1]}
        full = allocated(4096, **settings)
        kept = allocated(32768, budget=3072, mode="recent", n_ubatch=128, **settings)
        figures[name] = {"bytes": full, "of_f16": full / whole, "budget_bytes": kept, "times": long / kept}
        mib = [f"{size / 2**20:.1f} MiB" for size in (full, kept)]
        print(f"| {name} | {mib[0]} | {full / whole:.4f} | {mib[1]} | 1/{long / kept:.1f} |")
    return figures


def read_and_save(context: core.Context, text: npt.NDArray[np.int32]) -> core.SavedSequence:
    """Read a text, and give it back as a state."""
    context.read(0, text)
    return context.save()


def layer_bytes(saved: core.SavedSequence, n_layers: int) -> tuple[bytes, list[bytes]]:
    """Take a state of a model without sliding or recurrent layers apart: what stands before the rows, and the rows of
    keys of each layer and of values of each layer.
    """
    data, start = saved.cells, -1
    header = struct.pack("<II", 0, n_layers)  # llama.cpp writes: V is not transposed, the number of layers; then these
    while (start := data.find(header, start + 1)) >= 0:
        at = start + len(header)
        parts: list[bytes] = []
        while at + ROW_HEADER <= len(data) and len(parts) < 2 * n_layers:
            (row,) = struct.unpack_from("<Q", data, at + 4)  # behind the type
            end = at + ROW_HEADER + row * saved.n_tokens
            parts.append(data[at:end])
            at = end
        if at == len(data):  # otherwise these bytes were others by chance
            return data[: start + len(header)], parts
    raise SystemExit("the state of this model is none of plain layers; leave --fill out")


def repeat_rows(
    context: core.Context, text: npt.NDArray[np.int32], whole: core.SavedSequence, n_layers: int
) -> core.SavedSequence:
    """Return a state as long as `whole` for another type: the rows of the text's first tokens again and again."""
    few = read_and_save(context, text[: whole.n_tokens // REPEATED])
    head, parts = layer_bytes(whole, n_layers)[0], layer_bytes(few, n_layers)[1]
    cells = head + b"".join(part[:ROW_HEADER] + part[ROW_HEADER:] * REPEATED for part in parts)
    return core.SavedSequence(cells=cells, origins=b"", n_tokens=whole.n_tokens, n_protected=0)


def measure_speed(
    model: core.Model, types: list[str], position: int, rounds: int, n_threads: int, *, filled: bool, n_layers: int
) -> Figures:
    """Decode in turns from a position on."""
    text = np.random.default_rng(1).integers(0, model.n_vocab, position + rounds * STEPS, dtype=np.int32)
    contexts = {name: make_context(model, name, len(text), n_threads) for name in types}
    if filled:
        saved = read_and_save(contexts["f16"], text[:position])
        for name, context in contexts.items():
            context.load(saved if name == "f16" else repeat_rows(context, text, saved, n_layers))
    else:
        for context in contexts.values():
            context.read(0, text[:position])
    times: dict[str, list[float]] = {name: [] for name in types}
    for i in range(rounds):
        for name, context in contexts.items():
            start = time.perf_counter()
            for token in text[position + i * STEPS : position + (i + 1) * STEPS].tolist():
                context.step([0], [token])
            times[name].append((time.perf_counter() - start) / STEPS)
    figures: Figures = {}
    print(f"\nDecoding after {position:,} tokens; in brackets the least and the greatest of {rounds} turns\n")
    print("| Type | ms | speed, f16 = 1 | speed, q4_0 = 1 |\n|---|---|---|---|")
    for name, own in times.items():
        found: dict[str, Any] = {"ms": 1000 * statistics.median(own)}
        cells = []
        for base in ("f16", "q4_0"):
            ratios = [a / b for a, b in zip(times.get(base, own), own, strict=True)]
            found[base] = statistics.median(ratios)
            cells.append(f"{found[base]:.3f} ({min(ratios):.2f} to {max(ratios):.2f})")
        figures[name] = found
        print(f"| {name} | {found['ms']:.2f} | {' | '.join(cells)} |")
    return figures


def main() -> int:
    """Command line entry."""
    parser = _options.parser(__doc__, rounds=9)
    parser.add_argument("--types", nargs="+", default=list(TYPES), help=f"default: {' '.join(TYPES)}")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--tokens", type=int, default=4096, help="of the text for quality (default: %(default)s)")
    parser.add_argument(
        "--every", type=int, default=1, help=f"compare in every so many pieces of {CHUNK} tokens (default: all)"
    )
    parser.add_argument("--greedy", type=int, default=128, help="tokens of each greedy text (default: %(default)s)")
    parser.add_argument("--position", type=int, default=8000, help="where decoding is timed (default: %(default)s)")
    parser.add_argument(
        "--fill",
        action="store_true",
        help="for speed, fill quantised caches with the rows of a short text, which saves minutes",
    )
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s, for the least noise")
    arguments = parser.parse_args()
    path = _options.model_path(arguments.model)
    types = fitting(path, arguments.types)
    figures: dict[str, Figures] = {}
    backends.require()
    model = core.Model(path)
    if {"error", "quality"} & set(arguments.parts):
        with Llama(path, n_ctx=64) as llm:
            text = llm.tokenize(load_text("wikitext2")[: 12 * arguments.tokens])
        tokens = np.array(text[: arguments.tokens], dtype=np.int32)
    if "error" in arguments.parts:
        figures["error"] = measure_errors(model, types, tokens[:512], arguments.threads)
    if "quality" in arguments.parts:
        figures["quality"] = measure_quality(model, types, tokens, arguments.threads, arguments.greedy, arguments.every)
    if "memory" in arguments.parts:
        figures["memory"] = measure_memory(path, types)
    if "speed" in arguments.parts:
        figures["speed"] = measure_speed(
            model,
            types,
            arguments.position,
            arguments.rounds,
            arguments.threads,
            filled=arguments.fill,
            n_layers=len(gguf_info(path).layers),
        )
    _options.write_json(arguments.json, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
