"""C{llmproxy health}: whether a daemon is ready, as an exit status, for containers and scripts."""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any

import click

from llmproxy.cli.client import NoRedirect, printable
from llmproxy.cli.errors import Unreachable
from llmproxy.cli.output import echo
from llmproxy.cli.session import CommandSession, with_session

TIMEOUT_SECONDS = 8.0
MAX_PAGE_BYTES = 1024 * 1024


@click.command()
@click.option("--live", is_flag=True, help="Ask only whether it answers at all.")
@with_session
def health(session: CommandSession, live: bool) -> None:
    """Say whether the daemon is ready; it takes no token.

    Ends with 0 where it is, with 1 where it is not, and names what is wrong.
    """
    status, page = _page(session.url.rstrip("/") + ("/live" if live else "/ready"))
    if session.output == "json":
        echo(json.dumps(page))
    else:
        wrong = {name: state for name, state in page["checks"].items() if state != "ok"}
        echo(printable("; ".join([str(page["status"]), *(f"{name}: {state}" for name, state in wrong.items())])))
    sys.exit(os.EX_OK if status == 200 else 1)


def _page(url: str) -> tuple[int, dict[str, Any]]:
    """The status and what it says; L{Unreachable} where nothing answers, or nothing that is llmproxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirect())
    try:
        try:
            with opener.open(url, timeout=TIMEOUT_SECONDS) as answer:
                status, text = int(answer.status), answer.read(MAX_PAGE_BYTES)
        except urllib.error.HTTPError as e:
            with e:
                status, text = e.code, e.read(MAX_PAGE_BYTES)
    except (OSError, HTTPException, ValueError) as e:
        raise Unreachable(f"{url} does not answer: {printable(str(getattr(e, 'reason', None) or e))}") from e
    try:
        page = json.loads(text)
        return status, {"status": page["status"], "checks": dict(page["checks"])}
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise Unreachable(f"What answers at {url} is not llmproxy ({status}).") from e
