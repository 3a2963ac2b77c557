from __future__ import annotations

import json
from time import process_time
from typing import Any
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.errors import BodyUnreadable, ParamNotAllowed
from llmproxy.http import params

ONLY = {"model": ["gpt-4o", "gpt-4.1-*"]}
MIB = 1 << 20


def check(body: bytes) -> None:
    params.check(params.parse(body), ONLY)


class Checking(TestCase):
    def test_allowed_values(self) -> None:
        """Exact or by glob; a parameter that is not there is allowed."""
        for body in (
            b'{"model":"gpt-4o"}',
            b'{"model":"gpt-4.1-mini","n":1}',
            b'{"n":1}',
            b' {"m\\u006fdel" : "gpt-4o"}\n',
        ):
            check(body)

    def test_refused_values(self) -> None:
        """Whatever a provider could read as another model."""
        for value in (
            '"gpt-4"',
            '"GPT-4o"',
            '"gpt-4o "',
            '["gpt-4o"]',
            '{"a":"gpt-4o"}',
            "null",
            "1",
            '""',
            '"' + "x" * 2000 + '"',
        ):
            with self.subTest(value=value), self.assertRaises(ParamNotAllowed) as caught:
                check(b'{"model":%s}' % value.encode())
            self.assertIn("model", str(caught.exception))

    def test_an_escaped_name(self) -> None:
        """Is the same name."""
        with self.assertRaises(ParamNotAllowed):
            check(rb'{"\u006dodel":"o1"}')

    def test_another_case_of_the_name(self) -> None:
        """Some providers' readers take it for the name."""
        for name in ("Model", "MODEL"):
            with self.assertRaises(ParamNotAllowed):
                check(json.dumps({"model": "gpt-4o", name: "o1"}).encode())
        with self.assertRaises(ParamNotAllowed):
            params.check({"\u017ftream": True}, {"stream": ["false"]})
        params.check({"a": 1, "A": 2}, {"a": ["1"], "A": ["2"]})

    def test_plain_values_as_json_writes_them(self) -> None:
        """Numbers, truth values and null."""
        params.check(
            {"n": 1, "s": False, "t": 0.5, "z": None}, {"n": ["1"], "s": ["false"], "t": ["0.*"], "z": ["null"]}
        )
        with self.assertRaises(ParamNotAllowed):
            params.check({"n": 2}, {"n": ["1"]})

    def test_no_list(self) -> None:
        """Nothing to check."""
        params.check({"Model": []}, {})

    def test_a_value_alone(self) -> None:
        """As from a path."""
        params.check_value("model", "gpt-4o", ONLY["model"])
        with self.assertRaises(ParamNotAllowed):
            params.check_value("model", "o1", ONLY["model"])


class Parsing(TestCase):
    def test_what_is_not_strictly_one_object(self) -> None:
        """Fails closed."""
        for body in (
            b"",
            b" ",
            b"[]",
            b'"x"',
            b"1",
            b'\xef\xbb\xbf{"a":1}',
            '{"a":1}'.encode("utf-16"),
            '{"a":1}'.encode("utf-16-le"),
            b'{"a":"\xff"}',
            b'{"a":"\xc0\xae"}',
            b'{"a":"\xed\xa0\x80"}',
            b'{"a":1}{"a":2}',
            b'{"a":1} x',
            b'{"a":1,}',
            b"{'a':1}",
            b'{"a":1,"a":2}',
            b'{"a":1,"\\u0061":2}',
            b'{"x":[{"a":1,"a":2}]}',
            b'{"a":NaN}',
            b'{"a":Infinity}',
            b'{"a":-Infinity}',
            b'{"a":01}',
            b'{"a":"\n"}',
            b'{"a":"\\x"}',
            b'{"a":"x',
            b'{"a":"x\\"}',
            b'{"a":/**/1}',
            b"model=gpt-4o",
            b"\x1f\x8b\x08\x00",
            b'{"a":1}\x00',
        ):
            with self.subTest(body=body), self.assertRaises(BodyUnreadable):
                params.parse(body)

    def test_a_content_coding(self) -> None:
        """Is not looked into."""
        for coding in (b"gzip", b"identity, gzip", b"br", b"GZIP"):
            with self.assertRaises(BodyUnreadable):
                params.parse(b"{}", [b"content-encoding: " + coding])
        with self.assertRaises(BodyUnreadable):
            params.parse(b"{}", [b"Content-Encoding: identity", b"Content-Encoding: gzip"])
        self.assertEqual(params.parse(b"{}", [b"Content-Encoding: Identity", b"Content-Type: text/plain"]), {})

    def test_depth(self) -> None:
        """64 levels and no more, wherever brackets stand in strings."""
        self.assertTrue(params.parse(b'{"a":' + b"[" * 63 + b"]" * 63 + b"}"))
        self.assertTrue(params.parse(b'{"a":"' + b"[" * 1000 + b'\\"' + b"{" * 1000 + b'"}'))
        for body in (b'{"a":' + b"[" * 64 + b"]" * 64 + b"}", b'{"a":' * 65 + b"1" + b"}" * 65, b"[" * 5000):
            with self.assertRaises(BodyUnreadable):
                params.parse(body)

    def test_escapes_do_not_hide_brackets(self) -> None:
        """A backslash before the closing quote may itself be escaped."""
        deep = b"[" * 64 + b"]" * 64
        for text in (rb"\\", rb"\\\\", rb"\"\\", rb"\n\\"):
            with self.assertRaises(BodyUnreadable) as caught:
                params.parse(b'{"b":"' + text + b'","a":' + deep + b"}")
            self.assertIn("nested", str(caught.exception))

    def test_long_numbers(self) -> None:
        """More digits than any parameter has, but not in a text."""
        self.assertTrue(params.parse(b'{"a":' + b"9" * 400 + b"}"))
        self.assertTrue(params.parse(b'{"a":"' + b"9" * 5000 + b'"}'))
        for number in (b"9" * 401, b"-" + b"9" * 5000, b"0." + b"1" * 401):
            with self.assertRaises(BodyUnreadable):
                params.parse(b'{"a":' + number + b"}")

    def test_hostile_bodies_take_no_time(self) -> None:
        """One mebibyte of anything holds the reactor for 50 ms at most (here ten times that, for slow machines)."""
        for body in (
            b"[" * MIB,
            b'{"a":' * (MIB // 5),
            b'{"a":[' + b"{}," * (MIB // 3) + b"0]}",
            b'{"a":[' + b"[]," * (MIB // 3) + b"0]}",
            b'{"a":[' + b'"",' * (MIB // 3) + b"0]}",
            b'{"a":[' + b"0," * (MIB // 2) + b"0]}",
            b'{"a":[' + b"1e9," * (MIB // 4) + b"0]}",
            b'{"a":[' + (b"9" * 400 + b",") * (MIB // 401) + b"0]}",
            b'{"a":' + b"9" * MIB + b"}",
            b'{"a":"' + b"\\n" * (MIB // 2) + b'"}',
            b'{"a":"' + b'\\"a' * (MIB // 3) + b'"}',
            b"\\" * MIB,
            b'"' * MIB,
            b" " * MIB,
            b"{" + b"".join(b'"%d":0,' % number for number in range(MIB // 10)) + b'"x":0}',
        ):
            begin = process_time()
            try:
                params.parse(body)
            except BodyUnreadable:
                pass
            self.assertLess(process_time() - begin, 0.5, body[:20])

    def test_ordinary_large_bodies_pass(self) -> None:
        """A long text, a picture, and as many token ids as one request may hold."""
        for value in ('word, "quoted" \\ {x: [1]}\n' * 20_000, "A" * (4 * MIB), list(range(100_000, 390_000))):
            body = json.dumps({"model": "gpt-4o", "input": value}).encode()
            self.assertEqual(params.parse(body)["input"], value)


class Models(TestCase):
    def test_the_model(self) -> None:
        """Or none."""
        self.assertEqual(params.model_of(b'{"model":"gpt-4o"}'), "gpt-4o")
        self.assertEqual(params.model_of(b"{}"), "")

    def test_a_model_that_is_none(self) -> None:
        """Is refused, as is one that only some would read."""
        for body in (
            b'{"model":1}',
            b'{"model":["a"]}',
            b'{"Model":"a"}',
            b'{"model":"a\\n"}',
            b'{"model":"\\ud800"}',
            b'{"model":null}',
        ):
            with self.subTest(body=body), self.assertRaises(ParamNotAllowed):
                params.model_of(body)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.text(max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('a"\\[{:,', max_size=4), inner, max_size=4),
    max_leaves=20,
)


class Properties(TestCase):
    @given(st.dictionaries(st.text(max_size=5), values, max_size=5), st.booleans())
    def test_any_object_is_read_as_it_is(self, value: dict[str, Any], ascii_only: bool) -> None:
        """No bound and no outline is in the way of an ordinary body."""
        try:
            body = json.dumps(value, ensure_ascii=ascii_only).encode()
        except UnicodeEncodeError:
            return
        self.assertEqual(params.parse(body), value)

    @given(st.binary(max_size=40) | st.text('{}[]":,\\1ae-. ', max_size=40).map(str.encode))
    def test_any_bytes(self, body: bytes) -> None:
        """Are an object that every reader reads so, or refused."""
        try:
            value = params.parse(body)
        except BodyUnreadable:
            return
        self.assertEqual(json.loads(body), value)
