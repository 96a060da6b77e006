"""The settings that preflight checks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pytriattn.model_info.info import ModelInfo
from pytriattn.model_info.memory import scaled_budget_of
from pytriattn.options.cache import CacheOptions
from pytriattn.options.drafting import LlamaModelDrafting

__all__ = ["PreflightSettings", "effective_options"]


@dataclass(frozen=True)
class PreflightSettings:
    """The settings that `Llama` would be called with.

    Attributes:
        cache: context, types, and the budget with what goes with it.
        allow_untested: set a budget for an architecture that has not been tested.
        memory: bytes that there are for weights and caches; None: not checked.
        drafting: the small model that drafts; None: none.
        mmproj: the file of the encoder of images; None: none.
    """

    cache: CacheOptions
    allow_untested: bool = False
    memory: int | None = None
    drafting: LlamaModelDrafting | None = None
    mmproj: Path | None = None


def effective_options(info: ModelInfo, options: CacheOptions) -> CacheOptions:
    """Return the options with the budget that ``scale_budget_by_attention`` makes."""
    eviction = options.eviction
    if eviction is None or not eviction.scale_budget_by_attention:
        return options
    scaled = scaled_budget_of(info, eviction.budget, info.positions(options))
    return replace(options, eviction=replace(eviction, budget=scaled))
