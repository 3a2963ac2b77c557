"""Requests out of bytes, however these come."""

from __future__ import annotations

from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.wire.parser import BadMessage, RequestHead
from llmproxy.wire.server.request_decoder import BodyEnd, RequestDecoder
from tests.unit.wire.test_parser import SMALL, by_bytes, cuts

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
CHUNKS = b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x\r\nllo\r\n0\r\nA: b\r\n\r\n"
GOOD = st.lists(st.sampled_from([GET, POST, CHUNKS, b"\r\n" + GET]), max_size=5).map(b"".join)
ODD = st.sampled_from(
    [b"GET / HTTP/1.1\r\n\r\n", b"x\r\n\r\n", b"\r", b"\n", CHUNKS[:-9] + b"-\r\n", b"A" * 500, GET[:20], b""]
)


def events(pieces: list[bytes]) -> list[object]:
    """What they are made into: heads by target, a body as a whole, its end, a refusal by its status."""
    decoder, seen = RequestDecoder(SMALL), list[object]()
    for piece in pieces:
        decoder.feed(piece)
        while (event := decoder.next_event()) is not None:
            if isinstance(event, BadMessage):
                return [*seen, event.status]
            if isinstance(event, RequestHead):
                seen.append(event.target)
            elif isinstance(event, bytes) and isinstance(seen[-1], bytearray):
                seen[-1] += event
            else:
                seen.append(bytearray(event) if isinstance(event, bytes) else event)
    return seen


class Splits(TestCase):
    """It makes no difference in which pieces bytes come."""

    @given(GOOD, st.data())
    def test_any_requests(self, sent: bytes, data: st.DataObject) -> None:
        whole = events([sent])
        self.assertEqual(events(data.draw(st.composite(cuts)(sent))), whole)
        self.assertEqual(events(by_bytes(sent)), whole)

    @given(GOOD, ODD, st.data())
    def test_until_something_odd(self, sent: bytes, odd: bytes, data: st.DataObject) -> None:
        """A body that turns out malformed may have been read up to there, or not at all: its request fails anyway."""

        def sure(seen: list[object]) -> list[object]:
            return [event for event in seen if not isinstance(event, bytearray)]

        whole = sure(events([sent + odd]))
        self.assertEqual(sure(events(data.draw(st.composite(cuts)(sent + odd)))), whole)
        self.assertEqual(sure(events(by_bytes(sent + odd))), whole)


class Decoding(TestCase):
    def test_one_request_after_the_other(self) -> None:
        self.assertEqual(
            events([POST + CHUNKS + GET]),
            [b"/b", b"hello", BodyEnd.END, b"/c", b"hello", BodyEnd.END, b"/a", BodyEnd.END],
        )

    def test_a_body_that_is_all_there_is_taken_at_once(self) -> None:
        decoder = RequestDecoder(SMALL)
        decoder.feed(POST + GET)
        decoder.next_event()
        self.assertEqual((decoder.take_body(), decoder.buffer), (b"hello", GET))
        self.assertIsInstance(decoder.next_event(), RequestHead)
        self.assertEqual((decoder.take_body(), decoder.buffer, decoder.next_event()), (b"", b"", None))

    def test_one_that_is_not_is_not_taken(self) -> None:
        for sent in (POST[:-1], CHUNKS):
            decoder = RequestDecoder(SMALL)
            decoder.feed(sent)
            decoder.next_event()
            self.assertIsNone(decoder.take_body())
        self.assertIsNone(RequestDecoder(SMALL).take_body())

    def test_part_of_a_head(self) -> None:
        decoder = RequestDecoder(SMALL)
        self.assertEqual((decoder.next_event(), decoder.partial), (None, False))
        decoder.feed(GET[:9])
        self.assertEqual((decoder.next_event(), decoder.partial), (None, True))
        decoder.feed(GET[9:])
        self.assertIsInstance(decoder.next_event(), RequestHead)
        self.assertFalse(decoder.partial)

    def test_what_is_discarded_is_gone(self) -> None:
        decoder = RequestDecoder(SMALL)
        decoder.feed(GET)
        decoder.discard()
        self.assertEqual((decoder.buffer, decoder.next_event()), (b"", None))
