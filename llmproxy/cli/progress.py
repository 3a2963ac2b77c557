"""How far a long command is: a bar on a terminal, else a line now and then, or JSON for scripts. On standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

LINE_SECONDS = 5.0  # between two lines of one step


class Progress:
    """Shows the steps of a command, one after the other."""

    def __init__(self, as_json: bool, seconds: Callable[[], float] = time.monotonic) -> None:
        """
        @param as_json: One JSON object on a line, whether there is a terminal or not.
        """
        self._as_json = as_json
        self._seconds = seconds

    @contextmanager
    def step(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """A step of so many rows; what it gives is called with how many more are done."""
        if not self._as_json and sys.stderr.isatty():
            with click.progressbar(length=total, label=name, file=sys.stderr, show_pos=True, show_eta=True) as bar:
                yield bar.update
            return
        begun = self._seconds()
        done, next_line = 0, begun + LINE_SECONDS

        def advance(more: int) -> None:
            nonlocal done, next_line
            done += more
            now = self._seconds()
            if now >= next_line:
                next_line = now + LINE_SECONDS
                self._line(name, done, total, now - begun)

        yield advance
        self._line(name, done, total, self._seconds() - begun)

    def _line(self, name: str, done: int, total: int, seconds: float) -> None:
        if self._as_json:
            text = json.dumps({"step": name.lower(), "rows": done, "total": total, "seconds": round(seconds, 1)})
        else:
            text = f"{name}: {done:,} of {total:,} rows, {seconds:.0f} s"
        click.echo(text, err=True)
