"""Finding members at the top of a JSON text, however long it is and in whatever pieces it comes."""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.metering.json_scanner import MAX_BEHIND_BYTES, MAX_FEED_STEPS, MAX_VALUE_BYTES, JsonMemberScanner
from tests.support.examples import examples

WANTED = frozenset({b"usage", b"model"})
NAMES = st.sampled_from(["usage", "model", "content", 'us"age', "\\", "a" * 70, ""]) | st.text(max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(['"usage":1', "\\", '\\"', "{["]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=20,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=5)


def scanned(text: bytes, cuts: list[int]) -> JsonMemberScanner:
    scan = JsonMemberScanner(WANTED)
    for start, end in pairwise(sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})):
        scan.feed(text[start:end])
    while scan.behind:
        scan.feed(b"")
    return scan


class ScanTests(SynchronousTestCase):
    """What is found is what a JSON reader finds, and nothing of it lies deeper."""

    @examples(400)
    @given(OBJECTS, st.sampled_from([None, 1]), st.booleans(), st.lists(st.integers(0, 10_000)))
    def test_objects(self, told: dict[str, object], indent: int | None, ascii_only: bool, cuts: list[int]) -> None:
        """Members called the same further down, or in a string, are not taken for those at the top."""
        text = json.dumps(told, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
        for pieces in (cuts, list(range(len(text)))):
            scan = scanned(text, pieces)
            found = {name.decode(): json.loads(raw) for name, raw in scan.values.items()}
            self.assertEqual(found, {name: told[name] for name in ("usage", "model") if name in told})
            self.assertFalse(scan.is_list)

    @examples(100)
    @given(st.lists(OBJECTS, max_size=4), st.lists(st.integers(0, 10_000)))
    def test_lists(self, told: list[dict[str, object]], cuts: list[int]) -> None:
        """Of a list of objects, the last that has it."""
        scan = scanned(json.dumps(told).encode(), cuts)
        found = {name.decode(): json.loads(raw) for name, raw in scan.values.items()}
        self.assertEqual(found, {k: v for each in told for k, v in each.items() if k in ("usage", "model")})
        self.assertEqual(scan.is_list, True)

    @examples(200)
    @given(st.lists(st.sampled_from([b'"', b"{", b"}", b"[", b"]", b"\\", b":", b",", b"usage", b" ", b"\n"])))
    def test_anything(self, parts: list[bytes]) -> None:
        """What is no JSON is no harm."""
        scanned(b"".join(parts), [1, 5, 9])

    def test_too_long_a_value(self) -> None:
        """A value that is longer than any usage object is dropped, and what follows is found."""
        text = json.dumps({"usage": "x" * (MAX_VALUE_BYTES + 1), "model": "m"}).encode()
        self.assertEqual(scanned(text, [*range(0, len(text), 5000)]).values, {b"model": b' "m"'})

    def test_many_small_members(self) -> None:
        """A call does a bounded part of the work, the next ones the rest of it, and what is last is found."""
        text = b'{"usage":1,' + b'"":"",' * 10_000 + b'"model":"m"}'
        scan = JsonMemberScanner(WANTED)
        scan.feed(text)
        self.assertEqual((scan.behind, scan.values), (True, {b"usage": b"1"}))
        calls = 0
        while scan.behind:
            scan.feed(b"")
            calls += 1
        self.assertEqual(scan.values, {b"usage": b"1", b"model": b'"m"'})
        self.assertGreater(calls, 10_000 // MAX_FEED_STEPS)

    def test_more_waits_than_may(self) -> None:
        """Then the rest is not read at all, and that is said."""
        scan = JsonMemberScanner(WANTED)
        scan.feed(b'{"usage":1,' + b'"":"",' * (MAX_BEHIND_BYTES // 6 + MAX_FEED_STEPS))
        scan.feed(b'"model":"m"}')
        self.assertEqual((scan.failed, scan.behind, scan.values), (True, False, {b"usage": b"1"}))

    def test_too_deep(self) -> None:
        """Brackets without end cost next to nothing."""
        self.assertEqual(scanned(b'{"a":' + b"[" * 3_000_000, [*range(0, 3_000_000, 65536)]).values, {})
