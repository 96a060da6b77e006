"""Which model architectures have passed the tests of eviction. The table is written by ``tests/support_table.py``."""

from __future__ import annotations

import functools
import json
from importlib import resources

from pytriattn.errors import UnsupportedModelError

__all__ = ["passed_architectures", "require_tested_architecture"]


@functools.cache
def passed_architectures() -> frozenset[str]:
    """Return the architectures, named as in ``general.architecture``, whose scores and evictions are exact."""
    text = (resources.files("pytriattn") / "data" / "architectures.json").read_text(encoding="utf-8")
    return frozenset(json.loads(text)["passed"])


def require_tested_architecture(architecture: str, allow_untested: bool) -> None:
    """Check that a budget may be set for models of an architecture.

    Raises:
        UnsupportedModelError: it has not passed, and `allow_untested` is not set.
    """
    if not allow_untested and architecture not in passed_architectures():
        raise UnsupportedModelError(
            f"eviction has not been tested on models of architecture {architecture!r} (docs/supported-models.md lists "
            "those that have passed); load it with budget=None, or with allow_untested=True if you will check its "
            "answers yourself"
        )
