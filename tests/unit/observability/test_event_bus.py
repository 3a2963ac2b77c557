"""Observers get every finished request, and none of them can hold up the proxy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from llmproxy.instruments import Counter, Instrument
from llmproxy.interfaces import IEventBus, IEventSink, IInstrumented
from llmproxy.model import RequestRecord
from llmproxy.observability.event_bus import LINES_FACTOR, IEventLineSink, MemoryBus


def event(request_id: str) -> RequestRecord:
    return RequestRecord(request_id, 0.0, 0.1, "GET", "/v1/models", 200, "complete")


@implementer(IEventSink)
class Place:
    """A sink that does as it is told.

    @ivar answers: What C{write} returns or raises, in order; afterwards it succeeds.
    """

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.batches: list[list[str]] = []
        self.closed = 0
        self.closing: Deferred[None] = succeed(None)

    def write(self, events: Sequence[RequestRecord]) -> Deferred[None]:
        self.batches.append([e.request_id for e in events])
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Deferred) else succeed(None)

    def close(self) -> Deferred[None]:
        self.closed += 1
        return self.closing


class BusTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.logged: list[LogEvent] = []
        globalLogPublisher.addObserver(self.logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged.append)

    def bus(self, *places: Place, **options: Any) -> MemoryBus:
        options = {"queue_size": 4, "batch": 2, "linger": 0.1, "patience": 10.0, "retries": (1.0, 5.0)} | options
        bus = MemoryBus({f"place{i}": place for i, place in enumerate(places)}, self.clock, **options)
        bus.startService()
        return bus

    def publish(self, bus: MemoryBus, ids: str) -> None:
        for request_id in ids:
            bus.publish(event(request_id))

    def warnings(self) -> list[tuple[str, int]]:
        drops = [e for e in self.logged if "dropped" in (e.get("log_format") or "")]
        return [(e["name"], e["count"]) for e in drops]

    def test_promise(self) -> None:
        self.assertTrue(verifyObject(IEventBus, self.bus()))
        self.assertTrue(verifyObject(IEventSink, Place()))

    def test_figures_of_sinks(self) -> None:
        """What a sink shows of itself carries its name; a sink that shows nothing is let alone."""

        @implementer(IInstrumented)
        class Shown(Place):
            def instruments(self) -> list[Instrument]:
                return [Counter("lines", "Lines.", lambda: 7, "sink")]

        bus = self.bus(Place(), Shown())
        verifyObject(IInstrumented, bus)
        [lines] = bus.instruments()
        self.assertEqual((lines.name, lines.label, lines.read()), ("lines", "sink", {"place1": 7}))

    def test_delivery(self) -> None:
        """Events are delivered in order, in batches, shortly after they happened."""
        place = Place()
        bus = self.bus(place)
        self.publish(bus, "abc")
        self.assertEqual(place.batches, [])
        self.clock.advance(0.1)
        self.assertEqual(place.batches, [["a", "b"], ["c"]])
        self.publish(bus, "d")
        self.clock.advance(0.1)
        self.assertEqual(place.batches[2:], [["d"]])
        self.assertEqual(bus.dropped, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nobody(self) -> None:
        """Without sinks an event costs nothing and is not dropped."""
        bus = self.bus()
        self.publish(bus, "abc")
        self.assertEqual((bus.dropped, self.clock.getDelayedCalls()), (0, []))

    def test_one_at_a_time(self) -> None:
        """While a batch is under way the next waits."""
        slow: Deferred[None] = Deferred()
        place = Place(slow)
        bus = self.bus(place)
        self.publish(bus, "ab")
        self.clock.advance(0.1)
        self.publish(bus, "c")
        self.clock.advance(1.0)
        self.assertEqual(place.batches, [["a", "b"]])
        slow.callback(None)
        self.clock.advance(0.1)
        self.assertEqual(place.batches, [["a", "b"], ["c"]])

    def test_company(self) -> None:
        """What comes while a batch is under way waits for more: under load each event would go alone otherwise."""
        first: Deferred[None] = Deferred()
        place = Place(first)
        bus = self.bus(place)
        self.publish(bus, "a")
        self.clock.advance(0.1)
        self.publish(bus, "b")
        first.callback(None)
        self.publish(bus, "c")
        self.clock.advance(0.1)
        self.assertEqual(place.batches, [["a"], ["b", "c"]])

    def test_full(self) -> None:
        """A full queue drops what is new, counts it, and says so once a minute at most."""
        slow: Deferred[None] = Deferred()
        place = Place(slow)
        bus = self.bus(place, patience=1000.0)
        self.publish(bus, "abcdefg")
        self.assertEqual(bus.dropped, 3)
        self.clock.advance(0.0)
        self.assertEqual(self.warnings(), [("place0", 3)])
        self.clock.advance(1.0)
        self.publish(bus, "hi")
        self.clock.advance(50.0)
        self.publish(bus, "j")
        self.assertEqual(self.warnings(), [("place0", 3)])
        self.clock.advance(10.0)
        self.assertEqual(self.warnings(), [("place0", 3), ("place0", 3)])
        slow.callback(None)
        self.assertEqual(place.batches, [["a", "b"], ["c", "d"]])

    def test_slow_beside_fast(self) -> None:
        """A sink that hangs holds up no other."""
        hanging, fast = Place(Deferred()), Place()
        bus = self.bus(hanging, fast)
        for request_id in "abcdefgh":
            self.publish(bus, request_id)
            self.clock.advance(0.1)
        self.assertEqual(fast.batches, [[request_id] for request_id in "abcdefgh"])
        self.assertEqual(bus.dropped, 4)

    def test_retry(self) -> None:
        """A batch that failed is tried again after a pause, and before any later one."""
        for failure in (OSError("full"), fail(OSError("full"))):
            place = Place(failure, OSError("still"))
            bus = self.bus(place)
            self.publish(bus, "abc")
            self.clock.advance(0.1)
            self.clock.advance(0.9)
            self.assertEqual(place.batches, [["a", "b"]])
            self.clock.advance(0.1)
            self.clock.advance(5.0)
            self.assertEqual(place.batches, [["a", "b"], ["a", "b"], ["a", "b"], ["c"]])
            self.assertEqual(bus.dropped, 0)

    def test_give_up(self) -> None:
        """After the last attempt the batch is dropped and counted; the next one has its own chance."""
        place = Place(*[OSError("disk full")] * 3)
        bus = self.bus(place)
        self.publish(bus, "abc")
        self.clock.pump([0.1, 1.0, 5.0, 0.0])
        self.assertEqual(place.batches, [["a", "b"]] * 3 + [["c"]])
        self.assertEqual(bus.dropped, 2)
        self.assertEqual(self.warnings(), [("place0", 2)])
        self.assertIn("disk full", self.logged[-1]["reason"])

    def test_hanging(self) -> None:
        """A sink that does not answer in time has failed."""
        place = Place(Deferred())
        bus = self.bus(place)
        self.publish(bus, "a")
        self.clock.pump([0.1, 10.0, 1.0])
        self.assertEqual(place.batches, [["a"], ["a"]])
        self.assertEqual(bus.dropped, 0)

    def test_lines(self) -> None:
        """A sink that takes lines is given those, made when its batch is written; others are given events."""

        @implementer(IEventLineSink)
        class Lines(Place):
            def write_lines(self, lines: bytes) -> Deferred[None]:
                self.batches.append(lines.decode().split())
                answer = self.answers.pop(0) if self.answers else succeed(None)
                return fail(answer) if isinstance(answer, Exception) else succeed(None)

        def render(events: Sequence[RequestRecord]) -> bytes:
            rendered.append(len(events))
            return "".join(f"{each.request_id}\n" for each in events).encode()

        rendered: list[int] = []
        taking, place = Lines(OSError("full")), Place()
        options: dict[str, Any] = {"lines": render, "queue_size": 9, "batch": 2}
        bus = self.bus(taking, place, scrub=lambda e: e._replace(request_id="masked"), **options)
        self.publish(bus, "abcdefghi")
        self.assertEqual(rendered, [])
        self.clock.advance(0.1)
        first = list("abcdefghi"[: 2 * LINES_FACTOR])
        self.assertEqual(taking.batches, [first])
        self.clock.advance(1.0)
        self.assertEqual(taking.batches, [first, first, ["i"]])
        self.assertEqual(place.batches, [["masked"] * 2] * 4 + [["masked"]])
        self.assertEqual(bus.dropped, 0)

    def test_scrubbed(self) -> None:
        """What must not be seen is masked before a sink sees it."""
        place = Place()
        bus = self.bus(place, scrub=lambda e: e._replace(request_id="masked"))
        self.publish(bus, "a")
        self.clock.advance(0.1)
        self.assertEqual(place.batches, [["masked"]])

    def test_stop(self) -> None:
        """Stopping delivers what is queued, then closes the sinks, and leaves no timer."""
        place = Place()
        bus = self.bus(place)
        self.publish(bus, "abc")
        self.successResultOf(bus.stopService())
        self.assertEqual((place.batches, place.closed), ([["a", "b"], ["c"]], 1))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_while_pausing(self) -> None:
        """A pause before the next attempt ends when the bus stops: one last attempt is made at once."""
        place = Place(OSError("busy"))
        bus = self.bus(place)
        self.publish(bus, "a")
        self.clock.advance(0.1)
        self.successResultOf(bus.stopService())
        self.assertEqual((place.batches, bus.dropped, place.closed), ([["a"], ["a"]], 0, 1))

    def test_stop_with_hanging_sink(self) -> None:
        """A sink that hangs delays the stop for a bounded time; what it did not take is counted and said."""
        place = Place(Deferred())
        place.closing = Deferred()
        bus = self.bus(place, flush=5.0)
        self.publish(bus, "abc")
        stopped = bus.stopService()
        self.clock.advance(4.9)
        self.assertNoResult(stopped)
        self.clock.advance(0.1)
        self.assertEqual((bus.dropped, place.closed), (3, 1))
        self.clock.advance(5.0)
        self.successResultOf(stopped)
        self.assertEqual(self.warnings(), [("place0", 3)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_after_stop(self) -> None:
        """What comes too late is counted, and leaves no timer."""
        place = Place()
        bus = self.bus(place)
        self.successResultOf(bus.stopService())
        self.publish(bus, "ab")
        self.assertEqual((bus.dropped, place.batches), (2, []))
        self.assertEqual(self.warnings(), [("place0", 1)])
        self.assertEqual(self.clock.getDelayedCalls(), [])
