"""What a GGUF file tells about its model, as a JSON object and as tables; what ``pytriattn-inspect`` prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from pytriattn._util.text import format_bytes, layer_ranges, printable
from pytriattn.model_info.info import ModelInfo
from pytriattn.model_info.layers import LayerInfo, LayerKind, RopeInfo
from pytriattn.model_info.memory import Fit, LayerMemory, full_cache, layer_memory, what_fits
from pytriattn.options.cache import CacheOptions
from pytriattn.reports.json_values import SCHEMA, options_json, to_json

__all__ = ["Inspection", "describe_rope", "inspect_model", "kind_name", "memory_json", "model_json"]

_KINDS = {
    LayerKind.FULL: "full attention",
    LayerKind.SLIDING: "sliding window",
    LayerKind.SHARED: "shared cache",
    LayerKind.RECURRENT: "recurrent",
    LayerKind.NONE: "no attention",
    LayerKind.MTP: "multi-token prediction",
}
_PAIRS = {
    "norm": "neighbours (NORM)",
    "neox": "halves (NEOX)",
    "mrope": "halves (M-RoPE)",
    "imrope": "halves (interleaved M-RoPE)",
}
_LARGEST_FACTOR = 1e20  # files write 1e30 for a band that does not turn
_Shape = tuple[LayerKind, int, int, int, int, int]


@dataclass(frozen=True)
class Inspection:
    """Facts of a model and the memory that its caches take.

    Attributes:
        info: the model.
        settings: the settings of the caches; ``n_ctx`` is never 0.
        full: memory by type of layer without a budget; None where there is one, and llama.cpp could not count the cells
            without it.
        limited: the same with the budget; None without one.
        fit: the texts that fit into the given memory; None if no memory was given.
    """

    info: ModelInfo
    settings: CacheOptions
    full: tuple[LayerMemory, ...] | None
    limited: tuple[LayerMemory, ...] | None
    fit: Fit | None

    def to_json(self) -> dict[str, Any]:
        """Return everything as an object that ``json`` can write; docs/tools.md describes it."""
        ropes = _distinct_ropes(self.info)
        layers = []
        for layer in self.info.layers:
            entry = to_json(layer)
            entry["rope"] = None if layer.rope is None else _index(ropes, layer.rope)
            layers.append(entry)
        return {
            "schema": SCHEMA,
            "tool": "pytriattn-inspect",
            "model": model_json(self.info),
            "layers": layers,
            "ropes": [
                to_json(rope) | {"interleaved": rope.interleaved, "scale": to_json(rope.scale)} for rope in ropes
            ],
            "facts": to_json(self.info.facts),
            "settings": options_json(self.settings),
            "memory": {
                "full_cache": None if self.full is None else memory_json(self.full),
                "budget": None if self.limited is None else memory_json(self.limited),
            },
            "fit": to_json(self.fit),
        }

    def to_tables(self) -> RenderableType:
        """Return everything as tables for a terminal."""
        parts: list[RenderableType] = [_model_table(self.info), "", _layer_table(self.info), "", self._memory_table()]
        parts += ["", *self._notes()]
        if self.info.facts:
            parts += ["", _fact_table(self.info)]
        return Group(*parts)

    def _memory_table(self) -> Table:
        settings = self.settings
        sequences = f", {settings.n_seq_max} sequences" if settings.n_seq_max > 1 else ""
        table = _table(f"KV memory (K {settings.type_k}, V {settings.type_v}{sequences})")
        columns = []
        if self.full is not None:
            columns.append((f"without budget, {settings.n_ctx:,} positions", self.full))
        if self.limited is not None:
            columns.append((f"with budget {settings.budget:,}", self.limited))
        table.add_column("layers")
        table.add_column("per token", justify="right")
        for name, _ in columns:
            table.add_column(f"{name}: cells", justify="right")
            table.add_column("bytes", justify="right")
        rows = columns[0][1]
        for i, row in enumerate(rows):
            cells = [f"{row.n_layers} {kind_name(row.kind)}", format_bytes(row.bytes_per_token) if row.cells else "-"]
            for _, memory in columns:
                cells += [f"{memory[i].cells:,}" if memory[i].cells else "-", format_bytes(memory[i].bytes)]
            table.add_row(*cells)
        table.add_section()
        total = ["together", format_bytes(sum(row.bytes_per_token for row in rows))]
        for _, memory in columns:
            total += ["", format_bytes(sum(row.bytes for row in memory))]
        table.add_row(*total)
        return table

    def _notes(self) -> Iterable[str]:
        full = sum(row.bytes for row in self.full or ())
        if self.full is None:
            yield f"Without a budget, {self.settings.n_ctx:,} positions would be more than llama.cpp can count."
        elif self.limited is not None and full:
            limited = sum(row.bytes for row in self.limited)
            yield (
                f"The budget takes {limited / full:.1%} of the full cache's memory; n_ctx allocates nothing under a "
                "budget."
                if limited < full
                else f"This budget saves nothing: the full cache of {self.settings.n_ctx:,} positions is no larger."
            )
        if not self.info.is_exact:
            yield "These bytes are a guess: what cache llama.cpp makes for this architecture is not known here."
        yield (
            f"Weights: {format_bytes(self.info.file_bytes)}. Buffers for computation come on top of weights and caches."
        )
        if self.fit is not None:
            yield from _fit_notes(self.fit, self.info.n_ctx_train)


def inspect_model(info: ModelInfo, settings: CacheOptions | None = None, memory: int | None = None) -> Inspection:
    """Return what is known of a model and of its caches' memory.

    Args:
        info: the model.
        settings: the settings of the caches; None: the defaults.
        memory: bytes to fit into; None: do not ask.

    Raises:
        ContextError: such a cache cannot be made.
    """
    settings = settings or CacheOptions()
    settings = replace(settings, n_ctx=info.positions(settings))
    return Inspection(
        info=info,
        settings=settings,
        full=full_cache(info, settings),
        limited=None if settings.budget is None else layer_memory(info, settings),
        fit=None if memory is None else what_fits(info, settings, memory),
    )


def kind_name(kind: LayerKind) -> str:
    """Return how tables name a type of layer."""
    return _KINDS[kind]


def model_json(info: ModelInfo) -> dict[str, Any]:
    """Return the facts of the whole model as JSON values."""
    names = (
        *("path", "name", "architecture", "file_bytes", "n_layer", "n_embd", "n_vocab", "n_ctx_train", "window"),
        *("has_alibi", "has_learned_positions", "flash_attention", "is_exact"),
    )
    return {name: to_json(getattr(info, name)) for name in names}


def memory_json(memory: Iterable[LayerMemory]) -> dict[str, Any]:
    """Return memory by type of layer as JSON values, with the sum."""
    rows = list(memory)
    return {
        "total_bytes": sum(row.bytes for row in rows),
        "layers": {row.kind.value: {k: v for k, v in to_json(row).items() if k != "kind"} for row in rows},
    }


def describe_rope(rope: RopeInfo | None) -> str:
    """Say in a few words what RoPE does; None: nothing."""
    if rope is None:
        return "none"
    if rope.n_rot == rope.head_dim:
        dims = f"all {rope.n_rot} dimensions"
    else:
        dims = f"dimensions {rope.rot_begin}-{rope.rot_begin + rope.n_rot - 1} of {rope.head_dim}"
    parts = [_PAIRS.get(rope.mode, rope.mode), dims, f"base {rope.freq_base:g}"]
    if rope.sections:
        parts.append("sections " + "/".join(map(str, rope.sections)))
    stretch = f" x {1 / rope.freq_scale:g}" if rope.freq_scale not in (0, 1) else ""
    if rope.scaling == "yarn":
        parts.append(f"YaRN{stretch} from {rope.n_ctx_orig:,} positions")
    elif rope.scaling != "none" or stretch:
        parts.append(f"{rope.scaling}{stretch}")
    parts += _describe_factors(rope)
    if rope.scale != 1:
        parts.append(f"scale {rope.scale:.4g}")
    return ", ".join(parts)


def _describe_factors(rope: RopeInfo) -> Iterable[str]:
    if rope.long_factors is not None:
        short = "1" if rope.factors is None else f"{rope.factors.min():g} to {rope.factors.max():g}"
        long = f"{rope.long_factors.min():g} to {rope.long_factors.max():g}"
        yield f"factors {short} up to {rope.n_ctx_orig:,} positions, {long} beyond"
    elif rope.factors is not None:
        turning = rope.factors[rope.factors <= _LARGEST_FACTOR]
        if turning.size and (turning != 1).any():
            yield f"frequency factors {turning.min():g} to {turning.max():g}"
        if turning.size < rope.factors.size:
            yield f"{rope.factors.size - turning.size} of {rope.factors.size} bands do not turn"


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")


def _model_table(info: ModelInfo) -> Table:
    table = _table(printable(info.name) or "unnamed model")
    table.show_header = False
    rows = [
        ("file", f"{printable(info.path)} ({format_bytes(info.file_bytes)})"),
        ("architecture", printable(info.architecture)),
        ("layers", _layer_counts(info)),
        ("embedding", f"{info.n_embd:,} wide, {info.n_vocab:,} tokens"),
        ("context", f"{info.n_ctx_train:,} positions trained"),
    ]
    if info.window:
        rows.append(("window", f"{info.window:,} positions in sliding layers"))
    if info.has_alibi:
        rows.append(("positions", "attention is biased by distance (ALiBi)"))
    if info.has_learned_positions:
        rows.append(("positions", "learned, in a table"))
    table.add_column()
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _layer_counts(info: ModelInfo) -> str:
    counts = [(len(info.layers_of(kind)), kind_name(kind)) for kind in LayerKind]
    return f"{info.n_layer}: " + ", ".join(f"{n} {name}" for n, name in counts if n)


def _layer_table(info: ModelInfo) -> Table:
    ropes = _distinct_ropes(info)
    groups: dict[_Shape, list[LayerInfo]] = {}
    for layer in info.layers:
        rope = -1 if layer.rope is None else _index(ropes, layer.rope)
        key = (layer.kind, layer.n_head, layer.n_head_kv, layer.head_dim_k, layer.head_dim_v, rope)
        groups.setdefault(key, []).append(layer)
    table = _table("Layers")
    table.add_column("type")
    table.add_column("layers", overflow="fold")
    for name in ("heads", "KV heads", "K dim", "V dim"):
        table.add_column(name, justify="right")
    table.add_column("RoPE", overflow="fold")
    for (kind, *numbers, _), layers in sorted(groups.items(), key=lambda item: list(LayerKind).index(item[0][0])):
        has_attention = layers[0].n_head > 0
        table.add_row(
            kind_name(kind),
            layer_ranges(layer.index for layer in layers),
            *(str(number) if has_attention else "-" for number in numbers[:3]),
            ("in K" if numbers[3] == 0 else str(numbers[3])) if has_attention else "-",
            describe_rope(layers[0].rope) if has_attention else "-",
        )
    return table


def _fact_table(info: ModelInfo) -> Table:
    table = _table("Where the facts come from")
    table.add_column("fact")
    table.add_column("value", overflow="fold", max_width=40)
    table.add_column("source", overflow="fold")
    for name, fact in info.facts.items():
        table.add_row(printable(name), printable(_short(to_json(fact.value))), printable(fact.source))
    return table


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) > 8:
        return ", ".join(map(str, value[:6])) + f", ... ({len(value)} values)"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "unknown" if value is None else str(value)


def _fit_notes(fit: Fit, n_ctx_train: int) -> Iterable[str]:
    room = fit.memory - fit.weights
    if room <= 0:
        yield f"In {format_bytes(fit.memory)} the weights do not fit."
        return
    yield f"In {format_bytes(fit.memory)}, {format_bytes(room)} are left for caches:"
    if fit.largest_ctx is None:
        yield "  largest context without a budget: none, not even 256 positions fit"
    elif fit.ctx_is_unlimited:
        yield f"  largest context without a budget: {fit.largest_ctx:,} positions, all that are possible"
    else:
        trained = f" (the model was trained for {n_ctx_train:,})" if 0 < n_ctx_train < fit.largest_ctx else ""
        yield f"  largest context without a budget: {fit.largest_ctx:,} positions{trained}"
    if fit.largest_budget is None:
        yield "  largest budget: none, not even the smallest fits"
    elif fit.largest_budget >= fit.ctx:
        yield f"  largest budget: none is needed for {fit.ctx:,} positions"
    else:
        yield f"  largest budget for {fit.ctx:,} positions: {fit.largest_budget:,}"


def _same_rope(a: RopeInfo, b: RopeInfo) -> bool:
    # dataclasses compare arrays element by element, which is no truth value
    return bool(to_json(a) == to_json(b))


def _index(ropes: Sequence[RopeInfo], rope: RopeInfo) -> int:
    return next(i for i, other in enumerate(ropes) if other is rope or _same_rope(other, rope))


def _distinct_ropes(info: ModelInfo) -> list[RopeInfo]:
    found: list[RopeInfo] = []
    for layer in info.layers:
        rope = layer.rope
        if rope is not None and not any(other is rope or _same_rope(other, rope) for other in found):
            found.append(rope)
    return found
