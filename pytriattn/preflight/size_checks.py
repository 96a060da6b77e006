"""Checks of sizes: context, budget, memory."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from pytriattn._native import core
from pytriattn._util.text import format_bytes
from pytriattn.errors import BudgetError, ContextError
from pytriattn.model_info.info import ModelInfo
from pytriattn.model_info.memory import evictable_layers, full_cache, scaled_budget_of, what_fits
from pytriattn.options.cache import CacheOptions
from pytriattn.options.eviction import EvictionSettings
from pytriattn.preflight.companions import Companion
from pytriattn.preflight.findings import Finding, failure, ok, warning

__all__ = ["check_budget", "check_context", "check_memory", "check_scaling"]

ADVISED_TYPES = (("q8_0", "q8_0"), ("q8_0", "kv3"))
"""Types of keys and values that lose little (docs/quantised-caches.md), the larger ones first."""


def check_context(info: ModelInfo, options: CacheOptions) -> Iterator[Finding]:
    """Check that a cache of this size and these types can be made."""
    name = "context"
    try:
        ctx = info.positions(options)
        info.cache_bytes(options)
        core.check_learned_positions(ctx, info.n_ctx_train, info.has_learned_positions)
    except ContextError as error:
        yield failure(name, str(error), ContextError)
        return
    trained = info.n_ctx_train
    if 0 < trained < ctx:
        message = (
            f"{ctx:,} positions are more than the {trained:,} that the model was trained for; what it predicts there "
            "may be poor, unless its context is stretched (rope_freq_scale, YaRN)"
        )
        yield warning(name, message)
    else:
        yield ok(name, f"{ctx:,} positions; the model was trained for {trained:,}")


def check_budget(eviction: EvictionSettings, ctx: int) -> Iterator[Finding]:
    """Check that the budget has room for sinks, window and one more key, and is smaller than a text of `ctx` tokens."""
    name = "budget"
    budget, least = eviction.budget, eviction.least_budget
    if budget < least:
        message = (
            f"a budget of {budget:,} is too small: n_sink ({eviction.n_sink}) + window ({eviction.window}) + 1 need at "
            f"least {least:,}"
        )
        yield failure(name, message, BudgetError)
    elif budget + eviction.interval > ctx:
        # the first eviction comes at budget + interval keys
        message = (
            f"a budget of {budget:,} does nothing: no text of at most {ctx:,} positions has the "
            f"{budget + eviction.interval:,} keys of a first eviction; lower the budget or raise the context"
        )
        yield warning(name, message)
    elif (scarcity := eviction.scarcity()) is not None:
        yield warning(name, scarcity)
    else:
        yield ok(name, f"{budget:,} keys per layer and KV head, {budget / ctx:.1%} of {ctx:,} positions")


def check_scaling(info: ModelInfo, eviction: EvictionSettings, ctx: int) -> Iterator[Finding]:
    """Tell what ``scale_budget_by_attention`` does, or would do, in a text of `ctx` tokens."""
    n_attention, budget = len(evictable_layers(info)), eviction.budget
    if not 0 < n_attention < info.n_layer or not eviction.least_budget <= budget < ctx:
        return
    scaled = scaled_budget_of(info, budget, ctx)
    kept = f"{n_attention} of {info.n_layer} layers have full attention"
    if eviction.scale_budget_by_attention:
        yield ok("scaling", f"{kept}, so scale_budget_by_attention raises the budget of {budget:,} to {scaled:,}")
    else:
        yield ok(
            "scaling",
            f"{kept}, and only these remember what lies far back; scale_budget_by_attention=True would keep {scaled:,} "
            f"keys, not {budget:,}",
        )


def check_memory(
    info: ModelInfo, options: CacheOptions, memory: int | None, beside: Sequence[Companion] = ()
) -> Iterator[Finding]:
    """Check that caches, weights and the models `beside` fit into `memory` bytes; None: only tell what they take."""
    name, eviction = "memory", options.eviction
    rows, taken = full_cache(info, options), info.cache_bytes(options).total
    full = math.inf if rows is None else sum(row.bytes for row in rows)
    if eviction is None or rows is None:
        caches = f"caches take {format_bytes(taken)}"
    elif taken < full:
        caches = f"caches take {format_bytes(taken)}, {taken / full:.1%} of the {format_bytes(full)} without a budget"
    else:
        caches = f"caches take {format_bytes(taken)}, as without a budget"
    n_beside = sum(companion.bytes for companion in beside)
    needed = taken + info.file_bytes + n_beside
    others = "".join(f", {format_bytes(companion.bytes)} of {companion.name}" for companion in beside)
    total = f"{caches}; with {format_bytes(info.file_bytes)} of weights{others} {format_bytes(needed)}"
    if not info.is_exact:
        yield warning(
            name, "what follows is a guess: what cache llama.cpp makes for this architecture is not known here"
        )
    if memory is None:
        yield ok(name, total)
    elif needed <= memory:
        yield ok(name, f"{total}, of {format_bytes(memory)}; buffers for computation come on top")
    else:
        yield failure(name, f"{total}, more than the {format_bytes(memory)} that there are", ContextError)
        yield from _advice(info, options, memory, n_beside)
        return
    if eviction is not None and taken >= full and eviction.budget + eviction.interval <= info.positions(options):
        yield warning("advice", "this budget saves no memory: what it allocates is as large as the full cache")


def _advice(info: ModelInfo, options: CacheOptions, memory: int, n_beside: int) -> Iterator[Finding]:
    """Say which settings would save how much memory with this model and this budget, beside other models."""
    name, eviction = "advice", options.eviction
    n_fixed = info.file_bytes + n_beside
    if n_fixed >= memory:
        yield warning(
            name,
            "the weights alone do not fit; take a smaller model, a smaller quantisation of it, or keep layers in host "
            "memory",
        )
        return

    def total_with(changed: CacheOptions) -> str:
        return f"{format_bytes(info.cache_bytes(changed).total + n_fixed)} in all"

    fit = what_fits(info, options, memory - n_beside)
    if fit.largest_budget is not None:
        yield warning(name, f"the largest budget that fits is {fit.largest_budget:,}")
    if eviction is not None and eviction.budget // 2 >= eviction.least_budget:
        half = eviction.budget // 2
        yield warning(name, f"half the budget ({half:,}): {total_with(options.with_budget(half))}")
    for type_k, type_v in ADVISED_TYPES:
        quantised = replace(options, type_k=type_k, type_v=type_v)
        with contextlib.suppress(ContextError):  # a head of this model may be no whole number of blocks
            if info.cache_bytes(quantised).total < info.cache_bytes(options).total:
                types = f"type_k and type_v {type_k}" if type_k == type_v else f"type_k {type_k} and type_v {type_v}"
                yield warning(name, f"{types}: {total_with(quantised)}")
    ctx = info.positions(options)
    halved = info.cache_bytes(replace(options, n_ctx=max(1, ctx // 2))).total + n_fixed
    if halved == info.cache_bytes(options).total + n_fixed:
        yield warning(name, "a smaller context saves nothing: under a budget n_ctx allocates nothing")
    else:
        yield warning(name, f"half the context ({ctx // 2:,} positions): {format_bytes(halved)} in all")
