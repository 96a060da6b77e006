"""Whether a model, its statistics, a budget and this build fit together, before anything large is loaded.

Each check returns findings; `preflight` runs all of them and `raise_failures` turns failures into the exceptions that `Llama`
raises at load.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from pytriattn._native import backends, core
from pytriattn.architectures import check_architecture
from pytriattn.errors import BackendError, BudgetError, ContextError, StatsError, TriAttnError, UnsupportedModelError
from pytriattn.kv_memory import QUANTISED_TYPES
from pytriattn.memory import (
    CacheOptions,
    evictable_layers,
    full_cache,
    scaled_budget_of,
    what_fits,
)
from pytriattn.model_file import ModelIdentity
from pytriattn.model_info import LayerKind, ModelInfo
from pytriattn.stats import TriAttentionStats
from pytriattn.stats_fit import differences
from pytriattn.text import format_bytes

__all__ = ["Finding", "PreflightSettings", "Status", "effective_settings", "preflight", "raise_failures"]


class Status(str, Enum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    """It will run, but perhaps not as meant."""
    FAIL = "fail"
    """It cannot run."""


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        name: of the check: ``statistics``, ``architecture``, ``layers``, ``flash attention``, ``build``, ``context``, ``budget``,
            ``scaling``, ``memory`` or ``advice``.
        status: how it ended.
        message: what was found, a sentence or two.
        error: what `raise_failures` raises for it; None unless the check failed.
    """

    name: str
    status: Status
    message: str
    error: type[TriAttnError] | None = None


@dataclass(frozen=True)
class PreflightSettings:
    """What `Llama` would be called with; see there.

    Attributes:
        cache: budget, context and types; its ``flash_attn`` is False only where the user has switched it off.
        mode: what keeps its own set of keys.
        window: the newest keys, never evicted.
        n_sink: the first keys, never evicted.
        scale_budget_by_attention: raise the budget where few layers have full attention.
        allow_untested: set a budget for an architecture that has not been tested.
        memory: bytes for weights and caches; None: do not ask.
    """

    cache: CacheOptions
    mode: str = "per_layer_head"
    window: int = 64
    n_sink: int = 4
    scale_budget_by_attention: bool = False
    allow_untested: bool = False
    memory: int | None = None

    @property
    def moves_rows(self) -> bool:
        """Tell whether heads keep different keys, for which rows are moved."""
        return self.mode.startswith("per_")

    @property
    def least_budget(self) -> int:
        """Return the smallest budget: sinks, window, and one key to choose."""
        return self.n_sink + self.window + 1

    @property
    def needs_scores(self) -> bool:
        """Tell whether keys are scored."""
        return self.moves_rows or self.mode == "global"


def preflight(
    info: ModelInfo,
    settings: PreflightSettings,
    stats: TriAttentionStats | StatsError | None,
    identity: ModelIdentity | None,
) -> list[Finding]:
    """Run all checks; nothing is loaded.

    Args:
        info: the model.
        settings: what it would be loaded with. Without a budget, only the context and the memory are checked.
        stats: the statistics; why they could not be read; or None to measure them at load.
        identity: which model file it is; None if that is not known, as for a file on a server.

    Returns:
        Findings in the order of the checks; at least one each of those that apply.
    """
    findings: list[Finding] = []
    if settings.cache.budget is not None:
        if settings.needs_scores:
            findings += _check_statistics(info, stats, identity)
        findings += _check_architecture(info, settings)
        findings += _check_layers(info, settings)
        findings += _check_flash_attention(info, settings)
        findings += _check_build()
    findings += _check_context(info, settings)
    if any(finding.name == "context" and finding.status is Status.FAIL for finding in findings):
        return findings  # neither cells nor bytes mean anything then
    if settings.cache.budget is not None:
        findings += _check_budget(info, settings)
        findings += _check_scaling(info, settings)
    findings += _check_memory(info, effective_settings(info, settings))
    return findings


def raise_failures(findings: Sequence[Finding]) -> None:
    """Raise the error of the first failure, with the messages of all of them.

    Raises:
        StatsError, UnsupportedModelError, BudgetError, ContextError: as `Llama` at load.
    """
    failures = [finding for finding in findings if finding.status is Status.FAIL]
    if failures:
        raise (failures[0].error or TriAttnError)("; ".join(finding.message for finding in failures))


def _ok(name: str, message: str) -> Finding:
    return Finding(name, Status.OK, message)


def _warn(name: str, message: str) -> Finding:
    return Finding(name, Status.WARN, message)


def _fail(name: str, message: str, error: type[TriAttnError]) -> Finding:
    return Finding(name, Status.FAIL, message, error)


# -- statistics ----------------------------------------------------------------------------------------------------------------


def _check_statistics(
    info: ModelInfo, stats: TriAttentionStats | StatsError | None, identity: ModelIdentity | None
) -> Iterator[Finding]:
    if stats is None:
        yield _ok("statistics", "none are given; they will be measured at load on the text that ships with the package")
        return
    if isinstance(stats, StatsError):
        yield _fail("statistics", str(stats), StatsError)
        return
    found = list(differences(info, stats))
    if identity is not None and identity.sha256 != stats.model.sha256:
        what = "; ".join(found) or "shapes and rotation agree, so another version, quantisation or conversion of it"
        message = f"they were calibrated on {stats.model}, but the model is {identity} ({what}); calibrate this model"
        yield _fail("statistics", message, StatsError)
    elif found:
        yield _fail("statistics", f"they do not fit this model: {'; '.join(found)}; calibrate again", StatsError)
    elif identity is None:
        yield _warn(
            "statistics",
            f"shapes and rotation agree with the model, but whether they are of this very file is not known; they are of {stats.model}",
        )
    else:
        summary = f"{len(stats.layers)} layers, {stats.n_tokens:,} tokens, mean concentration {stats.mean_concentration():.2f}"
        yield _ok("statistics", f"they are of this model: {summary}")


# -- model and build -----------------------------------------------------------------------------------------------------------


def _check_architecture(info: ModelInfo, settings: PreflightSettings) -> Iterator[Finding]:
    name = "architecture"
    try:
        check_architecture(info.architecture, settings.allow_untested)
    except UnsupportedModelError as error:
        yield _fail(name, str(error), UnsupportedModelError)
        return
    try:
        check_architecture(info.architecture, allow_untested=False)
    except UnsupportedModelError:
        yield _warn(name, f"eviction has not been tested on {info.architecture!r}; check the answers yourself")
    else:
        yield _ok(name, f"eviction has been tested on models of architecture {info.architecture!r}")


def _check_layers(info: ModelInfo, settings: PreflightSettings) -> Iterator[Finding]:
    name = "layers"
    layers = evictable_layers(info)
    if not layers:
        message = "no layer of this model has full attention, so there is nothing to evict; load it with budget=None"
        yield _fail(name, message, UnsupportedModelError)
        return
    if info.has_alibi and settings.needs_scores:
        message = (
            "attention is biased by distance (ALiBi): scores do not know the bias, and a key that is moved would get another one; "
            "use mode='recent' or budget=None"
        )
        yield _fail(name, message, UnsupportedModelError)
        return
    if settings.mode == "per_head" and len({layer.n_head_kv for layer in layers}) > 1:
        message = "mode='per_head' needs the same number of KV heads in every layer; use per_layer_head"
        yield _fail(name, message, UnsupportedModelError)
        return
    others = ", ".join(
        f"{len(info.layers_of(kind))} {what}"
        for kind, what in (
            (LayerKind.SLIDING, "sliding"),
            (LayerKind.SHARED, "sharing another's cache"),
            (LayerKind.RECURRENT, "recurrent"),
            (LayerKind.NONE, "without attention"),
        )
        if info.layers_of(kind)
    )
    left = f"; left alone: {others}" if others else ""
    yield _ok(name, f"{len(layers)} of {info.n_layer} layers are evicted from{left}")


def _check_flash_attention(info: ModelInfo, settings: PreflightSettings) -> Iterator[Finding]:
    name = "flash attention"
    reason = ""
    if not info.flash_attention:
        reason = f"llama.cpp never uses it for models of architecture {info.architecture!r}"
    elif not settings.cache.flash_attn:
        reason = "it is switched off"
    if not reason:
        backends.load_plugins()
        others = [device.name for device in core.device_list() if device.name != "CPU"]
        if others:
            yield _warn(name, f"possible on the CPU; on {', '.join(others)} llama.cpp decides when the context is made")
        else:
            yield _ok(name, "possible: llama.cpp's CPU backend has it for this model")
    elif settings.moves_rows:
        message = f"{reason}, but mode={settings.mode!r} moves values between cells, which needs it; use mode='global'"
        yield _fail(name, message, BudgetError)
    else:
        yield _ok(name, f"{reason}; mode={settings.mode!r} does not need it")


def _check_build() -> Iterator[Finding]:
    backends.load_plugins()
    for error in backends.errors():
        yield _fail("backends", error, BackendError)
    devices = ", ".join(f"{device.name} ({device.description})" for device in core.device_list())
    features = ", ".join(
        part.split("=")[0].strip().split(" : ")[-1] for part in core.system_info().split("|") if "=" in part
    )
    yield _ok("build", f"devices: {devices}; compiled for: {features or 'no special instructions'}")


# -- sizes ---------------------------------------------------------------------------------------------------------------------


def _check_context(info: ModelInfo, settings: PreflightSettings) -> Iterator[Finding]:
    name = "context"
    cache = settings.cache
    try:
        ctx = cache.positions(info)
        cache.kv_bytes(info)
    except ContextError as error:
        yield _fail(name, str(error), ContextError)
        return
    trained = info.n_ctx_train
    if info.has_learned_positions and ctx > trained:
        message = f"the model has learned positions, and only {trained:,} of them; use at most that many, not {ctx:,}"
        yield _fail(name, message, ContextError)
    elif 0 < trained < ctx:
        message = (
            f"{ctx:,} positions are more than the {trained:,} that the model was trained for; what it predicts there may be poor, "
            "unless its context is stretched (rope_freq_scale, YaRN)"
        )
        yield _warn(name, message)
    else:
        yield _ok(name, f"{ctx:,} positions; the model was trained for {trained:,}")


def _check_budget(info: ModelInfo, settings: PreflightSettings) -> Iterator[Finding]:
    name = "budget"
    cache = settings.cache
    budget, ctx = cache.budget or 0, cache.positions(info)
    least = settings.least_budget
    if budget < least:
        message = (
            f"a budget of {budget:,} is too small: n_sink ({settings.n_sink}) + window ({settings.window}) + 1 need at least "
            f"{least:,}"
        )
        yield _fail(name, message, BudgetError)
    elif budget + cache.interval > ctx:
        # the first eviction comes at budget + interval keys
        message = (
            f"a budget of {budget:,} does nothing: no text of at most {ctx:,} positions has the {budget + cache.interval:,} keys of a "
            "first eviction; lower the budget or raise the context"
        )
        yield _warn(name, message)
    else:
        yield _ok(name, f"{budget:,} keys per layer and KV head, {budget / ctx:.1%} of {ctx:,} positions")


def _check_scaling(info: ModelInfo, settings: PreflightSettings) -> Iterator[Finding]:
    n_attention = len(evictable_layers(info))
    budget, ctx = settings.cache.budget or 0, settings.cache.positions(info)
    if not 0 < n_attention < info.n_layer or not settings.least_budget <= budget < ctx:
        return
    scaled = scaled_budget_of(info, budget, ctx)
    kept = f"{n_attention} of {info.n_layer} layers have full attention"
    if settings.scale_budget_by_attention:
        yield _ok("scaling", f"{kept}, so scale_budget_by_attention raises the budget of {budget:,} to {scaled:,}")
    else:
        yield _ok(
            "scaling",
            f"{kept}, and only these remember what lies far back; scale_budget_by_attention=True would keep {scaled:,} keys, "
            f"not {budget:,}",
        )


def effective_settings(info: ModelInfo, settings: PreflightSettings) -> PreflightSettings:
    """Return the settings with the budget that ``scale_budget_by_attention`` makes."""
    budget = settings.cache.budget
    if budget is None or not settings.scale_budget_by_attention:
        return settings
    scaled = scaled_budget_of(info, budget, settings.cache.positions(info))
    return replace(settings, cache=replace(settings.cache, budget=scaled))


def _check_memory(info: ModelInfo, settings: PreflightSettings) -> Iterator[Finding]:
    name = "memory"
    cache = settings.cache
    rows, taken = full_cache(info, cache), cache.kv_bytes(info).total
    full = math.inf if rows is None else sum(row.bytes for row in rows)
    if cache.budget is None or rows is None:
        caches = f"caches take {format_bytes(taken)}"
    elif taken < full:
        caches = f"caches take {format_bytes(taken)}, {taken / full:.1%} of the {format_bytes(full)} without a budget"
    else:
        caches = f"caches take {format_bytes(taken)}, as without a budget"
    needed = taken + info.file_bytes
    total = f"{caches}; with {format_bytes(info.file_bytes)} of weights {format_bytes(needed)}"
    if not info.is_exact:
        yield _warn(name, "what follows is a guess: what cache llama.cpp makes for this architecture is not known here")
    if settings.memory is None:
        yield _ok(name, total)
    elif needed <= settings.memory:
        yield _ok(name, f"{total}, of {format_bytes(settings.memory)}; buffers for computation come on top")
    else:
        yield _fail(name, f"{total}, more than the {format_bytes(settings.memory)} that there are", ContextError)
        yield from _advice(info, settings, needed)
        return
    if cache.budget is not None and taken >= full and cache.budget + cache.interval <= cache.positions(info):
        yield _warn("advice", "this budget saves no memory: what it allocates is as large as the full cache")


def _advice(info: ModelInfo, settings: PreflightSettings, needed: int) -> Iterator[Finding]:
    """Say what would save how much, in numbers for this very model: what saves without a budget may not save with one."""
    name = "advice"
    cache, memory = settings.cache, settings.memory or 0
    if info.file_bytes >= memory:
        yield _warn(
            name,
            "the weights alone do not fit; take a smaller model, a smaller quantisation of it, or keep layers in host memory",
        )
        return

    def needs(**changes: int | str) -> str:
        total = replace(cache, **changes).kv_bytes(info).total + info.file_bytes  # type: ignore[arg-type]
        return f"{format_bytes(total)} in all"

    fit = what_fits(info, cache, memory)
    if fit.largest_budget is not None:
        yield _warn(name, f"the largest budget that fits is {fit.largest_budget:,}")
    if cache.budget is not None and cache.budget // 2 >= settings.least_budget:
        yield _warn(name, f"half the budget ({cache.budget // 2:,}): {needs(budget=cache.budget // 2)}")
    if cache.type_k not in QUANTISED_TYPES or cache.type_v not in QUANTISED_TYPES:
        with contextlib.suppress(ContextError):  # a head of this model may be no whole number of blocks
            yield _warn(name, f"type_k and type_v q8_0: {needs(type_k='q8_0', type_v='q8_0')}")
    ctx = cache.positions(info)
    halved = replace(cache, ctx=max(1, ctx // 2)).kv_bytes(info).total + info.file_bytes
    if halved == needed:
        yield _warn(name, "a smaller context saves nothing: under a budget n_ctx allocates nothing")
    else:
        yield _warn(name, f"half the context ({ctx // 2:,} positions): {format_bytes(halved)} in all")
