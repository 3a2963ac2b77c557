"""How a command ends, in numbers that a script can rely on (sysexits.h beyond 2)."""

from __future__ import annotations

import click

REFUSED = 1
USAGE = 2
UNREACHABLE = 69
NOT_AUTHORIZED = 77
CONFIG = 78


class Refused(click.ClickException):
    """The server understood, and said no."""

    exit_code = REFUSED


class Unreachable(click.ClickException):
    """No llmproxy answers at that URL."""

    exit_code = UNREACHABLE


class NotAuthorized(click.ClickException):
    """The management token is missing or wrong."""

    exit_code = NOT_AUTHORIZED


class Misconfigured(click.ClickException):
    """A file or variable that says something is not as it must be."""

    exit_code = CONFIG
