"""How responses look: a table for people, JSON for scripts."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import click

from llmproxy.cli.client import printable
from llmproxy.cli.errors import OutputFailed

Columns = Mapping[str, Callable[[Mapping[str, Any]], object]]


def echo(value: object = "", nl: bool = True) -> None:
    """Print on standard output; L{OutputFailed} where that takes nothing. A reader that has left is click's to see."""
    if sys.stdout is None:  # of a process that was started without; click would print nothing
        raise OutputFailed("Standard output cannot be written: it is closed.")
    try:
        click.echo(value, nl=nl)
    except BrokenPipeError:
        raise
    except OSError as e:
        with suppress(OSError):  # or the interpreter would fail once more, with what is left in the buffer
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutputFailed(f"Standard output cannot be written: {e.strerror}.") from e


def as_json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def table(rows: Sequence[Mapping[str, Any]], columns: Columns) -> str:
    """One line per row under a line of headings, each column as wide as it must be."""
    lines = [list(columns), *([_text(shown(row)) for shown in columns.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def as_csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """RFC 4180, with lines that end as they do here."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([row[name] for name in columns] for row in rows)
    return text.getvalue()


def card(value: Mapping[str, Any]) -> str:
    """One line per field."""
    width = max(map(len, value), default=0)
    return "\n".join(f"{name.ljust(width)}  {_text(field)}".rstrip() for name, field in value.items())


def _text(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case Mapping():
            return printable(", ".join(f"{name}: {_text(field)}" for name, field in value.items())) or "-"
        case list():
            between = "; " if value and isinstance(value[0], Mapping) else ", "
            return between.join(map(_text, value)) or "-"
    return printable(str(value))
