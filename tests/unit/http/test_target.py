from __future__ import annotations

from unittest import TestCase
from urllib.parse import unquote_to_bytes

from hypothesis import example, given
from hypothesis import strategies as st

from llmproxy.errors import BadTarget
from llmproxy.http.target import RequestTarget, check_query, has_encoded_slash, parse

REFUSED = [
    b"",
    b"v1/x",
    b"@host/v1",
    b".evil/v1",
    b":1@host",
    b"?x",
    b"*",
    b"http://api.openai.com/v1",
    b"//",
    b"//evil.example/v1",
    b"/v1//models",
    b"/v1/./models",
    b"/v1/../models",
    b"/..",
    b"/.",
    b"/v1/%2e/x",
    b"/v1/%2E%2e/x",
    b"/v1/.%2e/x",
    b"/v1/a%2Eb",
    b"/v1/a%2f..%2fb",
    b"/v1/a%2F.%2Fb",
    b"/v1/%2Fa",
    b"/v1/a%2F",
    b"/v1/a%2F/b",
    b"/v1/a%2F%2Fb",
    b"/v1\\x",
    b"/v1%5cx",
    b"/v1/x%00",
    b"/v1/x%0d%0ay",
    b"/v1/x%7f",
    b"/v1/x;a=b",
    b"/v1/x%3Ba=b",
    b"/v1/x#y",
    b"/v1/x%23y",
    b"/v1/x%3fy",
    b"/v1/%252e%252e/x",
    b"/v1/x%",
    b"/v1/x%2",
    b"/v1/x%zz",
    b"/v1/x y",
    b"/v1/x\ty",
    b"/v1/x\x00y",
    b"/v1/x\x7fy",
    b"/v1/\xc3\xa9",
    b"/v1/%c0%ae%c0%ae/x",
    b"/v1/%c0%afx",
    b"/v1/%ff",
    b"/v1/x?a b",
    b"/v1/x?a#b",
    b"/v1/x?a\\b",
    b"/v1/x?%",
    b"/v1/x?%0",
    b"/v1/x?\xff",
    b"/v1/x?\r\n",
]


class Parsing(TestCase):
    def test_a_plain_path(self) -> None:
        """Every part comes out as it went in."""
        self.assertEqual(
            parse(b"/v1/chat/completions"),
            RequestTarget(b"/v1/chat/completions", None, (b"v1", b"chat", b"completions")),
        )

    def test_an_empty_query_is_not_none(self) -> None:
        """The question mark is forwarded if it was sent."""
        self.assertEqual(parse(b"/v1?").query, b"")
        self.assertIsNone(parse(b"/v1").query)

    def test_a_query_may_hold_what_a_path_may_not(self) -> None:
        """Dots, semicolons, slashes and encoded bytes have no meaning of their own in a query."""
        self.assertEqual(parse(b"/v1?a=../b;c=//%2e%00?d").query, b"a=../b;c=//%2e%00?d")

    def test_a_trailing_slash_is_an_empty_last_segment(self) -> None:
        """So that it is another path."""
        self.assertEqual(parse(b"/v1/").segments, (b"v1", b""))
        self.assertEqual(parse(b"/").segments, (b"",))

    def test_verbs_and_colons_pass(self) -> None:
        """Google's verbs and fine-tuned models' names are ordinary segments."""
        for path in (b"/v1beta/models/gemini-2.5-pro:generateContent", b"/v1/models/ft:gpt-4o:acme::abc", b"/v1/%3A"):
            self.assertEqual(parse(path).path, path)

    def test_encoded_utf8_passes(self) -> None:
        """A name may be in any script."""
        self.assertEqual(parse(b"/v1/%C3%A9").segments, (b"v1", b"%C3%A9"))

    def test_an_encoded_slash_is_left_to_the_endpoints(self) -> None:
        """It is neither split at nor refused here."""
        self.assertEqual(parse(b"/v1/org%2Fmodel").segments, (b"v1", b"org%2Fmodel"))
        self.assertTrue(has_encoded_slash(b"/a%2fb"))
        self.assertFalse(has_encoded_slash(b"/a/b"))

    def test_what_two_readers_could_read_differently_is_refused(self) -> None:
        """Each of the known ways around an allow-list is a 400."""
        for uri in REFUSED:
            with self.subTest(uri=uri), self.assertRaises(BadTarget):
                parse(uri)

    def test_a_query_alone(self) -> None:
        """As when the path is already known."""
        check_query(b"alt=sse&key=a%20b")
        with self.assertRaises(BadTarget):
            check_query(b"a\nb")


class Properties(TestCase):
    def one_reading(self, uri: bytes) -> None:
        """Decoded or not, split before or after decoding: no dot segment, no empty one, no control."""
        try:
            target = parse(uri)
        except BadTarget:
            return
        self.assertEqual(uri, target.path + (b"" if target.query is None else b"?" + target.query))
        self.assertEqual(target.path, b"/" + b"/".join(target.segments))
        decoded = unquote_to_bytes(target.path)
        decoded.decode("utf-8")
        self.assertFalse(set(decoded.split(b"/")) & {b".", b".."})
        self.assertNotIn(b"//", decoded)
        self.assertFalse(any(byte < 0x20 or byte in b"\x7f\\;#?%" for byte in decoded))
        self.assertTrue(all(0x21 <= byte <= 0x7E for byte in uri))

    @given(st.binary(max_size=60).map(lambda tail: b"/" + tail))
    def test_any_bytes(self, uri: bytes) -> None:
        """Whatever is sent has one reading or is a 400."""
        self.one_reading(uri)

    @given(st.text("./%2eEfF5cC;:a\\?#", max_size=12).map(lambda tail: b"/" + tail.encode()))
    @example(b"/%2f%2e%2e")
    @example(b"/a%2f..")
    def test_bytes_that_mean_something(self, uri: bytes) -> None:
        """The same where every second byte is one that paths are played with."""
        self.one_reading(uri)
