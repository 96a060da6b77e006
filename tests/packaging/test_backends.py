"""Which backend modules are loaded, in which order, from where; plug-ins that fit and plug-ins that do not."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys

import pytest

import pytriattn
from pytriattn import BackendError
from pytriattn._native import backends, core
from pytriattn._native.backend_modules import Backends, module_backend
from pytriattn._native.descriptor import Descriptor
from support.fake_plugins import BASE, FakePlugin, base_descriptor, compile_library, run_python
from support.paths import ROOT
from support.tiny_context import Tiny

pytestmark = pytest.mark.slow  # processes, or models that are calibrated


GENERATE = """
from pytriattn import Llama
with Llama({path!r}, n_ctx=512, budget=96, mode="recent", n_threads=1) as llm:
    print(list(llm.generate([1, 5, 9, 12] * 40, max_tokens=60, temperature=0.0, ignore_eos=True)))
"""
STATE = """
import json
from pytriattn._native import backends
backends.load_plugins()
print(json.dumps([[b.name, b.distribution, b.loaded, str(b.error)] for b in backends.seen]))
"""


def test_the_cpu_comes_first() -> None:
    first = backends.seen[0]
    assert (first.name, first.distribution, first.ggml_name) == ("cpu", "pytriattn", "CPU")
    loaded = core.backend_list()[0]
    assert (loaded.name, loaded.n_devices) == ("CPU", 1)
    assert first.library is not None
    assert first.library.parent == pathlib.Path(core.__file__).resolve().parent / "lib"


def test_the_descriptor_tells_the_build() -> None:
    assert backends.base.pytriattn == pytriattn.__version__
    assert backends.base.llama_cpp == pytriattn.llama_cpp_commit
    assert len(backends.base.settings["ggml_headers"]) == len(backends.base.build) == 64
    # what is described is what is there, and nothing else is loaded
    assert all((backends.base.directory / name).is_file() for name in backends.base.modules)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("libpytriattn-ggml-cpu.so", "cpu"),
        ("libpytriattn-ggml-cpu-haswell.so", "cpu"),
        ("libpytriattn-ggml-cpu-armv8.2_1.so", "cpu"),
        ("pytriattn-ggml-cuda.dll", "cuda"),
    ],
)
def test_names_of_modules(file: str, name: str) -> None:
    assert module_backend(file) == name


@pytest.mark.parametrize("file", ["libggml-cpu.so", "libpytriattn-ggml-cpu.so.0", "numpy.so"])
def test_modules_of_others_are_refused(file: str) -> None:
    with pytest.raises(BackendError, match="not named as one of pytriattn's"):
        module_backend(file)


def test_only_absolute_paths_to_modules_are_loaded(tmp_path: pathlib.Path) -> None:
    with pytest.raises(BackendError, match="not an absolute path"):
        core.load_backend("libpytriattn-ggml-cpu.so")
    broken = tmp_path / "libpytriattn-ggml-cuda.so"
    broken.write_bytes(b"no library")
    with pytest.raises(BackendError, match=r"libpytriattn-ggml-cuda.so' cannot be loaded: .*(too short|invalid)"):
        core.load_backend(str(broken))
    with pytest.raises(BackendError, match="no ggml_backend_init"):
        core.load_backend(core.__file__)


class VariantCore:
    """Stands for the extension where modules for several instruction sets are there."""

    def __init__(self, scores: dict[str, int]) -> None:
        self.scores = scores
        self.loaded: list[str] = []

    def backend_score(self, path: str) -> int:
        return self.scores[pathlib.Path(path).name]

    def load_backend(self, path: str) -> str:
        self.loaded.append(pathlib.Path(path).name)
        return "CPU"

    def init_llama(self) -> None:
        self.loaded.append("init")


def variants(folder: pathlib.Path, scores: dict[str, int], *others: str) -> tuple[Backends, VariantCore]:
    import json

    (folder / "backend.json").write_text(json.dumps(base_descriptor() | {"modules": [*others, *scores]}))
    stand_in = VariantCore(scores)
    return Backends(stand_in, folder), stand_in


def test_the_best_cpu_variant_is_taken(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTRIATTN_BACKENDS", raising=False)
    scores = {
        "libpytriattn-ggml-cpu-x64.so": 1,
        "libpytriattn-ggml-cpu-haswell.so": 64,
        "libpytriattn-ggml-cpu-icelake.so": 0,
    }
    loader, stand_in = variants(tmp_path, scores, "libpytriattn-ggml-blas.so")
    loader.load_base()
    assert stand_in.loaded == ["libpytriattn-ggml-cpu-haswell.so", "init", "libpytriattn-ggml-blas.so"]


def test_no_cpu_variant_runs_here(tmp_path: pathlib.Path) -> None:
    loader, stand_in = variants(tmp_path, {"libpytriattn-ggml-cpu-a.so": 0, "libpytriattn-ggml-cpu-b.so": 0})
    with pytest.raises(
        BackendError, match=r"none of the CPU modules .*cpu-a.so, .*cpu-b.so\. Build pytriattn on this machine"
    ):
        loader.load_base()
    assert stand_in.loaded == []


def test_the_only_cpu_module_does_not_run_here(tmp_path: pathlib.Path) -> None:
    loader, _ = variants(tmp_path, {"libpytriattn-ggml-cpu.so": 0})
    loader._core = core  # there is no such file
    with pytest.raises(
        BackendError, match=r"cannot be loaded: .* built for another processor. Build pytriattn on this machine"
    ):
        loader.load_base()


# -- plug-ins
# ------------------------------------------------------------------------------------------------------------------


def test_a_plugin_that_fits(tmp_path: pathlib.Path, tiny: Tiny) -> None:
    plugin = FakePlugin(tmp_path)
    done = run_python(STATE, tmp_path)
    assert '["fake", "pytriattn-fake", true, "None"]' in done.stdout, done.stderr
    assert plugin.traced() == ["imported", "preload"]
    done = run_python(GENERATE.format(path=str(tiny("llama"))), tmp_path)
    assert done.returncode == 0, done.stderr


def test_importing_pytriattn_touches_no_plugin(tmp_path: pathlib.Path) -> None:
    plugin = FakePlugin(tmp_path)
    assert run_python("import pytriattn", tmp_path).returncode == 0
    assert plugin.traced() == []


@pytest.mark.parametrize(
    ("version", "changes", "both_sides"),
    [
        ("9.9.9", {}, f"version 9.9.9, not {BASE.pytriattn}"),
        (BASE.pytriattn, {"pytriattn": "9.9.9"}, f"its pytriattn 9.9.9, not {BASE.pytriattn}"),
        (BASE.pytriattn, {"llama_cpp": "abc123"}, f"its llama.cpp abc123, not {BASE.llama_cpp}"),
        (
            BASE.pytriattn,
            {"build": "0" * 64, "settings": BASE.settings | {"GGML_SCHED_MAX_COPIES": "1"}},
            f"its GGML_SCHED_MAX_COPIES 1, not {BASE.settings['GGML_SCHED_MAX_COPIES']}",
        ),
        (BASE.pytriattn, {"build": "0" * 64}, f"its build {'0' * 64}, not {BASE.build}"),
    ],
)
def test_a_plugin_of_another_build(
    tmp_path: pathlib.Path, tiny: Tiny, version: str, changes: dict[str, object], both_sides: str
) -> None:
    plugin = FakePlugin(tmp_path, version)
    plugin.describe(**changes)
    code = GENERATE.format(path=str(tiny("llama")))
    done = run_python(code, tmp_path)
    assert done.returncode == 1
    assert "pytriattn.errors.BackendError: pytriattn-fake" in done.stderr
    assert both_sides in done.stderr
    assert f"pip install --upgrade --force-reinstall 'pytriattn-fake=={BASE.pytriattn}'" in done.stderr
    assert plugin.traced() == [], "nothing of it may run"
    # the way out that the message names
    assert "PYTRIATTN_BACKENDS=cpu" in done.stderr
    done = run_python(code, tmp_path, PYTRIATTN_BACKENDS="cpu")
    assert done.returncode == 0, done.stderr
    assert plugin.traced() == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as the description of a backend"),
        ("[]", "cannot be read as the description of a backend"),
        ('{"pytriattn": "1", "settings": 3}', "cannot be read as the description of a backend"),
        (None, "cannot be read as the description of a backend"),
        ("../../stranger.so", "which is no file name"),
        ("libggml-cuda.so", "not named as one of pytriattn's backend modules"),
        ("libpytriattn-ggml-cuda.so", "offers 'fake' but holds libpytriattn-ggml-cuda.so"),
        ("libpytriattn-ggml-fake-gone.so", "cannot be loaded"),
    ],
)
def test_a_damaged_plugin(tmp_path: pathlib.Path, content: str | None, message: str) -> None:
    plugin = FakePlugin(tmp_path)
    path = plugin.package / "backend.json"
    if content is None:
        path.unlink()
    elif content.endswith(".so"):
        plugin.describe(modules=[content])
    else:
        path.write_text(content)
    done = run_python("from pytriattn._native import backends; backends.require()", tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "PYTRIATTN_BACKENDS=cpu" in done.stderr


def test_a_plugin_whose_libraries_are_missing(tmp_path: pathlib.Path) -> None:
    FakePlugin(tmp_path, preload="raise ImportError('nvidia-cublas is not installed')")
    done = run_python("from pytriattn._native import backends; backends.require()", tmp_path)
    assert "cannot be used: nvidia-cublas is not installed" in done.stderr
    assert "BackendError" in done.stderr


def test_two_plugins_for_one_backend(tmp_path: pathlib.Path) -> None:
    FakePlugin(tmp_path)
    entry = tmp_path / f"pytriattn_fake-{BASE.pytriattn}.dist-info" / "entry_points.txt"
    entry.write_text("[pytriattn.backends]\ncpu = pytriattn_fake\n")
    done = run_python("from pytriattn._native import backends; backends.require()", tmp_path)
    assert "offers the backend 'cpu', which is loaded already" in done.stderr


def test_backends_by_choice(tmp_path: pathlib.Path) -> None:
    plugin = FakePlugin(tmp_path)
    require = "from pytriattn._native import backends; backends.require()"
    assert run_python(require, tmp_path, PYTRIATTN_BACKENDS=" CPU, fake ").returncode == 0
    assert plugin.traced() == ["imported", "preload"]
    done = run_python(require, tmp_path, PYTRIATTN_BACKENDS="fake,vulkan")
    assert (
        "PYTRIATTN_BACKENDS=fake,vulkan names vulkan, which cannot be found; "
        "name only those that are installed: cpu, fake" in done.stderr.replace(", rpc", "")
    )


def test_differences_name_both_sides() -> None:
    other = Descriptor("1", "2", "3", BASE.settings | {"bits": "32"}, (), pathlib.Path())
    assert BASE.differences(other) == [
        f"pytriattn 1, not {BASE.pytriattn}",
        f"llama.cpp 2, not {BASE.llama_cpp}",
        f"bits 32, not {BASE.settings['bits']}",
    ]
    assert BASE.differences(BASE) == []


# -- strangers
# -----------------------------------------------------------------------------------------------------------------


def exported_symbols(library: pathlib.Path, begin: tuple[str, ...] = ("ggml_", "gguf_")) -> list[str]:
    """Return the symbols that a shared library exports and that begin so."""
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("needs nm")
    listed = subprocess.run(
        [nm, "-D", "--defined-only", str(library)], capture_output=True, text=True, check=True
    ).stdout
    return sorted({line.split()[-1] for line in listed.splitlines() if line.split()[-1].startswith(begin)})


def test_nothing_comes_from_the_working_directory(tmp_path: pathlib.Path, tiny: Tiny) -> None:
    """Libraries under every name that is looked for, which would leave a trace as soon as they were loaded."""
    trace = tmp_path / "loaded"
    source = (
        f'#include <stdio.h>\n__attribute__((constructor)) static void run(void) {{ fclose(fopen("{trace}", "w")); }}\n'
    )
    library = compile_library(tmp_path, "stranger.so", source)
    names = ["ggml-base", "ggml", "ggml-cpu", "ggml-cuda", "ggml-vulkan", "ggml-rpc", "cudart", "cuda"]
    for name in names:
        shutil.copy(library, tmp_path / f"lib{name}.so")
        shutil.copy(library, tmp_path / f"libpytriattn-{name}.so")
    plain = run_python(GENERATE.format(path=str(tiny("llama"))))
    done = run_python(GENERATE.format(path=str(tiny("llama"))), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == plain.stdout
    assert not trace.exists()


@pytest.mark.parametrize("mode", ["RTLD_LOCAL", "RTLD_GLOBAL"])
def test_another_ggml_in_the_process(tmp_path: pathlib.Path, tiny: Tiny, mode: str) -> None:
    """A library with ggml's own names for itself and for all that it exports, of which everything ends the process."""
    symbols = sorted(
        {name for library in BASE.directory.glob("libpytriattn-ggml*.so") for name in exported_symbols(library)}
    )
    assert {"ggml_init", "ggml_backend_load", "ggml_backend_init", "gguf_init_empty"} <= set(symbols)
    symbols += [
        "llama_backend_init",
        "llama_model_load_from_file",
        "llama_init_from_model",
        "llama_decode",
        "llama_get_logits_ith",
    ]
    source = "#include <stdlib.h>\n" + "".join(f"void {name}(void) {{ abort(); }}\n" for name in symbols)
    stranger = compile_library(tmp_path, "libggml-base.so.0", source, "-Wl,-soname,libggml-base.so.0", "-fno-builtin")
    code = GENERATE.format(path=str(tiny("llama")))
    plain = run_python(code)
    done = run_python(f"import ctypes; ctypes.CDLL({str(stranger)!r}, mode=ctypes.{mode})\n{code}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == plain.stdout
    assert plain.stdout.count(",") == 59


@pytest.mark.skipif(sys.platform != "linux", reason="reads ELF symbols")
def test_llama_cpp_stays_inside() -> None:
    """What is compiled into the extension neither serves other packages nor is replaced by theirs."""
    assert exported_symbols(BASE.directory / "libpytriattn-ggml-base.so", ("ggml_init",)) == ["ggml_init"]
    assert exported_symbols(pathlib.Path(core.__file__), ("llama_", "ggml_", "common_", "_ZN5llama", "_Z6common")) == []


# -- packaging
# -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("backend", "name"), [("cuda", "cuda13"), ("hip", "hip"), ("vulkan", "vulkan")])
def test_plugin_wheels_go_with_this_version(backend: str, name: str) -> None:
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    base = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    whole = tomllib.loads((ROOT / "plugins" / backend / "pyproject.toml").read_text())
    plugin, metadata = whole["project"], whole["tool"]["scikit-build"]["metadata"]
    assert plugin["name"] == f"pytriattn-{name}"
    # the version is the base's, and so is the one that it asks for
    assert {"version", "dependencies"} <= set(plugin["dynamic"])
    source = ROOT / "plugins" / backend / metadata["version"]["input"]
    assert source.resolve() == ROOT / "pyproject.toml"
    assert "pytriattn=={project[version]}" in metadata["dependencies"]["result"]
    assert plugin["entry-points"]["pytriattn.backends"] == {backend: f"pytriattn_{name}"}
    assert (ROOT / "plugins" / backend / f"pytriattn_{name}" / "__init__.py").is_file()
    wanted = [f"{plugin['name']}=={base['version']}"]
    assert base["optional-dependencies"].get(backend, wanted) == wanted
