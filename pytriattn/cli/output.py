"""What the command-line tools have in common: options of the cache, reading a model's header, printing."""

from __future__ import annotations

import argparse
import json
from typing import Any

from rich.console import Console, RenderableType

from pytriattn.cli.sizes import natural, parse_size, positive
from pytriattn.errors import ModelLoadError
from pytriattn.model_info.info import ModelInfo
from pytriattn.model_info.reader import gguf_info
from pytriattn.options.cache import CACHE_TYPES, CacheOptions
from pytriattn.options.eviction import EvictionSettings

__all__ = [
    "add_cache_options",
    "cache_options",
    "print_json",
    "print_tables",
    "read_model",
]

_LEAST_WIDTH = 132  # of output that goes to a file or a pipe, where nothing needs folding


def add_cache_options(parser: argparse.ArgumentParser, *, needs_budget: bool) -> None:
    """Add the options that decide how much memory the caches take, and ``--json``."""
    none = "" if needs_budget else " (default: all)"
    parser.add_argument(
        "--budget", type=positive, required=needs_budget, metavar="N", help=f"keys kept per layer and KV head{none}"
    )
    parser.add_argument(
        "--ctx", type=natural, default=0, metavar="N", help="positions (default: those the model was trained for)"
    )
    parser.add_argument(
        "--interval", type=positive, default=128, metavar="N", help="tokens between evictions (default: %(default)s)"
    )
    for name, what in (("k", "keys"), ("v", "values")):
        parser.add_argument(
            f"--type-{name}",
            choices=CACHE_TYPES,
            default="f16",
            metavar="T",
            help=f"type of cached {what}: {', '.join(CACHE_TYPES)} (default: f16)",
        )
    parser.add_argument(
        "--parallel", type=positive, default=1, metavar="N", help="sequences at once (default: %(default)s)"
    )
    parser.add_argument(
        "--vram", type=parse_size, metavar="BYTES", help="memory for weights and caches, such as 800M or 12G"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object (docs/tools.md) and no tables")


def cache_options(arguments: argparse.Namespace, **eviction: Any) -> CacheOptions:
    """Return what the options of `add_cache_options` say; `eviction`: more fields of `EvictionSettings`."""
    return CacheOptions(
        n_ctx=arguments.ctx,
        eviction=None
        if arguments.budget is None
        else EvictionSettings(arguments.budget, interval=arguments.interval, **eviction),
        type_k=arguments.type_k,
        type_v=arguments.type_v,
        n_seq_max=arguments.parallel,
    )


def read_model(path: str) -> ModelInfo:
    """Return what the model file at `path` tells.

    Raises:
        ModelLoadError: it is missing, damaged, or no model.
    """

    info = gguf_info(path)
    if info.architecture == "triattention":  # the same container, so it is easily given in the other's place
        raise ModelLoadError(f"'{path}' holds statistics and no model; give the .gguf file of the model")
    return info


def print_json(value: dict[str, Any]) -> None:
    """Print a JSON object to standard output."""
    print(json.dumps(value, indent=2, allow_nan=False))


def print_tables(tables: RenderableType) -> None:
    """Print tables to standard output, in colour on a terminal."""
    # names from files are no markup
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, _LEAST_WIDTH)
    console.print(tables)
