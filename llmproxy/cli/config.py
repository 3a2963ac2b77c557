"""C{llmproxy config}: which settings hold, and where each comes from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import click

from llmproxy.cli.daemon import DEFAULT_SETTINGS
from llmproxy.cli.errors import Misconfigured
from llmproxy.cli.output import Columns, as_json, table
from llmproxy.cli.session import output_format
from llmproxy.config.effective import EffectiveSetting, effective
from llmproxy.config.problems import SettingsError

COLUMNS: Columns = {
    "SETTING": lambda row: row["setting"],
    "SOURCE": lambda row: row["source"],
    "VALUE": lambda row: _shown(row["value"]),
}


@click.group()
def config() -> None:
    """Show the settings."""


@config.command()
@click.argument("path", default=DEFAULT_SETTINGS)
@click.option("--effective", "everything", is_flag=True, help="Show the defaults, too.")
@click.option("--output", type=click.Choice(["table", "json"]), default=None, help="How to print them.")
def show(path: str, everything: bool, output: str | None) -> None:
    """Show what a settings file and the environment set, each with its source. Secrets are masked."""
    try:
        found = effective(path, os.environ)
    except SettingsError as e:
        raise Misconfigured(str(e)) from e
    rows = [_row(each) for each in found if everything or each.place is not None]
    click.echo(as_json({"data": rows}) if output_format(output) == "json" else table(rows, COLUMNS))


def _row(setting: EffectiveSetting) -> Mapping[str, Any]:
    place = setting.place
    return {
        "setting": setting.path,
        "value": setting.value,
        "source": setting.source,
        "file": place.file if place is not None and place.line else None,
        "line": place.line or None if place is not None else None,
    }


def _shown(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
