"""What our parser takes for a message, another strict one takes for the same message: nothing can be smuggled between.

The other is h11, which comes with the providers' SDKs. It may accept what we refuse, never the other way round.
"""

from __future__ import annotations

from unittest import TestCase

import h11
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.wire.body_framing import ChunkedBody
from llmproxy.wire.parser import (
    CHUNKED,
    UNTIL_CLOSE,
    BadMessage,
    MessageLimits,
    request_head,
    response_head,
)

LIMITS = MessageLimits()
NAMES = st.sampled_from(
    b"Host host Content-Length content-length Transfer-Encoding Connection Expect X-A X_B".split()
) | st.from_regex(rb"[!-~\x80-\xff ]{1,6}", fullmatch=True)
ODD = [b"5, 5", b"5,6", b"gzip, chunked", b"chunked, chunked", b"keep-alive, x", b"", b" padded ", b"\tx\t", b"a\x0bb"]
VALUES = st.sampled_from([*b"a a:80 0 5 05 +5 -1 chunked Chunked identity close 100-continue \xe9".split(), *ODD])
SEPARATORS = st.sampled_from([b": ", b":", b":  ", b" : ", b":\t"])
LINES = st.lists(st.tuples(NAMES, SEPARATORS, VALUES | st.binary(max_size=8)).map(b"".join), max_size=6)
TARGETS = st.sampled_from([b"/", b"/v1/x?a=%20", b"http://a/x", b"*"]) | st.binary(max_size=6).map(b"/".__add__)
VERSIONS = st.sampled_from([b"HTTP/1.1", b"HTTP/1.0"])
STARTS = st.tuples(st.sampled_from([b"GET", b"POST", b"HEAD", b"OPTIONS", b"get"]), TARGETS, VERSIONS).map(b" ".join)
STATUSES = st.tuples(VERSIONS, st.sampled_from([b"200 OK", b"204 ", b"304 x", b"529 Odd \xe9", b"200"])).map(b" ".join)
PIECES = [b"5\r\nhello\r\n", b"a;x=y\r\n0123456789\r\n", b"0\r\n", b"\r\n", b"A: b\r\n", b"5", b"\n", b"-", b" "]
BODIES = st.lists(st.sampled_from(PIECES), max_size=6).map(b"".join) | st.binary(max_size=30)


def fields(lines: list[bytes]) -> list[tuple[bytes, bytes]]:
    split = (line.partition(b":") for line in lines)
    return [(name.lower(), value.strip(b" \t")) for name, _, value in split]


def theirs(role: type[h11.Sentinel], data: bytes, method: str = "GET") -> h11.Connection:
    connection = h11.Connection(role, max_incomplete_event_size=10**6)
    if role is h11.CLIENT:
        connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
        connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    return connection


class Elsewhere(TestCase):
    @given(STARTS, LINES)
    def test_requests(self, start: bytes, lines: list[bytes]) -> None:
        """The same method, target, fields and length of the body."""
        head = b"\r\n".join([start, b"Host: a", *lines])
        try:
            ours = request_head(head, LIMITS)
        except BadMessage:
            return
        connection = theirs(h11.SERVER, head + b"\r\n\r\n" + b"5\r\nhello\r\n0\r\n\r\n" * (ours.length == CHUNKED))
        event = connection.next_event()
        assert isinstance(event, h11.Request)
        self.assertEqual(event.method, ours.method)
        self.assertTrue(event.target.endswith(ours.target))
        self.assertEqual(self._unframed(event.headers), self._unframed(fields(ours.lines)))
        if ours.length == CHUNKED:
            event = connection.next_event()
            assert isinstance(event, h11.Data)
            self.assertEqual(bytes(event.data), b"hello")
        elif ours.length == 0:
            self.assertIsInstance(connection.next_event(), h11.EndOfMessage)
        else:
            connection.receive_data(b"x" * ours.length)
            event = connection.next_event()
            assert isinstance(event, h11.Data)
            self.assertEqual(len(event.data), ours.length)
            self.assertIsInstance(connection.next_event(), h11.EndOfMessage)

    @given(STATUSES, LINES, st.sampled_from(["GET", "HEAD"]))
    def test_answers(self, start: bytes, lines: list[bytes], method: str) -> None:
        """The same status, fields and length of the body."""
        head = b"\r\n".join([start, *lines])
        try:
            ours = response_head(head, LIMITS, method.encode())
        except BadMessage:
            return
        connection = theirs(h11.CLIENT, head + b"\r\n\r\n", method)
        event = connection.next_event()
        assert isinstance(event, h11.Response)
        self.assertEqual(event.status_code, ours.code)
        self.assertEqual(self._unframed(event.headers), self._unframed(fields(ours.lines)))
        if ours.length == 0:
            self.assertIsInstance(connection.next_event(), h11.EndOfMessage)
        elif ours.length not in (CHUNKED, UNTIL_CLOSE):
            connection.receive_data(b"x" * ours.length)
            event = connection.next_event()
            assert isinstance(event, h11.Data)
            self.assertEqual(len(event.data), ours.length)
            self.assertIsInstance(connection.next_event(), h11.EndOfMessage)

    @given(BODIES)
    def test_chunked_bodies(self, sent: bytes) -> None:
        """The same bytes, and the same end."""
        body = ChunkedBody(LIMITS)
        try:
            ours = b"".join(body.feed(sent))
        except BadMessage:
            return
        connection = theirs(h11.SERVER, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + sent)
        read, done = b"", False
        connection.next_event()
        while (event := connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.Data):
                read += event.data
            elif isinstance(event, h11.EndOfMessage):
                done = True
                break
        self.assertEqual(done, body.done)
        if done:
            self.assertEqual(read, ours)
            self.assertEqual(connection.trailing_data[0], body.rest)
        else:
            self.assertTrue(ours.startswith(read) or read.startswith(ours))

    def _unframed(self, given: object) -> list[tuple[bytes, bytes]]:
        """Without those that h11 writes its own way."""
        return [(n, v) for n, v in given if n not in (b"transfer-encoding", b"content-length")]  # type: ignore[attr-defined]
