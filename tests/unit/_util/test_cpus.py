"""How many processors may be used."""

from __future__ import annotations

import os
import pathlib

import pytest

from pytriattn._util.cpus import _busy_share, _cgroup_limit, _cpu_times, idle_cpus, usable_cpus


def test_threads_respect_affinity_and_quota(tmp_path: pathlib.Path) -> None:
    assert usable_cpus() >= 1
    limit = tmp_path / "cpu.max"
    for content, expected in (("150000 100000", 1.5), ("max 100000", float("inf")), ("nonsense", float("inf"))):
        limit.write_text(content)
        assert _cgroup_limit(limit) == expected
    assert _cgroup_limit(tmp_path / "nowhere") == float("inf")


def test_busy_cpus_are_not_idle(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2}, raising=False)
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("cpu 9 9 9 9\ncpu0 10 0 0 50 0 0 0 0 0 0\ncpu1 5 0 0 0 0 0 0 0\ncpu2 1 1 1 7 2 1 1 1\n")
    second.write_text("cpu0 30 0 0 50 0 0 0 0 0 0\ncpu1 99 0 0 0 0 0 0 0\ncpu2 1 1 1 20 9 1 1 1\nintr 5 x y\n")
    assert _cpu_times(first) == {0: (10, 50), 2: (6, 9)}
    assert _busy_share(_cpu_times(first), _cpu_times(second)) == 1.0
    assert _cpu_times(tmp_path / "nowhere") == {}


def test_there_is_always_an_idle_cpu_to_use(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= idle_cpus(0.01) <= usable_cpus()
    monkeypatch.setattr(os, "getloadavg", lambda: (1e6, 0.0, 0.0), raising=False)
    assert idle_cpus(0.0, tmp_path / "nowhere") == 1
    monkeypatch.setattr(os, "getloadavg", lambda: (0.2, 0.0, 0.0))
    assert idle_cpus(0.0, tmp_path / "nowhere") == usable_cpus()
