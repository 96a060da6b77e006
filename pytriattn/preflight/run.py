"""Whether a model, its statistics, a budget and this build fit together, before anything large is loaded.

Each check returns findings; `run_preflight` runs all of them and `raise_failures` turns failures into the exceptions
that `Llama` raises at load.
"""

from __future__ import annotations

from pytriattn.errors import StatsError
from pytriattn.gguf.identity import ModelIdentity
from pytriattn.model_info.info import ModelInfo
from pytriattn.model_info.reader import gguf_info
from pytriattn.preflight.companions import check_draft_model, draft_companion, image_companion
from pytriattn.preflight.findings import Finding, Status
from pytriattn.preflight.model_checks import (
    check_architecture,
    check_build,
    check_flash_attention,
    check_layers,
    check_reread,
    check_statistics,
)
from pytriattn.preflight.settings import PreflightSettings, effective_options
from pytriattn.preflight.size_checks import check_budget, check_context, check_memory, check_scaling
from pytriattn.stats.model_stats import TriAttentionStats

__all__ = ["run_preflight"]


def run_preflight(
    info: ModelInfo,
    settings: PreflightSettings,
    stats: TriAttentionStats | StatsError | None,
    identity: ModelIdentity | None,
) -> list[Finding]:
    """Run all checks; nothing is loaded.

    Args:
        info: the model.
        settings: the settings to load the model with. Without a budget, only the context and the memory are checked.
        stats: the statistics, or the error that reading them raised; None: they are measured at load.
        identity: the identity of the model file; None if it is not known, as for a file on a server.

    Returns:
        Findings in the order of the checks, at least one for each check that applies.

    Raises:
        ModelLoadError: the draft model or the encoder of images cannot be read.
        ContextError: the draft model's cache cannot be made.
    """
    findings: list[Finding] = []
    options, eviction = settings.cache, settings.cache.eviction
    if eviction is not None:
        if eviction.needs_scores:
            findings += check_statistics(info, stats, identity, eviction)
        findings += check_architecture(info, settings.allow_untested)
        findings += check_layers(info, eviction)
        findings += check_reread(info, options, eviction)
        findings += check_flash_attention(info, options, eviction)
        findings += check_build()
    findings += check_context(info, options)
    if any(finding.name == "context" and finding.status is Status.FAIL for finding in findings):
        return findings  # neither cells nor bytes mean anything then
    if eviction is not None:
        findings += check_budget(eviction, info.positions(options))
        findings += check_scaling(info, eviction, info.positions(options))
    beside = []
    if settings.drafting is not None:
        draft = gguf_info(settings.drafting.model_path)
        findings += check_draft_model(info, draft)
        beside.append(draft_companion(draft, settings.drafting.n_ctx))
    if settings.mmproj is not None:
        beside.append(image_companion(settings.mmproj))
    findings += check_memory(info, effective_options(info, options), settings.memory, beside)
    return findings
