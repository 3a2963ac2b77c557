"""Whoever asks Redis has an answer in time, or none."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from twisted.internet import error
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.config import model
from llmproxy.config.redis_url import RedisAddress
from llmproxy.redis import RedisClient, RedisRefused, RedisUnavailable, Script, connect
from llmproxy.redis.supervisor import CONNECT_TIMEOUT, FIRST_DELAY, GREETING_TIMEOUT, MAX_DELAY

COMMAND = re.compile(rb"\*(\d+)\r\n((?:\$\d+\r\n.*?\r\n)+?)(?=\*|$)", re.S)


class Line(StringTransport):
    """One connection as the server sees it."""

    def __init__(self, connection: Any, server: Server) -> None:
        super().__init__()
        self.connection = connection
        self.server = server

    def write(self, data: bytes) -> None:
        super().write(data)
        for words in commands(data):
            self.server.commands.append(words)
            reply = self.server.answer(words)
            if reply:
                self.server.clock.callLater(0, self.connection.dataReceived, reply)

    def abortConnection(self) -> None:
        if not self.disconnected:
            super().abortConnection()
            self.lose()

    def lose(self) -> None:
        self.disconnected = True
        if self in self.server.lines:
            self.server.lines.remove(self)
        self.connection.connectionLost()


def commands(data: bytes) -> list[list[bytes]]:
    return [re.findall(rb"\$\d+\r\n(.*?)\r\n", match[2], re.S) for match in COMMAND.finditer(data)]


class Server:
    """What is at the address, and an endpoint that leads there.

    @ivar up: Whether connections are taken; C{None}: nobody says.
    @ivar answers: By the command's first word.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.up: bool | None = True
        self.attempts = 0
        self.lines: list[Line] = []
        self.commands: list[list[bytes]] = []
        self.answers: dict[bytes, bytes] = {}

    def answer(self, words: list[bytes]) -> bytes:
        usual = {b"PING": b"+PONG\r\n", b"AUTH": b"+OK\r\n", b"SELECT": b"+OK\r\n"}
        if words[0] == b"SUBSCRIBE" and b"SUBSCRIBE" not in self.answers:
            return b"*3\r\n$9\r\nsubscribe\r\n$%d\r\n%b\r\n:1\r\n" % (len(words[1]), words[1])
        return self.answers.get(words[0], usual.get(words[0], b""))

    def connect(self, factory: Any) -> Deferred[Any]:
        self.attempts += 1
        if self.up is None:
            return Deferred()
        if not self.up:
            return fail(error.ConnectionRefusedError())
        connection = factory.buildProtocol(None)
        self.lines.append(Line(connection, self))
        connection.makeConnection(self.lines[-1])
        return succeed(connection)


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.server = Server(self.clock)
        self.warnings: list[str] = []
        globalLogPublisher.addObserver(self.hear)
        self.addCleanup(globalLogPublisher.removeObserver, self.hear)

    def hear(self, event: LogEvent) -> None:
        if event["log_namespace"].startswith("llmproxy.redis.") and event["log_level"] >= LogLevel.warn:
            self.warnings.append(formatEvent(event))

    def redis(self, address: RedisAddress | None = None, **more: Any) -> RedisClient:
        """A started one; what it connects to has answered."""
        redis = RedisClient(self.server, address or RedisAddress(), self.clock, random=lambda: 1.0, **more)  # type: ignore[arg-type]
        redis.startService()
        self.addCleanup(redis.stopService)
        self.settle()
        return redis

    def settle(self) -> None:
        self.clock.pump([0] * 20)

    def unavailable(self, asked: Deferred[Any]) -> str:
        return str(self.failureResultOf(asked, RedisUnavailable).value)


class CallTests(Case):
    def test_answered(self) -> None:
        redis = self.redis()
        self.server.answers[b"GET"] = b"$1\r\nv\r\n"
        asked = redis.call("GET", "k")
        self.settle()
        self.assertEqual(self.successResultOf(asked), b"v")
        self.assertTrue(redis.available)
        self.assertEqual((redis.errors, redis.timeouts, redis.refused, self.warnings), (0, 0, 0, []))

    def test_down(self) -> None:
        """Nothing waits: a command fails in the same turn."""
        self.server.up = False
        redis = self.redis()
        self.assertFalse(redis.available)
        self.assertIn("no connection", self.unavailable(redis.call("GET", "k")))

    def test_silent(self) -> None:
        """The first command waits for its time; then none is sent until the server has answered."""
        redis = self.redis(connections=1)
        asked = redis.call("GET", "k")
        self.clock.advance(0.05)
        self.assertTrue(self.failureResultOf(asked, RedisUnavailable).value.sent)
        self.assertFalse(self.failureResultOf(redis.call("GET", "k"), RedisUnavailable).value.sent)
        self.assertEqual(redis.timeouts, 1)
        self.server.lines[0].connection.dataReceived(b"$-1\r\n")
        self.assertTrue(redis.available)

    def test_its_own_time(self) -> None:
        redis = self.redis(timeout=7.0)
        asked, short = redis.call("GET", "k"), redis.call("GET", "k", timeout=1.0)
        asked.addErrback(lambda _: None)
        self.clock.advance(1)
        self.unavailable(short)
        self.assertNoResult(asked)

    def test_the_time_outs_of_a_lost_connection_are_not_forgotten(self) -> None:
        redis = self.redis(connections=1)
        self.unavailable_after(redis.call("GET", "k"), 0.05)
        self.server.lines[0].lose()
        self.clock.pump([1.0] * 5)
        self.assertEqual(redis.timeouts, 1)

    def unavailable_after(self, asked: Deferred[Any], seconds: float) -> None:
        self.clock.advance(seconds)
        self.unavailable(asked)

    def test_too_many(self) -> None:
        """What waits is bounded: one more is refused, and counted."""
        redis = self.redis(unanswered=3, timeout=10.0)
        waiting = [redis.call("GET", "k") for _ in range(3)]
        self.assertIn("Too many", self.unavailable(redis.call("GET", "k")))
        self.assertEqual(redis.refused, 1)
        for asked in waiting:
            self.assertNoResult(asked)
            asked.addErrback(lambda _: None)

    def test_too_much(self) -> None:
        """So are the bytes that wait."""
        redis = self.redis(unanswered_bytes=1000, timeout=10.0)
        redis.call("SET", "k", b"x" * 600).addErrback(lambda _: None)
        self.assertIn("Too many", self.unavailable(redis.call("SET", "k", b"x" * 600)))
        redis.call("GET", "k").addErrback(lambda _: None)
        self.assertEqual(redis.refused, 1)

    def test_a_large_value_does_not_stand_in_the_way(self) -> None:
        redis = self.redis(timeout=10.0)
        redis.call("SET", "k", b"x" * 100_000).addErrback(lambda _: None)
        for _ in range(5):
            redis.call("GET", "k").addErrback(lambda _: None)
        large, small = sorted(self.server.lines, key=lambda line: -len(line.value()))
        self.assertEqual((large.value().count(b"GET"), small.value().count(b"GET")), (0, 5))

    def test_an_error(self) -> None:
        redis = self.redis()
        self.server.answers[b"GET"] = b"-WRONGTYPE Operation against a key\r\n"
        asked = redis.call("GET", "k")
        self.settle()
        self.assertEqual(self.failureResultOf(asked, RedisRefused).value.code, "WRONGTYPE")
        self.assertEqual((redis.errors, len(self.warnings)), (1, 1))

    def test_a_script(self) -> None:
        """The server is told a script once; which it may forget at any time."""
        redis = self.redis()
        script = Script("return 1")
        self.server.answers |= {b"EVALSHA": b"-NOSCRIPT No matching script.\r\n", b"EVAL": b":1\r\n"}
        asked = redis.script(script, ["k"], [2])
        self.settle()
        self.assertEqual(self.successResultOf(asked), 1)
        self.assertEqual(self.server.commands[-1], [b"EVAL", b"return 1", b"1", b"k", b"2"])
        self.server.answers[b"EVALSHA"] = b":2\r\n"
        asked = redis.script(script, ["k"], [2])
        self.settle()
        self.assertEqual(self.successResultOf(asked), 2)
        self.assertEqual(self.server.commands[-1], [b"EVALSHA", script.digest, b"1", b"k", b"2"])
        self.assertEqual((redis.errors, self.warnings), (0, []))


class ConnectingTests(Case):
    def test_let_in(self) -> None:
        self.redis(RedisAddress(user="u", password="p", database=3), connections=1)
        self.assertEqual(self.server.commands, [[b"AUTH", b"u", b"p"], [b"SELECT", b"3"], [b"PING"]])

    def test_not_let_in(self) -> None:
        """A wrong password is a warning, tried again until it is right."""
        self.server.answers[b"AUTH"] = b"-WRONGPASS invalid username-password pair\r\n"
        redis = self.redis(RedisAddress(password="hunter2"))
        self.assertFalse(redis.available)
        self.assertEqual(len(self.warnings), 1)
        self.assertIn("WRONGPASS", self.warnings[0])
        self.assertNotIn("hunter2", self.warnings[0])
        self.server.answers.clear()
        self.clock.pump([FIRST_DELAY] * 3)
        self.settle()
        self.assertTrue(redis.available)

    def test_loading(self) -> None:
        """A server that still reads its data is not used."""
        self.server.answers[b"PING"] = b"-LOADING Redis is loading the dataset in memory\r\n"
        self.assertFalse(self.redis().available)

    def test_another_protocol(self) -> None:
        self.server.answers[b"PING"] = b"+HTTP/1.1 400\r\n"
        self.assertFalse(self.redis().available)
        self.assertIn("does not speak", self.warnings[0])

    def test_accepts_and_says_nothing(self) -> None:
        self.server.answers[b"PING"] = b""
        self.redis(connections=1)
        self.clock.advance(GREETING_TIMEOUT)
        self.assertEqual(self.server.lines, [])

    def test_does_not_accept(self) -> None:
        """The wait for a connection has an end, and a next one."""
        self.server.up = None
        redis = self.redis(connections=1)
        self.clock.advance(CONNECT_TIMEOUT)
        self.server.up = True
        self.clock.advance(MAX_DELAY)
        self.settle()
        self.assertTrue(redis.available)

    def test_pauses(self) -> None:
        """Attempts become rare, but not too rare; the warning is one for each minute."""
        self.server.up = False
        redis = self.redis(connections=1)
        self.clock.pump([FIRST_DELAY] * 600)
        self.assertGreater(self.server.attempts, 30)
        self.assertLess(self.server.attempts, 40)
        self.assertEqual(len(self.warnings), 1)
        self.clock.pump([FIRST_DELAY] * 40)
        self.assertEqual(len(self.warnings), 2)
        self.server.up = True
        self.clock.pump([FIRST_DELAY] * 25)
        self.assertTrue(redis.available)

    def test_accepts_and_leaves(self) -> None:
        """A server that drops everybody at once is not called in a loop."""
        self.server.answers[b"PING"] = b"+PONG\r\n"
        redis = self.redis(connections=1)
        for _ in range(600):
            for line in tuple(self.server.lines):
                line.lose()
            self.clock.advance(FIRST_DELAY)
            self.settle()
        self.assertLess(self.server.attempts, 50)
        self.clock.pump([FIRST_DELAY] * 30)
        self.assertTrue(redis.available)

    def test_back_after_a_restart(self) -> None:
        redis = self.redis()
        self.clock.advance(100)
        for line in tuple(self.server.lines):
            line.lose()
        self.assertFalse(redis.available)
        self.clock.advance(FIRST_DELAY)
        self.settle()
        self.assertTrue(redis.available)

    def test_stopped(self) -> None:
        """In whatever state: nothing is left behind, and nothing is said."""
        states: list[Callable[[], object]] = [
            lambda: None,
            lambda: setattr(self.server, "up", False),
            lambda: setattr(self.server, "up", None),
            lambda: self.server.answers.update({b"PING": b""}),
        ]
        for state in states:
            self.server.up = True
            state()
            redis = self.redis()
            redis.subscribe("c", lambda payload: None)
            self.settle()
            said = len(self.warnings)
            stopping: Any = redis.stopService()
            self.successResultOf(stopping)
            self.assertEqual((self.server.lines, self.clock.getDelayedCalls()), ([], []))
            self.assertEqual(len(self.warnings), said)
            self.unavailable(redis.call("PING"))


class SubscribeTests(Case):
    def setUp(self) -> None:
        super().setUp()
        self.heard: list[bytes] = []
        self.listening = self.redis(connections=1)
        self.listening.subscribe("c", self.heard.append, lambda: self.heard.append(b"(missed)"))
        self.settle()

    def published(self, payload: bytes, channel: bytes = b"c") -> None:
        message = b"*3\r\n$7\r\nmessage\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n"
        self.server.lines[-1].connection.dataReceived(message % (len(channel), channel, len(payload), payload))
        self.settle()

    def test_heard(self) -> None:
        self.assertTrue(self.listening.listening)
        self.published(b"1")
        self.published(b"2", b"other")
        self.assertEqual(self.heard, [b"(missed)", b"1"])

    def test_another_channel(self) -> None:
        self.listening.subscribe("d", lambda payload: self.heard.append(b"d:" + payload))
        self.settle()
        self.published(b"1", b"d")
        self.published(b"2")
        self.assertEqual(self.heard, [b"(missed)", b"d:1", b"2"])

    def test_another_channel_while_connecting(self) -> None:
        """Whenever one begins to listen, it hears."""
        self.server.answers[b"SUBSCRIBE"] = b""
        self.server.lines[-1].lose()
        self.clock.advance(2 * FIRST_DELAY)
        self.assertFalse(self.listening.listening)
        self.listening.subscribe("d", self.heard.append)
        del self.server.answers[b"SUBSCRIBE"]
        self.server.lines[-1].connection.dataReceived(self.server.answer([b"SUBSCRIBE", b"c"]))
        self.settle()
        self.assertTrue(self.listening.listening)
        self.assertEqual(self.server.commands[-1], [b"SUBSCRIBE", b"d"])
        self.published(b"1", b"d")
        self.assertEqual(self.heard[-1], b"1")

    def test_lost(self) -> None:
        """Listening begins again by itself, and the listener hears that something may have been missed."""
        self.server.lines[-1].lose()
        self.assertFalse(self.listening.listening)
        self.clock.advance(2 * FIRST_DELAY)
        self.settle()
        self.published(b"1")
        self.assertEqual(self.heard, [b"(missed)", b"(missed)", b"1"])

    def test_gone_without_a_word(self) -> None:
        """A server that does not answer is left, though nobody sends anything."""
        self.server.answers[b"PING"] = b""
        self.clock.advance(1)
        self.clock.advance(1)
        self.assertFalse(self.listening.listening)

    def test_looked_after(self) -> None:
        for _ in range(20):
            self.clock.advance(1)
            self.settle()
        self.assertTrue(self.listening.listening)
        self.assertEqual(self.heard, [b"(missed)"])

    def test_a_listener_that_fails(self) -> None:
        """The others still hear."""

        def broken(payload: bytes) -> None:
            raise ValueError(payload)

        other: list[bytes] = []
        self.listening.subscribe("d", broken)
        self.listening.subscribe("d", other.append)
        self.settle()
        self.published(b"1", b"d")
        self.assertEqual(other, [b"1"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_not_subscribed(self) -> None:
        """A server that does not subscribe is not believed to."""
        self.server.answers[b"SUBSCRIBE"] = b"-NOPERM this user has no permissions\r\n"
        self.server.lines[-1].lose()
        self.clock.pump([FIRST_DELAY] * 4)
        self.settle()
        self.assertFalse(self.listening.listening)


class ConnectTests(SynchronousTestCase):
    def test_no_authorities(self) -> None:
        """A file that is not there is a mistake in the settings, told at the start."""
        settings = model.Redis(url="rediss://localhost", ca_file="/nowhere/ca.pem")
        with self.assertRaises(ValueError) as caught:
            connect(settings, MemoryReactorClock())
        self.assertIn("redis.ca_file: /nowhere/ca.pem", str(caught.exception))
