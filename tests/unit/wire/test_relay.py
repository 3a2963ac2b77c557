from __future__ import annotations

import gc
import weakref
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.iweb import UNKNOWN_LENGTH
from zope.interface.verify import verifyObject

from llmproxy.http.masking import KeyFound, Mask
from llmproxy.wire.deadline import Deadlines
from llmproxy.wire.relay import Relay

DONE = Failure(ResponseDone())
BROKEN = Failure(ResponseFailed([Failure(ConnectionLost())]))


class Client:
    """A client's request, as strict about its use as the real one."""

    def __init__(self) -> None:
        self.gone = self.stalled = False
        self.paced = True
        self.pieces: list[bytes] = []
        self.end = ""
        self.producer: Any = None

    def begin(self, code: int, phrase: bytes, lines: Any, length: int | None, hold: bool) -> None:
        assert hold
        self.head = (code, phrase, list(lines), length)

    def respond(self, code: int, phrase: bytes, lines: Any, length: int | None, body: bytes) -> None:
        assert not self.gone
        self.begin(code, phrase, lines, length, True)
        self.write(body)
        self.finish()

    def flush(self) -> None:
        """The head leaves."""

    def write(self, data: bytes) -> None:
        assert not self.end and not self.gone
        self.pieces.append(data)

    def finish(self, last: bytes = b"") -> None:
        assert not self.end and not self.gone and self.producer is None
        if last:
            self.write(last)
        self.end = "finished"

    def abort(self) -> None:
        assert not self.end and not self.gone
        self.end, self.gone = "cut", True

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming and self.producer is None
        self.producer = producer
        if self.gone:
            producer.stopProducing()

    def unregisterProducer(self) -> None:
        assert not self.gone
        self.producer = None

    def leave(self) -> None:
        self.gone = True
        producer, self.producer = self.producer, None
        producer.stopProducing()


class Provider:
    """The provider's answer; its body is still to come unless it is given."""

    disconnecting = False
    code, phrase = 200, b"OK"

    def __init__(self, whole: bytes | None = None) -> None:
        self.told: list[str] = []
        self.whole = whole
        self.length: Any = UNKNOWN_LENGTH if whole is None else len(whole)

    def deliverBody(self, protocol: Any) -> None:
        protocol.makeConnection(self)

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


class Refuses:
    """A filter that lets nothing pass."""

    keeps_length = True

    def feed(self, data: bytes) -> bytes:
        raise KeyFound

    def end(self) -> bytes:
        return b""


class RelayCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.client = Client()
        self.provider = Provider()
        self.seen: list[bytes] = []

    def relay(self, **settings: Any) -> Relay:
        relay = Relay(self.client, self.clock, taps=[self.seen.append], **settings)
        relay.carry(self.provider, [b"A: b"])
        return relay

    def assert_over(self, relay: Relay, outcome: str, end: str) -> None:
        self.assertEqual((self.successResultOf(relay.done), self.client.end), (outcome, end))
        self.assertIsNone(self.client.producer)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        # Whatever still comes changes nothing.
        before = (list(self.client.pieces), list(self.provider.told))
        relay.dataReceived(b"late")
        relay.pauseProducing()
        relay.resumeProducing()
        relay.stopProducing()
        relay.connectionLost(BROKEN)
        self.assertEqual((self.client.pieces, self.provider.told), before)


class Heartbeats(RelayCase):
    def test_silence(self) -> None:
        """A comment, which neither counts nor is seen by taps, and does not make the provider less silent."""
        relay = self.relay(heartbeat=2, idle=5)
        relay.dataReceived(b"data: 1\n\n")
        self.clock.advance(2)
        self.assertEqual(self.client.pieces, [b"data: 1\n\n", b": heartbeat\n\n"])
        self.assertEqual((relay.count, self.seen), (9, [b"data: 1\n\n"]))
        self.clock.advance(2)
        self.clock.advance(1)
        self.assert_over(relay, "idle_timeout", "cut")

    def test_whoever_takes_nothing_gets_none(self) -> None:
        """Nor does a response whose length was said."""
        relay = self.relay(heartbeat=2)
        relay.pauseProducing()
        self.clock.advance(2)
        self.assertEqual(self.client.pieces, [])
        relay.resumeProducing()
        self.clock.advance(2)
        self.assertEqual(len(self.client.pieces), 1)
        relay.connectionLost(DONE)
        self.assert_over(relay, "complete", "finished")

    def test_a_known_length(self) -> None:
        self.provider.length = 20
        self.relay(heartbeat=2)
        self.clock.advance(2)
        self.assertEqual(self.client.pieces, [])


class Ends(RelayCase):
    def test_interface(self) -> None:
        verifyObject(IPushProducer, self.relay())

    def test_complete(self) -> None:
        """Every piece is written as it comes, and counted, and the taps see it."""
        relay = self.relay(idle=5, stalled=5, deadline=9.0)
        for piece in (b"one", b"", b"two"):
            relay.dataReceived(piece)
        self.assertEqual((b"".join(self.client.pieces), relay.count), (b"onetwo", 6))
        self.assertEqual(b"".join(self.seen), b"onetwo")
        relay.connectionLost(DONE)
        self.assert_over(relay, "complete", "finished")
        self.assertEqual(self.provider.told, [])

    def test_an_answer_that_is_all_there(self) -> None:
        """Head and body leave at once, with the key starred out; the tap sees what the client sees."""
        provider = Provider(b"a key here")
        relay = Relay(self.client, self.clock, taps=[self.seen.append], idle=5, body_filter=Mask(b"key"))
        relay.carry(provider, [b"A: b"])
        self.assertEqual(self.client.head, (200, b"OK", [b"A: b"], 10))
        self.assertEqual((self.client.pieces, self.seen, relay.count), ([b"a *** here"], [b"a *** here"], 10))
        self.assert_over(relay, "complete", "finished")

    def test_an_answer_that_is_all_there_and_nobody_to_take_it(self) -> None:
        self.client.gone = True
        relay = Relay(self.client, self.clock)
        relay.carry(Provider(b"whole"), [])
        self.assertEqual((relay.outcome, self.client.pieces), ("cancelled", []))

    def test_truncated(self) -> None:
        """The client's connection is cut, not finished; what had come was written."""
        relay = self.relay(idle=5)
        relay.dataReceived(b"half")
        relay.connectionLost(BROKEN)
        self.assertEqual(self.client.pieces, [b"half"])
        self.assert_over(relay, "truncated", "cut")

    def test_cancelled(self) -> None:
        """The client leaves: the provider is stopped, and the request is not touched again."""
        relay = self.relay(idle=5)
        relay.dataReceived(b"half")
        self.client.leave()
        self.assertEqual(self.provider.told, ["stop"])
        self.assert_over(relay, "cancelled", "")

    def test_a_client_that_has_left_already(self) -> None:
        self.client.gone = True
        relay = self.relay()
        self.assertEqual(self.provider.told, ["stop"])
        self.assertEqual(self.successResultOf(relay.done), "cancelled")

    def test_given_up_from_outside(self) -> None:
        """Whoever awaits it is cancelled: as if the client had left."""
        relay = self.relay()
        relay.done.cancel()
        self.assertEqual(self.provider.told, ["stop"])
        self.assertEqual(self.successResultOf(relay.done), "cancelled")

    def test_the_last_bytes_leave_with_the_end(self) -> None:
        """In one call; they are counted, filtered and seen as others."""
        ended: list[str] = []
        relay = self.relay(idle=5, body_filter=Mask(b"key"), on_end=ended.append)
        relay.dataReceived(b"one")
        self.assertEqual(self.client.pieces, [b"one"])
        relay.lastReceived(b"two a key ke")
        self.assertEqual((self.client.pieces, ended), ([b"one"], []))
        relay.connectionLost(DONE)
        self.assertEqual((self.client.pieces, relay.count, ended), ([b"one", b"two a *** ke"], 15, ["complete"]))
        self.assert_over(relay, "complete", "finished")
        self.assertEqual(ended, ["complete"])

    def test_the_last_bytes_for_a_client_that_left(self) -> None:
        """They are seen, and written to nobody."""
        relay = self.relay(drain=5)
        self.client.leave()
        relay.lastReceived(b"two")
        relay.connectionLost(DONE)
        self.assertEqual((self.client.pieces, self.seen, relay.outcome), ([], [b"two"], "cancelled"))

    def test_a_stray_key_in_the_last_bytes(self) -> None:
        """What nobody may see is not written, and the response is cut."""
        relay = self.relay(body_filter=Refuses())
        relay.lastReceived(b"key")
        relay.connectionLost(DONE)
        self.assertEqual((self.client.pieces, self.client.end, relay.outcome), ([], "cut", "truncated"))


class Times(RelayCase):
    def test_silence(self) -> None:
        """The provider is stopped and the client cut, so long after the last piece."""
        relay = self.relay(idle=5)
        for _ in range(3):
            self.clock.advance(4)
            relay.dataReceived(b".")
        self.clock.advance(4.9)
        self.assertEqual(self.client.end, "")
        self.clock.pump([0.1, 0.1])
        self.assertEqual(self.provider.told, ["stop"])
        self.assert_over(relay, "idle_timeout", "cut")

    def test_one_timer_for_many_pieces(self) -> None:
        """No piece sets a timer."""
        relay = self.relay(idle=5)
        (timer,) = self.clock.getDelayedCalls()
        for _ in range(100):
            relay.dataReceived(b".")
        self.assertEqual(self.clock.getDelayedCalls(), [timer])

    def test_one_timer_for_many_relays(self) -> None:
        """Each is exact, and what is over is not held by those that go on."""
        deadlines, clients = Deadlines(self.clock), [Client() for _ in range(3)]
        relays = [Relay(client, self.clock, idle=5 + n, deadlines=deadlines) for n, client in enumerate(clients)]
        for relay in relays:
            relay.carry(self.provider, [])
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        over, gone = relays.pop(1), weakref.ref(clients.pop(1))
        over.connectionLost(DONE)
        self.assertEqual(over.outcome, "complete")
        del over, relay
        gc.collect()
        self.assertIsNone(gone())
        self.clock.advance(5)
        self.assertEqual([relay.outcome for relay in relays], ["idle_timeout", ""])
        self.clock.pump([1, 1])
        self.assertEqual([relay.outcome for relay in relays], ["idle_timeout", "idle_timeout"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_paused_provider_is_not_silent(self) -> None:
        relay = self.relay(idle=5, stalled=100)
        relay.pauseProducing()
        self.clock.pump([1] * 60)
        self.assertEqual(self.client.end, "")
        relay.resumeProducing()
        self.clock.pump([1] * 4)
        self.assertEqual(self.client.end, "")
        self.clock.pump([1] * 2)
        self.assert_over(relay, "idle_timeout", "cut")

    def test_a_client_that_takes_nothing(self) -> None:
        relay = self.relay(idle=5, stalled=20)
        self.clock.advance(3)
        relay.pauseProducing()
        self.clock.pump([1] * 19)
        self.assertEqual(self.client.end, "")
        self.clock.pump([1, 1, 1, 1, 1])
        self.assert_over(relay, "client_stalled", "cut")

    def test_a_deadline(self) -> None:
        """Holds even while pieces come; bytes that come after it find nobody."""
        relay = self.relay(idle=5, deadline=12.0)
        for _ in range(11):
            self.clock.advance(1)
            relay.dataReceived(b".")
        self.assertEqual(self.client.end, "")
        self.clock.advance(1)
        self.assert_over(relay, "deadline_exceeded", "cut")

    def test_a_deadline_waits_for_the_client(self) -> None:
        """A slow reader is not cut for what is no fault of its provider's."""
        for limits in ({"idle": 5, "stalled": 100}, {}):
            self.client = Client()
            relay = self.relay(deadline=self.clock.seconds() + 10.0, **limits)
            self.clock.pump([1] * 4)
            relay.dataReceived(b".")
            relay.pauseProducing()
            self.clock.pump([1] * 60)
            relay.resumeProducing()
            self.clock.pump([1] * 4)
            relay.dataReceived(b".")
            self.assertEqual(self.client.end, "")
            self.clock.pump([1] * 3)
            self.assert_over(relay, "deadline_exceeded", "cut")

    def test_no_limits(self) -> None:
        """Then there is no timer at all."""
        relay = self.relay()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        relay.connectionLost(DONE)
        self.assert_over(relay, "complete", "finished")

    def test_only_a_limit_for_the_client(self) -> None:
        """Is kept although nothing was paused when it was set."""
        relay = self.relay(stalled=5)
        self.clock.advance(17)
        self.assertEqual(self.client.end, "")
        relay.pauseProducing()
        self.clock.pump([1] * 10)
        self.assert_over(relay, "client_stalled", "cut")


class Backpressure(RelayCase):
    def test_the_client_moves_the_provider(self) -> None:
        relay = self.relay()
        self.assertIs(self.client.producer, relay)
        self.client.producer.pauseProducing()
        relay.dataReceived(b"was under way")
        self.client.producer.resumeProducing()
        self.assertEqual((self.provider.told, self.client.pieces), (["pause", "resume"], [b"was under way"]))


class Gathering(RelayCase):
    def test_pieces_of_one_interval(self) -> None:
        relay = self.relay(flush_interval=0.1)
        relay.dataReceived(b"a")
        relay.dataReceived(b"b")
        self.assertEqual(self.client.pieces, [])
        self.clock.advance(0.1)
        self.assertEqual(self.client.pieces, [b"ab"])
        relay.dataReceived(b"c")
        relay.connectionLost(DONE)
        self.assertEqual(self.client.pieces, [b"ab", b"c"])
        self.assert_over(relay, "complete", "finished")

    def test_what_was_gathered_when_the_provider_breaks_off(self) -> None:
        relay = self.relay(flush_interval=0.1)
        relay.dataReceived(b"a")
        relay.connectionLost(BROKEN)
        self.assertEqual(self.client.pieces, [b"a"])
        self.assert_over(relay, "truncated", "cut")

    def test_what_was_gathered_when_the_client_leaves(self) -> None:
        relay = self.relay(flush_interval=0.1)
        relay.dataReceived(b"a")
        self.client.leave()
        self.assert_over(relay, "cancelled", "")


class Rewriting(RelayCase):
    def test_what_is_held_back(self) -> None:
        """Comes at the end, so that the answer is as long as was said."""
        relay = self.relay(body_filter=Mask(b"key"))
        relay.dataReceived(b"my k")
        relay.dataReceived(b"ey is k")
        relay.connectionLost(DONE)
        self.assertEqual((b"".join(self.client.pieces), relay.count), (b"my *** is k", 11))
        self.assert_over(relay, "complete", "finished")


class Draining(RelayCase):
    """A provider that is heard out when its client leaves."""

    def left(self, **settings: Any) -> Relay:
        relay = self.relay(drain=10.0, idle=5, deadline=9.0, **settings)
        relay.dataReceived(b"one")
        self.client.leave()
        return relay

    def assert_cancelled(self, relay: Relay, *told: str) -> None:
        self.assertEqual((relay.outcome, self.successResultOf(relay.done)), ("cancelled", "cancelled"))
        self.assertEqual((self.provider.told, self.client.pieces), (list(told), [b"one"]))
        self.assertEqual((relay.count, self.clock.getDelayedCalls(), relay.drains), (3, [], False))

    def test_to_its_end(self) -> None:
        """What comes is seen, and nothing of it is written to who has left."""
        relay = self.left()
        self.assertTrue(relay.drains)
        relay.dataReceived(b"two")
        relay.pauseProducing()
        relay.stopProducing()
        self.clock.advance(9.5)
        relay.dataReceived(b"three")
        relay.connectionLost(DONE)
        self.assertEqual(self.seen, [b"one", b"two", b"three"])
        self.assert_cancelled(relay, "resume")

    def test_broken_off(self) -> None:
        """It is cancelled all the same."""
        relay = self.left()
        relay.connectionLost(BROKEN)
        self.assert_cancelled(relay, "resume")

    def test_for_too_long(self) -> None:
        """There is an end to it."""
        relay = self.left()
        self.clock.advance(10)
        self.assert_cancelled(relay, "resume", "stop")

    def test_gathered_pieces(self) -> None:
        """What was held back for the client is dropped."""
        relay = self.relay(drain=10.0, flush_interval=1.0)
        relay.dataReceived(b"one")
        self.client.leave()
        relay.dataReceived(b"two")
        relay.connectionLost(DONE)
        self.assertEqual((self.client.pieces, self.seen, self.clock.getDelayedCalls()), ([], [b"one", b"two"], []))


class Shrinking:
    """Leaves every x out."""

    keeps_length = False

    def feed(self, data: bytes) -> bytes:
        return data.replace(b"x", b"")

    def end(self) -> bytes:
        return b""


class Lengths(RelayCase):
    def test_a_body_that_shrinks(self) -> None:
        """The length that the provider announced is not the client's; nothing empty is written."""
        self.provider = Provider(b"axb")
        relay = self.relay(body_filter=Shrinking())
        self.assertEqual((self.client.head[3], self.client.pieces, relay.count), (2, [b"ab"], 2))
        self.client, self.provider = Client(), Provider()
        self.provider.length = 3
        relay = self.relay(body_filter=Shrinking())
        for piece in (b"a", b"x", b"b"):
            relay.dataReceived(piece)
        self.assertEqual((self.client.head[3], self.client.pieces), (None, [b"a", b"b"]))
