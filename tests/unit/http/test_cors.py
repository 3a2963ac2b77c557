from __future__ import annotations

from unittest import TestCase

from llmproxy.errors import OriginNotAllowed, OriginRequired
from llmproxy.http import cors, fields

APP = "https://app.example.com"
FROM_APP = [b"Origin: https://app.example.com"]
FROM_EVIL = [b"Origin: https://evil.example"]


class Checking(TestCase):
    def test_an_allowed_origin(self) -> None:
        """As it is in the list, or any with a star, or none at all."""
        cors.check(FROM_APP, [APP])
        cors.check(FROM_EVIL, ["*"])
        cors.check([], [APP])
        cors.check(FROM_EVIL, [])

    def test_a_refused_origin(self) -> None:
        """Anything that only looks like one of the list, and two at once."""
        for origin in (
            b"https://evil.example",
            b"https://APP.example.com",
            b"https://app.example.com.evil",
            b"null",
            b"",
            b"\xff",
        ):
            with self.subTest(origin=origin), self.assertRaises(OriginNotAllowed) as caught:
                cors.check([b"Origin: " + origin], [APP])
            self.assertNotIn("evil", str(caught.exception))
        with self.assertRaises(OriginNotAllowed):
            cors.check([*FROM_APP, *FROM_EVIL], [APP])


class Preflight(TestCase):
    def test_an_allowed_origin(self) -> None:
        """May use the API's methods and the fields it asked for."""
        lines = [
            *FROM_APP,
            b"Access-Control-Request-Method: POST",
            b"Access-Control-Request-Headers: authorization, x-a",
        ]
        out = cors.preflight(lines, [APP], ["GET", "POST"])
        self.assertEqual(fields.value(out, b"access-control-allow-origin"), APP.encode())
        self.assertEqual(fields.value(out, b"access-control-allow-methods"), b"GET, POST")
        self.assertEqual(fields.value(out, b"access-control-allow-headers"), b"authorization, x-a")
        self.assertEqual(fields.value(out, b"vary"), b"Origin")

    def test_any_origin(self) -> None:
        """Nothing is reflected where any will do."""
        out = cors.preflight(FROM_EVIL, ["*"], ["POST"])
        self.assertEqual(fields.value(out, b"access-control-allow-origin"), b"*")
        self.assertIsNone(fields.value(out, b"vary"))

    def test_a_refused_origin(self) -> None:
        """Is told so, as is one that does not say who it is."""
        with self.assertRaises(OriginNotAllowed):
            cors.preflight(FROM_EVIL, [APP], ["POST"])
        with self.assertRaises(OriginRequired):
            cors.preflight([], [APP], ["POST"])

    def test_fields_that_are_no_names(self) -> None:
        """Are not echoed."""
        for asked in (b"a b", b"a,,b", b"<x>", b"a" * 3000, b""):
            out = cors.preflight([*FROM_APP, b"Access-Control-Request-Headers: " + asked], [APP], ["POST"])
            self.assertIsNone(fields.value(out, b"access-control-allow-headers"))


class Answering(TestCase):
    def test_an_allowed_origin_may_read(self) -> None:
        """The answer and all of its fields."""
        out = cors.response_lines(FROM_APP, [APP])
        self.assertEqual(fields.value(out, b"access-control-allow-origin"), APP.encode())
        self.assertEqual(fields.value(out, b"access-control-expose-headers"), b"*")
        self.assertIn(b"Vary: Origin", out)
        self.assertIn(b"Access-Control-Allow-Origin: *", cors.response_lines(FROM_EVIL, ["*"]))

    def test_a_refused_origin_is_not_reflected(self) -> None:
        """Nor does a cache take the answer for another's."""
        self.assertEqual(cors.response_lines(FROM_EVIL, [APP]), [b"Vary: Origin"])
        self.assertEqual(cors.response_lines([], [APP]), [b"Vary: Origin"])
        self.assertEqual(cors.response_lines([], ["*"]), [])
