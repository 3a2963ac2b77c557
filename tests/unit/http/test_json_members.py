from __future__ import annotations

import json
import os
from typing import Any
from unittest import TestCase
from unittest.mock import patch

from hypothesis import example, given
from hypothesis import strategies as st

from llmproxy.http import json_members, json_stretch
from llmproxy.http.json_members import MAX_FEED_STEPS, MAX_STEPS, JsonMembers
from tests.support.reading import everything

values: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.text(max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('a"\\[{:,', max_size=4), inner, max_size=4),
    max_leaves=20,
)


def members(body: bytes, piece: int = 0, wanted: Any = everything) -> JsonMembers:
    found = JsonMembers(wanted)
    piece = piece or max(len(body), 1)
    for at in range(0, len(body), piece):
        found.feed(body[at : at + piece])
    found.end()
    return found


class Members(TestCase):
    def test_wherever_they_stand(self) -> None:
        body = b'{"messages":[{"role":"user","content":"' + b"word " * 100_000 + b'"}],"model":"m","n":2}'
        found = members(body, 4096, {"model", "n"}.__contains__)
        self.assertEqual((found.members, found.complete), ({"model": "m", "n": 2}, True))

    def test_what_is_within_others_is_not_the_requests_own(self) -> None:
        body = b'{"tools":[{"input":{"model":"x","max_tokens":9}}],"metadata":{"model":"y"},"t":"{\\"model\\":1}"}'
        self.assertEqual(members(body, wanted={"model", "max_tokens"}.__contains__).members, {})

    def test_names_in_disguise(self) -> None:
        self.assertEqual(members(rb'{"\u006dod\u0065l" : "x"}', 3).members, {"model": "x"})

    def test_twice(self) -> None:
        found = members(b'{"a":1,"b":2,"\\u0061":3,"c":{"x":1,"x":2}}')
        self.assertEqual((found.members["a"], found.repeated), (3, {"a", "c"}))

    def test_too_long(self) -> None:
        found = members(b'{"a":"%b","b":1}' % (b"x" * 300_000), 4096)
        self.assertEqual((found.members, found.oversize, found.complete), ({"b": 1}, {"a"}, True))

    def test_given_up(self) -> None:
        """What takes too many steps is not read to its end."""
        most = MAX_STEPS if os.environ.get("CI") else 20_000  # a tenth of what it is, which takes a second
        with patch("llmproxy.http.json_members.MAX_STEPS", most):
            found = members(b'{"a":[' + (b"[" * 30 + b"]" * 30 + b",") * (most // 50) + b"0]}", 4096)
        self.assertIn("more values", found.problem)
        self.assertLessEqual(most, found.steps)
        self.assertLessEqual(found.steps, most + 1)

    def test_what_a_piece_costs_is_bounded(self) -> None:
        """A call takes so many steps, whatever it is given, and the next ones go on."""
        for piece in (b"[[[[0]]]],", b'"":"",', b'{"":', b"[[[],[]],[[],[]]],", b"]", b"1e9,"):
            found = JsonMembers(everything)
            found.feed(b'{"a":[')
            before = found.steps
            found.feed(piece * (4096 // len(piece)))
            self.assertLessEqual(found.steps - before, MAX_FEED_STEPS)
            while found.behind:
                before = found.steps
                found.feed(b"")
                self.assertLessEqual(found.steps - before, MAX_FEED_STEPS)

    def test_read_in_several_calls(self) -> None:
        """What waits is read as if it had come later, and more may come meanwhile."""
        value = {"a": "b" * 90, "model": "m", **{f"n{number}": number for number in range(500)}, "x": [1]}
        body = json.dumps(value).encode()
        for patient in (True, False):
            found = JsonMembers(everything)
            behind = 0
            for at in range(0, len(body), 3000):
                found.feed(body[at : at + 3000])
                while found.behind and patient:
                    found.feed(b"")
                    behind += 1
            found.end()
            self.assertEqual((found.members, found.problem, found.repeated), (value, "", set()))
            self.assertEqual(behind > 0, patient)

    @given(st.dictionaries(st.text(max_size=5), values, max_size=5), st.booleans(), st.integers(1, 40))
    def test_any_object_is_read_as_it_is(self, value: dict[str, Any], ascii_only: bool, piece: int) -> None:
        """In pieces of any size."""
        try:
            body = json.dumps(value, ensure_ascii=ascii_only).encode()
        except UnicodeEncodeError:
            return
        found = members(body, piece)
        self.assertEqual((found.members, found.problem, found.complete), (value, "", True))

    @given(st.text('{}[]":,\\1ae-.u0n ', max_size=60).map(str.encode), st.integers(1, 9))
    @example(b'{"a":1,}', 1)
    @example(b'{"a":[1,]}', 3)
    @example(b'{"a":[[[[1]]]],"b":tru}', 2)
    @example(b"{", 1)
    @example(b'{"a":-}', 1)
    def test_any_bytes(self, body: bytes, piece: int) -> None:
        """Are JSON exactly where Python's own strict reader says so, and then the same."""
        found = members(body, piece)

        def refuse(_: str) -> Any:
            raise ValueError

        try:
            value = json.loads(body, parse_constant=refuse)
        except ValueError:
            self.assertFalse(found.complete, body)
            self.assertTrue(found.problem)
            return
        self.assertTrue(found.complete, body)
        if isinstance(value, dict):
            self.assertEqual(found.members, value)


pieces_of_text = st.lists(
    st.sampled_from(
        [
            *"{}[]:, \t1",
            '"',
            '""',
            '"a":',
            '"b,]"',
            '"\\\\"',
            '"\\""',
            "true,",
            "-1.5e3",
            '{"a":1},',
            "[[0]],",
            "[],",
            "{}",
            '"\\ud800",',
            "NaN",
            "01",
            "1e999,",
            "\x01",
        ]
    ),
    max_size=30,
).map("".join)


class Stretches(TestCase):
    """What is passed over at once is read as token by token."""

    def check(self, body: bytes, piece: int) -> None:
        with patch.object(json_members, "MIN_STRETCH_BYTES", 1 << 30):
            plain = members(body, piece)
        with (
            patch.object(json_members, "MIN_STRETCH_BYTES", 2),
            patch.object(json_stretch, "MIN_BYTES", 1),
            patch.object(json_members, "FIRST_STRETCH_BYTES", 8),
            patch.object(json_members, "STEPS_BETWEEN", 1),
        ):
            fast = members(body, piece)
        for name in ("members", "repeated", "oversize", "complete"):
            self.assertEqual(getattr(fast, name), getattr(plain, name), name)
        self.assertEqual(bool(fast.problem), bool(plain.problem))

    def test_long_strings(self) -> None:
        """They are not matched in vain, for which they are too long, neither whole nor the first of them."""
        messages = [{"role": "user", "content": [{"text": "some words \n" * 1_500}]}] * 30
        body = json.dumps({"messages": messages, "model": "m"}).encode()
        with patch.object(JsonMembers, "_run", autospec=True, side_effect=lambda members, data, at, *_: at) as run:
            self.assertEqual(members(body, 65_536, {"model"}.__contains__).members, {"model": "m"})
        self.assertLess(run.call_count, 10)

    @given(st.lists(st.dictionaries(st.text(max_size=5), values, max_size=5), max_size=4), st.integers(1, 200))
    def test_valid(self, items: list[Any], piece: int) -> None:
        body = json.dumps({"a": items, "b": 1, "c": {"d": items}}).encode()
        self.check(body, piece)
        self.assertEqual(members(body, piece).members["a"], items)

    @given(pieces_of_text, pieces_of_text, st.integers(1, 200))
    def test_any(self, text: str, more: str, piece: int) -> None:
        self.check(f'{{"a":[{text}],"b":{{"x":{more}}},"c":1}}'.encode(), piece)
        self.check(f'{{"a":[[{text}{more}'.encode(), piece)

    @given(st.dictionaries(st.text(max_size=5), values, max_size=5), st.data())
    def test_nearly_valid(self, value: dict[str, Any], data: st.DataObject) -> None:
        """A byte more, less, or another one."""
        body = json.dumps({"a": [value], "b": value}).encode()
        at = data.draw(st.integers(0, len(body)))
        byte = data.draw(st.sampled_from([b"", *(bytes([each]) for each in b'{}[]",:\\1e-. a')]))
        self.check(body[:at] + byte + body[at + data.draw(st.booleans()) :], data.draw(st.integers(1, 200)))

    def test_a_conversation_takes_few_steps(self) -> None:
        """However deep and dense it is."""
        part = {"type": "tool_use", "input": {"a": {"b": [1, {"c": "x" * 30}]}}, "cache_control": {"type": "ephemeral"}}
        body = json.dumps({"messages": [{"role": "user", "content": [part] * 3}] * 500, "model": "m"}).encode()
        found = members(body, 16384)
        self.assertEqual((found.members["model"], found.complete), ("m", True))
        self.assertLess(found.steps, len(body) // 500)


class Strings(TestCase):
    """Runs of a string that are parsed at once are read as byte by byte."""

    @given(
        st.lists(
            st.sampled_from(
                [
                    "word " * 4,
                    "\\n",
                    '\\"',
                    "\\\\",
                    "\\u00e9",
                    "\\ud83d\\ude00",
                    "\\ud83d",
                    "é",
                    "漢",
                    "😀",
                    '"',
                    '","',
                    "\\",
                    "\\x",
                    "\n",
                    "\x7f",
                    "\x80",
                    "{",
                ]
            ).map(str.encode)
            | st.sampled_from([b"\xff", b"\xc3", b"\xa9", b"\xf0\x9f", b"\x00", b"\xed\xa0\x80"])
            | st.binary(max_size=3),
            max_size=30,
        ).map(b"".join),
        st.integers(1, 60),
        st.booleans(),
    )
    @example(b"\xff\xff\xc3\xa9\\n", 24, False)  # an escape before the string that is read
    def test_the_same(self, text: bytes, piece: int, kept: bool) -> None:
        body = b'{"a":"%b","b":["%b"],"c":1}' % (text, text)
        wanted = everything if kept else "c".__eq__
        with patch.object(json_members, "_behind_run", lambda data, at: at):
            plain = members(body, piece, wanted)
        with patch.object(json_members, "MIN_RUN_BYTES", 4):
            fast = members(body, piece, wanted)
        for name in ("members", "repeated", "oversize", "problem", "complete"):
            self.assertEqual(getattr(fast, name), getattr(plain, name), name)

    def test_every_byte(self) -> None:
        """Control characters are no part of a string, wherever they stand in it."""
        for byte in range(256):
            body = b'{"a":"%b%c%b"}' % (b"x" * 600, byte, b"y" * 600)
            wrong = byte < 0x20 or byte in b'"\\'
            self.assertEqual(bool(members(body).problem), wrong, byte)
