"""C{llmproxy doctor}: looks at all that the daemon needs, as the daemon would, and says what to do."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import click

from llmproxy.cli.client import printable
from llmproxy.cli.daemon import DEFAULT_SETTINGS
from llmproxy.cli.doctor.findings import FAILED, Finding
from llmproxy.cli.errors import Misconfigured
from llmproxy.cli.output import echo
from llmproxy.cli.session import output_format
from llmproxy.config.load import load
from llmproxy.config.problems import SettingsError

_COLORS = {"ok": "green", "warning": "yellow", "failed": "red"}


@click.command()
@click.argument("path", default=DEFAULT_SETTINGS)
@click.option("--output", type=click.Choice(["table", "json"]), default=None, help="How to print what was found.")
def doctor(path: str, output: str | None) -> None:
    """Check all that the daemon needs: settings, files, store, Redis, providers and their keys, clock, descriptors.

    Run it as the daemon's user, in its directory and with its environment. Nothing is changed: no file is made, no
    database upgraded. Each provider gets one GET of its list of models, which costs nothing. Ends with 0, 1 where
    something would not work, or 78 where the settings are wrong.
    """
    try:
        settings = load(path, os.environ)
    except SettingsError as e:
        raise Misconfigured(str(e)) from e
    findings: list[Finding] = []
    _run(settings, findings)
    if output_format(output) == "json":
        echo(json.dumps({"data": [finding.as_json() for finding in findings]}, indent=2))
    else:
        _print(findings)
    failures = sum(finding.state == FAILED for finding in findings)
    if failures:
        raise click.ClickException(f"{failures} of {len(findings)} checks failed.")


def _run(settings: Any, findings: list[Finding]) -> None:
    from twisted.internet import reactor as default_reactor
    from twisted.internet.task import react

    from llmproxy.cli.doctor.local import local_findings
    from llmproxy.cli.doctor.remote import remote_findings

    local, keys = local_findings(settings, os.environ, time.time, default_reactor)
    findings += local

    over = interrupted = False

    def ending() -> None:
        nonlocal interrupted
        interrupted = not over  # by a signal; what is under way then fails, which says nothing of it

    async def examine(reactor: Any) -> None:
        nonlocal over
        findings.extend(await remote_findings(settings, keys, reactor, time.time, os.environ))
        over = True

    default_reactor.addSystemEventTrigger("before", "shutdown", ending)
    try:
        react(examine)
    except SystemExit as e:
        if e.code:
            sys.exit(e.code)
    if interrupted:
        raise click.Abort


def _print(findings: list[Finding]) -> None:
    """Colours are left out by click where this is no terminal."""
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        state = click.style(finding.state.ljust(7), fg=_COLORS[finding.state])
        echo(f"{state}  {finding.subject.ljust(width)}  {printable(finding.detail)}")
        if finding.advice:
            echo(f"{'':7}  {'':{width}}  → {printable(finding.advice)}")
