from __future__ import annotations

import json
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.http.strict_json import MAX_VALUES, members_once, names_once, parse_strictly

NAMES = ['"a"', '"b"', '"\\u0061"', '"b" ', '"b"\n\t', '"a\\""', '"a\\\\"', '":"', '"\\":"', '""', '"\\\\\\":"']
SCALARS = [
    "1",
    "null",
    '"x"',
    *(name.strip() for name in NAMES),
    '"\\"a\\": 1"',
    '":a"',
    '"{\\"a\\":1,\\"a\\":2}"',
    "[]",
    "{}",
]


def objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """JSON texts of objects and arrays of these."""
    members = st.lists(st.tuples(st.sampled_from(NAMES), values), max_size=4)
    return members.map(lambda each: "{" + ",".join(f"{name}:{value}" for name, value in each) + "}") | st.lists(
        values, max_size=3
    ).map(lambda each: "[" + " , ".join(each) + "]")


class Names(TestCase):
    @given(st.recursive(st.sampled_from(SCALARS), objects, max_leaves=20))
    def test_it_is_noticed_everywhere(self, value: str) -> None:
        """Whoever proves that no name is there twice proves nothing else."""
        body = b'{"a":' + value.encode() + b"}"
        twice: list[str] = []

        def note(pairs: list[tuple[str, object]]) -> dict[str, object]:
            twice.extend(["twice"] if len(dict(pairs)) < len(pairs) else [])
            return dict(pairs)

        json.loads(body, object_pairs_hook=note)
        self.assertFalse(twice and names_once(body, json.loads(body)))

    def test_the_usual(self) -> None:
        """It is proved for what clients send, compact or not, with names in strings."""
        for value in ({"a": 1, "b": {"a": [{"b": "x"}]}}, {"a": json.dumps({"a": {"b": ":"}})}):
            for separators in ((",", ":"), (", ", ": "), (" , ", " : ")):
                body = json.dumps(value, separators=separators).encode()
                self.assertEqual((names_once(body, value), parse_strictly(body)), (True, value))

    def test_members_whose_names_can_be_written_in_two_ways(self) -> None:
        """Nothing is proved of them by the bytes of one."""
        for body in (b'{"\\":":"x","\\":":"x","":"x"}', b'{"a/b":1,"a\\/b":2}', b'{"a\tb":1}'):
            members = json.loads(body, strict=False)
            self.assertFalse(members_once(body, members))
        self.assertTrue(members_once(b'{"model":1,"x":{"a":1,"a":2}}', {"model": 1}))

    def test_what_is_rejected(self) -> None:
        for body in (b'{"a":1,"a":2}', b'{"b":[{"a":1,"\\u0061":2}]}', b'{"a":NaN}', b'{"a":"\xff"}', b'{"a":1}x'):
            self.assertRaises(ValueError, parse_strictly, body)
        self.assertRaises(ValueError, parse_strictly, b'{"a":[' + b"0," * MAX_VALUES + b"0]}")
