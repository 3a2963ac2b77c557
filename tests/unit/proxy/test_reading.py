from __future__ import annotations

import json
from functools import partial
from unittest import TestCase

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from llmproxy.http.request_reader import RequestContent, RequestReader
from llmproxy.http.whole_body import MAX_CHECKED_BYTES, measure_body, read_usual
from llmproxy.proxy.reading import BodyReading
from llmproxy.proxy.reading_turns import ReadingTurns
from tests.support.reading import everything, read

BODY = json.dumps({"messages": [{"content": "hello " * 5_000}], "model": "m"}).encode()
WANTED = {"model", "stream"}.__contains__


class Bodies(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.room = True
        self.calls: list[int] = []

    def reading(self, *, strictly: bool = False, measured: bool = False) -> BodyReading:
        def usual(body: bytes) -> RequestContent | None:
            self.calls.append(len(body))
            return read_usual(body, [], WANTED, strictly=strictly, measured=measured)

        make = partial(RequestReader, [], WANTED)
        return BodyReading(
            make(),
            ReadingTurns(self.clock),
            "a client",
            read_usual=usual,
            may_hold=lambda count: self.room,
            peek=make,
            longest_whole=MAX_CHECKED_BYTES,
            measured=measured,
        )

    def feed(self, reading: BodyReading, body: bytes, piece: int = 8_000) -> None:
        for at in range(0, len(body), piece):
            reading.feed(body[at : at + piece])

    def content(self, reading: BodyReading) -> RequestContent:
        self.clock.pump([0] * 1000)
        done = Deferred.fromCoroutine(reading.whole())
        self.clock.pump([0] * 1000)
        return done.result  # type: ignore[no-any-return]

    def test_at_its_end(self) -> None:
        """By one call, and measured only if somebody needs that."""
        for measured in (False, True):
            reading = self.reading(strictly=True, measured=measured)
            self.feed(reading, BODY)
            self.assertEqual(self.calls, [])
            content = self.content(reading)
            self.assertEqual((content.model, content.complete, bool(content.text.words)), ("m", True, measured))
            self.assertEqual(reading.unmeasured_body, None if measured else BODY)
            self.assertEqual(self.calls, [len(BODY)])
            self.calls.clear()

    def test_what_is_not_held(self) -> None:
        """Where memory is tight, or it is long, it is read as it comes; so is what is not as it should be."""
        long = json.dumps({"a": "x" * MAX_CHECKED_BYTES, "model": "m"}).encode()
        for body, room, calls in ((BODY, False, 0), (long, True, 0), (BODY[:-1] + b',"model":"m"}', True, 1)):
            self.room = room
            self.calls.clear()
            reading = self.reading(strictly=True)
            self.feed(reading, body)
            content, slow = self.content(reading), read(body, [], 8_000, WANTED)
            self.assertEqual((len(self.calls), reading.unmeasured_body), (calls, None))
            self.assertEqual(content._replace(text=slow.text), slow)

    def test_asked_before_its_end(self) -> None:
        """What has come says what it says, also when there is more of it at the next time."""
        body = b'{"model":"m","a":"' + b"x" * 20_000 + b'","stream":true,"b":"' + b"x" * 20_000 + b'"}'
        reading = self.reading()
        self.feed(reading, body[:8_000])
        self.assertEqual((reading.content(ended=False).model, reading.content(ended=False).stream), ("m", False))
        self.feed(reading, body[8_000:30_000])
        self.assertTrue(reading.content(ended=False).stream)
        self.feed(reading, body[30_000:])
        self.assertTrue(self.content(reading).complete)
        self.assertEqual(self.calls, [])


class Measures(TestCase):
    def test_later(self) -> None:
        """A body that was held is measured as it would have been at once."""
        for body in (BODY, BODY[:-1] + b',"a":"' + b"y z" * 40_000 + b'"}', b'{"a":1,"a":2}'):
            later, slow = measure_body(body, []), read(body, [], 0, everything)
            self.assertEqual((later.complete, later.media, later.unseen_media), (True, [], 0))
            self.assertLessEqual(abs(later.text.words - slow.text.words), len(body) // 4096)

    def test_what_would_take_long(self) -> None:
        """It goes by its size."""
        medium = b'{"data":"' + b"A" * 128 + b'"},'
        for body in (b'{"a":"' + b"\\n" * 100_000 + b'"}', b'{"a":[' + medium * 1_000 + b"0]}"):
            content = measure_body(body, [])
            self.assertEqual((content.form, content.size, content.text.lines), ("unknown", len(body), 0))
