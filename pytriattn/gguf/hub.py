"""Models and statistics from the Hugging Face hub, through huggingface_hub (extra ``hub``)."""

from __future__ import annotations

import fnmatch
import os
import re
from pathlib import Path
from typing import Any

from pytriattn.errors import ModelLoadError

__all__ = ["download"]

_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ModelLoadError(
            "models of the Hugging Face hub need the package huggingface_hub; run: pip install 'pytriattn[hub]'"
        ) from error
    return huggingface_hub


def download(
    repo_id: str,
    pattern: str,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    endpoint: str | None = None,
) -> Path:
    """Return the local path of a file of a repository, which is downloaded if it is not there yet.

    Args:
        repo_id: ``owner/name``.
        pattern: the file's name; ``*`` and ``?`` stand for others. Of a split model any part: all are fetched.
        revision: a branch, tag or commit.
        cache_dir: the folder in which downloads are kept; None: huggingface_hub's own cache.
        local_dir: put the file there instead.
        token: the access token for private repositories.
        endpoint: the address of another hub.

    Raises:
        ModelLoadError: huggingface_hub is missing, the hub cannot be reached, or not exactly one file fits; the message
            tells which.
    """
    hub = _hub()
    try:
        names = hub.HfApi(endpoint=endpoint, token=token).list_repo_files(repo_id, revision=revision)
        paths = [
            hub.hf_hub_download(
                repo_id,
                name,
                revision=revision,
                cache_dir=cache_dir,
                local_dir=local_dir,
                token=token,
                endpoint=endpoint,
            )
            for name in _wanted(repo_id, pattern, names)
        ]
    except ModelLoadError:
        raise
    except Exception as error:  # of many kinds: network, rights, names
        raise ModelLoadError(f"'{pattern}' of '{repo_id}' cannot be fetched: {error}") from error
    return Path(paths[0])


def _wanted(repo_id: str, pattern: str, names: list[str]) -> list[str]:
    found = sorted(name for name in names if fnmatch.fnmatchcase(name, pattern) or name == pattern)
    stems = {_PART.sub("", name) for name in found}
    if len(stems) != 1:
        several = (
            f"{len(found)} files fit: {', '.join(found[:5])}"
            if found
            else f"there are {', '.join(names[:10]) or 'none'}"
        )
        raise ModelLoadError(f"'{pattern}' names no single file of '{repo_id}'; {several}")
    match = _PART.search(found[0])
    if match is None:
        return found
    count = int(match[2])
    return [_PART.sub(f"-{number:05}-of-{count:05}.gguf", found[0]) for number in range(1, count + 1)]
