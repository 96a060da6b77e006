"""Checks of the model, its statistics and this build."""

from __future__ import annotations

from collections.abc import Iterator

from pytriattn._native import backends, core
from pytriattn.errors import BackendError, BudgetError, StatsError, UnsupportedModelError
from pytriattn.gguf.identity import ModelIdentity
from pytriattn.model_info.info import ModelInfo
from pytriattn.model_info.layers import LayerKind
from pytriattn.model_info.memory import evictable_layers
from pytriattn.model_info.tested_architectures import require_tested_architecture
from pytriattn.options.cache import CacheOptions
from pytriattn.options.eviction import EvictionSettings
from pytriattn.preflight.findings import Finding, failure, ok, warning
from pytriattn.stats.mismatch import differences
from pytriattn.stats.model_stats import TriAttentionStats

__all__ = [
    "check_architecture",
    "check_build",
    "check_flash_attention",
    "check_layers",
    "check_reread",
    "check_statistics",
]


def check_statistics(
    info: ModelInfo,
    stats: TriAttentionStats | StatsError | None,
    identity: ModelIdentity | None,
    eviction: EvictionSettings,
) -> Iterator[Finding]:
    """Check that the statistics are of this model, and serve the mode; see `run_preflight` for the arguments."""
    if stats is None:
        yield ok("statistics", "none are given; they will be measured at load on the text that ships with the package")
        return
    if isinstance(stats, StatsError):
        yield failure("statistics", str(stats), StatsError)
        return
    found = list(differences(info, stats))
    if identity is not None and identity.sha256 != stats.model.sha256:
        what = "; ".join(found) or "shapes and rotation agree, so another version, quantisation or conversion of it"
        message = f"they were calibrated on {stats.model}, but the model is {identity} ({what}); calibrate this model"
        yield failure("statistics", message, StatsError)
    elif found:
        yield failure("statistics", f"they do not fit this model: {'; '.join(found)}; calibrate again", StatsError)
    elif identity is None:
        yield warning(
            "statistics",
            "shapes and rotation agree with the model, but whether they are of this very file is not known; they are "
            f"of {stats.model}",
        )
    else:
        summary = (
            f"{len(stats.layers)} layers, {stats.n_tokens:,} tokens, mean concentration "
            f"{stats.mean_concentration():.2f}"
        )
        yield ok("statistics", f"they are of this model: {summary}")
    if eviction.needs_fit and not stats.is_fitted:
        yield warning(
            "statistics",
            "they have no fitted weights: a program that names mode='fitted' is refused, and one that names none "
            "chooses keys by the published score, which loses facts that the default keeps; calibrate again with "
            "pytriattn-calibrate",
        )


def check_architecture(info: ModelInfo, allow_untested: bool) -> Iterator[Finding]:
    """Check that eviction has been tested on models of this architecture."""
    name = "architecture"
    try:
        require_tested_architecture(info.architecture, allow_untested)
    except UnsupportedModelError as error:
        yield failure(name, str(error), UnsupportedModelError)
        return
    try:
        require_tested_architecture(info.architecture, allow_untested=False)
    except UnsupportedModelError:
        yield warning(name, f"eviction has not been tested on {info.architecture!r}; check the answers yourself")
    else:
        yield ok(name, f"eviction has been tested on models of architecture {info.architecture!r}")


def check_layers(info: ModelInfo, eviction: EvictionSettings) -> Iterator[Finding]:
    """Check that there are layers to evict from, and that the mode fits them."""
    name = "layers"
    layers = evictable_layers(info)
    try:
        core.check_mode(eviction.mode, [layer.n_head_kv for layer in layers], info.has_alibi)
    except UnsupportedModelError as error:
        yield failure(name, str(error), UnsupportedModelError)
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
    yield ok(name, f"{len(layers)} of {info.n_layer} layers are evicted from{left}")


def check_reread(info: ModelInfo, options: CacheOptions, eviction: EvictionSettings) -> Iterator[Finding]:
    """Check that a second reading can be taken back."""
    if not eviction.reread:
        return
    try:
        changed = bool(info.layers_of(LayerKind.SLIDING) or info.layers_of(LayerKind.RECURRENT))
        core.check_second_reading(changed, options.n_seq_max)
    except UnsupportedModelError as error:
        yield failure("layers", str(error), UnsupportedModelError)


def check_flash_attention(info: ModelInfo, options: CacheOptions, eviction: EvictionSettings) -> Iterator[Finding]:
    """Check that the model can run with flash attention where the mode needs it."""
    name = "flash attention"
    reason = ""
    if not info.flash_attention:
        reason = f"llama.cpp never uses it for models of architecture {info.architecture!r}"
    elif not options.allows_flash_attention:
        reason = "it is switched off"
    if not reason:
        backends.load_plugins()
        others = [device.name for device in core.device_list() if device.name != "CPU"]
        if others:
            yield warning(
                name, f"possible on the CPU; on {', '.join(others)} llama.cpp decides when the context is made"
            )
        else:
            yield ok(name, "possible: llama.cpp's CPU backend has it for this model")
    elif eviction.moves_rows:
        message = f"{reason}, but mode={eviction.mode!r} moves values between cells, which needs it; use mode='global'"
        yield failure(name, message, BudgetError)
    else:
        yield ok(name, f"{reason}; mode={eviction.mode!r} does not need it")


def check_build() -> Iterator[Finding]:
    """Check that every backend can be used, and tell what this build runs on."""
    backends.load_plugins()
    for error in backends.errors():
        yield failure("backends", error, BackendError)
    devices = ", ".join(f"{device.name} ({device.description})" for device in core.device_list())
    features = ", ".join(
        part.split("=")[0].strip().split(" : ")[-1] for part in core.system_info().split("|") if "=" in part
    )
    yield ok("build", f"devices: {devices}; compiled for: {features or 'no special instructions'}")
