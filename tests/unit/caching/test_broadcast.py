"""One body for many readers: nobody waits for another, and no more is held than may be."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone, ResponseFailed

from llmproxy.caching.broadcast import MAX_BACKLOG_BYTES, Broadcast, Subscriber, SubscriberTooSlow
from llmproxy.http.masking import Mask

DONE = Failure(ResponseDone())
CUT = Failure(ResponseFailed([]))


class Answer:
    """What the provider sends, as far as it goes."""

    code, phrase, length = 200, b"OK", 5

    def __init__(self) -> None:
        self.held = self.stopped = False
        self.taker: Any = None

    def deliverBody(self, protocol: Any) -> None:
        self.taker = protocol

    def pauseProducing(self) -> None:
        self.held = True

    def resumeProducing(self) -> None:
        self.held = False

    def stopProducing(self) -> None:
        self.stopped = True


class Told:
    """Whoever is told; keeps at most C{limit} bytes."""

    def __init__(self, limit: int = 10**9) -> None:
        self.limit = limit
        self.size = 0
        self.closings = 0
        self.bodies: list[bytes | None] = []

    def grown(self, more: int) -> bool:
        self.size += more
        return self.size <= self.limit

    def closed(self) -> None:
        self.closings += 1

    def over(self, body: bytes | None) -> None:
        self.bodies.append(body)


class Client(Protocol):
    def __init__(self) -> None:
        self.got = b""
        self.ended: Any = None

    def dataReceived(self, data: bytes) -> None:
        self.got += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended = type(reason.value)


class Case(SynchronousTestCase):
    def share(self, limit: int = 10**9, mask: Mask | None = None) -> Broadcast:
        self.answer, self.told = Answer(), Told(limit)
        shared = Broadcast(self.answer, [], mask, self.told)  # type: ignore[arg-type]
        shared.begin()
        return shared

    def join(self, shared: Broadcast) -> tuple[Subscriber, Client]:
        reader, client = shared.subscriber(), Client()
        reader.deliverBody(client)
        return reader, client


class SharedTests(Case):
    def test_late_comers(self) -> None:
        """They get what has come, then what comes."""
        shared = self.share()
        _, first = self.join(shared)
        shared.dataReceived(b"a")
        _, second = self.join(shared)
        shared.dataReceived(b"b")
        shared.connectionLost(DONE)
        for client in (first, second):
            self.assertEqual((client.got, client.ended), (b"ab", ResponseDone))
        self.assertEqual(self.told.bodies, [b"ab"])
        self.assertEqual(shared.subscriber().whole, b"ab")

    def test_a_cut(self) -> None:
        """All see it, and nothing whole is told."""
        shared = self.share()
        _, client = self.join(shared)
        shared.dataReceived(b"a")
        shared.connectionLost(CUT)
        shared.connectionLost(DONE)
        self.assertEqual((client.ended, self.told.bodies, shared.whole), (ResponseFailed, [None], None))

    def test_one_pauses(self) -> None:
        """The other goes on; the provider is held back when all pause."""
        shared = self.share()
        (slow, behind), (quick, ahead) = self.join(shared), self.join(shared)
        slow.pauseProducing()
        shared.dataReceived(b"a")
        self.assertEqual((behind.got, ahead.got, self.answer.held), (b"", b"a", False))
        quick.pauseProducing()
        self.assertTrue(self.answer.held)
        slow.resumeProducing()
        self.assertEqual((behind.got, self.answer.held), (b"a", False))
        shared.connectionLost(DONE)
        self.assertEqual((behind.ended, ahead.ended), (ResponseDone, None))
        quick.resumeProducing()
        self.assertEqual(ahead.ended, ResponseDone)

    def test_the_last_one_leaves(self) -> None:
        """Then the provider is stopped, once."""
        shared = self.share()
        (first, _), (second, _) = self.join(shared), self.join(shared)
        first.stopProducing()
        first.stopProducing()
        self.assertFalse(self.answer.stopped)
        second.stopProducing()
        self.assertTrue(self.answer.stopped)
        self.assertEqual((self.told.bodies, self.told.closings), ([None], 1))
        shared.dataReceived(b"late")

    def test_one_leaves_while_it_is_given_something(self) -> None:
        """Nothing more is given to it."""
        shared = self.share()
        reader, client = shared.subscriber(), Client()

        class Leaving(Client):
            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)
                reader.stopProducing()

        leaving = Leaving()
        reader.deliverBody(leaving)
        self.join(shared)
        shared.dataReceived(b"a")
        shared.dataReceived(b"b")
        self.assertEqual((leaving.got, client.got), (b"a", b""))

    def test_too_large_to_be_kept(self) -> None:
        """Only what the slowest has not taken is held from then on."""
        shared = self.share(limit=10)
        (slow, behind), _ = self.join(shared), self.join(shared)
        for _ in range(4):
            shared.dataReceived(b"12345")
        self.assertEqual((self.told.closings, len(shared._chunks)), (1, 0))
        slow.pauseProducing()
        shared.dataReceived(b"67890")
        self.assertEqual(len(shared._chunks), 1)
        slow.resumeProducing()
        shared.connectionLost(DONE)
        self.assertEqual((behind.got, behind.ended), (b"12345" * 4 + b"67890", ResponseDone))
        self.assertEqual(self.told.bodies, [None])

    def test_too_slow(self) -> None:
        """Whoever lies too far behind is cut off; whoever is alone is waited for."""
        shared = self.share(limit=10)
        (slow, behind), (quick, _) = self.join(shared), self.join(shared)
        slow.pauseProducing()
        shared.dataReceived(b"x" * MAX_BACKLOG_BYTES)
        self.assertIsNone(behind.ended)
        shared.dataReceived(b"x")
        self.assertEqual(
            (behind.ended, SubscriberTooSlow.outcome, shared._chunks), (SubscriberTooSlow, "client_stalled", [])
        )
        quick.pauseProducing()
        self.assertTrue(self.answer.held)
        shared.dataReceived(b"x" * MAX_BACKLOG_BYTES * 2)
        self.assertFalse(self.answer.stopped)

    def test_a_secret_in_it(self) -> None:
        """It is starred out before anybody gets it, however it is cut."""
        shared = self.share(mask=Mask(b"secret"))
        _, client = self.join(shared)
        shared.dataReceived(b"a sec")
        shared.dataReceived(b"ret, a sec")
        shared.connectionLost(DONE)
        self.assertEqual((client.got, self.told.bodies), (b"a ******, a sec", [b"a ******, a sec"]))

    @given(st.lists(st.sampled_from("djprlx"), max_size=60), st.integers(), st.sampled_from([0, 20, 10**6]))
    def test_whatever_they_do(self, steps: list[str], seed: int, limit: int) -> None:
        """Everybody gets a beginning of the body, and all of it who stays to the end; the sums stay right."""
        random, shared = Random(seed), self.share(limit)
        body, readers = b"", [self.join(shared)]
        for step in steps:
            reader = random.choice(readers)[0]
            if step == "d" and not self.answer.stopped:
                piece = bytes([65 + len(body) % 26]) * random.randrange(1, 9)
                body += piece
                shared.dataReceived(piece)
            elif step == "j" and not self.told.closings and not self.answer.stopped:
                readers.append(self.join(shared))
            elif step == "p":
                reader.pauseProducing()
            elif step == "r":
                reader.resumeProducing()
            elif step == "l":
                reader.stopProducing()
            for _, client in readers:
                self.assertTrue(body.startswith(client.got))
            active = list(shared._subscribers)
            if active and not self.answer.stopped:
                self.assertEqual(self.answer.held, all(r.held for r in active))
        left = set(shared._subscribers)
        shared.connectionLost(DONE)
        for reader, client in readers:
            reader.resumeProducing()
            if reader in left:
                self.assertEqual((client.got, client.ended), (body, ResponseDone))
        self.assertEqual(len(self.told.bodies), 1)
