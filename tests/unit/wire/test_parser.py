"""What is a message and what is not, to the byte."""

from __future__ import annotations

from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.wire.parser import (
    CHUNKED,
    UNTIL_CLOSE,
    BadMessage,
    HeadReader,
    MessageLimits,
    RequestHead,
    ResponseHead,
    request_head,
    response_head,
)

LIMITS = MessageLimits()
SMALL = MessageLimits(head=400, target=60, fields=6, chunk_line=16, trailer=40)


def request(*lines: bytes, start: bytes = b"POST /v1/x HTTP/1.1", host: bytes | None = b"Host: a") -> RequestHead:
    return request_head(b"\r\n".join([start, *([host] if host else []), *lines]), LIMITS)


def response(*lines: bytes, start: bytes = b"HTTP/1.1 200 OK", method: bytes = b"GET") -> ResponseHead:
    return response_head(b"\r\n".join([start, *lines]), LIMITS, method)


class Refusing(TestCase):
    def refused(
        self, status: int, *lines: bytes, start: bytes = b"POST /v1/x HTTP/1.1", host: bytes | None = b"Host: a"
    ) -> None:
        with self.assertRaises(BadMessage) as caught:
            request(*lines, start=start, host=host)
        self.assertEqual(caught.exception.status, status)

    def broken(self, *lines: bytes, start: bytes = b"HTTP/1.1 200 OK") -> None:
        with self.assertRaises(BadMessage):
            response(*lines, start=start)


class Requests(Refusing):
    """Row by row what is refused that others let through."""

    def test_a_plain_request(self) -> None:
        head = request(b"Content-Length: 5", b"X-Twice: 1", b"x-twice:2 ", start=b"POST /v1/x?a=%20b HTTP/1.1")
        lines = [b"Host: a", b"Content-Length: 5", b"X-Twice: 1", b"x-twice:2 "]
        self.assertEqual(head, RequestHead(b"POST", b"/v1/x?a=%20b", 1, lines, 5, True, False))

    def test_no_host(self) -> None:
        self.refused(400, host=None)

    def test_no_host_in_http_1_0(self) -> None:
        self.assertEqual(request(start=b"GET / HTTP/1.0", host=None).minor, 0)

    def test_two_hosts(self) -> None:
        self.refused(400, b"Host: a")
        self.refused(400, b"host: b", start=b"GET / HTTP/1.0")

    def test_hosts_that_are_none(self) -> None:
        for value in (
            b"a b",
            b"a/b",
            b"a,b",
            b"u@a",
            b"a:x",
            b"a:",
            b"a:99999",
            b"a:80:80",
            b"a:-1",
            b"",
            b"[::1",
            b"a\\b",
            b"%zz",
        ):
            with self.subTest(value):
                self.refused(400, host=b"Host: " + value)

    def test_hosts(self) -> None:
        for value in (b"a", b"a.example:8080", b"[::1]:80", b"127.0.0.1", b"my_service", b"  a\t"):
            with self.subTest(value):
                request(host=b"Host: " + value)

    def test_targets_without_a_leading_slash(self) -> None:
        for target in (b"v1/x", b"@host/x", b".evil/x", b":1@host", b"?x", b"*", b"a:80", b""):
            with self.subTest(target):
                self.refused(400, start=b"POST " + target + b" HTTP/1.1")

    def test_targets_with_bytes_that_no_target_has(self) -> None:
        for target in (
            b"/a#b",
            b"/a\\b",
            b"/%zz",
            b"/%2",
            b"/%",
            b"/a\tb",
            b"/\xff",
            b'/"',
            b"/<a>",
            b"/a?b#c",
            b"/a?%g0",
            b"/{a}",
        ):
            with self.subTest(target):
                self.refused(400, start=b"POST " + target + b" HTTP/1.1")

    def test_absolute_targets_of_other_authorities(self) -> None:
        for target in (
            b"http://b/x",
            b"http://a:1/x",
            b"ftp://a/x",
            b"http://u@a/x",
            b"http:///x",
            b"http:/a/x",
            b"file:///x",
        ):
            with self.subTest(target):
                self.refused(400, start=b"POST " + target + b" HTTP/1.1")

    def test_absolute_targets_of_the_own_authority_become_paths(self) -> None:
        for target, path in (
            (b"http://a/x?y", b"/x?y"),
            (b"HTTPS://A/x", b"/x"),
            (b"http://a", b"/"),
            (b"http://a?y", b"/?y"),
        ):
            with self.subTest(target):
                self.assertEqual(request(start=b"GET " + target + b" HTTP/1.1").target, path)

    def test_an_asterisk_is_for_options(self) -> None:
        self.assertEqual(request(start=b"OPTIONS * HTTP/1.1").target, b"*")

    def test_connect_and_trace(self) -> None:
        self.refused(405, start=b"CONNECT a:443 HTTP/1.1")
        self.refused(405, start=b"TRACE / HTTP/1.1", host=None)
        self.refused(405, start=b"QUERY / HTTP/1.1")

    def test_methods_that_are_none(self) -> None:
        for method, status in ((b"get", 501), (b"BREW", 501), (b"G@T", 400), (b"", 400), (b"GET\t", 400)):
            with self.subTest(method):
                self.refused(status, start=method + b" / HTTP/1.1")

    def test_methods_that_settings_add(self) -> None:
        limits = MessageLimits(methods=frozenset([b"M-SEARCH"]))
        self.assertEqual(request_head(b"M-SEARCH / HTTP/1.1\r\nHost: a", limits).method, b"M-SEARCH")
        with self.assertRaises(BadMessage) as caught:
            request_head(b"GET / HTTP/1.1\r\nHost: a", limits)
        self.assertEqual(caught.exception.status, 405)

    def test_versions(self) -> None:
        for version, status in (
            (b"HTTP/2.0", 505),
            (b"HTTP/1.2", 505),
            (b"HTTP/0.9", 505),
            (b"http/1.1", 400),
            (b"HTTP/1.10", 400),
            (b"x", 400),
        ):
            with self.subTest(version):
                self.refused(status, start=b"GET / " + version)

    def test_request_lines_of_other_shapes(self) -> None:
        for start in (
            b"GET /",
            b"GET",
            b"",
            b"GET  / HTTP/1.1",
            b" GET / HTTP/1.1",
            b"GET / HTTP/1.1 ",
            b"GET /a b HTTP/1.1",
        ):
            with self.subTest(start):
                self.refused(400, start=start)

    def test_controls_in_values(self) -> None:
        for control in [*range(9), *range(10, 32), 127]:
            with self.subTest(control):
                self.refused(400, b"X-A: a%cb" % control)
        self.assertIn(b"X-A: a\tb\xff", request(b"X-A: a\tb\xff").lines)

    def test_names_that_are_none(self) -> None:
        for line in (b"X_A: 1", b"X A: 1", b"X-A : 1", b": 1", b"X-A", b"X\x80: 1", b"X(: 1", b"\tX: 1"):
            with self.subTest(line):
                self.refused(400, line)

    def test_a_folded_line(self) -> None:
        self.refused(400, b"X-A: 1", b" 2")
        self.refused(400, b"X-A: 1", b"\tHost: 2")

    def test_transfer_encodings_that_are_not_chunked(self) -> None:
        for value in (
            b"chunked, identity",
            b"identity",
            b"xchunked",
            b"chunked, chunked",
            b"chunked;a",
            b"",
            b'"chunked"',
            b"gzip",
        ):
            with self.subTest(value):
                self.refused(400, b"Transfer-Encoding: " + value)
        self.refused(400, b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked")
        self.refused(400, b"Transfer-Encoding:\x0bchunked")
        self.refused(501, b"Transfer-Encoding: gzip, chunked")
        self.assertEqual(request(b"transfer-encoding:\tChunked ").length, CHUNKED)

    def test_chunked_beside_a_length_or_in_http_1_0(self) -> None:
        self.refused(400, b"Transfer-Encoding: chunked", b"Content-Length: 5")
        self.refused(400, b"Content-Length: 5", b"Transfer-Encoding: chunked")
        self.refused(400, b"Transfer-Encoding: chunked", start=b"POST / HTTP/1.0")

    def test_lengths_that_are_none(self) -> None:
        for value in (b"+5", b"-5", b"5, 5", b"5 5", b"0x5", b"5.0", b"", b"9" * 4300, b"1_0", b"\xb2"):
            with self.subTest(value[:9]):
                self.refused(400, b"Content-Length: " + value)
        self.refused(400, b"Content-Length: 5", b"Content-Length: 5")

    def test_a_long_target(self) -> None:
        self.refused(414, start=b"GET /" + b"a" * 16384 + b" HTTP/1.1")

    def test_many_fields(self) -> None:
        self.refused(431, *[b"A: 1"] * 200)

    def test_connection_is_a_list(self) -> None:
        for value, minor, keep in (
            (b"close, x", 1, False),
            (b"x , CLOSE", 1, False),
            (b"keep-alive", 1, True),
            (b"closed", 1, True),
            (b"keep-alive", 0, True),
            (b"keep-alive, close", 0, False),
            (b"x", 0, False),
        ):
            with self.subTest(value):
                self.assertIs(request(b"Connection: " + value, start=b"GET / HTTP/1.%d" % minor).keep_alive, keep)
        self.assertFalse(request(b"Connection: x", b"Connection: close").keep_alive)
        self.assertFalse(request(start=b"GET / HTTP/1.0").keep_alive)

    def test_expectations(self) -> None:
        self.assertTrue(request(b"Expect: 100-Continue").expect_continue)
        self.assertFalse(request(b"Expect: 100-continue", start=b"POST / HTTP/1.0").expect_continue)
        self.refused(417, b"Expect: 200-ok")
        self.refused(417, b"Expect: 100-continue", b"Expect: 100-continue")
        self.refused(417, b"Expect:")


class Responses(Refusing):
    def test_a_plain_response(self) -> None:
        head = response(b"X_Y: 1", b"Content-Length: 3", start=b"HTTP/1.1 529 Over loaded")
        self.assertEqual(head, ResponseHead(529, b"Over loaded", 1, [b"X_Y: 1", b"Content-Length: 3"], 3, True))

    def test_status_lines_that_are_none(self) -> None:
        for start in (
            b"HTTP/1.1 600 X",
            b"HTTP/1.1 099 X",
            b"HTTP/1.1 20 X",
            b"HTTP/1.1 2000",
            b"HTTP/2 200 OK",
            b"200 OK",
            b"",
            b"HTTP/1.1  200 OK",
        ):
            with self.subTest(start):
                self.broken(start=start)

    def test_a_status_without_a_reason(self) -> None:
        self.assertEqual(response(start=b"HTTP/1.1 200 ").phrase, b"")
        self.assertEqual(response(start=b"HTTP/1.1 200").phrase, b"")

    def test_framing_that_can_be_read_in_two_ways(self) -> None:
        self.broken(b"Content-Length: 3", b"Content-Length: 3")
        self.broken(b"Content-Length: -3")
        self.broken(b"Transfer-Encoding: gzip, chunked")
        self.broken(b"Transfer-Encoding: chunked", b"Content-Length: 3")
        self.broken(b"Transfer-Encoding: chunked", start=b"HTTP/1.0 200 OK")

    def test_fields_that_are_none(self) -> None:
        for line in (b"A", b" A: 1", b"A : 1", b"A: \0", b"A: 1\r", b"A: 1\nB: 2"):
            with self.subTest(line):
                self.broken(line)

    def test_how_the_end_is_told(self) -> None:
        self.assertEqual(response(b"Transfer-Encoding: chunked").length, CHUNKED)
        self.assertEqual(response().length, UNTIL_CLOSE)
        self.assertFalse(response(b"Connection: keep-alive").keep_alive)

    def test_responses_without_a_body(self) -> None:
        long = b"Content-Length: 9"
        self.assertEqual(response(long, method=b"HEAD").length, 0)
        for code in (100, 103, 204, 304):
            self.assertEqual(response(long, start=b"HTTP/1.1 %d X" % code).length, 0)

    def test_a_body_that_none_may_have(self) -> None:
        """Who announces one behind a 204 may send it later; behind 304 and HEAD that is what another would have had."""
        for said in (b"Content-Length: 9", b"Transfer-Encoding: chunked"):
            self.assertFalse(response(said, start=b"HTTP/1.1 204 No Content").keep_alive)
            self.assertTrue(response(said, start=b"HTTP/1.1 304 Not Modified").keep_alive)
            self.assertTrue(response(said, method=b"HEAD").keep_alive)
        for said in ((), (b"Content-Length: 0",)):
            self.assertTrue(response(*said, start=b"HTTP/1.1 204 No Content").keep_alive)

    def test_reuse(self) -> None:
        empty = b"Content-Length: 0"
        self.assertTrue(response(empty).keep_alive)
        self.assertFalse(response(empty, b"Connection: Close, x").keep_alive)
        self.assertFalse(response(empty, start=b"HTTP/1.0 200 OK").keep_alive)
        self.assertTrue(response(empty, b"Connection: keep-alive", start=b"HTTP/1.0 200 OK").keep_alive)


def cuts(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The same bytes in pieces."""
    points = sorted(draw(st.sets(st.integers(0, len(data)), max_size=8)))
    return [data[a:b] for a, b in zip([0, *points], [*points, len(data)], strict=True)]


def by_bytes(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def read_head(pieces: list[bytes], limits: MessageLimits) -> object:
    reader, rest = HeadReader(limits, skip_empty_line=True), b""
    try:
        for n, piece in enumerate(pieces):
            if (found := reader.feed(piece)) is not None:
                rest = found[1] + b"".join(pieces[n + 1 :])
                return request_head(found[0], limits), rest
    except BadMessage as bad:
        return bad.status
    return None


NEARLY_HEADS = st.lists(
    st.sampled_from(
        [
            b"GET / HTTP/1.1",
            b"POST /v1/a?b HTTP/1.1",
            b"\r\n",
            b"\r\n",
            b"\r\n",
            b"\r\n\r\n",
            b"\r",
            b"\n",
            b"Host: a",
            b"A: 1",
            b"Content-Length: 3",
            b"Transfer-Encoding: chunked",
            b"Expect: 100-continue",
            b":",
            b" ",
            b"\0",
            b"A" * 90,
            b"A" * 300,
        ]
    ),
    max_size=14,
).map(b"".join)


class Splits(TestCase):
    """It makes no difference in which pieces bytes come."""

    @given(st.data())
    def test_heads(self, data: st.DataObject) -> None:
        sent = data.draw(NEARLY_HEADS | st.binary(max_size=60))
        whole = read_head([sent], SMALL)
        self.assertEqual(data.draw(st.composite(cuts)(sent).map(lambda pieces: read_head(pieces, SMALL))), whole)
        self.assertEqual(read_head(by_bytes(sent), SMALL), whole)

    @given(st.binary(max_size=200))
    def test_nothing_but_bad_message_comes_of_any_bytes(self, sent: bytes) -> None:
        for parse in (
            lambda: request_head(sent, LIMITS),
            lambda: request_head(b"GET / HTTP/1.1\r\nHost: a\r\n" + sent, LIMITS),
            lambda: response_head(sent, LIMITS, b"GET"),
            lambda: response_head(b"HTTP/1.1 200 OK\r\n" + sent, LIMITS, b"GET"),
            lambda: HeadReader(SMALL).feed(sent),
        ):
            try:
                parse()
            except BadMessage as bad:
                self.assertIn(bad.status, (400, 405, 414, 417, 431, 501, 505))


class Heads(TestCase):
    def status(self, *pieces: bytes) -> object:
        return read_head(list(pieces), SMALL)

    def test_a_line_end_without_its_cr_is_seen_at_once(self) -> None:
        self.assertEqual(self.status(b"GET / HTTP/1.1\nHost: a\n\n"), 400)
        self.assertEqual(self.status(b"GET / HTTP/1.1\r", b"\nHost: a\n"), 400)

    def test_a_target_that_does_not_end(self) -> None:
        self.assertEqual(self.status(b"GET /" + b"a" * 200), 414)

    def test_a_head_that_does_not_end(self) -> None:
        self.assertEqual(self.status(b"GET / HTTP/1.1\r\n", b"A: " + b"b" * 400), 431)

    def test_one_empty_line_before_a_request_is_ignored(self) -> None:
        self.assertIsInstance(self.status(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), tuple)
        self.assertEqual(self.status(b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 400)
