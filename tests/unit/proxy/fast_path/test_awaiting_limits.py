"""Requests that wait for their limits: each is told of once, and nothing of it is held when it is over."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from llmproxy import errors
from llmproxy.http.field_lines import FieldLines
from llmproxy.http.request_reader import NO_CONTENT
from llmproxy.limits.limiter import LimitReservation
from llmproxy.proxy.fast_path.awaiting_limits import AwaitedLimits, LimitedRequest, ReadRequest
from llmproxy.proxy.fast_path.flow import KnownHead
from llmproxy.wire.buffers import Buffers
from llmproxy.wire.server.direct import DirectChannel

RESERVATION = cast(LimitReservation, object())
GONE = Failure(ConnectionLost())


class Channel:
    """Remembers what is under way."""

    request: Any = None

    def begin_direct(self, request: Any) -> None:
        self.request = request


class Owner:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, object]] = []

    def admit(self, request: LimitedRequest, reservation: LimitReservation) -> None:
        self.heard.append(("admitted", reservation))

    def refuse(self, request: LimitedRequest, error: BaseException) -> None:
        self.heard.append(("refused", error))

    def abandon(self, request: LimitedRequest, reason: Failure) -> None:
        self.heard.append(("abandoned", reason))


class AwaitedLimitsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.owner, self.channel, self.buffers = Owner(), Channel(), Buffers(10**6)
        self.verdict: Deferred[LimitReservation] = Deferred()
        self.wait(self.verdict)

    def wait(self, verdict: Deferred[LimitReservation], body: bytes = b"x" * 100_000) -> None:
        channel, lines = cast(DirectChannel, self.channel), FieldLines([], [])
        read = ReadRequest(channel, cast(KnownHead, None), None, lines, body, NO_CONTENT, 7.0, 3.0)
        AwaitedLimits(self.owner).wait(read, verdict, 3.0, self.buffers)

    def test_admitted(self) -> None:
        """Its body counts as held for as long as it waits."""
        self.assertEqual((self.owner.heard, self.buffers.held), ([], 100_000))
        self.verdict.callback(RESERVATION)
        self.assertEqual((self.owner.heard, self.buffers.held), ([("admitted", RESERVATION)], 0))

    def test_refused(self) -> None:
        error = errors.RateLimited()
        self.verdict.errback(error)
        self.assertEqual((self.owner.heard, self.buffers.held), ([("refused", error)], 0))

    def test_its_client_leaves(self) -> None:
        """Who counts is told that nobody waits any more; it is no refusal as well."""
        cancelled: list[object] = []
        self.wait(Deferred(cancelled.append), b"{}")
        self.channel.request.connectionLost(GONE)
        self.assertEqual(len(cancelled), 1)
        self.assertEqual(self.owner.heard, [("abandoned", GONE)])

    def test_counters_that_give_up(self) -> None:
        """They cancel it themselves: then it is refused."""
        self.verdict.errback(CancelledError())
        ((what, error),) = self.owner.heard
        self.assertEqual((what, type(error)), ("refused", CancelledError))

    def test_a_verdict_that_is_there(self) -> None:
        """It waits for nothing."""
        verdict: Deferred[LimitReservation] = Deferred()
        verdict.callback(RESERVATION)
        self.wait(verdict)
        self.assertEqual(self.owner.heard, [("admitted", RESERVATION)])

    def test_an_owner_that_fails(self) -> None:
        """Is logged, and takes nobody with it."""
        self.owner.admit = None  # type: ignore[assignment,method-assign]
        self.verdict.callback(RESERVATION)
        self.assertEqual([failure.type for failure in self.flushLoggedErrors()], [TypeError])
