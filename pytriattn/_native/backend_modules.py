"""Loading ggml's backends: the package's own modules and those of plug-in wheels, each by its path, the CPU first.

A plug-in is a distribution with an entry point in the group ``pytriattn.backends``. The entry point's name is the
backend's (``cuda``) and its value a package that holds a ``backend.json``, the module that it names, and a function
``preload()``, which loads the libraries that the module needs. Nothing is imported or loaded of a plug-in that was
built for another pytriattn.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pytriattn._native.descriptor import Descriptor
from pytriattn.errors import BackendError

__all__ = ["ENVIRONMENT", "GROUP", "Backend", "Backends", "Plugin", "installed_plugins"]

GROUP = "pytriattn.backends"
ENVIRONMENT = "PYTRIATTN_BACKENDS"
_BUILD_HERE = "Build pytriattn on this machine: pip install --force-reinstall --no-binary pytriattn pytriattn"
_MODULE = re.compile(r"^(?:lib)?pytriattn-ggml-([a-z0-9]+)(?:[-_].*)?\.(?:so|dylib|dll)$")


@dataclass(frozen=True)
class Backend:
    """A backend of this installation: loaded, or with the error that kept it from being loaded."""

    name: str
    """``cpu``, ``cuda``, ...: as in PYTRIATTN_BACKENDS."""
    distribution: str
    """The distribution that it came with."""
    version: str
    library: Path | None
    """The module's file, if it is known."""
    ggml_name: str | None = None
    """ggml's name for it once it is loaded; devices are listed under it."""
    error: BackendError | None = None

    @property
    def loaded(self) -> bool:
        """Whether its module is loaded. It may still have no devices."""
        return self.ggml_name is not None


@dataclass(frozen=True)
class Plugin:
    """An installed distribution that offers a backend."""

    name: str
    distribution: str
    version: str
    package: str
    directory: Path


def installed_plugins() -> list[Plugin]:
    """Return the installed plug-ins, sorted by name. Nothing of them is imported."""
    found: dict[tuple[str, str], Plugin] = {}
    for entry in importlib.metadata.entry_points(group=GROUP):
        if entry.dist is None:
            continue
        package = entry.module
        directory = Path(str(entry.dist.locate_file(package.replace(".", "/")))).resolve()
        plugin = Plugin(entry.name, entry.dist.metadata["Name"], entry.dist.version, package, directory)
        # the same distribution twice on sys.path: Python takes the first, and so do we
        found.setdefault((plugin.name, plugin.distribution), plugin)
    return [found[key] for key in sorted(found)]


def wanted_backends() -> frozenset[str] | None:
    """Return the names in PYTRIATTN_BACKENDS, with the CPU among them in any case; None if it is not set: all."""
    value = os.environ.get(ENVIRONMENT, "").strip()
    if not value:
        return None
    return frozenset({"cpu"} | {name.strip().lower() for name in value.split(",") if name.strip()})


def module_backend(file_name: str) -> str:
    """Return ``cpu`` for ``libpytriattn-ggml-cpu-haswell.so``, and so on.

    Raises:
        BackendError: it is no name of a backend's module.
    """
    match = _MODULE.match(file_name)
    if match is None:
        raise BackendError(f"'{file_name}' is not named as one of pytriattn's backend modules")
    return match.group(1)


class Backends:
    """The backends of this process. One instance: ``pytriattn._native.backends``."""

    def __init__(self, core: Any, directory: Path) -> None:
        """Read the descriptor in `directory`, the package's folder of libraries; `core` loads the modules."""
        self._core = core
        self._lock = threading.Lock()
        self._plugins_done = False
        self._seen: list[Backend] = []
        self.base = Descriptor.read(directory)

    @property
    def seen(self) -> tuple[Backend, ...]:
        """Every backend that was looked at, in order of loading."""
        return tuple(self._seen)

    def load_base(self) -> None:
        """Load the package's own modules, the CPU's first, and start llama.cpp.

        Raises:
            BackendError: there is no CPU module for this machine. If another module cannot be loaded, `require` raises
                it later.
        """
        modules: dict[str, list[Path]] = {}
        for name in self.base.modules:
            modules.setdefault(module_backend(name), []).append(self.base.directory / name)
        cpu = self._best_variant(modules.pop("cpu", []))
        try:
            ggml_name = self._core.load_backend(str(cpu))
        except BackendError as error:
            raise BackendError(f"{error}. It may have been built for another processor. {_BUILD_HERE}") from error
        self._seen.append(Backend("cpu", "pytriattn", self.base.pytriattn, cpu, ggml_name))
        self._core.init_llama()
        wanted = wanted_backends()
        for name, paths in sorted(modules.items()):
            if wanted is None or name in wanted:
                self._load(Backend(name, "pytriattn", self.base.pytriattn, paths[0]))

    def _best_variant(self, paths: list[Path]) -> Path:
        if len(paths) == 1:
            return paths[0]
        scores = {path: self._core.backend_score(str(path)) or 0 for path in paths}
        best = max(scores, key=lambda path: (scores[path], path.name), default=None)
        if best is None or scores[best] == 0:
            raise BackendError(
                f"none of the CPU modules in '{self.base.directory}' runs on this machine: "
                f"{', '.join(path.name for path in paths) or 'there are none'}. {_BUILD_HERE}"
            )
        return best

    def _load(self, backend: Backend) -> None:
        """Load the module of `backend` and add the outcome to `seen`."""
        try:
            ggml_name = self._core.load_backend(str(backend.library))
        except BackendError as error:
            self._note_error(backend, str(error))
        else:
            self._seen.append(replace(backend, ggml_name=ggml_name))

    def _note_error(self, backend: Backend, message: str) -> None:
        error = BackendError(f"{message}. To run without this backend: {ENVIRONMENT}=cpu")
        self._seen.append(replace(backend, error=error))

    def load_plugins(self) -> None:
        """Load the plug-ins that are installed and fit, once a process. The others get an error in `seen`."""
        with self._lock:
            if self._plugins_done:
                return
            self._plugins_done = True
            wanted = wanted_backends()
            for plugin in installed_plugins():
                if wanted is None or plugin.name in wanted:
                    self._load_plugin(plugin)

    def _load_plugin(self, plugin: Plugin) -> None:
        backend = Backend(plugin.name, plugin.distribution, plugin.version, None)
        if any(other.name == plugin.name and other.loaded for other in self._seen):
            self._note_error(
                backend,
                f"{plugin.distribution} offers the backend '{plugin.name}', which is loaded already; uninstall it",
            )
            return
        remedy = f"pip install --upgrade --force-reinstall '{plugin.distribution}=={self.base.pytriattn}'"
        try:
            descriptor = Descriptor.read(plugin.directory)
            differences = self.base.differences(descriptor)
            if plugin.version != self.base.pytriattn:
                differences.insert(0, f"version {plugin.version}, not {self.base.pytriattn}")
            if differences:
                raise BackendError(
                    f"{plugin.distribution} {plugin.version} was built for another pytriattn than this one "
                    f"({self.base.pytriattn}, llama.cpp {self.base.llama_cpp}): its {'; its '.join(differences)}"
                )
            if len(descriptor.modules) != 1 or module_backend(descriptor.modules[0]) != plugin.name:
                raise BackendError(
                    f"{plugin.distribution} offers '{plugin.name}' but holds "
                    f"{', '.join(descriptor.modules) or 'no module'}"
                )
            backend = replace(backend, library=descriptor.directory / descriptor.modules[0])
            importlib.import_module(plugin.package).preload()
        except BackendError as error:
            self._note_error(backend, f"{error}. Install the one that fits: {remedy}")
        except Exception as error:  # a plug-in is other people's code
            self._note_error(
                backend, f"{plugin.distribution} {plugin.version} cannot be used: {error}. To install it anew: {remedy}"
            )
        else:
            self._load(backend)

    def require(self) -> None:
        """Load the plug-ins and check that every backend can be used, before a model is loaded.

        Raises:
            BackendError: a backend that is installed and wanted cannot be used, or PYTRIATTN_BACKENDS names one that is
                not there. The message has the remedy.
        """
        self.load_plugins()
        errors = self.errors()
        if errors:
            raise BackendError("; ".join(errors))

    def errors(self) -> list[str]:
        """Return what `require` would raise."""
        errors = [str(backend.error) for backend in self._seen if backend.error is not None]
        missing = (wanted_backends() or frozenset()) - {backend.name for backend in self._seen}
        if missing:
            known = sorted(
                {module_backend(name) for name in self.base.modules} | {plugin.name for plugin in installed_plugins()}
            )
            errors.append(
                f"{ENVIRONMENT}={os.environ[ENVIRONMENT]} names {', '.join(sorted(missing))}, which cannot be found; "
                f"name only those that are installed: {', '.join(known)}"
            )
        return errors
