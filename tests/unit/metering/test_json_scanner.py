"""Finding members at the top of a JSON text, however long it is and in whatever pieces it comes."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.metering.json_scanner import (
    MAX_BEHIND_BYTES,
    MAX_FEED_STEPS,
    MAX_LISTED_BYTES,
    MAX_LISTED_OBJECTS,
    MAX_VALUE_BYTES,
    JsonMemberScanner,
    WantedMembers,
)
from tests.support.examples import examples

CALL: WantedMembers = {b"id": None, b"action": {b"type": None}, b"model": {}}
WANTED: WantedMembers = {b"usage": None, b"model": None}
WITHIN: WantedMembers = {**WANTED, b"output": CALL, b"response": {**WANTED, b"output": CALL}}
NAMES = st.sampled_from(["usage", "model", "content", 'us"age', "\\", "a" * 70, ""]) | st.text(max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(['"usage":1', "\\", '\\"', "{["]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=20,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=5)
DEEPER = st.sampled_from(["usage", "model", "output", "response", "id", "action", "type", "x"])
NESTED = st.dictionaries(
    DEEPER,
    st.recursive(
        st.none() | st.integers() | st.sampled_from(["output", "}", '"id":', "a\\", "é" * 40]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(DEEPER, inner, max_size=4),
        max_leaves=25,
    ),
    max_size=5,
)

PARTS = [b'"', b"{", b"}", b"[", b"]", b"\\", b":", b",", b"usage", b'"output":', b'"action":', b'"id":', b" ", b"\n"]


def pruned(value: Any, wanted: WantedMembers, in_list: bool = False) -> dict[str, Any]:
    """What is left of an object."""
    found: dict[str, Any] = {}
    for name, each in value.items():
        if (key := name.encode()) not in wanted:
            continue
        within = wanted[key]
        if within is None:
            if each is not None or not in_list:
                found[name] = each
        elif isinstance(each, dict):
            found[name] = pruned(each, within, in_list)
        elif isinstance(each, list):
            items = [pruned(item, within, True) for item in each if isinstance(item, dict)]
            found[name] = [item for item in items if item]
    return found


def scanned(text: bytes, cuts: list[int], wanted: WantedMembers = WANTED) -> JsonMemberScanner:
    scan = JsonMemberScanner(wanted)
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
            self.assertEqual(scan.values, {name: told[name] for name in ("usage", "model") if name in told})
            self.assertFalse(scan.several)

    @examples(100)
    @given(st.lists(OBJECTS, max_size=4), st.lists(st.integers(0, 10_000)))
    def test_lists(self, told: list[dict[str, object]], cuts: list[int]) -> None:
        """Of a list of objects, the last that has it."""
        scan = scanned(json.dumps(told).encode(), cuts)
        self.assertEqual(scan.values, {k: v for each in told for k, v in each.items() if k in ("usage", "model")})
        self.assertTrue(scan.several)

    @examples(400)
    @given(NESTED, st.sampled_from([None, 1]), st.lists(st.integers(0, 10_000)))
    def test_within(self, told: dict[str, object], indent: int | None, cuts: list[int]) -> None:
        """Of objects and lists that are looked through, what is wanted of them, and nothing that lies deeper."""
        text = json.dumps(told, indent=indent).encode()
        for pieces in (cuts, list(range(len(text)))):
            scan = scanned(text, pieces, WITHIN)
            self.assertEqual((scan.values, scan.overfull), (pruned(told, WITHIN), False), text)

    @examples(100)
    @given(st.lists(NESTED, min_size=1, max_size=4), st.sampled_from([b",", b"\n", b"", b" ,\r\n "]), st.booleans())
    def test_several(self, told: list[dict[str, object]], between: bytes, in_list: bool) -> None:
        """The objects of lists in all of them."""
        text = between.join(json.dumps({"output": [], **each}).encode() for each in told)
        scan = scanned(b"[" + text + b"]" if in_list else text, [], {b"output": CALL})
        right = [item for each in told for item in pruned(each, {b"output": CALL}).get("output", [])]
        if not any(isinstance(each.get("output"), dict) for each in told):
            self.assertEqual(scan.values.get("output", []), right)
            self.assertEqual(scan.several, in_list or len(told) > 1)

    @examples(200)
    @given(st.lists(st.sampled_from(PARTS)))
    def test_anything(self, parts: list[bytes]) -> None:
        """What is no JSON is no harm."""
        scanned(b"".join(parts), [1, 5, 9], WITHIN)

    def test_a_list_without_end(self) -> None:
        """So many objects of it are kept, which is said, and what follows is found."""
        for item in (b'{"id":"a"}', b'{"id":"' + b"x" * 2000 + b'"}'):
            text = (
                b'{"output":[%b],"usage":7,' % b",".join([item] * 1000) + b'"response":{"output":[{"id":1}],"usage":8}}'
            )
            scan = scanned(text, [*range(0, len(text), 5000)], WITHIN)
            self.assertTrue(scan.overfull)
            self.assertEqual((scan.values["usage"], scan.values["response"]), (7, {"usage": 8}))
            kept = len(scan.values["output"])
            self.assertTrue(kept == MAX_LISTED_OBJECTS if len(item) < 20 else 50 < kept < MAX_LISTED_BYTES / 1900)
            self.assertLess(scan.held_bytes, MAX_LISTED_BYTES + 2100)

    def test_what_is_not_relevant_takes_no_room(self) -> None:
        text = b'{"output":[%b{"id":2}]}' % (b'{"id":"%b"},' % (b"x" * 500) * 1000)
        scan = JsonMemberScanner(WITHIN, lambda item: item.get("id") == 2)
        for at in range(0, len(text), 5000):
            scan.feed(text[at : at + 5000])
        self.assertEqual((scan.values, scan.overfull, scan.held_bytes < 10), ({"output": [{"id": 2}]}, False, True))

    def test_too_long_a_value(self) -> None:
        """A value that is longer than any usage object is dropped, and what follows is found."""
        text = json.dumps({"usage": "x" * (MAX_VALUE_BYTES + 1), "model": "m"}).encode()
        self.assertEqual(scanned(text, [*range(0, len(text), 5000)]).values, {"model": "m"})

    def test_many_small_members(self) -> None:
        """A call does a bounded part of the work, the next ones the rest of it, and what is last is found."""
        text = b'{"usage":1,' + b'"":"",' * 10_000 + b'"model":"m"}'
        scan = JsonMemberScanner(WANTED)
        scan.feed(text)
        self.assertEqual((scan.behind, scan.values), (True, {"usage": 1}))
        calls = 0
        while scan.behind:
            scan.feed(b"")
            calls += 1
        self.assertEqual(scan.values, {"usage": 1, "model": "m"})
        self.assertGreater(calls, 10_000 // MAX_FEED_STEPS)

    def test_more_waits_than_may(self) -> None:
        """Then the rest is not read at all, and that is said."""
        scan = JsonMemberScanner(WANTED)
        scan.feed(b'{"usage":1,' + b'"":"",' * (MAX_BEHIND_BYTES // 6 + MAX_FEED_STEPS))
        scan.feed(b'"model":"m"}')
        self.assertEqual((scan.failed, scan.behind, scan.values), (True, False, {"usage": 1}))

    def test_too_deep(self) -> None:
        """Brackets without end cost next to nothing."""
        scan = scanned(b'{"a":' + b"[" * 3_000_000, [*range(0, 3_000_000, 65536)])
        self.assertEqual((scan.values, scan.failed), ({}, True))
