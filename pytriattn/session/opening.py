"""Opening a model: from a file and settings to a model with a context, with everything refused early that can be."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from pytriattn._native import backends, core
from pytriattn._native.log import forward_llama_log
from pytriattn._native.rpc_servers import check_rpc_servers
from pytriattn._util.cpus import IdleCpus, usable_cpus
from pytriattn._util.numbers import whole_number
from pytriattn.errors import BudgetWarning, ContextError, StatsError, StatsWarning
from pytriattn.gguf.identity import ModelIdentity, check_model_file, model_identity
from pytriattn.gguf.projector import check_projector
from pytriattn.model_info.info import ModelInfo
from pytriattn.model_info.kv_bytes import check_cache_types
from pytriattn.model_info.reader import gguf_info
from pytriattn.options.cache import QUANTISED_TYPES, CacheOptions
from pytriattn.options.drafting import LlamaDraftModel, LlamaModelDrafting
from pytriattn.options.eviction import DEFAULT_MODE, EvictionSettings
from pytriattn.preflight.companions import check_draft_model, draft_companion
from pytriattn.preflight.findings import raise_failures
from pytriattn.preflight.run import run_preflight
from pytriattn.preflight.settings import PreflightSettings, effective_options
from pytriattn.session.drafting import Drafting, open_drafting
from pytriattn.session.images import Images, open_images
from pytriattn.session.memory_errors import telling_cache_memory, telling_model_memory
from pytriattn.stats.bundled import bundled_stats
from pytriattn.stats.model_stats import TriAttentionStats

__all__ = ["CheckedOpening", "DeviceOptions", "OpenedModel", "check_opening", "open_model"]


@dataclass(frozen=True)
class DeviceOptions:
    """Where a model is loaded to; see `Llama`.

    Raises:
        ContextError: an RPC server is not ``host:port``, or is named twice.
    """

    n_gpu_layers: int = -1
    split_mode: int = 1
    main_gpu: int = 0
    tensor_split: Sequence[float] | None = None
    rpc_servers: Sequence[str] | None = None
    use_mmap: bool = True
    use_mlock: bool = False

    def __post_init__(self) -> None:
        """Check the servers' addresses."""
        check_rpc_servers(self.rpc_servers)

    def load(self, path: Path, progress: Callable[[float], object] | None) -> core.Model:
        """Load a model file.

        Raises:
            ModelLoadError: it cannot be loaded, or an RPC server cannot be used.
            BackendError: a backend's plug-in that is installed cannot be used.
        """
        backends.require()
        return core.Model(
            path,
            self.n_gpu_layers,
            split_mode=self.split_mode,
            main_gpu=self.main_gpu,
            tensor_split=list(self.tensor_split or []),
            use_mmap=self.use_mmap,
            use_mlock=self.use_mlock,
            rpc_servers=check_rpc_servers(self.rpc_servers),
            progress=progress,
        )

    def load_draft_model(self, path: Path, n_gpu_layers: int) -> core.Model:
        """Load a small model onto this machine's devices; errors as `load`."""
        devices = replace(self, n_gpu_layers=n_gpu_layers, tensor_split=None, rpc_servers=None)
        with telling_model_memory(path):
            return devices.load(path, None)


def _threads(n_threads: int | None) -> tuple[int, IdleCpus | None]:
    """Return the number of threads to begin with, and what tells whether it is another later.

    Raises:
        ContextError: it is no whole number from 0 on (0 is None).
    """
    n = whole_number("n_threads", n_threads or 0, ContextError)
    return (n, None) if n else (usable_cpus(), IdleCpus())


class OpenedModel(NamedTuple):
    """A loaded model with its context.

    Attributes:
        model: the model.
        context: made with `options`.
        identity: which model file it is.
        path: of the file.
        options: as they took effect: ``n_ctx`` is never 0, and the budget is the scaled one.
        stats: those in use; None where keys are not scored.
        n_threads: CPU threads to begin with.
        idle: what tells how many to take later; None: always as many.
        drafting: what guesses the next tokens; None: nothing.
        images: what reads images; None: nothing.
    """

    model: core.Model
    context: core.Context
    identity: ModelIdentity
    path: str
    options: CacheOptions
    stats: TriAttentionStats | None
    n_threads: int
    idle: IdleCpus | None = None
    drafting: Drafting | None = None
    images: Images | None = None


def open_model(
    model_path: str | os.PathLike[str],
    options: CacheOptions,
    devices: DeviceOptions,
    triattn_stats: str | os.PathLike[str] | TriAttentionStats | None,
    *,
    n_threads: int | None,
    allow_untested: bool,
    may_fall_back: bool = False,
    progress: Callable[[float], object] | None,
    draft_rule: LlamaModelDrafting | LlamaDraftModel | None = None,
    mmproj: str | os.PathLike[str] | None = None,
) -> OpenedModel:
    """Check the settings, load a model, calibrate it if need be, and make its context.

    With `may_fall_back`, statistics without fitted weights are used in mode ``per_layer_head``, with a warning.

    Raises:
        The errors of `Llama`. What the file's header tells is checked before the weights are read.
    """
    n_threads, idle = _threads(n_threads)
    if draft_rule is not None:
        options = replace(options, n_draft=draft_rule.num_pred_tokens)
    if isinstance(draft_rule, LlamaModelDrafting):
        _check_draft_rule(model_path, draft_rule)
    projector = None if mmproj is None else check_projector(Path(mmproj).expanduser())
    path, identity, options, stats, _ = check_opening(
        model_path, options, triattn_stats, allow_untested=allow_untested, may_fall_back=may_fall_back
    )
    try:
        with telling_model_memory(path):
            model = devices.load(path, progress)
        n_threads = n_threads if idle is None else idle.look()
        options = replace(options, n_ctx=options.n_ctx or model.n_ctx_train)
        if 0 < model.long_rope_threshold < options.n_ctx:
            # llama.cpp would choose by the size of the cache, which is smaller under a budget
            model.use_long_rope()
        if stats is None and options.eviction is not None and options.eviction.needs_scores:
            stats = bundled_stats(model, identity, n_threads, fit=options.eviction.mode == DEFAULT_MODE)
        native_stats = None if stats is None or options.eviction is None else stats.to_native()
        with telling_cache_memory(path, options):
            context = core.Context(model, options.to_native(n_threads), native_stats)
        images = open_images(
            projector,
            model,
            context,
            n_threads=n_threads,
            use_gpu=devices.n_gpu_layers != 0,
        )
        drafting = open_drafting(draft_rule, context, n_threads, devices.load_draft_model)
    finally:
        forward_llama_log()
    return OpenedModel(model, context, identity, str(path), options, stats, n_threads, idle, drafting, images)


def _check_draft_rule(model_path: str | os.PathLike[str], rule: LlamaModelDrafting) -> None:
    draft = gguf_info(check_model_file(rule.model_path))
    draft_companion(draft, rule.n_ctx)
    raise_failures([*check_draft_model(gguf_info(check_model_file(model_path)), draft)])


class CheckedOpening(NamedTuple):
    """What is known of a model before its weights are read.

    Attributes:
        path: the file.
        identity: which model file it is.
        options: as they will take effect, but that ``n_ctx`` may still be 0.
        stats: those given; None: they are to be measured, or are not needed.
        info: what the header tells, where it had to be read: where a budget is set or the cache is quantised.
    """

    path: Path
    identity: ModelIdentity
    options: CacheOptions
    stats: TriAttentionStats | None
    info: ModelInfo | None


def check_opening(
    model_path: str | os.PathLike[str],
    options: CacheOptions,
    triattn_stats: str | os.PathLike[str] | TriAttentionStats | None,
    *,
    allow_untested: bool,
    may_fall_back: bool = False,
) -> CheckedOpening:
    """Refuse what can be refused before a model is loaded; see `open_model`."""
    stats = triattn_stats
    if stats is not None and not isinstance(stats, TriAttentionStats):
        stats = TriAttentionStats.load(stats)
    if may_fall_back:
        options = _with_mode_for(options, stats)
    options.check()
    path = check_model_file(model_path)
    # read before the identity: its messages are the most exact about a damaged file
    quantised = not {options.type_k, options.type_v}.isdisjoint(QUANTISED_TYPES)
    info = gguf_info(path) if quantised or options.eviction is not None else None
    identity = model_identity(path)
    if stats is not None:
        source = "these statistics" if stats is triattn_stats else f"the statistics '{triattn_stats}'"
        stats.check_model(identity, source)
    if info is not None and options.eviction is None:
        check_cache_types(info, options)
    elif info is not None:
        raise_failures(run_preflight(info, PreflightSettings(options, allow_untested), stats, identity))
        options = effective_options(info, options)
        assert options.eviction is not None
        _check_choice(options.eviction, stats)
    return CheckedOpening(path, identity, options, stats, info)


def _check_choice(eviction: EvictionSettings, stats: TriAttentionStats | None) -> None:
    """Refuse a mode that these statistics do not serve, and warn where there is hardly a key to choose."""
    if eviction.needs_fit and stats is not None and not stats.is_fitted:
        raise StatsError(
            f"the statistics have no fitted weights, which mode={DEFAULT_MODE!r} needs; calibrate again with "
            "pytriattn-calibrate, or use mode='per_layer_head'"
        )
    if (scarcity := eviction.scarcity()) is not None:
        warnings.warn(scarcity, BudgetWarning, stacklevel=5)


def _with_mode_for(options: CacheOptions, stats: TriAttentionStats | None) -> CacheOptions:
    """Return the options with a mode that these statistics serve."""
    eviction = options.eviction
    if eviction is None or not eviction.needs_fit or stats is None or stats.is_fitted:
        return options
    warnings.warn(
        "the statistics have no fitted weights, so keys are chosen by the published score, which loses facts that the "
        "default keeps; calibrate again with pytriattn-calibrate, or say mode='per_layer_head' to be without this "
        "warning",
        StatsWarning,
        stacklevel=5,
    )
    return replace(options, eviction=eviction.with_mode("per_layer_head"))
