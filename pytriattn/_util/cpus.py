"""How many threads this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

__all__ = ["usable_cpus"]


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
