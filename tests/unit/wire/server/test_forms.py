"""Forms, and what only looks like one."""

from __future__ import annotations

from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy import errors
from llmproxy.wire.server.forms import fields

MULTIPART = b"multipart/form-data; boundary=xyz"


def part(name: bytes, content: bytes, *lines: bytes) -> bytes:
    head = [b"--xyz", b'Content-Disposition: form-data; name="' + name + b'"', *lines, b"", b""]
    return b"\r\n".join(head) + content + b"\r\n"


class Forms(TestCase):
    def test_in_the_address_manner(self) -> None:
        for kind in (b"application/x-www-form-urlencoded", b"Application/X-WWW-Form-URLencoded ; charset=utf-8"):
            self.assertEqual(fields(kind, b"a=1&a=2&b=x+y&c="), {b"a": [b"1", b"2"], b"b": [b"x y"], b"c": [b""]})

    def test_in_parts(self) -> None:
        body = part(b"a", b"1") + part(b"a", b"2\r\n3") + part(b"file", b"\x00\xff", b"Content-Type: image/png")
        self.assertEqual(fields(MULTIPART, body + b"--xyz--\r\n"), {b"a": [b"1", b"2\r\n3"], b"file": [b"\x00\xff"]})

    def test_parts_without_a_name(self) -> None:
        self.assertEqual(fields(MULTIPART, b"--xyz\r\nContent-Type: text/plain\r\n\r\nx\r\n--xyz--\r\n"), {})

    def test_no_parts(self) -> None:
        for kind, body in ((MULTIPART, b""), (b"multipart/form-data", part(b"a", b"1")), (MULTIPART, b"--abc\r\n")):
            self.assertRaises(errors.BodyUnreadable, fields, kind, body)

    def test_no_form(self) -> None:
        self.assertEqual(fields(b"application/json", b"a=1"), {})

    @given(st.binary(max_size=300))
    def test_any_bytes(self, body: bytes) -> None:
        """Fields, or the one error."""
        for sent in (body, part(b"a", body) + b"--xyz--\r\n", b"--xyz\r\n" + body + b"\r\n--xyz--\r\n"):
            try:
                fields(MULTIPART, sent)
            except errors.BodyUnreadable:
                pass
