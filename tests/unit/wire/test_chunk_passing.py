"""What is passed on without being taken apart is what would have been sent otherwise."""

from __future__ import annotations

from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from llmproxy.http.masking import ErrorMask
from llmproxy.wire.body_framing import LAST_CHUNK, ChunkedResponseBody, chunk
from llmproxy.wire.chunk_passing import ChunkPassing, GatheringTap
from llmproxy.wire.parser import MessageLimits
from llmproxy.wire.relay import Relay
from tests.unit.wire.test_relay import Client

KEY = b"sk-a-key-that-nobody-may-see"
EVENTS = st.sampled_from(
    [
        *(b"data: 1\n\n", b"data: {}\n\ndata: 2\n\n", b": comment\n\n", b"data: a\r\n\r\n", b"data: cut", b"\n\n"),
        b'data: {"error":{"message":"not %b"}}\n\n' % KEY,
        b'data: {"error":{"message":"not %b' % KEY[:9],
        b'%b"}}\n\n' % KEY[9:],
        b"data: " + b"x" * 5000 + b"\n\n",
    ]
)
ODD = st.sampled_from([b"0", b"5;x=y\r\n12345\r\n", b"A\r\n12345678\n\n\r\n", b"a\r\n12345678\n\n\r\n", b"\r\n"])


class Downstream(Client):
    """A client's response in chunks."""

    takes = True

    def write_chunk(self, framed: bytes) -> bool:
        if not self.takes or self.gone:
            return False
        self.pieces.append(framed)
        return True

    def write(self, data: bytes) -> None:
        super().write(chunk(data))


class Stream:
    """A stream that is relayed, whatever is read of it."""

    def __init__(self, *, passing: bool, takes: bool = True, unseen_bytes: int = 0) -> None:
        self.clock, self.client, self.seen = Clock(), Downstream(), list[bytes]()
        self.client.takes = takes
        mask = ErrorMask(KEY)
        self.relay = Relay(self.client, self.clock, body_filter=mask)
        self.body = ChunkedResponseBody(MessageLimits())
        self.tap = GatheringTap(self.seen.append)
        if passing:
            write, seconds = self.client.write_chunk, self.clock.seconds
            self.body.offer(ChunkPassing(self.relay, write, self.tap, mask, seconds, unseen_bytes).take)

    def read(self, data: bytes) -> None:
        self.clock.advance(1.0)
        if self.body.done or self.body.fault is not None or (self.body.take is not None and self.body.take(data)):
            return
        piece = b"".join(self.body.feed(data))
        if piece:
            self.tap.feed(piece)
            self.relay.dataReceived(piece)


class Passing(TestCase):
    @given(st.lists(st.lists(EVENTS.map(chunk) | ODD, min_size=1, max_size=4).map(b"".join), max_size=6), st.data())
    def test_the_same_bytes_either_way(self, reads: list[bytes], data: st.DataObject) -> None:
        """To the client, to the tap, and as they are counted; wherever the reads end."""
        whole = b"".join(reads) + LAST_CHUNK
        if data.draw(st.booleans()):
            cut = data.draw(st.integers(0, len(whole)))
            reads = [whole[:cut], whole[cut:]]
        streams = Stream(passing=True), Stream(passing=False), Stream(passing=True, takes=False)
        for read in filter(None, reads):
            for stream in streams:
                stream.read(read)
        told = [(each.client.pieces, each.seen, each.relay.count, each.body.done) for each in streams]
        self.assertEqual(told[0], told[1])
        self.assertEqual(told[2], told[1])

    @given(st.lists(st.lists(EVENTS.map(chunk) | ODD, min_size=1, max_size=4).map(b"".join), max_size=6))
    def test_what_a_tap_sees_later(self, reads: list[bytes]) -> None:
        """All of it in the end, in order, and what came last by itself."""
        late, plain = Stream(passing=True, unseen_bytes=25), Stream(passing=False)
        for read in reads:
            late.read(read)
            plain.read(read)
            self.assertLessEqual(sum(map(len, late.tap.unseen)), 25)
            self.assertEqual(b"".join(late.seen + late.tap.unseen), b"".join(plain.seen))
        late.tap.show()
        self.assertEqual((late.seen[-1:], late.tap.unseen), (plain.seen[-1:], []))

    def test_events_are_seen_together(self) -> None:
        """When they are so many bytes, and before whatever comes otherwise."""
        stream = Stream(passing=True, unseen_bytes=20)
        for number in b"1234":
            stream.read(chunk(b"data: %c\n\n" % number))
        self.assertEqual(stream.seen, [b"data: 1\n\ndata: 2\n\n", b"data: 3\n\n"])
        stream.read(chunk(b"data: cut"))
        self.assertEqual(stream.seen[2:], [b"data: 4\n\n", b"data: cut"])

    def test_whole_events_are_not_taken_apart(self) -> None:
        """One chunk leaves as it came, several as one; the time is that of the last."""
        stream = Stream(passing=True)
        take = stream.body.take
        assert take is not None
        stream.clock.advance(5.0)
        one, other = chunk(b"data: 1\n\n"), chunk(b"data: 2\n\n")
        self.assertTrue(take(one))
        self.assertTrue(take(one + other))
        self.assertEqual(stream.client.pieces, [one, chunk(b"data: 1\n\ndata: 2\n\n")])
        self.assertEqual((stream.relay.count, stream.relay.last), (27, 5.0))

    def test_what_is_left_to_the_reader(self) -> None:
        """The end, what is cut, what may say the key, and all that comes once the client has left."""
        stream = Stream(passing=True)
        take = stream.body.take
        assert take is not None
        one = chunk(b"data: 1\n\n")
        unsized = b"\r\n" + b"x" * 15 + b"\n\n\r\n"  # as long as no chunk is
        for odd in (LAST_CHUNK, one + LAST_CHUNK, one[:-1], unsized, chunk(b"data: 1\n"), chunk(b"data: %b\n\n" % KEY)):
            self.assertFalse(take(odd), odd)
        stream.client.gone = True
        self.assertFalse(take(one))
        self.assertEqual((stream.client.pieces, stream.seen, stream.relay.count), ([], [], 0))
