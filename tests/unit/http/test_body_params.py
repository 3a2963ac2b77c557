from __future__ import annotations

import json
from unittest import TestCase

from llmproxy.errors import BodyUnreadable, ParamNotAllowed
from llmproxy.http import body_params
from tests.support.reading import read

NAMES = ["a", "x", "model"]
ONLY = {"model": ["gpt-4o", "gpt-4.1-*"]}


def check(body: bytes) -> None:
    body_params.check_params(body_params.checked_members(read(body), NAMES), ONLY)


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
            body_params.check_params({"\u017ftream": True}, {"stream": ["false"]})
        body_params.check_params({"a": 1, "A": 2}, {"a": ["1"], "A": ["2"]})

    def test_plain_values_as_json_writes_them(self) -> None:
        """Numbers, truth values and null."""
        body_params.check_params(
            {"n": 1, "s": False, "t": 0.5, "z": None}, {"n": ["1"], "s": ["false"], "t": ["0.*"], "z": ["null"]}
        )
        with self.assertRaises(ParamNotAllowed):
            body_params.check_params({"n": 2}, {"n": ["1"]})

    def test_no_list(self) -> None:
        """Nothing to check."""
        body_params.check_params({"Model": []}, {})

    def test_a_value_alone(self) -> None:
        """As from a path."""
        body_params.check_param("model", "gpt-4o", ONLY["model"])
        with self.assertRaises(ParamNotAllowed):
            body_params.check_param("model", "o1", ONLY["model"])


class Reading(TestCase):
    def test_what_is_not_strictly_one_object_or_a_form(self) -> None:
        """Fails closed."""
        for body in (
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
            b'{"a":' + b"[" * 600 + b"]" * 600 + b"}",
            b'{"a":"' + b"x" * 300_000 + b'"}',
        ):
            with self.subTest(body=body[:40]), self.assertRaises(BodyUnreadable):
                body_params.checked_members(read(body), NAMES)

    def test_a_coding_that_cannot_be_read(self) -> None:
        for coding in (b"x-unheard-of", b"gzip, gzip", b"gzip"):
            with self.assertRaises(BodyUnreadable):
                body_params.checked_members(read(b"{}", [b"content-encoding: " + coding]), NAMES)
        self.assertEqual(
            body_params.checked_members(
                read(b"{}", [b"Content-Encoding: Identity", b"Content-Type: text/plain"]), NAMES
            ),
            {},
        )


class Models(TestCase):
    def test_the_model(self) -> None:
        """Or none."""
        self.assertEqual(
            body_params.model_of(body_params.checked_members(read(b'{"model":"gpt-4o"}'), NAMES)), "gpt-4o"
        )
        self.assertEqual(body_params.model_of({}), "")

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
                body_params.model_of(body_params.checked_members(read(body), NAMES))
