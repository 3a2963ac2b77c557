"""How a command ends, in numbers that a script can rely on (sysexits.h beyond click's 2 for wrong usage)."""

from __future__ import annotations

import os

import click


class RequestRejected(click.ClickException):
    """The server understood, and said no."""

    exit_code = 1


class Unreachable(click.ClickException):
    """No llmproxy answers at that URL."""

    exit_code = os.EX_UNAVAILABLE


class OutputFailed(click.ClickException):
    """Standard output takes nothing; what was to be done may be done."""

    exit_code = os.EX_IOERR


class NotAuthorized(click.ClickException):
    """The management token is missing or wrong."""

    exit_code = os.EX_NOPERM


class Misconfigured(click.ClickException):
    """A file or variable that says something is not as it must be."""

    exit_code = os.EX_CONFIG
