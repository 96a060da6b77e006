"""``pytriattn-server``: llama.cpp's server with every flag of its own, and a budget."""

from __future__ import annotations

import importlib
import ipaddress
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

from pytriattn._native import backends, core
from pytriattn._native.log import forward_llama_log
from pytriattn._util.cpus import IdleCpus
from pytriattn.errors import ContextError, TriAttnError
from pytriattn.gguf.hub import download
from pytriattn.options.cache import CacheOptions, cache_type
from pytriattn.options.eviction import DEFAULT_MODE
from pytriattn.options.rope import RopeSettings
from pytriattn.server.flags import BudgetFlags, budget_flags, split_flags, take_flags, usage
from pytriattn.session.opening import CheckedOpening, DeviceOptions, check_opening
from pytriattn.stats.bundled import bundled_stats, stored_stats
from pytriattn.stats.model_stats import TriAttentionStats

__all__ = ["main", "page_arguments", "says_threads"]

PROGRAM = "pytriattn-server"
N_CHECKPOINTS = 4
"""Copies of a slot's cache that are kept under a budget where nobody says; each holds all keys of the budget."""
CACHE_FLAGS = {"-ctk": "type_k", "--cache-type-k": "type_k", "-ctv": "type_v", "--cache-type-v": "type_v"}
UPSTREAM_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
PAGE = Path(core.__file__).parent / "page"
"""llama.cpp's web page, if the package was built with it."""
PAGE_FLAGS = ("--path", "--no-ui", "--no-webui")
PAGE_VARIABLES = ("LLAMA_ARG_STATIC_PATH", "LLAMA_ARG_UI")
THREADS_FLAGS = ("-t", "--threads", "-tb", "--threads-batch")
THREADS_VARIABLES = ("LLAMA_ARG_THREADS",)
LOOK_SECONDS = 0.2
HUB_FLAGS = ("-hf", "-hfr", "--hf-repo", "-hff", "--hf-file")
HUB_VARIABLES = ("LLAMA_ARG_HF_REPO", "LLAMA_ARG_HF_FILE")


def _own_cache_types(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return the types of keys and values that upstream's flags do not take (``type_k``, ``type_v``), and the arguments
    without them.
    """
    own: dict[str, str] = {}
    found, rest = take_flags(arguments, CACHE_FLAGS)
    for flag, value in found:
        if value in core.CACHE_TYPES and value not in UPSTREAM_TYPES:
            own[CACHE_FLAGS[flag]] = value
        else:
            rest += [flag, value]
    return own, rest


def _options(params: Any, flags: BudgetFlags, own: dict[str, str]) -> CacheOptions:
    """Return the caches that the flags ask for."""
    return CacheOptions(
        n_ctx=params.n_ctx,
        eviction=flags.eviction,
        type_k=cache_type("--cache-type-k", own.get("type_k", params.type_k)),
        type_v=cache_type("--cache-type-v", own.get("type_v", params.type_v)),
        n_seq_max=params.n_slots,
        n_batch=params.n_batch,
        n_ubatch=params.n_ubatch,
        flash_attn=params.flash_attn,
        rope=RopeSettings(
            None if params.rope_scaling_type < 0 else params.rope_scaling_type,
            params.rope_freq_base,
            params.rope_freq_scale,
            params.yarn_ext_factor,
            params.yarn_attn_factor,
            params.yarn_beta_fast,
            params.yarn_beta_slow,
            params.yarn_orig_ctx,
        ),
    )


def _with_local_model(arguments: list[str], params: Any) -> tuple[list[str], str]:
    """Return arguments that name the model by its path, and the path; it is fetched from the hub if need be."""
    if params.model or not params.hf_repo:
        return arguments, params.model
    repo, _, tag = params.hf_repo.partition(":")
    path = str(download(repo, params.hf_file or f"*{tag or 'Q4_K_M'}*.gguf"))
    for variable in HUB_VARIABLES:
        os.environ.pop(variable, None)
    return [*take_flags(arguments, HUB_FLAGS)[1], "--model", path], path


def _budget(path: str, params: Any, flags: BudgetFlags, own: dict[str, str]) -> dict[str, Any]:
    """Return what the server has to know of the budget; everything that can be refused is refused now."""
    if not path:
        raise ContextError(
            "a budget needs a model at the start (-m model.gguf); a server that loads models when they are asked for "
            "cannot have one"
        )
    checked = check_opening(
        path,
        _options(params, flags, own),
        flags.stats,
        allow_untested=flags.allow_untested,
        may_fall_back=flags.may_fall_back,
    )
    eviction, info = checked.options.eviction, checked.info
    assert eviction is not None and info is not None
    stats: TriAttentionStats | None = checked.stats
    if stats is None and eviction.needs_scores:
        stats = _measured_stats(checked, params, fit=eviction.mode == DEFAULT_MODE)
    return {
        "eviction": replace(eviction, scale_budget_by_attention=False).to_native(),
        "stats": None if stats is None else stats.to_native(),
        "n_ctx_train": info.n_ctx_train,
        "n_swa": info.cell_window,
        "stats_path": flags.stats or "",
        "protects_prompt": flags.protect_prompt,
    }


def _measured_stats(checked: CheckedOpening, params: Any, *, fit: bool) -> TriAttentionStats:
    """Return statistics of the bundled text; the model is loaded for it only where none have been kept."""
    stored = stored_stats(checked.identity, fit=fit)
    if stored is not None:
        return stored
    print(f"{PROGRAM}: calibrating, once for this model", file=sys.stderr, flush=True)
    try:
        model = DeviceOptions(n_gpu_layers=params.n_gpu_layers).load(checked.path, None)
        return bundled_stats(model, checked.identity, params.n_threads, fit=fit)
    finally:
        forward_llama_log()


def _is_said(
    arguments: Sequence[str], flags: Sequence[str], environment: Mapping[str, str], variables: Sequence[str]
) -> bool:
    """Return whether one of these flags is among the arguments, or one of these variables is set."""
    is_flagged = any(argument.partition("=")[0] in flags for argument in arguments)
    return is_flagged or any(environment.get(name) for name in variables)


def page_arguments(
    arguments: Sequence[str], folder: Path = PAGE, environment: Mapping[str, str] = os.environ
) -> list[str]:
    """Return the arguments that let the server show its web page: none if there is none, or if others say which."""
    if _is_said(arguments, PAGE_FLAGS, environment, PAGE_VARIABLES) or not (folder / "index.html").is_file():
        return []
    return ["--path", str(folder)]


def says_threads(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether somebody says with how many threads to compute."""
    return _is_said(arguments, THREADS_FLAGS, environment, THREADS_VARIABLES)


def _follow_idle_cpus(server: Any, most: int) -> None:
    """Let the server compute with a thread for each CPU that no other program needs, as long as it runs."""
    idle = IdleCpus(most)
    while True:
        time.sleep(LOOK_SECONDS)
        server.set_threads(idle.look())


def _is_local(host: str) -> bool:
    if host.endswith(".sock") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _run(arguments: list[str]) -> int:
    found, rest = split_flags(arguments)
    if {"-h", "--help", "--usage"} & set(rest):
        print(f"usage: {PROGRAM} [options]\n\n{usage()}\n", flush=True)
    flags = budget_flags(found)
    own, rest = _own_cache_types(rest)
    backends.require()
    # only here: upstream's server is large, and most who import pytriattn do not need it
    server: Any = importlib.import_module("pytriattn._server")
    params = server.parse([PROGRAM, *rest])
    if params is None:
        return 1
    rest, path = _with_local_model(rest, params)
    budget = {} if flags.eviction is None else _budget(path, params, flags, own)
    if budget and not {"-ctxcp", "--ctx-checkpoints", "--swa-checkpoints"} & {a.partition("=")[0] for a in rest}:
        rest += ["--ctx-checkpoints", str(0 if flags.protect_prompt else N_CHECKPOINTS)]
    rest += page_arguments(rest)
    elsewhere = [host for host in params.hosts if not _is_local(host)]
    if elsewhere:
        print(
            f"{PROGRAM}: listening on {', '.join(elsewhere)}: other machines can reach this server; give it an "
            "--api-key, or leave --host out to serve this machine alone",
            file=sys.stderr,
            flush=True,
        )
    if not says_threads(rest):
        Thread(target=_follow_idle_cpus, args=(server, params.n_threads), daemon=True).start()
    code: int = server.run([PROGRAM, *rest], **budget, **own)
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with these arguments (default: the process's own) and return its exit code."""
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except (TriAttnError, OSError, ImportError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
