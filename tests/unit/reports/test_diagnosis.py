"""What the diagnosis reads from the system's files."""

from __future__ import annotations

import pathlib

from pytriattn.reports.diagnosis import available_memory, nvidia_driver


def test_the_driver_and_the_memory(tmp_path: pathlib.Path) -> None:
    version = tmp_path / "version"
    version.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\nGCC version: 12\n"
    )
    assert nvidia_driver(version) == "580.65.06"
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       1000 kB\nMemAvailable:    600 kB\n")
    assert available_memory(meminfo) == 600 << 10
    meminfo.write_text("MemTotal: 1000 kB\n")
    assert available_memory(meminfo) is None
    assert available_memory(tmp_path / "nowhere") is None
