"""C{--project} of lists and reports: a project's id, or its name."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

_UUID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def project_option(help_text: str) -> Callable[[Any], Any]:
    """The option, whose value is the parameter C{project}."""
    return click.option("--project", "project", metavar="ID|NAME", help=help_text)


def project_query(project: str | None) -> dict[str, str]:
    """What the management API is asked for it.

    By its id also where the project is not there any more, which a name cannot be looked up of.
    """
    if not project:
        return {}
    return {"project_id" if looks_like_id(project) else "project": project}


def looks_like_id(text: str) -> bool:
    """Whether this can be the id of a project or a group."""
    return _UUID.fullmatch(text) is not None
