"""C{llmproxy plugins}: which names the settings may use, and who provides them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import click
from twisted.plugin import getPlugins
from zope.interface import Interface

from llmproxy.cli.output import Columns, as_json, echo, table
from llmproxy.cli.session import output_format
from llmproxy.interfaces import (
    ICacheFactory,
    ICountersFactory,
    IEventSinkFactory,
    ISecretSourceFactory,
    ITokenValidatorFactory,
)

# The settings that name a plugin, with what it must provide.
SEAMS: Mapping[str, type[Interface]] = {
    "cache.backend": ICacheFactory,
    "limits.backend": ICountersFactory,
    "events.sinks[].type": IEventSinkFactory,
    "secrets.stores[].type": ISecretSourceFactory,
    "auth.validators[].type": ITokenValidatorFactory,
}
COLUMNS: Columns = {
    "SETTING": lambda row: row["setting"],
    "NAME": lambda row: row["name"],
    "INTERFACE": lambda row: row["interface"],
    "PROVIDED BY": lambda row: row["provided_by"],
}


@click.command("plugins")
@click.option("--output", type=click.Choice(["table", "json"]), default=None, help="How to print them.")
def list_plugins(output: str | None) -> None:
    """List the plugins that are installed here, by the setting that names them.

    Ends with 1 where two claim the same name, which would stop the daemon.
    """
    rows = plugin_rows()
    echo(as_json({"data": rows}) if output_format(output) == "json" else table(rows, COLUMNS))
    names = [(row["setting"], row["name"]) for row in rows]
    twice = sorted({f"{setting}: {name}" for setting, name in names if names.count((setting, name)) > 1})
    if twice:
        raise click.ClickException(f"More than one plugin provides {', '.join(twice)}. Remove all but one.")


def plugin_rows() -> list[dict[str, Any]]:
    """Every plugin that can be loaded, sorted by setting and name."""
    return [
        {
            "setting": setting,
            "name": str(plugin.name),
            "interface": f"{interface.__module__}.{interface.__name__}",
            "provided_by": f"{type(plugin).__module__}.{type(plugin).__qualname__}",
        }
        for setting, interface in SEAMS.items()
        for plugin in _sorted(getPlugins(interface))
    ]


def _sorted(plugins: Iterable[Any]) -> list[Any]:
    return sorted(plugins, key=lambda plugin: str(plugin.name))
