"""Entries as they are given: at once, in pieces, or at their own pace."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone
from zope.interface.verify import verifyObject

from llmproxy.caching.replay import CHUNK_BYTES, MAX_CHUNK_DELAY_SECONDS, MAX_ONE_WRITE_BYTES, CachedResponse
from llmproxy.caching.rules.entry import Entry


class Client(Protocol):
    def __init__(self, after: int = 0) -> None:
        self.pieces: list[bytes] = []
        self.complete = False
        self._after = after

    def dataReceived(self, data: bytes) -> None:
        self.pieces.append(data)
        if len(self.pieces) == self._after:
            self.transport.pauseProducing()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.complete = isinstance(reason.value, ResponseDone)


def made(body: bytes, clock: Clock | None = None, chunk_timings: tuple[tuple[int, float], ...] = ()) -> CachedResponse:
    entry = Entry(200, b"OK", b"", body, 0.0, 1.0, stream=bool(chunk_timings), chunk_timings=chunk_timings)
    return CachedResponse(entry, 200, b"OK", [], body, None, clock)


class GivenTests(SynchronousTestCase):
    def test_a_small_one(self) -> None:
        """It leaves in one write."""
        given_ = made(b"body")
        self.assertEqual((given_.fits_one_write, given_.whole, given_.count), (True, b"body", 4))
        self.assertTrue(verifyObject(IPushProducer, given_))

    def test_a_large_one(self) -> None:
        """It leaves as it is taken."""
        body = b"x" * (MAX_ONE_WRITE_BYTES + 1)
        given_, client = made(body), Client(after=2)
        self.assertIsNone(given_.whole)
        given_.deliverBody(client)
        self.assertEqual(len(client.pieces), 2)
        given_.resumeProducing()
        self.assertEqual(
            (b"".join(client.pieces), max(map(len, client.pieces)), client.complete), (body, CHUNK_BYTES, True)
        )

    def test_at_its_own_pace(self) -> None:
        """Each piece after the gap that was before it, no gap longer than is bearable."""
        clock = Clock()
        given_, client = made(b"abbc", clock, ((1, 0.0), (2, 1.0), (1, 99.0))), Client()
        given_.deliverBody(client)
        self.assertEqual(client.pieces, [b"a"])
        clock.advance(1.0)
        self.assertEqual(client.pieces, [b"a", b"bb"])
        given_.pauseProducing()
        clock.advance(MAX_CHUNK_DELAY_SECONDS)
        self.assertEqual(len(client.pieces), 2)
        given_.resumeProducing()
        self.assertEqual((client.pieces[2:], client.complete), ([b"c"], True))

    def test_nobody_takes_it_any_more(self) -> None:
        """No timer is left."""
        clock = Clock()
        given_ = made(b"ab", clock, ((1, 0.0), (1, 1.0)))
        given_.deliverBody(Client())
        given_.stopProducing()
        self.assertEqual(clock.getDelayedCalls(), [])

    @given(st.binary(max_size=40), st.lists(st.tuples(st.integers(0, 9), st.floats(0, 5)), max_size=9))
    def test_gaps_that_do_not_fit(self, body: bytes, chunk_timings: list[tuple[int, float]]) -> None:
        """The body is the body, whatever is said of its pace."""
        clock: Any = Clock()
        client = Client()
        made(body, clock, tuple(chunk_timings)).deliverBody(client)
        clock.pump([MAX_CHUNK_DELAY_SECONDS] * (len(chunk_timings) + 1))
        self.assertEqual((b"".join(client.pieces), client.complete), (body, True))
