"""Projects and groups by the names that people call them, where the management API takes an id."""

from __future__ import annotations

from typing import Literal

import click

from llmproxy.cli.client import ManagementClient, management_path
from llmproxy.cli.project_filter import looks_like_id

MAX_SHOWN_IDS = 5


def id_of(client: ManagementClient, kind: Literal["project", "group"], text: str) -> str:
    """The id of the project or group that is called exactly so; C{text} itself where it is an id, or nothing is.

    @raise click.UsageError: Several are called so; the message has their ids.
    """
    if looks_like_id(text) or not text:
        return text
    rows = (row for page in client.pages(management_path(f"{kind}s"), search=text) for row in page)
    ids = [str(row["id"]) for row in rows if row["name"] == text]
    if len(ids) > 1:
        shown = ", ".join(ids[:MAX_SHOWN_IDS]) + (", …" if len(ids) > MAX_SHOWN_IDS else "")
        raise click.UsageError(f"{len(ids)} {kind}s are called {text}; name one by its id: {shown}.")
    return ids[0] if ids else text
