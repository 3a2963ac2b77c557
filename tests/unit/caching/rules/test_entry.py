"""Entries on their way to a store and back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.caching.rules.entry import FORMAT, Entry, Variants, decode, encode

seconds = st.floats(0, 1e10)
values = st.text(st.characters(max_codepoint=255, blacklist_categories=["Cc"]) | st.just("\t"), max_size=9).map(
    lambda text: text.encode("latin-1")
)
names = st.lists(values.filter(bool), max_size=3).map(tuple)
lines = st.builds(lambda name, value: b"%b:%b" % (name, value), st.sampled_from([b"A", b"x-b", b"Vary"]), values)
heads = st.lists(lines, max_size=4).map(b"\r\n".join)
timings = st.lists(st.tuples(st.integers(0, 9), seconds), max_size=3).map(tuple)
entries = st.builds(
    Entry,
    code=st.integers(200, 599).filter(lambda code: code not in (204, 206, 304)), phrase=values, head=heads,
    body=st.binary(max_size=99).map(lambda body: body + bytes(27)),
    generated_at=seconds, lifetime=seconds, no_cache=st.booleans(), must_revalidate=st.booleans(),
    stale_while_revalidate=seconds, stale_if_error=seconds, etag=values, last_modified=values,
    vary=names, stream=st.booleans(), chunk_timings=timings,
)  # fmt: skip
generations = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=20)
ENTRY = Entry(200, b"OK", b"A: b", b"body", 1.0, 2.0, chunk_timings=((4, 0.5),))
# Of an entry as it stands in a store, and what may stand there instead: what is none, and what is near that.
members = st.sampled_from(sorted(json.loads(encode(ENTRY).split(b"\n")[1])))
broken = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.just(10**400),
    st.sampled_from(["OK\r\nEvil: 1", "junk\r\nA: b", "A: b\r\n", "A: b\nC: d", " A: b", ": b", "A:\0", "TE: 1"]),
    st.lists(st.one_of(st.integers(), st.floats(), st.text(max_size=3), st.lists(st.floats(), max_size=3)), max_size=3),
)  # fmt: skip


class Formats(TestCase):
    @given(entries)
    def test_an_entry_comes_back_as_it_was(self, entry: Entry) -> None:
        """What another process kept is served byte for byte."""
        self.assertEqual(decode(encode(entry)), entry)

    @given(names, generations)
    def test_so_do_variants(self, vary_names: tuple[bytes, ...], generation: str) -> None:
        """Likewise which fields choose among several answers."""
        self.assertEqual(decode(encode(Variants(vary_names, generation))), Variants(vary_names, generation))

    @given(entries, st.data())
    def test_what_is_cut_short_is_nothing(self, entry: Entry, data: st.DataObject) -> None:
        """Half an entry is a miss, never half an answer."""
        whole = encode(entry)
        self.assertIsNone(decode(whole[: data.draw(st.integers(0, len(whole) - 1))]))

    @given(st.binary(max_size=200))
    def test_garbage_is_nothing(self, garbage: bytes) -> None:
        """A store full of anything else is as good as an empty one."""
        for value in (garbage, FORMAT + garbage, FORMAT + b'{"generation":1,"vary":[' + garbage):
            decode(value)
        self.assertIsNone(decode(FORMAT + b"[" * 100_000 + b"\n"))
        self.assertIsNone(decode(FORMAT + b'{"generation":"x","vary":3}\n'))

    @given(entries, st.dictionaries(members, broken, min_size=1))
    def test_what_is_nearly_an_entry(self, entry: Entry, changes: dict[str, Any]) -> None:
        """It is a miss, or one that can be served: a line of a head is a field, and times are numbers."""
        start, told, body = encode(entry).split(b"\n", 2)
        found = decode(b"\n".join([start, json.dumps({**json.loads(told), **changes}).encode(), body]))
        if isinstance(found, Entry):
            self.assertEqual(decode(encode(found)), found)
            for line in found.lines:
                self.assertRegex(line, rb"^[A-Za-z-]+:[^\0\r\n]*$")
            for text in (found.phrase, found.etag, found.last_modified, *found.vary):
                self.assertNotRegex(text, rb"[\0\r\n]")
            self.assertLess(abs(found.age(0.0)) + found.lifetime + found.stale_if_error, 4e12)

    def test_what_no_response_can_be(self) -> None:
        """Each of these is a miss."""
        whole = encode(ENTRY)
        self.assertEqual(decode(whole), ENTRY)
        for old, new in (
            (b'"lifetime":2.0', b'"lifetime":Infinity'), (b'"lifetime":2.0', b'"lifetime":-1'),
            (b'"lifetime":2.0', b'"lifetime":true'), (b'"lifetime":2.0', b'"lifetime":1' + b"0" * 400),
            (b'"born":1.0', b'"born":NaN'), (b'"phrase":"OK"', b'"phrase":"OK\\r\\nEvil: 1"'),
            (b'"head":"', b'"head":"junk\\r\\n'), (b'"head":"', b'"head":"\\r\\n'),
            (b'"head":"', b'"head":" B: c\\r\\n'),
            (b'"head":"', b'"head":"B: \\u0000\\r\\n'), (b'"head":"', b'"head":"B: \\u2028\\r\\n'),
            (b'"head":"', b'"head":"content-Length: 9\\r\\n'),
            (b'"head":"', b'"head":"Transfer-Encoding: chunked\\r\\n'),
            (b'"etag":"', b'"etag":"\\n'), (b'"modified":"', b'"modified":"\\r'), (b'"vary":[', b'"vary":["\\n"'),
            (b'"code":200', b'"code":204'), (b'"code":200', b'"code":206'), (b'"code":200', b'"code":304'),
            (b'"code":200', b'"code":true'), (b"[4,0.5]", b"[-1,0.5]"), (b"[4,0.5]", b"[5,0.5]"),
            (b"[4,0.5]", b"[4,NaN]"),
            (b"[4,0.5]", b"[4.0,1]"), (b"[4,0.5]", b"[4]"), (b"[4,0.5]", b"4"),
        ):  # fmt: skip
            self.assertIn(old, whole)
            self.assertIsNone(decode(whole.replace(old, new)), new)
        for generation in (b'""', b"1.5", b"null", b'"a b"', b'"\\u00e9"'):
            self.assertIsNone(decode(FORMAT + b'{"vary":[],"generation":%b}\n' % generation))

    def test_another_format_is_nothing(self) -> None:
        """A newer version does not trip over what an older one has left behind, nor the other way round."""
        entry = Entry(200, b"OK", b"A: b", b"body", 1.0, 2.0)
        self.assertIsNone(decode(encode(entry).replace(b"cache-1", b"cache-2", 1)))

    def test_age(self) -> None:
        """It grows with the clock and is never negative."""
        entry = Entry(200, b"OK", b"", b"", 100.0, 2.0)
        self.assertEqual((entry.age(103.5), entry.age(99.0)), (3.5, 0.0))
        self.assertEqual(entry.lines, [])
        self.assertEqual(replace(entry, head=b"A: b\r\nC: d").lines, [b"A: b", b"C: d"])
