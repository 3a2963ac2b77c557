from __future__ import annotations

from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.http import fields
from llmproxy.http.field_lines import SharedNames
from llmproxy.wire.client.response_heads import ResponseHeads
from llmproxy.wire.parser import BadMessage, MessageLimits, ResponseHead, response_head

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
