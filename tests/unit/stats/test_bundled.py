"""Statistics on the bundled text, and the folder that they are kept in."""

from __future__ import annotations

import pathlib

import pytest

from pytriattn import Llama

pytestmark = pytest.mark.slow  # processes, or models that are calibrated


def test_a_cache_folder_that_may_not_be_entered(smollm2: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: pathlib.Path) -> bool:
        if path.suffix == ".triattention":
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    is_file = pathlib.Path.is_file
    monkeypatch.setattr(pathlib.Path, "is_file", refuse)
    with Llama(smollm2, budget=256, n_ctx=512) as llm:
        assert llm.budget == 256
        assert llm.triattn_stats is not None
