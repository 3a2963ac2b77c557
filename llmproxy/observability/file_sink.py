"""An event sink that appends JSON lines to a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.plugin import IPlugin
from zope.interface import implementer

from llmproxy.base.own_threads import OwnThreads
from llmproxy.instruments import Instrument
from llmproxy.interfaces import IEventSinkFactory, IInstrumented
from llmproxy.model import RequestRecord
from llmproxy.observability.append_file import AppendedFile
from llmproxy.observability.event_bus import IEventLineSink
from llmproxy.observability.request_lines import event_line


@implementer(IEventLineSink, IInstrumented)
class FileSink:
    """Writes in a thread, so that a slow disk holds up nobody."""

    def __init__(self, path: str, in_thread: Callable[..., Deferred[None]]) -> None:
        """
        @param in_thread: Calls its argument in a thread and fires with the result.
        """
        self._path = path
        self._file = AppendedFile(path)
        self._in_thread = in_thread

    def instruments(self) -> Iterator[Instrument]:
        return self._file.instruments()

    def write(self, events: Sequence[RequestRecord]) -> Deferred[None]:
        # Put together here: two threads that both have something to compute only hold each other up.
        return self.write_lines(b"".join(map(event_line, events)))

    def write_lines(self, lines: bytes) -> Deferred[None]:
        return self._in_thread(self._append, lines)

    def _append(self, lines: bytes) -> None:
        try:
            self._file.append(lines)
        except OSError as e:
            raise OSError(e.errno, f"{e.strerror} (appending to {self._path})") from e

    def close(self) -> Deferred[None]:
        return self._in_thread(self._file.close)


@implementer(IPlugin, IEventSinkFactory)
class FileSinkFactory:
    """C{{type: file, path: data/events.jsonl}}"""

    name = "file"

    def sink(self, settings: Mapping[str, Any], reactor: Any) -> FileSink:
        path = settings.get("path")
        if unknown := sorted(set(settings) - {"path"}):
            raise ValueError(f"A file sink knows only path, not {', '.join(unknown)}.")
        if not isinstance(path, str) or not path:
            raise ValueError("A file sink needs a path, such as data/events.jsonl.")
        # One batch at a time, and the next: more would only wait for a disk that hangs.
        return FileSink(path, OwnThreads(reactor, f"sink {path}", waiting=1).call)
