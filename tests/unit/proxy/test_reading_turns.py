"""However many bodies are to be read, a turn of the reactor has the same time for them, which clients share."""

from __future__ import annotations

from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.http.request_reader import RequestReader
from llmproxy.proxy.reading import BodyReading, ResponseReading
from llmproxy.proxy.reading_turns import TURN_SECONDS, ReadingTurns
from tests.support.reading import everything

LONG = b'{"a":[' + b"{}," * 60_000 + b'0],"model":"m"}'  # for a reader that goes step by step


def run_turn(clock: Clock) -> None:
    """What waits for the next turn, and nothing that follows from it."""
    for call in list(clock.calls):
        clock.calls.remove(call)
        call.called = 1
        call.func(*call.args, **call.kw)


class Turns(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.turns = ReadingTurns(self.clock)
        self.done: list[str] = []

    def begin(self, *names: str, parts: int = 1, share: float = 0.4) -> None:
        """Something to be read: in so many parts, each of which takes this share of a turn."""
        for name in names:
            left = [name] * parts
            self.turns.begin(name[0], partial(self.read, left, share))

    def read(self, left: list[str], share: float, until: float) -> bool:
        self.assertLessEqual(self.clock.seconds(), until)
        self.clock.rightNow += TURN_SECONDS * share
        self.done.append(left.pop())
        return bool(left)

    def turn(self) -> list[str]:
        """What is read in the next turn."""
        self.done.clear()
        run_turn(self.clock)
        return self.done

    def test_what_has_time_is_read_at_once(self) -> None:
        self.begin("a1", "a2")
        self.assertEqual(self.done, ["a1", "a2"])

    def test_a_turn_has_an_end(self) -> None:
        """And what waits has others before it."""
        self.begin(*(f"a{number}" for number in range(60)))
        self.assertEqual(len(self.done), 3)
        every = list(self.done)
        while len(self.turns):
            begun = self.clock.seconds()
            self.assertTrue(0 < len(self.turn()) <= 3)
            self.assertLess(self.clock.seconds() - begun, TURN_SECONDS * 1.4)
            every += self.done
        self.assertEqual(every, [f"a{number}" for number in range(60)])
        self.turn()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_clients_take_turns(self) -> None:
        self.begin(*(f"a{number}" for number in range(9)), "b0")
        self.assertEqual(self.turn(), ["a3", "b0", "a4"])

    def test_one_that_is_long_goes_on_behind_the_others(self) -> None:
        self.begin("a0", parts=9)
        self.begin("b0", "c0", parts=2)
        self.assertEqual(self.done, ["a0"])
        self.assertEqual((self.turn()[:], self.turn()[:]), (["a0", "b0", "c0"], ["a0", "b0", "c0"]))

    def test_nobody_overtakes_those_who_wait(self) -> None:
        self.begin("a0", "a1", "a2", "a3")
        self.turns.begin("b", lambda until: bool(self.done.append("b")))
        self.assertEqual(self.done, ["a0", "a1", "a2"])

    def test_one_that_fails(self) -> None:
        """Is none of the others' fault."""
        self.begin("a0", "a1", "a2")
        self.turns.begin("a", lambda until: 1 // 0 > 0)
        self.begin("a4")
        self.assertEqual(self.turn(), ["a4"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_who_waits_for_a_turn(self) -> None:
        first, late, left = self.turns.turn("a"), None, None
        self.assertTrue(first.called)
        self.begin("a0", share=2)
        late, left = self.turns.turn("a"), self.turns.turn("a")
        left.addErrback(lambda failure: None)
        left.cancel()
        self.assertFalse(late.called)
        self.turn()
        self.assertTrue(late.called)
        self.assertEqual(len(self.turns), 0)


class SlowClock(Clock):
    """Time goes by when somebody looks at it."""

    def seconds(self) -> float:
        self.rightNow += TURN_SECONDS / 20
        return super().seconds()


class Bodies(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = SlowClock()
        self.turns = ReadingTurns(self.clock)

    def reading(self, client: str, body: bytes) -> Deferred[object]:
        reading = BodyReading(RequestReader([], everything, self.clock.seconds), self.turns, client)
        reading.feed(body)
        return Deferred.fromCoroutine(reading.whole())

    def test_a_burst(self) -> None:
        """However many long bodies one client sends, no turn is longer, and another's is read before most of them."""
        burst = [self.reading("a", LONG) for _ in range(40)]
        other, read_before = self.reading("b", LONG), 0
        for _ in range(20_000):
            if all(each.called for each in burst):
                break
            begun = self.clock.rightNow
            run_turn(self.clock)
            self.assertLess(self.clock.rightNow - begun, TURN_SECONDS * 1.5)
            if not other.called:
                read_before = sum(each.called for each in burst)
        self.assertTrue(all(each.called for each in burst))
        self.assertTrue(other.called)
        self.assertEqual(read_before, 0)

    def test_responses(self) -> None:
        """Those that are decoded share the time with them."""

        class Answer:
            waits = False

            def watch(self, feed: object) -> None:
                self.feed = feed

        answers, steps = [Answer() for _ in range(10)], []
        for answer in answers:
            reading: ResponseReading = ResponseReading(answer, self.clock, self.turns, "a")  # type: ignore[arg-type]
            reading.watch(lambda data: iter(steps.append(None) for _ in range(30)))  # type: ignore[misc]
            answer.feed(b"x")  # type: ignore[operator]
        self.assertLess(len(steps), 30)
        for _ in range(100):
            before, begun = len(steps), self.clock.rightNow
            run_turn(self.clock)
            self.assertLess(self.clock.rightNow - begun, TURN_SECONDS * 1.5)
            self.assertLess(len(steps) - before, 30)
        self.assertEqual(len(steps), 300)
