"""Models and statistics from the Hugging Face hub, through huggingface_hub (extra ``hub``)."""

from __future__ import annotations

import fnmatch
import os
import re
from pathlib import Path
from typing import Any

from pytriattn.errors import ModelLoadError

__all__ = ["download", "local_file"]

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

    Without a network, or with ``HF_HUB_OFFLINE=1``, a file is taken that has been downloaded before.

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
    where: dict[str, Any] = {"revision": revision, "cache_dir": cache_dir, "local_dir": local_dir}
    where |= {"token": token, "endpoint": endpoint}

    def list_names() -> list[str]:
        names: list[str] = hub.HfApi(endpoint=endpoint, token=token).list_repo_files(repo_id, revision=revision)
        return names

    def fetch(names: list[str]) -> list[str]:
        return [hub.hf_hub_download(repo_id, name, **where) for name in _wanted(repo_id, pattern, names)]

    try:
        if set(pattern).isdisjoint("*?["):
            try:
                paths = fetch([pattern])
            except hub.errors.EntryNotFoundError as error:
                if isinstance(error, hub.errors.LocalEntryNotFoundError):
                    raise  # the hub was not asked
                paths = fetch(list_names())  # raises an error that names what there is
        else:
            try:
                names = list_names()
            except Exception as error:
                names = _downloaded(hub, repo_id, where)
                if _is_answer(hub, error) or not names:
                    raise
                where["local_files_only"] = True
            paths = fetch(names)
    except ModelLoadError:
        raise
    except Exception as error:  # of many kinds: network, rights, names
        raise ModelLoadError(f"'{pattern}' of '{repo_id}' cannot be fetched: {error}") from error
    return Path(paths[0])


def local_file(repo_id: str, named: Any, **where: Any) -> Any:
    """Return `named` as it is, unless it is a text that names no file here: then the path of a repository's file.

    Args:
        repo_id: ``owner/name``.
        named: a path, the name of a file in the repository, or anything else.
        **where: as in `download`.

    Raises:
        ModelLoadError: as `download`.
    """
    if not isinstance(named, str) or Path(named).expanduser().is_file():
        return named
    return download(repo_id, named, **where)


def _is_answer(hub: Any, error: Exception) -> bool:
    """Return whether the hub has said no, and not that it cannot be reached."""
    status = getattr(getattr(error, "response", None), "status_code", 500)
    return isinstance(error, hub.errors.HfHubHTTPError) and status < 500


def _downloaded(hub: Any, repo_id: str, where: dict[str, Any]) -> list[str]:
    """Return the names of a repository's files that have been downloaded before."""
    try:
        folder = Path(hub.snapshot_download(repo_id, local_files_only=True, **where))
    except Exception:  # of many kinds: none is there
        return []
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return [name for name in names if not name.startswith(".")]


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
