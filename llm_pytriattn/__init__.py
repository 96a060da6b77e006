"""Plug-in for the command-line tool `llm`. A package of its own, so that `llm` starts without loading llama.cpp."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click
import llm

from llm_pytriattn.model import PytriattnModel
from llm_pytriattn.models_file import ConfiguredModel, models_path, read_models, write_models

__all__ = ["register_commands", "register_models"]


@llm.hookimpl
def register_models(register: Callable[..., None]) -> None:
    """Tell llm the models of the models file."""
    for configured in read_models().values():
        register(PytriattnModel(configured), aliases=tuple(configured.aliases))


@llm.hookimpl
def register_commands(cli: click.Group) -> None:
    """Add ``llm pytriattn``."""
    cli.add_command(_commands)


@click.group(name="pytriattn")
def _commands() -> None:
    """GGUF models within a KV-cache budget"""


@_commands.command(name="add-model")
@click.argument("name")
@click.argument("path", type=click.Path(exists=True, dir_okay=False, resolve_path=True))
@click.option("--budget", type=click.IntRange(min=1), help="Keys kept per layer and KV head; without: the full cache")
@click.option("--n-ctx", type=click.IntRange(min=1), help="The largest number of positions; without: the model's own")
@click.option("--alias", "aliases", multiple=True, help="Another name for it")
@click.option(
    "--option",
    "options",
    type=(str, str),
    multiple=True,
    metavar="NAME VALUE",
    help="Any other argument of pytriattn.Llama; VALUE as JSON or as text",
)
def _add_model(
    name: str,
    path: str,
    budget: int | None,
    n_ctx: int | None,
    aliases: tuple[str, ...],
    options: tuple[tuple[str, str], ...],
) -> None:
    """Call the GGUF file PATH by NAME, or change what NAME stands for"""
    settings: dict[str, Any] = {key.replace("-", "_"): _value(value) for key, value in options}
    settings.update({key: value for key, value in (("budget", budget), ("n_ctx", n_ctx)) if value is not None})
    configured = ConfiguredModel(name, path, settings, list(aliases))
    models = _models()
    _check_names(configured, others=set(models) - {name})
    try:
        configured.check()
    except (TypeError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    models[name] = configured
    write_models(models)
    click.echo(f"{name} is in {models_path()}; try: llm -m {name} 'Hello'")


@_commands.command(name="remove-model")
@click.argument("name")
def _remove_model(name: str) -> None:
    """Forget NAME; the file stays"""
    models = _models()
    if models.pop(name, None) is None:
        raise click.ClickException(f"there is no model '{name}'; there are {', '.join(models) or 'none'}")
    write_models(models)


@_commands.command(name="models")
def _list_models() -> None:
    """Show the models and their settings"""
    for configured in _models().values():
        settings = " ".join(f"{key}={json.dumps(value)}" for key, value in configured.settings.items())
        click.echo(f"{', '.join([configured.name, *configured.aliases])}: {configured.path} {settings}".rstrip())


def _models() -> dict[str, ConfiguredModel]:
    try:
        return read_models()
    except ValueError as error:
        raise click.ClickException(str(error)) from error


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _check_names(configured: ConfiguredModel, others: set[str]) -> None:
    taken = {name for name in llm.get_model_aliases() if not isinstance(llm.get_model_aliases()[name], PytriattnModel)}
    for name in (configured.name, *configured.aliases):
        if not name or name in taken or name in others:
            raise click.ClickException(f"'{name}' is the name of another model; choose another one")
