"""Entries on their way to a store and back."""

from __future__ import annotations

from dataclasses import replace
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.caching.rules.entry import FORMAT, Entry, Variants, decode, encode

seconds = st.floats(0, 1e10)
names = st.lists(st.binary(min_size=1, max_size=9), max_size=3).map(tuple)
entries = st.builds(
    Entry,
    code=st.integers(200, 599), phrase=st.binary(max_size=9), head=st.binary(max_size=99), body=st.binary(max_size=99),
    generated_at=seconds, lifetime=seconds, no_cache=st.booleans(), must_revalidate=st.booleans(),
    stale_while_revalidate=seconds, stale_if_error=seconds, etag=st.binary(max_size=9),
    last_modified=st.binary(max_size=9),
    vary=names, stream=st.booleans(),
    chunk_timings=st.lists(st.tuples(st.integers(0, 9), seconds), max_size=3).map(tuple),
)  # fmt: skip


class Formats(TestCase):
    @given(entries)
    def test_an_entry_comes_back_as_it_was(self, entry: Entry) -> None:
        """What another process kept is served byte for byte."""
        self.assertEqual(decode(encode(entry)), entry)

    @given(names, st.text(max_size=20))
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
