"""Which requests may use the cache, and for how long they let their responses be stored."""

from __future__ import annotations

from unittest import TestCase

from llmproxy.caching.rules.directives import NOTHING
from llmproxy.caching.rules.request import ApiCachePolicy, CacheRequest, cacheable
from llmproxy.http.field_lines import FieldLines

OPTIN, ALWAYS, NEVER = (ApiCachePolicy("a", post=post, ttl=30.0) for post in ("optin", "always", "never"))
PUBLIC = b"Cache-Control: public, max-age=60"

# policy, method, field lines; whether it may use the cache, and its explicit ttl
TABLE: list[tuple[ApiCachePolicy, bytes, list[bytes], bool, float | None]] = [
    (OPTIN, b"GET", [], True, None),
    (OPTIN, b"HEAD", [b"Accept: a/b"], True, None),
    (OPTIN, b"GET", [b"Cache-Control: no-cache"], True, None),
    (OPTIN, b"GET", [b"Cache-Control: no-store"], False, None),
    (OPTIN, b"GET", [b"Content-Length: 2"], False, None),
    (OPTIN, b"GET", [b"Transfer-Encoding: chunked"], False, None),
    (OPTIN, b"GET", [b"Range: bytes=0-1"], False, None),
    (OPTIN, b"GET", [b"If-Match: *"], False, None),
    (OPTIN, b"GET", [b'If-None-Match: "a"'], True, None),
    (OPTIN, b"POST", [], False, None),
    (OPTIN, b"POST", [PUBLIC], True, 60.0),
    (OPTIN, b"POST", [b"Cache-Control: s-maxage=5"], True, 5.0),
    (OPTIN, b"POST", [b"Cache-Control: max-age=60"], False, None),
    (OPTIN, b"POST", [PUBLIC, b"Cache-Control: no-cache"], True, 60.0),
    (OPTIN, b"POST", [PUBLIC, b"Cache-Control: no-store"], False, None),
    (OPTIN, b"POST", [b"Cache-Control: no-cache"], False, None),
    (OPTIN, b"POST", [PUBLIC, b"Range: bytes=0-1"], False, None),
    (ALWAYS, b"POST", [], True, 30.0),
    (ALWAYS, b"POST", [PUBLIC], True, 60.0),
    (ALWAYS, b"POST", [b"Cache-Control: no-store"], False, None),
    (NEVER, b"POST", [PUBLIC], False, None),
    (NEVER, b"GET", [], True, None),
    (ALWAYS, b"PUT", [PUBLIC], False, None),
    (ALWAYS, b"DELETE", [], False, None),
]


class Cacheable(TestCase):
    def test_every_kind_of_request(self) -> None:
        """One row for each reason."""
        for policy, method, lines, usable, ttl in TABLE:
            with self.subTest(policy=policy.post, method=method, lines=lines):
                decision = cacheable(policy, method, FieldLines.of(lines))
                self.assertEqual(decision is not None, usable)
                if decision is not None:
                    self.assertEqual(decision[1], ttl)

    def test_always_without_a_ttl(self) -> None:
        """Nothing says how long a response would be fresh."""
        self.assertIsNone(cacheable(ApiCachePolicy("a", post="always"), b"POST", FieldLines.of([])))


class Requests(TestCase):
    def request(self, method: bytes, *lines: bytes) -> CacheRequest:
        decision = cacheable(ALWAYS, method, FieldLines.of(lines))
        directives, ttl = decision or (NOTHING, None)
        return CacheRequest(ALWAYS, (), "k", method, FieldLines.of(lines), directives, ttl)

    def test_what_a_key_depends_on(self) -> None:
        """Of a C{GET} the body is nothing."""
        self.assertEqual([self.request(method).needs_body for method in (b"POST", b"GET")], [True, False])

    def test_who_may_join(self) -> None:
        """Not who wants it from the provider, and not one that gets no body."""
        self.assertTrue(self.request(b"GET").may_join)
        self.assertFalse(self.request(b"HEAD").may_join)
        self.assertFalse(self.request(b"GET", b"Cache-Control: no-cache").may_join)

    def test_only_if_cached(self) -> None:
        """The provider is not called."""
        self.assertTrue(self.request(b"GET", b"Cache-Control: only-if-cached").only_if_cached)
        self.assertFalse(self.request(b"GET").only_if_cached)
