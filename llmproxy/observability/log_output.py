"""Renders what is logged as lines: JSON for machines, or text for a console."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from threading import RLock
from typing import Any, TextIO

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure
from twisted.python.reflect import safe_repr
from zope.interface import implementer

from llmproxy.base.timestamps import rfc3339
from llmproxy.config.model import Logging
from llmproxy.instruments import Counter, HealthCheck, Instrument
from llmproxy.interfaces import IHealthChecked, IInstrumented
from llmproxy.observability.append_file import failure_reason
from llmproxy.observability.jsonl import encode, finite
from llmproxy.observability.redaction import Redactor

__all__ = ["LogOutput", "Redactor", "observer"]

Entry = MutableMapping[str, Any]
Renderer = Callable[[Entry], str]

# What Twisted itself puts into an event, in its new and in its legacy form.
TWISTED = frozenset(("format", "isError", "failure", "message", "system", "time", "why", "printed"))
OURS = frozenset(("ts", "level", "logger", "msg", "exception"))
# Control characters, line separators, what turns the direction of text, and halves of surrogate pairs.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
UNPRINTABLE_IN_LINES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def observer(settings: Logging, stream: TextIO, redactor: Redactor) -> LogOutput:
    """The observer that the settings ask for, writing to C{stream}."""
    is_json = settings.format != "console"
    renderer = as_json() if is_json else console(stream)
    return LogOutput(stream, renderer, redactor, LogLevel.levelWithName(settings.level), is_json=is_json)


@implementer(ILogObserver, IHealthChecked, IInstrumented)
class LogOutput:
    """Writes log events and access log lines to one stream, each as one line, secrets masked as the last step.

    @ivar is_json: Whether lines are JSON, as L{as_json} makes it.
    @ivar lost: How many lines could not be written because the stream failed.
    @ivar state: C{ok}, or why the last lines could not be written.
    """

    def __init__(
        self, stream: TextIO, render: Renderer, redactor: Redactor, level: Any = LogLevel.info, *, is_json: bool = False
    ) -> None:
        self._stream = stream
        self._render = render
        self._redactor = redactor
        self._level = level
        self.is_json = is_json
        self._lock = RLock()  # log events come from any thread
        self.lost = 0
        self.state = "ok"

    @property
    def level(self) -> str:
        """The level of the events that are written, and of those above it."""
        return str(self._level.name)

    def set_level(self, name: str) -> None:
        """Write events of this level and above from now on; access log lines have none."""
        self._level = LogLevel.levelWithName(name)

    def instruments(self) -> Iterator[Instrument]:
        yield Counter("log_lines_lost", "Lines of the log that could not be written.", lambda: self.lost)

    def health_checks(self) -> Iterator[HealthCheck]:
        yield HealthCheck("log", lambda: self.state)

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_level", LogLevel.info) >= self._level:
            self.write((entry(event),))

    def write(self, entries: Iterable[Entry]) -> None:
        """Write these at once, whatever their level; never raises because of the stream."""
        lines = [self._render(entry) + "\n" for entry in entries]
        self.write_masked(self._redactor.redact("".join(lines)), len(lines))

    def write_masked(self, text: str, lines: int) -> None:
        """Write so many lines, each with its end, in which no secret is left, as L{write} does.

        They are as the renderer makes them.
        """
        with self._lock:
            try:
                self._stream.write(text)
                self._stream.flush()
                self.state = "ok"
            except (OSError, ValueError) as e:  # said elsewhere: the disk is full, the reader gone, the stream closed
                self.lost += lines
                self.state = failure_reason(e)


def entry(event: LogEvent) -> dict[str, Any]:
    """The fields of an event: when, how bad, who, what, and whatever else it carries."""
    level, failure = event.get("log_level", LogLevel.info), event.get("log_failure")
    fields: dict[str, Any] = {
        "ts": rfc3339(event.get("log_time", 0.0)),
        "level": level.name,
        "logger": str(event.get("log_namespace", "")),
        "msg": formatEvent(event),
    }
    for name, value in event.items():
        if not name.startswith("log_") and name not in TWISTED:
            fields[f"{name}_" if name in OURS else name] = plain(value)
    if isinstance(failure, Failure):
        fields["exception"] = failure.getTraceback()
    return fields


def plain(value: object, depth: int = 3) -> object:
    """The value as JSON can write it."""
    if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if depth and isinstance(value, Mapping):
        return {str(k): plain(v, depth - 1) for k, v in value.items()}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [plain(v, depth - 1) for v in value]
    return safe_repr(value)


def as_json() -> Renderer:
    """In ASCII, whatever is in it: what a terminal would act on is escaped."""
    escaping = json.JSONEncoder(separators=(",", ":"), default=safe_repr).encode

    def render(fields: Entry) -> str:
        line = encode(fields)
        text = line.decode() if line is not None and line.isascii() else escaping(finite(fields))
        return text.replace("\x7f", "\\u007f")  # the one control character that JSON leaves

    return render


def console(stream: TextIO) -> Renderer:
    # Imports rich and more where it is installed, which a daemon that writes JSON never needs.
    from structlog.dev import ConsoleRenderer, plain_traceback

    encoding = getattr(stream, "encoding", None) or "utf-8"
    renderer = ConsoleRenderer(
        colors=stream.isatty(),
        event_key="msg",
        timestamp_key="ts",
        sort_keys=False,
        exception_formatter=plain_traceback,
    )

    def render(fields: Entry) -> str:
        shown = {name: _printable(name, value) for name, value in fields.items() if value != ""}
        return renderer(None, "", shown).encode(encoding, "backslashreplace").decode(encoding)

    return render


def _printable(name: str, value: object) -> object:
    if not isinstance(value, str):
        return value if value is None or isinstance(value, bool | int | float) else _escape(UNPRINTABLE, repr(value))
    return _escape(UNPRINTABLE_IN_LINES if name == "exception" else UNPRINTABLE, value)


def _escape(unprintable: re.Pattern[str], text: str) -> str:
    return unprintable.sub(_as_escape, text)


def _as_escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
