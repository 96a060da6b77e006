"""How many processors may be used."""

from __future__ import annotations

import pathlib

from pytriattn._util.cpus import _cgroup_limit, usable_cpus


def test_threads_respect_affinity_and_quota(tmp_path: pathlib.Path) -> None:
    assert usable_cpus() >= 1
    limit = tmp_path / "cpu.max"
    for content, expected in (("150000 100000", 1.5), ("max 100000", float("inf")), ("nonsense", float("inf"))):
        limit.write_text(content)
        assert _cgroup_limit(limit) == expected
    assert _cgroup_limit(tmp_path / "nowhere") == float("inf")
