"""How many threads this process may use, and how many have a CPU to themselves."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

__all__ = ["IdleCpus", "idle_cpus", "usable_cpus"]


def _cgroup_limit(cpu_max: Path = Path("/sys/fs/cgroup/cpu.max")) -> float:
    """Return how many CPUs the control group grants, or infinity. ``cpu.max`` has its quota and period in µs."""
    try:
        quota, period = cpu_max.read_text(encoding="ascii").split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf


def usable_cpus() -> int:
    """Return the number of CPUs that affinity and the control group's quota both allow, at least 1.

    With more threads, each node of a graph would wait for the thread that has no CPU.
    """
    if hasattr(os, "sched_getaffinity"):
        cpus = len(os.sched_getaffinity(0))
    else:  # macOS, Windows
        cpus = os.cpu_count() or 1
    return max(1, math.floor(min(cpus, _cgroup_limit())))


def idle_cpus(seconds: float = 0.2, stat: Path = Path("/proc/stat")) -> int:
    """Return how many of the CPUs that this process may use have nothing else to do now, at least 1.

    Args:
        seconds: how long to look.
        stat: where Linux counts what each CPU has done. Elsewhere the load average of the last minute is taken.
    """
    before = _cpu_times(stat)
    if before:
        time.sleep(seconds)
        busy = _busy_share(before, _cpu_times(stat))
    else:
        busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return _left(before, busy)


class IdleCpus:
    """How many CPUs other programs leave to this one, looked at again while this one works itself."""

    def __init__(self, most: int | None = None, seconds: float = 0.5, stat: Path = Path("/proc/stat")) -> None:
        """Begin to look, where Linux counts what each CPU has done: soon for the first time, then every few `seconds`.
        Elsewhere it is always `most`, which None sets to `usable_cpus`.
        """
        self._most = self._n = usable_cpus() if most is None else most
        self._seconds = seconds
        self._stat = stat
        self._is_first = True
        self._begin(time.monotonic(), seconds / 5)

    def _begin(self, now: float, seconds: float) -> None:
        self._since, self._until = now, now + seconds
        self._times = _cpu_times(self._stat)
        self._own_s = time.process_time()

    def look(self) -> int:
        """Return their number when they were last looked at, which may be now; at least 1."""
        now = time.monotonic()
        # after a pause in which nothing was computed; but what was seen while a model was loaded is all that is known
        is_late = not self._is_first and now >= self._until + 2 * self._seconds
        if is_late:
            self._begin(now, self._seconds / 5)
        elif now >= self._until:
            passed, times, own_s = now - self._since, self._times, self._own_s
            self._begin(now, self._seconds)
            self._is_first = False
            if times:
                others = _busy_share(times, self._times) - (self._own_s - own_s) / passed
                self._n = min(self._most, _left(times, others))
        return self._n


def _left(times: dict[int, tuple[int, int]], busy: float) -> int:
    """Return how many CPUs are left where others need `busy`; a control group may grant fewer than there are."""
    usable = usable_cpus()
    return max(1, min(usable, (len(times) or usable) - round(busy)))


def _cpu_times(stat: Path) -> dict[int, tuple[int, int]]:
    """Return for each CPU that may be used the ticks in which it worked and in which it waited; empty: unknown."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    times = {}
    try:
        for line in stat.read_text(encoding="ascii").splitlines():
            name, *ticks = line.split()
            if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in usable:
                # user, nice, system, idle, iowait, irq, softirq, steal; what follows is a part of these
                counts = [int(tick) for tick in ticks[:8]]
                waiting = sum(counts[3:5])
                times[int(name[3:])] = (sum(counts) - waiting, waiting)
    except (OSError, ValueError):
        return {}
    return times


def _busy_share(before: dict[int, tuple[int, int]], after: dict[int, tuple[int, int]]) -> float:
    """Return how many CPUs' worth of work was done between two counts."""
    share = 0.0
    for cpu, (worked, waited) in after.items():
        if cpu in before:
            new_work, new_wait = worked - before[cpu][0], waited - before[cpu][1]
            share += new_work / max(1, new_work + new_wait)
    return share
