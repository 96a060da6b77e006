"""Statistics on the text that ships with the package, kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import os
from importlib import resources
from pathlib import Path

import platformdirs

from pytriattn._native import core
from pytriattn._native.log import logger
from pytriattn.errors import StatsError
from pytriattn.gguf.identity import ModelIdentity
from pytriattn.stats.calibration import calibrate_native
from pytriattn.stats.model_stats import TriAttentionStats

__all__ = ["BUNDLED_TOKENS", "bundled_stats", "bundled_text", "cache_folder", "stored_stats"]

BUNDLED_TOKENS = 128
BUNDLED_TOKENS_FIT = 512


def bundled_text() -> str:
    """Return the calibration text that ships with the package."""
    return (resources.files("pytriattn") / "data" / "calibration.txt").read_text(encoding="utf-8")


def cache_folder() -> Path:
    """Return where statistics of the bundled text are kept: ``PYTRIATTN_CACHE_DIR`` or the user's cache folder.

    Raises:
        FileNotFoundError: the user has no home folder: HOME is not set, and the system does not know the user.
    """
    override = os.environ.get("PYTRIATTN_CACHE_DIR")
    if override:
        return Path(override)
    try:
        folder = Path(platformdirs.user_cache_dir("pytriattn"))
    except RuntimeError:
        folder = Path("~")
    if folder.parts[:1] == ("~",):  # older platformdirs; it would be made in the working directory
        raise FileNotFoundError("the user has no home folder; set HOME or PYTRIATTN_CACHE_DIR")
    return folder


def _n_tokens(fit: bool) -> int:
    return BUNDLED_TOKENS_FIT if fit else BUNDLED_TOKENS


def _stored_path(identity: ModelIdentity, fit: bool) -> Path:
    text_id = hashlib.sha256(bundled_text().encode("utf-8")).hexdigest()[:8]
    name = f"{identity.sha256[:32]}-{text_id}-{_n_tokens(fit)}{'-fit' if fit else ''}.triattention"
    return cache_folder() / name


def stored_stats(identity: ModelIdentity, *, fit: bool) -> TriAttentionStats | None:
    """Return what `bundled_stats` has kept for a model in the user's cache folder; None: nothing that can be used."""
    try:
        path = _stored_path(identity, fit)
        if path.is_file():
            stats = TriAttentionStats.load(path)
            stats.check_model(identity, f"the statistics '{path}'")
            return stats
    except (StatsError, OSError) as error:  # a folder that may not be entered raises an OSError
        logger.warning("%s; measuring them again", error)
    return None


def bundled_stats(model: core.Model, identity: ModelIdentity, n_threads: int | None, *, fit: bool) -> TriAttentionStats:
    """Return statistics of a loaded model on the bundled text, from the user's cache folder if they are there."""
    stored = stored_stats(identity, fit=fit)
    if stored is not None:
        return stored
    n_tokens = _n_tokens(fit)
    stats = calibrate_native(
        model,
        identity,
        bundled_text(),
        n_tokens=n_tokens,
        n_ctx=n_tokens,
        n_threads=n_threads,
        progress=None,
        fit=fit,
    )
    try:
        path = _stored_path(identity, fit)
        path.parent.mkdir(parents=True, exist_ok=True)
        stats.save(path)
    except OSError as error:
        logger.warning("the statistics could not be kept (%s); they will be measured again at the next load", error)
    return stats
