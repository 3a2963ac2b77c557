"""What is done about a server that may evict limits."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.limits.counters.eviction import START_SECONDS, EvictionGuard, evicting_policy
from llmproxy.redis import RedisRefused, RedisUnavailable
from llmproxy.store.errors import StartupError

EVICTS = b"maxmemory:100\r\nmaxmemory_policy:allkeys-lru\r\n"
KEEPS = b"maxmemory:100\r\nmaxmemory_policy:noeviction\r\n"
INFO = b"# Memory\r\nused_memory:1000\r\nmaxmemory:%d\r\nmaxmemory_policy:%b\r\nmem_allocator:x:y\r\n"


class PolicyTests(SynchronousTestCase):
    def test_policies(self) -> None:
        """All but one drop what limits count, since that has a time to live."""
        for policy in (b"allkeys-lru", b"allkeys-random", b"volatile-lru", b"volatile-ttl", b"allkeys-lfu"):
            self.assertEqual(evicting_policy(INFO % (1 << 20, policy)), policy.decode())
            self.assertEqual(evicting_policy(INFO % (0, policy)), "")
        self.assertEqual(evicting_policy(INFO % (1 << 20, b"noeviction")), "")

    def test_what_does_not_say(self) -> None:
        for info in (b"", b"# Memory\r\nused_memory:1\r\n", b"\xff\x00"):
            self.assertEqual(evicting_policy(info), "")


class Connection:
    """Answers everything with this."""

    def __init__(self, reply: Deferred[bytes]) -> None:
        self.reply = reply

    def send(self, command: bytes, timeout: float) -> Deferred[bytes]:
        return self.reply


class GuardTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.guard = EvictionGuard(self.clock, allowed=False)

    def prepare(self, reply: Deferred[bytes], guard: EvictionGuard | None = None) -> Deferred[None]:
        connection: Any = Connection(reply)
        return (guard or self.guard).prepare(connection)

    def test_one_that_evicts(self) -> None:
        opening = self.guard.open()
        self.assertNoResult(opening)
        self.failureResultOf(self.prepare(succeed(EVICTS)), RedisUnavailable)
        self.failureResultOf(opening, StartupError)

    def test_one_that_does_not(self) -> None:
        opening = self.guard.open()
        self.successResultOf(self.prepare(succeed(KEEPS)))
        self.successResultOf(opening)

    def test_one_that_does_not_any_more(self) -> None:
        self.failureResultOf(self.prepare(succeed(EVICTS)), RedisUnavailable)
        self.successResultOf(self.prepare(succeed(KEEPS)))
        self.assertEqual(self.guard.refusal, "")

    def test_one_that_does_not_say(self) -> None:
        """Who may not ask is told so in the log, and goes on."""
        self.successResultOf(self.prepare(fail(RedisRefused("NOPERM this user has no permissions"))))

    def test_allowed(self) -> None:
        guard = EvictionGuard(self.clock, allowed=True)
        self.successResultOf(self.prepare(succeed(EVICTS), guard))
        self.successResultOf(guard.open())

    def test_one_that_is_not_there(self) -> None:
        """The start does not wait for it; when it comes it is looked at all the same."""
        opening = self.guard.open()
        self.clock.advance(START_SECONDS)
        self.successResultOf(opening)
        self.failureResultOf(self.prepare(succeed(EVICTS)), RedisUnavailable)
