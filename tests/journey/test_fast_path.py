"""What goes the short way is what would have gone the long one, byte for byte and figure for figure."""

from __future__ import annotations

import gc
import gzip
import json
import re
from dataclasses import asdict
from itertools import product
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from llmproxy.auth.caching_validator import CachedTokenValidator
from llmproxy.errors import LimitsUnavailable
from llmproxy.interfaces import ICounters
from llmproxy.model import Allowance, Grant, Verdict
from llmproxy.proxy.fast_path.direct_streams import DirectStream
from llmproxy.proxy.fast_path.patience import PATIENCE_SECONDS
from llmproxy.proxy.request_body import MAX_BUFFERED_BODY_BYTES
from llmproxy.wire.chunk_passing import ChunkPassing
from tests.support.examples import examples
from tests.support.proxy_case import KEY, OTHER, PROVIDER, STREAM, TOKEN, ProxyTestCase, chunk, request
from tests.unit.metering.samples import CHAT_USAGE, events

USAGE = json.dumps({"model": "gpt-4o-2024-08-06", "usage": CHAT_USAGE, "choices": []}).encode()
BODIES = (
    b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}],"max_tokens":20}',
    b'{"model":"gpt-4o","stream":true,"messages":[]}',
    b'{"messages":[{"content":"\\u0041"}],"model":"gpt-4o-mini","model":"other"}',
    b'{"model":"forbidden-model","messages":[]}',
    b'{"messages":[{"content":"%b"}],"model":"gpt-4o","max_tokens":5}' % (b"a prompt that is long. " * 900),
    b'{"model":"gpt-4o","messages":[{"content":"%b"}],"stream":true}' % (b"words \\n and \\u00e9 more" * 4000),
    b'{"model":"gpt-4o","messages":[%b],"model":"gpt-4o-mini"}' % (b"0," * 20000 + b"0"),
    b"no JSON",
    b"",
    b'{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":true},"messages":[]}',
    b'{"stream_options": {"include_usage": false}, "model": "gpt-4o", "stream": true, "messages": []}',
    b'{"model":"gpt-4o","messages":[{"content":"%b"}],"stream":true,"stream":1}' % (b"a prompt that is long. " * 900),
)
FIELDS = (
    (),
    ("X-Stainless-Retry-Count: 1", "traceparent: 00-0123-45-01", "Idempotency-Key: k-1"),
    ("X-Request-ID: mine-1", "User-Agent: OpenAI/Python 3.54.0", "Accept: application/json"),
    ("X-Request-ID: not valid!", "Content-Type: application/json"),
    ("Connection: keep-alive", "X-Stainless-Retry-Count: 1", "Accept-Encoding: gzip, deflate, br, zstd"),
    ("Cache-Control: public, max-age=60", "traceparent: 00-0123-45-01", "X-Request-ID: mine-1"),
    ("Cache-Control: no-store", "traceparent: 00-0123-45-01"),
    ("Connection: close", "traceparent: 00-0123-45-01"),
    ("Cookie: session=1", "X-Forwarded-For: 1.2.3.4", "OpenAI-Organization: org"),
    ("Cache-Control: public, max-age=60",),  # nothing differs but the length
    ("Cache-Control: public, max-age=60", "X-Stainless-Retry-Count: 1"),
    ("session-id: 1234-5678", "X-Real-IP: 1.2.3.4", "X-Claude-Code-Session-Id: 12-34"),
    ("Origin: https://app.test", "Accept-Encoding: gzip", "traceparent: 00-0123-45-01"),
    ("Origin: https://app.test", "Cache-Control: public, max-age=60"),
    ("Origin: https://other.test", "Accept-Encoding: identity"),
    ("Cache-Control: public, max-age=60, no-cache", "traceparent: 00-0123-45-01"),
    ("Cache-Control: public, max-age=60, only-if-cached",),
    ("Cache-Control: public, max-age=60", 'If-None-Match: "x"'),
)
OTHER_VALUES = {
    "X-Stainless-Retry-Count: 1": "X-Stainless-Retry-Count: 2",
    "traceparent: 00-0123-45-01": "traceparent: 00-ffff-ee-00",
    "Idempotency-Key: k-1": "Idempotency-Key: another key",
    "X-Request-ID: mine-1": "X-Request-ID: mine-22",
    "X-Forwarded-For: 1.2.3.4": "X-Forwarded-For: 2001:db8::1, 5.6.7.8",
    "session-id: 1234-5678": "session-id: 5678-1234",
    "X-Real-IP: 1.2.3.4": "X-Real-IP: 5.6.7.8",
}


def whole(body: bytes, *lines: str, status: str = "200 OK", kind: str = "application/json") -> bytes:
    head = [
        f"HTTP/1.1 {status}",
        f"Content-Type: {kind}",
        "x-request-id: req-1",
        *lines,
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


GZIPPED = gzip.compress(USAGE, mtime=0)
EVENTS = "text/event-stream"
ENDS = events({"choices": [], "usage": CHAT_USAGE})
SAID = events({"choices": [{"delta": {"content": "Hello to the world"}}]})
NAMED = events({"model": "gpt-4o-mini", "choices": [{"delta": {"content": "Hello to the world"}}]})
LOOK_SECONDS = 10.0  # that pass at once
ONE_READ_BYTES = 30_000
FOR_A_MINUTE = "Cache-Control: public, max-age=60"
LAST = b"0\r\n\r\n"
JSON = whole(USAGE, "Date: Mon, 23 Nov 2026 10:00:00 GMT", "x-ratelimit-remaining-requests: 5", "Set-Cookie: a=b")
LONG = whole(USAGE[:-1] + b" " * 300_000 + USAGE[-1:])
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
# What the provider does: chunks that it sends one by one; C{None} ends the connection, a number lets time pass.
ANSWERS: dict[str, tuple[bytes | float | None, ...]] = {
    "whole": (JSON,),
    "of another kind": (JSON.replace(b"x-ratelimit-remaining-requests", b"openai-processing-ms"),),
    "to pages": (whole(USAGE, "Access-Control-Allow-Origin: *", "Vary: Accept", "Access-Control-Max-Age: 5"),),
    "in pieces": (JSON[:50], JSON[50:200], JSON[200:]),
    "head first": (JSON[: -len(USAGE)], USAGE),
    "pauses": (JSON[: -len(USAGE)], 10.0, USAGE),
    "cut in the body": (JSON[: -len(USAGE)], USAGE[:9], None),
    "long, head first": (LONG[:300], LONG[300:100_000], LONG[100_000:200_000], LONG[200_000:]),
    "chunked": (CHUNKED + chunk(USAGE) + b"0\r\n\r\n",),
    "chunked in pieces": (CHUNKED + chunk(USAGE[:30]), chunk(USAGE[30:]), b"0\r\n\r\n"),
    "gzip": (whole(GZIPPED, "Content-Encoding: gzip"),),
    "gzip, head first": (
        CHUNKED[:-2] + b"Content-Encoding: gzip\r\n\r\n",
        chunk(GZIPPED[:9]),
        chunk(GZIPPED[9:]) + LAST,
    ),
    "gzip in chunks": (
        CHUNKED[:-2] + b"Content-Encoding: gzip\r\n\r\n" + chunk(GZIPPED[:9]) + chunk(GZIPPED[9:]) + LAST,
    ),
    "no gzip": (whole(USAGE, "Content-Encoding: gzip"),),
    "stream": (
        STREAM + chunk(events({"choices": []})),
        chunk(events({"choices": [], "usage": CHAT_USAGE})),
        b"0\r\n\r\n",
    ),
    "stream at once": (STREAM + chunk(SAID) + chunk(events({"choices": [], "usage": CHAT_USAGE})) + LAST,),
    "stream at once, of known length": (whole(SAID + events({"choices": [], "usage": CHAT_USAGE}), kind=EVENTS),),
    "stream at once, to pages": (
        STREAM[:-2]
        + b"Access-Control-Allow-Origin: *\r\n\r\n"
        + chunk(SAID)
        + chunk(ENDS + b"data: [DONE]\n\n")
        + LAST,
    ),
    "usage in pieces": (STREAM + chunk(SAID + ENDS[:20]), chunk(ENDS[20:50]), chunk(ENDS[50:] + SAID), LAST),
    "stream at once, no usage": (STREAM + chunk(SAID + SAID + b"data: [DONE]\n\n") + LAST,),
    "stream at once, its model alone": (STREAM + chunk(NAMED * 9) + chunk(b"data: [DONE]\n\n") + LAST,),
    "stream, its model alone": (STREAM + chunk(NAMED), chunk(NAMED * 9), chunk(b"data: [DONE]\n\n") + LAST),
    "stream at once, an error": (
        STREAM + chunk(SAID + b'data: {"error":{"message":"overloaded","code":"overloaded_error"}}\n\n') + LAST,
    ),
    "gzip stream at once": (
        STREAM[:-2] + b"Content-Encoding: gzip\r\n\r\n" + chunk(gzip.compress(SAID + SAID, mtime=0)) + LAST,
    ),
    "gzip stream": (
        STREAM[:-2] + b"Content-Encoding: gzip\r\n\r\n" + chunk(gzip.compress(SAID, mtime=0)[:20]),
        chunk(gzip.compress(SAID, mtime=0)[20:]) + LAST,
    ),
    "key in stream": (STREAM + chunk(SAID + b'data: {"error":"not %b"}\n\n' % KEY.encode()) + LAST,),
    "key cut by chunks": (
        CHUNKED + chunk(b'{"error":"not %b' % KEY[:5].encode()) + chunk(b'%b"}' % KEY[5:].encode()) + LAST,
    ),
    "key in an event cut by chunks": (
        STREAM
        + chunk(SAID + b'data: {"error":"not %b' % KEY[:5].encode())
        + chunk(b'%b"}\n\n' % KEY[5:].encode())
        + LAST,
    ),
    "key in gzip": (whole(gzip.compress(b'{"error":"not %b"}' % KEY.encode(), mtime=0), "Content-Encoding: gzip"),),
    "text": (whole(b"hello", kind="text/plain"),),
    "events one by one": (STREAM + chunk(SAID), *[chunk(SAID)] * 4, chunk(events({"usage": CHAT_USAGE})), LAST),
    "odd chunks": (
        STREAM + chunk(SAID),
        b"0%b" % chunk(SAID),
        chunk(SAID).replace(b"\r\n", b";x=y\r\n", 1),
        chunk(SAID).upper(),
        chunk(SAID)[:9],
        chunk(SAID)[9:] + chunk(SAID)[:4],
        chunk(SAID)[4:],
        chunk(SAID[:-1]),
        chunk(b"\n"),
        chunk(SAID.replace(b"\n", b"\r\n")),
        chunk(b"x\n\n" * 2000) + chunk(SAID),
        chunk(SAID) + chunk(SAID) + chunk(b"data: 1\n\n"),
        chunk(SAID) + chunk(SAID[:-1]) + chunk(b"\n"),
        chunk(SAID) + chunk(SAID)[:-3],
        chunk(SAID)[-3:] + chunk(SAID),
        chunk(SAID) + LAST,
    ),
    "key in one event": (
        STREAM + chunk(SAID),
        chunk(b'data: {"error":"not %b"}\n\n' % KEY.encode()),
        chunk(b'data: {"error":"%b' % KEY[:5].encode()) + chunk(b'%b"}\n\n' % KEY[5:].encode()),
        chunk(b'data: {"error":"%b' % KEY[:9].encode()),
        chunk(b'%b"}\n\n' % KEY[9:].encode()),
        chunk(b"data: %b\n\n" % KEY.encode()),
        LAST,
    ),
    "events cut": (STREAM + chunk(SAID), chunk(SAID), chunk(SAID), None),
    "long stream": (STREAM, *[chunk(SAID * 80)] * 40, LAST),
    "silent stream": (STREAM + chunk(SAID), 60.0, chunk(SAID), 200.0, LAST),
    "stream cut": (STREAM + chunk(b"data: {}\n\n"), None),
    "to keep": (whole(USAGE, FOR_A_MINUTE, 'ETag: "x"'),),
    "to keep, gzip": (whole(GZIPPED, FOR_A_MINUTE, "Content-Encoding: gzip"),),
    "varies": (whole(USAGE, FOR_A_MINUTE, "Vary: traceparent"),),
    "soon stale": (whole(USAGE, "Cache-Control: public, max-age=0, stale-while-revalidate=5"),),
    "stream to keep": (
        STREAM[:-2] + FOR_A_MINUTE.encode() + b"\r\n\r\n",
        chunk(events({"choices": [], "usage": CHAT_USAGE}) + b"data: [DONE]\n\n") + LAST,
    ),
    "not modified": (b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\n\r\n',),
    "no usage": (whole(b'{"choices":[]}'),),
    "refused": (whole(b'{"error":{"message":"no"}}', status="400 Bad Request"),),
    "key in error": (whole(b'{"error":{"message":"%b"}}' % KEY.encode(), status="401 Unauthorized"),),
    "key in head": (whole(USAGE, f"x-echo: {KEY}"),),
    "error of 200": (whole(b'{"error":{"message":"overloaded","code":"overloaded_error"}}'),),
    "unavailable": (whole(b"{}", status="503 Service Unavailable"),),
    "throttled": (whole(b"{}", "Retry-After: 1", status="429 Too Many Requests"),),
    "created": (whole(USAGE, status="201 Created"),),
    "interim": (b"HTTP/1.1 100 Continue\r\n\r\n" + JSON,),
    "late": (700.0, JSON),
    "closes": (JSON.replace(b"Content-Type", b"Connection: close\r\nContent-Type"), None),
    "gone": (None,),
    "cut": (JSON[:-5], None),
    "garbage": (b"HELLO\r\n\r\n",),
    "too much": (JSON + b"x",),
}
STEP = st.tuples(
    st.sampled_from(BODIES),
    st.sampled_from(FIELDS),
    st.booleans(),  # whether the fields that differ each time do
    st.sampled_from(sorted(ANSWERS)),
    st.sampled_from(("one read", "two reads", "many reads", "leaves", "leaves within", "reads nothing for a while")),
)
APIS: tuple[dict[str, Any], ...] = (
    {},
    {"heartbeat": 15.0, "on_client_abort": "drain"},
    {"timeouts": {"flush_interval": 0.1, "idle": 30.0, "stream": 100.0}},
    {"metering": {"enabled": False}},
    {"metering": {"include_usage": "inject"}},
    {"metering": {"include_usage": "inject", "enabled": False}, "forward_client_ip": True},
    {"allowed_origins": ["https://app.test"], "forward_client_ip": True},
    {"allowed_origins": ["*"], "metering": {"include_usage": "inject"}, "heartbeat": 15.0},
)
GRANTS = {
    "free": Grant("project-1", token_id="token-1", project_active=True),
    "limited": Grant(
        "project-1",
        token_id="token-1",
        project_active=True,
        allowance=Allowance(requests_per_minute=6, tokens_per_minute=3000, concurrency=5),
    ),
    "roomy": Grant(
        "project-1", token_id="token-1", project_active=True, allowance=Allowance(tokens_per_minute=1_000_000)
    ),
    "models": Grant("project-1", token_id="token-1", project_active=True, models=("gpt-4o*",)),
}
_RANDOM_ID = re.compile(rb"[0-9a-f]{18}-[0-9a-f]+|\r\nDate: [^\r]* \d\d:\d\d:\d\d GMT")


def unframed(data: bytes) -> bytes:
    """A response without its chunks, unless it is a stream: how a body is cut has no meaning (RFC 9112, 7.1)."""
    head, end, body = data.partition(b"\r\n\r\n")
    if not end or b"transfer-encoding: chunked" not in head.lower() or EVENTS.encode() in head.lower():
        return data
    pieces = [head, end]
    while (found := re.match(rb"([0-9a-f]+)\r\n", body)) is not None:
        size = int(found[1], 16)
        pieces.append(body[found.end() : found.end() + size] if size else b"(its end)")
        body = body[found.end() + size + 2 :]
    return b"".join([*pieces, body])


class WaysCase(ProxyTestCase):
    """Plays the same on both ways.

    @ivar limits_take: Seconds that pass before anybody knows whether limits admit a request.
    @ivar reads_of: How many bytes at a time a provider's pieces come in; C{0}: each at once.
    """

    limits_take = 0.0
    reads_of = 0
    cache = {"streams": True}  # noqa: RUF012

    def setUp(self) -> None:
        """Each example has a stage of its own."""

    def tearDown(self) -> None:
        pass

    def validator(self) -> Any:
        tokens: Any = self.tokens
        self.caching = CachedTokenValidator(
            tokens, clock=self.network, now=self.network.seconds, ttl=5.0, journaled=True
        )
        return self.caching

    def play(self, fast: bool, grant: str, steps: list[Any]) -> list[Any]:
        """All that anybody notices of these requests, in the order in which it happens."""
        noticed = self.play_on(fast, grant, steps)
        super().tearDown()
        return noticed

    def assert_one(self, grant: str, steps: list[Any]) -> None:
        """Nobody notices anything else of these requests, whichever way they go."""
        short, long = self.play(True, grant, steps), self.play(False, grant, steps)
        for number, (ours, theirs) in enumerate(zip(short, long, strict=True)):
            self.assertEqual(ours, theirs, f"{number} of {len(short)}")

    def play_on(self, fast: bool, grant: str, steps: list[Any]) -> list[Any]:
        """As L{play}, and the proxy goes on."""
        self.server = {"fast_path": fast}
        super().setUp()
        self.tokens.grants[TOKEN] = GRANTS[grant]
        noticed: list[Any] = []
        client = self.client()
        for body, lines, differ, answer, manner in steps:
            if client.end:
                client = self.client()
            if answer == "late":  # for an upload, that is looked at an eighth of the time at a time
                body, manner = body if len(body) <= ONE_READ_BYTES else BODIES[1], "one read"
            lines = tuple(OTHER_VALUES.get(line, line) for line in lines) if differ else lines
            sent = request(*lines, body=body)
            before = len(self.provider.peers)
            if manner == "two reads":
                client.send(sent[: len(sent) - len(body)])
                client.send(sent[len(sent) - len(body) :])
            elif manner == "many reads":
                for at in range(0, len(sent), ONE_READ_BYTES):
                    client.send(sent[at : at + ONE_READ_BYTES])
            else:
                client.send(sent)
            if manner == "leaves early":
                client.reset()
                client = self.client()
            self.network.pass_time(self.limits_take)
            asked = self.provider.last.take() if self.provider.peers else b""
            self.network.pass_time(0.25)  # so that what is kept grows old
            noticed.append((len(self.provider.peers) - before, asked))
            if manner == "leaves" and not client.end:
                client.reset()
                client = self.client()
            if manner == "reads nothing for a while":
                client.pause()
            if asked:
                first, *rest = ANSWERS[answer]
                self._answer((first,))
                if manner == "leaves within" and not client.end:
                    for _ in range(3):  # a body may be waited for
                        self.network.pass_time(PATIENCE_SECONDS)
                    noticed.append(unframed(_RANDOM_ID.sub(b"ID", client.take())))
                    client.reset()
                    client = self.client()
                self._answer(tuple(rest))
            if manner == "reads nothing for a while":
                noticed.append([party.unsent for party in self.provider.peers])  # what it cannot get rid of
                self.network.pass_time(5.0)
                if not client.end:
                    client.resume()
            noticed.append((unframed(_RANDOM_ID.sub(b"ID", client.take())), client.end))
        self.network.pass_time(1000.0)
        noticed.append(self.provider.peers and [party.take() for party in self.provider.peers])
        noticed += [
            # The short way has no steps: the times say all.
            record._replace(request_id=_RANDOM_ID.sub(b"ID", record.request_id.encode()).decode(), steps="")
            for record in self.events.records
        ]
        noticed += [asdict(self.proxy.metrics()), self.tokens.counted]
        fast_path = self.proxy._parts.fast_path
        self.short = 0 if fast_path is None else fast_path.served
        return noticed

    def _answer(self, pieces: tuple[bytes | float | None, ...]) -> None:
        provider = self.provider.last
        for piece in pieces:
            if isinstance(piece, float):
                for _ in range(int(piece / LOOK_SECONDS)):
                    self.network.pass_time(LOOK_SECONDS)
            elif provider.end:
                return
            elif piece is None:
                provider.close()
            else:
                size = self.reads_of if self.reads_of and len(piece) <= 100 * self.reads_of else len(piece)
                for at in range(0, len(piece), size):
                    if not provider.end:
                        provider.send(piece[at : at + size])


class Ways(WaysCase):
    """The same on both ways."""

    def test_usual_requests_go_the_short_way(self) -> None:
        """From the third on: the first is seen, the second remembered."""
        step = (BODIES[0], FIELDS[1], True, "whole", "one read")
        self.assertEqual(self.play(False, "free", [step] * 5), self.play(True, "free", [step] * 5))
        self.assertEqual(self.short, 3)

    def test_what_proxies_and_tracers_say(self) -> None:
        """Differs each time, and changes nothing; cookies likewise, unless they are forwarded."""
        own = {
            "x-datadog-tags": "_dd.p.tid=%x",
            "newrelic": "abc%x=",
            "X-B3-ParentSpanId": "%016x",
            "x-ms-client-request-id": "%032x",
            "X-Request-Start": "t=%d",
            "X-Azure-Ref": "0%xZ",
            "Cookie": "session=%x; llmproxy-x=1",
        }
        usual = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAAB")
        asked = ("Connection: keep-alive, TE", "TE: trailers")
        for forwards, name in product((False, True), own):
            self.api = {"forward_cookies": forwards}
            for said in (usual, asked, ()):
                steps = [
                    (BODIES[0], (f"{name}: {own[name] % number}", *said), False, "whole", "one read")
                    for number in range(5)
                ]
                self.assert_one("roomy", steps)
                self.play(True, "roomy", steps)
                self.assertEqual(self.short, 0 if forwards and name == "Cookie" else 3, (name, said))

    def test_providers_with_heads_of_several_kinds(self) -> None:
        """What they have to say differs by endpoint and model: each kind is known again."""
        kinds = ("whole", "of another kind") * 4
        steps = [(BODIES[0], FIELDS[1], True, kind, "one read") for kind in kinds]
        self.assertEqual(self.play(False, "free", steps), self.play(True, "free", steps))
        self.assertEqual(self.short, 6)

    def test_usage_that_is_asked_for(self) -> None:
        """In the client's place, whose stream tells nothing of it; and of whom is not asked, the usage passes."""
        self.api = {"metering": {"include_usage": "inject"}}
        for number, grant, answer in product((1, 9, 10), ("free", "roomy", "models"), ANSWERS):
            if "stream" in answer or answer in ("usage in pieces", "whole", "events one by one"):
                self.assert_one(grant, [(BODIES[number], FIELDS[4], True, answer, "one read")] * 4)
        for body, answer in product((1, 9, 10), ("stream", "stream at once", "usage in pieces", "events one by one")):
            self.play(True, "roomy", [(BODIES[body], FIELDS[4], True, answer, "one read")] * 5)
            self.assertEqual(self.short, 3, (body, answer))
            self.assertEqual({record.basis for record in self.events.records}, {"exact"})

    def test_pages_and_clients_by_name(self) -> None:
        """Pages are told that they may read what they get, and providers who asks, where that is wanted."""
        self.api = {"allowed_origins": ["https://app.test"], "forward_client_ip": True}
        for fields, answer in product((0, 4, 8, 12), ("whole", "to pages", "stream at once, to pages", "stream")):
            step = (BODIES[1 if "stream" in answer else 0], FIELDS[fields], True, answer, "one read")
            self.assert_one("roomy", [step] * 5)
            self.play(True, "roomy", [step] * 5)
            self.assertEqual(self.short, 3, (fields, answer))
        for fields in (5, 13):
            step = (BODIES[0], FIELDS[fields], True, "to keep", "one read")
            self.assert_one("free", [step] * 6)
            self.play(True, "free", [step] * 6)
            self.assertEqual((self.short, len(self.provider.peers)), (4, 1))

    def test_bodies_that_are_too_long_for_the_cache(self) -> None:
        """What the cache would have for shorter ones, it has all the same."""
        long = b'{"model":"gpt-4o","messages":["%b"]}' % (b"x" * MAX_BUFFERED_BODY_BYTES)
        steps = [(body, FIELDS[5], False, "to keep", "many reads") for body in (long, long, long)]
        steps += [(BODIES[0], FIELDS[5], False, "to keep", "one read")] * 5
        self.assert_one("free", steps)
        self.play(True, "free", steps)
        self.assertEqual([record.cache for record in self.events.records][-4:], ["hit"] * 4)

    def test_keys_that_chunks_cut(self) -> None:
        """They are masked as any other, also where all of the response is there at once."""
        for answer in ("key cut by chunks", "key in an event cut by chunks", "key in stream", "key in gzip"):
            for body in BODIES[:2]:
                steps = [(body, FIELDS[4], True, "whole", "one read")] * 4 + [
                    (body, FIELDS[4], True, answer, "one read")
                ] * 3
                self.assert_one("free", steps)
                for seen, _ in self.play(True, "free", steps)[1 : 2 * len(steps) : 2]:
                    self.assertNotIn(KEY.encode(), seen, answer)

    def test_tokens_in_fields_that_differ_each_time(self) -> None:
        """None reaches the provider, whoever's it is, and whatever stands around it; and what is none passes."""
        for token in (TOKEN, OTHER):
            for value in (token, f"before {token}", f"{token},after"):
                said = ("traceparent: 00-0123-45-01", f"traceparent: {value}", "traceparent: 00-ffff-ee-00")
                for order in ((0, 0, 0, 1, 2), (1, 1, 1, 0, 2, 2)):
                    steps = [(BODIES[0], (said[at], "X-Other: x"), False, "whole", "one read") for at in order]
                    self.assert_one("free", steps)
                    asked = [sent for _, sent in self.play(True, "free", steps)[: 2 * len(steps) : 2]]
                    self.assertEqual([b"traceparent: 00" in sent for sent in asked], [at != 1 for at in order])
                    self.assertNotIn(b"sk-lp-", b"".join(asked))

    def test_most_need_no_objects(self) -> None:
        """Of whole bodies and whole responses, whatever limits and policies there are."""
        for body, fields, grant, answer in (
            (0, 0, "free", "whole"),
            (0, 1, "roomy", "chunked"),
            (0, 7, "models", "whole"),
            (0, 4, "roomy", "gzip in chunks"),
            (0, 4, "free", "gzip"),
            (1, 4, "roomy", "stream at once"),
            (1, 0, "free", "stream at once, no usage"),
            (1, 0, "roomy", "stream at once, an error"),
            (1, 1, "free", "gzip stream at once"),
            (1, 4, "roomy", "stream"),
            (1, 0, "free", "long stream"),
            (0, 1, "free", "no usage"),
        ):
            step = (BODIES[body], FIELDS[fields], True, answer, "one read")
            self.assertEqual(self.play(False, grant, [step] * 6), self.play(True, grant, [step] * 6))
            self.assertEqual(self.short, 4, (grant, answer))

    def test_streams_in_several_reads_need_no_objects(self) -> None:
        """However they end, whoever leaves, whatever their API's settings are."""
        for api, answer, manner in product(
            APIS,
            (
                "stream",
                "long stream",
                "stream cut",
                "silent stream",
                "events one by one",
                "odd chunks",
                "key in one event",
                "events cut",
            ),
            ("one read", "leaves within", "reads nothing for a while"),
        ):
            self.api = api
            usual = (BODIES[1], FIELDS[1], True, "stream", "one read")
            steps = [usual, usual, (*usual[:3], answer, manner)]
            self.assertEqual(self.play(False, "roomy", steps), self.play(True, "roomy", steps), (api, answer, manner))
            self.assertEqual(self.short, 1, (api, answer, manner))

    def test_a_refusal_is_counted_once(self) -> None:
        """Whichever way the request goes on."""
        step = (BODIES[0], FIELDS[1], True, "whole", "one read")
        for fast in (True, False):
            self.play(fast, "limited", [step] * 9)
            refused = [record.error for record in self.events.records].count("rate_limit_exceeded")
            limiter = self.proxy._parts.quota
            self.assertEqual((refused, limiter._refusals["token"]), (3, 3), fast)

    def test_sdks_say_that_their_connection_is_kept(self) -> None:
        """And take a gzip, of which the usage is read at once."""
        step = (BODIES[0], FIELDS[4], True, "gzip in chunks", "one read")
        self.assertEqual(self.play(False, "free", [step] * 5), self.play(True, "free", [step] * 5))
        self.assertEqual(self.short, 3)

    def test_a_connection_for_each_request(self) -> None:
        """It is closed as the client says."""
        step = (BODIES[0], FIELDS[7], True, "whole", "one read")
        ordinary, noticed = self.play(False, "free", [step] * 5), self.play(True, "free", [step] * 5)
        self.assertEqual(noticed, ordinary)
        self.assertTrue(noticed[9][1])
        self.assertEqual(self.short, 3)

    def test_streams_are_known_before_they_end(self) -> None:
        """They may take minutes: with two under way, the third of the same head goes the short way."""
        self.server = {"fast_path": True}
        ProxyTestCase.setUp(self)
        self.tokens.grants[TOKEN] = GRANTS["free"]
        clients = [self.ask(*FIELDS[0], body=BODIES[1])]
        for _ in range(3):
            self.provider.last.send(STREAM + chunk(SAID))
            clients.append(self.ask(*FIELDS[0], body=BODIES[1]))
        self.provider.last.send(STREAM + chunk(SAID))
        for provider, client in zip(self.provider.peers, clients, strict=True):
            provider.send(chunk(SAID) + LAST)
            self.assertTrue(client.take().endswith(LAST))
        fast_path = self.proxy._parts.fast_path
        assert fast_path is not None
        self.assertEqual(fast_path.served, 2)
        ProxyTestCase.tearDown(self)
        self.assertEqual([record.outcome for record in self.events.records], ["complete"] * 4)

    def test_streams_leave_nothing_to_the_collector(self) -> None:
        """Its runs hold up all that is under way."""

        def alive() -> list[object]:
            return [each for each in gc.get_objects() if isinstance(each, DirectStream | ChunkPassing)]

        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        before = alive()  # of other tests
        self.play_on(True, "roomy", [(BODIES[1], FIELDS[1], True, "events one by one", "one read")] * 5)
        self.assertEqual(self.short, 3)
        self.assertEqual([each for each in alive() if not any(each is other for other in before)], [])

    def test_a_new_connection_to_the_provider_for_each(self) -> None:
        """Where no connection waits to be used, one is made, and a request needs no more objects than with one."""
        usual = (BODIES[1], FIELDS[1], True, "stream", "one read")
        steps = [usual, usual, *[(*usual[:3], "stream cut", "one read")] * 4]
        ordinary, noticed = self.play(False, "roomy", steps), self.play(True, "roomy", steps)
        self.assertEqual(noticed, ordinary)
        self.assertEqual([count for count, _ in noticed[:12:2]], [1, 0, 0, 1, 1, 1])
        self.assertEqual(self.short, 4)

    def test_no_connection_can_be_made(self) -> None:
        """Refused, or nothing ever comes back, or the client does not wait for it: the same to everybody."""
        for server, leaves in (("refused", False), ("silent", False), ("silent", True)):
            ways = []
            for fast in (True, False):
                self.play_on(fast, "roomy", [(BODIES[0], FIELDS[0], False, "closes", "one read")] * 3)
                del self.network.servers[PROVIDER]
                if server == "silent":
                    self.network.servers[PROVIDER] = None
                client = self.client()
                client.send(request(*FIELDS[0], body=BODIES[0]))
                if leaves:
                    client.reset()
                self.network.pass_time(100.0)
                said = b"" if leaves else client.take()
                records = [record._replace(request_id="", steps="") for record in self.events.records]
                ways.append((_RANDOM_ID.sub(b"ID", said), records, asdict(self.proxy.metrics())))
                super().tearDown()
            self.assertEqual(*ways)
            self.assertEqual(ways[0][1][-1].outcome, "cancelled" if leaves else "failed")

    def test_what_the_cache_has(self) -> None:
        """Goes the short way from the second hit on; streams likewise."""
        for body, answer in zip(BODIES, ("to keep", "stream to keep"), strict=False):
            step = (body, FIELDS[5], True, answer, "one read")
            self.assertEqual(self.play(False, "limited", [step] * 6), self.play(True, "limited", [step] * 6))
            self.assertEqual((self.short, len(self.provider.peers)), (4, 1))

    def test_what_the_cache_has_for_prompts_known_by_their_digest(self) -> None:
        """Each is found again by itself, as long as its response will do: which it does not once it is too old."""
        steps = [(body, FIELDS[9], False, "to keep", "one read") for body in (BODIES[0], BODIES[4]) * 5]
        later = [(BODIES[0], FIELDS[9], False, "silent stream", "one read"), *steps]
        for each in (steps, steps + later):
            self.assertEqual(self.play(True, "free", each), self.play(False, "free", each))
        self.play(True, "free", steps)
        self.assertGreater(self.short, 4)
        self.assertEqual(len(self.provider.peers), 1)

    def test_what_the_cache_has_for_the_same_requests(self) -> None:
        """As SDKs send them: each is found again by all of its bytes, and recorded as what it is."""
        for manner in ("one read", "two reads"):
            steps = [(BODIES[0], FIELDS[10], differ, "to keep", manner) for differ in (False, True) * 6]
            self.assertEqual(self.play(True, "free", steps), self.play(False, "free", steps))
            self.play(True, "free", steps)
            self.assertEqual((self.short, len(self.provider.peers)), (10, 1))
            retries = [record.sdk_retry for record in self.events.records]
            self.assertEqual(retries, [1, 2] * 6)

    def test_what_the_cache_has_not(self) -> None:
        """Each is asked for once; that others were there before is no hindrance."""
        own = [BODIES[0].replace(b"hi", b"hi %d" % number) for number in range(6)]
        for bodies, answer in product((own, own[:1] * 3 + own[1:]), ("to keep", "stream at once, no usage", "gzip")):
            steps = [(body, FIELDS[5], True, answer, "one read") for body in bodies]
            self.assert_one("limited", steps)
            self.play(True, "limited", steps)
            self.assertEqual(self.short, 4 + (len(bodies) > 6), answer)  # a flow of hits is made anew once
            kept = [record.cache for record in self.events.records]
            self.assertEqual(kept, ["stored"] + ["hit"] * (len(bodies) - 6) + ["stored"] * 5)

    def test_what_the_cache_has_for_some(self) -> None:
        """A field of the request selects among responses, and differs each time."""
        steps = [(BODIES[0], FIELDS[5], differ, "varies", "one read") for differ in (False, True) * 6]
        self.assertEqual(self.play(False, "free", steps), self.play(True, "free", steps))
        self.assertGreater(self.short, 3)

    def test_bodies_of_responses_that_come_behind_their_heads(self) -> None:
        """They are waited for, for a moment: all of it is as if it had come at once."""
        for answer, fields in product(("in pieces", "chunked in pieces", "head first", "gzip, head first"), (1, 5)):
            steps = [(BODIES[0], FIELDS[fields], True, answer, "one read")] * 5
            self.assert_one("roomy", steps)
            self.play(True, "roomy", steps)
            self.assertGreater(self.short, 2, (answer, fields))

    def test_bodies_of_responses_that_do_not_come(self) -> None:
        """Or not soon, or not whole, or are long, or whose client leaves: they are relayed as any other."""
        for answer in ("pauses", "cut in the body", "long, head first", "in pieces", "head first"):
            for manner in ("one read", "leaves within", "reads nothing for a while"):
                self.assert_one("roomy", [(BODIES[0], FIELDS[1], True, answer, manner)] * 5)

    def test_what_is_held_of_late_bodies(self) -> None:
        """Is counted for as long as it is held, and a pause ends the wait."""
        client = self.late_body()
        for _ in range(3):
            self.network.pass_time(PATIENCE_SECONDS)
        self.assertIn(b"200 OK", client.take())
        self.provider.last.send(USAGE[20:])
        self.assertEqual((client.take(), self.buffers.held), (USAGE[20:], 0))
        super().tearDown()

    def late_body(self) -> Any:
        """A client whose response's head is there, and a part of its body, of which the rest is waited for."""
        self.play_on(True, "free", [(BODIES[0], FIELDS[1], True, "head first", "one read")] * 3)
        client = self.client()
        for _ in range(3):  # by which its token is known again, and its head
            client.send(request(*FIELDS[1], body=BODIES[0]))
            self.provider.last.send(JSON)
        client.take()
        client.send(request(*FIELDS[1], body=BODIES[0]))
        self.provider.last.send(JSON[: -len(USAGE)])
        self.provider.last.send(USAGE[:20])
        self.assertEqual((client.take(), self.buffers.held), (b"", 20))
        return client

    def test_a_client_that_leaves_before_a_late_body(self) -> None:
        """The call is given up, and its record says that there was a response."""
        client = self.late_body()
        before = len(self.events.records)
        client.reset()
        self.network.pass_time(1.0)
        (record,) = self.events.records[before:]
        self.assertEqual((record.outcome, record.status, record.upstream_status), ("cancelled", 200, 200))
        self.assertNotEqual(self.provider.last.end, "")
        super().tearDown()

    def test_bodies_in_single_bytes(self) -> None:
        """As any other, and in a time that grows with them alone."""
        body = USAGE[:-1] + b" " * 5000 + USAGE[-1:]
        step = (BODIES[0], FIELDS[1], True, "in single bytes", "one read")
        ANSWERS["in single bytes"] = (whole(body)[: -len(body)], *[body[at : at + 1] for at in range(len(body))])
        self.addCleanup(ANSWERS.pop, "in single bytes")
        self.assert_one("free", [step] * 4)

    def test_a_body_that_comes_behind_its_head(self) -> None:
        """It is waited for, for a moment."""
        step = (BODIES[0], FIELDS[1], True, "whole", "two reads")
        self.assertEqual(self.play(False, "free", [step] * 5), self.play(True, "free", [step] * 5))
        self.assertEqual(self.short, 3)

    def head_alone(self) -> Any:
        """A client of a known head that has sent no more than that."""
        step = (BODIES[0], FIELDS[1], True, "whole", "one read")
        self.play_on(True, "free", [step] * 4)
        client = self.client()
        sent = request(*(OTHER_VALUES.get(line, line) for line in FIELDS[1]), body=BODIES[0])
        for _ in range(3):  # by which its token is known again, and its head
            client.send(sent)
            self.provider.last.send(JSON)
        client.take()
        client.send(sent[: -len(BODIES[0])])
        return client

    def test_a_body_that_does_not_come(self) -> None:
        """A moment later it is streamed as any other, and what there is of it is sent."""
        client = self.head_alone()
        self.provider.last.take()
        self.network.pass_time(0.04)
        self.assertEqual(self.provider.last.take(), b"")
        self.network.pass_time(0.02)
        self.assertIn(b"POST", self.provider.last.take())
        client.send(BODIES[0])
        self.assertEqual(self.provider.last.take(), BODIES[0])
        self.provider.last.send(JSON)
        self.assertIn(b"200 OK", client.take())
        super().tearDown()

    def test_a_body_that_comes_slowly(self) -> None:
        """It is waited for as long as it goes on, and a second at most."""
        client = self.head_alone()
        self.provider.last.take()
        for at in range(20):
            self.assertEqual(self.provider.last.take(), b"", f"{at} of its bytes had come")
            client.send(BODIES[0][at : at + 1])
            self.network.pass_time(0.05)
        self.assertTrue(self.provider.last.take().endswith(BODIES[0][:20]))
        client.send(BODIES[0][20:])
        self.assertEqual(self.provider.last.take(), BODIES[0][20:])
        self.provider.last.send(JSON)
        self.assertIn(b"200 OK", client.take())
        super().tearDown()

    def test_a_long_body(self) -> None:
        """It is no different, in one read or in several."""
        for body in BODIES[4:6]:
            for manner in ("one read", "two reads", "many reads"):
                step = (body, FIELDS[4], True, "whole", manner)
                self.assertEqual(self.play(False, "roomy", [step] * 5), self.play(True, "roomy", [step] * 5))
                self.assertEqual(self.short, 3)

    def each_answer(self, body: bytes, usual: str) -> None:
        """Each of them twice: the heads of responses, too, are known from the second on."""
        for answer in ANSWERS:
            steps = [(body, FIELDS[0], False, each, "one read") for each in (usual, usual, answer, answer)]
            self.assertEqual(self.play(True, "roomy", steps), self.play(False, "roomy", steps), answer)

    def test_every_answer(self) -> None:
        """To who asked for no stream."""
        self.each_answer(BODIES[0], "whole")

    def test_every_answer_to_who_wants_a_stream(self) -> None:
        """Some of them are none."""
        self.each_answer(BODIES[1], "stream at once")

    def test_streams_that_take_long(self) -> None:
        """A client that does not read holds its provider; one that is left waiting hears a comment; one that leaves
        ends it, or lets it be heard out."""
        for api, answer, manner in (
            (APIS[0], "long stream", "reads nothing for a while"),
            (APIS[1], "silent stream", "one read"),
            (APIS[0], "long stream", "leaves within"),
            (APIS[1], "silent stream", "leaves within"),
            ({"on_client_abort": "drain"}, "events one by one", "leaves within"),
        ):
            self.api = api
            steps = [(BODIES[1], FIELDS[1], True, "stream at once", "one read")] * 4
            steps.append((BODIES[1], FIELDS[1], True, answer, manner))
            short, long = self.play(True, "roomy", steps), self.play(False, "roomy", steps)
            self.assertEqual(short, long)
            if manner == "reads nothing for a while":
                self.assertGreater(sum(next(each for each in short if isinstance(each, list))), 100_000)
            elif manner == "one read":
                self.assertIn(b"\r\n: heartbeat", short[9][0])

    def test_a_client_that_leaves_before_its_body(self) -> None:
        """Nobody is asked; one record says so."""
        client = self.head_alone()
        self.provider.last.take()
        client.reset()
        self.network.pass_time(1.0)
        self.assertEqual(self.provider.last.take(), b"")
        record = self.events.records[-1]
        self.assertEqual((record.outcome, record.project_id, record.basis), ("cancelled", "project-1", "none"))
        super().tearDown()

    def test_clients_that_leave_take_their_bodies_along(self) -> None:
        """What is held for a request is held as long as there is a client: each L{play} looks at that at its end."""
        step = (BODIES[4], FIELDS[1], True, "whole", "one read")
        for manner in ("leaves", "leaves early", "leaves within"):
            self.play(True, "roomy", [step] * 4 + [(*step[:4], manner)] * 3 + [step])
            self.assertGreaterEqual(self.short, 2, manner)

    @examples(150)
    @given(
        st.sampled_from(sorted(GRANTS)),
        st.lists(STEP, min_size=1, max_size=6),
        st.sampled_from((BODIES[0], BODIES[1])),
        st.sampled_from(("whole", "to keep", "varies", "soon stale", "stream to keep", "stream at once")),
        st.sampled_from(APIS),
        st.sampled_from((0, 1, 7, 60, 200)),
    )
    def test_both_ways_are_one(
        self, grant: str, steps: list[Any], body: bytes, kept: str, api: dict[str, Any], reads_of: int
    ) -> None:
        """Whatever clients send and providers answer, however that is cut: bytes both ways, records, metrics, uses."""
        self.api, self.reads_of = api, reads_of
        heads = dict.fromkeys(lines for _, lines, *_ in steps)
        usual = [(body, lines, False, kept, "one read") for lines in heads for _ in range(3)]
        self.assert_one(grant, usual + steps)


@implementer(ICounters)
class SlowCounters:
    """Counts as others do, and says so later."""

    unsettled = 0

    def __init__(self, counters: Any, clock: Any, seconds: float) -> None:
        self._counters = counters
        self._clock = clock
        self._seconds = seconds
        self.broken = False

    def reserve_now(self, claims: Any) -> None:
        return None

    def reserve(self, claims: Any) -> Deferred[Verdict]:
        answer: Deferred[Verdict] = Deferred()

        def decide() -> None:
            verdict = self._counters.reserve_now(claims)
            if not answer.called:
                answer.callback(verdict)
            elif verdict.ticket is not None:
                self.settle(verdict.ticket, [0] * len(claims))

        self._clock.callLater(self._seconds, decide)
        return fail(LimitsUnavailable()) if self.broken else answer

    def settle(self, ticket: Any, amounts: Any, *, measured: bool = True) -> None:
        self._counters.settle(ticket, amounts, measured=measured)

    def used(self, claims: Any) -> Any:
        return self._counters.used(claims)


class LimitsElsewhere(WaysCase):
    """Limits that are counted in Redis, or by the supervisor of several workers: a request waits for the verdict."""

    limits_take = 0.01

    def _start(self, *args: Any, **settings: Any) -> None:
        super()._start(*args, **settings)
        limiter = self.proxy._parts.quota
        limiter._counters = self.counters = SlowCounters(limiter._counters, self.network, self.limits_take)
        limiter._local = None

    def test_they_are_waited_for_without_objects(self) -> None:
        """As long as they admit the request; what a client waited is told."""
        step = (BODIES[0], FIELDS[1], True, "whole", "one read")
        self.assertEqual(self.play(False, "roomy", [step] * 6), self.play(True, "roomy", [step] * 6))
        self.assertEqual(self.short, 4)
        self.assertEqual([record.queue_time for record in self.events.records], [0.01] * 6)

    def test_they_refuse(self) -> None:
        """The fifth of six requests a minute, and all after it; then the minute is over."""
        step = (BODIES[0], FIELDS[1], True, "whole", "one read")
        self.assertEqual(self.play(True, "limited", [step] * 9), self.play(False, "limited", [step] * 9))
        refused = [record.error for record in self.events.records]
        self.assertEqual(refused, [""] * 6 + ["rate_limit_exceeded"] * 3)

    def test_a_client_that_leaves_meanwhile(self) -> None:
        """What is reserved for it all the same is given back, and nobody is asked."""
        step = (BODIES[0], FIELDS[1], True, "whole", "one read")
        leaves = (*step[:4], "leaves early")
        steps = [step] * 4 + [leaves] * 12 + [step]
        self.assertEqual(self.play(True, "limited", steps), self.play(False, "limited", steps))
        outcomes = [record.outcome for record in self.events.records]
        self.assertEqual(outcomes, ["complete"] * 4 + ["cancelled"] * 12 + ["complete"])

    def test_clients_that_leave_meanwhile_take_their_bodies_along(self) -> None:
        step = (BODIES[4], FIELDS[1], True, "whole", "one read")
        self.play(True, "roomy", [step] * 4 + [(*step[:4], "leaves early")] * 3 + [step])
        self.assertEqual([record.outcome for record in self.events.records][4:], ["cancelled"] * 3 + ["complete"])

    def test_they_cannot_be_counted(self) -> None:
        """Then the request is refused, as on the long way."""
        got = []
        for fast in (True, False):
            step = (BODIES[0], FIELDS[1], True, "whole", "one read")
            self.play_on(fast, "roomy", [step] * 4)
            self.counters.broken = True
            client = self.client()
            client.send(request(*FIELDS[1], body=BODIES[0]))
            self.network.pass_time(1.0)
            got.append((_RANDOM_ID.sub(b"ID", client.take()), self.events.records[-1].error))
            super().tearDown()
        self.assertEqual(got[0], got[1])
        self.assertEqual(got[0][1], "limits_unavailable")

    def test_a_token_that_is_changed_meanwhile(self) -> None:
        """The request is let through, or not, by what holds when it is sent."""
        step = (BODIES[0], FIELDS[1], True, "whole", "one read")
        self.play_on(True, "roomy", [step] * 4)
        client = self.client()
        client.send(request(*FIELDS[1], body=BODIES[0]))
        self.provider.last.take()
        self.tokens.grants.clear()
        self.caching.forget_project("")
        self.network.pass_time(1.0)
        self.assertEqual(self.provider.last.take(), b"")
        self.assertIn(b"401 ", client.take())
        super().tearDown()

    @examples(60)
    @given(
        st.sampled_from(sorted(GRANTS)),
        st.lists(STEP, min_size=1, max_size=6),
        st.sampled_from(BODIES[:2]),
        st.sampled_from(APIS),
    )
    def test_both_ways_are_one(self, grant: str, steps: list[Any], body: bytes, api: dict[str, Any]) -> None:
        """Whatever clients send and providers answer."""
        self.api = api
        usual = [(body, lines, False, "whole", "one read") for lines in FIELDS[:3] for _ in range(2)]
        early = [(*step[:4], "leaves early") for step in steps[:1]]
        played = usual + early + steps
        for number, (ours, theirs) in enumerate(
            zip(self.play(True, grant, played), self.play(False, grant, played), strict=True)
        ):
            self.assertEqual(ours, theirs, number)
