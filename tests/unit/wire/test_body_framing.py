"""Where a body ends, to the byte."""

from __future__ import annotations

from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.wire.body_framing import (
    LAST_CHUNK,
    ChunkedBody,
    ChunkedResponseBody,
    FixedLengthBody,
    UntilCloseBody,
    chunk,
    joined_chunks,
    request_body_reader,
    response_body_reader,
    size_lines,
)
from llmproxy.wire.parser import CHUNKED, UNTIL_CLOSE, BadMessage, MessageLimits
from tests.unit.wire.test_parser import LIMITS, SMALL, by_bytes, cuts


def read_body(pieces: list[bytes], limits: MessageLimits) -> object:
    body, read = ChunkedBody(limits), b""
    try:
        for piece in pieces:
            read += b"".join(body.feed(piece))
    except BadMessage as bad:
        return bad.status
    return read, body.done, body.rest


NEARLY_BODIES = st.lists(
    st.sampled_from(
        [
            b"5\r\nhello\r\n",
            b"0\r\n",
            b"\r\n",
            b"a;x=y\r\n0123456789\r\n",
            b"A: b\r\n",
            b"\r",
            b"\n",
            b"5",
            b"-",
            b"0x",
            b" ",
            b";" * 20,
            b"A: " + b"b" * 40,
        ]
    ),
    max_size=10,
).map(b"".join)


class Splits(TestCase):
    """It makes no difference in which pieces bytes come."""

    @given(st.binary(max_size=40), st.integers(0, 30), st.data())
    def test_bodies_of_a_length(self, sent: bytes, length: int, data: st.DataObject) -> None:
        body, read = FixedLengthBody(length), b""
        for piece in data.draw(st.composite(cuts)(sent)):
            read += b"".join(body.feed(piece))
        self.assertEqual((read, body.done, body.rest), (sent[:length], len(sent) >= length, sent[length:]))

    @given(st.data())
    def test_a_response_yields_what_came_before_a_fault(self, data: st.DataObject) -> None:
        sent = data.draw(NEARLY_BODIES | st.binary(max_size=40))
        seen = []
        for pieces in ([sent], by_bytes(sent), data.draw(st.composite(cuts)(sent))):
            body, read = ChunkedResponseBody(SMALL), b""
            for piece in pieces:
                read += b"".join(body.feed(piece))
                if body.fault is not None:
                    break
            seen.append((read, body.done, body.rest, body.fault and body.fault.status))
        self.assertEqual(seen[1:], [seen[0]] * 2)

    @given(st.data())
    def test_chunked_bodies(self, data: st.DataObject) -> None:
        sent = data.draw(NEARLY_BODIES | st.binary(max_size=40))
        whole = read_body([sent], SMALL)
        self.assertEqual(data.draw(st.composite(cuts)(sent).map(lambda pieces: read_body(pieces, SMALL))), whole)
        self.assertEqual(read_body(by_bytes(sent), SMALL), whole)

    @given(st.lists(st.binary(min_size=1, max_size=300)), st.binary(max_size=20), st.data())
    def test_chunks_are_read_as_they_were_written(self, pieces: list[bytes], rest: bytes, data: st.DataObject) -> None:
        sent = b"".join(map(chunk, pieces)) + LAST_CHUNK + rest
        read = read_body(data.draw(st.composite(cuts)(sent)), LIMITS)
        self.assertEqual(read, (b"".join(pieces), True, rest))

    @given(st.binary(max_size=200))
    def test_nothing_but_bad_message_comes_of_any_bytes(self, sent: bytes) -> None:
        try:
            ChunkedBody(SMALL).feed(sent)
        except BadMessage as bad:
            self.assertIn(bad.status, (400, 431))


class Kinds(TestCase):
    def test_what_reads_a_body(self) -> None:
        for length, kind in ((0, FixedLengthBody), (5, FixedLengthBody), (CHUNKED, ChunkedBody)):
            self.assertIs(type(request_body_reader(length, LIMITS)), kind)
        for length, of_response in (
            (5, FixedLengthBody),
            (CHUNKED, ChunkedResponseBody),
            (UNTIL_CLOSE, UntilCloseBody),
        ):
            self.assertIs(type(response_body_reader(length, LIMITS)), of_response)

    def test_until_the_end_of_the_connection(self) -> None:
        body = UntilCloseBody()
        self.assertEqual((body.feed(b"a"), body.feed(b"b"), body.done, body.rest), ([b"a"], [b"b"], False, b""))

    def test_a_body_of_no_bytes_is_complete(self) -> None:
        self.assertTrue(FixedLengthBody(0).done)


class Offers(TestCase):
    """What takes whole chunks as they are is asked between chunks alone."""

    def test_it_is_asked_where_a_chunk_begins(self) -> None:
        body, taken = ChunkedResponseBody(LIMITS), list[bytes]()

        def take(data: bytes) -> bool:
            taken.append(data)
            return True

        body.offer(take)
        self.assertIs(body.take, take)
        for piece, asked in (
            (b"5\r\nhello\r\n", True),
            (b"5\r\nhello\r\n5", False),
            (b"\r\nhello\r", False),
            (b"\n", True),
            (b"5;x=y\r\nhello\r\n5\r\nhel", False),
            (b"lo\r\n", True),
            (b"0\r\n", False),
        ):
            body.feed(piece)
            self.assertEqual(body.take is take, asked, piece)
        self.assertEqual(taken, [])

    def test_it_comes_in_the_middle_of_a_chunk(self) -> None:
        """Then the rest of that chunk is read first."""
        body = ChunkedResponseBody(LIMITS)
        body.feed(b"5\r\nhe")
        body.offer(lambda data: True)
        self.assertIsNone(body.take)
        self.assertEqual(body.feed(b"llo\r\n"), [b"llo"])
        self.assertIsNotNone(body.take)

    def test_bodies_that_are_in_no_chunks(self) -> None:
        self.assertEqual((FixedLengthBody(5).take, UntilCloseBody().take), (None, None))


class Joined(TestCase):
    @given(st.lists(st.binary(max_size=40), max_size=6), st.data())
    def test_whole_chunks_alone(self, pieces: list[bytes], data: st.DataObject) -> None:
        """What is joined is what a reader makes of it, with nothing left over; what is cut or odd is left to that."""
        sent = b"".join(map(chunk, filter(None, pieces)))
        cut = data.draw(st.integers(0, len(sent)))
        for read in (sent, sent[:cut], sent[cut:], sent + LAST_CHUNK):
            joined = joined_chunks(read)
            if joined:
                body = ChunkedBody(LIMITS)
                self.assertEqual((b"".join(body.feed(read)), body.done), (joined, False))
                self.assertEqual(body.feed(chunk(b"next")), [b"next"])

    def test_many_at_once(self) -> None:
        self.assertEqual(joined_chunks(chunk(b"data: 1\n\n") * 20), b"data: 1\n\n" * 20)
        self.assertEqual(joined_chunks(b"no size" * 20), b"")


class Chunks(TestCase):
    def test_sizes_that_are_none(self) -> None:
        for size in (
            b"-5",
            b"+5",
            b"0x5",
            b" 5",
            b"5 ",
            b"5\t;a",
            b"g",
            b"",
            b"f" * 16,
            b"5_0",
            b"5;a\x01",
            b"5\r",
            b"5\n",
        ):
            with self.subTest(size):
                self.assertEqual(read_body([size + b"\r\nhello\r\n0\r\n\r\n"], LIMITS), 400)

    def test_a_chunk_that_is_longer_or_shorter_than_it_says(self) -> None:
        self.assertEqual(read_body([b"4\r\nhello\r\n"], LIMITS), 400)
        self.assertEqual(read_body([b"6\r\nhello\r\n0\r\n\r\n"], LIMITS), 400)
        self.assertEqual(read_body([b"5\r\nhello\n"], LIMITS), 400)

    def test_extensions_are_dropped(self) -> None:
        self.assertEqual(read_body([b'5;a="b;c"\r\nhello\r\n0;x\r\n\r\n'], LIMITS), (b"hello", True, b""))

    def test_trailers_are_read_strictly_and_dropped(self) -> None:
        self.assertEqual(read_body([b"0\r\nA: b\r\nHost: c\r\n\r\nrest"], LIMITS), (b"", True, b"rest"))
        for line in (b"A", b" A: b", b"A : b", b"A: \0", b"A: b\nC: d"):
            self.assertEqual(read_body([b"0\r\n" + line + b"\r\n\r\n"], LIMITS), 400)

    def test_endless_lines(self) -> None:
        self.assertEqual(read_body([b"5;" + b"a" * 300], LIMITS), 400)
        self.assertEqual(read_body([b"0\r\n" + b"A: b\r\n" * 2000], LIMITS), 431)


class SizeLines(TestCase):
    def test_chunks_of_all_sizes(self) -> None:
        """From how long it is with its framing follows how it begins."""
        sizes = (*range(1, 5000), 0xFFFF, 0x10000, 0xFFFFF, 0x100000)
        framed = [chunk(bytes(size)) for size in sizes]
        self.assertEqual([each for each in framed if not each.startswith(size_lines[len(each)])], [])
        self.assertEqual(len({len(each) for each in framed}), len(sizes))

    def test_lengths_that_no_chunk_has(self) -> None:
        """What is as long begins with no such line."""
        lengths = {len(chunk(bytes(size))) for size in range(1, 5000)}
        others = [length for length in range(5000) if length not in lengths]
        self.assertEqual(others, [*range(6), 21, 262, 4103])
        self.assertEqual([length for length in others if len(size_lines[length]) <= length], [])
