"""What is revoked elsewhere is refused here, soon and whatever fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.auth.change_feed import MAX_SILENCE, POLL_INTERVAL, POLL_TIMEOUT, ChangeFeed
from llmproxy.base.ttl_cache import CacheLease
from llmproxy.errors import StoreUnavailable
from llmproxy.model import Changes
from llmproxy.redis import RedisUnavailable


class Store:
    """Answers as it is told, and keeps what was announced."""

    def __init__(self) -> None:
        self.answer: Callable[[int | None], Deferred[Changes]] = lambda epoch: succeed(Changes(epoch or 7, ()))
        self.asked: list[int | None] = []
        self.announced: list[str] = []
        self.committed: list[Callable[[str], None]] = []

    def changes(self, epoch: int | None) -> Deferred[Changes]:
        self.asked.append(epoch)
        return self.answer(epoch)

    def announce(self, project_id: str) -> None:
        self.announced.append(project_id)

    def on_commit(self, listener: Callable[[str], None]) -> None:
        self.committed.append(listener)


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.store = Store()

    def started(self, **more: Any) -> ChangeFeed:
        feed = ChangeFeed(self.store, self.clock, **more)
        feed.startService()
        feed.open()
        self.clock.advance(POLL_INTERVAL)
        self.addCleanup(feed.stopService)
        return feed


class AskingTests(Case):
    def test_at_first(self) -> None:
        """Whatever was remembered before the first answer may have changed since; later nothing has."""
        self.store.answer = lambda epoch: succeed(Changes(7, None if epoch is None else ()))
        self.started()
        self.assertEqual(self.store.announced, [""])
        self.clock.pump([POLL_INTERVAL] * 10)
        self.assertEqual(self.store.asked, [None] + [7] * 10)
        self.assertEqual(self.store.announced, [""])

    def test_changes(self) -> None:
        """Each is announced once."""
        self.started()
        self.store.answer = lambda epoch: succeed(Changes(9, ("p", "q")))
        self.clock.advance(POLL_INTERVAL)
        self.store.answer = lambda epoch: succeed(Changes(9, ()))
        self.clock.advance(POLL_INTERVAL)
        self.assertEqual((self.store.announced, self.store.asked), (["p", "q"], [None, 7, 9]))

    def test_silence(self) -> None:
        """For a while what is remembered is relied on, then nothing is; when the store is back, all is as before."""
        feed = self.started()
        self.store.answer = lambda epoch: fail(StoreUnavailable())
        for _ in range(int(MAX_SILENCE / POLL_INTERVAL) - 1):
            self.clock.advance(POLL_INTERVAL)
        self.assertEqual(self.store.announced, [])
        self.clock.pump([POLL_INTERVAL] * 5)
        self.assertEqual(set(self.store.announced), {""})
        self.assertGreater(feed.failures, 10)
        announced = len(self.store.announced)
        self.store.answer = lambda epoch: succeed(Changes(7, ()))
        self.clock.pump([POLL_INTERVAL] * 20)
        self.assertEqual(len(self.store.announced), announced)

    def test_the_lease_on_what_is_cached(self) -> None:
        """It is renewed by each answer, counted from the question, and by nothing else."""
        lease = CacheLease(3.0)
        self.started(lease=lease)
        self.assertEqual(lease.until, 3.0 + POLL_INTERVAL)
        answer: Deferred[Changes] = Deferred()
        self.store.answer = lambda epoch: answer
        self.clock.advance(POLL_INTERVAL)
        asked_at = self.clock.seconds()
        self.clock.advance(0.9)
        answer.callback(Changes(7, ()))
        self.assertEqual(lease.until, asked_at + 3.0)
        self.store.answer = lambda epoch: fail(StoreUnavailable())
        self.clock.pump([POLL_INTERVAL] * 5)
        self.assertEqual((lease.until, self.store.announced), (asked_at + 3.0, []))
        self.clock.advance(POLL_INTERVAL)
        self.assertEqual(set(self.store.announced), {""})

    def test_no_answer(self) -> None:
        """A question that hangs is given up, and asked again."""
        self.started()
        given_up: list[object] = []
        self.store.answer = lambda epoch: Deferred(given_up.append)
        self.clock.advance(POLL_INTERVAL)
        self.clock.advance(POLL_TIMEOUT)
        self.assertEqual(len(given_up), 1)
        self.clock.advance(POLL_INTERVAL)
        self.assertEqual(len(self.store.asked), 3)

    def test_stopped(self) -> None:
        feed = self.started()
        feed.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Redis:
    """Keeps what is published; a test says what is heard."""

    def __init__(self) -> None:
        self.published: list[tuple[str, str]] = []
        self.listeners: dict[str, Callable[[bytes], object]] = {}
        self.up = True

    def setServiceParent(self, parent: Any) -> None:
        """It is started and stopped with its parent."""

    def subscribe(self, channel: str, listener: Callable[[bytes], object]) -> None:
        self.listeners[channel] = listener

    def publish(self, channel: str, payload: str) -> Deferred[int]:
        if not self.up:
            return fail(RedisUnavailable("down"))
        self.published.append((channel, payload))
        return succeed(1)


class RedisTests(Case):
    def setUp(self) -> None:
        super().setUp()
        self.redis: Any = Redis()
        self.started(redis=self.redis, channel="c")

    def test_told(self) -> None:
        """The others hear of a change that is made here; what is heard is not told again."""
        (committed,) = self.store.committed
        committed("p")
        self.redis.listeners["c"](b"q")
        self.assertEqual((self.redis.published, self.store.announced), ([("c", "p")], ["q"]))

    def test_down(self) -> None:
        """Then the store alone tells."""
        self.redis.up = False
        self.store.committed[0]("p")
        self.store.answer = lambda epoch: succeed(Changes(8, ("q",)))
        self.clock.advance(POLL_INTERVAL)
        self.assertEqual(self.store.announced, ["q"])

    def test_garbage(self) -> None:
        """Whoever may publish cannot make everything be forgotten, nor anything fail."""
        for payload in (b"", b"x" * 256, b"\xff\xfe"):
            self.redis.listeners["c"](payload)
        self.assertEqual(self.store.announced, ["\ufffd\ufffd"])
