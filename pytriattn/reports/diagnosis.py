"""What pytriattn finds on this machine: Python, backends, devices and memory, and the remedy for each problem."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from pytriattn._native import backends, core
from pytriattn._native.backend_modules import ENVIRONMENT

__all__ = ["BackendFacts", "Diagnosis", "DeviceFacts", "diagnose"]

_GPU_TYPES = ("gpu", "igpu")
_PLUGINS = {"cuda": "pip install 'pytriattn[cuda]'"}


@dataclass(frozen=True)
class DeviceFacts:
    """A device that a model can run on. Memory is in bytes."""

    name: str
    description: str
    type: str
    backend: str
    free: int | None
    """None if the backend does not know."""
    total: int


@dataclass(frozen=True)
class BackendFacts:
    """A backend of the package itself or of a plug-in."""

    name: str
    distribution: str
    version: str
    library: str | None
    loaded: bool
    descriptor_ok: bool
    """Whether it was built as the package was."""
    devices: int
    features: dict[str, str]
    error: str | None


@dataclass(frozen=True)
class Diagnosis:
    """Everything that `pytriattn-doctor` prints."""

    version: str
    llama_cpp: str
    location: str
    python: str
    system: str
    processor: str
    build: str
    settings: dict[str, str]
    backends_wanted: str | None
    """The environment variable PYTRIATTN_BACKENDS."""
    backends: list[BackendFacts]
    devices: list[DeviceFacts]
    nvidia_driver: str | None
    packages: dict[str, str]
    """Versions of the packages that pytriattn needs; "missing" if one is not installed."""
    problems: list[str]
    """What is wrong, each with its remedy. Empty: healthy."""
    advice: list[str]
    """What could be better."""


def nvidia_driver(version_file: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """Return the version of NVIDIA's driver, "unknown" if it does not tell, None if there is no driver."""
    try:
        words = version_file.read_text(encoding="utf-8").splitlines()[0].split()
        return next((word for word in words if word[:1].isdigit() and "." in word), "unknown")
    except (OSError, IndexError, UnicodeDecodeError):
        pass
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return None
    return "unknown"


def available_memory(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Return the bytes of memory that programs could still take, None if Linux does not tell."""
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
        return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), None)
    except (OSError, ValueError, IndexError):
        return None


def _requirements() -> dict[str, str]:
    found = {}
    for name in ("numpy", "gguf", "platformdirs", "rich", "threadpoolctl", "tqdm", "huggingface_hub", "matplotlib"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def diagnose() -> Diagnosis:
    """Load every backend that can be loaded and report. A backend that cannot be loaded is among the problems.

    Raises:
        BackendError: not even the CPU's backend can be loaded.
    """
    backends.load_plugins()
    n_devices = {backend.name: backend.n_devices for backend in core.backend_list()}
    seen = [
        BackendFacts(
            name=backend.name,
            distribution=backend.distribution,
            version=backend.version,
            library=None if backend.library is None else str(backend.library),
            loaded=backend.loaded,
            descriptor_ok=backend.library is not None,
            devices=n_devices.get(backend.ggml_name or "", 0),
            features=core.backend_features(backend.ggml_name) if backend.ggml_name else {},
            error=None if backend.error is None else str(backend.error),
        )
        for backend in backends.seen
    ]
    devices = [
        DeviceFacts(
            device.name,
            device.description,
            device.type,
            device.backend,
            # ggml gives the machine's total as what is free
            available_memory() if device.type == "cpu" else device.free,
            device.total,
        )
        for device in core.device_list()
    ]
    driver = nvidia_driver()
    problems = [*backends.errors(), *(_without_devices(backend, driver) for backend in seen if _is_idle(backend))]
    return Diagnosis(
        version=importlib.metadata.version("pytriattn"),
        llama_cpp=core.LLAMA_CPP_COMMIT,
        location=str(Path(str(core.__file__)).resolve().parent),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        system=f"{platform.system()} {platform.release()}",
        processor=platform.machine(),
        build=backends.base.build,
        settings=backends.base.settings,
        backends_wanted=os.environ.get(ENVIRONMENT) or None,
        backends=seen,
        devices=devices,
        nvidia_driver=driver,
        packages=_requirements(),
        problems=problems,
        advice=_advice(seen, devices, driver),
    )


def _is_idle(backend: BackendFacts) -> bool:
    """Whether it is loaded but has no devices to use. RPC has none until servers are named."""
    return backend.loaded and backend.devices == 0 and backend.name != "rpc"


def _without_devices(backend: BackendFacts, driver: str | None) -> str:
    if backend.name == "cuda":
        if driver is None:
            cause = (
                "NVIDIA's driver is not here: install it (580 or newer for CUDA 13), and pass the GPU on to a "
                "container (--gpus all)"
            )
        else:
            cause = (
                f"NVIDIA's driver is {driver}; CUDA 13 needs 580 or newer. See what `nvidia-smi` says, and "
                "CUDA_VISIBLE_DEVICES"
            )
    else:
        cause = "is its driver installed?"
    return f"{backend.distribution}: the backend '{backend.name}' is loaded but finds no device. {cause}"


def _advice(backends: list[BackendFacts], devices: list[DeviceFacts], driver: str | None) -> list[str]:
    advice = []
    if driver is not None and not any(backend.name == "cuda" for backend in backends):
        advice.append(f"NVIDIA's driver is here, the CUDA backend is not: {_PLUGINS['cuda']}")
    if not any(device.type in _GPU_TYPES for device in devices):
        advice.append("models run on the CPU")
    return advice
