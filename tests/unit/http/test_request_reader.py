from __future__ import annotations

import gc
import gzip
import json
from time import process_time
from unittest import TestCase

import pytest
from backports import zstd
from hypothesis import example, given
from hypothesis import strategies as st

from llmproxy.http.request_reader import RequestReader
from llmproxy.http.whole_body import read_at_once, read_strictly_at_once
from tests.support.reading import everything, read
from tests.unit.http.test_strict_json import NAMES, SCALARS, objects

BODY = json.dumps({"messages": [{"role": "user", "content": "hello " * 20_000}], "model": "m", "n": 2}).encode()
WANTED = {"model", "n", "stream"}.__contains__
FORM = [b"Content-Type: application/x-www-form-urlencoded"]
MULTIPART = [b'Content-Type: multipart/form-data; boundary="b"']
FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n%b\r\n' % bytes(200_000)
FIELDS = b"".join(
    b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % pair
    for pair in ((b"model", b"m"), (b"n", b"2"))
)


class Reading(TestCase):
    def test_all_that_says_the_same(self) -> None:
        """In one form or the other, in pieces or at once."""
        for form, members, body, lines in (
            ("json", {"model": "m", "n": 2}, BODY, []),
            ("json", {"model": "m", "n": 2}, b"\r\n \t" * 30_000 + BODY, []),
            ("json", {"model": "m", "n": 2}, BODY, FORM),
            ("json", {"model": "m", "n": 2}, gzip.compress(BODY), [b"Content-Encoding: gzip"]),
            ("json", {"model": "m", "n": 2}, zstd.compress(BODY), [b"Content-Encoding: ZSTD"]),
            ("urlencoded", {"model": "m", "n": "2"}, b"a=b&model=%6d&n=2", FORM),
            ("multipart", {"model": "m", "n": "2"}, FIELDS + FILE + b"--b--\r\n", MULTIPART),
            ("multipart", {"model": "m", "n": "2"}, FILE + FIELDS + b"--b--\r\n", MULTIPART),
        ):
            for piece in (0, 1000, 65_536):
                content = read(body, lines, piece, WANTED)
                self.assertEqual((content.form, dict(content.members)), (form, members))
                self.assertEqual((content.complete, content.problem), (True, ""))

    def test_what_may_be_read_in_more_ways_than_one(self) -> None:
        """Is read, and said to be so."""
        for encoding in ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"):
            content = read(BODY.decode().encode(encoding), [], 777, WANTED)
            self.assertEqual((dict(content.members), content.complete), ({"model": "m", "n": 2}, True), encoding)
            self.assertTrue(content.problem)
        twice = gzip.compress(BODY[:50]) + gzip.compress(BODY[50:])
        self.assertTrue(read(twice, [b"Content-Encoding: gzip"]).problem)

    def test_what_cannot_be_read(self) -> None:
        for body, lines in (
            (b"hello", []),
            (b"{}", [b"Content-Encoding: gzip"]),
            (b"{}", [b"Content-Encoding: x-other"]),
            (gzip.compress(bytes(50_000_000)), [b"Content-Encoding: gzip"]),
            (b"--x", [b"Content-Type: multipart/form-data"]),
            (BODY[:-1], []),
            (gzip.compress(BODY)[:-9], [b"Content-Encoding: gzip"]),
            (b'{"a":"\xff"}', []),
        ):
            content = read(body, lines, 4096)
            self.assertFalse(content.complete and not content.problem, body[:20])
            self.assertTrue(content.problem)

    def test_nothing(self) -> None:
        for body in (b"", b" \r\n"):
            content = read(body)
            self.assertEqual((content.form, content.complete, content.problem), ("none", True, ""))

    def test_what_is_known_on_the_way(self) -> None:
        reader = RequestReader([], WANTED)
        reader.feed(b'{"model":"m","stream":true,"x":')
        content = reader.content()
        self.assertEqual((content.model, content.stream, content.complete), ("m", True, False))

    def test_long_names_are_cut(self) -> None:
        """A record does not grow with what a client makes up."""
        self.assertEqual(len(read(b'{"model":"' + b"x" * 200 + b'"}').model), 128)
        self.assertEqual(read(b'{"model":"' + b"x" * 2000 + b'"}').model, "")
        for body in (b'{"model":"a\\u0000"}', b'{"model":1}', b'{"model":["a"]}'):
            self.assertEqual(read(body).model, "")

    @given(st.binary(max_size=80), st.sampled_from([FORM, MULTIPART, [], [b"Content-Encoding: gzip"]]))
    def test_any_bytes(self, body: bytes, lines: list[bytes]) -> None:
        for start in (b"", b"{", b"--b\r\n", b"\xff\xfe", b"{\0"):
            content = read(start + body, lines, 7)
            self.assertTrue(content.model.isprintable())
            self.assertTrue(content.complete or content.problem)


class AtOnce(TestCase):
    def test_the_same(self) -> None:
        for body in (BODY, b"a=b", b"", b'{"model":', b"\xef\xbb\xbf{}"):
            self.assertEqual(dict(read_at_once(body, [], WANTED).members), dict(read(body, [], 0, WANTED).members))

    @given(
        st.text('{}[]":,\\1ae-.u0n ', max_size=60).map(str.encode) | st.binary(max_size=40),
        st.sampled_from([FORM, [], [b"Content-Encoding: gzip"]]),
    )
    @example(b'{"a":1,"a":2}', [])
    @example(b'{"a":{"b":1,"b":2}}', [])
    @example(b'{"a":NaN}', [])
    @example(b'{"a":"\\ud800"}', [])
    @example(b'{"a":1}x', [])
    def test_strictly(self, body: bytes, lines: list[bytes]) -> None:
        """Whichever way it is read."""
        for start in (b"", b'{"model":"m",', b'{"a":['):
            once, slow = read_strictly_at_once(start + body, lines, everything), read(start + body, lines)
            self.assertEqual(once._replace(text=slow.text), slow)

    @given(st.lists(st.sampled_from(NAMES), max_size=4), st.recursive(st.sampled_from(SCALARS), objects, max_leaves=12))
    @example(['"a\\\\"', '"b"', '"b"'], "1")
    @example(['"a\\""', '"b"', '"b"'], '"\\":"')
    @example(['"a"'], '"\\\\":1,\\"b\\":1"')
    @example(['"\\":"', '"\\":"', '""'], '"x"')
    def test_a_name_that_is_there_twice(self, names: list[str], value: str) -> None:
        """At any depth, written in any way, and beside strings that look like names."""
        body = ("{" + ",".join(f"{name}:{value}" for name in [*names, '"model"']) + "}").encode()
        for wanted in (everything, WANTED):
            once, slow = read_strictly_at_once(body, [], wanted), read(body, [], 0, wanted)
            self.assertEqual(once._replace(text=slow.text), slow)

    def test_long_members(self) -> None:
        """What is too long for the one is not read by the other either."""
        for size in (100_000, 131_072, 200_000):
            body = b'{"n":"' + b"x" * size + b'"}'
            once, slow = read_strictly_at_once(body, [], WANTED), read(body, [], 0, WANTED)
            self.assertEqual((once.members, once.oversize), (slow.members, slow.oversize))

    def test_the_measure_is_the_same(self) -> None:
        self.assertEqual(read_strictly_at_once(BODY, [], WANTED).text.words, read(BODY, [], 0, WANTED).text.words)


class Bombs(TestCase):
    def setUp(self) -> None:
        """The collector passes over what other tests have left, as in the daemon over what is there from the start."""
        gc.collect()
        gc.freeze()
        self.addCleanup(gc.unfreeze)

    @pytest.mark.long("4 s: no body of its kinds is read for long, as of test_bombs")
    def test_no_turn_is_long(self) -> None:
        """What is read in one turn takes some milliseconds; here ten times that, for slow machines."""
        million = 1_000_000
        for body, lines in (
            (b'{"a":"\\u0041","b":[' + b"{}," * million + b"0]}", []),
            (b'{"a":[' + b"0.12345678901," * 270_000 + b"0]}", []),
            (b'{"a":[' + b'{"b":1},' * 250_000 + b"0]}", []),
            (b'{"a":[' + b"[[[[1]]]]," * 200_000 + b"0]}", []),
            (b'{"a":[' + b"[[[],[]],[[],[]]]," * 200_000 + b"0]}", []),
            (b"{" + b'"":"",' * million + b'"a":0}', []),
            (b'{"a":' * million, []),
            (b"[" * million, []),
            (b'{"a":"' + b'\\"\\n' * million + b'"}', []),
            (b'{"a":"' + b"\\u00e9" * 500_000 + b'"}', []),
            (b'{"a":' + b"9" * million + b"}", []),
            (b'"' * million, []),
            (b" " * 4 * million, []),
            (b'{"data":"' + b'","data":"' * 300_000 + b'"}', []),
            (b'{"a":"' + b"a b " * million + b'"}', []),
            (b"&" * million, FORM),
            (b"a=%61&" * 500_000, FORM),
            (b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 50_000, MULTIPART),
            (gzip.compress(b"[" * 50 * million), [b"Content-Encoding: gzip"]),
            (gzip.compress(b'{"a":[' + b"[[[[1]]]]," * million), [b"Content-Encoding: gzip"]),
        ):
            reader = RequestReader(lines, everything)
            longest = 0.0
            for at in range(0, len(body), 65_536):
                turns = 0
                while turns == 0 or reader.pending:
                    begin = process_time()
                    if turns:
                        reader.work()
                    else:
                        reader.feed(body[at : at + 65_536])
                    longest = max(longest, process_time() - begin)
                    turns += 1
            reader.end()
            self.assertLess(longest, 0.1, body[:30])
