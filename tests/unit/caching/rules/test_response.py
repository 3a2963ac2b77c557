"""What becomes of a response, decided from values alone."""

from __future__ import annotations

from dataclasses import replace
from unittest import TestCase

from llmproxy.caching.rules import reuse
from llmproxy.caching.rules.entry import Entry
from llmproxy.caching.rules.request import ApiCachePolicy, CacheRequest
from llmproxy.caching.rules.response import (
    Decision,
    PassThrough,
    Refreshed,
    ServeStale,
    StoreResponse,
    on_failure,
    on_response,
)
from llmproxy.caching.rules.storing import ReceivedHead
from llmproxy.http.field_lines import FieldLines

NOW = 2000.0
POLICY = ApiCachePolicy("a", max_object_bytes=1000)
FRESH, CHUNKED, STREAM = b"Cache-Control: max-age=60", b"Transfer-Encoding: chunked", b"Content-Type: text/event-stream"
# Stale for 40 seconds; may be validated.
STORED = Entry(200, b"OK", b"A: 1", b"body", generated_at=1900.0, lifetime=60.0, etag=b'"x"')
LENIENT = replace(STORED, stale_if_error=100.0)
BARE = replace(LENIENT, etag=b"")


def request(
    *lines: bytes, method: bytes = b"GET", policy: ApiCachePolicy = POLICY, ttl: float | None = None
) -> CacheRequest:
    return CacheRequest(policy, ("p",), "k", method, FieldLines.of(lines), reuse.request_directives(lines), ttl)


def head(code: int, *lines: bytes, length: int | None = 10) -> ReceivedHead:
    return ReceivedHead(code, b"OK", list(lines), NOW, NOW, length=length)


def word(decision: Decision) -> str:
    """The decision in one word, for a table: of one that passes the response through, why."""
    match decision:
        case PassThrough(reason, invalidates):
            return f"{reason}, invalidates" if invalidates else reason
        case Refreshed(_, store):
            return "Refreshed" if store else "Refreshed, forgotten"
        case _:
            return type(decision).__name__


GET, HEAD, NO_CACHE = request(), request(method=b"HEAD"), request(b"Cache-Control: no-cache")
OPTED_IN = request(b"Cache-Control: public, max-age=60", method=b"POST", ttl=60.0)
NO_STREAMS = request(method=b"POST", policy=replace(POLICY, streams=False), ttl=60.0)

TABLE: list[tuple[CacheRequest, Entry | None, ReceivedHead, str]] = [
    # Nothing is stored.
    (GET, None, head(200, FRESH), "StoreResponse"),
    (GET, None, head(404, FRESH), "StoreResponse"),
    (GET, None, head(200), "no-freshness"),
    (GET, None, head(200, b"Cache-Control: no-store"), "no-store"),
    (GET, None, head(200, b"Cache-Control: private, max-age=60"), "private"),
    (GET, None, head(206, FRESH), "status"),
    (GET, None, head(304, FRESH), "status"),
    (GET, None, head(200, FRESH, b"Vary: *"), "vary"),
    (HEAD, None, head(200, FRESH), "head"),
    (OPTED_IN, None, head(200), "StoreResponse"),
    (OPTED_IN, None, head(500), "no-freshness"),
    # Whether its end can be seen, and how long it is.
    (GET, None, head(200, FRESH, length=1000), "StoreResponse"),
    (GET, None, head(200, FRESH, length=1001), "too-large"),
    (GET, None, head(200, FRESH, length=None), "no-visible-end"),
    (GET, None, head(200, FRESH, CHUNKED, length=None), "StoreResponse"),
    # Streams, and errors in a coding.
    (OPTED_IN, None, head(200, STREAM, CHUNKED, length=None), "StoreResponse"),
    (NO_STREAMS, None, head(200, STREAM, CHUNKED, length=None), "stream"),
    (GET, None, head(404, FRESH, b"Content-Encoding: gzip"), "coded-error"),
    (GET, None, head(200, FRESH, b"Content-Encoding: gzip"), "StoreResponse"),
    (GET, None, head(200, FRESH, b"Content-Encoding: identity"), "StoreResponse"),
    (GET, None, head(200, FRESH, b"Content-Encoding: compress"), "unknown-coding"),
    (GET, None, head(200, FRESH, b"Content-Encoding: gzip, gzip"), "unknown-coding"),
    # What is stored has been validated, or not.
    (GET, STORED, head(304, FRESH), "Refreshed"),
    (GET, STORED, head(304, b"Cache-Control: no-store"), "Refreshed, forgotten"),
    (GET, BARE, head(304, FRESH), "status, invalidates"),
    (GET, STORED, head(200, FRESH), "StoreResponse"),
    (GET, STORED, head(200), "no-freshness, invalidates"),
    (GET, STORED, head(404), "no-freshness, invalidates"),
    (GET, STORED, head(410), "no-freshness, invalidates"),
    (GET, STORED, head(400), "no-freshness"),
    (HEAD, STORED, head(200, FRESH), "head, invalidates"),
    # The provider fails.
    (GET, STORED, head(503), "no-freshness"),
    (GET, LENIENT, head(500), "ServeStale"),
    (GET, LENIENT, head(504), "ServeStale"),
    (GET, LENIENT, head(501), "no-freshness"),
    (GET, LENIENT, head(429), "no-freshness"),
    (NO_CACHE, LENIENT, head(503), "no-freshness"),
    (GET, replace(LENIENT, stale_if_error=39.0), head(503), "no-freshness"),
    (GET, replace(LENIENT, must_revalidate=True), head(503), "no-freshness"),
    (request(b"Cache-Control: stale-if-error=60"), STORED, head(503), "ServeStale"),
]


class OnResponse(TestCase):
    def test_every_decision(self) -> None:
        """One row for each."""
        for number, (asked, stored, received, expected) in enumerate(TABLE):
            with self.subTest(row=number, code=received.code, lines=received.lines):
                self.assertEqual(word(on_response(asked, stored, received, NOW)), expected)

    def test_what_is_stored(self) -> None:
        """The head without the body, fresh from now on."""
        decision = on_response(GET, None, head(200, FRESH, b"A: b"), NOW)
        assert isinstance(decision, StoreResponse)
        came = b"Date: Thu, 01 Jan 1970 00:33:20 GMT"
        self.assertEqual((decision.entry.lines, decision.entry.body), ([FRESH, b"A: b", came], b""))
        self.assertEqual((decision.entry.generated_at, decision.entry.lifetime), (NOW, 60.0))

    def test_what_a_304_makes_of_it(self) -> None:
        """The body that was stored, with the fields that came now; or the old entry once more."""
        decision = on_response(GET, STORED, head(304, FRESH), NOW)
        assert isinstance(decision, Refreshed)
        self.assertEqual((decision.entry.body, decision.entry.generated_at), (b"body", NOW))
        self.assertIn(FRESH, decision.entry.lines)
        forbidden = on_response(GET, STORED, head(304, b"Cache-Control: no-store"), NOW)
        self.assertEqual(forbidden, Refreshed(STORED, store=False))


class OnFailure(TestCase):
    def test_every_decision(self) -> None:
        """Only what may be served stale, and only to who takes it."""
        for asked, stored, expected in (
            (GET, None, None),
            (GET, STORED, None),
            (GET, LENIENT, ServeStale(LENIENT)),
            (GET, BARE, ServeStale(BARE)),
            (NO_CACHE, LENIENT, None),
            (GET, replace(LENIENT, no_cache=True), None),
        ):
            self.assertEqual(on_failure(asked, stored, NOW), expected)
