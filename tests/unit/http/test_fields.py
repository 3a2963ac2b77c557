from __future__ import annotations

from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.http import fields

KEY = b"Authorization: Bearer provider-key"


def sent(*lines: bytes, credential: bytes = KEY, request_id: bytes | None = None, client: str = "") -> list[bytes]:
    """What is left of the client's lines between ours."""
    out = fields.outgoing(lines, host=b"api.example", credential=credential, request_id=request_id, client=client)
    assert out[0] == b"Host: api.example"
    return out[1:]


class Outgoing(TestCase):
    def test_what_passes_is_untouched(self) -> None:
        """Order, duplicates, case and spacing are the client's."""
        lines = [
            b"X-b:  1 ",
            b"x-B: 2",
            b"ACCEPT-encoding: gzip;q=1.0",
            b"Content-Type: application/json",
            b"Via: 1.1 a",
        ]
        self.assertEqual(sent(*lines), [*lines, KEY])

    def test_hop_by_hop_fields_go(self) -> None:
        """None of them is for the provider."""
        for name in (
            b"Connection: keep-alive",
            b"KEEP-ALIVE: 1",
            b"Proxy-Connection: x",
            b"Proxy-Authorization: x",
            b"proxy-anything: x",
            b"TE: trailers",
            b"Trailer: x",
            b"Transfer-Encoding: chunked",
            b"content-length: 5",
            b"Upgrade: h2c",
            b"HTTP2-Settings: x",
            b"Expect: 100-continue",
            b"Host: evil.example",
        ):
            with self.subTest(line=name):
                self.assertEqual(sent(name), [KEY])

    def test_client_addresses_and_overrides_go(self) -> None:
        """Neither believed nor forwarded."""
        for name in (
            b"X-Forwarded-For: 1.2.3.4",
            b"x-forwarded-anything: x",
            b"Forwarded: for=x",
            b"X-Real-IP: x",
            b"CF-Connecting-IP: x",
            b"X-Original-URL: /x",
            b"X-Rewrite-URL: /x",
            b"X-HTTP-Method-Override: DELETE",
            b"X-Method-Override: DELETE",
            b"X-HTTP-Method: DELETE",
            b"X-LLMProxy-Anything: x",
        ):
            with self.subTest(line=name):
                self.assertEqual(sent(name), [KEY])

    def test_no_credential_but_ours(self) -> None:
        """Even where nobody took the client's out before."""
        for name in (b"Authorization: x", b"x-api-key: x", b"API-Key: x", b"X-Goog-Api-Key: x"):
            with self.subTest(line=name):
                self.assertEqual(sent(name), [KEY])

    def test_a_custom_credential_field_of_the_client_goes(self) -> None:
        """Only the configured injection remains."""
        self.assertEqual(sent(b"X-CUSTOM: theirs", b"a: b", credential=b"X-Custom: ours"), [b"a: b", b"X-Custom: ours"])

    def test_fields_that_connection_names_go(self) -> None:
        """Whatever their case, before or after they come."""
        self.assertEqual(sent(b"X-Hop: 1", b"Connection: close, x-hop , X-B", b"x-b: 2", b"X-C: 3"), [b"X-C: 3", KEY])

    def test_connection_strips_nothing_that_matters(self) -> None:
        """Neither what is ours nor what says how to read the body."""
        kept = [
            b"Content-Type: application/json",
            b"content-encoding: gzip",
            b"Origin: x",
            b"Cookie: a=b",
            b"Accept: x",
        ]
        named = b"Connection: host, authorization, content-type, content-encoding, origin, cookie, accept, x-request-id"
        out = fields.outgoing([*kept, named], host=b"h", credential=KEY, request_id=b"id")
        self.assertEqual(out, [b"Host: h", *kept, KEY, b"X-Request-ID: id"])

    def test_connection_cannot_strip_a_custom_credential(self) -> None:
        """Ours is added after the client's are gone."""
        self.assertEqual(sent(b"Connection: x-custom", credential=b"X-Custom: k"), [b"X-Custom: k"])

    def test_the_request_id(self) -> None:
        """The client's passes unless another is given."""
        self.assertEqual(sent(b"X-Request-Id: a"), [b"X-Request-Id: a", KEY])
        self.assertEqual(sent(b"X-Request-Id: a", request_id=b"b"), [KEY, b"X-Request-ID: b"])

    def test_the_clients_address_if_configured(self) -> None:
        """As the proxy knows it, never as the client claims it."""
        self.assertEqual(sent(b"X-Forwarded-For: 9.9.9.9", client="1.2.3.4"), [KEY, b"X-Forwarded-For: 1.2.3.4"])


class Incoming(TestCase):
    def test_what_passes_is_untouched(self) -> None:
        """Rate limits, cookies, encodings, duplicates, lists that every hop adds to."""
        lines = [
            b"content-type: text/event-stream",
            b"Content-Encoding: gzip",
            b"Set-Cookie: a",
            b"set-cookie: b",
            b"x-ratelimit-limit-requests: 1",
            b"retry-after: 3600",
            b"request-id: req_1",
            b"Location: https://elsewhere",
            b"Cache-Status: edge; hit",
            b"Server-Timing: x",
            b"X-Should-Retry: true",
            b"Server: cloudflare",
            b"Access-Control-Allow-Origin: *",
        ]
        self.assertEqual(fields.incoming(lines), lines)

    def test_framing_and_hop_by_hop_fields_go(self) -> None:
        """The wire writes its own."""
        lines = [b"Connection: close", b"Transfer-Encoding: chunked", b"Content-Length: 3", b"Trailer: x"]
        lines += [b"Keep-Alive: timeout=5", b"Upgrade: h2", b"Proxy-Authenticate: x", b"Alt-Svc: h3=x"]
        self.assertEqual(fields.incoming(lines), [])

    def test_fields_that_only_we_write_go(self) -> None:
        """A provider cannot pretend to be the proxy."""
        lines = [b"X-LLMProxy-Error: x", b"x-cache-status: hit", b"X-Cache-Debug: x", b"X-Upstream-Response-Time: 1"]
        self.assertEqual(fields.incoming([*lines, b"X-Upstream-Request-ID: x"]), [])

    def test_the_providers_request_id_moves(self) -> None:
        """It gives way to the proxy's."""
        self.assertEqual(fields.incoming([b"x-request-id:  abc"]), [b"X-Upstream-Request-ID: abc"])

    def test_connection_names(self) -> None:
        """Named fields go, content fields stay."""
        lines = [b"X-Hop: 1", b"Connection: x-hop, content-type, set-cookie", b"Content-Type: a", b"Set-Cookie: b"]
        self.assertEqual(fields.incoming(lines), [b"Content-Type: a", b"Set-Cookie: b"])

    def test_cors_of_the_provider(self) -> None:
        """Goes only where the proxy answers for origins."""
        lines = [b"access-control-allow-origin: *", b"Vary: Origin"]
        self.assertEqual(fields.incoming(lines, own_cors=True), [b"Vary: Origin"])


class Values(TestCase):
    def test_value(self) -> None:
        """Any case, first one, without the spaces around it."""
        lines = [b"Xa: 0", b"X-A:\t1 ", b"x-a: 2", b"X-A-B: 3"]
        self.assertEqual(fields.value(lines, b"x-A"), b"1")
        self.assertEqual(fields.values(lines, b"x-a"), [b"1", b"2"])
        self.assertIsNone(fields.value(lines, b"x"))

    def test_request_id(self) -> None:
        """1-128 characters that can do no harm where an id is shown."""
        for given_, expected in (
            (b"a", b"a"),
            (b"x" * 128, b"x" * 128),
            (b"x" * 129, None),
            (b"", None),
            (b"a b", None),
            (b"Az09._~:/+=@-", b"Az09._~:/+=@-"),
            *((b"a" + bytes([byte]), None) for byte in b"!\"#$%&'()*,;<>?[\\]^`{|}"),
        ):
            with self.subTest(given=given_):
                self.assertEqual(fields.request_id([b"X-Request-ID: " + given_]), expected)
        self.assertIsNone(fields.request_id([b"x-request-id: \xc3\xa9"]))
        self.assertIsNone(fields.request_id([]))

    def test_has_body(self) -> None:
        """By its framing, not its method."""
        self.assertTrue(fields.has_body([b"Content-Length: 0"]))
        self.assertTrue(fields.has_body([b"transfer-encoding: chunked"]))
        self.assertFalse(fields.has_body([b"Content-Type: x"]))


class Memo(TestCase):
    def test_it_stays_small(self) -> None:
        """A client that makes up names costs no memory, and is answered the same."""
        kinds = fields.FieldNameMemo(len, limit=10)
        for number in range(100):
            self.assertEqual(kinds[b"X-%02d" % number], 4)
        self.assertLessEqual(len(kinds), 10)
        self.assertEqual(kinds[b"y" * 1000], 1000)
        self.assertNotIn(b"y" * 1000, kinds)

    def test_a_name_is_classified_once(self) -> None:
        """Names are given in lower case."""
        asked: list[bytes] = []

        def kind(name: bytes) -> int:
            asked.append(name)
            return 1

        kinds = fields.FieldNameMemo(kind)
        for name in (b"x-a", b"x-b", b"x-a"):
            kinds[name]
        self.assertEqual(asked, [b"x-a", b"x-b"])


names = st.text("abcXYZ-", min_size=1, max_size=12).map(str.encode)
lines_of = st.lists(st.tuples(names, st.binary(max_size=10)).map(lambda pair: pair[0] + b": " + pair[1]), max_size=8)


class Properties(TestCase):
    @given(lines_of, st.lists(names, max_size=3))
    def test_ours_are_always_there_once(self, lines: list[bytes], named: list[bytes]) -> None:
        """Whatever the client sends: one Host, one credential, the rest in the client's order."""
        out = fields.outgoing([*lines, b"Connection: " + b",".join(named)], host=b"h", credential=b"X-Key: k")
        self.assertEqual(fields.values(out, b"host"), [b"h"])
        self.assertEqual(fields.values(out, b"x-key"), [b"k"])
        rest = iter(lines)
        self.assertTrue(all(line in rest for line in out[1:-1]))
