"""Long bodies that are read by a few calls say what the reader says that goes step by step."""

from __future__ import annotations

import json
from itertools import product
from time import process_time
from typing import Any
from unittest import TestCase
from unittest.mock import patch

from hypothesis import example, given
from hypothesis import strategies as st

from llmproxy.http import json_members, whole_body
from llmproxy.http.json_members import MAX_VALUE_BYTES
from llmproxy.http.model_and_stream import read_model_and_stream
from llmproxy.http.whole_body import (
    MAX_CHECKED_BYTES,
    MAX_EXACT_BYTES,
    MAX_SHORT_BYTES,
    MAX_WHOLE_BYTES,
    measure_body,
    read_uncoded,
)
from tests.support.reading import everything, read
from tests.unit.http.test_model_and_stream import NAMED, OTHERS, VALUES

DECOY = json.dumps({"model": "decoy", "max_tokens": 1, "stream": False, "text": '{"model":"decoy", "n":9}: \\ "é"'})
MESSAGE = json.dumps({"role": "user", "content": DECOY + "Some words of a conversation, 12 or so. " * 20}) + ","
MEMBERS = '"model":"m","stream":true,"max_tokens":77,"tools":[{"parameters":{"model":"x","n":3}}]'
TWICE = ('"model":"a"', '"mod\\u0065l":"a"', '"stream":true', '"max_tokens":77')
PAIRS = st.tuples(st.sampled_from([*NAMED, '"max_tokens"', '"n"']), st.sampled_from(VALUES) | OTHERS)
WANTED = ("model", "stream", "max_tokens", "n", "tools", "input", "Model")

UNITS = '{},|[],|0,|0.1,|"",|{"a":{"b":1}},|"":"",|"data":"|\\"|\\n|\\u00e9|\\ud83d\\ude00|é|a: |"a\\u0061":1,| '


def wanted(name: str) -> bool:
    return name in WANTED


def long_body(size: int, first: str = "", last: str = "", unit: str = MESSAGE) -> bytes:
    """A conversation of so many bytes, with these members before it and behind."""
    start, end = ("{" + first + ',"messages":[').encode(), ("]," + last + "}").encode()
    room = size - len(start) - len(end) - 11
    turns = unit.encode() * (room // len(unit.encode()))
    return start + turns + b'{"text":"%b"}' % (b"x" * (room - len(turns))) + end


class LongBodies(TestCase):
    def same(self, body: bytes, **how: Any) -> bool:
        """Whether it was read by a few calls. If so, it says what the reader says, text apart."""
        found = read_uncoded(body, wanted, **how)
        if found is None:
            return False
        slow = read(body, wanted=wanted)
        more = {} if how.get("measured") else {"media": found.media, "unseen_media": found.unseen_media}
        self.assertEqual(found, slow._replace(text=found.text, **more))
        self.assertEqual(json.dumps(found.members), json.dumps(slow.members))
        return True

    def test_around_all_borders(self) -> None:
        """Members before and behind, and one that is there twice, spelled in another way, or in something else."""
        for border in (MAX_SHORT_BYTES, MAX_VALUE_BYTES, MAX_EXACT_BYTES, MAX_CHECKED_BYTES):
            for size, strictly in product((border - 1, border, border + 1), (True, False)):
                how = {"strictly": strictly, "measured": strictly}
                short = size <= MAX_CHECKED_BYTES or not strictly
                self.assertEqual(self.same(long_body(size, MEMBERS, '"n":2'), **how), short, size)
                self.assertEqual(self.same(long_body(size, '"n":2', MEMBERS), **how), short, size)
        for size in (MAX_VALUE_BYTES + 1, MAX_EXACT_BYTES + 1):
            for name in TWICE:
                for body in (long_body(size, MEMBERS, name), long_body(size, name, MEMBERS)):
                    self.assertFalse(self.same(body, strictly=True))
            self.assertTrue(self.same(long_body(size, MEMBERS, '"Model":"y"'), strictly=True, measured=True))

    def test_the_longest(self) -> None:
        for size in (MAX_WHOLE_BYTES, MAX_WHOLE_BYTES + 1):
            body = long_body(size, '"n":2', MEMBERS)
            found = read_uncoded(body, wanted, strictly=False)
            self.assertEqual(found is not None, size == MAX_WHOLE_BYTES)
            if found is not None:
                self.assertEqual((found.model, found.stream, found.members["max_tokens"]), ("m", True, 77))
            self.assertEqual(read_model_and_stream(body), ("m", True, False))

    def test_long_values(self) -> None:
        """What is too long to be kept is said to be, at the same length."""
        for length in range(MAX_VALUE_BYTES - 4, MAX_VALUE_BYTES + 2):
            for space in ("", " "):
                last = f'"input":{space}"{"y" * length}"'
                body = long_body(MAX_VALUE_BYTES + length + 500, MEMBERS, last)
                self.assertTrue(self.same(body, strictly=True, measured=True), length)

    @given(
        st.lists(
            st.tuples(st.sampled_from([*NAMED, '"max_tokens"', '"n"']), st.sampled_from(VALUES) | OTHERS), max_size=6
        ),
        st.sampled_from(["", " ", "\n\t"]),
        st.booleans(),
    )
    @example([('"a"', "1"), ('"model"', '"b"'), ('"a"', "12")], "", True)
    @example([('"model"', '"b"'), ('"a"', '"' + "x" * 70 + '"')], " ", True)
    def test_as_the_reader_of_bodies(self, pairs: list[tuple[str, str]], space: str, strictly: bool) -> None:
        """As if a value were long from 64 bytes on."""
        body = ("{" + f"{space},".join(f"{name}{space}:{space}{value}" for name, value in pairs) + "}").encode()
        with (
            patch.object(whole_body, "MAX_VALUE_BYTES", 64),
            patch.object(json_members, "MAX_VALUE_BYTES", 64),
        ):
            found = read_uncoded(body, everything, strictly=strictly)
            slow = read(body)
        if found is not None and (strictly or len(body) > 64):
            self.assertEqual(found._replace(text=slow.text, media=slow.media, unseen_media=slow.unseen_media), slow)

    def test_the_measure(self) -> None:
        """Of a long one it is that of the reader, in the mean: samples differ, whose places nobody can know before."""
        for size in (MAX_VALUE_BYTES + 1, MAX_EXACT_BYTES, MAX_EXACT_BYTES + 1, MAX_CHECKED_BYTES):
            body, times = long_body(size, MEMBERS, '"n":2'), range(25)
            found = [read_uncoded(body, wanted, strictly=True, measured=True) for _ in times]
            quick = [each.text for each in found if each is not None]
            self.assertEqual(len(quick), len(times))
            slow = [read(body).text for _ in times]
            for measures in (quick, [measure_body(body, []).text for _ in times]):
                for name in ("words", "digits", "signs", "spaces", "rare"):
                    ours, theirs = (sum(getattr(each, name) for each in of) for of in (measures, slow))
                    self.assertLessEqual(abs(ours - theirs), 0.2 * theirs, (size, name))

    def test_media_in_long_ones(self) -> None:
        """They are found wherever they are."""
        medium = '{"image_url":{"url":"data:image/png;base64,%s"}},{"image_url":{"url":"https://h/a"}},' % ("A" * 4000)
        for size in (MAX_EXACT_BYTES, MAX_CHECKED_BYTES):
            body = long_body(size, MEMBERS, '"n":2', MESSAGE * 60 + medium)
            found, slow = read_uncoded(body, wanted, strictly=True, measured=True), read(body)
            assert found is not None
            self.assertEqual((found.media, found.unseen_media), (slow.media, slow.unseen_media))
            self.assertTrue(found.media)

    def test_none_takes_long(self) -> None:
        """Whatever stands in it: some 20 ms on a quiet machine; here ten times that."""
        units = [*UNITS.split("|"), "[" * 190 + "]" * 190 + ",", "[" * 900, '{"a":' * 400 + "1" + "}" * 400 + ","]
        for unit in units:
            for start, end in (('{"a":[', "0]}"), ('{"a":"', '"}'), ("{", '"a":0}')):
                for size, how in ((MAX_WHOLE_BYTES, False), (MAX_CHECKED_BYTES, True)):
                    text = start.encode() + unit.encode() * ((size - 20) // len(unit.encode())) + end.encode()
                    for call in (
                        lambda: read_uncoded(text, wanted, strictly=how, measured=how),  # noqa: B023
                        lambda: read_model_and_stream(text),  # noqa: B023
                        lambda: measure_body(text, []),  # noqa: B023
                    ):
                        begun = process_time()
                        call()
                        self.assertLess(process_time() - begun, 0.2, (unit[:10], start, size))
