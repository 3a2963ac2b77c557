"""Header fields, both ways: which pass, which are taken out, which are added."""

from __future__ import annotations

import gzip
import zlib

from tests.support.proxy_case import CHAT, KEY, OK, OTHER, STREAM, TOKEN, ProxyTestCase, chunk
from tests.support.responses import parse_response

OTHERS = ["User-Agent: sdk/1", "X-Stainless-Lang: python", "Accept-Encoding: gzip, br, zstd", "anthropic-beta: a"]


class Outgoing(ProxyTestCase):
    def sent(self, *lines: str, token: str | None = TOKEN, path: str = CHAT) -> list[str]:
        self.restart()
        self.provider.peers.clear()
        self.ask(*lines, token=token, path=path)
        first, sent, _ = self.forwarded_request()
        self.first = first
        self.provider.last.send(OK)
        return sent

    def test_a_credential_in_each_of_the_places(self) -> None:
        """Is taken, and what goes out is the provider's key alone, in the provider's own way."""
        carriers = [
            f"Authorization: Bearer {TOKEN}",
            f"x-api-key: {TOKEN}",
            f"API-Key: {TOKEN}",
            f"X-Goog-Api-Key: {TOKEN}",
            f"X-LLMProxy-Token: {TOKEN}",
        ]
        for carrier in carriers:
            self.assertEqual(
                self.sent(carrier, *OTHERS, token=None),
                ["Host: 203.0.113.5:8000", *OTHERS, f"Authorization: Bearer {KEY}", "Content-Length: 2"],
            )

    def test_a_credential_in_the_query(self) -> None:
        """Counts where it may, and is taken out in any case."""
        path = f"{CHAT}?a=1&key={TOKEN}"
        self.restart()
        self.assertEqual(parse_response(self.ask(token=None, path=path).take()).status, 401)
        self.api = {"query_key": True}
        self.sent(token=None, path=path)
        self.assertEqual(self.first, f"POST {CHAT}?a=1 HTTP/1.1")

    def test_each_providers_way(self) -> None:
        for provider, auth, line in [
            ("anthropic", "", f"x-api-key: {KEY}"),
            ("google", "", f"x-goog-api-key: {KEY}"),
            ("azure", "", f"api-key: {KEY}"),
            ("generic", "X-Custom", f"X-Custom: {KEY}"),
        ]:
            self.api = {"provider": provider, "auth": auth}
            self.assertEqual(self.sent("X-Custom: theirs")[-2], line)

    def test_credentials_in_many_places(self) -> None:
        """All of them are taken out, wherever else the token stands too."""
        sent = self.sent(
            "x-api-key: something-else",
            f"api-key: {TOKEN}",
            "x-goog-api-key: third",
            "Proxy-Authorization: Basic eA==",
            f"X-Copy: {TOKEN}",
            f"Cookie: llmproxy_session=s; other=1; c={TOKEN}",
            path=f"{CHAT}?a=1&token={TOKEN}&key=AIza-mine&b=2",
        )
        self.assertEqual(sent, ["Host: 203.0.113.5:8000", f"Authorization: Bearer {KEY}", "Content-Length: 2"])
        self.assertEqual(self.first, f"POST {CHAT}?a=1&b=2 HTTP/1.1")

    def test_a_session_beside_the_token(self) -> None:
        """Goes nowhere: what this proxy issued counts wherever it stands."""
        for beside in ("Bearer sk-ant-oat01-session", "Bearer ", "", "Basic eA=="):
            sent = self.sent(f"Authorization: {beside}", f"x-api-key: {TOKEN}", token=None)
            self.assertEqual(sent, ["Host: 203.0.113.5:8000", f"Authorization: Bearer {KEY}", "Content-Length: 2"])

    def test_two_different_tokens(self) -> None:
        """Only one can be meant, and which is not guessed."""
        self.restart()
        self.assert_rejected(parse_response(self.ask(f"x-api-key: {OTHER}").take()), 401, "missing_token")
        self.assertEqual(self.network.dialled, 0)

    def test_cookies(self) -> None:
        """Stay here, unless the API wants them; ours always do."""
        cookies = "Cookie: session=1; llmproxy_session=2"
        self.assertEqual(self.sent(cookies)[1:-2], [])
        self.api = {"forward_cookies": True}
        self.assertEqual(self.sent(cookies)[1:-2], ["Cookie: session=1"])

    def test_hop_by_hop_fields(self) -> None:
        """Stay here, with whatever Connection names."""
        sent = self.sent(
            "Connection: keep-alive, X-Hop, x-other",
            "X-Hop: 1",
            "X-OTHER: 2",
            "Keep-Alive: timeout=5",
            "TE: trailers",
            "Upgrade: h2c",
            "Proxy-Connection: keep-alive",
            "X-Kept: 3",
        )
        self.assertEqual(sent[1:-2], ["X-Kept: 3"])

    def test_what_connection_cannot_take_out(self) -> None:
        """Neither the credential nor what frames or describes the body."""
        sent = self.sent(
            "Connection: close, Authorization, Content-Length, Content-Type, Host, Origin",
            "Content-Type: application/json",
            "Origin: https://a.example",
        )
        self.assertEqual(
            sent,
            [
                "Host: 203.0.113.5:8000",
                "Content-Type: application/json",
                "Origin: https://a.example",
                f"Authorization: Bearer {KEY}",
                "Content-Length: 2",
            ],
        )

    def test_a_clients_address(self) -> None:
        """Is neither passed on nor believed."""
        sent = self.sent("X-Forwarded-For: 1.2.3.4", "Forwarded: for=1.2.3.4", "X-Real-IP: 1.2.3.4", "Via: 1.1 a")
        self.assertEqual(sent[1:-2], ["Via: 1.1 a"])

    def test_a_clients_address_where_it_is_wanted(self) -> None:
        self.api = {"forward_client_ip": True}
        self.assertIn("X-Forwarded-For: 192.0.2.1", self.sent("X-Forwarded-For: 1.2.3.4"))

    def test_duplicates(self) -> None:
        """Keep their number, their order and their spelling."""
        lines = ["X-A: 1", "x-b: 2", "X-a: 3", "X-A:4", "x-b:  5"]
        self.assertEqual(self.sent(*lines)[1:-2], lines)

    def test_the_target(self) -> None:
        """Goes out as it came, query and all."""
        self.sent(path="/v1/models/gpt%20x?a=%2F;b&&c==d?e")
        self.assertEqual(self.first, "POST /v1/models/gpt%20x?a=%2F;b&&c==d?e HTTP/1.1")


class Incoming(ProxyTestCase):
    def got(self, *lines: str, status: str = "200 OK", **parts: object) -> list[str]:
        answer = "\r\n".join([f"HTTP/1.1 {status}", *lines, "Content-Length: 0", "", ""]).encode("latin-1")
        got = self.exchange(answer=answer, **parts)
        self.status = (got.status, got.phrase)
        return [line for line in got.lines if not line.startswith(OURS)]

    def test_what_passes(self) -> None:
        """Nearly everything, in its order and spelling."""
        lines = [
            "Date: Mon, 01 Jan 2024 00:00:00 GMT",
            "SERVER: provider",
            "x-ratelimit-remaining-requests: 4999",
            "Retry-After: 7",
            "retry-after-ms: 6500",
            "Set-Cookie: a=b",
            "Set-Cookie: c=d",
            "request-id: req_1",
            "Access-Control-Allow-Origin: https://a.example",
            "Content-Encoding: br",
            "Warning: caf\xe9",
        ]
        self.assertEqual(self.got(*lines), lines)

    def test_what_does_not(self) -> None:
        got = self.got(
            "Connection: keep-alive, X-Hop",
            "X-Hop: 1",
            "Keep-Alive: timeout=5",
            "Alt-Svc: h3=a",
            "Proxy-Authenticate: Basic",
            "X-Cache-Status: hit",
            "X-LLMProxy-Error: faked",
        )
        self.assertEqual(got, [])

    def test_an_odd_status(self) -> None:
        """With its own reason, and its body."""
        for status, phrase in [(529, "Overloaded"), (418, "I'm a teapot"), (200, "Fine"), (429, "")]:
            self.got(status=f"{status} {phrase}")
            self.assertEqual(self.status, (status, phrase))
            self.assertEqual((self.events.records[-1].outcome, self.events.records[-1].status), ("complete", status))

    def test_a_redirect(self) -> None:
        """Is the client's to follow, or not."""
        got = self.got("Location: https://elsewhere.example/", status="307 Temporary Redirect")
        self.assertEqual((got, self.network.dialled), (["Location: https://elsewhere.example/"], 1))

    def test_cookies(self) -> None:
        """Of one client are not given to the next one's request."""
        self.got("Set-Cookie: tenant=1")
        self.provider.last.take()
        self.ask()
        self.assertFalse([line for line in self.forwarded_request()[1] if line.startswith("Cookie")])
        self.provider.last.send(OK)

    def test_an_interim_answer(self) -> None:
        """Is not taken for the answer."""
        client = self.ask()
        self.provider.last.send(b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n")
        self.assertEqual(client.take(), b"")
        self.provider.last.send(OK)
        self.assertEqual(parse_response(client.take()).status, 200)


OURS = (
    "X-Request-ID:",
    "Content-Length:",
    "X-Cache-Status: bypass",
    "X-Cache-Debug: bypass",
    "Cache-Status: llmproxy; fwd=bypass",
    "X-Upstream-Response-Time:",
    "Server-Timing:",
)


class Added(ProxyTestCase):
    def test_the_request_id(self) -> None:
        """The client's own if it is one, else a fresh one; on answers, refusals and records alike."""
        for given, kept in [
            ("abc-1._~:/+=@", True),
            ("a<script>", False),
            ("a!", False),
            ("{a}", False),
            ('a"', False),
            ("x" * 128, True),
            ("x" * 129, False),
            ("a b", False),
            ("", False),
        ]:
            self.restart()
            got = self.exchange(f"X-Request-ID: {given}")
            self.assertEqual(got["X-Request-ID"] == given, kept, given)
            self.assertTrue(got["X-Request-ID"])
            self.assertEqual(self.record().request_id, got["X-Request-ID"])
            refused = parse_response(self.ask(f"X-Request-ID: {given}", path="/none").take())
            self.assertEqual(refused["X-Request-ID"] == given, kept, given)
            self.assertEqual(refused["request-id"], refused["X-Request-ID"])

    def test_fresh_ids(self) -> None:
        """No two are the same."""
        self.assertEqual(len({self.exchange()["X-Request-ID"] for _ in range(5)}), 5)

    def test_the_providers_request_id(self) -> None:
        got = self.exchange(answer=b"HTTP/1.1 200 OK\r\nx-request-id: req_9\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual(got["X-Upstream-Request-ID"], "req_9")
        self.assertNotEqual(got["X-Request-ID"], "req_9")

    def test_debug_headers(self) -> None:
        client = self.ask()
        self.network.pass_time(0.25)
        self.provider.last.send(OK)
        got = parse_response(client.take())
        self.assertEqual((got["X-Cache-Status"], got["X-Upstream-Response-Time"]), ("bypass", "250"))
        self.assertEqual(got["Server-Timing"], "auth;dur=0.0, queue;dur=0.0, upstream;dur=250.0, proxy;dur=0.0")
        self.assertEqual((self.record().upstream_time, self.record().first_byte), (0.25, 0.25))

    def test_no_debug_headers(self) -> None:
        self.server = {"debug_headers": False}
        self.restart()
        got = self.exchange()
        self.assertEqual(
            [line for line in got.lines if line.startswith(("X-Cache", "X-Upstream", "Server-Timing"))], []
        )
        self.assertTrue(got["X-Request-ID"])


class Masking(ProxyTestCase):
    """A provider that repeats the key it was sent does not give it away."""

    def test_in_an_error(self) -> None:
        body = b'{"error": "Incorrect API key provided: %b."}' % KEY.encode()
        for cut in (0, 30, 45, 60):
            client = self.ask()
            provider = self.provider.last
            provider.send(b"HTTP/1.1 401 Unauthorized\r\nX-Key: %b\r\n" % KEY.encode())
            provider.send(b"Content-Length: %d\r\n\r\n%b" % (len(body), body[:cut]))
            provider.send(body[cut:])
            got = client.take()
            self.assertNotIn(KEY.encode(), got)
            self.assertEqual(parse_response(got).body, body.replace(KEY.encode(), b"*" * len(KEY)))
            self.assertEqual(parse_response(got)["X-Key"], "*" * len(KEY))

    def test_in_the_reason_phrase(self) -> None:
        got = self.exchange(answer=b"HTTP/1.1 401 No %b\r\nContent-Length: 0\r\n\r\n" % KEY.encode())
        self.assertEqual(got.phrase, "No " + "*" * len(KEY))

    def test_in_a_coded_error(self) -> None:
        """Also where its length is known before its head leaves, and where its bytes come one by one."""
        body = gzip.compress(b'{"error": "%b"}' % KEY.encode())
        for pieces in ([body], [bytes([byte]) for byte in body]):
            client = self.ask()
            head = b"HTTP/1.1 401 No\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
            self.provider.last.send(head + (body if len(pieces) == 1 else b""))
            for piece in pieces if len(pieces) > 1 else []:
                self.provider.last.send(piece)
            got = parse_response(client.take())
            self.assertEqual((got["Content-Encoding"], got.complete), ("gzip", True))
            self.assertEqual(gzip.decompress(got.body), b'{"error": "%b"}' % (b"*" * len(KEY)))

    def test_in_an_error_that_cannot_be_read(self) -> None:
        """The status is the provider's, the body is not."""
        answer = b"HTTP/1.1 403 No\r\nContent-Encoding: compress\r\nContent-Length: %d\r\n\r\n%b"
        got = self.exchange(answer=answer % (len(KEY), KEY.encode()))
        self.assertEqual((got.status, got.all("Content-Encoding")), (403, []))
        self.assertEqual(got.json["error"]["code"], "upstream_error_withheld")

    def test_in_an_error_event(self) -> None:
        """Of a stream whose status was 200, cut anywhere."""
        event = b'data: {"error": {"message": "no: %b"}}\n\n' % KEY.encode()
        for at in range(25, len(event), 7):
            client = self.ask(body=b'{"stream":true}')
            self.provider.last.send(STREAM + chunk(event[:at]))
            self.provider.last.send(chunk(event[at:]) + b"0\r\n\r\n")
            got = parse_response(client.take())
            self.assertEqual((got.body, got.complete), (event.replace(KEY.encode(), b"*" * len(KEY)), True))

    def test_in_an_error_event_of_a_coded_stream(self) -> None:
        """The client's answer is cut before it."""
        made = zlib.compressobj(wbits=31)
        client = self.ask(body=b'{"stream":true}')
        first = made.compress(b"data: 1\n\n") + made.flush(zlib.Z_SYNC_FLUSH)
        self.provider.last.send(STREAM.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n") + chunk(first))
        self.provider.last.send(
            chunk(made.compress(b'data: {"error": {"message": "%b"}}\n\n' % KEY.encode()) + made.flush())
        )
        got = parse_response(client.take())
        self.assertEqual((got.body, got.complete, bool(client.end)), (first, False, True))
        self.assert_recorded("failed", 200, "upstream_error")

    def test_in_a_body_that_is_an_error_of_status_200(self) -> None:
        body = b'{"error": {"message": "no: %b"}}' % KEY.encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        self.assertEqual(self.exchange(answer=head + body).body, body.replace(KEY.encode(), b"*" * len(KEY)))

    def test_the_head_of_an_error(self) -> None:
        """HEAD has no body that could be masked, and keeps its fields."""
        self.restart(allowed_methods=["HEAD"])
        answer = b"HTTP/1.1 404 No\r\nContent-Encoding: compress\r\nContent-Length: 7\r\n\r\n"
        client = self.ask(method="HEAD", body=None)
        self.provider.last.send(answer)
        self.assertIn(b"Content-Encoding: compress\r\n", client.take())

    def test_what_only_begins_like_it(self) -> None:
        """Arrives whole."""
        body = b"no key but " + KEY[:-1].encode()
        got = self.exchange(answer=b"HTTP/1.1 500 No\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        self.assertEqual((got.body, got.complete), (body, True))
