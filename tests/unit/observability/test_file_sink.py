"""Finished requests end up as lines of a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import deferLater
from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from llmproxy.base.attribution import CLAIMED, NO_VALUE, OF_TOKEN, encode
from llmproxy.interfaces import IEventSinkFactory
from llmproxy.model import RequestRecord
from llmproxy.observability.event_bus import IEventLineSink
from llmproxy.observability.file_sink import FileSink, FileSinkFactory


def event(request_id: str, **more: Any) -> RequestRecord:
    return RequestRecord(request_id, 1.5, 0.1, "GET", "/v1/models", 200, "complete", **more)


class FileSinkTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp()) / "events.jsonl"
        self.sink = FileSink(str(self.path), maybeDeferred)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def test_promise(self) -> None:
        self.assertTrue(verifyObject(IEventLineSink, self.sink))

    def test_events(self) -> None:
        """Each event is a line with every field of the record."""
        events = [event("a", user_agent="x\ny\ud800é"), event("b", first_byte=0.25)]
        self.successResultOf(self.sink.write(events))
        self.successResultOf(self.sink.write([event("c")]))
        expected = [e._asdict() for e in [*events, event("c")]]
        for fields in expected:
            del fields["attribution"], fields["steps"]  # the one is there where there is one, the other never
        self.assertEqual(self.lines(), expected)
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)

    def test_attribution(self) -> None:
        """Whom a request is attributed to, and whether the client merely says so."""
        written = encode([("user", ("ada", OF_TOKEN)), ("session", ("s-1", CLAIMED)), ("team", NO_VALUE)])
        self.successResultOf(self.sink.write([event("a", attribution=written)]))
        shown = {"user": {"value": "ada", "claimed": False}, "session": {"value": "s-1", "claimed": True}}
        self.assertEqual(self.lines()[0]["attribution"], shown)

    def test_failure(self) -> None:
        """Where the file cannot be written, the bus is told."""
        self.path.mkdir(parents=True)
        self.failureResultOf(self.sink.write([event("a")]), OSError)

    def test_close(self) -> None:
        """Closing lets the file go; a late event opens it again."""
        self.successResultOf(self.sink.write([event("a")]))
        self.successResultOf(self.sink.close())
        self.successResultOf(self.sink.close())
        self.successResultOf(self.sink.write([event("b")]))
        self.successResultOf(self.sink.close())
        self.assertEqual(len(self.lines()), 2)


class FileSinkFactoryTests(TestCase):
    def test_promise(self) -> None:
        factory = FileSinkFactory()
        self.assertTrue(verifyObject(IEventSinkFactory, factory))
        self.assertTrue(verifyObject(IPlugin, factory))
        self.assertEqual(factory.name, "file")

    def test_settings(self) -> None:
        """A missing path or an unknown key is an error that says what would be right."""
        for settings in ({}, {"path": ""}, {"path": 3}):
            self.assertIn(
                "data/events.jsonl", str(self.assertRaises(ValueError, FileSinkFactory().sink, settings, reactor))
            )
        wrong = self.assertRaises(ValueError, FileSinkFactory().sink, {"path": "x", "pfad": "y"}, reactor)
        self.assertIn("pfad", str(wrong))

    def test_thread(self) -> Deferred[None]:
        """The real sink writes in the reactor's threads."""
        path = self.mktemp()

        async def journey() -> None:
            sink = FileSinkFactory().sink({"path": path}, reactor)
            await sink.write([event("a")])
            await sink.close()
            await deferLater(reactor, 0)  # leave the queue of calls from threads, which trial's cleaning up works off
            self.assertEqual(json.loads(Path(path).read_text())["request_id"], "a")

        return Deferred.fromCoroutine(journey())
