"""C{llmproxy config}: which settings hold, and where each comes from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import click

from llmproxy.cli.client import management_path
from llmproxy.cli.daemon import DEFAULT_SETTINGS
from llmproxy.cli.errors import Misconfigured
from llmproxy.cli.output import Columns
from llmproxy.cli.session import CommandSession, with_session
from llmproxy.config.effective import DEFAULT_SOURCE, EffectiveSetting, effective
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
@click.argument("path", required=False)
@click.option("--effective", "everything", is_flag=True, help="Show the defaults, too.")
@click.option("--daemon", is_flag=True, help="Ask the daemon at the URL, for its own file and environment.")
@with_session
def show(session: CommandSession, path: str | None, everything: bool, daemon: bool) -> None:
    """Show what a settings file and the environment set, each with its source. Secrets are masked.

    PATH is etc/apis.yaml, if left out.
    """
    if daemon and path is not None:
        raise click.UsageError("The daemon knows its own file: leave PATH out.")
    rows = _of_daemon(session) if daemon else _of_file(path or DEFAULT_SETTINGS)
    session.show_list({"data": [row for row in rows if everything or row["source"] != DEFAULT_SOURCE]}, COLUMNS)


def _of_daemon(session: CommandSession) -> list[Mapping[str, Any]]:
    return list(session.client().request("GET", management_path("settings"))["data"])


def _of_file(path: str) -> list[Mapping[str, Any]]:
    try:
        return [_row(each) for each in effective(path, os.environ)]
    except SettingsError as e:
        raise Misconfigured(str(e)) from e


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
