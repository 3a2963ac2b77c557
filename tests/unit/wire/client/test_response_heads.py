from __future__ import annotations

from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.http import fields
from llmproxy.http.field_lines import SharedNames
from llmproxy.wire.client.response_heads import MAX_ALIKE, MAX_AT_FIRST_SIGHT, MAX_SHAPES, ResponseHeads
from llmproxy.wire.parser import CHUNKED, BadMessage, MessageLimits, ResponseHead, response_head

LIMITS = MessageLimits()
NAMES = (
    "Date", "Content-Type", "content-length", "Content-Length", "Transfer-Encoding", "Connection", "x-request-id",
    "X-Request-Id", "Set-Cookie", "Alt-Svc", "Access-Control-Allow-Origin", "x-y", "Keep-Alive", "Date ", "",
)  # fmt: skip
VALUES = (
    "5", "0", "05", "-1", "5, 5", "chunked", "gzip, chunked", "keep-alive", "close", "x-y", "keep-alive, x-y", "a\tb",
    "a\x7f", "", "é", "1" * 19, " 7 ",
)  # fmt: skip
LINE = st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES))
STATUS = st.sampled_from(
    ("HTTP/1.1 200 OK", "HTTP/1.1 204 No Content", "HTTP/1.0 200 OK", "HTTP/1.1 429", "HTTP/1.1 100 x")
)


def parsed(parse: object, head: bytes, method: bytes) -> object:
    try:
        return parse(head, method)  # type: ignore[operator]
    except BadMessage as e:
        return (e.status, e.code, e.message)


class Heads(TestCase):
    @given(STATUS, st.lists(LINE, max_size=6), st.lists(st.sampled_from(VALUES), min_size=6, max_size=6), st.booleans())
    def test_the_same_for_every_head(
        self, status: str, lines: list[tuple[str, str]], others: list[str], cors: bool
    ) -> None:
        """One head, one of the same names with other values, and the first again: what the parser says of each."""
        first = "\r\n".join([status, *(f"{name}: {value}" for name, value in lines)]).encode("latin-1")
        pairs = zip(lines, others, strict=False)
        second = "\r\n".join([status, *(f"{name}: {value}" for (name, _), value in pairs)]).encode("latin-1")
        heads = ResponseHeads(LIMITS)
        for head in (first, second, first, second):
            for method in (b"POST", b"HEAD"):
                mine = parsed(heads.parse, head, method)
                theirs = parsed(lambda head, method: response_head(head, LIMITS, method), head, method)
                self.assertEqual(mine, theirs)
                if isinstance(mine, ResponseHead) and isinstance(theirs, ResponseHead):
                    self.assertEqual(list(mine.lines.names), theirs.lines.names)
                    passing = [fields.incoming(each.lines, own_cors=cors) for each in (mine, theirs)]
                    self.assertEqual(*passing)
                    if isinstance(mine.lines.names, SharedNames):
                        without = fields.incoming_of_shape(mine.lines, mine.lines.names, own_cors=cors, without=b"x-y")
                        kept = [line for line in passing[1] if not line.lower().startswith(b"x-y")]
                        self.assertEqual(without, kept)

    def test_long_ones_are_not_remembered(self) -> None:
        """The expression for what they have in common would take a tenth of a second to be compiled, for each."""
        for status, line, is_kept in (
            (b"OK", b"Connection: " + b"x, " * 300 + b"x", True),
            (b"OK", b"Connection: " + b"x, " * 1000 + b"x", False),
            (b"O" * 3000, b"Connection: x", False),
            (b"OK", b"\r\n".join(b"X-Some-Name-%d: 1" % number for number in range(150)), False),
        ):
            heads = ResponseHeads(LIMITS)
            head = b"HTTP/1.1 200 %b\r\nContent-Length: 2\r\n%b" % (status, line)
            self.assertEqual(heads.parse(head, b"POST").length, 2)
            self.assertEqual(heads.whole(head + b"\r\n\r\n{}") is not None, is_kept, line[:20])

    @given(STATUS, st.lists(LINE, max_size=6), st.lists(st.sampled_from(VALUES), min_size=6, max_size=6), st.data())
    def test_a_whole_response(
        self, status: str, lines: list[tuple[str, str]], others: list[str], data: st.DataObject
    ) -> None:
        """What is all there in one read has the lines and the body that the parser finds; whatever is odd has not."""
        pairs = zip(lines, others, strict=False)
        mixed = data.draw(st.sampled_from((lines, [(name, value) for (name, _), value in pairs])))
        first, second = (
            "\r\n".join([status, *(f"{name}: {value}" for name, value in each)]).encode("latin-1")
            for each in (lines, mixed)
        )
        heads = ResponseHeads(LIMITS)
        parsed(heads.parse, first, b"POST")
        body = data.draw(
            st.sampled_from((b"", b"12345", b"1234567", b"\r\n\r\n7", b"0\r\n\r\n", b"1\r\nx\r\n0\r\n\r\n"))
        )
        break_at = data.draw(st.sampled_from((b"\r\n\r\n", b"\n\r\n", b"\r\n")))
        whole = heads.whole(second + break_at + body)
        theirs = parsed(lambda head, method: response_head(head, LIMITS, method), second, b"POST")
        usual = isinstance(theirs, ResponseHead) and theirs.keep_alive and break_at == b"\r\n\r\n"
        begun = heads.beginning(second + break_at + body) if whole is None else None
        if begun is not None:
            assert isinstance(theirs, ResponseHead)
            self.assertEqual((begun, begun[0].lines.names), ((theirs, body), theirs.lines.names))
            self.assertEqual(theirs.length, CHUNKED)
        if whole is None:
            kept = any(shape.match(second + break_at) for alike in heads._shapes.values() for shape in alike)
            self.assertFalse(usual and kept and isinstance(theirs, ResponseHead) and theirs.length == len(body))
            return
        assert isinstance(theirs, ResponseHead) and usual
        self.assertEqual((whole.code, whole.lines), (theirs.code, theirs.lines))
        self.assertEqual(whole.lines.names, theirs.lines.names)
        if theirs.length >= 0:
            self.assertEqual((theirs.length, whole.body), (len(body), body))
        else:
            self.assertEqual(whole.body, b"x" if body.startswith(b"1") else b"")

    def test_the_beginning_of_a_stream(self) -> None:
        """The head of a response in chunks, the rest of which is to come, is not parsed where it is like others."""
        heads = ResponseHeads(LIMITS)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked"
        for first in (head, head.replace(b"chunked", b"chunked\r\nx-y: 1"), head):
            heads.parse(first, b"POST")
        for rest in (b"", b"5\r\nhe", b"5\r\nhello\r\n"):
            self.assertIsNone(heads.whole(head + b"\r\n\r\n" + rest))
            self.assertEqual(heads.beginning(head + b"\r\n\r\n" + rest), (heads.parse(head, b"POST"), rest))
        ends_so = head + b"\r\nx-y: 10"  # as a whole body in chunks does
        heads.parse(ends_so, b"POST")
        for alone in (ends_so + b"\r\n\r\n", head + b"\r\n\r\n"):
            self.assertIsNone(heads.whole(alone))
            self.assertEqual(heads.beginning(alone), (heads.parse(alone[:-4], b"POST"), b""))
        for odd in (b"\r\n", b"\n\r\n\r\n", b"\r\nx: y\r\n\r\n"):
            self.assertIsNone(heads.whole(head + odd))
            self.assertIsNone(heads.beginning(head + odd))
        fixed = b"HTTP/1.1 200 OK\r\nContent-Type: a\r\nContent-Length: 2"
        heads.parse(fixed, b"POST")
        self.assertIsNone(heads.whole(fixed + b"\r\n\r\na"))
        self.assertIsNone(heads.beginning(fixed + b"\r\n\r\na"))
        long = head.replace(b": text", b": " + b"a" * LIMITS.target) + b"\r\n\r\n"
        self.assertIsNone(heads.whole(long))
        self.assertIsNone(heads.beginning(long))

    def test_ever_new_names(self) -> None:
        """After many kinds, one is known when it has come twice: to make up names costs no more than the look."""
        heads = ResponseHeads(LIMITS)

        def is_known(name: bytes, times: int) -> bool:
            head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-%b: 1" % name
            for _ in range(times):
                heads.parse(head, b"POST")
            return heads.whole(head + b"\r\n\r\n{}") is not None

        known = [is_known(b"a%d" % number, 1) for number in range(MAX_AT_FIRST_SIGHT + 10)]
        self.assertEqual(known, [True] * MAX_AT_FIRST_SIGHT + [False] * 10)
        self.assertEqual([is_known(b"b", 1), is_known(b"b", 1), is_known(b"c", 2)], [False, True, True])

    def test_others_with_as_many_lines(self) -> None:
        """Responses of several endpoints take turns: each is known again, of so many; no more are kept in all."""
        heads = ResponseHeads(LIMITS)
        alike = [b"HTTP/1.1 200 OK\r\nX-Of-%d: a\r\nContent-Length: 2" % number for number in range(MAX_ALIKE)]
        for head in alike:
            self.assertIsNone(heads.whole(head + b"\r\n\r\nab"))
            heads.parse(head, b"POST")
        before = list(heads._shapes.values())
        for head in alike * 2:
            whole = heads.whole(head + b"\r\n\r\nab")
            assert whole is not None
            self.assertEqual(list(whole.values), head.split(b"\r\n")[1:])
            self.assertEqual(heads.parse(head, b"POST").lines, whole.lines)
        self.assertEqual(list(heads._shapes.values()), before)
        for number in range(2 * MAX_SHAPES):
            heads.parse(b"HTTP/1.1 %d OK\r\nA: b\r\nContent-Length: 2" % (200 + number), b"POST")
            self.assertLessEqual(sum(map(len, heads._shapes.values())), MAX_SHAPES)
        self.assertIsNone(heads.whole(alike[0] + b"\r\n\r\nab"))

    def test_whole_where_others_have_come(self) -> None:
        """Responses of several shapes take turns; one that is too long, or not alone in its read, is none of them."""
        heads = ResponseHeads(LIMITS)
        usual = b"HTTP/1.1 200 OK\r\nContent-Type: a\r\nContent-Length: 2"
        other = b"HTTP/1.1 200 OK\r\nContent-Type: a\r\nx-y: 1\r\ncontent-length:2 "
        for head in (usual, other):
            self.assertIsNone(heads.whole(head + b"\r\n\r\nab"))
            heads.parse(head, b"POST")
        for head in (usual, other, usual, usual, other):
            whole = heads.whole(head + b"\r\n\r\nab")
            assert whole is not None
            self.assertEqual((whole.body, list(whole.values)), (b"ab", head.split(b"\r\n")[1:]))
        for odd in (b"\r\n\r\nabc", b"\r\n\r\na", b"\r\n\r\n", b"\r\nx: y\r\n\r\nab", b"\n\nab", b"\r\n"):
            self.assertIsNone(heads.whole(usual + odd))
        long = usual.replace(b": a", b": " + b"a" * LIMITS.target)
        self.assertIsNone(heads.whole(long + b"\r\n\r\nab"))
