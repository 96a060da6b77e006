"""``pytriattn-doctor`` on a healthy package, beside broken plug-ins, and where a GPU's backend finds no GPU."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

import pytest

import pytriattn
from pytriattn.cli import doctor
from support.fake_plugins import BASE, FakePlugin, compile_library, run_python

pytestmark = pytest.mark.slow  # processes, or models that are calibrated


DOCTOR = "import sys; from pytriattn.cli.doctor import main; sys.exit(main(sys.argv[1:]))"
JSON = "import sys; from pytriattn.cli.doctor import main; sys.exit(main(['--json']))"

# A backend module with no devices, as a GPU's is where there is no driver.
NO_DEVICES = """
#include <stddef.h>
struct reg {
    int api_version;
    const char * (*name)(struct reg *);
    size_t (*count)(struct reg *);
    void * (*device)(struct reg *, size_t);
    void * (*proc)(struct reg *, const char *);
    void * context;
};
static const char * name(struct reg * r) { (void) r; return "CUDA"; }
static size_t count(struct reg * r) { (void) r; return 0; }
static void * device(struct reg * r, size_t i) { (void) r; (void) i; return NULL; }
static void * proc(struct reg * r, const char * what) { (void) r; (void) what; return NULL; }
static struct reg reg = { 2, name, count, device, proc, NULL };
struct reg * ggml_backend_init(void) { return &reg; }
"""


def diagnosis_of(*path: pathlib.Path, code: int, **env: str) -> dict[str, Any]:
    done = run_python(JSON, *path, **env)
    assert done.returncode == code, done.stderr
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    assert (found["schema"], found["tool"], found["healthy"]) == (1, "pytriattn-doctor", code == 0)
    return found


def test_a_healthy_package() -> None:
    found = diagnosis_of(code=0)
    assert found["version"] == pytriattn.__version__
    assert found["llama_cpp"] == pytriattn.llama_cpp_commit
    assert found["build"] == BASE.build
    assert found["problems"] == []
    cpu = found["backends"][0]
    assert (cpu["name"], cpu["loaded"], cpu["devices"], cpu["descriptor_ok"]) == ("cpu", True, 1, True)
    assert pathlib.Path(cpu["library"]).is_file()
    device = found["devices"][0]
    assert (device["type"], device["backend"]) == ("cpu", "CPU")
    assert 0 < device["free"] <= device["total"]
    assert found["packages"]["numpy"] != "missing"


def test_tables(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTRIATTN_BACKENDS", raising=False)
    code = doctor.main([])
    shown = capsys.readouterr().out
    assert code == (1 if "wrong:" in shown else 0)
    for pattern in (
        rf"pytriattn +{re.escape(pytriattn.__version__)}",
        r"cpu +pytriattn \S+ +loaded, 1 device",
        r"CPU +cpu +\S.* GiB",
    ):
        assert re.search(pattern, shown), pattern


def test_a_plugin_of_another_build(tmp_path: pathlib.Path) -> None:
    FakePlugin(tmp_path, "9.9.9").describe(llama_cpp="abc123")
    found = diagnosis_of(tmp_path, code=1)
    plugin = found["backends"][-1]
    assert (plugin["name"], plugin["version"], plugin["loaded"], plugin["descriptor_ok"]) == (
        "fake",
        "9.9.9",
        False,
        False,
    )
    assert found["problems"] == [plugin["error"]]
    assert "its llama.cpp abc123, not" in plugin["error"]
    assert "pip install" in plugin["error"]
    done = run_python(DOCTOR, tmp_path)
    assert done.returncode == 1
    assert re.search(r"fake +pytriattn-fake 9.9.9 +does not fit, not loaded", done.stdout)
    assert "Something is wrong." in done.stdout
    # left out on request, it is no problem
    diagnosis_of(tmp_path, code=0, PYTRIATTN_BACKENDS="cpu")


@pytest.mark.parametrize("preload", ["raise SystemError('out of order')", "import no_such_module", "undefined()"])
def test_a_plugin_that_raises(tmp_path: pathlib.Path, preload: str) -> None:
    FakePlugin(tmp_path, preload=preload)
    found = diagnosis_of(tmp_path, code=1)
    plugin = found["backends"][-1]
    assert (plugin["loaded"], plugin["descriptor_ok"]) == (False, True)
    assert "pytriattn-fake" in plugin["error"]


def test_a_backend_without_devices(tmp_path: pathlib.Path) -> None:
    module = compile_library(tmp_path, "module.so", NO_DEVICES)
    FakePlugin(tmp_path / "site", name="cuda", module=module)
    found = diagnosis_of(tmp_path / "site", code=1)
    plugin = found["backends"][-1]
    assert (plugin["name"], plugin["loaded"], plugin["devices"], plugin["error"]) == ("cuda", True, 0, None)
    assert "the backend 'cuda' is loaded but finds no device" in found["problems"][0]
    assert "driver" in found["problems"][0]
    # it stands in nobody's way
    assert run_python("from pytriattn._native import backends; backends.require()", tmp_path / "site").returncode == 0


def test_a_wish_that_cannot_be_met() -> None:
    found = diagnosis_of(code=1, PYTRIATTN_BACKENDS="vulkan")
    assert found["backends_wanted"] == "vulkan"
    assert "PYTRIATTN_BACKENDS=vulkan names vulkan" in found["problems"][0]
