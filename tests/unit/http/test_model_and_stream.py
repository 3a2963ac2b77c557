"""The short way to a request's model says what the reader of bodies says."""

from __future__ import annotations

import json
from typing import Any
from unittest import TestCase

from hypothesis import example, given
from hypothesis import strategies as st

from llmproxy.http.model_and_stream import read_model_and_stream
from llmproxy.http.whole_body import read_at_once
from tests.support.reading import everything, read
from tests.unit.http.test_strict_json import NAMES, SCALARS, objects

NAMED = ['"background"', '"back\\u0067round"', '"model"', '"stream"', '"Model"', '"mod\\u0065l"', '"model "', *NAMES]
VALUES = [
    '"m"',
    '"gpt\\u0034"',
    "true",
    "false",
    "null",
    '"true"',
    "1",
    '"\\ud800"',
    '"a\\u0001"',
    '["m"]',
    "1e999",
    '"é"',
]
OTHERS = st.recursive(st.sampled_from(SCALARS), objects, max_leaves=8)
PAIRS = st.tuples(st.sampled_from(NAMED), st.one_of(st.sampled_from(VALUES), OTHERS))


class ModelAndStream(TestCase):
    def test_usual_bodies(self) -> None:
        """Need no other way."""
        body: dict[str, Any] = {"messages": [{"role": "user", "content": 'Grüße: {"model":"decoy"}'}], "model": "gpt-é"}
        for members, expected in (
            (body, ("gpt-é", False, False)),
            (body | {"stream": True}, ("gpt-é", True, False)),
            (body | {"stream": False, "background": True}, ("gpt-é", False, True)),
            ({"input": "hi", "background": False}, ("", False, True)),
            ({"model": "x" * 200}, ("x" * 128, False, False)),
            ({"model": "x" * 2000}, ("", False, False)),
            ({"model": "a\n"}, ("", False, False)),
        ):
            for indent, ascii_only in ((None, True), (1, False)):
                text = json.dumps(members, indent=indent, ensure_ascii=ascii_only)
                self.assertEqual(read_model_and_stream(text.encode()), expected)

    def test_all_of_the_body_is_checked(self) -> None:
        """What is not JSON is left to whoever says so."""
        for rest in (
            b'"\xff"',
            b'"\xed\xa0\x80"',
            b'"\x01"',
            b'"\\q"',
            b"NaN",
            b"01",
            b"[1,]",
            b'1,"a\xff":1',
            b"1}x",
            b"{",
        ):
            self.assertIsNone(read_model_and_stream(b'{"model":"m","a":' + rest + b"}"), rest)

    def test_other_forms(self) -> None:
        for body in (b"", b"model=m", b'["model"]', b' {"model":"m"}', b'\xef\xbb\xbf{"model":"m"}', b"{" * 100_000):
            self.assertIsNone(read_model_and_stream(body), body[:20])

    @given(st.lists(PAIRS, max_size=6), st.sampled_from(["", " ", "\n\t"]))
    @example([('"model"', '"a"'), ('"model"', '"b"')], "")
    @example([('"model"', '"a"'), ('"model"', "1")], "")
    @example([('"a"', "[" * 300 + "]" * 300), ('"model"', '"m"')], "")
    def test_as_the_reader_of_bodies(self, pairs: list[tuple[str, str]], space: str) -> None:
        """Names that are there twice, escapes, values of any kind, and text that looks like names."""
        body = ("{" + f"{space},".join(f"{name}{space}:{space}{value}" for name, value in pairs) + "}").encode()
        self._compare(body)

    @given(st.binary(max_size=12))
    def test_any_bytes(self, middle: bytes) -> None:
        for start, end in (
            (b'{"model":"', b'"}'),
            (b'{"model":"m","a":"', b'"}'),
            (b'{"model":"m",', b"}"),
            (b"{", b"}"),
        ):
            self._compare(start + middle + end)

    def _compare(self, body: bytes) -> None:
        found = read_model_and_stream(body)
        if found is not None:
            for content in (read_at_once(body, [], everything), read(body, [])):
                tells_background = "background" in content.members or "background" in content.repeated
                self.assertEqual(found, (content.model, content.stream, tells_background))
                self.assertTrue(content.complete)
