"""Full disks, folders that may not be entered, processes that are killed: nothing half written is ever read."""

from __future__ import annotations

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from pytriattn import Llama, StateError, StatsError, TriAttentionStats
from pytriattn._util.atomic_file import write_atomically
from pytriattn.stats.bundled import cache_folder
from support.limited import run_limited
from support.paths import TESTS
from support.tiny_context import Tiny

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="needs limits and /proc")]


def test_a_full_disk_leaves_the_old_file(tiny: Tiny, sidecar: pathlib.Path, tmp_path: pathlib.Path) -> None:
    state, stats = tmp_path / "run.state", tmp_path / "model.triattention"
    with Llama(tiny("llama"), n_ctx=64, n_threads=1) as llm:
        llm.eval([5, 6, 7])
        llm.save_state(state)
    before = state.read_bytes()
    said = run_limited(
        """
        from pytriattn import TriAttentionStats
        llm = Llama(sys.argv[1], n_ctx=512, n_threads=1)
        llm.eval(list(range(3, 240)))
        stats = TriAttentionStats.load(sys.argv[3])
        limit_files(5000)
        for write in (lambda: llm.save_state(sys.argv[2]), lambda: stats.save(sys.argv[4])):
            try:
                write()
            except OSError as error:
                print("OSError", error.strerror)
        print(llm.n_tokens)
        """,
        tiny("llama"),
        state,
        sidecar,
        stats,
    )
    assert said.splitlines() == ["OSError File too large", "OSError File too large", "237"]
    assert state.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.state"]  # nor is anything else left


def test_a_cache_folder_on_a_full_disk(smollm2: pathlib.Path, tmp_path: pathlib.Path) -> None:
    said = run_limited(
        """
        limit_files(5000)
        llm = Llama(sys.argv[1], n_ctx=512, budget=128, n_threads=1)
        print(llm.budget)
        """,
        smollm2,
        PYTRIATTN_CACHE_DIR=str(tmp_path),
    )
    assert said == "128\n"
    assert os.listdir(tmp_path) == []


def test_folders_that_may_not_be_written(smollm2: pathlib.Path, tmp_path: pathlib.Path) -> None:
    closed, locked = tmp_path / "closed", tmp_path / "locked"
    closed.mkdir(mode=0o500)
    locked.mkdir(mode=0)
    said = run_limited(
        """
        from support.limited import drop_privileges
        drop_privileges()
        closed, locked = sys.argv[2:]
        import os
        for folder in (closed, locked):
            os.environ["PYTRIATTN_CACHE_DIR"] = folder
            llm = Llama(sys.argv[1], n_ctx=512, budget=128, n_threads=1)
            llm.eval([1, 2, 3])
            for write in (llm.save_state, llm.triattn_stats.save):
                try:
                    write(folder + "/file")
                except PermissionError as error:
                    print("PermissionError")
            print(llm.n_tokens)
        """,
        smollm2,
        closed,
        locked,
    )
    assert said.splitlines() == ["PermissionError", "PermissionError", "3"] * 2


def test_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is made in a folder called ~ in the working directory."""
    for name in ("PYTRIATTN_CACHE_DIR", "HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder().is_absolute()  # the system knows the user
    said = run_limited(
        """
        import os
        from pytriattn.stats.bundled import cache_folder
        for name in ("PYTRIATTN_CACHE_DIR", "HOME", "XDG_CACHE_HOME"):
            os.environ.pop(name, None)
        if os.getuid() == 0:
            os.setuid(54_321)  # a user whom the system does not know
            try:
                print(cache_folder())
            except FileNotFoundError as error:
                print(error)
        """
    )
    assert said in ("the user has no home folder; set HOME or PYTRIATTN_CACHE_DIR\n", "")


WRITE = """
import sys
from pytriattn._util.atomic_file import write_atomically
for number in range(1, 100_000):
    write_atomically(sys.argv[1], bytes([number % 256]) * 3_000_000)
"""


def test_a_process_that_is_killed_while_it_writes(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"\0" * 3_000_000)
    chance = random.Random(4)
    for _ in range(15):
        with subprocess.Popen([sys.executable, "-c", WRITE, str(path)], cwd=TESTS) as process:
            before = path.stat().st_ino
            while path.stat().st_ino == before and process.poll() is None:
                time.sleep(0.001)
            time.sleep(chance.random() * 0.02)
            process.send_signal(signal.SIGKILL)
        data = path.read_bytes()
        assert data == data[:1] * 3_000_000


def test_half_a_file_is_never_whole(tiny: Tiny, sidecar: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """What another program has copied halfway, or a file system has lost the end of."""
    with Llama(tiny("llama"), n_ctx=64, n_threads=1) as llm:
        llm.eval([5, 6, 7])
        state = llm.save_state()
        assert isinstance(state, bytes)
        for n in range(0, len(state), 997):
            with pytest.raises(StateError):
                llm.load_state(state[:n])
        assert llm.n_tokens == 3
    data, cut, whole = sidecar.read_bytes(), tmp_path / "cut.triattention", tmp_path / "whole.triattention"
    for n in (*range(0, len(data), len(data) // 40), *range(len(data) - 40, len(data))):
        cut.write_bytes(data[:n])
        try:
            read = TriAttentionStats.load(cut)
        except StatsError:
            continue
        # nothing but the padding at the end was missing
        assert n > len(data) - 32
        read.save(whole)
        assert whole.read_bytes() == data


def test_two_processes_calibrate_to_one_path(smollm2: pathlib.Path, tmp_path: pathlib.Path) -> None:
    code = (
        "import sys; from pytriattn import Llama; print(Llama(sys.argv[1], n_ctx=512, budget=128, n_threads=1).budget)"
    )
    command = [sys.executable, "-c", code, str(smollm2)]
    environment = {**os.environ, "PYTRIATTN_CACHE_DIR": str(tmp_path / "cache")}
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=300)[0] for process in processes] == ["128\n", "128\n"]
    (path,) = (tmp_path / "cache").iterdir()
    TriAttentionStats.load(path)
