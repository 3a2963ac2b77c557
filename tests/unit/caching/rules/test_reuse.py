"""When an entry is given, when the provider is asked first, and what its 304 changes."""

from __future__ import annotations

from dataclasses import replace
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.caching.rules import reuse
from llmproxy.caching.rules.entry import Entry
from llmproxy.caching.rules.storing import NotStored, ReceivedHead, StoringRules

ENTRY = Entry(200, b"OK", b"A: 1\r\nContent-Type: a/b", b"body", generated_at=1000.0, lifetime=60.0, etag=b'"x"')


def said(*values: bytes, name: bytes = b"Cache-Control") -> reuse.Directives:
    return reuse.request_directives([name + b": " + value for value in values])


class Verdicts(TestCase):
    def verdict(self, entry: Entry, at: float, *asked: bytes) -> str:
        return reuse.verdict(entry, said(*asked) if asked else reuse.request_directives([b"A: b"]), at)

    def test_fresh_until_its_lifetime_is_over(self) -> None:
        """One second later the provider is asked."""
        self.assertEqual([self.verdict(ENTRY, at) for at in (0, 59.9, 60)], ["fresh", "fresh", "validate"])

    def test_the_client_wants_it_from_the_provider(self) -> None:
        """A reload is a reload."""
        self.assertEqual(self.verdict(ENTRY, 1, b"no-cache"), "validate")
        self.assertEqual(reuse.verdict(ENTRY, said(b"no-cache", name=b"Pragma"), 1.0), "validate")
        both = reuse.request_directives([b"Pragma: no-cache", b"Cache-Control: foo"])
        self.assertEqual(reuse.verdict(ENTRY, both, 1.0), "fresh")

    def test_the_client_wants_it_young(self) -> None:
        """C{max-age} and C{min-fresh} of the request."""
        self.assertEqual(self.verdict(ENTRY, 10, b"max-age=10"), "fresh")
        self.assertEqual(self.verdict(ENTRY, 11, b"max-age=10"), "validate")
        self.assertEqual(self.verdict(ENTRY, 11, b"max-age=nonsense"), "validate")
        self.assertEqual(self.verdict(ENTRY, 10, b"min-fresh=50"), "fresh")
        self.assertEqual(self.verdict(ENTRY, 11, b"min-fresh=50"), "validate")

    def test_the_client_takes_it_stale(self) -> None:
        """C{max-stale}, unless the provider forbids that."""
        self.assertEqual(self.verdict(ENTRY, 70, b"max-stale=10"), "stale")
        self.assertEqual(self.verdict(ENTRY, 71, b"max-stale=10"), "validate")
        self.assertEqual(self.verdict(ENTRY, 7100, b"max-stale"), "stale")
        self.assertEqual(self.verdict(ENTRY, 70, b"max-stale=x"), "validate")
        self.assertEqual(self.verdict(replace(ENTRY, must_revalidate=True), 70, b"max-stale"), "validate")

    def test_stale_while_revalidate(self) -> None:
        """The client need not wait."""
        entry = replace(ENTRY, stale_while_revalidate=10.0)
        self.assertEqual([self.verdict(entry, at) for at in (60, 69, 70)], ["refresh", "refresh", "validate"])
        self.assertEqual(self.verdict(replace(entry, must_revalidate=True), 61), "validate")

    def test_no_cache_of_the_provider(self) -> None:
        """It is asked every time."""
        self.assertEqual(self.verdict(replace(ENTRY, no_cache=True), 1, b"max-stale"), "validate")

    @given(
        st.floats(0, 100),
        st.booleans(),
        st.sampled_from(["", "max-age=10", "max-age=0", "min-fresh=5", "no-cache", "max-stale, max-age=70"]),
        st.none() | st.floats(0, 100),
        st.floats(0, 120) | st.sampled_from([0.0, 10.0]),
    )
    def test_below_which_age_it_is_fresh_for_certain(
        self, lifetime: float, no_cache: bool, asked: str, ttl: float | None, age: float
    ) -> None:
        entry = replace(ENTRY, lifetime=lifetime, no_cache=no_cache, stale_while_revalidate=30.0)
        directives = said(asked.encode()) if asked else reuse.request_directives([b"A: b"])
        below = reuse.fresh_below(entry, directives, ttl)
        if age < below:
            self.assertEqual(reuse.verdict(entry, directives, age), "fresh")
            self.assertTrue(ttl is None or age <= ttl)

    def test_so_are_most(self) -> None:
        """Else nothing would be gained by knowing it."""
        none = reuse.request_directives([b"A: b"])
        self.assertEqual(reuse.fresh_below(ENTRY, none, None), 60.0)
        self.assertEqual(reuse.fresh_below(ENTRY, said(b"max-age=10"), 20.0), 10.0)
        self.assertEqual(reuse.fresh_below(ENTRY, none, 20.0), 20.0)

    def test_stale_if_error(self) -> None:
        """An old answer is better than none, where somebody has said so."""
        entry = replace(ENTRY, stale_if_error=10.0)
        self.assertTrue(reuse.may_serve_stale(entry, said(b"x"), 1069.0))
        self.assertFalse(reuse.may_serve_stale(entry, said(b"x"), 1071.0))
        self.assertFalse(reuse.may_serve_stale(ENTRY, said(b"x"), 1061.0))
        self.assertTrue(reuse.may_serve_stale(ENTRY, said(b"stale-if-error=5"), 1061.0))
        self.assertFalse(reuse.may_serve_stale(entry, said(b"no-cache"), 1061.0))
        self.assertFalse(reuse.may_serve_stale(replace(entry, must_revalidate=True), said(b"x"), 1061.0))

    def test_how_long_it_is_of_use(self) -> None:
        """As long as it is fresh, and then as long as it can be revalidated or given stale."""
        self.assertEqual(reuse.retention(ENTRY, 1010.0), 50 + reuse.VALIDATABLE_RETENTION_SECONDS)
        bare = replace(ENTRY, etag=b"")
        self.assertEqual(reuse.retention(bare, 1010.0), 50 + reuse.STALE_RETENTION_SECONDS)
        self.assertEqual(reuse.retention(replace(bare, stale_if_error=1e5), 1100.0), 1e5)

    def test_opting_in(self) -> None:
        """C{public, max-age} or C{s-maxage}, and nothing less."""
        for value, seconds in (
            (b"public, max-age=60", 60.0), (b"s-maxage=60", 60.0), (b"max-age=60", None), (b"public", None),
            (b"public, max-age=0", None), (b"public, max-age=x", None), (b"public, max-age=60, no-store", None),
        ):  # fmt: skip
            self.assertEqual(reuse.explicit_ttl(said(value)), seconds, value)


class Freshening(TestCase):
    def freshened(self, *lines: bytes) -> Entry | NotStored:
        return reuse.freshened(
            ENTRY, ReceivedHead(304, b"Not Modified", lines, 1100.0, 1100.0), StoringRules(), said(b"x")
        )

    def test_fields_of_the_304_replace_those_kept(self) -> None:
        """The answer is young again, and says what the provider says now."""
        found = self.freshened(b"Cache-Control: max-age=5", b"A: 2", b"A: 3", b'ETag: "x"')
        assert isinstance(found, Entry)
        came = b"Date: Thu, 01 Jan 1970 00:18:20 GMT"
        self.assertEqual(found.lines, [b"Content-Type: a/b", b"Cache-Control: max-age=5", b"A: 2", b"A: 3", came])
        self.assertEqual(
            (found.code, found.phrase, found.body, found.generated_at, found.lifetime), (200, b"OK", b"body", 1100.0, 5)
        )

    def test_fields_of_the_body_stay(self) -> None:
        """The body is the one that was kept, so they are too."""
        old = replace(ENTRY, head=b'Content-Encoding: gzip\r\nContent-MD5: a\r\nETag: "x"')
        received = ReceivedHead(
            304,
            b"",
            [b"Content-Encoding: br", b"Content-Length: 9", b'ETag: "y"', b"Cache-Control: max-age=9"],
            1.0,
            1.0,
        )
        found = reuse.freshened(old, received, StoringRules(), said(b"x"))
        assert isinstance(found, Entry)
        self.assertEqual(found.lines, [*old.lines, b"Cache-Control: max-age=9", b"Date: Thu, 01 Jan 1970 00:00:01 GMT"])

    def test_a_304_without_a_date(self) -> None:
        """It was made when it came, and with it the entry is true again, however old that is."""
        old = replace(ENTRY, head=b"Date: Thu, 01 Jan 1970 00:10:00 GMT\r\nCache-Control: max-age=60")
        for date, age in ((), 0.0), ((b"Date: Thu, 01 Jan 1970 00:18:00 GMT",), 20.0):
            received = ReceivedHead(304, b"", [*date], 1100.0, 1100.0)
            found = reuse.freshened(old, received, StoringRules(), said(b"x"))
            assert isinstance(found, Entry)
            self.assertEqual(found.age(1100.0), age)
            self.assertEqual(
                [line for line in found.lines if line.startswith(b"Date")],
                list(date) or [b"Date: Thu, 01 Jan 1970 00:18:20 GMT"],
            )

    def test_the_304_may_forbid_keeping_it(self) -> None:
        """C{no-store} counts from then on."""
        self.assertIsInstance(self.freshened(b"Cache-Control: no-store"), NotStored)
