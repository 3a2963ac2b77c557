"""The reactor passes Twisted's own tests of reactors that concern TCP, timers, threads and descriptors."""

from __future__ import annotations

import select
import socket
import time
import unittest
from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import Any, ClassVar
from unittest.mock import patch

from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import ClientFactory, Protocol, ServerFactory, connectionDone
from twisted.internet.test import test_core, test_fdset, test_socket, test_tcp, test_threads, test_time
from twisted.python.failure import Failure

from llmproxy.wire.reactor import LeanEPollReactor
from llmproxy.wire.write_coalescing import WriteCoalescer

NAME = "llmproxy.wire.reactor.LeanEPollReactor"
BUILDERS = (
    test_core.SystemEventTestsBuilder,
    test_fdset.ReactorFDSetTestsBuilder,
    test_socket.AdoptStreamPortErrorsTestsBuilder,
    test_socket.IReactorSocketVerificationTestsBuilder,
    test_tcp.AbortConnectionTests,
    test_tcp.AdoptStreamConnectionTestsBuilder,
    test_tcp.TCP4ClientTestsBuilder,
    test_tcp.TCP4ConnectorTestsBuilder,
    test_tcp.TCPConnectionTestsBuilder,
    test_tcp.TCPFDPortTestsBuilder,
    test_tcp.TCPPortTestsBuilder,
    test_tcp.TCPTransportTestsBuilder,
    test_threads.ThreadTestsBuilder,
    test_time.TimeTestsBuilder,
)
LEFT_OUT = {
    "test_logPrefix": "there is no logging context around a read: that is the point",
    "test_lostFileDescriptor": "epoll does not notice; Twisted leaves its own EPollReactor out by name",
    "test_badContext": "TLS with a context of a kind that Twisted warns of",
}


def _cases() -> dict[str, Any]:
    """Each of Twisted's builders, for this reactor alone."""
    made = {}
    for builder in BUILDERS:
        skipped = {
            name: unittest.skip(why)(lambda self: None) for name, why in LEFT_OUT.items() if hasattr(builder, name)
        }
        ours = type(builder.__name__, (builder,), {"_reactors": [NAME], **skipped})
        made.update(ours.makeTestCaseClasses())
    return made


globals().update(_cases())


class EndsOfConnections(unittest.TestCase):
    """A connection that is closed while nothing waits to be written ends with the turn; all else as ever."""

    def setUp(self) -> None:
        self.reactor: Any = LeanEPollReactor()
        self.factory = ServerFactory()
        self.factory.protocol = Recorder
        port = self.reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        self.client = socket.create_connection(("127.0.0.1", port.getHost().port), timeout=5)
        self.addCleanup(self._close)
        Recorder.made.clear()
        self.turn(lambda: bool(Recorder.made))
        self.server = Recorder.made[0]

    def _close(self) -> None:
        self.client.close()
        for selectable in self.reactor.removeAll():
            selectable.connectionLost(Failure(CONNECTION_DONE))
        for descriptor in self.reactor._internalReaders:
            descriptor.close() if hasattr(descriptor, "close") else None

    def turn(self, until: Callable[[], bool]) -> None:
        """Turns of the reactor until this is so."""
        end = time.monotonic() + 5
        while not until():
            self.assertLess(time.monotonic(), end)
            self.reactor.iterate(0.01)

    def received(self) -> bytes:
        """What the client gets until the end."""
        return b"".join(iter(lambda: self.client.recv(65536), b""))

    def test_at_once(self) -> None:
        """It is not lost within the call, and is after one turn that waits for nothing."""
        self.server.transport.write(b"last")
        self.turn(lambda: not self.server.transport.dataBuffer and not self.server.transport._tempDataLen)
        self.server.transport.loseConnection()
        self.assertEqual(self.server.lost, [])
        self.reactor.doPoll(60.0)
        self.assertEqual(self.server.lost, [ConnectionDone])
        self.assertEqual(self.received(), b"last")

    def test_what_waits_is_sent_first(self) -> None:
        """Also what is written after the connection was closed, as with every transport of Twisted's."""
        for before, behind in ((b"a" * 4_000_000, b""), (b"", b"b" * 4_000_000), (b"a", b"b")):
            with self.subTest(before=len(before), behind=len(behind)):
                transport = self.server.transport
                transport.write(before)
                transport.loseConnection()
                transport.write(behind)
                thread = Thread(target=lambda: self.got.append(self.received()))
                self.got: list[bytes] = []
                thread.start()
                self.turn(lambda: bool(self.server.lost))
                thread.join(5)
                self.assertEqual((self.got, self.server.lost), ([before + behind], [ConnectionDone]))
                self._close()
                self.setUp()

    def test_nothing_is_read_any_more(self) -> None:
        """What had come in the same turn is not handed on after the end."""
        self.server.transport.loseConnection()
        self.client.sendall(b"late")
        self.turn(lambda: bool(self.server.lost))
        self.assertEqual(self.server.data, b"")

    def test_aborted_after_all(self) -> None:
        self.server.transport.loseConnection()
        self.server.transport.abortConnection()
        self.turn(lambda: bool(self.server.lost))
        self.reactor.iterate(0)
        self.assertEqual(self.server.lost, [ConnectionAborted])

    def test_one_that_fails(self) -> None:
        """It takes no other with it."""
        other = socket.create_connection(self.client.getpeername(), timeout=5)
        self.addCleanup(other.close)
        self.turn(lambda: len(Recorder.made) == 2)
        failing, healthy = Recorder.made
        failing.fails = True
        failing.transport.loseConnection()
        healthy.transport.loseConnection()
        with patch("twisted.python.log.err") as logged:
            self.reactor.doPoll(60.0)
        logged.assert_called_once_with()
        self.assertEqual((failing.lost, healthy.lost), ([ConnectionDone], [ConnectionDone]))


class EndsOfTurns(unittest.TestCase):
    def setUp(self) -> None:
        self.reactor: Any = LeanEPollReactor()
        self.addCleanup(self.reactor.removeAll)
        self.called: list[str] = []

    def test_within_the_turn(self) -> None:
        """In order, each once, and a turn that has something to end waits for nothing else."""
        for name in "ab":
            self.reactor.at_end_of_turn(partial(self.called.append, name))
        self.assertEqual(self.called, [])
        self.reactor.doPoll(60.0)
        self.reactor.doPoll(0)
        self.assertEqual(self.called, ["a", "b"])

    def test_one_leads_to_another(self) -> None:
        """That comes with the next turn: timers and those who have arrived come in between."""
        self.reactor.at_end_of_turn(lambda: self.reactor.at_end_of_turn(partial(self.called.append, "next")))
        self.reactor.doPoll(60.0)
        self.assertEqual(self.called, [])
        self.reactor.doPoll(60.0)
        self.assertEqual(self.called, ["next"])

    def test_messages_that_wait_for_it(self) -> None:
        """They leave with the turn, and no timer is made for them."""
        coalescer = WriteCoalescer(self.reactor)
        self.assertTrue(coalescer.wait(partial(self.called.append, "left"), always=True))
        self.assertEqual((self.reactor.getDelayedCalls(), self.called), ([], []))
        self.reactor.doPoll(60.0)
        self.assertEqual(self.called, ["left"])


class Order(unittest.TestCase):
    def test_what_comes_from_servers_is_read_last(self) -> None:
        """Whatever came first; and nothing is remembered of a connection that is over."""
        reactor: Any = LeanEPollReactor()
        factory, far = ServerFactory(), socket.create_server(("127.0.0.1", 0))
        factory.protocol = Recorder
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        Recorder.made.clear()
        reactor.connectTCP("127.0.0.1", far.getsockname()[1], OneClient())
        client = socket.create_connection(("127.0.0.1", port.getHost().port), timeout=5)
        self._turn(reactor, lambda: len(Recorder.made) == 2)
        provider, _ = far.accept()
        for each in (far, port.socket, provider, client):
            self.addCleanup(each.close)
        provider.sendall(b"provider")
        client.sendall(b"client")
        read, ends = list[bytes](), [made.transport.fileno() for made in Recorder.made]
        self._turn(reactor, lambda: len(select.select(ends, [], [], 0)[0]) == 2, turns=False)
        for made in Recorder.made:
            made.read = read
        reactor.doPoll(0.0)
        self.assertEqual(read, [b"client", b"provider"])
        self.assertEqual(len(reactor.read_last), 1)
        provider.close()
        client.close()
        self._turn(reactor, lambda: all(made.lost for made in Recorder.made))
        self.assertEqual(reactor.read_last, set())

    def _turn(self, reactor: Any, until: Callable[[], bool], *, turns: bool = True) -> None:
        end = time.monotonic() + 5
        while not until():
            self.assertLess(time.monotonic(), end)
            if turns:
                reactor.iterate(0.01)


class OneClient(ClientFactory):
    protocol = None
    noisy = False

    def buildProtocol(self, address: object) -> Recorder:
        return Recorder()


class Recorder(Protocol):
    """Remembers what it was told."""

    made: ClassVar[list[Recorder]] = []
    transport: Any
    fails = False

    def connectionMade(self) -> None:
        self.data, self.lost, self.read = b"", [], []
        self.made.append(self)

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self.read.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.append(reason.type)
        if self.fails:
            raise RuntimeError("on purpose")
