"""How many processors may be used."""

from __future__ import annotations

import os
import pathlib

import pytest

from pytriattn._util import cpus
from pytriattn._util.cpus import IdleCpus, _busy_share, _cgroup_limit, _cpu_times, idle_cpus, usable_cpus


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


class Machine:
    """Four CPUs whose clocks a test sets."""

    def __init__(self, stat: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stat, self.now, self.own_s, self.all_s = stat, 100.0, 7.0, 50.0
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
        monkeypatch.setattr(cpus, "usable_cpus", lambda: 4)
        monkeypatch.setattr(cpus.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(cpus.time, "process_time", lambda: self.own_s)
        self.run(seconds=0.0, own=0.0, others=0.0)

    def run(self, seconds: float, own: float, others: float) -> None:
        """Let time pass in which this many CPUs work for the process itself and for others."""
        self.now += seconds
        self.own_s += own * seconds
        self.all_s += (own + others) * seconds
        busy, waiting = round(100 * self.all_s / 4), round(100 * (self.now - self.all_s / 4))
        self.stat.write_text("".join(f"cpu{n} {busy} 0 0 {waiting} 0 0 0 0\n" for n in range(4)))


def test_threads_follow_what_other_programs_do(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(tmp_path / "stat", monkeypatch)
    idle = IdleCpus(4, 0.5, machine.stat)
    found = []
    for own, others in ((4.0, 0.0), (3.2, 0.8), (3.0, 1.0), (2.0, 2.0), (1.0, 9.0), (1.0, 0.2), (4.0, 0.0)):
        machine.run(1.0, own, min(others, 4.0 - own))
        found.append(idle.look())
    assert found == [4, 3, 3, 2, 1, 4, 4]


def test_it_is_looked_at_now_and_then(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(tmp_path / "stat", monkeypatch)
    idle = IdleCpus(4, 0.5, machine.stat)
    machine.run(0.05, own=1.0, others=2.0)
    assert idle.look() == 4  # too early
    machine.run(30.0, own=1.0, others=2.0)  # while a model is loaded
    assert idle.look() == 2
    machine.run(0.4, own=1.0, others=3.0)
    assert idle.look() == 2  # too early
    machine.run(0.4, own=1.0, others=3.0)
    assert idle.look() == 1
    machine.run(60.0, own=0.0, others=2.0)
    assert idle.look() == 1  # nothing was computed meanwhile: what others did then says nothing
    machine.run(0.2, own=2.0, others=0.0)  # after a pause it is looked at soon
    assert idle.look() == 4
    unknown = IdleCpus(3, 0.5, tmp_path / "nowhere")
    machine.run(1.0, own=1.0, others=3.0)
    assert unknown.look() == 3


def test_a_control_group_may_grant_fewer_cpus_than_are_idle(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path / "stat", monkeypatch)
    monkeypatch.setattr(cpus, "usable_cpus", lambda: 2)
    idle = IdleCpus(stat=machine.stat)
    found = []
    for own, others in ((2.0, 2.0), (2.0, 0.0), (1.0, 3.0), (0.5, 3.5)):
        machine.run(1.0, own, others)
        found.append(idle.look())
    assert found == [2, 2, 1, 1]
