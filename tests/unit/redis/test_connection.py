"""Every reply goes to the command that it answers, or to none."""

from __future__ import annotations

from typing import Any

import txredisapi
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.redis.commands import RedisRefused, RedisUnavailable, encode
from llmproxy.redis.connection import MAX_REPLY_BYTES, STALLED_SECONDS, RedisConnection


class Transport(StringTransport):
    """Loses the connection when it is told to."""

    def __init__(self, connection: RedisConnection) -> None:
        super().__init__()
        self._connection = connection

    def abortConnection(self) -> None:
        super().abortConnection()
        self._connection.connectionLost()


class Pure(RedisConnection):
    """As without hiredis."""

    parse = txredisapi.BaseRedisProtocol.dataReceived


VALUES = st.lists(st.binary(max_size=40), max_size=6)
SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=20)


class Behaviour:
    """What a connection does, whoever parses."""

    kind: type[RedisConnection]
    assertEqual: Any
    assertIn: Any
    assertTrue: Any
    assertFalse: Any
    assertNoResult: Any
    failureResultOf: Any
    successResultOf: Any

    def setUp(self) -> None:
        self.clock = Clock()
        self.heard: list[tuple[bytes, bytes]] = []
        self.connection, self.transport = self.connected()

    def connected(self) -> tuple[RedisConnection, Transport]:
        connection = self.kind(self.clock, lambda channel, payload: self.heard.append((channel, payload)))
        transport = Transport(connection)
        connection.makeConnection(transport)
        return connection, transport

    def send(self, word: str = "PING", timeout: float = 0.05) -> Deferred[Any]:
        return self.connection.send(encode((word,)), timeout)

    def receive(self, data: bytes) -> None:
        self.connection.dataReceived(data)
        self.clock.pump([0] * 30)

    def unavailable(self, asked: Deferred[Any]) -> str:
        return str(self.failureResultOf(asked, RedisUnavailable).value)

    def ended(self) -> str:
        self.assertTrue(self.transport.disconnected or not self.connection.ready)
        return self.successResultOf(self.connection.lost())

    def test_a_pipeline(self) -> None:
        """Many commands are under way at once; replies come in their order."""
        asked = [self.send() for _ in range(5)]
        self.assertEqual(self.transport.value(), b"*1\r\n$4\r\nPING\r\n" * 5)
        self.receive(b"+PONG\r\n:7\r\n$3\r\na\r\n\r\n$-1\r\n*3\r\n+OK\r\n$1\r\n\xff\r\n*1\r\n:1\r\n")
        self.assertEqual([self.successResultOf(d) for d in asked], [b"PONG", 7, b"a\r\n", None, [b"OK", b"\xff", [1]]])
        self.assertEqual((self.connection.unanswered, self.connection.load), (0, 0))

    def split(self, values: list[bytes], sizes: list[int]) -> None:
        """However the replies are cut on their way, the values are what was stored."""
        self.connection, self.transport = self.connected()
        asked = [self.send() for _ in values]
        data = b"".join(b"$%d\r\n%b\r\n" % (len(value), value) for value in values)
        while data:
            for size in sizes:
                self.receive(data[:size])
                data = data[size:]
        self.assertEqual([self.successResultOf(d) for d in asked], values)

    def test_an_error(self) -> None:
        """What the server refuses is told by its code; the connection goes on."""
        asked, after = self.send(), self.send()
        self.receive(b"-WRONGTYPE Operation against a key\r\n+OK\r\n")
        error = self.failureResultOf(asked, RedisRefused).value
        self.assertEqual((error.code, error.sent), ("WRONGTYPE", True))
        self.assertEqual(self.successResultOf(after), b"OK")

    def test_late(self) -> None:
        """The late reply is thrown away when it comes: the next command gets its own."""
        late, other = self.send(timeout=0.05), self.send(timeout=0.5)
        self.clock.advance(0.05)
        self.assertTrue(self.failureResultOf(late, RedisUnavailable).value.sent)
        self.assertNoResult(other)
        self.assertFalse(self.connection.ready)
        self.receive(b"$4\r\nlate\r\n")
        self.assertTrue(self.connection.ready)
        after = self.send()
        self.receive(b"$5\r\nother\r\n$5\r\nafter\r\n")
        self.assertEqual((self.successResultOf(other), self.successResultOf(after)), (b"other", b"after"))
        self.assertEqual(self.connection.timeouts, 1)

    def test_a_busy_process(self) -> None:
        """A reply that came in time is taken, though this process was too busy to read it in time."""
        asked = self.send(timeout=0.05)
        # The timer goes off first, then the socket is read.
        self.clock.callLater(0.05, self.connection.dataReceived, b"+PONG\r\n")
        self.clock.advance(3)
        self.assertEqual(self.successResultOf(asked), b"PONG")
        self.assertTrue(self.connection.ready)

    def test_sent_in_a_turn_that_took_long(self) -> None:
        """A command leaves at the end of the reactor's turn, and Redis has its time from then on; but not for ever."""
        asked = self.send(timeout=0.05)
        self.clock.advance(0.4)
        self.clock.advance(0.04)
        self.receive(b"+PONG\r\n")
        self.assertEqual(self.successResultOf(asked), b"PONG")
        silent = self.send(timeout=0.05)
        for _ in range(3):
            self.assertNoResult(silent)
            self.clock.advance(0.4)
        self.failureResultOf(silent, RedisUnavailable)

    def test_a_process_that_was_stopped(self) -> None:
        """What is late is then given up, but not yet the connection: its reply may be on its way."""
        asked = self.send(timeout=0.05)
        self.clock.advance(3)
        self.unavailable(asked)
        self.receive(b"+PONG\r\n")
        self.assertTrue(self.connection.ready)

    def test_each_has_its_own_time(self) -> None:
        """A short wait begun after a long one ends first."""
        long, short = self.send(timeout=1.0), self.send(timeout=0.01)
        self.clock.advance(0.01)
        self.unavailable(short)
        self.assertNoResult(long)
        self.clock.advance(0.98)
        self.assertNoResult(long)
        self.clock.advance(0.01)
        self.unavailable(long)

    def test_stalled(self) -> None:
        """One whose reply stays away is given up, with all that wait on it."""
        first, last = self.send(timeout=0.05), self.send(timeout=30)
        self.clock.advance(0.05)
        self.unavailable(first)
        self.clock.advance(STALLED_SECONDS)
        self.assertIn("did not answer for 1 s", self.unavailable(last))
        self.assertIn("did not answer", self.ended())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def large(self, receive_timeout: float) -> Deferred[Any]:
        """A command whose reply has begun to arrive."""
        asked = self.connection.send(encode(("GET", "k")), 0.05, receive_timeout)
        self.receive(b"$100\r\n" + b"x" * 10)
        return asked

    def test_a_large_reply(self) -> None:
        """While it arrives it is waited for."""
        asked = self.large(1.0)
        for _ in range(8):
            self.clock.advance(0.05)
            self.receive(b"x" * 10)
        self.assertNoResult(asked)
        self.receive(b"x" * 10 + b"\r\n")
        self.assertEqual(self.successResultOf(asked), b"x" * 100)
        self.assertEqual(self.connection.timeouts, 0)

    def test_a_large_reply_that_stops(self) -> None:
        """The first 50 ms without a byte end it."""
        asked = self.large(1.0)
        self.clock.advance(0.05)
        self.assertNoResult(asked)
        self.clock.advance(0.05)
        self.unavailable(asked)

    def test_a_reply_in_drops(self) -> None:
        """Even so the wait has an end."""
        asked = self.large(0.2)
        for _ in range(5):
            self.clock.advance(0.05)
            self.receive(b"x")
        self.unavailable(asked)

    def test_behind_a_large_reply(self) -> None:
        """Only what arrives is waited for, not what waits behind it."""
        asked, behind = self.large(1.0), self.connection.send(encode(("GET", "k")), 0.05, 1.0)
        self.clock.advance(0.05)
        self.unavailable(behind)
        self.receive(b"x" * 90 + b"\r\n$1\r\ny\r\n")
        self.assertEqual(self.successResultOf(asked), b"x" * 100)

    def test_no_timer_for_each(self) -> None:
        """A thousand commands that are answered cost one timer."""
        for _ in range(1000):
            asked = self.send()
            self.receive(b"+PONG\r\n")
            self.successResultOf(asked)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(0.05)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_whoever_is_told_sends_again(self) -> None:
        """A caller that tries again at once does not disturb the others' waiting."""
        again: list[Deferred[Any]] = []
        first, second = self.send(), self.send()
        first.addErrback(lambda _: again.append(self.send()))
        self.clock.advance(0.05)
        self.unavailable(second)
        self.clock.advance(0.05)
        self.unavailable(again[0])

    def test_given_up_by_its_caller(self) -> None:
        asked, after = self.send(), self.send()
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.receive(b"+one\r\n+two\r\n")
        self.assertEqual(self.successResultOf(after), b"two")

    def test_garbage(self) -> None:
        """A peer that is no Redis is left; nobody gets what it said as a value."""
        for garbage in (b"\x00\x01\x02\r\n", b"$x\r\n", b"*y\r\n", b"\xff\xfe\r\n", b":1x\r\n"):
            self.connection, self.transport = self.connected()
            asked = self.send()
            self.receive(garbage)
            self.clock.advance(0.05)
            self.clock.advance(STALLED_SECONDS)
            self.unavailable(asked)
            self.ended()

    def test_a_reply_to_nothing(self) -> None:
        """Then replies and commands are out of step, and no further one can be believed."""
        self.receive(b"+OK\r\n")
        self.assertIn("a reply to nothing", self.ended())

    def test_turned_away(self) -> None:
        """A server that takes no more clients says so before anything is asked."""
        self.receive(b"-ERR max number of clients reached\r\n")
        self.assertIn("max number of clients", self.ended())

    def test_a_reply_without_an_end(self) -> None:
        asked = self.send(timeout=1000)
        self.receive(b"$%d\r\n" % (MAX_REPLY_BYTES * 2))
        chunk = b"x" * (MAX_REPLY_BYTES // 4 + 1)
        for _ in range(4):
            self.receive(chunk)
        self.assertIn("without an end", self.unavailable(asked))

    def test_lost(self) -> None:
        """Whoever waits is told, and told that the command may have been done."""
        asked = self.send()
        self.connection.connectionLost()
        self.assertTrue(self.failureResultOf(asked, RedisUnavailable).value.sent)
        self.assertIn("lost", self.ended())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_published(self) -> None:
        """What is published comes between replies, and is none."""
        asked = self.send("SUBSCRIBE")
        self.receive(b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\n\xff\xfe\r\n")
        self.assertEqual(self.successResultOf(asked), [b"subscribe", b"c", 1])
        self.assertEqual(self.heard, [(b"c", b"\xff\xfe")])


class UsualTests(Behaviour, SynchronousTestCase):
    """With hiredis where it is installed."""

    kind = RedisConnection

    @given(VALUES, SIZES)
    def test_any_split(self, values: list[bytes], sizes: list[int]) -> None:
        self.split(values, sizes)


class PureTests(Behaviour, SynchronousTestCase):
    """Without hiredis."""

    kind = Pure

    @given(VALUES, SIZES)
    def test_any_split(self, values: list[bytes], sizes: list[int]) -> None:
        self.split(values, sizes)
