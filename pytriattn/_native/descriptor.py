"""What a package's backend modules were built from: ``backend.json``, written by the build beside them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pytriattn.errors import BackendError

__all__ = ["Descriptor"]

FILE = "backend.json"


@dataclass(frozen=True)
class Descriptor:
    """The build of some backend modules. Modules fit a base package if all but `modules` and `directory` are equal."""

    pytriattn: str
    """Version of pytriattn that they were built with."""
    llama_cpp: str
    """Commit of llama.cpp."""
    build: str
    """Hash of the settings."""
    settings: dict[str, str]
    """What changes the layout of what the modules share: the headers' hash, definitions, the system."""
    modules: tuple[str, ...]
    """File names of the modules, in `directory`."""
    directory: Path

    @classmethod
    def read(cls, directory: Path) -> Descriptor:
        """Read the descriptor in `directory`.

        Raises:
            BackendError: there is none, or it is not one, or it names a file outside `directory`.
        """
        path = directory / FILE
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            settings = {str(key): str(value) for key, value in found["settings"].items()}
            modules = tuple(found["modules"])
            result = cls(
                str(found["pytriattn"]), str(found["llama_cpp"]), str(found["build"]), settings, modules, directory
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BackendError(f"{path} cannot be read as the description of a backend: {error!r}") from error
        for name in modules:
            if not isinstance(name, str) or Path(name).name != name or not name:
                raise BackendError(f"{path} names the module {name!r}, which is no file name")
        return result

    def differences(self, other: Descriptor) -> list[str]:
        """Return what keeps modules of `other` from being loaded beside these, as "<what> <other's>, not <own>"."""
        pairs = [
            ("pytriattn", other.pytriattn, self.pytriattn),
            ("llama.cpp", other.llama_cpp, self.llama_cpp),
        ]
        for key in sorted(self.settings.keys() | other.settings.keys()):
            pairs.append((key, other.settings.get(key, "(none)"), self.settings.get(key, "(none)")))
        result = [f"{what} {theirs}, not {ours}" for what, theirs, ours in pairs if theirs != ours]
        if not result and other.build != self.build:
            result.append(f"build {other.build}, not {self.build}")
        return result
