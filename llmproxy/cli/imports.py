"""C{llmproxy import}: an export of llmproxy's own store, or what another proxy was set to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Any

import click
import yaml

from llmproxy.cli.archive import import_file
from llmproxy.cli.errors import Misconfigured, RequestRejected
from llmproxy.cli.litellm import ImportedApi, LiteLLMImport, read_config, read_keys
from llmproxy.cli.output import Columns, as_json, echo, table
from llmproxy.cli.session import output_format
from llmproxy.config.load import parse
from llmproxy.config.problems import SettingsError

COLUMNS: Columns = {
    "WHERE": lambda row: f"{row['file']}:{row['line']}" if row["line"] else row["file"],
    "TAKEN": lambda row: row["taken"],
    "ENTRY": lambda row: row["entry"],
    "WHY": lambda row: row["detail"],
}
_MODEL_IN_BODY = ("openai", "anthropic", "mistral", "generic")


class FileOrCommand(click.Group):
    """C{import FILE} is short for C{import file FILE}."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["file", *args]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["FILE | COMMAND [ARGS]..."]


@click.group("import", cls=FileOrCommand)
def import_group() -> None:
    """Enter what export has written into another database, or take over what another proxy was set to.

    `llmproxy import FILE` is short for `llmproxy import file FILE`.
    """


import_group.add_command(import_file)


@import_group.command()
@click.argument("config", type=click.Path(dir_okay=False))
@click.option("--keys", type=click.Path(dir_okay=False), help="LiteLLM's list of keys, as JSON of /key/list.")
@click.option("--output", type=click.Choice(["table", "json"]), default=None, help="How to print it.")
def litellm(config: str, keys: str | None, output: str | None) -> None:
    """Make settings and commands out of a LiteLLM config.yaml and its list of keys. Nothing is changed.

    The settings go to standard output, with the commands that make project and tokens as comments; what was taken of
    each file, what was not, and why, goes to standard error, by line.
    """
    result = LiteLLMImport()
    try:
        read_config(_text(config), config, result)
        if keys is not None:
            read_keys(_text(keys), keys, result)
    except SettingsError as e:
        raise Misconfigured(str(e)) from e
    except (ValueError, RecursionError) as e:
        raise Misconfigured(f"{keys} is no list of keys that LiteLLM writes: {e}.") from e
    if not result.apis:
        raise RequestRejected(f"{config} names no model of a provider that llmproxy passes requests to.")
    settings, commands = settings_text(result), list(shell_commands(result))
    try:
        parse(settings, "imported settings", {})
    except SettingsError as e:  # such as an address that is none
        raise Misconfigured(f"{config} makes settings that will not do:\n{e}") from e
    notes = [asdict(note) for note in result.notes]
    if output_format(output) == "json":
        echo(as_json({"settings": settings, "commands": commands, "data": notes}))
        return
    echo(settings + "\n# Then, with the daemon running:\n" + "".join(f"#   {line}\n" for line in commands), nl=False)
    click.echo(table(notes, COLUMNS), err=True)
    taken = sum(note.taken for note in result.notes)
    click.echo(f"{taken} entries were taken, {len(notes) - taken} were not.", err=True)


def settings_text(result: LiteLLMImport) -> str:
    """The settings file."""
    apis = {name: _section(api) for name, api in result.apis.items()}
    made = {"default_api": next(iter(apis)), "apis": apis}
    return str(yaml.safe_dump(made, sort_keys=False, allow_unicode=True, width=110))


def _section(api: ImportedApi) -> dict[str, Any]:
    listed = [model for model in api.models if model != "*"]
    held = len(listed) == len(api.models) and api.provider in _MODEL_IN_BODY
    return {
        "provider": api.provider,
        "base_url": api.base_url,
        "allowed_endpoints": list(api.endpoints),
        **({"param_whitelist": {"model": listed}} if held else {}),
    }


def shell_commands(result: LiteLLMImport) -> Iterator[str]:
    """What makes a project with the keys, and a token for each key."""
    sources = " ".join(
        f"--api-key {name}={source}"
        for name, api in result.apis.items()
        for source in ([f"env:{variable}" for variable in api.variables] or ["prompt"])
    )
    yield f"llmproxy project create --name litellm {sources}"
    for token in result.tokens:
        options = [
            (name, each) for name, value in token.items() for each in (value if isinstance(value, list) else [value])
        ]
        yield "llmproxy token create --project litellm " + " ".join(f"--{n} {quote(str(v))}" for n, v in options)


def _text(path: str) -> str:
    try:
        return Path(path).read_text("utf-8-sig")
    except OSError as e:
        raise Misconfigured(f"{path} cannot be read: {e.strerror or os.strerror(e.errno or 0)}.") from e
    except UnicodeDecodeError as e:
        raise Misconfigured(f"{path} is not text in UTF-8.") from e
