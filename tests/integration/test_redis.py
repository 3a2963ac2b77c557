"""The guarded Redis client against a real server that is treated badly, and against peers that are none."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.protocols.portforward import ProxyFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from llmproxy.config import model
from llmproxy.redis import RedisClient, RedisUnavailable, Script, connect
from llmproxy.redis.connection import STALLED_SECONDS
from tests.support.processes import HOST, free_port
from tests.support.redis_server import RedisServer
from tests.unit.wire.authority import Authority

reactor: Any = _reactor
BODY = bytes(range(256)) * 8192  # 2 MiB
SOON = 0.3  # seconds within which a wait of 50 ms is over on a busy machine


class Case(TestCase):
    options: tuple[str, ...] = ()

    def setUp(self) -> None:
        self.server = RedisServer(Path(self.mktemp()), *self.options)
        self.server.start()
        self.addCleanup(self.server.kill)

    async def redis(self, url: str = "", **settings: Any) -> RedisClient:
        """A started one."""
        redis = connect(model.Redis(url=url or self.server.url, **settings), reactor, random.random)
        redis.startService()
        self.addCleanup(redis.stopService)
        await self.until(lambda: redis.available)
        return redis

    async def until(self, said: Any, seconds: float = 5.0) -> float:
        """Wait until it is true; how long that took."""
        start = reactor.seconds()
        while not said():
            self.assertLess(reactor.seconds() - start, seconds, "it did not happen in time")
            await deferLater(reactor, 0.01)
        return float(reactor.seconds() - start)

    async def fails(self, redis: RedisClient) -> float:
        """That a command has no reply; how long that took."""
        start = reactor.seconds()
        with self.assertRaises(RedisUnavailable):
            await redis.call("PING")
        return float(reactor.seconds() - start)

    def fails_at_once(self, redis: RedisClient) -> None:
        """That a command is not even sent."""
        self.failureResultOf(redis.call("PING"), RedisUnavailable)


class ServerTests(Case):
    async def test_large_values(self) -> None:
        """2 MiB of any bytes come back as they were stored."""
        redis = await self.redis()
        await redis.call("SET", "k", BODY, "PX", 60_000, timeout=5.0)
        self.assertEqual(await redis.call("GET", "k", timeout=5.0), BODY)

    async def test_databases(self) -> None:
        one, other = await self.redis(), await self.redis(self.server.url[:-1] + "7")
        await one.call("SET", "k", "v")
        self.assertEqual([await one.call("GET", "k"), await other.call("GET", "k")], [b"v", None])

    async def test_a_socket(self) -> None:
        redis = await self.redis(f"unix://{self.server.socket.absolute()}?db=3")
        self.assertEqual(await redis.call("PING"), b"PONG")

    async def test_killed_and_back(self) -> None:
        """Commands fail at once, and work again soon after the server does."""
        redis = await self.redis()
        self.server.kill()
        await self.until(lambda: not redis.available)
        for _ in range(20):
            self.fails_at_once(redis)
        self.server.start()
        await self.until(lambda: redis.available)
        self.assertEqual(await redis.call("PING"), b"PONG")

    @pytest.mark.alone
    @pytest.mark.long("2 s: a server that is frozen, as one that is killed")
    async def test_frozen_and_back(self) -> None:
        """Few commands wait their 50 ms; then none does, and after thawing they are answered again."""
        redis = await self.redis()
        self.server.freeze()
        waited = 0
        while redis.available:
            self.assertLess(await self.fails(redis), SOON)
            waited += 1
        self.assertLessEqual(waited, 2)  # one for each connection
        for _ in range(20):
            self.fails_at_once(redis)
        await deferLater(reactor, STALLED_SECONDS + 0.2)
        self.fails_at_once(redis)
        self.server.thaw()
        await self.until(lambda: redis.available)
        self.assertEqual(await redis.call("PING"), b"PONG")

    async def test_frozen_for_a_moment(self) -> None:
        """The late replies go to nobody, and the same connections are used again."""
        redis = await self.redis()
        connections = int((await redis.call("INFO", "stats")).split(b"total_connections_received:")[1].split()[0])
        await redis.call("SET", "a", "of a")
        self.server.freeze()
        late = [redis.call("GET", "a") for _ in range(5)]
        for asked in late:
            with self.assertRaises(RedisUnavailable):
                await asked
        self.server.thaw()
        await self.until(lambda: redis.available)
        self.assertEqual(await redis.call("ECHO", "b"), b"b")
        self.assertIn(b"total_connections_received:%d\r" % connections, await redis.call("INFO", "stats"))

    async def test_forgotten_scripts(self) -> None:
        redis, script = await self.redis(), Script("return {KEYS[1], ARGV[1]}")
        for _ in range(2):
            for _ in range(2):
                self.assertEqual(await redis.script(script, ["k"], [b"\xff"]), [b"k", b"\xff"])
            await redis.call("SCRIPT", "FLUSH")

    @pytest.mark.alone
    async def test_busy(self) -> None:
        """While the server works on something long nobody waits for it longer than 50 ms; the long one is answered."""
        redis = await self.redis()
        long = redis.call("DEBUG", "SLEEP", "0.5", timeout=5.0)
        waits = [await self.fails(redis) for _ in range(10)]
        self.assertLess(max(waits), SOON)
        self.assertEqual(await long, b"OK")
        await self.until(lambda: redis.available)

    async def test_listening(self) -> None:
        """After a restart it is listened to again, and told that something may be missing."""
        redis, heard = await self.redis(), list[bytes]()
        redis.subscribe("c", heard.append, lambda: heard.append(b"(missed)"))
        await self.until(lambda: redis.listening)
        self.assertEqual(await redis.publish("c", b"\xff1"), 1)
        await self.until(lambda: len(heard) == 2)
        self.server.kill()
        await self.until(lambda: not redis.listening)
        self.server.start()
        await self.until(lambda: redis.listening and redis.available)
        await redis.publish("c", "2")
        await self.until(lambda: len(heard) == 4)
        self.assertEqual(heard, [b"(missed)", b"\xff1", b"(missed)", b"2"])

    @pytest.mark.alone
    @pytest.mark.long("2 s: silence of a server that is frozen, as that of one that is gone")
    async def test_listening_to_a_frozen_server(self) -> None:
        """Nobody speaks, and still it is noticed."""
        redis = await self.redis()
        redis.subscribe("c", lambda payload: None)
        await self.until(lambda: redis.listening)
        self.server.freeze()
        await self.until(lambda: not redis.listening)
        self.server.thaw()
        await self.until(lambda: redis.listening)


class PasswordTests(Case):
    options = ("--requirepass", "p@ss w/ord")

    async def test_passwords(self) -> None:
        redis = await self.redis(f"redis://:p%40ss%20w%2Ford@{HOST}:{self.server.port}/1")
        self.assertEqual(await redis.call("PING"), b"PONG")
        for url in (f"redis://:wrong@{HOST}:{self.server.port}", f"redis://{HOST}:{self.server.port}"):
            redis = connect(model.Redis(url=url), reactor, random.random)
            redis.startService()
            self.addCleanup(redis.stopService)
            await self.until(lambda redis=redis: redis.errors >= 4)
            self.assertFalse(redis.available)
            self.fails_at_once(redis)

    async def test_users(self) -> None:
        self.server.kill()
        self.server = RedisServer(Path(self.mktemp()))
        self.server.start()
        self.addCleanup(self.server.kill)
        self.server.command("ACL", "SETUSER", "proxy", "on", ">secret", "~llmproxy:*", "+@all")
        redis = await self.redis(f"redis://proxy:secret@{HOST}:{self.server.port}")
        self.assertEqual(await redis.call("SET", "llmproxy:k", "v"), b"OK")
        await self.fails_with(redis, "NOPERM")

    async def fails_with(self, redis: RedisClient, code: str) -> None:
        with self.assertRaises(RedisUnavailable) as caught:
            await redis.call("SET", "k", "v")
        self.assertIn(code, str(caught.exception))


class TLSTests(Case):
    """Redis behind TLS: only where its certificate is right."""

    async def listen(self, name: str) -> int:
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        self.authority = Authority(folder)
        forward = ProxyFactory(HOST, self.server.port)
        forward.noisy = False
        port = reactor.listenSSL(0, forward, self.authority.server(name, 0), interface=HOST)
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    async def test_verified(self) -> None:
        port = await self.listen("localhost")
        redis = await self.redis(f"rediss://localhost:{port}", ca_file=self.authority.ca_file)
        await redis.call("SET", "k", BODY, timeout=5.0)
        self.assertEqual(await redis.call("GET", "k", timeout=5.0), BODY)

    async def test_not_verified(self) -> None:
        """A wrong name, or an authority that nobody trusts: not one command is sent."""
        for name, trusted in (("other.example", True), ("localhost", False)):
            port = await self.listen(name)
            ca_file = self.authority.ca_file if trusted else ""
            redis = connect(
                model.Redis(url=f"rediss://:secret@localhost:{port}", ca_file=ca_file), reactor, random.random
            )
            redis.startService()
            await self.until(lambda redis=redis: redis.errors >= 3)
            self.assertFalse(redis.available)
            await redis.stopService()  # type: ignore[misc]


class Garbage(Protocol):
    """Says what it was told to, whatever it hears."""

    def connectionMade(self) -> None:
        self.factory.lines.add(self)  # type: ignore[union-attr]
        self._say(self.factory.first)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self._say(self.factory.then)  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.lines.discard(self)  # type: ignore[union-attr]

    def _say(self, data: bytes | None) -> None:
        if data is None:
            self.transport.loseConnection()  # type: ignore[union-attr]
        else:
            self.transport.write(data)  # type: ignore[union-attr]


class GarbageTests(TestCase):
    """Whatever is at the address, the proxy does not wait for it, and says so once."""

    async def setUp(self) -> None:
        self.factory: Any = Factory.forProtocol(Garbage)
        self.factory.noisy = False
        self.factory.lines = set()
        self.port = reactor.listenTCP(free_port(), self.factory, interface=HOST)
        address = self.port.getHost()
        self.url = f"redis://:secret@{HOST}:{address.port}"
        self.probe = TCP4ClientEndpoint(reactor, HOST, address.port)

    async def tearDown(self) -> None:
        await self.port.stopListening()
        while self.factory.lines:
            await deferLater(reactor, 0.01)

    async def test_garbage(self) -> None:
        http = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
        for first, then in (
            (b"", http),
            (http, http),
            (b"", bytes(range(256)) * 40),
            (b"\xff" * 1000, b""),
            (b"", b"$-2\r\n*-5\r\n"),
            (b"+OK\r\n" * 50, b"+OK\r\n"),
            (b"", None),  # accepts, and leaves during AUTH
            (None, None),
            (b"", b""),
        ):
            self.factory.first, self.factory.then = first, then
            redis = connect(model.Redis(url=self.url), reactor, random.random)
            redis.startService()
            await deferLater(reactor, 0.25)
            start = reactor.seconds()
            asked: list[Deferred[Any]] = [redis.call("PING") for _ in range(50)]
            for one in asked:
                with self.assertRaises(RedisUnavailable):
                    await one
            self.assertLess(reactor.seconds() - start, SOON, (first, then))
            self.assertFalse(redis.available)
            await redis.stopService()  # type: ignore[misc]
            self.assertEqual(self.flushLoggedErrors(), [])
