"""Any order of reading, decoding, evicting, going back, saving and loading keeps what a cache promises."""

from __future__ import annotations

import hypothesis
import pytest

from support.cache_machine import Case, run
from support.tiny_context import Tiny

MODES = ("per_layer_head", "per_head", "per_layer", "global", "recent", "random", "fitted")
CASES = [
    *(Case(mode=mode) for mode in MODES),
    Case(mode="fitted", reread=True),
    *(Case(mode=mode, n_seq_max=2) for mode in ("per_layer_head", "fitted", "random")),
    Case(types=("q8_0", "q4_0")),
    Case("qwen3", "per_head", ("q4_1", "iq4_nl")),
    *(Case(arch, "random") for arch in ("gemma3", "lfm2", "falcon-h1", "deepseek2-full", "qwen35")),
    Case("gemma3", "fitted"),
    Case("lfm2", "fitted", reread=True),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_any_order_keeps_the_promises(tiny: Tiny, case: Case) -> None:
    settings = hypothesis.settings(
        max_examples=12,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=(hypothesis.Phase.explicit, hypothesis.Phase.reuse, hypothesis.Phase.generate),  # no shrinking: minutes
    )
    run(case, tiny(case.arch), settings)
