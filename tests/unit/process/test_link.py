from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.process.link import Link, LinkLost


class Pair:
    """Two ends, and what is on its way between them, which passes when it is told to."""

    def __init__(self, perform: Any) -> None:
        self.clock = Clock()
        self.lost: list[str] = []
        self.here = Link(self.clock, lambda name, body: None, lambda: self.lost.append("here"))
        self.there = Link(self.clock, perform, lambda: self.lost.append("there"))
        self.wires = StringTransport(), StringTransport()
        self.here.makeConnection(self.wires[0])
        self.there.makeConnection(self.wires[1])

    def carry(self) -> None:
        for wire, end in zip(self.wires, (self.there, self.here), strict=True):
            data = wire.value()
            wire.clear()
            for place in range(0, len(data), 3):  # in whatever pieces it comes
                end.dataReceived(data[place : place + 3])


class LinkTests(SynchronousTestCase):
    def test_an_answer(self) -> None:
        pair = Pair(lambda name, body: [name, body])
        asked = pair.here.ask("count", {"of": 2})
        pair.carry()
        pair.carry()
        self.assertEqual(self.successResultOf(asked), ["count", {"of": 2}])
        self.assertEqual(pair.clock.getDelayedCalls(), [])

    def test_answers_in_another_order(self) -> None:
        waiting: dict[str, Deferred[str]] = {"slow": Deferred(), "fast": Deferred()}
        pair = Pair(lambda name, body: waiting[name])
        slow, fast = pair.here.ask("slow"), pair.here.ask("fast")
        pair.carry()
        waiting["fast"].callback("second")
        pair.carry()
        self.assertEqual(self.successResultOf(fast), "second")
        self.assertNoResult(slow)
        waiting["slow"].callback("first")
        pair.carry()
        self.assertEqual(self.successResultOf(slow), "first")

    def test_no_answer_in_time(self) -> None:
        """What comes later is not taken for the answer to something else."""
        late: Deferred[str] = Deferred()
        pair = Pair(lambda name, body: late)
        asked = pair.here.ask("x", seconds=2.0)
        pair.carry()
        pair.clock.advance(2.0)
        self.assertEqual(str(self.failureResultOf(asked, LinkLost).value), "No answer came in time.")
        late.callback("x")
        pair.carry()

    def test_an_error_there(self) -> None:
        def perform(name: str, body: Any) -> None:
            raise ValueError("no such thing")

        pair = Pair(perform)
        asked = pair.here.ask("x")
        pair.carry()
        pair.carry()
        self.assertEqual(str(self.failureResultOf(asked, LinkLost).value), "no such thing")

    def test_an_error_of_what_was_only_told(self) -> None:
        """It is in the log there, and answered by nothing."""
        pair = Pair(lambda name, body: {}[name])
        pair.here.tell("x")
        pair.carry()
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assertEqual(pair.wires[1].value(), b"")

    def test_the_other_side_goes(self) -> None:
        pair = Pair(lambda name, body: Deferred())
        asked = pair.here.ask("x")
        pair.here.connectionLost(None)
        self.failureResultOf(asked, LinkLost)
        self.failureResultOf(pair.here.ask("y"), LinkLost)
        pair.here.tell("z")
        self.assertEqual((pair.lost, pair.clock.getDelayedCalls()), (["here"], []))

    def test_frames(self) -> None:
        """Four bytes of length, then JSON."""
        pair = Pair(lambda name, body: None)
        pair.here.tell("drain", True)
        data = pair.wires[0].value()
        self.assertEqual(
            (int.from_bytes(data[:4], "big"), json.loads(data[4:])), (len(data) - 4, {"do": "drain", "with": True})
        )
