"""Top-level members as they are written: what is found is what the reader of bodies finds, or nothing is."""

from __future__ import annotations

import json
from unittest import TestCase

from hypothesis import example, given
from hypothesis import strategies as st

from llmproxy.http.written_members import MAX_MEMBERS, MAX_NAMES, MAX_VALUES, written_members
from tests.support.reading import read
from tests.unit.http.test_strict_json import NAMES, SCALARS, objects

SPACES = st.sampled_from(["", " ", "\n\t", "\r"])
VALUES = [*SCALARS, "-0.5e+3", "12", "1", "true", '"é"', '"\\ud83d\\ude00"', '"\\u0022,\\u0022b\\u0022:1"']


class Written(TestCase):
    def test_as_they_are_written(self) -> None:
        body = b'{ "model" : "m" ,"a":{"model":"decoy","b":[1,{"model":2}]},\n"mod\\u0065\\"": -1e5}\n '
        expected = {"model": b' "m"', "a": b'{"model":"decoy","b":[1,{"model":2}]}', 'mode"': b" -1e5"}
        self.assertEqual(written_members(body), expected)

    def test_there_twice(self) -> None:
        """In whatever way, and wherever the other stands."""
        for body in (
            b'{"a":1,"a":1}',
            b'{"a":1,"b":1,"a":1}',
            b'{"a":1,"\\u0061":1}',
            b'{"a":12,"a":1}',
            b'{"a":1,"a":12}',
            b'{"a":"x","b":2,"a":"x","b":2}',
            b'{"a":[],"b":{"a":1},"b":{"a":1}}',
        ):
            self.assertIsNone(written_members(body), body)

    def test_what_is_none(self) -> None:
        for body in (b"", b"[]", b" {}", b'{"a":1}x', b'{"a":1', b'{"a":01}', b'{"a":"\xff"}', b'{"a":"\x01"}', b"{,}"):
            self.assertIsNone(written_members(body), body)
        self.assertEqual(written_members(b"{}"), None)

    def test_what_takes_long(self) -> None:
        """Very many members, names or values, and what is nested deeply."""
        name = b'"":0,'
        for body in (
            b"{%b}" % b",".join(b'"%d":0' % number for number in range(MAX_MEMBERS + 1)),
            b'{"a":{%b"b":0}}' % (name * MAX_NAMES),
            b'{"a":{%b"b":0}}' % (b'"" \t:0,' * MAX_NAMES),
            b'{"a":{%b"b":0}}' % (b'"\\\\":0,' * MAX_NAMES),
            b'{"a":[%b{}]}' % (b"{}," * 600 + b"0," * MAX_VALUES),
            b'{"a":%b}' % (b"[" * 513 + b"]" * 513),
            b'{"a":%b}' % (b'{"":' * 600 + b"0" + b"}" * 600),
        ):
            self.assertIsNone(written_members(body), body[:20])

    def test_what_only_looks_so(self) -> None:
        """Text with many colons, and with JSON in it."""
        for text in ("a: b 12:30\n" * 60_000, json.dumps({"a": {"b": 1}}) * 30_000, "[{" * 300):
            body = json.dumps({"messages": [{"content": text}], "model": "m"}).encode()
            self.assertEqual(list(written_members(body) or ()), ["messages", "model"])

    @given(
        st.lists(st.sampled_from(NAMES), max_size=5),
        st.recursive(st.sampled_from(VALUES), objects, max_leaves=12),
        SPACES,
        SPACES,
    )
    @example(['"a"', '"b"'], '"x","a":"y"', "", "")
    def test_as_the_reader_of_bodies(self, names: list[str], value: str, before: str, behind: str) -> None:
        """Each is there once, and says the same."""
        pairs = [f"{before}{name}{behind}:{before}{value}{behind}" for name in [*names, '"model"']]
        self.compare(("{" + ",".join(pairs) + "}" + behind).encode())

    @given(st.text('{}[]":,\\1ae-.u0n ', max_size=60).map(str.encode) | st.binary(max_size=40))
    @example(b'{"a":1}}')
    def test_any_bytes(self, body: bytes) -> None:
        for start in (b"", b'{"model":"m",', b'{"a":[', b'{"a":"'):
            self.compare(start + body)

    def compare(self, body: bytes) -> None:
        found = written_members(body)
        if found is not None:
            content = read(body)
            self.assertEqual((content.complete, content.problem), (True, ""))
            self.assertEqual(content.repeated & found.keys(), content.repeated)
            self.assertEqual(found.keys(), content.members.keys() | content.oversize)
            for name, raw in found.items():
                if name in content.members:
                    self.assertEqual(json.dumps(json.loads(raw)), json.dumps(content.members[name]))
