"""Connections are shared fairly, kept while they are clean, and never outlive their bounds."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost, DNSLookupError, TCPTimedOutError
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from llmproxy import errors
from llmproxy.wire.client.connection import CLOSE_TIMEOUT_SECONDS, Connection
from llmproxy.wire.client.pending_request import PendingRequest
from llmproxy.wire.client.pool import Pool
from llmproxy.wire.client.pool_limits import IdleBudget, PoolLimits
from llmproxy.wire.client.request_writer import BytesBody
from llmproxy.wire.client.response import Response
from llmproxy.wire.parser import MessageLimits

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Wire(StringTransport):
    """A transport whose other end is the test."""

    aborted = False

    def __init__(self, connection: Connection, handle: socket.socket | None) -> None:
        super().__init__()
        self.connection = connection
        if handle is not None:
            self.getHandle = lambda: handle
            self.fileno = handle.fileno

    def abortConnection(self) -> None:
        self.aborted = True

    def answer(self, data: bytes = ANSWER) -> None:
        self.connection.dataReceived(data)

    def lose(self, reason: Exception | None = None) -> None:
        self.connection.connectionLost(Failure(reason or ConnectionDone()))


class Endpoint:
    """Connects when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[Deferred[Any], Any]] = []
        self.wires: list[Wire] = []
        self.handles: list[socket.socket] = []

    def connect(self, factory: Any) -> Deferred[Any]:
        waiting: Deferred[Any] = Deferred()
        self.asked.append((waiting, factory))
        return waiting

    def accept(self) -> Wire:
        waiting, factory = self.asked.pop(0)
        connection = factory.buildProtocol(None)
        wire = Wire(connection, self.handles.pop(0) if self.handles else None)
        self.wires.append(wire)
        connection.makeConnection(wire)
        waiting.callback(connection)
        return wire

    def refuse(self, error: Exception) -> None:
        self.asked.pop(0)[0].errback(error)


class PoolCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.make()

    def make(self, room: int = 100, *, secure: bool = False, **bounds: Any) -> None:
        self.clock = Clock()
        self.endpoint: Any = Endpoint()
        self.room = IdleBudget(room)
        self.pool = Pool(self.endpoint, self.clock, PoolLimits(**bounds), self.room, MessageLimits(), secure=secure)

    def ask(self, method: bytes = b"GET", body: Any = None, project: str = "") -> PendingRequest:
        exchange = PendingRequest(method, b"head\r\n\r\n", body, raw=True, project=project)
        self.pool.send(exchange)
        return exchange

    def done(self, exchange: PendingRequest) -> int:
        answer: Response = self.successResultOf(exchange.responded)
        return answer.code

    def pair(self) -> tuple[socket.socket, socket.socket]:
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        ours.setblocking(False)
        self.endpoint.handles.append(ours)
        return ours, theirs

    def tearDown(self) -> None:
        """However it went, the sums are right."""
        self.assertEqual(self.room.taken, self.pool.idle)


class ReuseTests(PoolCase):
    def test_used_again(self) -> None:
        first = self.ask()
        wire = self.endpoint.accept()
        wire.answer()
        self.assertEqual(self.done(first), 200)
        second = self.ask()
        self.assertEqual(self.endpoint.asked, [])
        wire.answer()
        self.assertEqual(self.done(second), 200)
        self.assertEqual((self.pool.idle, self.pool.open), (1, 1))

    def test_not_shared(self) -> None:
        self.ask()
        self.endpoint.accept()
        self.ask()
        self.assertEqual(len(self.endpoint.asked), 1)

    def test_last_put_aside_is_used_first(self) -> None:
        self.ask()
        self.ask()
        first, second = self.endpoint.accept(), self.endpoint.accept()
        first.answer()
        second.answer()
        second.clear()
        self.ask()
        self.assertTrue(second.value())

    def test_closed_by_the_provider_while_idle(self) -> None:
        self.ask()
        wire = self.endpoint.accept()
        wire.answer()
        wire.lose()
        self.assertEqual((self.pool.idle, self.pool.open), (0, 0))
        self.ask()
        self.assertEqual(len(self.endpoint.asked), 1)

    def test_found_closed_or_dirty(self) -> None:
        """The end has come, or bytes nobody asked for, but was not read yet: nothing is sent there."""
        for act in (lambda theirs: theirs.close(), lambda theirs: theirs.send(b"HTTP/1.1 408 Too Late\r\n\r\n")):
            self.make()
            _, theirs = self.pair()
            self.ask()
            wire = self.endpoint.accept()
            wire.answer()
            act(theirs)
            self.ask(b"POST", BytesBody(b"{}"))
            self.assertTrue(wire.disconnecting)
            self.assertEqual(len(self.endpoint.asked), 1)

    def test_unexpected_bytes(self) -> None:
        self.ask()
        wire = self.endpoint.accept()
        wire.answer()
        wire.answer()
        self.assertTrue(wire.aborted)
        self.assertEqual(self.pool.idle, 0)

    def test_cut_connections_are_not_used_again(self) -> None:
        exchange = self.ask()
        wire = self.endpoint.accept()
        wire.answer(b"garbage")
        self.failureResultOf(exchange.responded, errors.UpstreamBroken)
        self.assertEqual(self.pool.idle, 0)


class BoundsTests(PoolCase):
    def test_idle_for_too_long(self) -> None:
        self.make(idle=90.0)
        self.ask()
        first = self.endpoint.accept()
        self.clock.advance(50)
        first.answer()
        self.ask()
        self.ask()
        second = self.endpoint.accept()
        first.answer()
        self.clock.advance(50)
        second.answer()
        self.clock.advance(40)
        self.assertTrue(first.disconnecting)
        self.assertFalse(second.disconnecting)
        self.clock.advance(49)
        self.assertFalse(second.disconnecting)
        self.clock.advance(1)
        self.assertTrue(second.disconnecting)
        first.lose()
        second.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_too_old(self) -> None:
        """A connection does not outlive what the name once resolved to."""
        self.make(age=100.0, idle=0.0)
        self.ask()
        wire = self.endpoint.accept()
        wire.answer()
        self.clock.advance(99)
        self.ask()
        self.clock.advance(1)
        self.assertEqual(self.endpoint.asked, [])
        wire.answer()
        self.assertTrue(wire.disconnecting)

    def test_too_old_while_idle(self) -> None:
        self.make(age=100.0, idle=0.0)
        self.ask()
        wire = self.endpoint.accept()
        wire.answer()
        self.clock.advance(100)
        self.ask()
        self.assertTrue(wire.disconnecting)
        self.assertEqual(len(self.endpoint.asked), 1)

    def test_no_more_idle_than_allowed(self) -> None:
        for room, kept in ((100, 1), (1, 100)):
            self.make(room, kept=kept)
            self.ask()
            self.ask()
            first, second = self.endpoint.accept(), self.endpoint.accept()
            first.answer()
            second.answer()
            self.assertFalse(first.disconnecting)
            self.assertTrue(second.disconnecting)
            self.assertEqual(self.pool.idle, 1)

    def test_no_more_connections_than_allowed(self) -> None:
        """Further requests wait, and are served in the order they came."""
        self.make(conns=2)
        exchanges = [self.ask() for _ in range(5)]
        self.assertEqual(len(self.endpoint.asked), 2)
        first, second = self.endpoint.accept(), self.endpoint.accept()
        order = []
        for number, exchange in enumerate(exchanges):
            exchange.responded.addCallback(lambda _, number=number: order.append(number))
        second.answer()
        second.answer()
        first.answer()
        second.answer()
        first.answer()
        self.assertEqual(order, [1, 2, 0, 3, 4])
        self.assertEqual(self.endpoint.asked, [])

    def test_room_for_another(self) -> None:
        """Connections that are being made count, those that wait to be used too; one that is lost does not."""
        self.make(conns=1)
        self.assertTrue(self.pool.has_room)
        self.ask()
        self.assertFalse(self.pool.has_room)
        wire = self.endpoint.accept()
        wire.answer()
        self.assertFalse(self.pool.has_room)
        wire.lose()
        self.assertTrue(self.pool.has_room)
        self.pool.close()
        self.assertFalse(self.pool.has_room)

    def test_closed_without_patience(self) -> None:
        """A response that is under way is waited for, until nobody waits any more."""
        asked = self.ask()
        wire = self.endpoint.accept()
        closing = self.pool.close()
        self.assertEqual((wire.aborted, wire.disconnecting), (False, False))
        closing.cancel()
        self.assertTrue(wire.aborted)
        wire.lose(ConnectionLost())
        self.failureResultOf(asked.responded, errors.UpstreamFailure)
        self.failureResultOf(closing, CancelledError)

    def test_a_lost_connection_makes_room(self) -> None:
        self.make(conns=1)
        self.ask()
        waiting = self.ask()
        self.endpoint.accept().answer(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        self.endpoint.accept().answer()
        self.assertEqual(self.done(waiting), 200)

    def test_a_failed_connection_makes_room(self) -> None:
        self.make(conns=1)
        failed, waiting = self.ask(), self.ask()
        self.endpoint.refuse(Refused())
        self.failureResultOf(failed.responded, errors.UpstreamUnreachable)
        self.endpoint.accept().answer()
        self.assertEqual(self.done(waiting), 200)

    def test_a_freed_connection_that_is_dirty_is_not_given_on(self) -> None:
        self.make(conns=1)
        _, theirs = self.pair()
        self.ask()
        waiting = self.ask()
        wire = self.endpoint.accept()
        theirs.close()
        wire.answer()
        self.endpoint.accept().answer()
        self.assertEqual(self.done(waiting), 200)

    def test_queue_is_bounded(self) -> None:
        self.make(conns=1, waiting=1)
        self.ask()
        self.ask()
        refused = self.ask()
        failure = self.failureResultOf(refused.responded, errors.UpstreamBusy)
        self.assertTrue(failure.value.nothing_sent)
        self.assertEqual(failure.value.retry_after, 1.0)

    def test_a_full_queue_has_room_for_others(self) -> None:
        """The project that has most waiting gives up its newest; what is left is served in turns."""
        self.make(conns=1, waiting=3)
        self.ask()
        many = [self.ask(project="many") for _ in range(3)]
        one = self.ask(project="one")
        failure = self.failureResultOf(many[2].responded, errors.UpstreamBusy)
        self.assertTrue(failure.value.nothing_sent)
        self.failureResultOf(self.ask(project="many").responded, errors.UpstreamBusy)
        self.assertEqual(self.pool.waiting, 3)
        wire = self.endpoint.accept()
        wire.answer()  # what has the connection
        wire.answer()
        self.assertEqual(self.done(many[0]), 200)
        self.assertNoResult(one.responded)
        wire.answer()
        self.assertEqual(self.done(one), 200)
        self.assertNoResult(many[1].responded)

    def test_waiting_has_an_end(self) -> None:
        self.make(conns=1, connect=10.0)
        self.ask()
        wire = self.endpoint.accept()
        late = self.ask()
        self.clock.advance(10)
        failure = self.failureResultOf(late.responded, errors.UpstreamBusy)
        self.assertTrue(failure.value.nothing_sent)
        self.assertEqual(failure.value.retry_after, 1.0)
        wire.answer()
        self.assertEqual(self.pool.idle, 1)

    def test_leaving_the_queue(self) -> None:
        self.make(conns=1)
        self.ask()
        wire = self.endpoint.accept()
        leaving, staying = self.ask(), self.ask()
        leaving.responded.cancel()
        self.failureResultOf(leaving.responded, CancelledError)
        wire.answer()
        wire.answer()
        self.assertEqual(self.done(staying), 200)


class ConnectingTests(PoolCase):
    def test_no_connection_in_time(self) -> None:
        exchange = self.ask()
        self.clock.advance(10)
        failure = self.failureResultOf(exchange.responded, errors.UpstreamTimeout)
        self.assertTrue(failure.value.nothing_sent)
        self.assertEqual(self.pool.open, 0)

    def test_handshake_not_in_time(self) -> None:
        """The time for connecting includes TLS."""
        self.make(secure=True)
        exchange = self.ask()
        wire = self.endpoint.accept()
        self.assertEqual(wire.value(), b"")
        self.clock.advance(10)
        self.failureResultOf(exchange.responded, errors.UpstreamTimeout)
        self.assertTrue(wire.aborted)
        wire.lose()
        self.assertEqual(self.pool.open, 0)

    def test_handshake_fails(self) -> None:
        self.make(secure=True)
        exchange = self.ask()
        self.endpoint.accept().lose(ConnectionLost())
        failure = self.failureResultOf(exchange.responded, errors.UpstreamUnreachable)
        self.assertIn("TLS", failure.value.message)
        self.assertTrue(failure.value.nothing_sent)

    def test_sent_after_the_handshake(self) -> None:
        self.make(secure=True)
        self.ask()
        wire = self.endpoint.accept()
        wire.connection.handshakeCompleted()
        self.assertEqual(wire.value(), b"head\r\n\r\n")

    def test_why_not(self) -> None:
        for error, kind, word in [
            (Refused(), errors.UpstreamUnreachable, "refused"),
            (DNSLookupError(), errors.UpstreamUnreachable, "resolved"),
            (ConnectError(), errors.UpstreamUnreachable, "reached"),
            (ConnectTimeout(), errors.UpstreamTimeout, "time"),
            (TCPTimedOutError(), errors.UpstreamTimeout, "time"),
            (ValueError("invalid hostname"), errors.UpstreamUnreachable, "reached"),
        ]:
            exchange = self.ask()
            self.endpoint.refuse(error)
            failure = self.failureResultOf(exchange.responded, kind)
            self.assertIn(word, failure.value.message)
            self.assertTrue(failure.value.nothing_sent)
            self.assertEqual(self.pool.open, 0)

    def test_cancelled_while_connecting(self) -> None:
        exchange = self.ask()
        waiting = self.endpoint.asked[0][0]
        exchange.responded.cancel()
        self.assertTrue(waiting.called)
        self.failureResultOf(exchange.responded, CancelledError)
        self.assertEqual((self.pool.open, self.clock.getDelayedCalls()), (0, []))

    def test_cancelled_in_the_handshake(self) -> None:
        self.make(secure=True)
        exchange = self.ask()
        wire = self.endpoint.accept()
        exchange.responded.cancel()
        self.failureResultOf(exchange.responded, CancelledError)
        self.assertTrue(wire.aborted)


class RepeatTests(PoolCase):
    def test_on_a_fresh_connection(self) -> None:
        """Not on another kept one, which may have been closed as well."""
        self.ask()
        self.ask()
        first, second = self.endpoint.accept(), self.endpoint.accept()
        first.answer()
        second.answer()
        exchange = self.ask(b"PUT", BytesBody(b"{}"))
        second.lose()
        self.assertEqual(len(self.endpoint.asked), 1)
        fresh = self.endpoint.accept()
        self.assertEqual(fresh.value(), b"head\r\n\r\n{}")
        fresh.answer()
        self.assertEqual(self.done(exchange), 200)

    def test_once(self) -> None:
        self.ask()
        wire = self.endpoint.accept()
        wire.answer()
        exchange = self.ask()
        wire.lose()
        self.endpoint.accept().lose()
        self.failureResultOf(exchange.responded, errors.UpstreamUnreachable)
        self.assertEqual(self.endpoint.asked, [])

    def test_goes_before_those_who_wait(self) -> None:
        self.make(conns=1)
        self.ask()
        wire = self.endpoint.accept()
        wire.answer()
        repeated, waiting = self.ask(), self.ask()
        wire.lose()
        self.assertEqual(len(self.endpoint.asked), 1)
        fresh = self.endpoint.accept()
        fresh.answer()
        self.assertEqual(self.done(repeated), 200)
        fresh.answer()
        self.assertEqual(self.done(waiting), 200)


class ClosingTests(PoolCase):
    def test_nothing_open(self) -> None:
        self.successResultOf(self.pool.close())
        self.successResultOf(self.pool.close())

    def test_idle_and_busy(self) -> None:
        """The idle go at once, the busy after their answer."""
        self.ask()
        exchange = self.ask()
        idle, busy = self.endpoint.accept(), self.endpoint.accept()
        idle.answer()
        closed = self.pool.close()
        self.assertTrue(idle.disconnecting)
        self.assertFalse(busy.disconnecting)
        idle.lose()
        self.assertNoResult(closed)
        busy.answer()
        self.assertEqual(self.done(exchange), 200)
        self.assertTrue(busy.disconnecting)
        busy.lose()
        self.successResultOf(closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_others(self) -> None:
        self.make(conns=1)
        connecting, waiting = self.ask(), self.ask()
        closed = self.pool.close()
        self.failureResultOf(waiting.responded, errors.Draining)
        self.failureResultOf(self.ask().responded, errors.Draining)
        self.assertNoResult(closed)
        wire = self.endpoint.accept()
        wire.answer()
        self.assertEqual(self.done(connecting), 200)
        wire.lose()
        self.successResultOf(closed)

    def test_a_provider_that_does_not_close(self) -> None:
        self.ask()
        wire = self.endpoint.accept()
        wire.answer()
        self.pool.close()
        self.clock.advance(CLOSE_TIMEOUT_SECONDS)
        self.assertTrue(wire.aborted)
        wire.lose()


class CrowdTests(PoolCase):
    def test_a_thousand_wait_for_what_fails_at_once(self) -> None:
        """Each is told; none is lost in a stack that was overrun."""
        self.make(conns=1, waiting=1000)
        crowd = [self.ask() for _ in range(1001)]
        refused = self.endpoint.refuse
        self.endpoint.connect = lambda factory: fail(Refused())
        refused(Refused())
        for exchange in crowd:
            self.failureResultOf(exchange.responded, errors.UpstreamUnreachable)
        self.assertEqual(self.pool.open, 0)
