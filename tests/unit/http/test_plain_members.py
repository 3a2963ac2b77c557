"""The short way to a request's members says what the reader of bodies says."""

from __future__ import annotations

import json
import re
from unittest import TestCase

from hypothesis import example, given
from hypothesis import strategies as st

from llmproxy.http.content_measure import _MEDIUM, MEDIA_NAMES
from llmproxy.http.plain_members import MAX_PLAIN_BYTES, PlainMembers, read_plain
from llmproxy.http.text_measure import REMOTE
from llmproxy.http.whole_body import read_uncoded
from tests.support.reading import read
from tests.unit.http.test_strict_json import NAMES, SCALARS, objects

WANTED = ("model", "max_tokens", "n", "generationConfig", "a", "tools", "top-k", "image")
FOLDED = {name.casefold() for name in WANTED}
MEMBERS = PlainMembers(WANTED)
SPELLED = [
    '"model"',
    '"Model"',
    '"mod\\u0065l"',
    '"model "',
    '"n"',
    '"N"',
    '"max_tokens"',
    '"max_token\u017f"',
    '"generationConfig"',
    '"image"',
    '"url"',
    '"image_url"',
    '"data"',
    '"fileUri"',
]
VALUES = [
    '"m"',
    '"gpt\\u0034"',
    '"a\\/b"',
    '"n"',
    '"\\"n\\""',
    "true",
    "null",
    "1",
    "1.0",
    "-0.0",
    "1e400",
    "10000000000000000000000",
    '["m"]',
    '"é"',
    '"https://a/b"',
    '{"url": "http://a"}',
    f'"{"QUJD" * 40}"',
]
OTHERS = st.recursive(st.sampled_from(SCALARS), objects, max_leaves=8)
PAIRS = st.tuples(st.sampled_from([*SPELLED, *NAMES]), st.one_of(st.sampled_from(VALUES), OTHERS))


def wanted(name: str) -> bool:
    return name.casefold() in FOLDED


def body_of(pairs: list[tuple[str, str]], space: str = "") -> bytes:
    return ("{" + f"{space},".join(f"{name}{space}:{space}{value}" for name, value in pairs) + "}").encode()


class Plain(TestCase):
    def test_usual_bodies(self) -> None:
        """Need no other way, whatever text they hold and however they are written."""
        messages = [{"role": "user", "content": 'Say "model": \\ and n, /please/\n\t{"max_tokens": 1}'}]
        for members in (
            {"model": "m", "max_tokens": 64},
            {"n": 2.5, "model": "m"},
            {"model": None, "a": True, "top-k": -1},
            {},
        ):
            for indent in (None, 1):
                body = json.dumps({"messages": messages, **members}, indent=indent).encode()
                self.assertEqual(MEMBERS.read(body), members)
                content = read_plain(body, MEMBERS, measured=True)
                self.assertIsNotNone(content)
                self.assertEqual(content, read_uncoded(body, wanted, strictly=True, measured=True))

    def test_all_others(self) -> None:
        """Are left to whoever can tell."""
        for body in (
            b'{"model":"m","model":"m"}',
            b'{"model":"m","Model":"n"}',
            b'{"Model":"m"}',
            b'{"generationconfig":1}',
            b'{"mod\\u0065l":"m"}',
            '{"max_token\u017f":1}'.encode(),
            b'{"messages":[{"n":1}],"model":"m"}',
            b'{"a":"model"}',
            b'{"model":["m"]}',
            b'{"model":"m","b":01}',
            b'{"model":"m"}x',
            b'{"model":"m","b":"\xff"}',
            b'["model"]',
            b"",
            b'{"a":1,"b":' + b"[" * 100_000,
            b'{"model":"m"' + b" " * MAX_PLAIN_BYTES + b"}",
        ):
            self.assertIsNone(MEMBERS.read(body), body[:40])

    def test_names_that_can_be_written_in_two_ways(self) -> None:
        """Then nothing is read so: a name that has been missed could stand for one that was counted."""
        for name in ("a/b", 'a"b', "é", "", "x" * 65):
            members = PlainMembers(["model", name])
            self.assertIsNone(members.read(b'{"model":"m"}'))
        self.assertIsNone(PlainMembers([]).read(b"{}"))

    @given(st.lists(PAIRS, max_size=6), st.sampled_from(["", " ", "\n\t"]))
    @example([('"a"', '"\\"n"'), ('"n"', "1")], "")
    @example([('"b"', "[" * 190 + "]" * 190), ('"model"', '"m"')], "")
    def test_as_the_reader_of_bodies(self, pairs: list[tuple[str, str]], space: str) -> None:
        """Names that are there twice, other spellings, escapes, values of any kind, and text that looks like names."""
        self._compare(body_of(pairs, space))

    def test_media(self) -> None:
        """Are seen by their names, each of which is looked for."""
        named = re.findall(
            rb"[A-Za-z0-9_]{3,}", b"|".join(re.findall(rb'"\(\?:([^)]*)\)"', _MEDIUM.pattern + REMOTE.pattern))
        )
        self.assertGreater(len(named), 10)
        self.assertLessEqual({name.lower() for name in named}, MEDIA_NAMES)
        for body in (
            '{"model":"m","image":"%s"}' % ("QUJD" * 40),
            '{"model":"m","messages":[{"image_url":{"url":"https://a/b"}}]}',
            '{"model":"m","messages":[{"source":{"type":"url","url":"https://a/b"}}]}',
            '{"model":"m","messages":[{"fileUri":"gs://a/b"}]}',
            '{"model":"m","messages":[{"text":"the \\"url\\": a"},{"url":1},{"file":"b"}]}',
        ):
            self._compare(body.encode())
        self.assertIsNone(read_plain(body_of([('"data"', f'"{"QUJD" * 40}"')]), MEMBERS, measured=True))
        content = read_plain(b'{"messages":[{"image_url":{"url":"https://a/b"}}]}', MEMBERS, measured=True)
        assert content is not None
        self.assertEqual(content.unseen_media, 1)

    @given(st.binary(max_size=12))
    def test_any_bytes(self, middle: bytes) -> None:
        for start, end in (
            (b'{"model":"', b'"}'),
            (b'{"model":"m","b":"', b'"}'),
            (b'{"model":"m",', b"}"),
            (b"{", b"}"),
        ):
            self._compare(start + middle + end)

    def _compare(self, body: bytes) -> None:
        for measured in (True, False):
            content = read_plain(body, MEMBERS, measured=measured)
            if content is not None:
                self.assertIn(read_uncoded(body, wanted, strictly=True, measured=measured), (content, None))
                expected = read(body, wanted=wanted)
                if not measured:  # then nobody looks for media
                    expected = expected._replace(unseen_media=0)
                self.assertEqual(content._replace(text=expected.text, media=expected.media), expected)
                self.assertEqual(json.dumps(content.members), json.dumps(expected.members))  # 1 is not True, nor 1.0
