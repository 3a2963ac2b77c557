"""Requests that wait for their limits: each is told of once, and nothing of it is held when it is over."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from llmproxy import errors
from llmproxy.http.request_reader import NO_CONTENT
from llmproxy.limits.counted import NO_LIMITS
from llmproxy.limits.limiter import LimitReservation
from llmproxy.limits.pending import PendingReservation
from llmproxy.model import Verdict
from llmproxy.proxy.fast_path.awaiting_limits import LimitedRequest, ReadRequest
from llmproxy.proxy.fast_path.flow import KnownHead
from llmproxy.wire.buffers import Buffers
from llmproxy.wire.server.direct import DirectChannel


class Reservation:
    """Counts how often it was given back."""

    given_back = 0

    def give_back(self) -> None:
        self.given_back += 1


RESERVATION: Any = Reservation()
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


class Explained(Exception):
    """What is said of another error."""


class Pending(PendingReservation[Any]):
    """A reservation of which a test has the word."""

    def judge(self, verdict: Verdict) -> LimitReservation:
        if verdict.refused is not None:
            raise errors.RateLimited
        return RESERVATION

    def explain(self, error: BaseException) -> BaseException:
        return error if isinstance(error, errors.ProxyError) else Explained()


def pending() -> PendingReservation[Any]:
    return Pending(NO_LIMITS, (1, 0, 0))


class LimitedRequestTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.owner, self.channel, self.buffers = Owner(), Channel(), Buffers(10**6)
        self.pending = pending()
        self.wait(self.pending)

    def wait(self, verdict: PendingReservation[Any], body: bytes = b"x" * 100_000) -> None:
        channel = cast(DirectChannel, self.channel)
        read = ReadRequest(channel, cast(KnownHead, None), None, body, NO_CONTENT, "", False, 7.0, 3.0)
        LimitedRequest(read, self.owner, 3.0, self.buffers).wait(verdict)

    def test_admitted(self) -> None:
        """Its body counts as held for as long as it waits."""
        self.assertEqual((self.owner.heard, self.buffers.held), ([], 100_000))
        self.pending.decided(Verdict())
        self.assertEqual((self.owner.heard, self.buffers.held), ([("admitted", RESERVATION)], 0))

    def test_refused(self) -> None:
        self.pending.decided(Verdict(0))
        ((what, error),) = self.owner.heard
        self.assertEqual((what, type(error), self.buffers.held), ("refused", errors.RateLimited, 0))

    def test_they_cannot_be_counted(self) -> None:
        """Then it is refused, with what clients may know of it."""
        self.pending.failed(ZeroDivisionError("password"))
        ((what, error),) = self.owner.heard
        self.assertEqual((what, type(error)), ("refused", Explained))

    def test_its_client_leaves(self) -> None:
        """Who counts is told that nobody waits any more; it is no refusal as well."""
        cancelled: list[object] = []
        left, verdict = pending(), Deferred[Verdict](cancelled.append)
        left.follow(verdict)
        self.wait(left, b"{}")
        self.channel.request.connectionLost(GONE)
        self.assertEqual(len(cancelled), 1)
        self.assertEqual(self.owner.heard, [("abandoned", GONE)])

    def test_what_is_decided_when_its_client_has_left(self) -> None:
        """It is given back, and nobody hears of it."""
        for verdict in (Verdict(), Verdict(0)):
            RESERVATION.given_back = 0
            left = pending()
            self.wait(left, b"{}")
            self.channel.request.connectionLost(GONE)
            left.decided(verdict)
            self.assertEqual(RESERVATION.given_back, verdict.refused is None)
        self.assertEqual(self.owner.heard, [("abandoned", GONE)] * 2)

    def test_a_verdict_that_is_there(self) -> None:
        """It waits for nothing."""
        known = pending()
        known.decided(Verdict())
        self.wait(known)
        self.assertEqual(self.owner.heard, [("admitted", RESERVATION)])

    def test_an_owner_that_fails(self) -> None:
        """Is logged, and takes nobody with it."""
        self.owner.admit = None  # type: ignore[assignment,method-assign]
        self.pending.decided(Verdict())
        self.assertEqual([failure.type for failure in self.flushLoggedErrors()], [TypeError])
