"""TLS with a shorter way: what arrives is what was sent, however the records are cut, and every end is seen."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import TestCase
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from llmproxy.wire.tls_transport import MAX_READ_BYTES, RecordBoundaries, send_directly
from tests.unit.wire.authority import Authority, ServerContext


class _Collected(Protocol):
    """What came, piece by piece, and why it ended."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.reason: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.pieces.append(data)

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        self.reason = reason

    @property
    def received(self) -> bytes:
        return b"".join(self.pieces)


class _Peer:
    """A client, by Python's own module, without sockets."""

    def __init__(self, ca_file: str, *, newest: bool = True) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=ca_file)
        if not newest:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def attempt(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLZeroReturnError:
            return b""


class _Pair:
    """A connection of ours, and its peer; what ours writes is in C{below}, as a transport has it.

    @ivar early: What it writes before the handshake; C{answered}: what the peer read at its end.
    """

    def __init__(self, context: ServerContext, ca_file: str, *, newest: bool = True, early: bytes = b"") -> None:
        self.own = _Collected()
        factory = TLSMemoryBIOFactory(context, False, Factory.forProtocol(lambda: self.own), Clock())
        self.tls: Any = send_directly(factory).buildProtocol(None)
        self.below = StringTransport()
        self.peer = _Peer(ca_file, newest=newest)
        self.tls.makeConnection(self.below)
        if early:
            self.tls.write(early)
        self.answered = b""
        for _ in range(4):
            over = self.peer.attempt(lambda: self.peer.tls.do_handshake() or True)
            self.deliver(self.peer.outgoing.read())
            if over:
                self.answered += self.taken()
            else:
                self.peer.incoming.write(self.below.value())
                self.below.clear()

    def deliver(self, data: bytes, sizes: tuple[int, ...] = ()) -> None:
        for size in sizes:
            piece, data = data[:size], data[size:]
            if piece:
                self.tls.dataReceived(piece)
        if data:
            self.tls.dataReceived(data)

    def taken(self) -> bytes:
        """What the peer reads of what was written; C{ended}: whether it was told that this was all."""
        self.peer.incoming.write(self.below.value())
        self.below.clear()
        self.ended, taken = False, b""
        while (piece := self.peer.attempt(lambda: self.peer.tls.read(65536))) is not None:
            if not piece:
                self.ended = True
                break
            taken += piece
        return taken


@st.composite
def _cut(draw: st.DrawFn) -> tuple[list[bytes], tuple[int, ...]]:
    """Messages, and how their records are cut on the way."""
    size = st.one_of(st.integers(1, 40), st.integers(16_000, 40_000))
    messages = [bytes([65 + n % 26]) * draw(size) for n in range(draw(st.integers(1, 5)))]
    return messages, tuple(draw(st.lists(st.one_of(st.integers(1, 9), st.integers(1, 30_000)), max_size=12)))


class DirectTLSTests(TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        folder = TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        authority = Authority(Path(folder.name))
        cls.context, cls.ca_file = authority.server("localhost"), authority.ca_file
        cls.shared = _Pair(cls.context, cls.ca_file)  # of the properties: a handshake takes longer than they do

    def pair(self, *, newest: bool = True, early: bytes = b"") -> _Pair:
        return _Pair(self.context, self.ca_file, newest=newest, early=early)

    def test_handshakes(self) -> None:
        for newest in (True, False):
            with self.subTest(newest=newest):
                self.assertTrue(self.pair(newest=newest).tls._handshakeDone)

    def test_drained(self) -> None:
        """It is known that nothing waits where the kernel has it all, and not while something waits, or the end."""
        pair = self.pair()
        self.assertFalse(pair.tls.has_drained)  # over a transport without a socket nothing is known
        ours, theirs = socket.socketpair()
        with ours, theirs:
            pair.tls._socket, below = ours, pair.below
            below.dataBuffer, below._tempDataLen, below.connected = b"", 0, True
            pair.tls.write(b"hello")
            self.assertTrue(pair.tls.has_drained)
            pair.peer.incoming.write(theirs.recv(1000))
            self.assertEqual(pair.peer.tls.read(10), b"hello")
            for name, value in (("dataBuffer", b"x"), ("_tempDataLen", 1)):
                with patch.object(below, name, value):
                    self.assertFalse(pair.tls.has_drained, name)
            with patch.object(pair.tls, "_appSendBuffer", [b"x"]):
                self.assertFalse(pair.tls.has_drained)
            pair.tls.connectionLost(Failure(ConnectionDone()))
            self.assertFalse(pair.tls.has_drained)

    def test_one_record_is_one_call(self) -> None:
        """A message that comes alone is there at once, and OpenSSL is not asked again."""
        pair = self.pair()
        pair.peer.tls.write(b"hello")
        calls: list[int] = []
        connection = pair.tls._tlsConnection
        recv = connection.recv
        pair.tls._tlsConnection = _Counting(connection, lambda size: calls.append(size) or recv(size))
        pair.deliver(pair.peer.outgoing.read())
        self.assertEqual((pair.own.pieces, calls), ([b"hello"], [MAX_READ_BYTES]))

    @given(_cut())
    def test_any_cut(self, found: tuple[list[bytes], tuple[int, ...]]) -> None:
        messages, sizes = found
        pair = self.shared
        pair.own.pieces.clear()
        for message in messages:
            pair.peer.tls.write(message)
        pair.deliver(pair.peer.outgoing.read(), sizes)
        self.assertEqual(pair.own.received, b"".join(messages))
        self.assertTrue(pair.tls._boundaries.at_end)

    @given(st.lists(st.binary(max_size=40_000), max_size=4))
    def test_what_is_written(self, messages: list[bytes]) -> None:
        """Leaves in the call that writes it."""
        pair = self.shared
        for message in messages:
            pair.tls.write(message)
        self.assertEqual(pair.taken(), b"".join(messages))

    def test_written_before_the_handshake(self) -> None:
        """Is sent when that is over."""
        self.assertEqual(self.pair(early=b"early").answered, b"early")

    def test_the_peer_closes(self) -> None:
        """Its end in good order comes in one record; ours follows, and the connection below is closed."""
        for newest in (True, False):
            with self.subTest(newest=newest):
                pair = self.pair(newest=newest)
                pair.peer.attempt(pair.peer.tls.unwrap)
                pair.deliver(pair.peer.outgoing.read())
                self.assertTrue(pair.below.disconnecting)
                self.assertNotEqual(pair.below.value(), b"")
                pair.tls.connectionLost(Failure(ConnectionResetError()))
                assert pair.own.reason is not None
                self.assertIs(pair.own.reason.type, ConnectionResetError)

    def test_a_forged_record(self) -> None:
        """Ends the connection, and nothing of it is passed on."""
        pair = self.pair()
        pair.peer.tls.write(b"secret")
        data = bytearray(pair.peer.outgoing.read())
        data[-1] ^= 1
        pair.deliver(bytes(data))
        self.assertTrue(pair.below.disconnecting)
        self.assertEqual(pair.own.pieces, [])

    def test_aborted(self) -> None:
        """What comes afterwards is nobody's."""
        pair = self.pair()
        pair.peer.tls.write(b"late")
        pair.tls.abortConnection()
        pair.deliver(pair.peer.outgoing.read())
        self.assertEqual(pair.own.pieces, [])
        self.assertTrue(pair.below.disconnected)

    def test_closed_by_us(self) -> None:
        pair = self.pair()
        pair.tls.write(b"bye")
        pair.tls.loseConnection()
        self.assertEqual(pair.taken(), b"bye")
        self.assertTrue(pair.ended)


class _Counting:
    """An OpenSSL connection whose reads are seen."""

    def __init__(self, connection: Any, recv: Callable[[int], bytes]) -> None:
        self._connection = connection
        self.recv = recv

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class RecordBoundariesTests(TestCase):
    @given(st.lists(st.integers(0, 300), max_size=5), st.lists(st.integers(1, 20), max_size=20))
    def test_cut_anywhere(self, lengths: list[int], sizes: list[int]) -> None:
        data = b"".join(b"\x17\x03\x03" + length.to_bytes(2, "big") + b"x" * length for length in lengths)
        ends = {0}
        for length in lengths:
            ends.add(max(ends) + 5 + length)
        boundaries, at = RecordBoundaries(), 0
        for size in [*sizes, len(data)]:
            piece = data[at : at + size]
            at += len(piece)
            boundaries.feed(piece)
            self.assertEqual(boundaries.at_end, at in ends)
