"""Which GGUF files `llm` knows by which names: a JSON file in llm's folder, or where PYTRIATTN_LLM_MODELS says.

{"smol": {"path": "/models/smollm2.gguf", "settings": {"budget": 1024}, "aliases": ["s"]}}
"""

from __future__ import annotations

import inspect
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import llm

__all__ = ["ConfiguredModel", "models_path", "read_models", "write_models"]


@dataclass
class ConfiguredModel:
    """A name for a GGUF file. ``settings`` are arguments of `pytriattn.Llama`."""

    name: str
    path: str
    settings: dict[str, Any] = field(default_factory=dict)
    aliases: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Make sure that the file is a GGUF model and the settings have names that `pytriattn.Llama` knows.

        Raises:
            TypeError: a setting is unknown.
            ValueError: the file is no model.
        """
        from pytriattn import Llama, gguf_info

        known = sorted(set(inspect.signature(Llama).parameters) - {"model_path", "progress"})
        for name in self.settings:
            if name not in known:
                raise TypeError(f"there is no setting '{name}'; there are {', '.join(known)}")
        gguf_info(self.path)


def models_path() -> Path:
    """Return where the models are written down."""
    named = os.environ.get("PYTRIATTN_LLM_MODELS")
    if named:
        return Path(named).expanduser()
    return Path(llm.user_dir()) / "pytriattn-models.json"  # type: ignore[no-untyped-call]


def read_models() -> dict[str, ConfiguredModel]:
    """Return the models by name; none if there is no file.

    Raises:
        ValueError: the file has another form.
    """
    path = models_path()
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {name: ConfiguredModel(name, **entry) for name, entry in entries.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"'{path}' cannot be read as a list of models ({error}); put it right, or delete it and run llm "
            f"pytriattn add-model"
        ) from error


def write_models(models: dict[str, ConfiguredModel]) -> None:
    """Write the models down.

    Raises:
        OSError: the file cannot be written.
    """
    entries = {m.name: {"path": m.path, "settings": m.settings, "aliases": m.aliases} for m in models.values()}
    path = models_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)
