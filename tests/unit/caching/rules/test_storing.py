"""Which answers are kept, what of them, and for how long they are fresh."""

from __future__ import annotations

from email.utils import formatdate
from typing import Any
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.caching.rules import directives
from llmproxy.caching.rules.entry import Entry
from llmproxy.caching.rules.storing import NotStored, ReceivedHead, Scope, StoringRules, storable, stored_lines

NOW = 1_790_000_000.0
NAMES = st.sampled_from([b"Cache-Control", b"Age", b"Date", b"Expires", b"Vary", b"ETag"])
VALUES = st.sampled_from([b"max-age=5", b"no-store", b"private", b"s-maxage=9", b"*", b"0"])


def date(seconds: float) -> bytes:
    return formatdate(NOW + seconds, usegmt=True).encode()


def kept(
    *lines: bytes,
    code: int = 200,
    rules: StoringRules | None = None,
    asked: bytes = b"",
    granted: float | None = None,
    **at: Any,
) -> Entry | NotStored:
    received = ReceivedHead(code, b"OK", lines, at.get("request_time", NOW), at.get("response_time", NOW))
    return storable(received, rules or StoringRules(), directives.parse([asked]), granted)


class Storing(TestCase):
    def fresh_for(self, *lines: bytes, **more: Any) -> float:
        found = kept(*lines, **more)
        assert isinstance(found, Entry), found
        return found.lifetime - found.age(NOW)

    def refused(self, why: str, *lines: bytes, **more: Any) -> None:
        found = kept(*lines, **more)
        self.assertIsInstance(found, NotStored)
        self.assertEqual(found, why)

    # For how long

    def test_what_says_nothing_is_not_kept(self) -> None:
        """Nothing is guessed unless the operator says so."""
        self.refused("no-freshness", b"Content-Type: text/plain")

    def test_the_first_of_s_maxage_max_age_and_expires_counts(self) -> None:
        """As RFC 9111, section 4.2.1 has it."""
        expires = b"Expires: " + date(30)
        self.assertEqual(self.fresh_for(b"Cache-Control: s-maxage=10, max-age=20", expires), 10)
        self.assertEqual(self.fresh_for(b"Cache-Control: max-age=20", expires), 20)
        self.assertEqual(self.fresh_for(expires), 30)

    def test_expires_counts_from_date(self) -> None:
        """A provider whose clock is wrong is still right about how long."""
        self.assertEqual(self.fresh_for(b"Date: " + date(3600), b"Expires: " + date(3610)), 10)
        self.assertEqual(self.fresh_for(b"Date: nonsense", b"Expires: " + date(10)), 10)

    def test_expires_that_is_no_date_is_past(self) -> None:
        """So are two of them."""
        self.refused("stale-at-once", b"Expires: 0")
        self.refused("stale-at-once", b"Expires: " + date(9), b"Expires: " + date(9))
        self.refused("stale-at-once", b"Expires: " + date(-9), b"Date: " + date(0))

    def test_age_is_taken_off(self) -> None:
        """What was old when it came is fresh for less."""
        self.assertEqual(self.fresh_for(b"Cache-Control: max-age=60", b"Age: 50"), 10)
        self.assertEqual(self.fresh_for(b"Cache-Control: max-age=60", b"Date: " + date(-20)), 40)
        self.assertEqual(self.fresh_for(b"Cache-Control: max-age=60", request_time=NOW - 5, response_time=NOW), 55)
        delayed = self.fresh_for(b"Cache-Control: max-age=60", b"Age: 10", request_time=NOW - 5, response_time=NOW)
        self.assertEqual(delayed, 45)

    def test_an_age_that_is_not_one_number_is_too_old(self) -> None:
        """Nobody can tell how old it is."""
        for age in (b"abc", b"-7200", b"7200.0", b"7200,0", b"0, 0", b"7200;a=b"):
            self.refused("stale-at-once", b"Cache-Control: max-age=3600", b"Age: " + age)
        self.refused("stale-at-once", b"Cache-Control: max-age=3600", b"Age: 0", b"Age: 0")

    def test_default_ttl_where_guessing_is_allowed(self) -> None:
        """The operator's word counts for answers that HTTP lets a cache guess about, and for no others."""
        rules = StoringRules(default_ttl=7.0)
        self.assertEqual(self.fresh_for(b"A: b", rules=rules), 7.0)
        self.assertEqual(self.fresh_for(b"Cache-Control: max-age=60", rules=rules), 60)
        self.refused("no-freshness", code=403, rules=rules)
        self.assertEqual(self.fresh_for(b"Cache-Control: public", code=403, rules=rules), 7.0)

    def test_an_etag_alone_is_worth_keeping(self) -> None:
        """It spares the provider from sending the body again."""
        for validator in (b'ETag: "a"', b"Last-Modified: " + date(-60)):
            self.assertEqual(self.fresh_for(validator), 0)
        found = kept(b"Cache-Control: no-cache", b'ETag: "a"', code=418)
        assert isinstance(found, Entry)
        self.assertTrue(found.no_cache)

    # Whether

    def test_the_provider_forbids_it(self) -> None:
        """Its word counts whatever else is said."""
        self.refused("no-store", b"Cache-Control: max-age=60, no-store")
        self.refused("private", b"Cache-Control: max-age=60, private")
        self.refused("no-store", b"Cache-Control: no-store", granted=60.0)
        self.refused("private", b"Cache-Control: private", granted=60.0)
        self.refused("vary", b"Cache-Control: max-age=60", b"Vary: Foo, *")

    def test_the_client_forbids_it(self) -> None:
        """C{no-store} of the request."""
        self.refused("request-no-store", b"Cache-Control: max-age=60", asked=b"no-store")

    def test_must_understand(self) -> None:
        """A status that is understood is kept even with C{no-store}, one that is not is not kept even without."""
        self.assertEqual(self.fresh_for(b"Cache-Control: max-age=6, must-understand, no-store"), 6)
        self.refused("must-understand", b"Cache-Control: max-age=6, must-understand", code=599)
        self.assertEqual(self.fresh_for(b"Cache-Control: max-age=6", code=599), 6)

    def test_parts_and_304_are_not_kept(self) -> None:
        """They are not the answer."""
        for code in (206, 304):
            self.refused("status", b"Cache-Control: max-age=60", code=code)

    def test_private_answers_within_a_tokens_own_cache(self) -> None:
        """Nobody else can be given them."""
        self.assertEqual(self.fresh_for(b"Cache-Control: private, max-age=6", rules=StoringRules("token")), 6)
        for scope in ("project", "shared"):
            found = kept(b"Cache-Control: private, public, max-age=6", rules=StoringRules(scope))  # type: ignore[arg-type]
            self.assertEqual(found, "private")

    def test_what_everybody_may_be_given_must_say_so(self) -> None:
        """RFC 9111, section 3.5: each request has carried a credential."""
        shared = StoringRules("shared")
        self.refused("authorization", b"Cache-Control: max-age=60", rules=shared)
        for word in (b"public, max-age=60", b"must-revalidate, max-age=60", b"s-maxage=60"):
            self.assertEqual(self.fresh_for(b"Cache-Control: " + word, rules=shared), 60)
        self.refused("vary-on-credentials", b"Cache-Control: public, max-age=6", b"Vary: x-api-key", rules=shared)

    # What a request grants

    def test_a_granted_answer(self) -> None:
        """A C{POST} that opted in: for as long as it said, where the provider says nothing."""
        self.assertEqual(self.fresh_for(granted=60.0), 60)
        self.assertEqual(self.fresh_for(b"Cache-Control: max-age=5", granted=60.0), 5)
        self.assertEqual(self.fresh_for(granted=60.0, request_time=NOW - 30, response_time=NOW), 60)
        self.refused("no-freshness", code=404, granted=60.0)
        self.refused("stale-at-once", b"Cache-Control: no-cache", granted=60.0)

    def test_a_granted_answer_has_no_validators(self) -> None:
        """They are passed on, but no condition is made of them."""
        said = b'ETag: "a"', b"Last-Modified: Fri, 01 Sep 2023 00:00:00 GMT", b"Date: " + date(0)
        found, granted = kept(*said, b"Cache-Control: max-age=5"), kept(*said, granted=60.0)
        assert isinstance(found, Entry) and isinstance(granted, Entry)
        self.assertEqual((found.etag, found.last_modified), (b'"a"', b"Fri, 01 Sep 2023 00:00:00 GMT"))
        self.assertEqual((granted.etag, granted.last_modified, granted.lines), (b"", b"", list(said)))
        self.refused("stale-at-once", b"Cache-Control: max-age=0", *said, granted=60.0)

    def test_a_granted_stream(self) -> None:
        """C{no-cache} is what every provider says of every stream."""
        stream = b"Content-Type: text/event-stream; charset=utf-8"
        self.assertEqual(self.fresh_for(stream, b"Cache-Control: no-cache", granted=60.0), 60)
        self.refused("no-store", stream, b"Cache-Control: no-cache, no-store", granted=60.0)
        found = kept(stream, granted=60.0)
        assert isinstance(found, Entry)
        self.assertTrue(found.stream)

    # What of it

    def test_what_belongs_to_one_exchange_is_not_kept(self) -> None:
        """Nobody is given another's cookie, request id or rate limit."""
        mine = [
            b"Set-Cookie: a=b", b"x-request-id: r", b"request-id: r", b"X-RateLimit-Remaining-Tokens: 1",
            b"anthropic-ratelimit-requests-remaining: 1", b"Age: 1", b"openai-processing-ms: 1", b"CF-Ray: 1",
            b"Connection: x-hop", b"X-Hop: 1", b"Transfer-Encoding: chunked", b"Content-Length: 5", b"Keep-Alive: a",
            b"Proxy-Authenticate: x", b"Server-Timing: a", b"Retry-After: 1",
        ]  # fmt: skip
        theirs = [b"Content-Type: a/b", b'ETag: "x"', b"X-Other: 1", b"Date: now", b"X-Other: 2"]
        self.assertEqual(stored_lines([*mine, *theirs]), theirs)

    def test_when_it_came(self) -> None:
        """A date that it does not have is that of when it came; one that it has, be it odd, stays."""
        for at, told in (([], b"Date: " + date(0)), ([b"date: now"], b"date: now")):
            found = kept(b"Cache-Control: max-age=5", *at)
            assert isinstance(found, Entry)
            self.assertEqual(found.lines, [b"Cache-Control: max-age=5", told])
            self.assertEqual(found.age(NOW), 0.0)

    def test_cors_of_our_own(self) -> None:
        """Where the proxy answers for origins itself, it does so anew each time."""
        self.assertEqual(stored_lines([b"Access-Control-Allow-Origin: x"], own_cors=True), [])

    def test_stale_windows_and_validators(self) -> None:
        """Everything that reuse needs is read once."""
        found = kept(
            b"Cache-Control: max-age=1, stale-while-revalidate=2, stale-if-error=3, must-revalidate",
            b'ETag: W/"x"', b"Last-Modified: nonsense", b"Vary: B, a", b"Vary: a",
        )  # fmt: skip
        assert isinstance(found, Entry)
        self.assertEqual((found.stale_while_revalidate, found.stale_if_error, found.must_revalidate), (2.0, 3.0, True))
        self.assertEqual((found.etag, found.last_modified, found.vary), (b'W/"x"', b"", (b"a", b"b")))

    def test_an_encoded_answer_varies_on_accept_encoding(self) -> None:
        """A client that cannot read gzip is not given it, whether or not the provider remembered C{Vary}."""
        found = kept(b"Cache-Control: max-age=1", b"Content-Encoding: gzip")
        assert isinstance(found, Entry)
        self.assertEqual(found.vary, (b"accept-encoding",))

    @given(
        st.lists(st.tuples(NAMES, st.one_of(st.binary(max_size=20), VALUES)), max_size=6),
        st.sampled_from(["project", "token", "shared"]),
        st.integers(100, 599),
        st.one_of(st.none(), st.floats(1, 99)),
    )
    def test_whatever_a_provider_sends(
        self, head: list[tuple[bytes, bytes]], scope: Scope, code: int, granted: float | None
    ) -> None:
        """Nothing fails; what forbids keeping is never overruled; no age and no lifetime is negative."""
        lines = [name + b": " + value for name, value in head]
        found = kept(*lines, code=code, rules=StoringRules(scope), granted=granted)
        said = {value for name, value in head if name == b"Cache-Control"}
        if b"no-store" in said or (b"private" in said and scope != "token") or code in (206, 304):
            self.assertIsInstance(found, NotStored)
        if isinstance(found, Entry):
            self.assertGreaterEqual(found.lifetime, 0)
            self.assertLessEqual(found.generated_at, NOW)
