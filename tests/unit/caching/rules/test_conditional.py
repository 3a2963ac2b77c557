"""Conditional requests, answered from an entry and made for one."""

from __future__ import annotations

from dataclasses import replace
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.caching.rules import conditional
from llmproxy.caching.rules.entry import Entry

SINCE = b"Sun, 06 Nov 1994 08:49:37 GMT"
HEAD = b'Date: x\r\nETag: "abc"\r\nContent-Type: a/b\r\nCache-Control: max-age=1\r\nX: y'
ENTRY = Entry(200, b"OK", HEAD, b"", 0.0, 1.0, etag=b'"abc"', last_modified=SINCE)


def holds(*lines: bytes, entry: Entry = ENTRY) -> bool:
    return conditional.not_modified(entry, lines, 1.0)


class Conditions(TestCase):
    def test_a_tag_that_matches(self) -> None:
        """Alone, in a list, in two fields, weak or strong, or any at all."""
        for given_ in (
            [b'"abc"'], [b'W/"abc"'], [b'"x", "abc"'], [b'"x" ,W/"abc" ,"y"'], [b'"x"', b'"abc"'], [b"*"],
            [b', "abc",'],
            [b'"a,b", "abc"'],
        ):  # fmt: skip
            self.assertTrue(holds(*[b"If-None-Match: " + value for value in given_]), given_)
        self.assertTrue(holds(b'If-None-Match: "abc"', entry=replace(ENTRY, etag=b'W/"abc"')))

    def test_one_that_does_not(self) -> None:
        """Then the whole answer is given."""
        for value in (b'"ab"', b"abc", b'w/"abc"', b'"x" "abc"', b'"abc', b"", b'"ABC"', b'"x"; "abc"'):
            self.assertFalse(holds(b"If-None-Match: " + value), value)
        self.assertFalse(holds(b'If-None-Match: ""', entry=replace(ENTRY, etag=b"")))

    def test_dates(self) -> None:
        """Not modified since then, in any of HTTP's formats."""
        self.assertTrue(holds(b"If-Modified-Since: " + SINCE))
        self.assertTrue(holds(b"If-Modified-Since: Sunday, 06-Nov-94 08:49:38 GMT"))
        self.assertFalse(holds(b"If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT"))
        self.assertFalse(holds(b"If-Modified-Since: nonsense"))
        self.assertFalse(holds(b"If-Modified-Since: " + SINCE, entry=replace(ENTRY, last_modified=b"")))

    def test_tags_count_before_dates(self) -> None:
        """RFC 9110, section 13.2.2."""
        self.assertFalse(holds(b'If-None-Match: "other"', b"If-Modified-Since: " + SINCE))

    def test_only_a_200_can_be_had_already(self) -> None:
        """An error is told in full."""
        self.assertFalse(holds(b"If-None-Match: *", entry=replace(ENTRY, code=404)))

    def test_what_a_304_tells(self) -> None:
        """Nothing of the body that it does not have."""
        self.assertEqual(
            conditional.not_modified_lines(ENTRY), [b"Date: x", b'ETag: "abc"', b"Cache-Control: max-age=1"]
        )

    def test_asking_again(self) -> None:
        """With the entry's validators; the client's are about another answer."""
        lines = conditional.revalidation_lines(
            [b"A: b", b'If-None-Match: "q"', b"If-Modified-Since: z", b"C: d"], ENTRY
        )
        self.assertEqual(lines, [b"A: b", b"C: d", b'If-None-Match: "abc"', b"If-Modified-Since: " + SINCE])

    @given(st.lists(st.binary(max_size=40), max_size=3), st.binary(max_size=20))
    def test_any_bytes(self, values: list[bytes], etag: bytes) -> None:
        """Nothing fails, and what matches stands there."""
        if holds(*[b"If-None-Match: " + value for value in values], entry=replace(ENTRY, etag=etag)) and values:
            given_ = b", ".join(values)
            self.assertTrue(given_.strip(b" \t") == b"*" or etag.removeprefix(b"W/") in given_)
